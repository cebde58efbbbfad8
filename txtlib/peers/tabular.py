"""From any scikit-learn style estimator to a method: one estimator per task, behind the two calls.

What only decides or only ranks is calibrated on the training part: a classifier without probabilities by temperature
scaling, a survival estimator without curves by Cox regression on its score. Both see scores of patients that were
left out of the fit (5 folds), since a score is too good on the patients that it was fitted to. All samples of one
patient are in one fold, or a patient would be judged by a fit that has seen the same tumour.
"""

from dataclasses import dataclass
from inspect import signature

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.dummy import DummyClassifier
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.util import Surv

from txtlib.cohort import Cohort, CohortError, Task
from txtlib.peers.breslow import breslow_curves
from txtlib.predictions import Predictions, joined
from txtlib.preprocess import MISSING, Preprocessor, fit_preprocessor

FOLDS = 5  # of cross-fitting within the training part
RIDGE = 0.1  # on the slope of a score in SDs, in units of the log likelihood: it only keeps a separating score finite
LEAST_SLOPE = 1e-3  # per SD of a score: where it says nothing about left-out patients, nearly everybody's curve


@dataclass
class PerTask:
    """One estimator per task: those of the kinds in ``estimators`` {kind: unfitted estimator}; others are left out.

    Each task uses the training patients that have its label; the validation part is not used. An estimator has
    ``fit(x, y)`` and ``predict(x)``, and a classifier ``classes_``; x is (n, G) float64, a regression target has mean 0
    and SD 1, survival is scikit-survival's structured array. One that divides the patients itself is told who they are,
    see ``fit_apart``. ``gene_sets`` {name: genes} are those whose genes are chosen from. ``seed`` draws the folds of a
    calibration. After ``fit``, ``models`` holds what was fitted per task.
    """

    estimators: dict[str, object]
    n_genes: int = 1000
    scaler: str = "standard"
    gene_sets: dict[str, list[str]] | None = None
    seed: int = 0

    def fit(self, train: Cohort, validation: Cohort | None = None) -> "PerTask":
        """Fit preprocessing and estimators on the training part; CohortError for a task that cannot be learned."""
        self.preprocessor = fit_genes(train, self.n_genes, self.scaler, self.gene_sets)
        encoded, patients = self.preprocessor.encode(train), train.patients().to_numpy()
        x = encoded.x.astype(float)
        self.models = {}
        for task in train.tasks:
            if task.kind in self.estimators:
                labels = train.outcome() if task.kind == "survival" else encoded.labels[task.name]
                model = KINDS[task.kind](self.estimators[task.kind], task, self.preprocessor, self.seed)
                self.models[task.name] = model.fit(x, *labels, patients)
        return self

    def predict(self, cohort: Cohort) -> Predictions:
        """Answer each patient; survival on the training part's follow-up times, in the cohort's unit."""
        x = self.preprocessor.expression(cohort).astype(float)
        answers = [model.answer(x, cohort.samples) for model in self.models.values()]
        return joined([Predictions(cohort.samples), *answers])


def fit_genes(train: Cohort, n_genes: int, scaler: str, gene_sets: dict[str, list[str]] | None) -> Preprocessor:
    """Fit the preprocessor, choosing genes from the union of ``gene_sets`` where there are any."""
    listed = set().union(*(gene_sets or {}).values()) or None
    return fit_preprocessor(train, n_genes=n_genes, scaler=scaler, gene_list=listed)


# --- one task of each kind ------------------------------------------------------------------------------------


class Regression:
    """A regressor on scaled targets, answered in the label's unit."""

    def __init__(self, estimator, task: Task, preprocessor: Preprocessor, seed: int):
        self.estimator, self.name, self.seed = estimator, task.name, seed
        self.mean, self.spread = preprocessor.scales[task.name]

    def fit(self, x: np.ndarray, target: np.ndarray, patients: np.ndarray) -> "Regression":
        """Fit on (n, G), scaled targets (n,), NaN where missing, and whose samples they are (n,)."""
        known = ~np.isnan(target)
        self.model = fit_apart(self.estimator, x[known], target[known].astype(float), patients[known], self.seed)
        return self

    def answer(self, x: np.ndarray, samples: pd.Index) -> Predictions:
        """Return values (n,) in the label's unit."""
        return Predictions(samples, values={self.name: self.model.predict(x) * self.spread + self.mean})


