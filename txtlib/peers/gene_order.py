"""Genes side by side that rise and fall together, for networks that look at neighbours."""

import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import pdist


def clustered(x: np.ndarray) -> np.ndarray:
    """Return the columns of x (n, G) in the order, (G,), in which average linkage on 1 - correlation lines them up.

    A column that does not vary correlates 0 with all others.
    """
    if x.shape[1] < 2:
        return np.arange(x.shape[1])
    distances = np.nan_to_num(pdist(x.T.astype(float), "correlation"), nan=1.0)
    return leaves_list(linkage(distances.clip(min=0), "average"))  # rounding can bring a distance below 0
