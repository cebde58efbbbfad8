"""Gradient boosting of small trees: scikit-learn's classifier and regressor, scikit-survival's Cox loss.

Friedman 2001 (10.1214/aos/1013203451) and 2002 (10.1016/S0167-9473(01)00065-2) for the subsampling; Ridgeway 1999 for
Cox's partial likelihood as the loss.
"""

from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor
from sksurv.ensemble import GradientBoostingSurvivalAnalysis

from txtlib.peers.tabular import PerTask

SPACE = {"max_depth": [2, 1, 3], "learning_rate": [0.05, 0.02, 0.1], "n_estimators": [200, 400, 100]}
SUBSAMPLE = 0.5  # share of the patients that each tree sees


def boosting(
    seed: int = 0,
    n_genes: int = 1000,
    scaler: str = "standard",
    gene_sets=None,
    n_estimators: int = 200,
    learning_rate: float = 0.05,
    max_depth: int = 2,
    max_features: str | float = "sqrt",
) -> PerTask:
    """Return boosted trees; each sees half the patients, and at each split ``max_features`` of the genes."""
    shared = {
        "n_estimators": n_estimators,
        "learning_rate": learning_rate,
        "max_depth": max_depth,
        "max_features": max_features,
        "subsample": SUBSAMPLE,
        "random_state": seed,
    }
    estimators = {
        "regression": GradientBoostingRegressor(**shared),
        "classification": GradientBoostingClassifier(**shared),
        "survival": GradientBoostingSurvivalAnalysis(**shared),
    }
    return PerTask(estimators, n_genes, scaler, gene_sets, seed)
