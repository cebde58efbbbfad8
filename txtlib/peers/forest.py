"""Random forests: classifier and regressor of scikit-learn, random survival forest of scikit-survival.

Breiman 2001 (10.1023/A:1010933404324); Ishwaran et al. 2008 (10.1214/08-AOAS169).
"""

from dataclasses import dataclass

import numpy as np
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sksurv.ensemble import RandomSurvivalForest
from sksurv.util import Surv

from txtlib.peers.tabular import PerTask

SPACE = {"min_samples_leaf": [10, 3, 30], "max_features": ["sqrt", 0.3, 0.1]}


def forest(
    seed: int = 0,
    n_genes: int = 1000,
    scaler: str = "standard",
    gene_sets=None,
    n_estimators: int = 200,
    min_samples_leaf: int = 10,
    max_features: str | float = "sqrt",
) -> PerTask:
    """Return random forests; ``max_features`` is the share of genes tried at each split, or "sqrt" of their number."""
    shared = {
        "n_estimators": n_estimators,
        "min_samples_leaf": min_samples_leaf,
        "max_features": max_features,
        "random_state": seed,
    }
    estimators = {
        "regression": RandomForestRegressor(**shared),
        "classification": RandomForestClassifier(**shared),
        "survival": SurvivalForest(RandomSurvivalForest(**shared)),
    }
    return PerTask(estimators, n_genes, scaler, gene_sets, seed)


@dataclass
class SurvivalForest:
    """A random survival forest, grown on outcomes with fewer different times; the forest is the very same.

    Log-rank splits and Nelson-Aalen leaves look at who is at risk at event times only, while each node of
    scikit-survival holds a curve over all times of the training part.
    """

    forest: RandomSurvivalForest

    def fit(self, x: np.ndarray, y: np.ndarray) -> "SurvivalForest":
        """Fit on (n, G) and scikit-survival's structured array."""
        event, time = (y[name] for name in y.dtype.names)
        self.forest.fit(x, Surv.from_arrays(event, earliest_censoring(time, event)))
        return self

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return the expected number of events (n,), as scikit-survival sums it: higher is worse."""
        return self.forest.predict(x)

    def predict_survival_function(self, x: np.ndarray) -> np.ndarray:
        """Return n step functions."""
        return self.forest.predict_survival_function(x)


def earliest_censoring(time: np.ndarray, event: np.ndarray) -> np.ndarray:
    """Move each censoring time (n,) back to the last event time at or before it, or to 0: who is at risk stays."""
    moments = np.r_[0.0, np.unique(time[event])]
    return np.where(event, time, moments[np.searchsorted(moments, time, side="right") - 1])
