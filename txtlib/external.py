"""A frozen model on a cohort that it was not made for: does it rank there, and do its risks come true?

Nothing here is fitted to be used: the Cox regressions below only measure how far predicted risks are from what
happened. Risk is the probability of the event by the horizon, follow-up is cut at the horizon, and intervals come from
one set of bootstrap samples of the patients for all methods (``txtlib.bootstrap.patient_counts``), as a row of
``counts`` (R, n) each.
"""

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd
from lifelines import KaplanMeierFitter

import txtlib.resampled as resampled
from txtlib.bootstrap import patient_counts, score_draws
from txtlib.cohort import Cohort, CohortError
from txtlib.comparisons import summary
from txtlib.metrics import Outcome
from txtlib.predictions import Predictions

CALIBRATION = ("calibration slope", "observed / expected", "ICI", "E50", "E90")
LEAST_EVENTS = 10  # by the horizon; with fewer there is no measure, of the cohort or of a subgroup
CLIP = 1e-4  # a predicted risk of 0 or 1 counts as one in ten thousand, so that its log cumulative hazard is finite
KNOTS = (0.1, 0.5, 0.9)  # quantiles of the restricted cubic spline (Harrell 2015, table 2.3)
TRACE = 1e-4  # of ridge on coefficients per SD, in units of the log likelihood: keeps those of odd samples finite
STEPS, LONGEST, NEAR = 50, 1.0, 1e-10  # of Newton's method


# --- ranking, curves, classes and numbers ---------------------------------------------------------------------


def frozen_draws(
    methods: Mapping[str, Predictions], cohort: Cohort, horizon: float, resamples: int = 500, seed: int = 0
) -> pd.DataFrame:
    """Score frozen methods on every task of an external cohort: ``score_draws`` weighted by the cohort itself.

    Inside one cohort the weights for censoring come from the training part, since all parts are censored alike. Another
    cohort is censored by its own law: patients of SCAN-B are followed for 7 years at most, of METABRIC for 30, and
    SCAN-B's weights would count METABRIC's events of the fifth year several times for censoring that was not there. So
    the censoring curve is the external cohort's own, over all patients and the same for all methods and resamples.
    The cuts of log score and time-dependent AUC are its own too, and so is the Kaplan-Meier curve that the Brier skill
    is held against: a higher floor than the curve of the cohort that the methods learned from. No method sees any of
    this.
    """
    return score_draws(dict(methods), cohort, cohort, horizon, resamples, seed)


# --- calibration ----------------------------------------------------------------------------------------------


def log_cumulative_hazard(risk: np.ndarray) -> np.ndarray:
    """Return log(-log S) of risks (n,) = 1 - S, the scale on which Cox regression adds; 0 and 1 are clipped."""
    return np.log(-np.log1p(-np.clip(risk, CLIP, 1 - CLIP)))


def calibration_draws(
    methods: Mapping[str, Predictions], cohort: Cohort, horizon: float, resamples: int = 500, seed: int = 0
) -> pd.DataFrame:
    """Return the measures CALIBRATION of each method with curves, and on bootstrap samples, as ``score_draws`` does.

    calibration slope: the coefficient of a Cox regression on log(-log S(horizon)); below 1 risks are too far apart,
    above 1 too near each other, wild where they are nearly equal, NaN where they are equal. observed / expected: the
    Kaplan-Meier risk over the mean predicted one; above 1 too few events were foretold. ICI, E50, E90: mean, median and
    90th percentile of the distance between each patient's predicted risk and a smooth of what was observed at that risk
    (Austin et al. 2020, 10.1002/sim.8570): Cox regression on a restricted cubic spline of log(-log S) with three knots.
    They are never 0, for a right model neither, and resampling makes them larger: compare methods, and look at the
    curve. See also McLernon et al. 2023 (10.7326/M22-0844).
    All NaN with fewer than LEAST_EVENTS events by the horizon.
    """
    outcome, known = _known(cohort)
    counts = np.vstack([np.ones(known.sum()), patient_counts(cohort, resamples, seed)[:, known]])
    columns = {}
    for method, answer in methods.items():
        if answer.survival is not None:
            found = calibration(outcome, event_risk(answer, horizon)[known], horizon, counts)
            columns |= {(method, cohort.survival_task.name, name): draws for name, draws in found.items()}
    return pd.DataFrame(columns).rename_axis(columns=["method", "task", "measure"])


