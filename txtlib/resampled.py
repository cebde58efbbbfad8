"""The measures of ``txtlib.metrics`` on many bootstrap samples of the patients at once.

A sample is a row of ``counts`` (R, n): how often each patient was drawn. A measure is made of sums over patients, or
over pairs of patients, so that a few matrix products give it for all samples, (R,), where a loop over the samples
takes some fifty times as long. Each function has the name and the arguments of the measure, and counts. It is NaN
where the measure is; the tests hold it to the measure itself on the rows as drawn.
"""

import numpy as np
import pandas as pd
from sksurv.nonparametric import CensoringDistributionEstimator

from txtlib.metrics import Outcome, brier_times, cut_times, kaplan_meier, log_losses, most_probable, weighable
from txtlib.survival import survival_at

TIED = 1e-8  # risks this near are tied, as in scikit-survival


# --- sums over patients and over pairs ------------------------------------------------------------------------


def _ratio(top: np.ndarray, bottom: np.ndarray, empty: float = np.nan) -> np.ndarray:
    return np.divide(top, bottom, out=np.full(top.shape, empty), where=bottom > 0)


def _mean(losses: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return _ratio(counts @ losses, counts.sum(1))


def _pair_sums(pairs: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return ((counts @ pairs) * counts).sum(1)


def _concordance(pairs: np.ndarray, risk: np.ndarray, counts: np.ndarray, tied: float = TIED) -> np.ndarray:
    """Return the share of the weighted pairs (n, n) in which the first has the higher risk (n,); ties count half."""
    gap = risk[:, None] - risk
    order = np.where(np.abs(gap) <= tied, 0.5, gap > 0)
    return _ratio(_pair_sums(pairs * order, counts), _pair_sums(pairs, counts))


# --- ranking --------------------------------------------------------------------------------------------------


def harrell_c(outcome: Outcome, risk: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return Harrell's C of each sample."""
    return _concordance(_comparable(outcome[0], outcome[1] == 1), risk, counts)


def uno_c(train: Outcome, outcome: Outcome, risk: np.ndarray, horizon: float, counts: np.ndarray) -> np.ndarray:
    """Return Uno's C of each sample."""
    known, test = weighable(train, outcome, horizon)
    early = test["event"] & (test["time"] < horizon)
    weight = np.square(_weights(known, test["time"]))
    return _concordance(weight[:, None] * _comparable(test["time"], early), risk, counts)


def auc_at(train: Outcome, outcome: Outcome, risk: np.ndarray, horizon: float, counts: np.ndarray) -> np.ndarray:
    """Return the AUC at the horizon of each sample."""
    known, test = weighable(train, outcome, horizon)
    return _concordance(_cases_against_controls(known, test, horizon), risk, counts)


def time_dependent_auc(
    train: Outcome, outcome: Outcome, risk: np.ndarray, horizon: float, counts: np.ndarray
) -> np.ndarray:
    """Return the time-dependent AUC of each sample, weighted by the falls of the sample's own Kaplan-Meier curve."""
    known, test = weighable(train, outcome, horizon)
    times = cut_times(train, horizon)
    risks = np.broadcast_to(risk.reshape(len(risk), -1), (len(risk), len(times))).T
    pairs = [_cases_against_controls(known, test, at) for at in times]
    aucs = np.stack([_concordance(*one, counts) for one in zip(pairs, risks, strict=True)], 1)  # (R, m)
    falls = -np.diff(_event_free(test, times, counts), axis=1, prepend=1.0)
    mean = _ratio(np.where(falls > 0, aucs * falls, 0).sum(1), falls.sum(1))
    return np.where(np.isnan(aucs[:, -1]), np.nan, mean)


def _comparable(time: np.ndarray, event: np.ndarray) -> np.ndarray:
    """Return (n, n): has the first patient an event while the second is known to be free of it?"""
    return event[:, None] & ((time[:, None] < time) | ((time[:, None] == time) & ~event))


def _cases_against_controls(known: np.ndarray, test: np.ndarray, at: float) -> np.ndarray:
    case = test["event"] & (test["time"] <= at)
    return (case * _weights(known, test["time"]))[:, None] * (test["time"] > at)


def _weights(known: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Return 1 / G of the training part's censoring curve G at these times, 0 where nobody would be left."""
    uncensored = CensoringDistributionEstimator().fit(known).predict_proba(times)
    return _ratio(np.ones(len(times)), uncensored, empty=0.0)


def _event_free(test: np.ndarray, times: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the Kaplan-Meier curve of each sample at the times, (R, m)."""
    moments = np.unique(test["time"][test["event"]])
    at_moment = test["event"][:, None] & (test["time"][:, None] == moments)
    dying = _ratio(counts @ at_moment, counts @ (test["time"][:, None] >= moments), empty=0.0)
    curve = np.pad(np.cumprod(1 - dying, 1), ((0, 0), (1, 0)), constant_values=1.0)
    return curve[:, np.searchsorted(moments, times, side="right")]


# --- curves ---------------------------------------------------------------------------------------------------


def integrated_brier(
    train: Outcome, outcome: Outcome, curves: np.ndarray, edges: np.ndarray, horizon: float, counts: np.ndarray
) -> np.ndarray:
    """Return the integrated Brier score of each sample, from the first follow-up time that was drawn."""
    known, test = weighable(train, outcome, horizon)
    times = brier_times(horizon)
    errors = _ratio(*np.broadcast_arrays(counts @ _brier(known, test, curves, edges, times), counts.sum(1)[:, None]))
    first = np.where(counts > 0, test["time"], np.inf).min(1)
    counted = times[:-1] >= first[:, None]  # (R, GRID - 1) steps, all of one width
    mean = _ratio(((errors[:, 1:] + errors[:, :-1]) / 2 * counted).sum(1), counted.sum(1))
    defined = (counts @ test["event"] > 0) & (counts @ (test["time"] > horizon) > 0)
    return np.where(defined, mean, np.nan)


def brier_skill(
    train: Outcome, outcome: Outcome, curves: np.ndarray, edges: np.ndarray, horizon: float, counts: np.ndarray
) -> np.ndarray:
    """Return the skill of the integrated Brier score of each sample; the Kaplan-Meier curve stays as it is."""
    floor = integrated_brier(train, outcome, *kaplan_meier(train, len(outcome[0])), horizon, counts)
    return 1 - _ratio(integrated_brier(train, outcome, curves, edges, horizon, counts), floor)


def _brier(known: np.ndarray, test: np.ndarray, curves: np.ndarray, edges: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Return the weighted squared error of each patient at each time, (n, GRID)."""
    reached = survival_at(curves, edges, times)
    time = test["time"][:, None]
    case = (test["event"][:, None] & (time <= times)) * _weights(known, test["time"])[:, None]
    return np.square(reached) * case + np.square(1 - reached) * (time > times) * _weights(known, times)


def log_score(
    train: Outcome, outcome: Outcome, curves: np.ndarray, edges: np.ndarray, horizon: float, counts: np.ndarray
) -> np.ndarray:
    """Return the log score of each sample."""
    return _mean(log_losses(train, outcome, curves, edges, horizon), counts)


# --- classes --------------------------------------------------------------------------------------------------


def accuracy(truth: np.ndarray, shares: pd.DataFrame, counts: np.ndarray) -> np.ndarray:
    """Return the accuracy of each sample."""
    return _mean(truth == most_probable(shares), counts)


def balanced_accuracy(truth: np.ndarray, shares: pd.DataFrame, counts: np.ndarray) -> np.ndarray:
    """Return the balanced accuracy of each sample."""
    true, _, hit = _per_class(truth, shares, counts)
    return _macro(_ratio(hit, true), true)


def macro_precision(truth: np.ndarray, shares: pd.DataFrame, counts: np.ndarray) -> np.ndarray:
    """Return the macro precision of each sample."""
    true, taken, hit = _per_class(truth, shares, counts)
    return _macro(_ratio(hit, taken, empty=0.0), true)


def macro_f1(truth: np.ndarray, shares: pd.DataFrame, counts: np.ndarray) -> np.ndarray:
    """Return the macro F1 of each sample."""
    true, taken, hit = _per_class(truth, shares, counts)
    return _macro(_ratio(2 * hit, true + taken), true)


def macro_auroc(truth: np.ndarray, shares: pd.DataFrame, counts: np.ndarray) -> np.ndarray:
    """Return the macro AUROC of each sample; NaN where all drawn are of one class."""
    classes = np.unique(truth)
    members = truth[:, None] == classes  # (n, C)
    areas = [
        _concordance(member[:, None] & ~member, shares.get(k, pd.Series(0.0, shares.index)).to_numpy(), counts, tied=0)
        for k, member in zip(classes, members.T, strict=True)
    ]
    areas = np.stack(areas, 1)  # (R, C), NaN for a class that was not drawn
    return _ratio(np.nansum(areas, 1), (~np.isnan(areas)).sum(1))


def _per_class(truth: np.ndarray, shares: pd.DataFrame, counts: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return how many were drawn of each class, taken for it, and both, each (R, C)."""
    classes = np.unique(truth)
    true, taken = (labels[:, None] == classes for labels in (truth, most_probable(shares)))
    return counts @ true, counts @ taken, counts @ (true & taken)


def _macro(scores: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Average the scores (R, C) over the classes that were drawn."""
    return _ratio(np.where(true > 0, scores, 0).sum(1), (true > 0).sum(1))


# --- numbers --------------------------------------------------------------------------------------------------


def mean_absolute_error(truth: np.ndarray, value: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the mean absolute error of each sample."""
    return _mean(np.abs(truth - value), counts)


def root_mean_squared_error(truth: np.ndarray, value: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the root mean squared error of each sample."""
    return np.sqrt(_mean(np.square(truth - value), counts))


def pearson(truth: np.ndarray, value: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return Pearson's correlation of each sample: 0 where all drawn answers are equal, NaN where all labels are."""
    return _correlation(truth[None], value[None], counts)


def spearman(truth: np.ndarray, value: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return Spearman's correlation of each sample: 0 where all drawn answers are equal, NaN where all labels are."""
    return _correlation(_ranks(truth, counts), _ranks(value, counts), counts)


def _ranks(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return each patient's rank within each sample, (R, n), up to a constant; equal values share their mean rank.

    All are NaN if a value is, as in SciPy.
    """
    if np.isnan(values).any():
        return np.full(counts.shape, np.nan)
    return counts @ (values[:, None] < values) + counts @ (values[:, None] == values) / 2


def _correlation(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the correlation of labels x and answers y, (1, n) or (R, n), within each sample."""
    total = np.maximum(counts.sum(1, keepdims=True), 1)
    u, v = (side - (counts * side).sum(1, keepdims=True) / total for side in (x, y))
    together, of_u, of_v = ((counts * product).sum(1) for product in (u * v, u * u, v * v))
    found = np.where(_spread(y, counts) == 0, 0.0, _ratio(together, np.sqrt(of_u * of_v)))
    return np.where(_spread(x, counts) > 0, found, np.nan)


def _spread(side: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the highest less the lowest of those drawn, (R,); -inf where nobody was."""
    highest, lowest = (np.where(counts > 0, side, end) for end in (-np.inf, np.inf))
    return highest.max(1) - lowest.min(1)
