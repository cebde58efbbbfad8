"""Ridge regression of all three kinds: linear, multinomial logistic, Cox."""

import numpy as np
from sklearn.linear_model import LogisticRegression, RidgeCV

from txtlib.peers.coxnet import CrossValidatedCoxnet
from txtlib.peers.tabular import PerTask

SPACE = {"C": [0.01, 0.0001, 0.001, 0.1, 1.0]}
ALPHAS = tuple(np.logspace(0, 6, 25))  # of the linear one, chosen by leave-one-out
COX = {"l1_ratio": 1e-5, "span": (0.05, 3e-6)}  # scikit-survival needs a trace of lasso; it removes next to no gene


def ridge(seed: int = 0, n_genes: int = 1000, scaler: str = "standard", gene_sets=None, C: float = 0.01) -> PerTask:
    """Return ridge regressions; ``C`` is for classes only, and a larger one is less regularised.

    The penalty of the linear one is chosen by leave-one-out, that of Cox regression as in txtlib/peers/coxnet.py, whose
    elastic net with a trace of lasso is ridge for all purposes, and far faster than Newton's method on 1,000 genes.
    """
    estimators = {
        "regression": RidgeCV(ALPHAS),
        "classification": LogisticRegression(C=C, max_iter=1000),
        "survival": CrossValidatedCoxnet(seed=seed, **COX),
    }
    return PerTask(estimators, n_genes, scaler, gene_sets, seed)