class Classification:
    """A classifier on class codes; a class of the vocabulary that no training patient has gets probability 0."""

    def __init__(self, estimator, task: Task, preprocessor: Preprocessor, seed: int):
        self.estimator = estimator if hasattr(estimator, "predict_proba") else Tempered(estimator, seed)
        self.name, self.classes, self.seed = task.name, list(preprocessor.classes[task.name]), seed

    def fit(self, x: np.ndarray, code: np.ndarray, patients: np.ndarray) -> "Classification":
        """Fit on (n, G), codes (n,), -1 where missing, and whose samples they are (n,)."""
        known = code != MISSING
        if not known.any():
            raise CohortError(f"No training patient has a label of {self.name!r}; leave the task out.")
        classifier = for_classes(self.estimator, code[known])
        self.model = fit_apart(classifier, x[known], code[known], patients[known], self.seed)
        return self

    def answer(self, x: np.ndarray, samples: pd.Index) -> Predictions:
        """Return probabilities (n, C), a column per class of the vocabulary."""
        shares = np.zeros((len(x), len(self.classes)))
        shares[:, self.model.classes_] = self.model.predict_proba(x)
        return Predictions(samples, probabilities={self.name: pd.DataFrame(shares, samples, self.classes)})


class Survival:
    """A survival estimator with curves of its own, or calibrated: ``score`` then is its own, higher is worse.

    Calibrated curves keep the estimator's own ranking, whatever the calibration finds: a slope below LEAST_SLOPE
    (the score ranked left-out patients no better than chance, or worse) becomes LEAST_SLOPE, and the curves are nearly
    equal. A benchmark then sees a method that ranks badly, and not one that was turned round.
    """

    def __init__(self, estimator, task: Task, preprocessor: Preprocessor, seed: int):
        self.estimator, self.name, self.seed = estimator, task.name, seed

    def fit(self, x: np.ndarray, time: np.ndarray, event: np.ndarray, patients: np.ndarray | None = None) -> "Survival":
        """Fit on (n, G), time and event (n,), NaN where missing, and whose samples they are (n,), if any repeat."""
        patients = np.arange(len(x)) if patients is None else patients
        known, events = ~np.isnan(event), len(np.unique(patients[event == 1]))
        if events < 2:
            raise CohortError(
                f"The training part has {events} event(s) of {self.name!r}, too few to learn from; use a larger "
                "training part, or leave the survival task out."
            )
        x, patients, self.time, self.event = x[known], patients[known], time[known], event[known] == 1
        self.model = fit_apart(self.estimator, x, Surv.from_arrays(self.event, self.time), patients, self.seed)
        self.calibrated = not hasattr(self.model, "predict_survival_function")
        if self.calibrated:
            self.centre = self.model.predict(x).mean()
            self.left_out = left_out_scores(self.estimator, x, self.time, self.event, self.seed, patients)
            self.slope = calibration_slope(self.left_out, self.time, self.event)
        return self

    def answer(self, x: np.ndarray, samples: pd.Index) -> Predictions:
        """Return edges (K,), survival (n, K), and of an estimator that only ranks its score (n,)."""
        if not self.calibrated:
            edges = np.unique(self.time[self.time > 0])
            return Predictions(samples, edges, step_values(self.model.predict_survival_function(x), edges))
        score = self.model.predict(x)
        fitted, new = self.slope * self.left_out, self.slope * (score - self.centre)
        edges, curves = breslow_curves(fitted, self.time, self.event, new)
        return Predictions(samples, edges, curves, score=score, calibrated=True)


KINDS = {"regression": Regression, "classification": Classification, "survival": Survival}


# --- folds ----------------------------------------------------------------------------------------------------


def folds(strata: np.ndarray, n_folds: int, seed: int, patients: np.ndarray | None = None) -> np.ndarray:
    """Return a fold for each sample (n,): folds, and a stratum's members among them, differ by at most one patient.

    Unlike scikit-learn's, for strata with fewer members than folds too; any two members are in different folds then.
    ``patients`` (n,) says whose samples they are; without it each is a patient's only one. All samples of a patient are
    in one fold, and the highest of their strata counts.
    """
    who = np.arange(len(strata)) if patients is None else pd.factorize(patients)[0]
    strata = pd.Series(strata).groupby(who).max().to_numpy()
    order = np.random.default_rng(seed).permutation(len(strata))
    order = order[np.argsort(strata[order], kind="stable")]
    fold = np.empty(len(strata), int)
    fold[order] = np.arange(len(strata)) % n_folds
    return fold[who]


def event_folds(event: np.ndarray, seed: int, patients: np.ndarray | None = None) -> np.ndarray:
    """Return FOLDS folds (n,) with equal shares of the events, or as many as there are patients with one."""
    events = event.sum() if patients is None else len(np.unique(patients[event]))
    return folds(event, min(FOLDS, int(events)), seed, patients)


