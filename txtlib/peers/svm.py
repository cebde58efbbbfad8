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

SPACE = {"C": [1.0, 0.001, 0.01, 0.1, 10.0], "kernel": ["rbf", "linear"]}
STEPS = 500  # of Newton's method, for the largest C; tens are common


def svm(
    seed: int = 0, n_genes: int = 1000, scaler: str = "standard", gene_sets=None, C: float = 1.0, kernel: str = "rbf"
) -> PerTask:
    """Return support vector machines with a "linear" or "rbf" kernel; a larger C is less regularised.

    The width of the rbf kernel is scikit-learn's "scale", in all three. Class probabilities come from temperature
    scaling and survival curves from calibration, both within the training part (txtlib/peers/tabular.py).
    """
    if kernel not in SPACE["kernel"]:
        raise ValueError(f"kernel is linear or rbf, not {kernel!r}.")
    estimators = {
        "regression": SVR(C=C, kernel=kernel),
        "classification": SVC(C=C, kernel=kernel),
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
        shared = {"alpha": self.C * event.sum() / pairs, "max_iter": STEPS, "random_state": self.seed}
        if self.kernel == "linear":
            self.model = FastSurvivalSVM(**shared)
        else:
            self.model = FastKernelSurvivalSVM(kernel="rbf", gamma=1 / (x.shape[1] * x.var()), **shared)
        # It refuses a time of 0, and looks at nothing but the order of times.
        self.model.fit(x, Surv.from_arrays(event, rankdata(time, method="dense")))
        return self

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return a score (n,): higher is worse."""
        return self.model.predict(x)
