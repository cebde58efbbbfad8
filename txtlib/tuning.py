"""Which of a few settings: the same number of trials for every method, judged by one criterion on the validation part.

The criterion is fixed before any test score is seen: each task's proper loss (mean squared error, log loss, survival
log score) relative to that of the best constant of the training part, averaged over the tasks. 1 is what that constant
gets; a method answers all of its tasks well or is not chosen. Survival ranked by a score, without curves, has no log
score: its loss is 2 (1 - C) with Harrell's C, which is 1 for a constant too.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pandas as pd

from txtlib.cohort import Cohort, Task
from txtlib.metrics import Outcome, harrell_c, log_score
from txtlib.peers.floors import Trivial
from txtlib.predictions import Predictions

FLOOR = 0.01  # the least probability that a class is given, so that one certain mistake does not decide alone


@dataclass(frozen=True)
class Tuned:
    """A fitted method with the settings that were ``chosen``, its own fit's seconds, and those of all trials.

    ``failed`` is how many trials raised an error.
    """

    method: object
    chosen: dict
    fit_seconds: float
    tuning_seconds: float
    failed: int


def candidates(settings: dict, space: dict[str, list], trials: int) -> list[dict]:
    """Return up to ``trials`` settings: the given ones with the first value of all others, then ever further from that.

    space {name: values} says what a setting that is not given may be, its default first. How far is the sum of the
    values' places in their lists; of equals come first those that change the setting declared first, by the smaller
    step first. So the second trial is the first setting at its second value, and who declares a space declares the
    order of its trials. The list is a property of the method alone: all splits and seeds try the same.
    """
    space = {name: values for name, values in space.items() if name not in settings}
    places = sorted(product(*(range(len(values)) for values in space.values())), key=_from_default)
    return [
        settings | {name: space[name][place] for name, place in zip(space, one, strict=True)} for one in places[:trials]
    ]


def _from_default(places: tuple[int, ...]) -> tuple:
    return sum(places), [place or np.inf for place in places]


def tune(
    make: Callable[..., object], options: Iterable[dict], train: Cohort, validation: Cohort, horizon: float | None
) -> Tuned:
    """Fit one method per option and return the one with the lowest ``relative_loss``, the first of equals.

    ``make(**option)`` makes a method. Where there is no choice nothing is predicted. An option that raises an error is
    never chosen; if all do, the last error goes up.
    """
    options, begin = list(options), time.perf_counter()
    best, lowest, failed = None, np.inf, 0
    for left, option in zip(reversed(range(len(options))), options, strict=True):
        try:
            fitted, seconds = _fitted(make, option, train, validation)
            loss = relative_loss(fitted.predict(validation), train, validation, horizon) if len(options) > 1 else 0.0
        except Exception:  # not kept: its traceback would hold the memory of a trial that may have run out of it
            if best is None and not left:
                raise
            failed += 1
            continue
        if best is None or loss < lowest:
            best, lowest = (fitted, option, seconds), loss
    return Tuned(*best, time.perf_counter() - begin, failed)


def _fitted(make: Callable[..., object], option: dict, train: Cohort, validation: Cohort) -> tuple[object, float]:
    """Return a fitted method and the seconds that it took."""
    start = time.perf_counter()
    made = make(**option)
    fitted = made.fit(train, validation)
    return made if fitted is None else fitted, time.perf_counter() - start


def relative_loss(answer: Predictions, train: Cohort, validation: Cohort, horizon: float | None) -> float:
    """Return the mean over tasks of an answer's loss divided by the training part's best constant's.

    A task without a validation label, or without a comparable pair for an answer that only ranks, is left out. Without
    any, and where an answer to one is missing or not a number, the result is infinite: such a candidate is never the
    better one.
    """
    floor = _constant(train, validation, curves=answer.survival is not None)
    losses = [_loss(task, one, train, validation, horizon) for one in (answer, floor) for task in train.tasks]
    ours, constants = np.array(losses, float).reshape(2, -1)
    known = ~np.isnan(constants) & (constants > 0)
    found = np.mean(ours[known] / constants[known]) if known.any() else np.nan
    return float(np.nan_to_num(found, nan=np.inf))


def _constant(train: Cohort, validation: Cohort, curves: bool) -> Predictions:
    """Return the answer for everybody that has the lowest loss on the training part; its median has not."""
    floor = Trivial().fit(train).predict(validation)
    means = {task.name: train.clinical[task.name].mean() for task in train.tasks if task.kind == "regression"}
    floor = replace(floor, values={name: np.full(len(validation), mean) for name, mean in means.items()})
    return floor if curves else replace(floor, survival=None, score=np.zeros(len(validation)))


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
    (time, event), (time_seen, event_seen) = train.outcome(), validation.outcome()
    known, seen = ~np.isnan(event), ~np.isnan(event_seen)
    judged = (time_seen[seen], event_seen[seen])
    if answer.survival is None:
        return np.nan if answer.score is None else _ranking_loss(judged, np.asarray(answer.score, float)[seen])
    return log_score((time[known], event[known]), judged, answer.survival[seen], answer.edges, horizon)


def _ranking_loss(outcome: Outcome, score: np.ndarray) -> float:
    return 2 * (1 - harrell_c(outcome, score)) if np.isfinite(score).all() else np.nan