def class_folds(y: np.ndarray, seed: int, patients: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return who is of a class that can be left out and learned from others (n,), and the folds of these patients.

    There are up to FOLDS, with equal shares of each class y (n,), a code. A class that only one patient has, or only
    one fold, is none of these; ValueError if there is no other.
    """
    kept = _repeated(y, np.arange(len(y)) if patients is None else patients)
    if not kept.any():
        raise ValueError("Each class has one training patient, so none can be left out; leave the task out.")
    fold = folds(y[kept], min(FOLDS, kept.sum()), seed, None if patients is None else patients[kept])
    again = _repeated(y[kept], fold)  # samples of other classes may have brought all its patients into one fold
    kept[kept] = again
    return kept, fold[again]


def _repeated(y: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return who is of a class (n,) that two groups (n,) or more have, (n,)."""
    return pd.Series(groups).groupby(y).transform("nunique").to_numpy() > 1


def fold_rows(fold: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the rows outside and inside of each fold (n,), as scikit-learn's ``cv`` takes them."""
    return [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in np.unique(fold)]


def fit_apart(estimator, x: np.ndarray, y: np.ndarray, patients: np.ndarray, seed: int):
    """Return a fitted clone that has not parted the samples of a patient (n,), if it divides them itself.

    Such an estimator takes ``fit(x, y, patients)``. One of scikit-learn's with a setting ``cv``, as RidgeCV, is given
    folds where a patient has several samples, and divides them in its own way where nobody has.
    """
    model = clone(estimator, safe=False)
    if "patients" in signature(model.fit).parameters:
        return model.fit(x, y, patients)
    if len(np.unique(patients)) < len(patients) and "cv" in getattr(model, "get_params", dict)():
        model.set_params(cv=fold_rows(folds(np.zeros(len(x)), FOLDS, seed, patients)))
    return model.fit(x, y)


# --- calibration ----------------------------------------------------------------------------------------------


def left_out_scores(
    estimator, x: np.ndarray, time: np.ndarray, event: np.ndarray, seed: int, patients: np.ndarray | None = None
) -> np.ndarray:
    """Return each patient's score (n,) by a clone that was fitted without the patient's fold.

    A ranking has no origin, so each clone's scores are counted from its mean on the patients that it was fitted to.
    """
    patients, y = np.arange(len(x)) if patients is None else patients, Surv.from_arrays(event, time)
    scores = np.empty(len(x))
    for rest, out in fold_rows(event_folds(event, seed, patients)):
        model = fit_apart(estimator, x[rest], y[rest], patients[rest], seed)
        scores[out] = model.predict(x[out]) - model.predict(x[rest]).mean()
    return scores


def calibration_slope(score: np.ndarray, time: np.ndarray, event: np.ndarray) -> float:
    """Return the log hazard ratio per unit of a score (n,), by Cox regression (Efron ties); above 0, see Survival."""
    spread = score.std() if np.ptp(score) > 0 else 1.0
    cox = CoxPHSurvivalAnalysis(alpha=RIDGE, ties="efron")
    slope = cox.fit((score - score.mean())[:, None] / spread, Surv.from_arrays(event, time)).coef_[0]
    return float(max(slope, LEAST_SLOPE) / spread)


def step_values(functions, edges: np.ndarray) -> np.ndarray:
    """Read scikit-survival's step functions (n of them) at the edges (K,), as (n, K).

    They are right-continuous, 1 before their first time, and keep their last value after their last time.
    """
    knots = functions[0].x
    values = np.stack([np.atleast_1d(function(knots)) for function in functions])
    steps = np.searchsorted(knots, edges, side="right")
    return np.pad(values, ((0, 0), (1, 0)), constant_values=1.0)[:, steps]


class Tempered:
    """Probabilities for a classifier that only decides: softmax of its decision values, divided by a temperature.

    The temperature is fitted to decision values of left-out patients (scikit-learn's CalibratedClassifierCV, one final
    fit on everybody), so the most probable class stays the one with the largest decision value. A class that only one
    training patient has, or one fold, cannot be left out and learned; it gets no column.
    """

    def __init__(self, estimator, seed: int = 0):
        self.estimator, self.seed = estimator, seed

    def fit(self, x: np.ndarray, y: np.ndarray, patients: np.ndarray | None = None) -> "Tempered":
        """Fit on (n, G), class codes (n,), 0 or more, and whose samples they are (n,), if any repeat."""
        kept, fold = class_folds(y, self.seed, patients)
        self.classes_, code = np.unique(y[kept], return_inverse=True)
        tempered = CalibratedClassifierCV(self.estimator, method="temperature", cv=fold_rows(fold), ensemble=False)
        self.model = for_classes(tempered, code).fit(x[kept], code)
        return self

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        """Return probabilities (n, C) of ``classes_``."""
        return self.model.predict_proba(x)


def for_classes(classifier, y: np.ndarray):
    """Return a classifier, or a constant where all patients (n,) are of one class, which most classifiers refuse."""
    return classifier if len(np.unique(y)) > 1 else DummyClassifier()
