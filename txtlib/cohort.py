"""Cohorts: expression and labels of the same patients, checked on the way in, and split into parts.

On disk a cohort is a folder of ``expression.{parquet,csv,csv.gz,tsv,tsv.gz}`` (a row per sample, first column
``Sample``), ``clinical.csv`` (the same first column), ``tasks.csv`` (``name,task``) and ``cohort.yml``.
"""

import os
import shutil
import tempfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import yaml
from pyarrow import parquet

RAW = Path(__file__).parents[1] / "data" / "raw"
EXPRESSION_FILES = tuple(f"expression.{suffix}" for suffix in ("parquet", "csv.gz", "csv", "tsv.gz", "tsv"))
PLAIN = {"compression": "lz4", "use_dictionary": False, "write_statistics": False}  # reads in half the time
KINDS = ("regression", "classification", "survival")
TASK_KINDS = ("regression", "classification", "survival_time", "survival_event")


class CohortError(ValueError):
    """One sentence on what is wrong with a user's input, where, and what to do."""

    def __init__(self, sentence: str):
        """Keep the sentence on one line, whatever the cells or a parser's message in it hold."""
        super().__init__(" ".join(line.strip() for line in str(sentence).splitlines()))


@dataclass(frozen=True)
class Task:
    """What is to be predicted: ``kind`` is regression, classification or survival (columns: time, event)."""

    name: str
    kind: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Cohort:
    """n patients: ``expression`` (n, G) and ``clinical`` (n, any), both indexed by sample name in one order.

    Missing values are NaN in both tables. ``about`` holds what ``cohort.yml`` says (name, units, licence,
    citation, notes, and optionally ``patient``, the column that names the patient of each sample, and
    ``classes``, the vocabulary of each classification task).
    """

    expression: pd.DataFrame
    clinical: pd.DataFrame
    tasks: tuple[Task, ...]
    about: dict = field(default_factory=dict)

    def __len__(self) -> int:
        """Return n."""
        return len(self.expression)

    @property
    def name(self) -> str:
        """The cohort's display name."""
        return self.about.get("name", "unnamed cohort")

    @property
    def samples(self) -> pd.Index:
        """Sample names, (n,)."""
        return self.expression.index

    @property
    def survival_task(self) -> Task | None:
        """The one survival endpoint of the cohort, if it has one."""
        return next((task for task in self.tasks if task.kind == "survival"), None)

    def task(self, name: str) -> Task:
        """Return the task of that name; KeyError names those there are."""
        found = {task.name: task for task in self.tasks}
        if name not in found:
            raise KeyError(f"{self.name} has no task {name!r}; it has {', '.join(found)}")
        return found[name]

    def with_tasks(self, *names: str) -> "Cohort":
        """Return the same patients with only the named tasks."""
        return replace(self, tasks=tuple(self.task(name) for name in names))

    def take(self, samples) -> "Cohort":
        """Return these samples, in this order."""
        return replace(self, expression=self.expression.loc[samples], clinical=self.clinical.loc[samples])

    @classmethod
    def from_anndata(cls, adata, tasks: pd.DataFrame | None = None) -> "Cohort":
        """Take expression from ``X`` (n, G), dense or sparse, and labels from ``obs``, checked as a folder's are.

        ``tasks`` has the columns name and task, as tasks.csv; by default it is ``uns["tasks"]``, where
        ``to_anndata`` leaves it, and so is what ``cohort.yml`` would say, in ``uns["about"]``. Raises CohortError.
        """
        about = yaml.safe_load(adata.uns.get("about", "{}"))  # text, since a file turns lists into arrays
        where = about.get("name", "AnnData object")
        if tasks is None and "tasks" not in adata.uns:
            raise CohortError(
                f"{where}: no tasks; give a table with the columns name,task, or put it into uns['tasks']."
            )
        table = pd.DataFrame(adata.uns["tasks"] if tasks is None else tasks).astype(str)
        labels = adata.obs.apply(lambda column: column.astype(object) if column.dtype == "category" else column)
        return make_cohort(adata.to_df(), labels, parse_tasks(table, where), about, where)

    def to_anndata(self):
        """Return an AnnData: expression in X, labels in obs, tasks and about in uns, as ``from_anndata`` reads them."""
        from anndata import AnnData  # slow to import, and needed here only

        tasks = {column: values.to_list() for column, values in _task_table(self.tasks).items()}
        about = {key: value for key, value in self.about.items() if key != "unmatched"}
        return AnnData(self.expression, obs=self.clinical.copy(), uns={"tasks": tasks, "about": yaml.safe_dump(about)})

    def outcome(self) -> tuple[np.ndarray, np.ndarray]:
        """Return time (n,) in the cohort's unit and event (n,) as 0.0/1.0, both NaN where either is missing."""
        if self.survival_task is None:
            raise CohortError(f"{self.name} has no survival task: add survival_time and survival_event to tasks.csv.")
        pair = self.clinical[list(self.survival_task.columns)].to_numpy(float)
        pair = np.where(np.isnan(pair).any(1, keepdims=True), np.nan, pair)
        return pair[:, 0], pair[:, 1]

    def patients(self) -> pd.Series:
        """Return the patient of each sample: the ``patient`` column, a TCGA barcode's start, or the sample."""
        column = self.about.get("patient", "Patient")
        names = self.samples.to_series().astype(str)
        if column in self.clinical:
            return self.clinical[column].astype(str).where(self.clinical[column].notna(), names)
        if "patient" in self.about:
            raise CohortError(
                f"{self.name}: cohort.yml says that column {column!r} names the patients, but clinical.csv has only "
                f"{', '.join(map(str, self.clinical.columns))}; add the column, or take `patient` out of cohort.yml."
            )
        barcoded = names.str.match(r"TCGA-\w{2}-\w{4}").all()
        return names.str[:12] if barcoded else names


