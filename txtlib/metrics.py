"""How good an answer is: one function per measure of ranking, of curves, of classes and of numbers.

Risk is always "higher is worse". Survival measures with a horizon use the training part's censoring or event times,
and the horizon is the caller's: declared once, equal for all methods. Intervals are made in ``txtlib.bootstrap``.
"""

import numpy as np
import pandas as pd
from lifelines import KaplanMeierFitter
from scipy import stats
from sklearn import metrics as sk
from sksurv import metrics as sks
from sksurv.exceptions import NoComparablePairException
from sksurv.util import Surv

from txtlib.survival import survival_at

Outcome = tuple[np.ndarray, np.ndarray]  # time (n,) and event (n,)
GRID = 50  # time points of the integrated Brier score
CUTS = 10  # time cells of the log score before the open one; their ends are the times of the time-dependent AUC
UNIFORM = 0.01  # share of the uniform distribution over the cells that is mixed into each prediction's cells
LOWER_IS_BETTER = (
    *("integrated Brier score", "log score", "mean absolute error", "root mean squared error"),
    *("ICI", "E50", "E90"),  # of txtlib.external, as are the slope and the ratio below
)
# neither higher nor lower is better (a p-value, or a number that should be 1), so no difference of it means anything
UNDIRECTED = ("D-calibration p", "calibration slope", "observed / expected")


# --- ranking --------------------------------------------------------------------------------------------------


def harrell_c(outcome: Outcome, risk: np.ndarray) -> float:
    """Return the share of comparable pairs in which the patient with the earlier event has the higher risk (n,).

    Ties count half. Harrell et al. 1982, by scikit-survival. NaN where no pair is comparable.
    """
    time, event = outcome
    return _or_nan(event, sks.concordance_index_censored, event == 1, time, risk)


def uno_c(train: Outcome, outcome: Outcome, risk: np.ndarray, horizon: float) -> float:
    """Return Uno's C (2011): Harrell's, weighted for censoring, over events before the horizon; NaN without pairs."""
    known, test = weighable(train, outcome, horizon)
    early = test["event"] & (test["time"] < horizon)
    return _or_nan(early, sks.concordance_index_ipcw, known, test, risk, horizon)


def auc_at(train: Outcome, outcome: Outcome, risk: np.ndarray, horizon: float) -> float:
    """Return the area under the ROC curve for "event by the horizon", weighted for censoring; NaN if one-sided."""
    known, test = weighable(train, outcome, horizon)
    return _auc(known, test, risk, np.array([horizon]))


def time_dependent_auc(train: Outcome, outcome: Outcome, risk: np.ndarray, horizon: float) -> float:
    """Return the AUC of "event by t against event-free at t", averaged over ``cut_times(train, horizon)``.

    risk (n, m) holds 1 - S(t) at those m times, or (n,) a score that ranks the same at all of them. The weight of a
    time is the share of the test part's events since the time before (Lambert and Chevret 2014,
    10.1177/0962280213515571; by scikit-survival). NaN without an event, or with nobody followed beyond the horizon.
    """
    known, test = weighable(train, outcome, horizon)
    times = cut_times(train, horizon)
    begun = times >= test["time"][test["event"]].min(initial=np.inf)  # without a case there is no AUC, nor a weight
    return _auc(known, test, risk if risk.ndim == 1 else risk[:, begun], times[begun])


def cut_times(train: Outcome, horizon: float) -> np.ndarray:
    """Return times (m,), at most CUTS and above 0, that cut the training events up to the horizon evenly.

    The last is the horizon. The training part and the horizon decide them, so they are the same for all methods.
    """
    time, event = train
    by_horizon = time[(event == 1) & (time <= horizon)]
    inner = np.quantile(by_horizon, np.linspace(0, 1, CUTS + 1)[1:-1]) if len(by_horizon) else []
    times = np.unique(np.append(inner, horizon))
    return times[times > 0]


