"""Small tables of public sources, and the labels that all cohorts share."""

import csv
import gzip
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from txtlib.cohort import CohortError, Task

MISSING = ["", "NA", "NaN", "nan", "null", "NULL"]
PAM50 = ("Basal", "Her2", "LumA", "LumB", "Normal")
PAM50_CODES = {name: name for name in PAM50}
GRADES = ("G1", "G2", "G3")
GRADE_CODES = {code: grade for number, grade in enumerate(GRADES, 1) for code in (str(number), grade)}
AGE = Task("Age", "regression", ("Age",))
OS = Task("OS", "survival", ("OS_duration", "OS_event"))
BREAST = (
    AGE,
    Task("Size", "regression", ("Size",)),
    Task("NHG", "classification", ("NHG",)),
    Task("PAM50", "classification", ("PAM50",)),
)
BREAST_ABOUT = {
    "units": {"Age": "years", "Size": "mm", "OS_duration": "days"},
    "classes": {"NHG": list(GRADES), "PAM50": list(PAM50)},
}


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what parsers raise about a file, which can be anything, into one sentence that names it.

    CohortError passes, and so does what the system says (a full disk) rather than the parser.
    """
    try:
        yield
    except (CohortError, MemoryError):
        raise
    except Exception as error:
        if getattr(error, "errno", None):
            raise
        raise CohortError(
            f"{path} cannot be read ({type(error).__name__}: {error}); it is truncated, damaged or in another format "
            "than before: remove it, download it again, and if that does not help, report the change."
        ) from error


def is_gzip(path: Path) -> bool:
    """Say whether a file is gzip, by its content: some servers compress without saying so in the name."""
    with open(path, "rb") as file:
        return file.read(2) == b"\x1f\x8b"


def open_text(path: Path, encoding: str = "utf-8") -> io.TextIOBase:
    """Open a text file, gz or not, whatever its name; every kind of line end counts."""
    return gzip.open(path, "rt", encoding=encoding) if is_gzip(path) else open(path, encoding=encoding)


def read_tsv(path: Path, columns: Sequence[str], comment: str = "", encoding: str = "utf-8") -> pd.DataFrame:
    """Read a small tab-separated table as text, missing cells as NaN, without the lines that start with ``comment``.

    Raises CohortError if it lacks one of ``columns``.
    """
    with reading(path), open_text(path, encoding) as file:
        lines = (line for line in file if not (comment and line.startswith(comment)))
        text = io.StringIO("".join(lines))
        table = pd.read_csv(text, sep="\t", dtype=str, na_values=MISSING, keep_default_na=False, quoting=csv.QUOTE_NONE)
    table.columns = table.columns.str.strip()
    require(table, columns, path)
    return table


def require(table: pd.DataFrame, columns: Sequence[str], path: Path) -> None:
    """Raise CohortError unless the table has all columns."""
    lacking = [column for column in columns if column not in table]
    if lacking:
        raise CohortError(
            f"{path} has no column {', '.join(map(repr, lacking))} (it starts with "
            f"{', '.join(map(str, table.columns[:5]))}); the source has changed its format, so the recipe must change."
        )


def first_column(table: pd.DataFrame, names: Sequence[str], path: Path) -> str:
    """Return the first of the names that the table has; CohortError if it has none."""
    found = [name for name in names if name in table]
    if not found:
        require(table, [" or ".join(names)], path)
    return found[0]


def numbers(values: pd.Series) -> pd.Series:
    """Return numbers, NaN for whatever is none."""
    return pd.to_numeric(values, errors="coerce").astype(float)


def sizes(values: pd.Series) -> pd.Series:
    """Return tumour sizes in mm; one of 0 mm is missing."""
    return numbers(values).where(lambda size: size > 0)


def labels(values: pd.Series, codes: dict[str, str], where: Path, unlabelled: list[str]) -> pd.Series:
    """Translate a source's codes; a code that has no translation is no label, and goes to ``unlabelled``.

    Raises CohortError if there are codes and not one is known: then the source has changed its coding.
    """
    text = values.astype("string").str.strip().str.removesuffix(".0")
    known = text.map(codes).astype(object)
    unknown = text[text.notna() & known.isna() & ~text.isin(MISSING)].value_counts()
    if len(unknown) and known.isna().all():
        raise CohortError(
            f"{where}: column {values.name!r} holds {', '.join(unknown.index[:3])}, and none of the codes "
            f"{', '.join(codes)}; the source has changed its coding, so the recipe must change too."
        )
    unlabelled += [f"{values.name} {code} ({count})" for code, count in unknown.items()]
    return known.where(known.notna(), np.nan)


def shared_notes(notes: str, unlabelled: list[str]) -> str:
    """Return the notes of cohort.yml, with the codes that became missing labels."""
    return f"{notes}; no label, in the whole clinical table: {', '.join(unlabelled)}" if unlabelled else notes
