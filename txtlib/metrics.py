"""How good an answer is: one function per measure, patient-level bootstrap intervals, paired differences.

Risk is always "higher is worse". Survival measures with a horizon use the training part's censoring, and the
horizon is the caller's: declared once, equal for all methods.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy import stats
from sklearn import metrics as sk
from sksurv import metrics as sks
from sksurv.exceptions import NoComparablePairException
from sksurv.util import Surv

from txtlib.cohort import Cohort, Task
from txtlib.predictions import Predictions
from txtlib.survival import survival_at

Outcome = tuple[np.ndarray, np.ndarray]  # time (n,) and event (n,)
GRID = 50  # time points of the integrated Brier score
LOWER_IS_BETTER = ("integrated Brier score", "mean absolute error", "root mean squared error")


# --- survival -------------------------------------------------------------------------------------------------


def harrell_c(outcome: Outcome, risk: np.ndarray) -> float:
    """Return the share of comparable pairs in which the patient with the earlier event has the higher risk (n,).

    Ties count half. Harrell et al. 1982, by scikit-survival. NaN where no pair is comparable.
    """
    time, event = outcome
    return _or_nan(event, sks.concordance_index_censored, event == 1, time, risk)


def uno_c(train: Outcome, outcome: Outcome, risk: np.ndarray, horizon: float) -> float:
    """Return Uno's C (2011): Harrell's with weights for censoring, over events up to the horizon; NaN without pairs."""
    known, test = _weighable(train, outcome, horizon)
    return _or_nan(test["event"], sks.concordance_index_ipcw, known, test, risk, horizon)


def auc_at(train: Outcome, outcome: Outcome, risk: np.ndarray, horizon: float) -> float:
    """Return the area under the ROC curve for "event by the horizon", weighted for censoring; NaN if one-sided."""
    known, test = _weighable(train, outcome, horizon)
    cases = test["event"] & (test["time"] <= horizon)
    if not cases.any() or not (test["time"] > horizon).any():
        return np.nan
    return float(sks.cumulative_dynamic_auc(known, test, risk, [horizon])[0][0])


def integrated_brier(train: Outcome, outcome: Outcome, curves: np.ndarray, edges: np.ndarray, horizon: float) -> float:
    """Return the weighted squared error of the curves (n, K), averaged over time up to the horizon.

    The average starts at the first follow-up time of the test part, before which nothing can go wrong.
    """
    known, test = _weighable(train, outcome, horizon)
    times = np.linspace(0, horizon, GRID + 1)[1:]
    times = times[times >= test["time"].min()]
    if len(times) < 2 or not (test["time"] > horizon).any():
        return np.nan
    return sks.integrated_brier_score(known, test, survival_at(curves, edges, times), times)


def _weighable(train: Outcome, outcome: Outcome, horizon: float) -> tuple[np.ndarray, np.ndarray]:
    """Pack outcomes for scikit-survival, follow-up after the horizon cut off: no measure up to it can change."""
    if not (train[0] > horizon).any():
        raise ValueError(
            f"No training patient is followed beyond the horizon {horizon:g} (longest: {train[0].max():g}), so the "
            "weights for censoring are unknown there: choose an earlier horizon."
        )
    time, event = outcome
    after = time > horizon
    cut = Surv.from_arrays((event == 1) & ~after, np.where(after, np.nextafter(horizon, np.inf), time))
    return Surv.from_arrays(train[1] == 1, train[0]), cut


def _or_nan(event: np.ndarray, concordance, *arguments) -> float:
    if not event.any():
        return np.nan
    try:
        with np.errstate(invalid="ignore"):  # 0 / 0 where all events fall on one time
            return concordance(*arguments)[0]
    except NoComparablePairException:
        return np.nan


# --- classes and numbers --------------------------------------------------------------------------------------


def accuracy(truth: np.ndarray, shares: pd.DataFrame) -> float:
    """Return the share of patients (n,) whose most probable class of (n, C) is the true one."""
    return float(np.mean(truth == _most_probable(shares)))


def balanced_accuracy(truth: np.ndarray, shares: pd.DataFrame) -> float:
    """Return the accuracy within each class, averaged over the classes that occur."""
    return sk.recall_score(truth, _most_probable(shares), labels=np.unique(truth), average="macro", zero_division=0)


def macro_f1(truth: np.ndarray, shares: pd.DataFrame) -> float:
    """Return the F1 score of each class, averaged over the classes that occur."""
    return sk.f1_score(truth, _most_probable(shares), labels=np.unique(truth), average="macro", zero_division=0)


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


def _most_probable(shares: pd.DataFrame) -> np.ndarray:
    return shares.columns.to_numpy()[shares.to_numpy().argmax(1)]


def mean_absolute_error(truth: np.ndarray, value: np.ndarray) -> float:
    """Return the mean absolute error in the label's unit."""
    return float(np.abs(truth - value).mean())


def root_mean_squared_error(truth: np.ndarray, value: np.ndarray) -> float:
    """Return the root of the mean squared error in the label's unit."""
    return float(np.sqrt(np.square(truth - value).mean()))


def spearman(truth: np.ndarray, value: np.ndarray) -> float:
    """Return Spearman's rank correlation; NaN where one side is constant."""
    if np.ptp(truth) == 0 or np.ptp(value) == 0:
        return np.nan
    return float(stats.spearmanr(truth, value).statistic)


# --- all measures of all methods, with intervals --------------------------------------------------------------


