"""Methods fitted on one cohort and moved to another as they are, and what the results say of a claim to be as good.

What the two cohorts have in common is settled from names alone (txtlib/joining.py). No value of the other cohort's
expression, and no label, plays a role before the answers are there.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd

from txtlib import ledger
from txtlib.benchmark import Method, unlabelled
from txtlib.bootstrap import MEASURES, patient_counts
from txtlib.catalogue import TXT
from txtlib.cohort import Cohort, Task
from txtlib.comparisons import paired_difference
from txtlib.entries import CONSTANT, RIVALS, noted
from txtlib.external import LEAST_EVENTS, events_by
from txtlib.ledger import Entry
from txtlib.metrics import Outcome
from txtlib.predictions import Predictions, joined
from txtlib.tuning import tune
from txtlib.workers import last_words

MAIN = {  # what is scored, the first of a kind being what a comparison is judged by
    "survival": ("Uno's C",),
    "classification": ("accuracy",),
    "regression": ("Spearman", "mean absolute error"),
}
NOTHING = "TxT and the article's baselines have no task in common here that can be scored"


# --- methods and cohorts, made ready ----------------------------------------------------------------------------------


def on_genes(methods: Iterable[Method], genes: list[str]) -> list[Method]:
    """Return the same methods, choosing from these genes only; those that read no genes stay as they are."""
    sets = {"gene_sets": {"measured in both cohorts": list(genes)}}
    return [replace(one, settings=one.settings | sets) if "gene_sets" in one.settings else one for one in methods]


def on_columns(methods: Iterable[Method], columns: list[str]) -> list[Method]:
    """Return the same methods, reading these clinical columns only; one that is left with none is left out."""
    kept = {one.name: [name for name in one.settings.get("columns", []) if name in columns] for one in methods}
    reading = [one for one in methods if kept[one.name] or "columns" not in one.settings]
    return [
        replace(one, settings=one.settings | {"columns": kept[one.name]} if kept[one.name] else one.settings)
        for one in reading
    ]


def reaching(cohort: Cohort, horizon: float | None) -> Cohort:
    """Return a cohort without its survival task where that cannot be scored up to the horizon, and as it is elsewhere.

    It needs somebody who is followed beyond the horizon, and LEAST_EVENTS events by then.
    """
    task = cohort.survival_task
    if task is None:
        return cohort
    outcome = cohort.outcome()
    if horizon is not None and (outcome[0] > horizon).any() and events_by(outcome, horizon) >= LEAST_EVENTS:
        return cohort
    return cohort.with_tasks(*(one.name for one in cohort.tasks if one is not task))


# --- fitted once, then frozen -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fitted:
    """A method after its fits: ``fits`` {the tasks of one fit: what was fitted}; see ``fit_methods``."""

    fits: dict[tuple[str, ...], object]

    def predict(self, cohort: Cohort) -> Predictions:
        """Answer for the patients of any cohort; the labels of the tasks are taken out before a fit sees them."""
        return joined([fitted.predict(_without_labels(cohort, names)) for names, fitted in self.fits.items()])


def fit_methods(
    methods: Iterable[Method],
    train: Cohort,
    validation: Cohort,
    horizon: float | None,
    trials: int = 1,
    seed: int = 0,
) -> tuple[dict[str, Fitted], dict[str, str]]:
    """Fit each method on a training part, as a cell of the benchmark does; return them, and what went wrong, by name.

    Settings are chosen among so many ``trials`` on the validation part. A method that fails, or has no task here, is
    left out, with the reason.
    """
    found, errors = {}, {}
    for method in methods:
        try:
            found[method.name] = Fitted(_fits(method, train, validation, horizon, trials, seed))
        except Exception as error:  # one method must not take the others with it
            errors[method.name] = last_words(error)
    return found, errors


def answers_of(fitted: Mapping[str, Fitted], cohort: Cohort) -> tuple[dict[str, Predictions], dict[str, str]]:
    """Return each method's answer, and by name what went wrong: an error, or an answer that is not finite."""
    found, errors = {}, {}
    for name, method in fitted.items():
        try:
            answer = method.predict(cohort)
            if not all(np.isfinite(part).all() for part in _parts(answer)):
                raise ValueError("The answer is not a finite number for every patient.")
            found[name] = answer
        except Exception as error:
            errors[name] = last_words(error)
    return found, errors


def _fits(method: Method, train: Cohort, validation: Cohort, horizon, trials: int, seed: int) -> dict:
    names = [task.name for task in train.tasks if task.kind in method.kinds]
    if not names:
        raise ValueError(f"no task here is of the kinds that it answers, {', '.join(method.kinds)}.")
    make, options = partial(method.factory, seed=seed), method.tried(trials)
    groups = [tuple(names)] if method.joint else [(name,) for name in names]
    parts = {group: [part.with_tasks(*group) for part in (train, validation)] for group in groups}
    return {group: tune(make, options, *pair, horizon).method for group, pair in parts.items()}


