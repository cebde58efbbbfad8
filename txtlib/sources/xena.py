"""Cohorts from UCSC Xena's hubs: TCGA-BRCA, TARGET-AML, and TCGA with TARGET and GTEx."""

from pathlib import Path

import numpy as np
import pandas as pd

from txtlib.cohort import Cohort, Task, make_cohort
from txtlib.sources.matrices import REPEATS, by_symbol, read_matrix, symbols_of
from txtlib.sources.tables import (
    AGE,
    OS,
    PAM50,
    PAM50_CODES,
    first_column,
    labels,
    numbers,
    read_tsv,
    reading,
    require,
    shared_notes,
)

DAYS_PER_YEAR = 365.25
T_STAGES = ("T1", "T2", "T3", "T4")
DIAGNOSTIC = ("09", "03")  # primary blood derived cancer: bone marrow before peripheral blood
IDENTIFIERS = ("sample", "Ensembl_ID")


# --- TCGA-BRCA ------------------------------------------------------------------------------------------------


def tcga_brca(files: dict[str, Path]) -> Cohort:
    """Return the primary tumours of TCGA-BRCA with the outcomes of TCGA-CDR (Liu et al. 2018)."""
    unlabelled = []
    clinical = _brca_labels(files, unlabelled)
    matrix = read_matrix(files["matrix"], ("sample", "Sample"), keep=is_primary)
    tasks = [Task(name, "classification", (name,)) for name in ("TStage", "PAM50")]
    about = {
        "name": "TCGA-BRCA",
        "expression": "log2(RSEM normalised count + 1), gene symbols",
        "units": {"Age": "years", "OS_duration": "days"},
        "classes": {"TStage": list(T_STAGES), "PAM50": list(PAM50)},
        "patient": "Patient",
        "licence": "TCGA open-access tier",
        "citation": ["10.1038/nature11412", "10.1016/j.cell.2018.02.052"],
        "notes": shared_notes(
            f"primary tumours; no grade, no size in mm; patients that TCGA-CDR redacts are left out; {REPEATS}",
            unlabelled,
        ),
    }
    frame = by_symbol(matrix, matrix.names).frame()
    return make_cohort(frame, clinical, (AGE, *tasks, OS), about, where=files["clinical"])


def is_primary(barcode: str) -> bool:
    """Say whether a TCGA sample is a primary solid tumour (TCGA-XX-XXXX-01)."""
    return barcode.split("-")[3:4] in (["01"], ["01A"])


def _brca_labels(files: dict[str, Path], unlabelled: list[str]) -> pd.DataFrame:
    table = read_tsv(files["clinical"], ("sampleID", "PAM50Call_RNAseq", "pathologic_T")).set_index("sampleID")
    outcomes = _outcomes(files["outcomes"])
    table = table[[is_primary(name) and name[:12] in outcomes.index for name in table.index]]
    outcomes = outcomes.loc[table.index.str[:12]].set_axis(table.index)
    stage = table["pathologic_T"].str.extract(r"^(T[1-4X])", expand=False).fillna(table["pathologic_T"])
    return pd.DataFrame(
        {
            "Patient": table.index.str[:12],
            "Age": numbers(outcomes["age_at_initial_pathologic_diagnosis"]),
            "TStage": labels(stage, dict(zip(T_STAGES, T_STAGES, strict=True)), files["clinical"], unlabelled),
            "PAM50": labels(table["PAM50Call_RNAseq"], PAM50_CODES, files["clinical"], unlabelled),
            "OS_duration": numbers(outcomes["OS.time"]),
            "OS_event": numbers(outcomes["OS"]),
        },
        table.index,
    )


def _outcomes(path: Path) -> pd.DataFrame:
    with reading(path):
        table = pd.read_excel(path, sheet_name="TCGA-CDR", engine="openpyxl")
    require(table, ("bcr_patient_barcode", "type", "age_at_initial_pathologic_diagnosis", "OS", "OS.time"), path)
    redacted = table["Redaction"].notna() if "Redaction" in table else False
    return table[(table["type"] == "BRCA") & ~np.asarray(redacted)].set_index("bcr_patient_barcode")


# --- TARGET-AML -----------------------------------------------------------------------------------------------


def target_aml(files: dict[str, Path]) -> Cohort:
    """Return TARGET-AML, one diagnostic sample of each patient, with OS; old and new files of the hub."""
    clinical = _aml_labels(files)
    keep = set(clinical.index)
    matrix = read_matrix(files["matrix"], IDENTIFIERS, keep=lambda name: name in keep)
    genes = read_tsv(files["genes"], ("id", "gene"))
    frame = by_symbol(matrix, symbols_of(matrix.names, genes, "id", "gene")).frame()
    chosen = one_per_patient(frame.index)
    about = {
        "name": "TARGET-AML",
        "expression": "log2(FPKM + 1), gene symbols",
        "units": {"Age": "years", "OS_duration": "days"},
        "patient": "Patient",
        "licence": "TARGET open-access tier",
        "citation": ["10.1038/nm.4439", "10.1038/s41587-020-0546-8"],
        "notes": f"one sample at diagnosis for each patient, bone marrow before peripheral blood; {REPEATS}",
    }
    return make_cohort(frame.loc[chosen], clinical.loc[chosen], (AGE, OS), about, where=files["clinical"])


