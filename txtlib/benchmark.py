"""Methods x splits x seeds of one cohort -> one tidy table; a finished cell is never run again.

A cell is one method with its settings on one split (data seed) with one model seed; tuning happens within the cell.
Its result is a file of the folder, named by a hash of all that decides it: ``CELL.json`` holds the scores and what
they cost, ``CELL.parquet`` the answer for each test patient. A reader's own method is one Python file with a class, or
a function that makes one: called as ``factory(seed=..., **settings)``, the result answers to
``fit(train, validation)`` and ``predict(cohort)``. Of the test part it sees no label of the tasks that it is asked.
"""

import ast
import hashlib
import json
import os
import platform
import re
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache, cached_property, partial
from importlib.metadata import version
from importlib.util import find_spec
from inspect import isclass, isfunction
from itertools import takewhile
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from txtlib import __version__
from txtlib.bootstrap import score_draws
from txtlib.cohort import KINDS, Cohort, CohortError, Split, Task, load_cohort, split
from txtlib.network import SUFFIXES, find_file
from txtlib.predictions import Predictions, joined
from txtlib.splits import Folds, cut, fold_split, make_folds
from txtlib.tuning import Tuned, candidates, tune
from txtlib.workers import Died, Each, last_words, open_workers

LIBRARIES = ("numpy", "pandas", "scikit-learn", "scikit-survival", "lifelines", "torch")
OUTLIVED = (10, 0.2)  # a horizon must be outlived by so many training patients, and by this share of them
COUNTS = [f"{what}_{part}" for what in ("n", "events") for part in Split._fields]
IDENTITY = ["cell", "method", "settings", "cohort", "cohort_hash", "scheme", "train_size", "data_seed", "model_seed"]
CODE = ("code", "txtlib", "splits_code")  # what of an identity is the code's, not the experiment's
SCORE = ["task", "measure", "score"]
TUNING = ["trials", "failed_trials", "chosen", "capped", "calibrated"]
SECONDS = ["fit_seconds", "tuning_seconds", "predict_seconds"]
COST = [*SECONDS, "peak_mb", "threads", "versions", "error"]
COLUMNS = [*IDENTITY, *SCORE, *TUNING, "horizon", "split_hash", *COUNTS, "n_whole", *COST]
LONG = 200  # characters of one setting, above which the table shows its hash


@dataclass(frozen=True)
class Method:
    """A name for the table, what makes the method when called with a seed and the settings, and those settings.

    ``space`` {setting: values, the default first} is what tuning chooses from, in the order of
    ``txtlib.tuning.candidates``; a setting that is given stays. ``kinds`` are those of the tasks that the method can
    answer; it is given no others, and may read their columns as input. It learns all of them in one fit, unless it is
    not ``joint``: then there is a fit, with settings of its own, for each task. ``fixed`` {the fit's tasks, joined by
    ", ": settings} is what tuning chose before, on other cells: it is then not tuned again.
    """

    name: str
    factory: Callable
    settings: dict = field(default_factory=dict)
    space: dict = field(default_factory=dict)
    kinds: tuple[str, ...] = KINDS
    joint: bool = True
    fixed: dict[str, dict] = field(default_factory=dict)

    def tried(self, trials: int) -> list[dict]:
        """Return the settings that so many trials are: fewer, if the space holds no more; none if they are fixed."""
        return [] if self.fixed else candidates(self.settings, self.space, trials)


@dataclass(frozen=True)
class Cell:
    """One run: the method, and ``identity``, all that decides the result, as it stands in the cell's file.

    ``folds`` are those that the data seed counts; without them it draws a random split.
    """

    method: Method
    identity: dict
    folds: Folds | None = field(default=None, compare=False)

    @cached_property
    def key(self) -> str:
        """The name of the cell's files."""
        return _hash(self.identity)


