"""Nearest shrunken centroids (Tibshirani et al. 2002, 10.1073/pnas.082099299), for classes only.

The yardstick for subtypes such as PAM50, whose labels were themselves made from expression by a centroid rule.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from sklearn.neighbors import NearestCentroid

from txtlib.peers.tabular import PerTask, Tempered

SPACE = {"shrink_threshold": [1.0, None, 2.0, 0.5]}


def centroid(
    seed: int = 0, n_genes: int = 1000, scaler: str = "standard", gene_sets=None, shrink_threshold: float | None = 1.0
) -> PerTask:
    """Return nearest shrunken centroids; ``shrink_threshold`` is in standard errors, None for no shrinking."""
    return PerTask({"classification": ShrunkenCentroids(shrink_threshold, seed)}, n_genes, scaler, gene_sets, seed)


@dataclass
class ShrunkenCentroids:
    """Scikit-learn's nearest centroids, with tempered probabilities.

    Its own add up the evidence of all genes as if they were independent, so with 1,000 of them each patient would be of
    one class with probability 1.
    """

    shrink_threshold: float | None
    seed: int

    def fit(self, x: np.ndarray, y: np.ndarray, patients: np.ndarray | None = None) -> "ShrunkenCentroids":
        """Fit on (n, G), class codes (n,), and whose samples they are (n,), if any repeat."""
        plain = NearestCentroid(shrink_threshold=self.shrink_threshold, priors="empirical")
        with warnings.catch_warnings():
            # A gene that few patients express may not vary within classes without them; it is then left unscaled.
            warnings.filterwarnings("ignore", "self.within_class_std_dev_ has at least 1 zero")
            self.model = Tempered(plain, self.seed).fit(x, y, patients)
        self.classes_ = self.model.classes_
        return self

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        """Return probabilities (n, C) of ``classes_``."""
        return self.model.predict_proba(x)