# --- finding, reading and writing -----------------------------------------------------------------------------


def cohort_folder(name_or_path: str | Path) -> Path | None:
    """Find a cohort: a path, a name under ``$TXT_DATA`` or ``data/raw``, or None for an embedded one.

    Raises CohortError, with the places looked at, if it is nowhere.
    """
    from txtlib.embedded import EMBEDDED

    data = os.environ.get("TXT_DATA")
    places = [Path(name_or_path), *([Path(data) / name_or_path] if data else []), RAW / name_or_path]
    for place in places:
        if place.is_dir():
            return place
    if str(name_or_path) in EMBEDDED:
        return None
    looked = ", ".join(str(place) for place in places)
    hint = "" if data else " (TXT_DATA is not set)"
    raise CohortError(
        f"No cohort {str(name_or_path)!r}: there is no such folder among {looked}{hint}, and the embedded cohorts are "
        f"{', '.join(EMBEDDED)}; give the path of a cohort folder, or set TXT_DATA to the folder that holds it."
    )


def load_cohort(name_or_path: str | Path, tasks: str = "tasks.csv") -> Cohort:
    """Read a cohort by path or name, join its tables by sample name and check every value.

    The path of an AnnData file (.h5ad) is read by ``Cohort.from_anndata``. ``tasks`` names the task file, so
    that one folder can hold several endpoints. Samples that only one of the two tables has are left out and
    counted in ``about["unmatched"]``. Raises CohortError.
    """
    from txtlib.embedded import EMBEDDED

    if str(name_or_path).endswith(".h5ad"):
        return _read_h5ad(Path(name_or_path))
    folder = cohort_folder(name_or_path)
    if folder is None:
        return EMBEDDED[str(name_or_path)]()
    about = _read_about(folder / "cohort.yml")
    expression = read_expression(_expression_file(folder))
    clinical = _read_indexed(_existing(folder / "clinical.csv"))
    parsed = read_tasks(_existing(folder / tasks))
    return make_cohort(expression, clinical, parsed, about, where=folder / "clinical.csv")


def make_cohort(expression, clinical, tasks, about, where="the cohort") -> Cohort:
    """Join (n, G) expression and clinical labels by sample name, clean the labels, check everything.

    Raises CohortError; ``where`` is the file or cohort that its sentence names.
    """
    check_expression(expression, where)
    _check_names(clinical.index, "clinical sample", where)
    _check_names(clinical.columns, "clinical column", where)
    shared = expression.index[expression.index.isin(clinical.index)]
    if not len(shared):
        raise CohortError(
            f"{where}: expression and clinical table have no sample in common (first names: "
            f"{_first(expression.index)} against {_first(clinical.index)}); give both the same names in column Sample."
        )
    unmatched = {"expression": len(expression) - len(shared), "clinical": len(clinical) - len(shared)}
    clinical = clinical.loc[shared].copy()
    for task in tasks:
        _clean_labels(clinical, task, where)
    if unmatched["expression"]:  # a copy of gigabytes, so only where something goes
        expression = expression.loc[shared]
    return Cohort(expression, clinical, tuple(tasks), {**about, "unmatched": unmatched})


