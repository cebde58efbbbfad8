"""What any model must beat: answers that ignore the transcriptome."""

import numpy as np
import pandas as pd
from lifelines import CoxPHFitter, KaplanMeierFitter

from txtlib.cohort import Cohort, CohortError
from txtlib.predictions import Predictions

RIDGE = 1e-3  # just enough to keep the coefficient of a class without events finite


class Trivial:
    """The same answer for everybody: Kaplan-Meier curve, training median, class shares of the training part."""

    def fit(self, train: Cohort, validation: Cohort | None = None) -> "Trivial":
        """Take the answers from the training part."""
        self.edges = self.curve = None
        if train.survival_task is not None:
            time, event = _known(train)
            self.edges = np.unique(time[time > 0])
            self.curve = KaplanMeierFitter().fit(time, event).survival_function_at_times(self.edges).to_numpy()
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
        curves = None if self.curve is None else np.tile(self.curve, (n, 1))
        values = {name: np.full(n, median) for name, median in self.medians.items()}
        shares = {
            name: pd.DataFrame(np.tile(share, (n, 1)), cohort.samples, share.index)
            for name, share in self.shares.items()
        }
        return Predictions(cohort.samples, self.edges, curves, values, shares)


class ClinicalCox:
    """Cox regression (Efron ties) on clinical columns: ``ClinicalCox("Age")`` is age alone.

    A missing number becomes the training median, a missing class the most frequent one; classes become 0/1
    columns. A trace of ridge keeps a class without events from running off. Raises CohortError if a column is missing.
    """

    def __init__(self, *columns: str):
        self.columns = columns

    def fit(self, train: Cohort, validation: Cohort | None = None) -> "ClinicalCox":
        """Fit on the training patients whose outcome is known."""
        chosen = _columns(train, self.columns)
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
        chosen = _columns(cohort, self.columns).fillna(self.fill)
        for name, levels in self.levels.items():
            codes = {f"{name}={level}": (chosen[name] == level).astype(float) for level in levels[1:]}
            chosen = chosen.drop(columns=name).assign(**codes)
        return chosen.astype(float)


def _columns(cohort: Cohort, columns: tuple[str, ...]) -> pd.DataFrame:
    missing = [name for name in columns if name not in cohort.clinical]
    if missing:
        raise CohortError(f"{cohort.name}: the clinical table has no column {missing[0]!r}; choose other columns.")
    return cohort.clinical[list(columns)]


def _known(cohort: Cohort) -> tuple[np.ndarray, np.ndarray]:
    time, event = cohort.outcome()
    seen = ~np.isnan(event)
    return time[seen], event[seen]


# --- as methods of the benchmark, which gives every method a seed ------------------------------------------------


def trivial(seed: int = 0) -> Trivial:
    """Return the answers that are the same for everybody; nothing is drawn, so the seed plays no role."""
    return Trivial()


def clinical_cox(seed: int = 0, columns: tuple[str, ...] = ("Age",)) -> ClinicalCox:
    """Return Cox regression on clinical columns, by default on age alone; the seed plays no role."""
    return ClinicalCox(*columns)
