"""Which of a few settings: the same number of trials for every method, judged by one criterion on the validation part.

The criterion is fixed before any test score is seen: each task's proper loss (mean squared error, log loss, survival
log score) relative to that of the best constant of the training part, averaged over the tasks. 1 is what a constant
gets; a method answers all of its tasks well or is not chosen.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.model_selection import ParameterGrid

from txtlib.cohort import Cohort, Task
from txtlib.metrics import log_score
from txtlib.peers.floors import Trivial
from txtlib.predictions import Predictions

FLOOR = 0.01  # the least probability that a class is given, so that one certain mistake does not decide alone


@dataclass(frozen=True)
class Tuned:
    """A fitted method with the settings that were ``chosen``, its own fit's seconds, and those of all trials."""

    method: object
    chosen: dict
    fit_seconds: float
    tuning_seconds: float


def candidates(settings: dict, space: dict[str, list], trials: int) -> list[dict]:
    """Return up to ``trials`` settings: those given, then others of the declared grid in an order drawn once.

    space {name: values} says what a setting that is not given may be, its default first. The list is a property of
    the method alone, so that all splits and seeds try the same.
    """
    space = {name: values for name, values in space.items() if name not in settings}
    first = settings | {name: values[0] for name, values in space.items()}
    grid = ParameterGrid(space)
    others = (settings | grid[int(place)] for place in np.random.default_rng(0).permutation(len(grid)))
    return [first, *(one for one in others if one != first)][:trials]


def tune(
    make: Callable[..., object], options: Iterable[dict], train: Cohort, validation: Cohort, horizon: float | None
) -> Tuned:
    """Fit one method per option and return the one with the lowest ``relative_loss``, the first of equals.

    ``make(**option)`` makes a method. Where there is no choice nothing is predicted.
    """
    options, begin = list(options), time.perf_counter()
    best, lowest = None, np.inf
    for option in options:
        start = time.perf_counter()
        made = make(**option)
        fitted = made.fit(train, validation)
        fitted = made if fitted is None else fitted
        seconds = time.perf_counter() - start
        loss = relative_loss(fitted.predict(validation), train, validation, horizon) if len(options) > 1 else 0.0
        if best is None or loss < lowest:
            best, lowest = (fitted, option, seconds), loss
    return Tuned(*best, time.perf_counter() - begin)


def relative_loss(answer: Predictions, train: Cohort, validation: Cohort, horizon: float | None) -> float:
    """Return the mean over tasks of an answer's loss divided by the training part's best constant's.

    A task without a validation label is left out. Without any, and where an answer to one is missing or not a number,
    the result is infinite: such a candidate is never the better one.
    """
    floor = Trivial().fit(train).predict(validation)
    losses = [_loss(task, one, train, validation, horizon) for one in (answer, floor) for task in train.tasks]
    ours, constants = np.array(losses, float).reshape(2, -1)
    known = ~np.isnan(constants) & (constants > 0)
    found = np.mean(ours[known] / constants[known]) if known.any() else np.nan
    return float(np.nan_to_num(found, nan=np.inf))


def _loss(task: Task, answer: Predictions, train: Cohort, validation: Cohort, horizon: float | None) -> float:
    if task.kind == "survival":
        return _survival_loss(answer, train, validation, horizon)
    truth = validation.clinical[task.name].to_numpy()
    seen = ~pd.isna(truth)
    if task.kind == "regression":
        value = answer.values.get(task.name)
        return np.nan if value is None or not seen.any() else float(np.square(truth[seen] - value[seen]).mean())
    shares = answer.probabilities.get(task.name)
    return np.nan if shares is None or not seen.any() else _log_loss(truth[seen], shares[seen])


def _log_loss(truth: np.ndarray, shares: pd.DataFrame) -> float:
    given = [shares.iloc[row].get(label, 0.0) for row, label in enumerate(truth)]
    return float(-np.log(np.maximum(given, FLOOR)).mean())


def _survival_loss(answer: Predictions, train: Cohort, validation: Cohort, horizon: float) -> float:
    if answer.survival is None:
        return np.nan
    (time, event), (time_seen, event_seen) = train.outcome(), validation.outcome()
    known, seen = ~np.isnan(event), ~np.isnan(event_seen)
    judged = (time_seen[seen], event_seen[seen])
    return log_score((time[known], event[known]), judged, answer.survival[seen], answer.edges, horizon)