def score_draws(
    methods: dict[str, Predictions], train: Cohort, test: Cohort, horizon: float, resamples: int = 500, seed: int = 0
) -> pd.DataFrame:
    """Score every method on every task of the test part, and again on bootstrap samples of its patients.

    Returns (1 + resamples, measures) with columns (method, task, measure): row 0 holds the scores, the others
    those of each resample, which has the same patients for all methods. NaN where a measure is undefined.
    """
    rows = [np.arange(len(test)), *_patient_draws(test, resamples, seed)]
    columns = {}
    for task in test.tasks:
        for method, answer in methods.items():
            for measure, score in _measures(task, answer, train, test, horizon).items():
                columns[method, task.name, measure] = [score(draw) for draw in rows]
    return pd.DataFrame(columns).rename_axis(columns=["method", "task", "measure"])


def _patient_draws(test: Cohort, resamples: int, seed: int) -> list[np.ndarray]:
    """Draw patients with replacement, and take all samples of each: rows of the test part, once per resample."""
    codes, patients = pd.factorize(test.patients().to_numpy())
    members = [np.flatnonzero(codes == k) for k in range(len(patients))]
    drawn = np.random.default_rng(seed).integers(0, len(patients), (resamples, len(patients)))
    return [np.concatenate([members[k] for k in draw]) for draw in drawn]


def summary(draws: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """Return score, low and high (percentiles of the resamples) for each column of ``score_draws``."""
    tails = draws.iloc[1:].quantile([(1 - level) / 2, (1 + level) / 2])
    return pd.DataFrame({"score": draws.iloc[0], "low": tails.iloc[0], "high": tails.iloc[1]})


def paired_difference(draws: pd.DataFrame, method: str, floor: str, level: float = 0.95) -> pd.DataFrame:
    """Return by how much ``method`` is better than ``floor`` (positive is better), paired within each resample."""
    shared = [key for key in draws[method].columns if key in draws[floor].columns]
    sign = np.array([-1 if measure in LOWER_IS_BETTER else 1 for _, measure in shared])
    return summary((draws[method][shared] - draws[floor][shared]) * sign, level)


def over_splits(differences: np.ndarray, n_train: int, n_test: int, level: float = 0.95) -> pd.Series:
    """Return mean, low and high of paired differences over k random splits, (k,).

    Splits share training patients, so the usual t interval is too narrow: the variance of the mean is taken as
    (1 / k + n_test / n_train) times that of the differences (Nadeau and Bengio 2003, 10.1023/A:1024068626366).
    """
    k = len(differences)
    if k < 2:
        raise ValueError(f"{k} split(s) have no spread; an interval over splits needs two or more.")
    spread = np.std(differences, ddof=1) * np.sqrt(1 / k + n_test / n_train)
    reach = stats.t.ppf(0.5 + level / 2, k - 1) * spread
    mean = float(np.mean(differences))
    return pd.Series({"mean": mean, "low": mean - reach, "high": mean + reach})


def verdict(low: float, high: float, margin: float = 0.02) -> str:
    """Say in words what an interval of "better by" allows: the rule of the results ledger.

    better or worse: the interval excludes 0; as good as: it lies within +-margin; else too small to tell.
    """
    if low > 0:
        return "better than"
    if high < 0:
        return "worse than"
    return "as good as" if -margin <= low and high <= margin else "not to be told apart from"


Score = Callable[[np.ndarray], float]  # of the rows of one bootstrap sample


def _measures(task: Task, answer: Predictions, train: Cohort, test: Cohort, horizon: float) -> dict[str, Score]:
    if task.kind == "survival":
        return _survival_measures(answer, _known(train.outcome()), test.outcome(), horizon)
    truth = test.clinical[task.name].to_numpy()
    if task.kind == "classification":
        return _on_rows(CLASS_MEASURES, truth, answer.probabilities.get(task.name))
    return _on_rows(VALUE_MEASURES, truth, answer.values.get(task.name))


CLASS_MEASURES = {
    "accuracy": accuracy,
    "balanced accuracy": balanced_accuracy,
    "macro F1": macro_f1,
    "macro AUROC": macro_auroc,
}
VALUE_MEASURES = {
    "mean absolute error": mean_absolute_error,
    "root mean squared error": root_mean_squared_error,
    "Spearman": spearman,
}


def _on_rows(measures: dict, truth: np.ndarray, answer) -> dict[str, Score]:
    if answer is None:
        return {}
    known = ~pd.isna(truth)

    def on(measure, rows):
        rows = rows[known[rows]]
        picked = answer.iloc[rows] if isinstance(answer, pd.DataFrame) else answer[rows]
        return measure(truth[rows], picked) if len(rows) else np.nan

    return {name: lambda rows, measure=measure: on(measure, rows) for name, measure in measures.items()}


def _survival_measures(answer: Predictions, train: Outcome, test: Outcome, horizon: float) -> dict[str, Score]:
    if answer.survival is None and answer.score is None:
        return {}
    known, risk = ~np.isnan(test[1]), answer.risk(horizon)

    def on(measure, rows):
        rows = rows[known[rows]]
        return measure((test[0][rows], test[1][rows]), rows) if len(rows) else np.nan

    measures = {
        "Harrell's C": lambda outcome, rows: harrell_c(outcome, risk[rows]),
        "Uno's C": lambda outcome, rows: uno_c(train, outcome, risk[rows], horizon),
        "AUC at horizon": lambda outcome, rows: auc_at(train, outcome, risk[rows], horizon),
    }
    if answer.survival is not None:
        measures["integrated Brier score"] = lambda outcome, rows: integrated_brier(
            train, outcome, answer.survival[rows], answer.edges, horizon
        )
    return {name: lambda rows, measure=measure: on(measure, rows) for name, measure in measures.items()}


def _known(outcome: Outcome) -> Outcome:
    seen = ~np.isnan(outcome[1])
    return outcome[0][seen], outcome[1][seen]