def weighable(train: Outcome, outcome: Outcome, horizon: float) -> tuple[np.ndarray, np.ndarray]:
    """Pack outcomes for scikit-survival, follow-up after the horizon cut off: no measure up to it can change.

    Raises ValueError if the training part has no follow-up beyond the horizon.
    """
    if not (train[0] > horizon).any():
        raise ValueError(
            f"No training patient is followed beyond the horizon {horizon:g} (longest: {train[0].max():g}), so the "
            "weights for censoring are unknown there: choose an earlier horizon."
        )
    time, event = outcome
    after = time > horizon
    cut = Surv.from_arrays((event == 1) & ~after, np.where(after, np.nextafter(horizon, np.inf), time))
    return Surv.from_arrays(train[1] == 1, train[0]), cut


def _auc(known: np.ndarray, test: np.ndarray, risk: np.ndarray, times: np.ndarray) -> float:
    cases = test["event"] & (test["time"] <= times.max(initial=0))
    if not cases.any() or not (test["time"] > times.max()).any():
        return np.nan
    return float(sks.cumulative_dynamic_auc(known, test, risk, times)[1])


def _or_nan(event: np.ndarray, concordance, *arguments) -> float:
    if not event.any():
        return np.nan
    try:
        with np.errstate(invalid="ignore"):  # 0 / 0 where all events fall on one time
            return concordance(*arguments)[0]
    except NoComparablePairException:
        return np.nan


# --- curves ---------------------------------------------------------------------------------------------------


def integrated_brier(train: Outcome, outcome: Outcome, curves: np.ndarray, edges: np.ndarray, horizon: float) -> float:
    """Return the weighted squared error of the curves (n, K), averaged over time up to the horizon.

    The average starts at the first follow-up time of the test part, before which nothing can go wrong. NaN without
    an event, or with nobody followed beyond the horizon.
    """
    known, test = weighable(train, outcome, horizon)
    times = brier_times(horizon)
    times = times[times >= test["time"].min()]
    if len(times) < 2 or not test["event"].any() or not (test["time"] > horizon).any():
        return np.nan
    return sks.integrated_brier_score(known, test, survival_at(curves, edges, times), times)


def brier_skill(train: Outcome, outcome: Outcome, curves: np.ndarray, edges: np.ndarray, horizon: float) -> float:
    """Return 1 - integrated Brier score of the curves (n, K) / that of the training part's Kaplan-Meier curve.

    Higher is better: 1 is perfect, 0 no better than one curve for everybody, below 0 worse than that (the explained
    variation of Graf et al. 1999, with a floor that has not seen the test part). NaN where the two scores are.
    """
    # the floor's score is never 0: its curve is above 0 at the horizon, beyond which somebody was followed
    floor = integrated_brier(train, outcome, *kaplan_meier(train, len(outcome[0])), horizon)
    return 1 - integrated_brier(train, outcome, curves, edges, horizon) / floor


