"""``python -m txtlib.runs NAME``: a long run that data/plans.yml declares; it goes on where it was ended.

Each finished cell is written at once into ``_build/runs/NAME/``, so Ctrl-C, a kill or a power cut costs the cells that
were being worked on. With ``--hours 2`` no further cell is begun after that time. ``--freeze`` sums up what is there,
all or a part, in ``data/results/`` (txtlib/frozen.py), and keeps the cells' scores there too (txtlib/kept.py), from
which any checkout goes on.

A cell's name holds a hash of the code that it needs, so an edit of the library makes cells of other code. They are run
again, unless ``--older`` keeps them; frozen tables take this code's result, or else the newest of other code, and say
how many are of which. A run of days belongs in a checkout where nobody edits: ``git worktree add ../runs``.
"""

import argparse
import fcntl
import json
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from txtlib.benchmark import Cell, Method, plan, run_cells, same_but_code
from txtlib.kept import alike, kept_records
from txtlib.plans import PLANS, Plan, entrants, longer, read_plan
from txtlib.splits import make_folds

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "_build" / "runs"
RESULTS = ROOT / "data" / "results"

TRAINING = 0.7  # of a cohort, in a random split


@dataclass(frozen=True)
class Step:
    """Cells of a run, each with its record where it is done: ``records`` {cell's key: record}."""

    cells: list[Cell]
    records: dict[str, dict]

    @property
    def todo(self) -> list[Cell]:
        """The cells without a result."""
        return [cell for cell in self.cells if cell.key not in self.records or self.records[cell.key]["error"]]


class Run:
    """A plan with its cohort and its finished cells, in a folder and among the kept results.

    ``older``: results of other code count too.
    """

    def __init__(self, plan: Plan, runs: Path = RUNS, older: bool = False, results: Path = RESULTS):
        self.plan, self.folder, self.older = plan, Path(runs) / plan.name, older
        self.kept = cells_file(plan.name, results)
        self.cohort, self.methods = entrants(plan)
        self.folds = make_folds(self.cohort, plan.folds)

    @property
    def n_cells(self) -> int:
        """How many cells the plan has, tuning before them not counted."""
        return len(self.methods) * self.plan.splits * self.plan.model_seeds * len(self.plan.sizes)

    def tuning(self) -> Step:
        """Return the cells that choose settings: the first split, for each method with a choice and each size."""
        tuned = [method for method in self.methods if len(method.tried(self.plan.trials)) > 1]
        if self.plan.tune != "first" or not tuned:
            return Step([], {})
        return self._step([cell for size in self.plan.sizes for cell in self._plan(tuned, size, [0], [0])])

    def chosen(self) -> dict[int | None, dict[str, dict]]:
        """Return what tuning chose so far: {training size: {method: {tasks of a fit: settings}}}."""
        step, found = self.tuning(), {size: {} for size in self.plan.sizes}
        spaces = {method.name: method.space for method in self.methods}
        for cell in step.cells:
            record = step.records.get(cell.key)
            if record and not record["error"]:
                name, size = cell.method.name, cell.identity.get("train_size")
                found[size][name] = {
                    tasks: {key: value for key, value in own.items() if key in spaces[name]}
                    for tasks, own in record["chosen"].items()
                }
        return found

    def scoring(self) -> Step:
        """Return the cells of the tables; those of a method that tuning has not reached are not among them yet."""
        chosen, seeds = self.chosen(), (range(self.plan.splits), range(self.plan.model_seeds))
        ready = {size: [m for m in map(_fixed(own, self.plan), self.methods) if m] for size, own in chosen.items()}
        return self._step([cell for size, few in ready.items() if few for cell in self._plan(few, size, *seeds)])

    def _plan(self, methods: list[Method], size: int | None, data_seeds, model_seeds) -> list[Cell]:
        options = {"scheme": self.folds, "train_size": size, "horizon_size": self.plan.horizon_size}
        if self.plan.same_steps and size != self.plan.sizes[-1]:
            largest = self.plan.sizes[-1] or TRAINING * len(self.cohort)
            methods = [longer(method, max(1.0, largest / size)) for method in methods]
        return plan(methods, self.cohort, list(data_seeds), list(model_seeds), trials=self.plan.trials, **options)

    def _step(self, cells: list[Cell]) -> Step:
        found = {cell.key: self._record(cell) for cell in cells}
        return Step(cells, {key: record for key, record in found.items() if record})

    def _record(self, cell: Cell) -> dict | None:
        """Return the cell's record: of this code, or else the newest of other code that has a result, if it may be."""
        own = self._records.get(cell.key)
        if not self.older or (own and not own["error"]):
            return own
        others = [record for record in self._alike.get(same_but_code(cell.identity), []) if not record["error"]]
        return max(others, key=lambda record: record["finished"], default=own)

    def read(self) -> "Run":
        """Read the kept cells and the folder anew; of a cell in both, that of the folder, unless it failed there."""
        found = {record["key"]: record for record in kept_records(self.kept)}
        sessions = _sessions(self.folder)
        for record in _records(self.folder / "cells"):
            if not record["error"] or record["key"] not in found:
                found[record["key"]] = record | {"session": _session_of(record, sessions)}
        self._records = found
        self._alike: dict[str, list[dict]] = {}
        for record in found.values():
            self._alike.setdefault(alike(record), []).append(record)
        return self


