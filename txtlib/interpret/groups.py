"""Which genes are hubs, or attractors, more often in one group of patients than in the other?"""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy import stats

from txtlib.interpret.graphs import rows_of
from txtlib.interpret.plain import fdr


def compare_groups(marks: pd.DataFrame, a: Iterable, b: Iterable) -> pd.DataFrame:
    """Compare how often each gene is marked in the samples a and in the samples b; a row per gene, as they come.

    marks (n, G) bool is what ``hubs`` or ``attractors`` returns; samples in neither group play no role.

    gene: its name. n_a, n_b: patients of the group in whom it is marked. share_a, share_b: the same as a share of
    the group. log2_ratio: of share_a to share_b, above 0 where a has more; with n patients in both groups, 1 / n is
    added to each share, so that it is finite (half a patient each, if the groups are equal in size). p: Fisher's exact
    test, two-sided, of the same chance to be marked in both groups; n is the patients of both. fdr: Benjamini and
    Hochberg's, over all G genes, those never marked (p = 1) included.

    The test takes patients as independent and the groups as given beforehand. Patients seen by one trained network
    tell nothing of another training, and groups that were found in the same network differ by construction: see
    ``txtlib.interpret.nulls``. Raises ValueError for an empty group, a sample in both, twice, or not there.
    """
    rows_a, rows_b = two_groups(marks.index, a, b)
    values = marks.to_numpy()
    if values.dtype != bool:
        raise ValueError("marks hold True and False, as hubs and attractors return them; make them from the degrees.")
    n_a, n_b = values[rows_a].sum(0), values[rows_b].sum(0)
    sizes = len(rows_a), len(rows_b)
    table = pd.DataFrame({"gene": marks.columns, "n_a": n_a, "n_b": n_b})
    table["share_a"], table["share_b"] = n_a / sizes[0], n_b / sizes[1]
    table["log2_ratio"] = log2_ratio(n_a, n_b, *sizes)
    table["p"] = fisher_p(n_a, n_b, *sizes)
    return table.assign(fdr=fdr(table["p"]))


def differing(table: pd.DataFrame, fdr: float = 0.05, ratio: float = 2.0) -> pd.Series:
    """Say which rows pass the article's rule, (G,) bool: fdr below, and shares that differ more than ``ratio`` times.

    Either group may be the one with more. The ratio is the table's, with its small-count correction.
    """
    return passing(table["fdr"], table["log2_ratio"], fdr, ratio)


def passing(adjusted, ratios, fdr: float, ratio: float):
    """Apply the rule of ``differing`` to adjusted p and log2 ratios of any one shape; ValueError for a bad rule."""
    if not (0 < fdr <= 1 and ratio >= 1):
        raise ValueError(f"fdr lies above 0 and up to 1, and ratio is 1 or more; they are {fdr} and {ratio}.")
    return (adjusted < fdr) & (np.abs(ratios) > np.log2(ratio))


def two_groups(samples: pd.Index, a: Iterable, b: Iterable) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of both groups; ValueError for an empty group, or a sample in both, twice, or not there."""
    rows_a, rows_b = rows_of(samples, a), rows_of(samples, b)
    both = np.intersect1d(rows_a, rows_b)
    if len(both):
        raise ValueError(f"Sample {samples[both[0]]!r} is in both groups; leave it in one of them.")
    return rows_a, rows_b


def log2_ratio(n_a: np.ndarray, n_b: np.ndarray, size_a: int, size_b: int) -> np.ndarray:
    """Return log2 of (share_a + 1/n) / (share_b + 1/n), n = size_a + size_b: finite, and 0 for equal shares."""
    n = size_a + size_b
    return np.log2(n_a / size_a + 1 / n) - np.log2(n_b / size_b + 1 / n)


def fisher_p(n_a: np.ndarray, n_b: np.ndarray, size_a: int, size_b: int) -> np.ndarray:
    """Return the two-sided p of Fisher's exact test for each pair of counts, in their shape; by scipy.

    Tested: n_a of size_a patients and n_b of size_b come from one chance. Each table is looked at once.
    """
    tables, which = np.unique(n_a * (size_b + 1) + n_b, return_inverse=True)
    counts = ((code // (size_b + 1), code % (size_b + 1)) for code in tables.astype(int).tolist())
    p = [stats.fisher_exact([[i, size_a - i], [j, size_b - j]]).pvalue for i, j in counts]
    return np.array(p)[which].reshape(n_a.shape)
