"""A method of your own: the survival of the training patients who are nearest in expression."""

import numpy as np
from lifelines import KaplanMeierFitter
from sklearn.neighbors import NearestNeighbors

from txtlib.cohort import Cohort
from txtlib.predictions import Predictions
from txtlib.preprocess import fit_preprocessor

SPACE = {"neighbours": [30, 15, 60]}  # what tuning may choose from, the default first


class NearestPatients:
    """Kaplan-Meier curves of each patient's nearest neighbours among the training patients."""

    def __init__(self, seed: int = 0, neighbours: int = 30, n_genes: int = 1000):
        self.neighbours, self.n_genes = neighbours, n_genes  # nothing is drawn, so the seed plays no role

    def fit(self, train: Cohort, validation: Cohort) -> "NearestPatients":
        """Keep the training patients; everything fitted comes from them."""
        known = train.take(train.samples[~np.isnan(train.outcome()[1])])
        self.preprocessor = fit_preprocessor(known, n_genes=self.n_genes, scaler="standard")
        self.time, self.event = known.outcome()
        self.edges = np.unique(self.time[self.time > 0])
        self.index = NearestNeighbors(n_neighbors=min(self.neighbours, len(known)))
        self.index.fit(self.preprocessor.expression(known))
        return self

    def predict(self, cohort: Cohort) -> Predictions:
        """Return a curve for each patient, on the training part's follow-up times."""
        nearest = self.index.kneighbors(self.preprocessor.expression(cohort), return_distance=False)
        curves = [self._curve(rows) for rows in nearest]
        return Predictions(cohort.samples, self.edges, np.stack(curves))

    def _curve(self, rows: np.ndarray) -> np.ndarray:
        fitted = KaplanMeierFitter().fit(self.time[rows], self.event[rows])
        return fitted.survival_function_at_times(self.edges).to_numpy()