def write_cohort(cohort: Cohort, folder: str | Path, files: Mapping[str, str] | None = None) -> Path:
    """Write a cohort folder, whole or not at all; FileExistsError if the folder is there already.

    ``files`` holds the text of further files by name, say the task file of a second endpoint.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} exists already: give another folder, or remove this one first.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        table = cohort.expression.rename_axis("Sample").reset_index()
        table.to_parquet(draft / "expression.parquet", index=False, row_group_size=len(table), **PLAIN)
        cohort.clinical.rename_axis("Sample").to_csv(draft / "clinical.csv")
        _task_table(cohort.tasks).to_csv(draft / "tasks.csv", index=False)
        about = {key: value for key, value in cohort.about.items() if key != "unmatched"}
        text = yaml.safe_dump(about, sort_keys=False, allow_unicode=True)
        for name, content in {"cohort.yml": text, **(files or {})}.items():
            (draft / name).write_text(content, encoding="utf-8")
        draft.chmod(0o755)  # mkdtemp makes it private
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def read_expression(path: Path) -> pd.DataFrame:
    """Read an expression table, (n, G) float32 indexed by sample; CohortError names the first bad cells."""
    frame = _read_indexed(path)
    check_expression(frame, path)
    return frame.astype(np.float32, copy=False)


def read_tasks(path: Path) -> tuple[Task, ...]:
    """Read ``tasks.csv``; the survival task is named by what its two columns' names start with (OS_duration: OS)."""
    return parse_tasks(_read_table(path), path)


def parse_tasks(table: pd.DataFrame, path) -> tuple[Task, ...]:
    """Turn a table with the columns name and task into tasks; CohortError names ``path``."""
    if list(table.columns[:2]) != ["name", "task"] or table.empty:
        raise CohortError(f"{path}: expected the columns name,task and at least one row, found {list(table.columns)}.")
    unknown = table[~table["task"].isin(TASK_KINDS)]
    if len(unknown):
        raise CohortError(
            f"{path}: unknown task {unknown['task'].iloc[0]!r}; a task is one of {', '.join(TASK_KINDS)}."
        )
    plain = table.loc[table["task"].isin(TASK_KINDS[:2]), ["name", "task"]]
    tasks = [Task(name, kind, (name,)) for name, kind in plain.itertuples(index=False)]
    tasks += _survival_task(table, path)
    _check_names(pd.Index([task.name for task in tasks]), "task", path)
    return tuple(tasks)


def _survival_task(table: pd.DataFrame, path: Path) -> list[Task]:
    times, events = (list(table.loc[table["task"] == kind, "name"]) for kind in TASK_KINDS[2:])
    if len(times) == len(events) == 0:
        return []
    if len(events) == 0:
        raise CohortError(f"{path}: survival time {times[0]!r} has no event column; add a row NAME,survival_event.")
    if len(times) != 1 or len(events) != 1:
        raise CohortError(
            f"{path}: found survival times {times} and events {events}; a task file holds one endpoint, so name one of "
            "each, and put another endpoint into a task file of its own."
        )
    prefix = os.path.commonprefix([times[0], events[0]]).rstrip("_. ")  # noqa: RUF071, for letters
    return [Task(prefix or "survival", "survival", (times[0], events[0]))]


def _task_table(tasks: tuple[Task, ...]) -> pd.DataFrame:
    kinds = {"survival": TASK_KINDS[2:]}
    rows = [row for task in tasks for row in zip(task.columns, kinds.get(task.kind, [task.kind]), strict=True)]
    return pd.DataFrame(rows, columns=["name", "task"])


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise CohortError(
            f"{path} is missing; add it: a cohort folder holds an expression table, clinical.csv and tasks.csv."
        )
    return path


def _expression_file(folder: Path) -> Path:
    found = [folder / name for name in EXPRESSION_FILES if (folder / name).is_file()]
    if len(found) > 1:
        raise CohortError(f"{folder} holds {' and '.join(path.name for path in found)}; keep one expression table.")
    return found[0] if found else _existing(folder / "expression.csv")


def _read_h5ad(path: Path) -> Cohort:
    from anndata import read_h5ad

    try:
        return Cohort.from_anndata(read_h5ad(_existing(path)))
    except OSError as error:
        raise CohortError(f"{path} cannot be read as AnnData ({error}); give a file written by anndata.") from error


def _read_about(path: Path) -> dict:
    about = {"name": path.parent.resolve().name}
    try:
        return {**about, **(yaml.safe_load(path.read_text(encoding="utf-8")) or {})} if path.is_file() else about
    except (yaml.YAMLError, UnicodeDecodeError, TypeError) as error:
        raise CohortError(f"{path} cannot be read ({error}); write YAML, a line `key: value` for each.") from error