def event_risk(answer: Predictions, horizon: float) -> np.ndarray:
    """Return the predicted probability (n,) of the event by the horizon, also of a method that ranks by a score."""
    return Predictions(answer.samples, answer.edges, answer.survival).risk(horizon)


def calibration(outcome: Outcome, risk: np.ndarray, horizon: float, counts: np.ndarray) -> dict[str, np.ndarray]:
    """Return each of CALIBRATION for risks (n,) in each sample, {measure: (R,)}; outcome is known for all."""
    if events_by(outcome, horizon) < LEAST_EVENTS:
        return {name: np.full(len(counts), np.nan) for name in CALIBRATION}
    ratio = observed_risk(outcome, horizon, counts) / (counts @ risk / counts.sum(1))
    gaps = np.abs(smooth_observed(outcome, risk, horizon, counts, risk) - risk)
    drawn = [np.repeat(gap, row) for gap, row in zip(gaps, counts.astype(int), strict=True)]
    away = [[gap.mean(), *np.quantile(gap, [0.5, 0.9])] for gap in drawn]
    columns = np.column_stack([calibration_slope(outcome, risk, horizon, counts), ratio, away])
    return dict(zip(CALIBRATION, columns.T, strict=True))


def calibration_slope(outcome: Outcome, risk: np.ndarray, horizon: float, counts: np.ndarray) -> np.ndarray:
    """Return the Cox coefficient of log(-log(1 - risk)) in each sample, (R,); NaN where all risks are equal."""
    x = log_cumulative_hazard(risk)
    if np.ptp(x) < 1e-9:
        return np.full(len(counts), np.nan)
    return cox((x - x.mean())[:, None] / x.std(), outcome, horizon, counts).coefficients[:, 0] / x.std()


def smooth_observed(
    outcome: Outcome, risk: np.ndarray, horizon: float, counts: np.ndarray, at: np.ndarray
) -> np.ndarray:
    """Return the observed risk in each sample where the predicted one is ``at`` (m,), smoothed: (R, m)."""
    x = log_cumulative_hazard(risk)
    knots = np.quantile(x, KNOTS)
    basis = _spline(x, knots)
    spread = np.where(np.ptp(basis, 0) > 1e-9, basis.std(0), 1.0)
    fit = cox((basis - basis.mean(0)) / spread, outcome, horizon, counts)
    new = (_spline(log_cumulative_hazard(at), knots) - basis.mean(0)) / spread
    return -np.expm1(-fit.hazard[:, None] * np.exp(fit.coefficients @ new.T))