def kaplan_meier(train: Outcome, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the training part's Kaplan-Meier curve for each of n patients, (n, K), and its edges (K,)."""
    time, event = train
    edges = np.unique(time[time > 0])
    curve = KaplanMeierFitter().fit(time, event).survival_function_at_times(edges).to_numpy()
    return np.tile(curve, (n, 1)), edges


def brier_times(horizon: float) -> np.ndarray:
    """Return the times (GRID,) of the integrated Brier score: even steps up to the horizon."""
    return np.linspace(0, horizon, GRID + 1)[1:]


def log_score(train: Outcome, outcome: Outcome, curves: np.ndarray, edges: np.ndarray, horizon: float) -> float:
    """Return the mean negative log-likelihood of the test part under its curves (n, K): lower is better.

    Time is cut into right-open cells that are the same for all methods: they end at ``cut_times(train, horizon)``,
    and all follow-up from the horizon on is the open one. An event adds -log of its cell's probability, a censored
    patient -log of that of the own cell and all later ones, as in the loss of N-MTLR (``txtlib.losses.mtlr_nll``).
    A share UNIFORM of the uniform distribution over the cells is mixed in, so that a predicted 0 costs much, not
    infinity. But for that share, and for patients censored inside a cell, who count for the whole of it, the score
    is proper: no other prediction does better on average than the truth.
    """
    return float(log_losses(train, outcome, curves, edges, horizon).mean())


def log_losses(train: Outcome, outcome: Outcome, curves: np.ndarray, edges: np.ndarray, horizon: float) -> np.ndarray:
    """Return each patient's part (n,) in the log score."""
    ends = cut_times(train, horizon)
    reached = survival_at(curves, edges, ends)  # (n, m), the probability of each cell's end and later
    mass = -np.diff(reached, axis=1, prepend=1.0, append=0.0).clip(max=0)  # (n, m + 1)
    mass = (1 - UNIFORM) * mass + UNIFORM / mass.shape[1]
    time, event = outcome
    cell = np.searchsorted(ends, time, side="right")[:, None]
    later = np.cumsum(mass[:, ::-1], 1)[:, ::-1]
    return -np.log(np.where(event == 1, *(np.take_along_axis(part, cell, 1)[:, 0] for part in (mass, later))))


# --- classes and numbers --------------------------------------------------------------------------------------


def accuracy(truth: np.ndarray, shares: pd.DataFrame) -> float:
    """Return the share of patients (n,) whose most probable class of (n, C) is the true one."""
    return float(np.mean(truth == most_probable(shares)))


def balanced_accuracy(truth: np.ndarray, shares: pd.DataFrame) -> float:
    """Return the accuracy within each class, averaged over the classes that occur: macro recall is the same."""
    return sk.recall_score(truth, most_probable(shares), labels=np.unique(truth), average="macro", zero_division=0)


def macro_precision(truth: np.ndarray, shares: pd.DataFrame) -> float:
    """Return the share of right answers among each class's answers, averaged over the classes that occur.

    A class that nobody is taken for adds 0.
    """
    return sk.precision_score(truth, most_probable(shares), labels=np.unique(truth), average="macro", zero_division=0)


def macro_f1(truth: np.ndarray, shares: pd.DataFrame) -> float:
    """Return the F1 score of each class, averaged over the classes that occur."""
    return sk.f1_score(truth, most_probable(shares), labels=np.unique(truth), average="macro", zero_division=0)


def macro_auroc(truth: np.ndarray, shares: pd.DataFrame) -> float:
    """Return the area under the ROC curve of each class against the rest, averaged over the classes that occur.

    A class that the method has never seen has probability 0 for everybody.
    """
    present = np.unique(truth)
    return (
        float(np.mean([sk.roc_auc_score(truth == k, shares.get(k, np.zeros(len(truth)))) for k in present]))
        if len(present) > 1
        else np.nan
    )


def most_probable(shares: pd.DataFrame) -> np.ndarray:
    """Return the label (n,) of the highest probability in (n, C); of equal ones, the first."""
    return shares.columns.to_numpy()[shares.to_numpy().argmax(1)]


def mean_absolute_error(truth: np.ndarray, value: np.ndarray) -> float:
    """Return the mean absolute error in the label's unit."""
    return float(np.abs(truth - value).mean())


def root_mean_squared_error(truth: np.ndarray, value: np.ndarray) -> float:
    """Return the root of the mean squared error in the label's unit."""
    return float(np.sqrt(np.square(truth - value).mean()))


def spearman(truth: np.ndarray, value: np.ndarray) -> float:
    """Return Spearman's rank correlation: 0 for a constant answer; NaN where all labels are equal, or there is one."""
    return pearson(stats.rankdata(truth), stats.rankdata(value))


def pearson(truth: np.ndarray, value: np.ndarray) -> float:
    """Return Pearson's correlation: 0 for a constant answer; NaN where all labels are equal, or there is one."""
    if len(np.unique(truth)) < 2:
        return np.nan
    if np.ptp(value) == 0:  # ranks nobody, as a C of 0.5 does
        return 0.0
    return float(np.corrcoef(truth, value)[0, 1])
