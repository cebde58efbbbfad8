"""What any model must beat: answers that ignore the transcriptome, or see little more in it than age."""

from dataclasses import replace

import numpy as np
import pandas as pd
from lifelines import CoxPHFitter
from sklearn.linear_model import RidgeCV

from txtlib.cohort import Cohort, CohortError
from txtlib.metrics import kaplan_meier
from txtlib.peers import coxnet
from txtlib.peers.clinical import columns_of
from txtlib.peers.ridge import ALPHAS
from txtlib.peers.tabular import FOLDS, Survival, fit_apart, fit_genes, fold_rows, folds
from txtlib.predictions import Predictions

SPACE_CLINICAL_AND_GENES = {"l1_ratio": coxnet.SPACE["l1_ratio"]}
RIDGE = 1e-3  # just enough to keep the coefficient of a class without events finite


class Trivial:
    """The same answer for everybody: Kaplan-Meier curve, training median, class shares of the training part."""

    def fit(self, train: Cohort, validation: Cohort | None = None) -> "Trivial":
        """Take the answers from the training part."""
        self.edges = self.curve = None
        if train.survival_task is not None:
            self.curve, self.edges = kaplan_meier(_known(train), 1)
        labels = {
            task.name: (task.kind, train.clinical[task.name].dropna()) for task in train.tasks if len(task.columns) == 1
        }
        self.medians = {name: seen.median() for name, (kind, seen) in labels.items() if kind == "regression"}
        self.shares = {
            name: seen.value_counts(normalize=True) for name, (kind, seen) in labels.items() if kind == "classification"
        }
        return self

    def predict(self, cohort: Cohort) -> Predictions:
        """Repeat the answers for each patient."""
        n = len(cohort)
        curves = None if self.curve is None else np.repeat(self.curve, n, 0)
        values = {name: np.full(n, median) for name, median in self.medians.items()}
        shares = {
            name: pd.DataFrame(np.tile(share, (n, 1)), cohort.samples, share.index)
            for name, share in self.shares.items()
        }
        return Predictions(cohort.samples, self.edges, curves, values, shares)


class RandomDraw:
    """What luck scores: each patient's answer is drawn from the training part, whoever the patient is.

    A number is that of a training patient, a class has probability 1 and is one's label, so both are right as often as
    their shares allow. Survival is ranked by a score in [0, 1) and has the Kaplan-Meier curve for everybody. One seed
    gives the same draws to the first, second, ... patient of any cohort, and for a task whatever the other tasks are.
    """

    def __init__(self, seed: int):
        self.seed = seed

    def fit(self, train: Cohort, validation: Cohort | None = None) -> "RandomDraw":
        """Keep the training part's labels; CohortError for a task of which it has none."""
        self.constant = Trivial().fit(train)
        self.endpoint = train.survival_task.name if train.survival_task else None
        names = [*self.constant.medians, *self.constant.shares]
        self.labels = {name: train.clinical[name].dropna().to_numpy() for name in names}
        empty = [name for name, labels in self.labels.items() if not len(labels)]
        if empty:
            raise CohortError(f"{train.name}: no training patient has a label of {empty[0]!r}; leave the task out.")
        return self

    def predict(self, cohort: Cohort) -> Predictions:
        """Draw an answer for each patient."""
        answer = self.constant.predict(cohort)
        drawn = {name: self._generator(name).choice(labels, len(cohort)) for name, labels in self.labels.items()}
        shares = {
            name: pd.DataFrame({label: (drawn[name] == label).astype(float) for label in some}, cohort.samples)
            for name, some in answer.probabilities.items()
        }
        score = self._generator(self.endpoint).random(len(cohort)) if self.endpoint else None
        return replace(answer, values={name: drawn[name] for name in answer.values}, probabilities=shares, score=score)

    def _generator(self, task: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, *task.encode()])


