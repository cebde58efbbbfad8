"""Every measure of every method on the test part, and again on bootstrap samples of its patients."""

from collections.abc import Callable

import numpy as np
import pandas as pd

import txtlib.metrics as metrics
import txtlib.resampled as resampled
from txtlib.calibration import d_calibration
from txtlib.cohort import Cohort, Task
from txtlib.metrics import Outcome, cut_times
from txtlib.predictions import Predictions
from txtlib.survival import survival_at


def _d_calibration_p(*arguments) -> float:
    return d_calibration(*arguments).p


def _no_interval(*arguments) -> np.ndarray:
    """Return NaN for each sample: a drawn patient twice is no second witness, so a p-value of it means nothing."""
    return np.full(len(arguments[-1]), np.nan)


Measure = tuple[Callable[..., float], Callable[..., np.ndarray]]  # itself, and on samples: one argument more, counts
CLASS_MEASURES: dict[str, Measure] = {
    "accuracy": (metrics.accuracy, resampled.accuracy),
    "balanced accuracy": (metrics.balanced_accuracy, resampled.balanced_accuracy),
    "macro precision": (metrics.macro_precision, resampled.macro_precision),
    "macro F1": (metrics.macro_f1, resampled.macro_f1),
    "macro AUROC": (metrics.macro_auroc, resampled.macro_auroc),
}
VALUE_MEASURES: dict[str, Measure] = {
    "mean absolute error": (metrics.mean_absolute_error, resampled.mean_absolute_error),
    "root mean squared error": (metrics.root_mean_squared_error, resampled.root_mean_squared_error),
    "Pearson": (metrics.pearson, resampled.pearson),
    "Spearman": (metrics.spearman, resampled.spearman),
}
RANK_MEASURES: dict[str, Measure] = {
    "Harrell's C": (metrics.harrell_c, resampled.harrell_c),
    "Uno's C": (metrics.uno_c, resampled.uno_c),
    "AUC at horizon": (metrics.auc_at, resampled.auc_at),
    "time-dependent AUC": (metrics.time_dependent_auc, resampled.time_dependent_auc),
}
CURVE_MEASURES: dict[str, Measure] = {
    "integrated Brier score": (metrics.integrated_brier, resampled.integrated_brier),
    "Brier skill": (metrics.brier_skill, resampled.brier_skill),
    "log score": (metrics.log_score, resampled.log_score),
    "D-calibration p": (_d_calibration_p, _no_interval),
}
MEASURES = CLASS_MEASURES | VALUE_MEASURES | RANK_MEASURES | CURVE_MEASURES


def score_draws(
    methods: dict[str, Predictions], train: Cohort, test: Cohort, horizon: float, resamples: int = 500, seed: int = 0
) -> pd.DataFrame:
    """Score every method on every task of the test part, and again on bootstrap samples of its patients.

    Returns (1 + resamples, measures) with columns (method, task, measure): row 0 holds the scores, the others
    those of each resample, which has the same patients for all methods. NaN where a measure is undefined; a
    p-value has no resamples. A method that only ranks has no measure of curves.
    """
    counts = patient_counts(test, resamples, seed)
    columns = {}
    for task in test.tasks:
        for method, answer in methods.items():
            known, arguments = _arguments(task, answer, train, test, horizon)
            for measure, given in arguments.items():
                columns[method, task.name, measure] = _column(*MEASURES[measure], given, counts[:, known])
    return pd.DataFrame(columns).rename_axis(columns=["method", "task", "measure"])


def patient_counts(test: Cohort, resamples: int, seed: int) -> np.ndarray:
    """Draw patients with replacement, and take all samples of each: how often each sample is in, (resamples, n)."""
    codes, patients = pd.factorize(test.patients().to_numpy())
    drawn = np.random.default_rng(seed).integers(0, len(patients), (resamples, len(patients)))
    counts = np.array([np.bincount(draw, minlength=len(patients)) for draw in drawn], float)
    return counts.reshape(resamples, len(patients))[:, codes]


def _column(measure: Callable, on_samples: Callable, arguments: tuple, counts: np.ndarray) -> np.ndarray:
    if not counts.shape[1]:  # nobody in the test part has this label
        return np.full(1 + len(counts), np.nan)
    return np.append(measure(*arguments), on_samples(*arguments, counts))


def _arguments(
    task: Task, answer: Predictions, train: Cohort, test: Cohort, horizon: float
) -> tuple[np.ndarray, dict[str, tuple]]:
    """Return who has a label, (n,), and what the task's measures are to be called with, for those."""
    if task.kind == "survival":
        known = ~np.isnan(test.outcome()[1])
        return known, _survival_arguments(answer, _known(train.outcome()), _known(test.outcome()), known, horizon)
    truth = test.clinical[task.name].to_numpy()
    known = ~pd.isna(truth)
    of_class = task.kind == "classification"
    given = (answer.probabilities if of_class else answer.values).get(task.name)
    measures = CLASS_MEASURES if of_class else VALUE_MEASURES
    return known, {} if given is None else dict.fromkeys(measures, (truth[known], given[known]))


def _survival_arguments(
    answer: Predictions, train: Outcome, outcome: Outcome, known: np.ndarray, horizon: float
) -> dict[str, tuple]:
    if answer.survival is None and answer.score is None:
        return {}
    risk = answer.risk(horizon)[known]
    ranks = dict.fromkeys(RANK_MEASURES, (train, outcome, risk, horizon)) | {"Harrell's C": (outcome, risk)}
    if answer.survival is None:
        return ranks
    over_time = 1 - survival_at(answer.survival, answer.edges, cut_times(train, horizon))[known]
    ranks["time-dependent AUC"] = (train, outcome, over_time, horizon)
    curves = (answer.survival[known], answer.edges, horizon)
    of_curves = dict.fromkeys(CURVE_MEASURES, (train, outcome, *curves)) | {"D-calibration p": (outcome, *curves)}
    return ranks | of_curves


def _known(outcome: Outcome) -> Outcome:
    seen = ~np.isnan(outcome[1])
    return outcome[0][seen], outcome[1][seen]