def one_per_patient(samples) -> list[str]:
    """Return the best diagnostic sample of each patient among TARGET barcodes (TARGET-20-PABHET-09A)."""
    codes = {sample: "".join(sample.split("-")[3:4])[:2] for sample in samples}
    ranked = sorted((sample for sample in samples if codes[sample] in DIAGNOSTIC), key=lambda s: (codes[s] != "09", s))
    best = {}
    for sample in ranked:
        best.setdefault(target_patient(sample), sample)
    return sorted(best.values())


def target_patient(sample: str) -> str:
    """Return the patient of a TARGET or TCGA sample: the first three parts of its barcode."""
    return "-".join(sample.split("-")[:3])


def _aml_labels(files: dict[str, Path]) -> pd.DataFrame:
    table = read_tsv(files["clinical"], ())
    table = table.set_index(first_column(table, ("sample", "submitter_id.samples"), files["clinical"]))
    table = table[~table.index.duplicated()]
    survival = read_tsv(files["survival"], ("sample", "OS", "OS.time"))
    survival = survival.set_index(survival["sample"].map(target_patient))
    survival = survival[~survival.index.duplicated()]
    patients = table.index.map(target_patient)
    outcome = survival.reindex(patients).set_axis(table.index)
    columns = {"Patient": patients, "Age": _age(table, files["clinical"])}
    columns |= {"OS_duration": numbers(outcome["OS.time"]), "OS_event": numbers(outcome["OS"])}
    return pd.DataFrame(columns, table.index)


def _age(table: pd.DataFrame, path: Path) -> pd.Series:
    """Return years: from days at diagnosis, or the whole years of the newer files."""
    names = ("age_at_diagnosis.diagnoses", "age_at_index.demographic")
    first_column(table, names, path)
    days, years = (numbers(table[name]) if name in table else pd.Series(np.nan, table.index) for name in names)
    return (days / DAYS_PER_YEAR).round(2).fillna(years)


# --- TCGA, TARGET and GTEx ------------------------------------------------------------------------------------


def tcga_target_gtex(files: dict[str, Path]) -> Cohort:
    """Return Toil's recompute (Vivian et al. 2017) without cell lines, log2(TPM + 1); labels, no outcome."""
    clinical = _toil_labels(files["samples"])
    keep = set(clinical.index)
    matrix = read_matrix(files["matrix"], IDENTIFIERS, keep=lambda name: name in keep, convert=from_thousandth)
    genes = read_tsv(files["genes"], ("id", "gene"))
    tasks = [Task(name, "classification", (name,)) for name in ("CancerType", "Tissue")]
    about = {
        "name": "TCGA, TARGET and GTEx (Toil)",
        "expression": "log2(TPM + 1), from the source's log2(TPM + 0.001), gene symbols",
        "patient": "Patient",
        "licence": "TCGA, TARGET and GTEx open-access tiers",
        "citation": ["10.1038/nbt.3772"],
        "notes": "CancerType is the disease of tumours, and missing for healthy tissue; labels seen once are missing; "
        f"no cell lines; {REPEATS}",
    }
    frame = by_symbol(matrix, symbols_of(matrix.names, genes, "id", "gene")).frame()
    clinical = clinical.loc[frame.index].apply(lambda column: column if column.name == "Patient" else repeated(column))
    return make_cohort(frame, clinical, tasks, about, where=files["samples"])


def from_thousandth(values: np.ndarray) -> np.ndarray:
    """Return log2(TPM + 1) of log2(TPM + 0.001); what rounding has made negative is zero."""
    return np.log2(np.clip(np.exp2(values) - np.float32(0.001), 0, None) + 1)


def repeated(labels: pd.Series) -> pd.Series:
    """Return labels without those that only one sample has."""
    return labels.where(labels.map(labels.value_counts()) > 1)


def _toil_labels(path: Path) -> pd.DataFrame:
    columns = ("sample", "primary disease or tissue", "_primary_site", "_sample_type", "_study")
    table = read_tsv(path, columns, encoding="latin-1").drop_duplicates("sample").set_index("sample")
    table = table[table["_sample_type"] != "Cell Line"]
    healthy = table["_sample_type"].isin(["Normal Tissue", "Solid Tissue Normal"]) | (table["_study"] == "GTEX")
    patients = [toil_patient(name) for name in table.index]
    return pd.DataFrame(
        {
            "Patient": patients,
            "CancerType": table["primary disease or tissue"].mask(healthy),
            "Tissue": table["_primary_site"],
            "SampleType": table["_sample_type"],
            "Study": table["_study"],
        }
    )


def toil_patient(sample: str) -> str:
    """Return the person of a sample: two parts of a GTEx name (GTEX-1117F), three of a TCGA or TARGET one."""
    return "-".join(sample.split("-")[: 2 if sample.startswith("GTEX") else 3])