class ClinicalCox:
    """Cox regression (Efron ties) on clinical columns: ``ClinicalCox("Age")`` is age alone.

    A missing number becomes the training median, a missing class the most frequent one; classes become 0/1
    columns. A trace of ridge keeps a class without events from running off. Raises CohortError if a column is missing.
    """

    def __init__(self, *columns: str):
        self.columns = columns

    def fit(self, train: Cohort, validation: Cohort | None = None) -> "ClinicalCox":
        """Fit on the training patients whose outcome is known."""
        chosen = columns_of(train, self.columns)
        numeric = chosen.select_dtypes("number").columns
        self.fill = {name: chosen[name].median() if name in numeric else chosen[name].mode()[0] for name in chosen}
        self.levels = {name: sorted(chosen[name].dropna().unique()) for name in chosen if name not in numeric}
        time, event = train.outcome()
        table = self._design(train).assign(_time=time, _event=event).dropna()
        self.model = CoxPHFitter(penalizer=RIDGE).fit(table, "_time", "_event")
        self.edges = np.unique(table.loc[table["_time"] > 0, "_time"])
        return self

    def predict(self, cohort: Cohort) -> Predictions:
        """Return Cox survival curves on the training part's follow-up times."""
        curves = self.model.predict_survival_function(self._design(cohort), times=self.edges).T
        return Predictions(cohort.samples, self.edges, curves.to_numpy())

    def _design(self, cohort: Cohort) -> pd.DataFrame:
        chosen = columns_of(cohort, self.columns).fillna(self.fill)
        for name, levels in self.levels.items():
            codes = {f"{name}={level}": (chosen[name] == level).astype(float) for level in levels[1:]}
            chosen = chosen.drop(columns=name).assign(**codes)
        return chosen.astype(float)


class ClinicalAndGenes:
    """Clinical columns and genes together: what ``ClinicalCox`` says, unpenalised, and an elastic net on the genes.

    The article's Fig. 1C arm. The clinical columns enter as one, the log hazard of their own Cox regression: a class
    without events keeps a finite coefficient that way, which a column of its own without penalty would not have.
    """

    def __init__(self, columns: tuple[str, ...], l1_ratio: float, seed: int, **preprocessing):
        self.clinical, self.preprocessing = ClinicalCox(*columns), preprocessing
        self.estimator, self.seed = coxnet.CrossValidatedCoxnet(l1_ratio, seed, free=1), seed

    def fit(self, train: Cohort, validation: Cohort | None = None) -> "ClinicalAndGenes":
        """Fit on the training patients whose outcome is known."""
        self.clinical.fit(train)
        self.preprocessor = fit_genes(train, **self.preprocessing)
        self.survival = Survival(self.estimator, train.survival_task, self.preprocessor, self.seed)
        self.survival.fit(self._table(train), *train.outcome(), train.patients().to_numpy())
        return self

    def predict(self, cohort: Cohort) -> Predictions:
        """Return Cox survival curves on the training part's follow-up times."""
        return self.survival.answer(self._table(cohort), cohort.samples)

    def _table(self, cohort: Cohort) -> np.ndarray:
        hazard = self.clinical.model.predict_log_partial_hazard(self.clinical._design(cohort))
        return np.column_stack([self.preprocessor.expression(cohort).astype(float), hazard])


