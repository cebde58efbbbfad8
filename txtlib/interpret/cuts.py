"""Is a clustering's effect on graphs its own, or would any cut through the same patients show as much?

Clusters of a network's output differ in its attention by construction: both are functions of the same expression. So
permuted labels, which no expression follows, are too easy a null for them. Here the null is another cut in the space
that the clusters were made in, along a random direction, which knows nothing of survival.
"""

import numpy as np
import pandas as pd

from txtlib.interpret.graphs import rows_of
from txtlib.interpret.groups import fisher_p, log2_ratio, passing
from txtlib.interpret.maps import components
from txtlib.interpret.plain import fdr as fdr_of


def random_cuts(vectors: np.ndarray, size: int, draws: int, seed: int = 0, count: int = 10) -> np.ndarray:
    """Return who lies furthest along random directions, (draws, n) bool with ``size`` of n patients in each.

    Directions are uniform among the first ``count`` principal components of standardised vectors (n, p), the space of
    ``txtlib.interpret.clusters.two_means``. Raises ValueError for a size that leaves a side empty, no draw, and vectors
    that do not vary.
    """
    if not 0 < size < len(vectors) or draws < 1:
        raise ValueError(
            f"{draws} cuts with {size} of {len(vectors)} patients: give a draw or more, and both sides one."
        )
    spread = vectors.std(0)
    axes = components((vectors - vectors.mean(0)) / np.where(spread > 0, spread, 1), count)  # (n, c)
    places = np.random.default_rng(seed).standard_normal((draws, axes.shape[1])) @ axes.T  # (draws, n)
    order = np.argsort(-places, axis=1, kind="stable")
    cuts = np.zeros(places.shape, bool)
    np.put_along_axis(cuts, order[:, :size], True, axis=1)
    return cuts


def differing_by_cut(marks: pd.DataFrame, cuts: np.ndarray, fdr: float = 0.05, ratio: float = 2.0) -> np.ndarray:
    """Count the genes that pass ``groups.differing`` between the two sides of each cut, (draws,).

    marks (n, G) bool as ``hubs`` returns them, cuts (draws, n) bool in the order of their rows, with equally many
    patients inside. Raises ValueError for cuts that are not so, and for a side without any patient.
    """
    counts = _counts(marks, cuts)
    adjusted = np.stack([fdr_of(row) for row in fisher_p(*counts)])
    return passing(adjusted, log2_ratio(*counts), fdr, ratio).sum(1)


def gene_ratios(marks: pd.DataFrame, cuts: np.ndarray) -> pd.DataFrame:
    """Return ``log2_ratio`` of each gene, inside each cut to outside, (draws, G); marks and cuts as above."""
    return pd.DataFrame(log2_ratio(*_counts(marks, cuts)), columns=marks.columns)


def gene_differences(values: pd.DataFrame, cuts: np.ndarray) -> pd.DataFrame:
    """Return each gene's mean inside each cut less that outside, in SDs over all patients, (draws, G).

    values (n, G) are, say, expression: what a cut does to genes without any network. A constant gene differs by 0.
    Raises ValueError as ``differing_by_cut`` does.
    """
    table = values.to_numpy(float)
    spread = table.std(0)
    inside, size = _inside(values, cuts)
    table = (table - table.mean(0)) / np.where(spread > 0, spread, 1)
    total = inside @ table  # the values of all patients add up to 0, so those outside to minus this
    return pd.DataFrame(total / size + total / (len(values) - size), columns=values.columns)


def set_contrasts(ratios: pd.DataFrame, gene_sets: dict[str, list[str]]) -> pd.DataFrame:
    """Return the mean of each set's genes less that of the genes outside it, (draws, sets), of ratios (draws, G).

    Above 0: the set stands out inside the cut. NaN for a set that holds none or all of the genes.
    """
    members = {name: ratios.columns.isin(list(genes)) for name, genes in gene_sets.items()}
    return pd.DataFrame({name: _contrast(ratios.to_numpy(), own) for name, own in members.items()})


def side(samples: pd.Index, chosen) -> np.ndarray:
    """Return one cut (1, n) with the chosen samples inside; ValueError for a stranger, or none."""
    return np.isin(np.arange(len(samples)), rows_of(samples, chosen))[None]


def _contrast(ratios: np.ndarray, own: np.ndarray) -> np.ndarray:
    if own.all() or not own.any():
        return np.full(len(ratios), np.nan)
    return ratios[:, own].mean(1) - ratios[:, ~own].mean(1)


def _counts(marks: pd.DataFrame, cuts: np.ndarray) -> tuple[np.ndarray, np.ndarray, int, int]:
    """Return the patients of both sides in whom each gene is marked, (draws, G) each, and how many there are."""
    inside, size = _inside(marks, cuts)
    values = marks.to_numpy(int)
    return inside @ values, values.sum(0) - inside @ values, size, len(marks) - size


def _inside(values: pd.DataFrame, cuts: np.ndarray) -> tuple[np.ndarray, int]:
    cuts = np.asarray(cuts, bool)
    sizes = np.unique(cuts.sum(-1))
    if cuts.ndim != 2 or cuts.shape[1] != len(values) or len(sizes) != 1 or not 0 < sizes[0] < len(values):
        raise ValueError(f"A cut puts as many of {len(values)} patients inside as the others do, and leaves some out.")
    return cuts.astype(int), int(sizes[0])
