"""Tables of long runs, frozen in data/results/ with what they rest on: aggregates, and nobody's row.

NAME.csv holds scores by method, task, measure and training size; NAME_differences.csv by how much each method is
better than the plan's reference; NAME.yml where both come from. Part of a run can be frozen: the YAML says how much.
Beside them lie the scores of the single cells (txtlib/kept.py), from which other tables, and the run itself, go on.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from txtlib.benchmark import content_hash, table
from txtlib.curves import GAINED, SIZES, gains_by_size, scores_by_size
from txtlib.kept import keep, kept_records
from txtlib.runs import RESULTS, ROOT, Run, Step, cells_file

INTERVALS = (
    "95 %, t over splits, variance corrected by n_test / n_train of the whole training part (Nadeau and Bengio 2003), "
    "also over folds, where it is no more than a safeguard (txtlib/splits.py)"
)
TUNED = {
    "first": "chosen among the trials on the validation part of the first split, with the first model seed, and fixed "
    "for all splits and seeds; patients of that part are in test parts of other splits",
    "cell": "chosen among the trials on the validation part of each cell",
}


@dataclass(frozen=True)
class Frozen:
    """A frozen run: ``scores`` (curves.scores_by_size, scheme and cost), ``differences`` (curves.gains_by_size).

    ``cells`` is the table of its cells, as ``benchmark.run`` returns it: whatever a page asks of a fresh run it can
    ask of a frozen one.
    """

    scores: pd.DataFrame
    differences: pd.DataFrame
    about: dict[str, Any]
    cells: pd.DataFrame

    @property
    def whole(self) -> bool:
        """Whether all planned cells were done."""
        return self.about["cells"]["done"] == self.about["cells"]["planned"]


def frozen(name: str, results: str | Path = RESULTS) -> Frozen:
    """Read a frozen run by the name of its plan. FileNotFoundError says what there is, and how to make it."""
    results = Path(results)
    paths = _paths(name, results)
    if not all(path.is_file() for path in paths):
        there = ", ".join(sorted(path.stem for path in results.glob("*.yml"))) or "none"
        raise FileNotFoundError(
            f"No frozen run {name!r} in {results} (there: {there}); make it with: python -m txtlib.runs {name}, "
            f"then python -m txtlib.runs {name} --freeze."
        )
    scores, differences = (_read(path) for path in paths[:2])
    cells = table(record for record in kept_records(paths[3]) if record["step"] == "cells")
    return Frozen(scores, differences, yaml.safe_load(paths[2].read_text(encoding="utf-8")), cells)


def frozen_or_why(path: str | Path) -> tuple[Frozen | None, str]:
    """Return the frozen run whose YAML file is named, and a few words on how far it is, or on how to make it.

    A notebook names it by path (data/results/scanb_os.yml), so that the book sees it as one of its inputs.
    """
    path = Path(path)
    try:
        kept = frozen(path.stem, ROOT / path.parent)
    except FileNotFoundError:
        return None, f"{path.stem} is not frozen yet (make run NAME={path.stem}, then make freeze NAME={path.stem})"
    done = kept.about["cells"]
    rest = "" if kept.whole else ", so that its numbers will still move and a method may lack splits"
    return kept, f"{path.stem} has {done['done']:,} of {done['planned']:,} cells{rest}"


def by_task(kept: Frozen, main: Mapping[str, str], write: Callable[[float, float, float], str]) -> pd.DataFrame:
    """Return a frozen run's scores as text: a row a method, a column a task on its main measure, "" for no answer.

    ``main`` {kind of task: measure}; ``write`` makes text of mean, low and high.
    """
    found = {}
    for task, kind in kept.about["cohort"]["tasks"].items():
        rows = kept.scores[(kept.scores["task"] == task) & (kept.scores["measure"] == main[kind])]
        found[f"{task}, {main[kind]}"] = {row.method: write(row.mean, row.low, row.high) for row in rows.itertuples()}
    return pd.DataFrame(found, list(dict.fromkeys(kept.scores["method"]))).fillna("").rename_axis("method")


def _read(path: Path) -> pd.DataFrame:
    found = pd.read_csv(path, float_precision="round_trip")
    whole = [name for name in (*SIZES, "splits", "seeds", "failed", "missing") if name in found]
    numbers = found.columns.difference(whole).intersection(found.select_dtypes("number").columns)
    return found.astype(dict.fromkeys(whole, "Int64") | dict.fromkeys(numbers, float))  # 0 and 1 look whole in a CSV


def _paths(name: str, results: Path) -> list[Path]:
    return [*(results / f"{name}{end}" for end in (".csv", "_differences.csv", ".yml")), cells_file(name, results)]


def freeze(run: Run, results: str | Path | None = None) -> list[Path]:
    """Sum up what a run has done, write its tables and provenance (to data/results by default); return their paths.

    Results of other code count if the run says so (``older``). Raises ValueError if nothing is done yet.
    """
    step, tuning, results = run.read().scoring(), run.tuning(), Path(results or RESULTS)
    done = table(step.records.values())
    if not done["score"].notna().any():
        raise ValueError(f"Nothing of {run.plan.name!r} is done yet; first: python -m txtlib.runs {run.plan.name}.")
    scores, differences = _with_cost(scores_by_size(done), done), _differences(done, run.plan.reference)
    about = _about(run, step, done)
    results.mkdir(parents=True, exist_ok=True)
    texts = [*(_csv(one, done) for one in (scores, differences)), _yaml(about)]
    paths = _paths(run.plan.name, results)
    for path, text in zip(paths, texts, strict=False):
        path.write_text(text, encoding="utf-8")
    keep(_marked(tuning=tuning, cells=step), paths[-1])
    return paths


def _marked(**steps: Step) -> list[dict]:
    """Return the records of steps, each with the name of its step."""
    return [record | {"step": name} for name, step in steps.items() for record in step.records.values()]


def _csv(found: pd.DataFrame, done: pd.DataFrame) -> str:
    found.insert(found.columns.get_loc("train_size"), "scheme", done["scheme"].iloc[0])
    return found.to_csv(index=False, float_format="%.6g", lineterminator="\n")


def _yaml(about: dict) -> str:
    plain = json.loads(json.dumps(about, default=np.generic.item))
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=120)


def _differences(done: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Return the gains over the reference; none where a part of a run does not have it yet."""
    there = reference in set(done.dropna(subset="score")["method"])
    found = gains_by_size(done, reference) if there else pd.DataFrame(columns=GAINED)
    found.insert(1, "reference", reference)
    return found