def _without_labels(cohort: Cohort, names: tuple[str, ...]) -> Cohort:
    return unlabelled(replace(cohort, tasks=tuple(task for task in cohort.tasks if task.name in names)))


def _parts(answer: Predictions) -> list[np.ndarray]:
    shares = [table.to_numpy(float) for table in answer.probabilities.values()]
    given = [answer.survival, answer.score, *answer.values.values(), *shares]
    return [np.asarray(part, float) for part in given if part is not None]


# --- as good as the others? ---------------------------------------------------------------------------------------


def main_draws(
    methods: Mapping[str, Predictions],
    cohort: Cohort,
    horizon: float | None,
    resamples: int = 500,
    seed: int = 0,
    train: Cohort | None = None,
) -> pd.DataFrame:
    """Return those columns of ``external.frozen_draws`` that are of MAIN measures, at a fraction of its time.

    Given the training part, of a test part of the same cohort, censoring is weighed by that: ``bootstrap.score_draws``.
    """
    counts = patient_counts(cohort, resamples, seed)
    columns = {}
    for task in cohort.tasks:
        known, truth = _truth(task, cohort, cohort if train is None else train)
        for name, answer in methods.items():
            given = _answer(task, answer, horizon)
            for measure in () if given is None else MAIN[task.kind]:
                score, on_samples = MEASURES[measure]
                ends = (horizon,) if task.kind == "survival" else ()
                arguments = (*truth, given[known], *ends)
                drawn = on_samples(*arguments, counts[:, known]) if known.any() else np.full(resamples, np.nan)
                columns[name, task.name, measure] = np.append(score(*arguments) if known.any() else np.nan, drawn)
    return pd.DataFrame(columns).rename_axis(columns=["method", "task", "measure"])


def _truth(task: Task, cohort: Cohort, weights: Cohort) -> tuple[np.ndarray, tuple]:
    """Return who has a label, (n,), and what the measures are told of those; for survival, whom to weigh by first."""
    if task.kind == "survival":
        known = ~np.isnan(cohort.outcome()[1])
        return known, (_seen(weights), _seen(cohort))
    labels = cohort.clinical[task.name].to_numpy()
    known = ~pd.isna(labels)
    return known, (labels[known],)


def _seen(cohort: Cohort) -> Outcome:
    time, event = cohort.outcome()
    known = ~np.isnan(event)
    return time[known], event[known]


def _answer(task: Task, answer: Predictions, horizon: float | None):
    if task.kind == "survival":
        return None if answer.survival is None and answer.score is None else answer.risk(horizon)
    return (answer.probabilities if task.kind == "classification" else answer.values).get(task.name)


def moved_entry(
    id: str,
    draws: pd.DataFrame,
    main: Mapping[str, str],
    *,
    cohort: str,
    patients: int,
    events: int | None = None,
    note: str = "",
) -> Entry:
    """Enter that TxT, moved to a cohort, does as well as each of the article's one-task baselines that ran there.

    ``draws`` are those of ``main_draws`` and ``main`` {task: measure} what a task is judged by. The claim holds if all
    differences lie above minus the margin; it fails by an interval that is widened for their number (Bonferroni). A
    task in which TxT is not shown to be better than a constant decides nothing.
    """
    there = set(draws.columns)
    wanted = [(name, *pair) for name in RIVALS for pair in main.items() if {(TXT, *pair), (name, *pair)} <= there]
    level = 1 - 0.05 / max(1, len(wanted))
    found = {one: _gain(draws, TXT, *one) for one in wanted}
    found = {one: row for one, row in found.items() if row.notna().all()}
    if not found:
        return ledger.not_attempted(id, cohort=cohort, why=NOTHING)
    absent = [name for name in RIVALS if name not in {one[0] for one in found}]
    dull = [task for task, measure in main.items() if not _learned(draws, task, measure)]
    return ledger.claim(
        id,
        {", ".join(one): row for one, row in found.items()},
        **dict(cohort=cohort, patients=patients, splits=1, events=events, partial=bool(absent)),
        widened={", ".join(one): _gain(draws, TXT, *one, level).iloc[1:] for one in found},
        undecided=[", ".join(one) for one in found if one[1] in dull],
        note=noted(absent, dull, level, note),
    )


def _gain(draws: pd.DataFrame, method: str, other: str, task: str, measure: str, level: float = 0.95) -> pd.Series:
    """Return score, low and high by which ``method`` is better than ``other``."""
    pair = draws[[(name, task, measure) for name in (method, other)]]
    return paired_difference(pair, method, other, level).iloc[0]


def _learned(draws: pd.DataFrame, task: str, measure: str) -> bool:
    """Tell whether TxT is better than the constant, or there is none to tell by."""
    if not {(TXT, task, measure), (CONSTANT, task, measure)} <= set(draws.columns):
        return True
    return bool(_gain(draws, TXT, CONSTANT, task, measure)["low"] > 0)
