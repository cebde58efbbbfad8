"""Support vector machines: classifier, regressor, and ranking of survival times.

Scikit-learn's SVC and SVR; for survival the ranking machine of Pölsterl et al. (2015, 10.1007/978-3-319-23525-7_15) as
in scikit-survival, with rank_ratio 1, so that a higher score is a worse outlook. It has no curves of its own.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata
from sklearn.svm import SVC, SVR
from sksurv.svm import FastKernelSurvivalSVM, FastSurvivalSVM
from sksurv.util import Surv

from txtlib.peers.tabular import PerTask

SPACE = {"kernel": ["rbf", "linear"], "C": [1.0, 10.0, 0.1]}
# A polynomial of degree 1 is the linear kernel with a width: products of patients divided by that of the rbf kernel.
KERNELS = {"rbf": {"kernel": "rbf"}, "linear": {"kernel": "poly", "degree": 1}}
STEPS = 500  # of Newton's method, for the largest C; tens are common


def svm(
    seed: int = 0, n_genes: int = 1000, scaler: str = "standard", gene_sets=None, C: float = 1.0, kernel: str = "rbf"
) -> PerTask:
    """Return support vector machines with a "linear" or "rbf" kernel; a larger C is less regularised.

    The width of both kernels is scikit-learn's "scale", genes times their variance, in all three: so a C means as much
    for either, and for few genes as for many, where the plain linear kernel would want C / 1,000 of 1,000 genes. Class
    probabilities come from temperature scaling and survival curves from calibration, both within the training part
    (txtlib/peers/tabular.py).
    """
    if kernel not in KERNELS:
        raise ValueError(f"kernel is linear or rbf, not {kernel!r}.")
    estimators = {
        "regression": SVR(C=C, **KERNELS[kernel]),
        "classification": SVC(C=C, **KERNELS[kernel]),
        "survival": RankingSVM(C, kernel, seed),
    }
    return PerTask(estimators, n_genes, scaler, gene_sets, seed)


@dataclass
class RankingSVM:
    """Scikit-survival's ranking machine with the C of the other two: the pairs of one event weigh C together.

    Its own weight ``alpha`` counts each comparable pair, of which there are more the more patients there are.
    """

    C: float
    kernel: str
    seed: int

    def fit(self, x: np.ndarray, y: np.ndarray) -> "RankingSVM":
        """Fit on (n, G) and scikit-survival's structured array."""
        event, time = (y[name] for name in y.dtype.names)
        pairs = max(1, sum((time > moment).sum() for moment in time[event]))
        weight, gamma = self.C * event.sum() / pairs, 1 / (x.shape[1] * x.var())
        shared = {"max_iter": STEPS, "random_state": self.seed}
        if self.kernel == "linear":
            self.model = FastSurvivalSVM(alpha=weight * gamma, **shared)  # as good as genes times the root of gamma
        else:
            self.model = FastKernelSurvivalSVM(alpha=weight, kernel="rbf", gamma=gamma, **shared)
        # It refuses a time of 0, and looks at nothing but the order of times.
        self.model.fit(x, Surv.from_arrays(event, rankdata(time, method="dense")))
        return self

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return a score (n,): higher is worse."""
        return self.model.predict(x)