def _spline(x: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """Return x and the one bend of a restricted cubic spline with three knots, (n, 2): straight beyond both ends."""
    low, middle, high = knots
    if not low < middle < high:
        return np.column_stack([x, np.zeros(len(x))])
    first, second, third = (np.clip(x - knot, 0, None) ** 3 for knot in knots)
    bend = first - (second * (high - low) - third * (middle - low)) / (high - middle)
    return np.column_stack([x, bend / (high - low) ** 2])


def calibration_curve(
    outcome: Outcome, risk: np.ndarray, horizon: float, counts: np.ndarray, points: int = 50
) -> pd.DataFrame:
    """Return the smooth to draw: predicted (even, from the 1st to the 99th percentile), observed, low, high (95 %)."""
    at = np.linspace(*np.quantile(risk, [0.01, 0.99]), points)
    curve = smooth_observed(outcome, risk, horizon, np.ones((1, len(risk))), at)[0]
    low, high = np.quantile(smooth_observed(outcome, risk, horizon, counts, at), [0.025, 0.975], axis=0)
    return pd.DataFrame({"predicted": at, "observed": curve, "low": low, "high": high})


def calibration_groups(outcome: Outcome, risk: np.ndarray, horizon: float, groups: int = 5) -> pd.DataFrame:
    """Return, for equal groups by predicted risk: n, events, predicted (mean), observed with low and high (95 %).

    observed is 1 - Kaplan-Meier at the horizon, its interval lifelines' own (log-minus-log, Greenwood); NaN where
    nobody of a group is followed so long. Equal risks stay together, so there may be fewer groups.
    """
    group = pd.qcut(risk, groups, labels=False, duplicates="drop") if np.ptp(risk) > 0 else np.zeros(len(risk), int)
    rows = [_group(tuple(part[group == k] for part in outcome), risk[group == k], horizon) for k in np.unique(group)]
    return pd.DataFrame(rows, columns=["n", "events", "predicted", "observed", "low", "high"])


def _group(outcome: Outcome, risk: np.ndarray, horizon: float) -> list[float]:
    curve = KaplanMeierFitter().fit(*outcome)
    there = (outcome[0] >= horizon).any()
    band = curve.confidence_interval_survival_function_
    low, high = (1 - band.loc[:horizon].iloc[-1, end] if there else np.nan for end in (1, 0))
    observed = 1 - curve.predict(horizon) if there else np.nan
    return [len(risk), events_by(outcome, horizon), risk.mean(), observed, low, high]


def until(outcome: Outcome, horizon: float) -> Outcome:
    """Return the outcome with follow-up cut at the horizon, as it was seen then; what is unknown (NaN) stays so."""
    time, event = outcome
    return np.minimum(time, horizon), np.where(time > horizon, 0.0, event)


def events_by(outcome: Outcome, horizon: float) -> int:
    """Return the number of events up to the horizon."""
    return int(((outcome[1] == 1) & (outcome[0] <= horizon)).sum())


# --- Kaplan-Meier and Cox on many samples at once -------------------------------------------------------------


def observed_risk(outcome: Outcome, horizon: float, counts: np.ndarray) -> np.ndarray:
    """Return 1 - Kaplan-Meier at the horizon in each sample, (R,); NaN where nobody in it is followed so long."""
    time, event = outcome
    order = np.argsort(time, kind="stable")
    moments, starts = np.unique(time[order], return_index=True)
    drawn = counts[:, order]
    at_risk = np.cumsum(drawn[:, ::-1], 1)[:, ::-1][:, starts]
    dying = np.add.reduceat(drawn * (event[order] == 1), starts, axis=1)
    stay = 1 - np.divide(dying, at_risk, out=np.zeros(dying.shape), where=at_risk > 0)
    followed = counts[:, time >= horizon].sum(1) > 0
    return np.where(followed, 1 - stay[:, moments <= horizon].prod(1), np.nan)


class Cox(NamedTuple):
    """Coefficients (R, p), Breslow's cumulative hazard (R,) where all columns are 0, and the information (R, p, p)."""

    coefficients: np.ndarray
    hazard: np.ndarray
    information: np.ndarray


def cox(x: np.ndarray, outcome: Outcome, horizon: float, counts: np.ndarray) -> Cox:
    """Fit a Cox regression on columns x (n, p), which should be centred and scaled, in each sample.

    Events after the horizon count as censored there; ties are as Breslow has them. With TRACE of ridge, and Newton's
    steps held short, a class without events ends at a finite coefficient, where library code stops with an error.
    """
    order = np.argsort(-outcome[0], kind="stable")
    time, x, counts = outcome[0][order], x[order], counts[:, order]
    cases = np.flatnonzero((outcome[1][order] == 1) & (time <= horizon))
    last = np.searchsorted(-time, -time[cases], side="right") - 1  # of those at risk, who come first here
    coefficients = np.zeros((len(counts), x.shape[1]))
    for _ in range(STEPS):
        information, gradient = _newton(coefficients, x, counts, cases, last)
        step = np.linalg.solve(information, gradient)[..., 0]
        length = np.linalg.norm(step, axis=1, keepdims=True)
        coefficients = coefficients + step * np.minimum(1, LONGEST / np.maximum(length, NEAR))
        if length.max() < NEAR:
            break
    at_risk = np.cumsum(counts * np.exp(coefficients @ x.T), 1)[:, last]
    return Cox(coefficients, _over(counts[:, cases], at_risk).sum(1), information)


def _newton(coefficients, x, counts, cases, last) -> tuple[np.ndarray, np.ndarray]:
    """Return minus the Hessian (R, p, p) and the gradient (R, p, 1) of the penalised log partial likelihood."""
    weight = counts * np.exp(coefficients @ x.T)
    at_risk, died = np.cumsum(weight, 1)[:, last], counts[:, cases]
    means = np.stack([_over(np.cumsum(weight * column, 1)[:, last], at_risk) for column in x.T], 2)  # (R, cases, p)
    gradient = died @ x[cases] - np.einsum("rc,rcp->rp", died, means) - TRACE * coefficients
    ends, starts = np.unique(last, return_index=True)
    hazard = np.zeros(weight.shape)  # summed below to what each patient has lived through
    hazard[:, ends] = np.add.reduceat(_over(died, at_risk), starts, axis=1)
    exposed = weight * np.cumsum(hazard[:, ::-1], 1)[:, ::-1]
    within = np.einsum("rn,np,nq->rpq", exposed, x, x, optimize=True)
    between = np.einsum("rc,rcp,rcq->rpq", died, means, means, optimize=True)
    return within - between + TRACE * np.eye(x.shape[1]), gradient[..., None]


def _over(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    return np.divide(top, bottom, out=np.zeros(top.shape), where=bottom > 0)


# --- decisions ------------------------------------------------------------------------------------------------


def net_benefit_intervals(
    outcome: Outcome, risks: Mapping[str, np.ndarray], horizon: float, thresholds: Iterable[float], counts: np.ndarray
) -> pd.DataFrame:
    """Return ``txtlib.decisions.net_benefit`` with intervals: model, threshold, net benefit, low, high (95 %).

    "treat all" and "treat none" come last. NaN where nobody who is treated is followed to the horizon.
    """
    n = len(outcome[0])
    risks = {**risks, "treat all": np.ones(n), "treat none": np.full(n, -1.0)}
    counts = np.vstack([np.ones(n), counts])
    rows = []
    for name, risk in risks.items():
        for threshold in thresholds:
            found = _net_benefit(outcome, risk >= threshold, horizon, threshold, counts)
            score, low, high = found[0], *np.nanquantile(found[1:], [0.025, 0.975])
            rows.append((name, threshold, score, low, high))
    return pd.DataFrame(rows, columns=["model", "threshold", "net benefit", "low", "high"])


def _net_benefit(outcome, treated, horizon, threshold, counts) -> np.ndarray:
    if not treated.any():
        return np.zeros(len(counts))
    share = counts[:, treated].sum(1) / counts.sum(1)
    cases = observed_risk(tuple(part[treated] for part in outcome), horizon, counts[:, treated])
    return np.where(share > 0, share * (cases - (1 - cases) * threshold / (1 - threshold)), 0.0)


# --- subgroups ------------------------------------------------------------------------------------------------


def subgroups(cohort: Cohort, columns: Mapping[str, Iterable[float]]) -> dict[tuple[str, str], np.ndarray]:
    """Return who belongs where, {(column, group): (n,) bool}, from clinical columns; those without a value last.

    ``columns`` {column: cuts} names them: numbers are cut into bands that begin at each cut ([50, 65]: under 50, 50
    to 65, 65 and over), and where there are no cuts each value is a group. Raises CohortError for a missing column.
    """
    return {
        (column, group): (labels == group).to_numpy()
        for column, cuts in columns.items()
        for labels in [_labels(cohort, column, list(cuts))]
        for group in labels.cat.categories
    }


def _labels(cohort: Cohort, column: str, cuts: list[float]) -> pd.Series:
    if column not in cohort.clinical:
        raise CohortError(f"{cohort.name}: the clinical table has no column {column!r}; choose other columns.")
    values = cohort.clinical[column]
    if cuts:
        between = [f"{low:g} to {high:g}" for low, high in pairwise(cuts)]
        names = [f"under {cuts[0]:g}", *between, f"{cuts[-1]:g} and over"]
        labels = pd.cut(values.astype(float), [-np.inf, *cuts, np.inf], right=False, labels=names).astype(object)
    else:
        labels, names = values.map(str, na_action="ignore").astype(object), sorted(map(str, values.dropna().unique()))
    unknown = ["unknown"] if labels.isna().any() else []
    return labels.where(labels.notna(), "unknown").astype(pd.CategoricalDtype([*names, *unknown]))


def by_subgroup(
    methods: Mapping[str, Predictions],
    cohort: Cohort,
    groups: Mapping[tuple[str, str], np.ndarray],
    horizon: float,
    resamples: int = 500,
    seed: int = 0,
) -> pd.DataFrame:
    """Return how frozen methods do in each of ``subgroups``, a row per column, group, method and measure.

    n and events (by the horizon) are of patients with a known outcome; Uno's C (weights of the whole cohort, for all
    groups the same), observed / expected and calibration slope with low and high (95 %, patient bootstrap), and a
    note. A group with fewer than LEAST_EVENTS events has no score, and its note says so. Intervals of small groups
    overlap whatever the truth: a difference between groups is shown by its own interval, not by two that part.
    """
    outcome, known = _known(cohort)
    counts = np.vstack([np.ones(known.sum()), patient_counts(cohort, resamples, seed)[:, known]])
    rows = []
    for (column, group), members in groups.items():
        inside = members[known]
        mine = tuple(part[inside] for part in outcome)
        size = {"column": column, "group": group, "n": int(inside.sum()), "events": events_by(mine, horizon)}
        for method, answer in methods.items():
            draws = _in_group(outcome, mine, answer, known, inside, horizon, counts[:, inside])
            scored = summary(pd.DataFrame(draws)).rename_axis("measure").reset_index()
            rows.append(scored.assign(**size, method=method))
    table = pd.concat(rows, ignore_index=True)
    table["note"] = np.where(table["events"] < LEAST_EVENTS, "too few events", "")
    return table[["column", "group", "n", "events", "method", "measure", "score", "low", "high", "note"]]


def _in_group(outcome, mine, answer, known, inside, horizon, counts) -> dict[str, np.ndarray]:
    nothing = np.full(len(counts), np.nan)
    names = ("Uno's C", "observed / expected", "calibration slope")
    if events_by(mine, horizon) < LEAST_EVENTS:
        return dict.fromkeys(names, nothing)
    ranks = resampled.uno_c(outcome, mine, answer.risk(horizon)[known][inside], horizon, counts)
    if answer.survival is None:
        return dict.fromkeys(names, nothing) | {"Uno's C": ranks}
    risk = event_risk(answer, horizon)[known][inside]
    ratio = observed_risk(mine, horizon, counts) / _over(counts @ risk, counts.sum(1))
    slope = calibration_slope(mine, risk, horizon, counts)
    return dict(zip(names, (ranks, ratio, slope), strict=True))


def _known(cohort: Cohort) -> tuple[Outcome, np.ndarray]:
    time, event = cohort.outcome()
    known = ~np.isnan(event)
    return (time[known], event[known]), known