class RidgeCox:
    """Two steps: ridge regression tells clinical columns from the genes, then Cox regression on what it says.

    The linear counterpart of learning age and survival together: how much of a transcriptome's C-index is age. Classes
    become 0/1 columns. Cox regression is fitted to what ridge regressions say of training patients that they have not
    seen (5 folds), as it will be of new ones; patients without a label take part in the second step only.
    """

    def __init__(self, predictors: tuple[str, ...], seed: int, **preprocessing):
        self.predictors, self.seed, self.preprocessing = predictors, seed, preprocessing

    def fit(self, train: Cohort, validation: Cohort | None = None) -> "RidgeCox":
        """Fit both steps on the training part; CohortError if a column is missing, or holds no value."""
        self.preprocessor = fit_genes(train, **self.preprocessing)
        x, patients = self.preprocessor.expression(train).astype(float), train.patients().to_numpy()
        fold = folds(np.zeros(len(train)), FOLDS, self.seed, patients)
        targets, said = _numbers(train, self.predictors), {}
        for name, target in targets.items():
            said[name] = np.empty(len(train))
            for rest, out in fold_rows(fold):
                said[name][out] = self._ridge(x[rest], target[rest], patients[rest]).predict(x[out])
        self.ridges = {name: self._ridge(x, target, patients) for name, target in targets.items()}
        self.cox = ClinicalCox(*targets).fit(_with_columns(train, said))
        return self

    def predict(self, cohort: Cohort) -> Predictions:
        """Return Cox survival curves on the training part's follow-up times."""
        return self.cox.predict(_with_columns(cohort, self.said(cohort)))

    def said(self, cohort: Cohort) -> dict[str, np.ndarray]:
        """Return what ridge regression says of each clinical column, {name: (n,)} in its unit."""
        x = self.preprocessor.expression(cohort).astype(float)
        return {name: ridge.predict(x) for name, ridge in self.ridges.items()}

    def _ridge(self, x: np.ndarray, target: np.ndarray, patients: np.ndarray) -> RidgeCV:
        known = ~np.isnan(target)
        return fit_apart(RidgeCV(ALPHAS), x[known], target[known], patients[known], self.seed)


def _numbers(cohort: Cohort, columns: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Return clinical columns as numbers, {name: (n,)}: a class as 0/1 columns but for the first; NaN where missing."""
    found = {}
    for name, values in columns_of(cohort, columns).items():
        if pd.api.types.is_numeric_dtype(values):
            found[name] = values.to_numpy(float)
        else:
            levels = sorted(values.dropna().unique())[1:]
            found |= {f"{name}={level}": np.where(values.isna(), np.nan, values == level) for level in levels}
    short = [name for name, values in found.items() if (~np.isnan(values)).sum() < 2 * FOLDS]
    if short or not found:
        raise CohortError(
            f"{cohort.name}: the training part has fewer than {2 * FOLDS} values, or one class only, of "
            f"{(short or columns)[0]!r}; choose other columns."
        )
    return found


def _with_columns(cohort: Cohort, columns: dict[str, np.ndarray]) -> Cohort:
    return replace(cohort, clinical=cohort.clinical.assign(**columns))


def _known(cohort: Cohort) -> tuple[np.ndarray, np.ndarray]:
    time, event = cohort.outcome()
    seen = ~np.isnan(event)
    return time[seen], event[seen]


# --- as methods of the benchmark, which gives every method a seed ------------------------------------------------


def trivial(seed: int = 0) -> Trivial:
    """Return the answers that are the same for everybody; nothing is drawn, so the seed plays no role."""
    return Trivial()


def random_draw(seed: int = 0) -> RandomDraw:
    """Return answers drawn at random from the training part's labels, by the seed."""
    return RandomDraw(seed)


def clinical_cox(seed: int = 0, columns: tuple[str, ...] = ("Age",)) -> ClinicalCox:
    """Return Cox regression on clinical columns, by default on age alone; the seed plays no role."""
    return ClinicalCox(*columns)


def clinical_and_genes(
    seed: int = 0,
    columns: tuple[str, ...] = ("Age",),
    n_genes: int = 1000,
    scaler: str = "standard",
    gene_sets=None,
    l1_ratio: float = 0.5,
) -> ClinicalAndGenes:
    """Return Cox regression on clinical columns and genes, these with an elastic net; the seed draws its folds."""
    return ClinicalAndGenes(columns, l1_ratio, seed, n_genes=n_genes, scaler=scaler, gene_sets=gene_sets)


def ridge_age_cox(
    seed: int = 0, predictors: tuple[str, ...] = ("Age",), n_genes: int = 1000, scaler: str = "standard", gene_sets=None
) -> RidgeCox:
    """Return Cox regression on clinical columns as ridge regression tells them from genes; the seed draws its folds."""
    return RidgeCox(predictors, seed, n_genes=n_genes, scaler=scaler, gene_sets=gene_sets)