def _read_table(path: Path) -> pd.DataFrame:
    try:
        return _read_parquet(path) if path.suffix == ".parquet" else _read_text(path)
    except (ValueError, EOFError, OSError, zlib.error) as error:  # every parser's errors are ValueErrors
        raise CohortError(
            f"{path} cannot be read as a table ({error}); give a whole CSV, TSV or Parquet file."
        ) from error


def _read_parquet(path: Path) -> pd.DataFrame:
    table = parquet.read_table(path, partitioning=None, pre_buffer=False)
    if table.column_names[:1] != ["Sample"] or any(kind != pa.float32() for kind in table.schema.types[1:]):
        return pd.read_parquet(path)
    values = np.empty((table.num_columns - 1, len(table)), np.float32)  # one block, where pandas would make columns
    for row, column in enumerate(table.itercolumns()):
        if row:
            values[row - 1] = column.to_numpy()
    frame = pd.DataFrame(values.T, columns=table.column_names[1:])
    frame.insert(0, "Sample", table.column(0).to_pandas())
    return frame


def _read_text(path: Path) -> pd.DataFrame:
    options = {"sep": "\t" if ".tsv" in path.suffixes else ",", "low_memory": False}
    header = pd.read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=False, **options).iloc[0]
    # Names stay text, or 001 would become 1; the default float parser is off by a bit now and then.
    frame = pd.read_csv(path, converters={0: str.strip}, float_precision="round_trip", **options)
    if not isinstance(frame.index, pd.RangeIndex):  # pandas took the first column for row names
        raise ValueError(f"its rows have more cells than the {len(header)} of its header")
    frame.columns = list(header.str.strip())  # pandas would rename a repeated column, and hide it
    return frame


def _read_indexed(path: Path) -> pd.DataFrame:
    frame = _read_table(path)
    if frame.empty or frame.shape[1] < 2:
        raise CohortError(
            f"{path}: the table is empty ({len(frame)} rows, {frame.shape[1]} columns); it needs a row per sample and "
            "a column beside Sample, with commas between the cells, or tabs in a .tsv."
        )
    if frame.columns[0] != "Sample":
        raise CohortError(f"{path}: the first column is {frame.columns[0]!r}; it must be Sample, the sample names.")
    names = frame.iloc[:, 0]
    names = names.where(names.notna(), "").astype(str).str.strip()
    return frame.iloc[:, 1:].set_axis(pd.Index(names, name="Sample"), copy=False)


# --- checks of user input -------------------------------------------------------------------------------------


def check_expression(frame: pd.DataFrame, where) -> None:
    """Raise CohortError on an empty table, a repeated sample or gene, a text or an infinite value."""
    if frame.empty:
        raise CohortError(f"{where}: the expression table is empty; it needs a row per sample and a column per gene.")
    _check_names(frame.index, "sample", f"{where}, expression table")
    _check_names(frame.columns, "gene", f"{where}, expression table")
    _check_numeric(frame, where)
    values = frame.to_numpy()
    single = values.dtype == np.float32  # large tables are, and need no copies of twice the size
    infinite = np.isinf(values) if single else np.abs(frame.astype(float).to_numpy()) > np.finfo(np.float32).max
    if infinite.any():
        gene = frame.columns[infinite.any(0)][0]
        bad = frame.loc[infinite[:, infinite.any(0)][:, 0], gene]
        raise CohortError(f"{where}: gene {gene!r} is infinite in {cells(bad)}; replace the value or leave it empty.")


def _check_numeric(frame: pd.DataFrame, where) -> None:
    wrong = frame.columns[[not pd.api.types.is_numeric_dtype(kind) for kind in frame.dtypes]]
    if len(wrong):
        values = frame[wrong[0]]
        bad = values[pd.to_numeric(values, errors="coerce").isna() & values.notna()]
        raise CohortError(
            f"{where}: column {wrong[0]!r} does not hold numbers, {cells(bad if len(bad) else values)}; expression "
            "must be numeric, with missing values left empty."
        )


def _check_names(names: pd.Index, what: str, where) -> None:
    empty = names.isna() | (names.astype(str) == "")
    if empty.any():
        raise CohortError(f"{where}: {int(empty.sum())} of the {what} names are empty; name every {what}.")
    repeated = names[names.duplicated()].unique()
    if len(repeated):
        raise CohortError(f"{where}: {what} {_first(repeated)} stands there more than once; keep one of each name.")


def _clean_labels(clinical: pd.DataFrame, task: Task, where) -> None:
    for column in task.columns:
        if column not in clinical:
            raise CohortError(
                f"{where}: a task needs the column {column!r}, which the clinical table does not have (it has "
                f"{', '.join(map(str, clinical.columns))}); add the column, or take the row out of the task file."
            )
    if task.kind == "classification":
        clinical[task.name] = _class_labels(clinical[task.name], where)
        return
    for column in task.columns:
        clinical[column] = _numbers(clinical[column], where)
    if task.kind == "survival":
        _check_outcome(clinical, *task.columns, where)


