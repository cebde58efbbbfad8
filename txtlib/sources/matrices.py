"""Expression matrices of public sources: read in blocks, and named by gene symbol."""

import csv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import csv as arrow_csv

from txtlib.cohort import CohortError
from txtlib.sources.tables import MISSING, is_gzip, open_text, reading

BLOCK = 1 << 25  # bytes of text in memory at a time; longer than any row
REPEATS = "of rows with the same symbol the one with the highest mean is kept, rows without a symbol are dropped"


class Matrix(NamedTuple):
    """Expression as sources give it: ``values`` (G, n) float32, a row for each of G names."""

    names: list[str]
    samples: list[str]
    values: np.ndarray

    def frame(self) -> pd.DataFrame:
        """Return (n, G), without a copy."""
        return pd.DataFrame(self.values.T, index=self.samples, columns=self.names)


def read_matrix(
    path: Path,
    first: Sequence[str],
    keep: Callable[[str], bool],
    convert: Callable[[np.ndarray], np.ndarray] = np.asarray,
) -> Matrix:
    """Read a text table of genes x samples in blocks, a csv (commas) or else tab-separated, gz or not.

    ``first`` are the names that the first column may have, ``keep`` chooses the columns, and ``convert`` changes a
    block of values, (g, n) float32. Raises CohortError for another header, and for text among the values.
    """
    comma = "," if ".csv" in path.name else "\t"
    with reading(path):
        header = _header(path, comma)
        if header[0] not in first or len(set(header)) < len(header) or len(header) < 2:
            raise CohortError(
                f"{path}: the header starts with {header[:3]}, and should be one of {list(first)} with a sample in "
                "each further column, none twice; the source has changed its format, so the recipe must change too."
            )
        samples = [name for name in header[1:] if keep(name)]
        names, blocks = [], []
        for batch in _batches(path, comma, header, samples):
            names += batch.column(0).to_pylist()
            blocks.append(convert(_values(batch)))
        return Matrix(names, samples, _stacked(blocks, len(names), len(samples)))


def _header(path: Path, comma: str) -> list[str]:
    with open_text(path) as file:
        return next(csv.reader([file.readline().rstrip("\r\n")], delimiter=comma), [""])


def _batches(path: Path, comma: str, header: list[str], samples: list[str]) -> Iterator[pa.RecordBatch]:
    read = arrow_csv.ReadOptions(block_size=BLOCK, column_names=["name", *header[1:]], skip_rows=1)
    types = {"name": pa.string(), **dict.fromkeys(samples, pa.float32())}
    convert = arrow_csv.ConvertOptions(
        column_types=types, include_columns=list(types), null_values=MISSING, strings_can_be_null=False
    )
    compression = "gzip" if is_gzip(path) else None
    with pa.input_stream(str(path), compression=compression) as stream:
        yield from arrow_csv.open_csv(stream, read, arrow_csv.ParseOptions(delimiter=comma), convert)


def _values(batch: pa.RecordBatch) -> np.ndarray:
    values = np.empty((batch.num_rows, batch.num_columns - 1), np.float32)
    for column in range(batch.num_columns - 1):
        values[:, column] = batch.column(column + 1).to_numpy(zero_copy_only=False)
    return values


def _stacked(blocks: list[np.ndarray], rows: int, columns: int) -> np.ndarray:
    values = np.empty((rows, columns), np.float32)
    start = 0
    while blocks:  # each block is given back as soon as it is copied
        block = blocks.pop(0)
        values[start : start + len(block)] = block
        start += len(block)
    return values


def by_symbol(matrix: Matrix, symbols: Sequence[str | None]) -> Matrix:
    """Name the rows by gene symbol, each symbol once: the row with the highest mean (the first of equals) stays.

    Rows without a symbol are dropped. The rows move up in place, for the matrices are large.
    """
    names = pd.Series(list(symbols), dtype=object).map(_stripped)
    names = names[names.notna()]
    repeated = names[names.duplicated(keep=False)]
    means = pd.Series([_mean(matrix.values[row]) for row in repeated.index], repeated.index, dtype=float)
    best = means.groupby(repeated).idxmax() if len(means) else means
    kept = sorted({*names.index.difference(repeated.index), *best.astype(int)})
    for new, old in enumerate(kept):
        if new != old:
            matrix.values[new] = matrix.values[old]
    return Matrix(list(names[kept]), matrix.samples, matrix.values[: len(kept)])


def _stripped(name) -> str | None:
    name = "" if pd.isna(name) else str(name).strip()
    return None if name in {"", "NA", "?", "."} else name


def _mean(row: np.ndarray) -> float:
    present = row[~np.isnan(row)]
    return float(present.mean(dtype=float)) if len(present) else -np.inf


def without_version(identifiers: Sequence[str]) -> list[str]:
    """Return Ensembl ids without their version (ENSG00000000003.13), which differs between releases."""
    return [identifier.split(".")[0] if "_PAR_" not in identifier else identifier for identifier in identifiers]


def symbols_of(identifiers: Sequence[str], table: pd.DataFrame, identifier: str, symbol: str) -> list[str | None]:
    """Return the gene symbol of each Ensembl id by an annotation table, None where it has none."""
    known = dict(zip(without_version(table[identifier].astype(str)), table[symbol], strict=True))
    return [known.get(name) for name in without_version(identifiers)]