def cells_file(name: str, results: str | Path = RESULTS) -> Path:
    """Return the file in which the cells of a run are kept."""
    return Path(results) / f"{name}_cells.jsonl.xz"


def _fixed(chosen: dict[str, dict], plan: Plan):
    """Return a function that gives a method the settings that were chosen, None if it still has to be tuned."""

    def fixed(method: Method) -> Method | None:
        if plan.tune != "first" or len(method.tried(plan.trials)) == 1:
            return method
        return replace(method, fixed=chosen[method.name]) if method.name in chosen else None

    return fixed


def _records(folder: Path) -> Iterator[dict]:
    for path in sorted(folder.glob("*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:  # torn: it will be run again
            continue
        if record["key"] == path.stem and (record["error"] or path.with_suffix(".parquet").is_file()):
            yield record


def _sessions(folder: Path) -> list[dict]:
    path = folder / "sessions.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return sorted((json.loads(line) for line in lines), key=lambda session: session["started"])


def _session_of(record: dict, sessions: list[dict]) -> dict:
    """Return the session in which a cell of the folder was finished: the last one that had started by then."""
    return max((one for one in sessions if one["started"] <= record["finished"]), key=lambda one: one["started"])


# --- running ------------------------------------------------------------------------------------------------------


def execute(run: Run, hours: float | None = None, **options) -> Run:
    """Run what is missing, and return the run as it then stands; ``options`` are those of ``run_cells``.

    One method after another is tuned and scored with the first model seed, then all with the others, so that a
    part-result compares as many methods as there was time for. After ``hours`` no further cell is begun. A cell that
    failed is tried again. Raises ValueError if another process is at this run.
    """
    until = np.inf if hours is None else time.time() + 3600 * hours
    with _only_one(run.folder):
        _note_session(run.folder)
        run.read()
        for seeds in ({0}, set(range(run.plan.model_seeds))):
            for method in run.methods:
                for what, step in (("tuning", run.tuning), ("cells", run.scoring)):
                    cells = [cell for cell in step().todo if _is_of(cell, method.name, seeds)]
                    if cells:
                        where, named = run.folder / "cells", f"{method.name}, {what}"
                        run_cells(cells, run.cohort, where, until=until, what=named, **options)
                        run.read()
    return run


def _is_of(cell: Cell, method: str, seeds: set[int]) -> bool:
    return cell.method.name == method and cell.identity["model_seed"] in seeds


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:  # it ends with the process, however that ends
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"Another process is at {folder}; let it finish, or end it, and start again.") from None
        yield


def _note_session(folder: Path) -> None:
    """Add a line that says when, where and with which commit the run goes on."""
    session = {"started": datetime.now(UTC).isoformat(timespec="seconds"), **commit(), "machine": machine()}
    with (folder / "sessions.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(session) + "\n")


def commit() -> dict:
    """Return {commit, edited}: of the library here, and whether it has edits beyond that; None where git cannot say."""
    try:
        name = _git("rev-parse", "--short=12", "HEAD")
        return {"commit": name, "edited": bool(_git("status", "--porcelain", "--", "txtlib", "data/plans.yml"))}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "edited": None}


def _git(*words: str) -> str:
    return subprocess.run(["git", "-C", ROOT, *words], check=True, capture_output=True, text=True).stdout.strip()


def machine() -> dict:
    """Return the processor, its cores, and the graphics card that torch sees."""
    import torch  # slow to import, and needed here only
    from joblib import cpu_count

    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {"processor": _processor(), "cores": cpu_count(), "gpu": card, "system": platform.system()}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


# --- the command --------------------------------------------------------------------------------------------------


def state(run: Run) -> str:
    """Say in a line how far a run is."""
    tuning, scoring = run.tuning(), run.scoring()
    steps = {"tuning": (tuning, len(tuning.cells)), "cells": (scoring, run.n_cells)}
    told = [f"{len(step.cells) - len(step.todo)} of {n} {what}" for what, (step, n) in steps.items() if n]
    failed = sum(bool(record["error"]) for step in (tuning, scoring) for record in step.records.values())
    return f"{run.plan.name}: {', '.join(told)} done, {failed} failed"


def of_other_code(run: Run) -> str:
    """Say in a line how many results of other code the folder holds in the place of this code's; "" if none."""
    with_older, without = (_done(run, older) for older in (True, False))
    kept = "they count" if run.older else "those cells are run again; --older keeps them"
    n = with_older - without
    return f"{run.plan.name}: {n} results are of other code than this ({kept})" if n else ""


def _done(run: Run, older: bool) -> int:
    run = copy(run)
    run.older = older
    return sum(len(step.cells) - len(step.todo) for step in (run.tuning(), run.scoring()))


def main(argv: list[str]) -> int:
    """Run or freeze a plan; return 0, 1 (cells failed), 2 (it cannot be run) or 130 (interrupted)."""
    parser = argparse.ArgumentParser(prog="python -m txtlib.runs", description=__doc__.split("\n")[0])
    parser.add_argument("name", help="a plan of data/plans.yml")
    parser.add_argument("--hours", type=float, help="begin no further cell after so many hours")
    parser.add_argument("--workers", type=int, help="processes (default: one per core)")
    parser.add_argument("--older", action="store_true", help="keep results of other code")
    parser.add_argument("--freeze", action="store_true", help="run nothing: sum up what is done in data/results")
    options = parser.parse_args(argv)
    try:
        run = Run(read_plan(options.name, PLANS), RUNS, options.older or options.freeze).read()
        return _freeze(run) if options.freeze else _execute(run, options)
    except (ValueError, OSError) as error:
        print(f"txtlib.runs: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"txtlib.runs: interrupted; what is finished is kept. To go on: {_again(options.name)}", file=sys.stderr)
        return 130


def _again(name: str) -> str:
    return f"python -m txtlib.runs {name}"


def _execute(run: Run, options: argparse.Namespace) -> int:
    for line in filter(None, (state(run), of_other_code(run))):
        print(line, flush=True)
    execute(run, options.hours, workers=options.workers, threads=1)
    print(state(run))
    failed = [record for step in (run.tuning(), run.scoring()) for record in step.records.values() if record["error"]]
    for record in failed[:5]:
        print(f"failed: {record['identity']['method']}: {record['error']}", file=sys.stderr)
    print(f"Go on, or try again what failed: {_again(run.plan.name)}; sum up: {_again(run.plan.name)} --freeze")
    return 1 if failed else 0


def _freeze(run: Run) -> int:
    from txtlib.frozen import freeze  # which reads runs

    for path in freeze(run):
        print(path)
    print(state(run))
    return 0


def obey_signals() -> None:
    """Let a cancelled job (SIGTERM) end as Ctrl-C does."""
    for name in (signal.SIGINT, signal.SIGTERM):  # a shell gives SIGINT to background jobs as ignored
        signal.signal(name, signal.default_int_handler)


if __name__ == "__main__":
    obey_signals()
    sys.exit(main(sys.argv[1:]))