def _with_cost(scores: pd.DataFrame, done: pd.DataFrame) -> pd.DataFrame:
    """Add, for each method and training size, the failed cells, the seconds of a fit, and the largest memory in MB."""
    cells = done.drop_duplicates("cell")
    cells = cells.assign(fit_seconds=cells["fit_seconds"].where(cells["error"].isna()))
    cells = cells.groupby(["method", "train_size"], dropna=False)
    cost = cells.agg(
        failed=("error", "count"), seconds=("fit_seconds", "mean"), peak_mb=("peak_mb", "max")
    ).reset_index()
    return scores.merge(cost, "left", ["method", "train_size"])


# --- where the tables come from -----------------------------------------------------------------------------------


def _about(run: Run, step: Step, done: pd.DataFrame) -> dict[str, Any]:
    """Return what is written beside the tables; messages of errors are left out, since they may name a sample."""
    records = list(step.records.values())
    errors = [(record["identity"]["method"], record["error"].split(":")[0]) for record in records if record["error"]]
    return {
        "plan": run.plan.name,
        "about": run.plan.about,
        "repeat": f"make run NAME={run.plan.name} && make freeze NAME={run.plan.name}",
        "cohort": _cohort(run),
        "cells": {"planned": run.n_cells, "done": len(records) - len(errors), "failed": len(errors)},
        "methods": _methods(run, records),
        "errors": [f"{method}: {error} ({n})" for (method, error), n in Counter(errors).items()],
        "parts": _part_sizes(done),
        "intervals": INTERVALS,
        "tuning": {"trials": run.plan.trials, "settings": TUNED[run.plan.tune], "chosen": _chosen(run)},
        "code": _code(step),
        "sessions": _sessions(records),
        "declared": run.plan.declared(),
    }


def _cohort(run: Run) -> dict:
    events = run.cohort.survival_task and int(np.nansum(run.cohort.outcome()[1]))
    size = {"patients": int(run.cohort.patients().nunique()), "genes": run.cohort.expression.shape[1], "events": events}
    kinds = {task.name: task.kind for task in run.cohort.tasks}
    return {"name": run.cohort.name, "hash": content_hash(run.cohort), **size, "tasks": kinds}


def _methods(run: Run, records: Iterable[dict]) -> dict[str, str]:
    """Return {method: cells done of those planned}, so that a part-result shows what it lacks."""
    done = Counter(record["identity"]["method"] for record in records if not record["error"])
    planned = run.n_cells // len(run.methods)
    return {method.name: f"{done[method.name]} of {planned}" for method in run.methods}


def _part_sizes(done: pd.DataFrame) -> list[dict]:
    """Return patients and events of the parts, from the smallest to the largest over splits, by training size."""
    splits = done.dropna(subset="score").drop_duplicates(["train_size", "data_seed"])
    counted = [name for name in splits if name.startswith(("n_", "events_", "horizon")) and splits[name].notna().any()]
    groups = splits.groupby("train_size", dropna=False)[counted]
    ranges = [(size, group.astype(float).agg(["min", "max"]).round().astype(int)) for size, group in groups]
    return [{"train_size": _size(size), **found.to_dict("list")} for size, found in ranges]


def _size(size) -> int | str:
    return "all" if pd.isna(size) else int(size)


def _chosen(run: Run) -> dict:
    found = run.chosen() if run.plan.tune == "first" else {}
    return {_size(size): methods for size, methods in found.items() if methods}


def _code(step: Step) -> dict:
    """Return versions, and how many results are of the code that stood here when the tables were made."""
    done = {key: record for key, record in step.records.items() if not record["error"]}
    versions = sorted({json.dumps(record["versions"], sort_keys=True) for record in done.values()})
    here = sum(key == record["key"] for key, record in done.items())
    return {"of this code": here, "of other code": len(done) - here, "versions": [json.loads(one) for one in versions]}


def _sessions(records: list[dict]) -> list[dict]:
    """Return when, where and with which commit the results were made, and how many in each session."""
    times: dict[str, list[str]] = {}
    for record in records:
        if not record["error"]:
            times.setdefault(json.dumps(record["session"]), []).append(record["finished"])
    found = [json.loads(text) | {"last result": max(ends), "results": len(ends)} for text, ends in times.items()]
    return sorted(found, key=lambda session: session["started"])