def _numbers(labels: pd.Series, where) -> pd.Series:
    numbers = pd.to_numeric(labels, errors="coerce").astype(float)
    bad = labels[(numbers.isna() & labels.notna()) | np.isinf(numbers)]
    if len(bad):
        raise CohortError(
            f"{where}: clinical column {labels.name!r} holds values that are no finite numbers, {cells(bad)}; "
            "correct them or leave them empty."
        )
    return numbers


def _check_outcome(clinical: pd.DataFrame, time: str, event: str, where) -> None:
    negative = clinical.loc[clinical[time] < 0, time]
    if len(negative):
        raise CohortError(f"{where}: survival time {time!r} is negative, {cells(negative)}; correct or empty it.")
    odd = clinical.loc[clinical[event].notna() & ~clinical[event].isin([0, 1]), event]
    if len(odd):
        raise CohortError(f"{where}: event {event!r} must be 0 (censored) or 1 (event), found {cells(odd)}.")


def _class_labels(labels: pd.Series, where) -> pd.Series:
    number = pd.api.types.is_numeric_dtype(labels) and not pd.api.types.is_bool_dtype(labels)
    whole = number and (labels.dropna() % 1 == 0).all()
    text = (labels.astype("Int64") if whole else labels).astype("string").str.strip()
    text = text.where(text.notna() & (text != ""), np.nan).astype(object)
    counts = text.value_counts()
    single = text[text.isin(counts.index[counts == 1])]
    if len(single):
        raise CohortError(
            f"{where}: class {_first(single)} of column {labels.name!r} is seen once ({cells(single)}), "
            "so it cannot be both learned and tested; merge it with another class or leave the label empty."
        )
    return text


def cells(values: pd.Series) -> str:
    """Return the first three values with their samples, for a sentence on what is wrong with them."""
    return ", ".join(f"{sample}: {value}" for sample, value in values.head(3).items())


def _first(names) -> str:
    return ", ".join(repr(str(name)) for name in list(names)[:3])


# --- splits ---------------------------------------------------------------------------------------------------


class Split(NamedTuple):
    """Three disjoint parts of a cohort."""

    train: Cohort
    validation: Cohort
    test: Cohort


def split(cohort: Cohort, seed: int, fractions: tuple[float, float, float] = (0.7, 0.1, 0.2)) -> Split:
    """Split at random into train, validation and test, stratified on the event and grouped by patient.

    The stratum is the event, or the first classification label where there is no survival task. Samples without
    that label are a stratum of their own. Raises CohortError where a part would be empty or hold no event.
    """
    if min(fractions) < 0 or not np.isclose(sum(fractions), 1):
        raise ValueError(f"fractions are three shares that add up to 1, not {fractions}.")
    patients = cohort.patients()
    strata = stratum_of(cohort).groupby(patients.to_numpy()).max()
    generator = np.random.default_rng(seed)
    part_of = {}
    for _, members in sorted(strata.groupby(strata).groups.items()):
        order = generator.permutation(np.sort(members.to_numpy(str)))
        cuts = np.round(np.cumsum(fractions)[:2] * len(order)).astype(int)
        part_of.update({patient: part for part, some in enumerate(np.split(order, cuts)) for patient in some})
    part = patients.map(part_of).to_numpy()
    return Split(*(_checked_part(cohort.take(cohort.samples[part == k]), Split._fields[k]) for k in range(3)))


def stratum_of(cohort: Cohort) -> pd.Series:
    """Return what a split keeps even, by sample: the event, else the first classification label, else nothing."""
    if cohort.survival_task is not None:
        return pd.Series(cohort.outcome()[1]).fillna(-1).astype(int).astype(str)
    labels = [task.name for task in cohort.tasks if task.kind == "classification"]
    return cohort.clinical[labels[0]].fillna("").astype(str) if labels else pd.Series("", cohort.samples)


def _checked_part(part: Cohort, name: str) -> Cohort:
    if not len(part):
        raise CohortError(f"{part.name}: the {name} part of the split is empty; the cohort is too small to split.")
    if part.survival_task is not None and not np.nansum(part.outcome()[1]):
        raise CohortError(
            f"{part.name}: the {name} part ({len(part)} samples) holds no event of {part.survival_task.name!r}, so "
            "nothing can be learned or tested there; use another seed, other fractions or a larger cohort."
        )
    return part