def run(
    methods: Iterable[Method],
    cohort: Cohort | str | Path,
    folder: str | Path,
    data_seeds: Iterable[int] = range(10),
    model_seeds: Iterable[int] = (0,),
    horizon: float | None = None,
    trials: int = 1,
    workers: int | None = None,
    threads: int | None = None,
    cluster=None,
    progress: bool = True,
    scheme: dict | Folds | None = None,
    train_size: int | None = None,
    horizon_size: int | None = None,
) -> pd.DataFrame:
    """Run the cells that ``folder`` does not hold yet, and return the table of all of them (see ``table``).

    By default in ``workers`` processes of this machine (one per core) of ``threads`` threads (the cores are shared
    out); with ``cluster``, a Dask client or a scheduler's address, on that cluster. The last bit of a score may
    depend on the threads: to compare machines, give them a number. Each cell is written as soon as it is done, so
    nothing that is finished is lost with a worker, this process, or Ctrl-C. A cell that failed is a row with its
    error, its traceback stands in its file, and the next run tries it again; one whose process died is tried once
    more, alone, at the end. ``horizon`` is in the cohort's unit of time; by default ``training_horizon`` of each
    split. Each method has as many ``trials``, or as its space holds, chosen from on the validation part
    (txtlib/tuning.py). A script calls this under ``if __name__ == "__main__":``. Raises ValueError, CohortError or
    OSError with the reason; ConnectionError if there is no such cluster.

    By default a data seed draws a random split; with another ``scheme`` (txtlib/splits.py) it is the number of the
    fold that is tested. ``train_size`` keeps so many patients of each training part, stratified; a smaller size is
    within a larger one. Validation and test part, and the training part that scores are measured by, stay whole; a
    test part that lies elsewhere is measured by its own censoring.
    For one horizon over several sizes, give the smallest as ``horizon_size``: each larger part's time grid reaches
    the horizon of that one.
    """
    cohort = cohort if isinstance(cohort, Cohort) else load_cohort(cohort)
    _check_workers(workers, threads, cluster)
    seeds = _seeds("data_seeds", data_seeds), _seeds("model_seeds", model_seeds)
    cells = plan(list(methods), cohort, *seeds, horizon, trials, scheme, train_size, horizon_size)
    run_cells(cells, cohort, folder, workers, threads, cluster, progress)
    return table([_read(Path(folder), cell) for cell in cells])


def run_cells(
    cells: list[Cell],
    cohort: Cohort,
    folder: str | Path,
    workers: int | None = None,
    threads: int | None = None,
    cluster=None,
    progress: bool = True,
    until: float = np.inf,
    what: str = "cells",
) -> None:
    """Run those of the planned cells that ``folder`` does not hold, as ``run`` does, and write each when it is done.

    All splits come with the first model seed, then with the next, so that what is done so far can be compared. After
    ``until``, in seconds of time.time(), no further cell is begun.
    """
    folder = _made(Path(folder))
    todo = [cell for cell in cells if not _finished(folder, cell)]
    todo.sort(key=lambda cell: (cell.identity["model_seed"], cell.identity["data_seed"]))
    quiet = {} if progress else {"disable": True}  # said only then, so that TQDM_DISABLE works too
    with tqdm(total=len(cells), initial=len(cells) - len(todo), desc=what, unit="cell", **quiet) as bar:
        if todo:
            with open_workers(run_cell, cohort, workers, threads, cluster) as each:
                _run_all(todo, each, folder, bar, until)


def _run_all(cells: list[Cell], each: Each, folder: Path, bar: tqdm, until: float) -> None:
    """Run all cells, and those whose process died once more, alone: with all the memory, and no other to blame."""
    for alone in (False, True):
        dead = []
        in_time = takewhile(lambda cell: time.time() < until, cells)
        with closing(each(in_time, alone)) as outcomes:  # or joblib goes on while an error is on its way up
            for outcome in outcomes:
                died = isinstance(outcome, Died)
                if died:
                    dead.append(outcome.item)
                    outcome = _record(outcome.item, error=f"the process died: {outcome.reason}"), None
                _write(folder, *outcome)
                bar.update(alone or not died)
        cells = dead


# --- what is to be run ----------------------------------------------------------------------------------------


def plan(
    methods: list[Method],
    cohort: Cohort,
    data_seeds: list[int],
    model_seeds: list[int],
    horizon: float | None = None,
    trials: int = 1,
    scheme: dict | Folds | None = None,
    train_size: int | None = None,
    horizon_size: int | None = None,
) -> list[Cell]:
    """Return the cells of a run, ordered by method, data seed and model seed; ValueError for what cannot be run."""
    _check_methods(methods)
    _check_sizes(train_size, horizon_size)
    if horizon is not None and not 0 < horizon < np.inf:
        raise ValueError(f"horizon is a time above 0 in the cohort's unit, not {horizon}.")
    if trials < 1:
        raise ValueError(f"trials is 1 or more, not {trials}.")
    folds = make_folds(cohort, scheme)
    _check_folds(folds, data_seeds)
    data = {"cohort": cohort.name, "cohort_hash": content_hash(cohort), "horizon": horizon, "outlived": OUTLIVED}
    data |= _parts_described(folds, train_size, horizon_size)
    described = [_described(method, trials) for method in methods]
    return [
        Cell(method, {**known, **data, "data_seed": data_seed, "model_seed": model_seed}, folds)
        for method, known in zip(methods, described, strict=True)
        for data_seed in data_seeds
        for model_seed in model_seeds
    ]


