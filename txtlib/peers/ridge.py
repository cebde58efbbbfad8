"""Ridge regression of all three kinds: linear, multinomial logistic, Cox, each with a penalty that chooses itself.

How much of a penalty is right depends on how much the genes say: far less of age than of subtype, less still of
survival. So no one value is right for all three, and each chooses its own by cross-validation within the training part.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import GridSearchCV

from txtlib.peers.coxnet import CrossValidatedCoxnet
from txtlib.peers.tabular import PerTask, class_folds, fold_rows, for_classes

SPACE = {}  # nothing is left to tune
ALPHAS = tuple(np.logspace(0, 6, 25))  # of the linear one, chosen by leave-one-out
CS = tuple(np.logspace(-5, 1, 7))  # of the logistic one: the reciprocals of its penalties
TINY = np.finfo(float).tiny  # the least probability; rounding may leave none
COX = {"l1_ratio": 1e-5, "span": (0.05, 3e-6)}  # scikit-survival needs a trace of lasso; it removes next to no gene


def ridge(seed: int = 0, n_genes: int = 1000, scaler: str = "standard", gene_sets=None) -> PerTask:
    """Return ridge regressions; the seed draws the folds by which two of them choose their penalty.

    The penalty of the linear one is chosen by leave-one-out, that of Cox regression as in txtlib/peers/coxnet.py, whose
    elastic net with a trace of lasso is ridge for all purposes, and far faster than Newton's method on 1,000 genes.
    """
    estimators = {
        "regression": RidgeCV(ALPHAS),
        "classification": CrossValidatedLogistic(seed),
        "survival": CrossValidatedCoxnet(seed=seed, **COX),
    }
    return PerTask(estimators, n_genes, scaler, gene_sets, seed)


@dataclass
class CrossValidatedLogistic:
    """Logistic regression with the penalty, of ``CS``, whose models are most likely for left-out patients.

    5 folds share out each class; one that cannot be left out and learned (``class_folds``) gets no column. After
    ``fit``, ``model`` is scikit-learn's search.
    """

    seed: int

    def fit(self, x: np.ndarray, y: np.ndarray, patients: np.ndarray | None = None) -> "CrossValidatedLogistic":
        """Fit on (n, G), class codes (n,), 0 or more, and whose samples they are (n,), if any repeat."""
        kept, fold = class_folds(y, self.seed, patients)
        plain, choice = LogisticRegression(max_iter=1000), {"C": CS}
        search = GridSearchCV(plain, choice, scoring=log_likelihood, cv=fold_rows(fold), error_score="raise")
        self.model = for_classes(search, y[kept]).fit(x[kept], y[kept])
        self.classes_ = self.model.classes_
        return self

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        """Return probabilities (n, C) of ``classes_``."""
        return self.model.predict_proba(x)


def log_likelihood(classifier, x: np.ndarray, y: np.ndarray) -> float:
    """Return the log likelihood of class codes (n,), given (n, G)."""
    shares = classifier.predict_proba(x)[np.arange(len(y)), np.searchsorted(classifier.classes_, y)]
    return float(np.log(shares.clip(min=TINY)).sum())
