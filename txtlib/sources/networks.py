"""Protein links and gene sets, for ``networks/`` and ``genesets/``."""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import compute
from pyarrow import csv as arrow_csv

from txtlib.cohort import CohortError
from txtlib.sources.tables import open_text, read_tsv, reading, require

SETS = 50


def string(files: dict[str, Path], score: int = 400) -> bytes:
    """Return STRING's edges of at least this score (0 to 1000) between gene symbols, each once, as a csv.gz.

    Columns ``protein1``, ``protein2`` (in alphabetical order) and ``combined_score``, the highest of a pair.
    """
    symbols = _symbols(files["info"])
    links = _links(files["links"], score)
    pairs = np.sort(links[["protein1", "protein2"]].apply(lambda ids: ids.map(symbols)).to_numpy(str), axis=1)
    edges = pd.DataFrame(pairs, columns=["protein1", "protein2"]).assign(
        combined_score=links["combined_score"].to_numpy()
    )
    edges = edges[(edges["protein1"] != edges["protein2"]) & (pairs != "nan").all(axis=1)]
    edges = edges.groupby(["protein1", "protein2"], as_index=False)["combined_score"].max()
    if edges.empty:
        raise CohortError(f"{files['links']} has no edge of at least {score}; give a lower score, 0 to 1000.")
    return gzip.compress(edges.to_csv(index=False).encode(), mtime=0)  # the same bytes whenever


def _symbols(path: Path) -> dict[str, str]:
    table = read_tsv(path, ("#string_protein_id", "preferred_name"))
    return dict(zip(table["#string_protein_id"], table["preferred_name"], strict=True))


def _links(path: Path, score: int) -> pd.DataFrame:
    with reading(path):
        table = arrow_csv.read_csv(path, parse_options=arrow_csv.ParseOptions(delimiter=" "))
        require(table.slice(0, 1).to_pandas(), ("protein1", "protein2", "combined_score"), path)
        scores = table["combined_score"].cast(pa.int64())
        return table.filter(compute.greater_equal(scores, score)).to_pandas()


def hallmark(files: dict[str, Path]) -> bytes:
    """Return the Hallmark gene sets as they are, after a look at them; CohortError if they are not 50 in GMT."""
    with reading(files["sets"]), open_text(files["sets"]) as file:
        text = file.read()
    rows = [line.split("\t") for line in text.splitlines()]
    bad = [row[0] for row in rows if len(row) < 3 or not row[0].startswith("HALLMARK_")]
    if bad or len(rows) != SETS:
        raise CohortError(
            f"{files['sets']} holds {len(rows)} lines instead of {SETS} Hallmark sets in GMT (name, address, symbols; "
            f"first odd one: {bad[:1]}); it is no whole file, or the source has changed its format."
        )
    return text.encode()
