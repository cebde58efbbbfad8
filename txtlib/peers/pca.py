"""Principal components of the training part, then Cox, logistic or linear regression on the first of them."""

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sksurv.linear_model import CoxPHSurvivalAnalysis

from txtlib.peers.tabular import PerTask

SPACE = {"n_components": [20, 10, 50, 100, 200], "alpha": [10.0, 1.0, 100.0]}


def pca(
    seed: int = 0,
    n_genes: int = 1000,
    scaler: str = "standard",
    gene_sets=None,
    n_components: int = 20,
    alpha: float = 10.0,
) -> PerTask:
    """Return regressions on ``n_components`` components, or as many as there are; all computed without chance.

    Components have SD 1. Their coefficients w cost ``alpha`` / 2 |w|^2 against the log likelihood of the training part
    (of a normal one with SD 1 for regression), so alpha weighs as much as so many patients or events.
    """
    heads = {
        "regression": Ridge(alpha),
        "classification": LogisticRegression(C=1 / alpha, max_iter=1000),
        "survival": CoxPHSurvivalAnalysis(alpha, ties="efron"),
    }
    estimators = {kind: on_components(head, n_components) for kind, head in heads.items()}
    return PerTask(estimators, n_genes, scaler, gene_sets, seed)


def on_components(head, n_components: int):
    """Return a pipeline of the first whitened components, then ``head``."""
    first = FunctionTransformer(first_columns, kw_args={"count": n_components})
    return make_pipeline(PCA(whiten=True, svd_solver="full"), first, head)


def first_columns(components: np.ndarray, count: int) -> np.ndarray:
    """Return at most ``count`` columns of (n, C): PCA itself refuses to give fewer than it is asked for."""
    return components[:, :count]