def _described(method: Method, trials: int) -> dict:
    factory = f"{method.factory.__module__}.{method.factory.__qualname__}"
    code = {"factory": factory, "code": code_hash(method.factory), "txtlib": __version__}
    how = {"kinds": list(method.kinds), "joint": method.joint, "tried": method.tried(trials)}
    how |= {"fixed": method.fixed} if method.fixed else {}
    described = {"method": method.name, "settings": method.settings, **how, **code}
    files = files_named(described)
    return described | ({"files": files} if files else {})


def files_named(identity: dict) -> dict[str, str]:
    """Return {value: hash of the content} of the settings that name a file: a path, or a name that ``find_file`` finds.

    A file can change under its name, and the result with it. Settings within settings are not looked at.
    """
    options = [identity["settings"], *identity["tried"], *identity.get("fixed", {}).values()]
    names = {value for option in options for value in option.values() if isinstance(value, str)}
    found = {name: [_file_hash(path, *_version(path)) for path in _files(name)] for name in names}
    return {name: "-".join(hashes) for name, hashes in found.items() if hashes}


def _files(name: str) -> Iterator[Path]:
    for kind in SUFFIXES:
        with suppress(ValueError, OSError):  # there is no such file, or this can be no file's name
            yield find_file(name, kind)


def _version(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


@cache
def _file_hash(path: Path, *version: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _parts_described(folds: Folds | None, train_size: int | None, horizon_size: int | None) -> dict:
    """Return what an identity says of the parts; nothing for whole parts of random splits."""
    hashed = folds and _hash([list(map(str, folds.labels.index)), folds.labels.tolist()])
    found = {
        "scheme": folds and {**folds.about, "folds": hashed},
        "train_size": train_size,
        "horizon_size": horizon_size,
    }
    found = {name: value for name, value in found.items() if value is not None}
    return found | ({"splits_code": _read_code(_source("txtlib.splits"))[0]} if found else {})


def same_but_code(identity: dict) -> str:
    """Return a hash of all that decides a result except the code: cells with the same are one experiment."""
    return _hash({name: value for name, value in identity.items() if name not in CODE})


def content_hash(cohort: Cohort) -> str:
    """Return a hash of a cohort: expression, labels, tasks, and what ``about`` says of classes and patients."""
    values = np.ascontiguousarray(cohort.expression.to_numpy())
    names = [list(map(str, names)) for names in (cohort.samples, cohort.expression.columns)]
    tasks = [(task.name, task.kind, task.columns) for task in cohort.tasks]
    about = {key: cohort.about.get(key) for key in ("classes", "patient")}
    rest = json.dumps([str(values.dtype), names, cohort.clinical.to_csv(), tasks, about], sort_keys=True, default=str)
    digest = hashlib.sha256(values)
    digest.update(rest.encode())
    return digest.hexdigest()[:16]


def code_hash(factory: Callable) -> str:
    """Return a hash of the code in the factory's file and in all modules of the library that it or the scores need.

    An edit there makes new cells, but not one of a comment or a docstring, nor one of this runner. What another
    package does is not seen; its version stands in the row.
    """
    found, names = {}, ["txtlib.cohort", "txtlib.bootstrap", "txtlib.tuning", factory.__module__]
    while names:
        name = names.pop()
        if name not in found:
            found[name], imported = _read_code(_source(name))
            names += imported
    return _hash(sorted(found.values()))  # a script is __main__ here, and has another name in a worker


@cache
def _read_code(text: str) -> tuple[str, list[str]]:
    tree = ast.parse(text)
    imported = sorted(set(_imports(tree)))
    return _hash(_meaning(tree)), imported


def _source(module: str) -> str:
    path = getattr(sys.modules.get(module), "__file__", None) or find_spec(module).origin
    return Path(path).read_text(encoding="utf-8")


def _meaning(tree: ast.Module) -> str:
    """Return a text of the code alone: no comments, no docstrings, no line numbers."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, clean=False):
            node.body = node.body[1:]
    return ast.dump(tree)


def _imports(tree: ast.Module) -> Iterator[str]:
    """Yield the modules of the library that are imported anywhere in the code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            named = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            named = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (name for name in named if name.startswith("txtlib.") and _is_module(name))


def _is_module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # a class or function of a module, which is no package
        return False


def _hash(value) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


# --- one cell -------------------------------------------------------------------------------------------------


def run_cell(cohort: Cohort, cell: Cell) -> tuple[dict, pd.DataFrame | None]:
    """Split, fit, predict and score; return the record of the cell and the answer for each test patient.

    An error of the method is caught and kept in the record, without an answer then.
    """
    record = _record(cell)
    try:
        _check_code(cell)
        parts, whole = _parts(cohort, cell)
        record |= _facts(parts, whole, _horizon(cell.identity, parts.train, whole))
        answer = _answer(cell, parts, record)
        patients = patient_table(answer, parts.test, record["horizon"])
        weighed_by = parts.test if cell.folds and cell.folds.tested is not None else whole
        record["scores"] = _scores(answer, parts._replace(train=weighed_by), record["horizon"])
    except (Exception, SystemExit) as error:
        return record | {"error": last_words(error), "traceback": traceback.format_exc()}, None
    return record, patients


def _check_code(cell: Cell) -> None:
    """Raise if this worker reads other code or files than the run was planned with; a script's class travels along."""
    factory, identity = cell.method.factory, cell.identity
    edited = factory.__module__ != "__main__" and code_hash(factory) != identity["code"]
    if edited or files_named(identity) != identity.get("files", {}):
        raise RuntimeError(
            f"The code of {cell.method.name!r}, or a file that its settings name, is not what it was when the run "
            "began, or not the same on this worker: bring all workers to one version, and run again."
        )


def _record(cell: Cell, error: str | None = None) -> dict:
    threads = os.environ.get("OMP_NUM_THREADS")
    versions = {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}
    about = {"threads": threads and int(threads.split(",")[0]), "versions": versions | {"txtlib": __version__}}
    return {"key": cell.key, "identity": cell.identity, **about, "scores": [], "error": error}


def _parts(cohort: Cohort, cell: Cell) -> tuple[Split, Cohort]:
    """Return the parts of a cell, and the training part before it was cut."""
    seed, size = cell.identity["data_seed"], cell.identity.get("train_size")
    parts = split(cohort, seed) if cell.folds is None else fold_split(cohort, cell.folds, seed)
    return (parts, parts.train) if size is None else (parts._replace(train=cut(parts.train, size, seed)), parts.train)


def _horizon(identity: dict, train: Cohort, whole: Cohort) -> float | None:
    if train.survival_task is None:
        return None
    size = identity.get("horizon_size")
    return identity["horizon"] or training_horizon(cut(whole, size, identity["data_seed"]) if size else train)


def _facts(parts: Split, whole: Cohort, horizon: float | None) -> dict:
    survival = parts.train.survival_task is not None
    sizes = {f"n_{name}": len(part) for name, part in parts._asdict().items()} | {"n_whole": len(whole)}
    events = {f"events_{name}": int(np.nansum(part.outcome()[1])) for name, part in parts._asdict().items() if survival}
    hashed = _hash([list(map(str, part.samples)) for part in parts])
    return {**sizes, **events, "horizon": horizon, "split_hash": hashed}


def training_horizon(train: Cohort) -> float:
    """Return the last event time that 20 % of the training patients, and at least 10, outlive under observation.

    Every time grid that is fitted on the training part reaches it, and the weights for censoring are steady up to it.
    """
    time, event = train.outcome()
    known = ~np.isnan(event)
    least = max(OUTLIVED[0], OUTLIVED[1] * known.sum())
    times = np.unique(time[event == 1])
    outlived = [moment for moment in times if moment > 0 and (time[known] > moment).sum() >= least]
    if not outlived:
        raise CohortError(
            f"{train.name}: no event of the training part ({known.sum()} known outcomes) is outlived by {least:.0f} "
            "patients, so no horizon can be chosen; give one, or a larger cohort."
        )
    return float(outlived[-1])


def _answer(cell: Cell, parts: Split, record: dict) -> Predictions:
    _reset_peak()
    record |= {
        "chosen": cell.identity.get("fixed", {}),
        "trials": len(cell.identity["tried"]) or 1,
        "failed_trials": 0,
        "capped": None,
        **dict.fromkeys(SECONDS, 0.0),
    }
    try:
        answer = joined([_answer_tasks(cell, parts, names, record) for names in _together(cell.method, parts.train)])
    finally:
        record["peak_mb"] = _peak_mb()
    record["calibrated"] = answer.calibrated
    return answer


def _together(method: Method, cohort: Cohort) -> list[list[str]]:
    """Return the names of the tasks that a method can answer, those of one fit together."""
    names = [task.name for task in cohort.tasks if task.kind in method.kinds]
    if not names:
        raise ValueError(f"{cohort.name} has no task of the kinds that it answers, {', '.join(method.kinds)}.")
    return [names] if method.joint else [[name] for name in names]


def _answer_tasks(cell: Cell, parts: Split, names: list[str], record: dict) -> Predictions:
    train, validation, test = (part.with_tasks(*names) for part in parts)
    make = partial(cell.method.factory, seed=cell.identity["model_seed"])
    tuned = tune(make, _options(cell, names), train, validation, record["horizon"])
    _note(record, tuned, names)
    patients = unlabelled(test)
    with _timed(record, "predict_seconds"):
        answer = tuned.method.predict(patients)
    _check_answer(answer, test)
    return answer


def unlabelled(cohort: Cohort) -> Cohort:
    """Return a cohort whose tasks have no label; other clinical columns stay, since a method may read them."""
    columns = [column for task in cohort.tasks for column in task.columns]
    missing = cohort.clinical[columns].iloc[:0].reindex(cohort.samples)  # keeps text, classes and Int64 what they are
    return replace(cohort, clinical=cohort.clinical.assign(**missing))


def _check_answer(answer: Predictions, test: Cohort) -> None:
    """Raise unless the answer is for these patients, and all of it is finite numbers."""
    if list(answer.samples) != list(test.samples):
        raise ValueError("The answer is not for the test patients in their order; keep cohort.samples as they come.")
    for task in test.tasks:
        wrong = ~_finite(answer, task, len(test))
        if wrong.any():
            raise ValueError(
                f"The answer to {task.name!r} is not a finite number for {wrong.sum()} of {len(test)} test patients, "
                "so it cannot be scored; a method answers a task for every patient, or not at all."
            )


def _finite(answer: Predictions, task: Task, n: int) -> np.ndarray:
    """Return whose answer to a task is finite throughout, (n,); all are where there is none."""
    of_task = answer.values.get(task.name), answer.probabilities.get(task.name)
    given = (answer.survival, answer.score) if task.kind == "survival" else of_task
    numbers = [np.asarray(part, float).reshape(n, -1) for part in given if part is not None]
    return np.isfinite(np.hstack([np.zeros((n, 0)), *numbers])).all(1)


def _options(cell: Cell, names: list[str]) -> list[dict]:
    """Return the settings that a fit on these tasks may have: those tried, or those chosen before."""
    fixed, tasks = cell.method.fixed, ", ".join(names)
    if fixed and tasks not in fixed:
        raise ValueError(f"{cell.method.name!r} has fixed settings, but none for {tasks}: tune it on these tasks.")
    return [cell.method.settings | fixed[tasks]] if fixed else cell.identity["tried"]


def _note(record: dict, tuned: Tuned, names: list[str]) -> None:
    """Add what a fit cost to the record, and for a tuned one what was chosen for its tasks."""
    record["failed_trials"] += tuned.failed
    record["fit_seconds"] += tuned.fit_seconds
    record["tuning_seconds"] += tuned.tuning_seconds
    if hasattr(tuned.method, "capped"):  # a network that trains for epochs
        record["capped"] = (record["capped"] or 0) + bool(tuned.method.capped)
    if record["trials"] > 1:
        record["chosen"][", ".join(names)] = tuned.chosen


@contextmanager
def _timed(record: dict, name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    record[name] += time.perf_counter() - start


def _reset_peak() -> None:
    with suppress(OSError):  # no Linux, or not allowed: the peak is then that of the process's whole life
        Path("/proc/self/clear_refs").write_text("5")


def _peak_mb() -> float:
    """Return the largest resident memory of this process in MB: cohort and libraries included, child processes not."""
    try:
        return int(re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
    except OSError:
        unit = 1024**2 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _scores(answer: Predictions, parts: Split, horizon: float | None) -> list[dict]:
    scores = score_draws({"": answer}, parts.train, parts.test, horizon, resamples=0)
    return [
        {"task": task, "measure": measure, "score": float(score)} for (_, task, measure), (score,) in scores.items()
    ]


def patient_table(answer: Predictions, test: Cohort, horizon: float | None) -> pd.DataFrame:
    """Return the answer as a row per patient: risk at the horizon, value, or a column TASK=CLASS per probability."""
    columns = {}
    for task in test.tasks:
        if task.kind == "survival" and (answer.survival is not None or answer.score is not None):
            columns[task.name] = answer.risk(horizon)
        elif task.name in answer.values:
            columns[task.name] = answer.values[task.name]
        elif task.name in answer.probabilities:
            columns |= {f"{task.name}={k}": column.to_numpy() for k, column in answer.probabilities[task.name].items()}
    if not columns:
        raise ValueError(f"The method answers none of the tasks of {test.name}; leave it out of this benchmark.")
    return pd.DataFrame(columns, test.samples)


# --- files and table ------------------------------------------------------------------------------------------


def _write(folder: Path, record: dict, patients: pd.DataFrame | None) -> None:
    """Write a cell, each file whole or not at all; the record comes last, since it says that all is there."""
    if patients is not None:
        draft = folder / f"{record['key']}.{os.getpid()}.draft"
        patients.to_parquet(draft)
        os.replace(draft, folder / f"{record['key']}.parquet")
    draft = folder / f"{record['key']}.{os.getpid()}.draft"
    finished = datetime.now(UTC).isoformat(timespec="seconds")
    draft.write_text(json.dumps(record | {"finished": finished}, indent=1), encoding="utf-8")
    os.replace(draft, folder / f"{record['key']}.json")


def _read(folder: Path, cell: Cell) -> dict | None:
    """Return a cell's record, or None if there is none, or a torn one, or one that is not of this cell."""
    try:
        record = json.loads((folder / f"{cell.key}.json").read_text(encoding="utf-8"))
        return record if _hash(record["identity"]) == cell.key and "error" in record else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _finished(folder: Path, cell: Cell) -> bool:
    record = _read(folder, cell)
    return record is not None and record["error"] is None and (folder / f"{cell.key}.parquet").is_file()


def answer_of(folder: str | Path, cell: str) -> pd.DataFrame:
    """Return what a finished cell of the table answered for each test patient; see ``patient_table``."""
    return pd.read_parquet(Path(folder) / f"{cell}.parquet")


def predictions_of(answers: pd.DataFrame, test: Cohort) -> Predictions:
    """Return ``answer_of`` as Predictions of the test part; of a survival curve, the risk at the horizon is left."""
    numbers = {task.name: answers[task.name].to_numpy() for task in test.tasks if task.name in answers}
    score = numbers.pop(test.survival_task.name, None) if test.survival_task else None
    classes = {task.name: _classes(answers, task.name) for task in test.tasks if task.kind == "classification"}
    return Predictions(answers.index, None, None, numbers, {k: v for k, v in classes.items() if len(v.columns)}, score)


def _classes(answers: pd.DataFrame, task: str) -> pd.DataFrame:
    columns = [column for column in answers if column.startswith(f"{task}=")]
    return answers[columns].set_axis([column[len(task) + 1 :] for column in columns], axis=1)


def table(records: Iterable[dict]) -> pd.DataFrame:
    """Return the tidy table of cells: a row per cell, task and measure; of a failed cell, one row with its error.

    Settings, what tuning chose, and versions are JSON text; a long setting, say gene sets, stands there as a hash.
    n_train is what the method saw; n_whole is the training part before it was cut to train_size, if it was. Of the
    trials of all fits, failed_trials raised an error. capped counts the fits, one for each task or one for all, that
    ended because their epochs were used up, so that more might have helped; missing without epochs.
    Peak memory is that of the whole process while it fitted and predicted.
    """
    rows = []
    for record in records:
        plain = {**record["identity"], **record, "cell": record["key"]}
        plain["scheme"] = plain.get("scheme", {"name": "random"})["name"]
        plain["settings"] = shortened(plain["settings"])
        plain["chosen"] = {names: shortened(own) for names, own in record.get("chosen", {}).items()}
        plain |= {key: json.dumps(plain[key], sort_keys=True) for key in ("settings", "chosen", "versions")}
        rows += [plain | score for score in record["scores"] or [dict.fromkeys(SCORE)]]
    frame = pd.DataFrame(rows).reindex(columns=COLUMNS)
    whole = dict.fromkeys([*COUNTS, "n_whole", "train_size", "threads", "trials", "failed_trials", "capped"], "Int64")
    return frame.astype(whole | dict.fromkeys(["score", "horizon", "peak_mb", *SECONDS], float))


def shortened(settings: dict) -> dict:
    """Return settings with each long one, say gene sets, as a hash; what is short already stays."""
    long = {name: f"hash {_hash(value)}" for name, value in settings.items() if len(json.dumps(value)) > LONG}
    return settings | long


# --- checks of what the caller gives --------------------------------------------------------------------------


def _check_methods(methods: list[Method]) -> None:
    names = [method.name for method in methods]
    repeated = [name for name in names if names.count(name) > 1]
    if repeated or not names:
        wrong = f"two are called {repeated[0]!r}" if repeated else "there is none"
        raise ValueError(f"A benchmark needs methods, each with a name of its own; {wrong}.")
    for method in methods:
        _check_method(method)


def _check_method(method: Method) -> None:
    if not _importable(method.factory):
        raise ValueError(
            f"Method {method.name!r}: the factory is a class or a function that can be imported from a file, since "
            f"other processes need it and its text tells an edit, not {method.factory!r}; move it into a file."
        )
    try:
        plain = json.loads(json.dumps(method.settings, sort_keys=True))
        json.dumps([method.space, method.fixed])
    except (TypeError, ValueError) as error:
        raise ValueError(f"Method {method.name!r}: settings are plain values, as JSON has them ({error}).") from error
    if not isinstance(plain, dict) or "seed" in {*plain, *method.space}:
        raise ValueError(f"Method {method.name!r}: settings are named values without `seed`, which comes from the run.")
    empty = [name for name, values in method.space.items() if not isinstance(values, list) or not values]
    if empty:
        raise ValueError(f"Method {method.name!r}: {empty[0]!r} of its space has no list of values; give one or more.")
    if not method.kinds or set(method.kinds) - set(KINDS):
        raise ValueError(f"Method {method.name!r}: kinds are some of {', '.join(KINDS)}, not {method.kinds}.")


def _importable(factory: Callable) -> bool:
    if not (isclass(factory) or isfunction(factory)):
        return False
    module = sys.modules[factory.__module__]
    return hasattr(module, "__file__") and getattr(module, factory.__qualname__, None) is factory


def _seeds(name: str, seeds: Iterable[int]) -> list[int]:
    seeds = list(seeds)
    whole = all(isinstance(seed, int | np.integer) and seed >= 0 for seed in seeds)
    if not whole or not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"{name} are whole numbers from 0 up, at least one, and each once, not {seeds}.")
    return [int(seed) for seed in seeds]


def _check_sizes(train_size: int | None, horizon_size: int | None) -> None:
    whole = all(size is None or (isinstance(size, int) and size >= 1) for size in (train_size, horizon_size))
    if not whole or (horizon_size or 0) > (train_size or np.inf):
        raise ValueError(
            "train_size and horizon_size are whole numbers of patients from 1 up, and horizon_size not above "
            f"train_size, not {train_size} and {horizon_size}."
        )


def _check_folds(folds: Folds | None, data_seeds: list[int]) -> None:
    if folds is not None and folds.tested is None and max(data_seeds) >= len(folds):
        raise ValueError(f"There are {len(folds)} folds, so data_seeds are among 0 to {len(folds) - 1}: {data_seeds}.")


def _check_workers(workers: int | None, threads: int | None, cluster) -> None:
    if cluster is not None and (workers, threads) != (None, None):
        raise ValueError("workers and threads are for this machine; a cluster has its own: leave them out.")
    if min(workers or 1, threads or 1) < 1 or 0 in (workers, threads):
        raise ValueError(f"workers and threads are 1 or more, not {workers} and {threads}.")


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise type(error)(f"{folder} cannot be made, since a file is in its place; name another folder.") from error
    return folder
