"""SCAN-B both ways: the release that the article used, and GEO GSE96058."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import rdata
import xarray

from txtlib.cohort import Cohort, CohortError, Task, make_cohort
from txtlib.sources.matrices import REPEATS, Matrix, by_symbol, read_matrix, symbols_of
from txtlib.sources.tables import (
    BREAST,
    BREAST_ABOUT,
    GRADE_CODES,
    OS,
    PAM50_CODES,
    first_column,
    labels,
    numbers,
    open_text,
    reading,
    require,
    shared_notes,
    sizes,
)

DRFI = Task("DRFi", "survival", ("DRFi_duration", "DRFi_event"))
CLINICAL = ("GEX.assay", "Patient", "Follow.up.cohort", "NHG", "NCN.PAM50", "OS_days", "OS_event")


# --- the article's release ------------------------------------------------------------------------------------


def scanb(files: dict[str, Path]) -> Cohort:
    """Return the follow-up cohort of the release (Staaf et al. 2022), log2(FPKM + 1), with OS and DRFi."""
    unlabelled = []
    clinical = _follow_up(files["clinical"], unlabelled)
    matrix = _release_matrix(files["matrix"], clinical.index)
    symbols = symbols_of(matrix.names, _annotation(files["genes"]), "Gene.ID", "Gene.Name")
    notes = f"Age is the middle of a 5-year range; PAM50 is NCN.PAM50; {REPEATS}"
    about = {
        "name": "SCAN-B, follow-up cohort of the 2022 release",
        "expression": "log2(FPKM + 1), StringTie, adjusted for the library protocol, gene symbols",
        **BREAST_ABOUT,
        "units": {**BREAST_ABOUT["units"], "DRFi_duration": "days"},
        "patient": "Patient",
        "licence": "CC BY 4.0",
        "citation": ["10.17632/yzxtxn4nmd", "10.1038/s41523-022-00465-3"],
        "notes": shared_notes(notes, unlabelled),
    }
    return make_cohort(
        by_symbol(matrix, symbols).frame(), clinical, (*BREAST, OS, DRFI), about, where=files["clinical"]
    )


def _follow_up(path: Path, unlabelled: list[str]) -> pd.DataFrame:
    with reading(path), pd.ExcelFile(path, engine="openpyxl") as book:
        sheets = book.sheet_names
        table = book.parse("SCANB.9206" if "SCANB.9206" in sheets else sheets[0])
    require(table, (*CLINICAL, "DRFi_days", "DRFi_event"), path)
    table = table[table["Follow.up.cohort"].astype(str).str.upper().isin(["TRUE", "1", "1.0"])]
    table = table.set_index(table["GEX.assay"].astype(str))
    ages = [column for column in table if str(column).startswith("Age")] or [first_column(table, ["Age"], path)]
    return pd.DataFrame(
        {
            "Patient": table["Patient"].astype(str),
            "Age": middle_age(table[ages[0]]),
            "Size": sizes(table[first_column(table, ["Size.mm", "T.size"], path)]),
            "NHG": labels(table["NHG"], GRADE_CODES, path, unlabelled),
            "PAM50": labels(table["NCN.PAM50"], PAM50_CODES, path, unlabelled),
            **{f"{name}_duration": numbers(table[f"{name}_days"]) for name in ("OS", "DRFi")},
            **{f"{name}_event": numbers(table[f"{name}_event"]) for name in ("OS", "DRFi")},
        }
    )


def middle_age(values: pd.Series) -> pd.Series:
    """Return the middle of each 5-year range, in years.

    A range is written out (31-35), or by its last year (35 is 31-35), as in the public table: "35(31-35), 40(36-40)".
    Single numbers count as last years if all of them are multiples of five.
    """
    bounds = values.astype("string").str.extract(r"(\d+)\s*[-–]\s*(\d+)").astype(float)
    single = numbers(values)
    last_years = (single.dropna() % 5 == 0).all()
    return bounds.mean(axis=1).where(bounds.notna().all(axis=1), single - 2 * last_years)


def _r_object(path: Path, kind: type):
    with reading(path):
        found = [value for value in rdata.read_rda(path).values() if isinstance(value, kind)]
    if len(found) != 1:
        raise CohortError(
            f"{path} holds {len(found)} objects of the kind {kind.__name__} instead of one; the source has changed its "
            "format, so the recipe must change too."
        )
    return found[0]


def _annotation(path: Path) -> pd.DataFrame:
    table = _r_object(path, pd.DataFrame)
    require(table, ("Gene.ID", "Gene.Name"), path)
    return table


def _release_matrix(path: Path, assays: pd.Index) -> Matrix:
    array = _r_object(path, xarray.DataArray)  # which rdata makes of a matrix with names
    genes, columns = (pd.Index(array[dimension].to_numpy().astype(str)) for dimension in array.dims)
    where = np.flatnonzero(columns.isin(assays))
    if not len(where):
        raise CohortError(f"{path}: none of its {len(columns)} columns is an assay of the clinical table; check both.")
    values = np.empty((len(genes), len(where)), np.float32)
    for new, old in enumerate(where):  # R keeps columns together
        values[:, new] = np.log2(np.clip(array.values[:, old], 0, None) + 1)
    return Matrix(list(genes), list(columns[where]), values)


# --- GEO ------------------------------------------------------------------------------------------------------


def gse96058(files: dict[str, Path]) -> Cohort:
    """Return GSE96058 (Brueffer et al. 2018) without its replicates, log2(FPKM + 1), with OS."""
    unlabelled = []
    series = [read_series(files[key]) for key in ("series_gpl11154", "series_gpl18573")]
    clinical = _geo_labels(pd.concat(series), files["series_gpl11154"], unlabelled)
    first = ("", "Gene", "gene", "symbol", "Unnamed: 0")
    matrix = read_matrix(files["matrix"], first, keep=lambda name: not is_replicate(name), convert=from_tenth)
    about = {
        "name": "SCAN-B (GSE96058)",
        "expression": "log2(FPKM + 1), from the source's log2(FPKM + 0.1), gene symbols",
        **BREAST_ABOUT,
        "licence": "public GEO record, no explicit licence",
        "citation": ["10.1200/PO.17.00135"],
        "notes": shared_notes(f"replicates are dropped; {REPEATS}", unlabelled),
    }
    frame = by_symbol(matrix, matrix.names).frame()
    return make_cohort(frame, clinical, (*BREAST, OS), about, where=files["matrix"])


def is_replicate(name: str) -> bool:
    """Say whether a GSE96058 library is a technical replicate (F12repl)."""
    return "repl" in name.lower()


def from_tenth(values: np.ndarray) -> np.ndarray:
    """Return log2(FPKM + 1) of log2(FPKM + 0.1); what rounding has made negative is zero."""
    return np.log2(np.clip(np.exp2(values) - np.float32(0.1), 0, None) + 1)


def read_series(path: Path) -> pd.DataFrame:
    """Return the characteristics of a GEO series matrix file, a row per sample title, a column per key."""
    titles, cells = [], {}
    with reading(path), open_text(path) as file:
        for row in csv.reader((line for line in file if line.startswith("!Sample_")), delimiter="\t"):
            if row[0] == "!Sample_title":
                titles = row[1:]
            if row[0] == "!Sample_characteristics_ch1":  # a cell names its key: rows need not be aligned
                for title, (key, value) in zip(titles, map(_key_value, row[1:]), strict=True):
                    cells.setdefault(title, {})[key] = value
    if not cells:
        raise CohortError(f"{path} names no sample with characteristics; it is no whole GEO series matrix file.")
    return pd.DataFrame.from_dict(cells, orient="index")


def _key_value(cell: str) -> tuple[str, str]:
    key, _, value = cell.partition(":")
    return key.strip().lower(), value.strip()


def _geo_labels(table: pd.DataFrame, path: Path, unlabelled: list[str]) -> pd.DataFrame:
    require(table, ("age at diagnosis", "tumor size", "nhg", "pam50 subtype"), path)
    require(table, ("overall survival days", "overall survival event"), path)
    table = table[[not is_replicate(title) for title in table.index]]
    return pd.DataFrame(
        {
            "Age": numbers(table["age at diagnosis"]),
            "Size": sizes(table["tumor size"]),
            "NHG": labels(table["nhg"], GRADE_CODES, path, unlabelled),
            "PAM50": labels(table["pam50 subtype"], PAM50_CODES, path, unlabelled),
            "OS_duration": numbers(table["overall survival days"]),
            "OS_event": numbers(table["overall survival event"]),
        }
    )
