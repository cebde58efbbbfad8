"""What would be seen with nothing to see: nulls on a fixed model, by permuted group labels and by rewired graphs.

Both leave the trained network as it is. So they say whether its graphs hold more than chance, and nothing on whether
another training of the same network would hold the same: for that, compare trainings, with one value per seed.
"""

from collections.abc import Callable, Iterable
from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd
from statsmodels.stats.multitest import multipletests
from tqdm import tqdm

from txtlib.interpret.graphs import Graphs, make_graphs
from txtlib.interpret.groups import compare_groups, differing, fisher_p, log2_ratio, passing, two_groups

TIE = 1e-9  # relative; sums of the same numbers in another order must tie

Statistic = Callable[[Graphs], pd.Series | pd.DataFrame]


# --- permuted labels ----------------------------------------------------------------------------------------------


class LabelNull(NamedTuple):
    """How many genes pass: ``observed``, under each permutation ``null`` (draws,), and ``p``."""

    observed: int
    null: np.ndarray
    p: float


def permuted_labels(
    marks: pd.DataFrame,
    a: Iterable,
    b: Iterable,
    draws: int = 1000,
    seed: int = 0,
    fdr: float = 0.05,
    ratio: float = 2.0,
) -> LabelNull:
    """Count the genes that pass ``differing`` between two groups of samples, and between groups drawn at random.

    marks (n, G) bool as in ``compare_groups``. Permuted: which patients of a and b are in which group, sizes kept;
    the marks stay, and with them how genes go together. p = (1 + permutations with as many genes or more) /
    (1 + draws), one-sided; n is the patients of both groups.

    The groups must not have been chosen by what the marks are made of: clusters of the same network's output differ
    in it by construction, and this p is too small for them; choose the clusters on other patients, or from other data.
    Raises ValueError as ``compare_groups`` does, and for fewer than one draw.
    """
    _check_draws(draws)
    rows_a, rows_b = two_groups(marks.index, a, b)
    observed = int(differing(compare_groups(marks, marks.index[rows_a], marks.index[rows_b]), fdr, ratio).sum())
    values = marks.to_numpy(np.float32)[np.concatenate([rows_a, rows_b])]  # counts in float32 are exact to 2^24
    null = _passing(values, _random_groups(len(rows_a), len(values), draws, seed), fdr, ratio)
    return LabelNull(observed, null, (1 + int((null >= observed).sum())) / (1 + draws))


def _random_groups(size: int, n: int, draws: int, seed: int) -> np.ndarray:
    """Draw which ``size`` of n patients are in the first group, (draws, n) of 0 and 1."""
    labels = np.tile((np.arange(n) < size).astype(np.float32), (draws, 1))
    return np.random.default_rng(seed).permuted(labels, axis=1)


def _passing(values: np.ndarray, labels: np.ndarray, fdr: float, ratio: float) -> np.ndarray:
    """Count the genes that pass for each labelling, (draws,), of values (n, G) and labels (draws, n), both 0 or 1."""
    n_a = np.rint(labels @ values).astype(int)  # (draws, G)
    n_b = values.sum(0).astype(int) - n_a
    sizes = int(labels[0].sum()), int((1 - labels[0]).sum())
    adjusted = np.stack([multipletests(row, method="fdr_bh")[1] for row in fisher_p(n_a, n_b, *sizes)])
    return passing(adjusted, log2_ratio(n_a, n_b, *sizes), fdr, ratio).sum(1)


# --- rewired graphs -----------------------------------------------------------------------------------------------


def rewired(graphs: Graphs, seed: int | np.random.Generator, swaps_per_edge: int = 10) -> Graphs:
    """Return random graphs in which each gene of each patient has as many edges out and in as before.

    Directed double-edge swaps (Maslov and Sneppen 2002): a -> b and c -> d become a -> d and c -> b, unless that makes
    a self loop or an edge that is there. ``swaps_per_edge`` are tried for each edge; one that is refused counts, so
    that all graphs within reach come up alike. Out of reach is only what needs a directed triangle turned round (Rao,
    Jana and Bandyopadhyay 1996), which matters in graphs of a few genes. Patients are drawn one by one, apart from
    each other. A complete, empty or star graph comes back as it is: its degrees leave no other.
    """
    generator = np.random.default_rng(seed)
    matrices = (_rewired(matrix, generator, swaps_per_edge) for matrix in graphs)
    return make_graphs(matrices, graphs.samples, graphs.genes)


def _rewired(matrix: np.ndarray, generator: np.random.Generator, swaps_per_edge: int) -> np.ndarray:
    """Rewire one graph (G, G); of a dense one the pairs without an edge, which is the same and refuses less."""
    dense = matrix.sum() > matrix.size / 2
    matrix = ~matrix & ~np.eye(len(matrix), dtype=bool) if dense else matrix.copy()
    keys, queries = matrix.nonzero()
    if len(keys):
        proposals = generator.integers(0, len(keys), (swaps_per_edge * len(keys), 2), dtype=np.int32)
        _swapper()(matrix, keys, queries, proposals)
    return ~matrix if dense else matrix  # make_graphs clears the diagonal


def _swap(matrix: np.ndarray, keys: np.ndarray, queries: np.ndarray, proposals: np.ndarray) -> None:
    """Try swaps in place: matrix (G, G) bool, its edges' ends keys and queries (E,), and pairs of edges (m, 2)."""
    for row in range(len(proposals)):
        i, j = proposals[row, 0], proposals[row, 1]
        a, b, c, d = keys[i], queries[i], keys[j], queries[j]
        if a != d and c != b and not matrix[a, d] and not matrix[c, b]:
            matrix[a, b] = matrix[c, d] = False
            matrix[a, d] = matrix[c, b] = True
            queries[i], queries[j] = d, b


@cache
def _swapper() -> Callable:
    from numba import njit  # slow to import, and only rewiring needs it

    return njit(_swap)


def against_rewired(
    graphs: Graphs, statistic: Statistic, draws: int = 100, seed: int = 0, progress: bool = False
) -> pd.DataFrame:
    """Compare a statistic of the graphs with what their degrees alone make of it; a row per column of the statistic.

    ``statistic`` maps Graphs to a Series (n,) or a DataFrame (n, m), e.g. ``reciprocity`` or
    ``lambda graphs: edges_within(graphs, gene_sets)``. A function of the degrees would not differ from its null.
    Patients without an edge are left out.

    statistic: the column's name. n: patients. observed: the mean over patients. null_mean, null_low, null_high: of the
    same mean in rewired graphs, with the 2.5 and 97.5 percentiles over draws. p: two-sided, twice the smaller of
    (1 + draws with a mean as high) / (1 + draws) and the same for as low, at most 1. patients_above: share of the
    patients whose own value is above the 95th percentile of their own rewired values; chance makes 0.05 of it, or less.

    Permuted: the edges within each patient's graph, degrees kept, patients apart from each other. So p tests "each
    graph is a random one of its degrees, whatever the others'", for this network; graphs of one network are alike,
    so a small p may come from one trait that all share. Raises ValueError without any edge, or fewer than one draw.
    """
    _check_draws(draws)
    graphs = _with_edges(graphs)
    observed = pd.DataFrame(statistic(graphs))  # (n, m)
    generator, quiet = np.random.default_rng(seed), {} if progress else {"disable": True}
    rounds = tqdm(range(draws), desc="rewired graphs", unit="draw", **quiet)
    null = np.stack([pd.DataFrame(statistic(rewired(graphs, generator))).to_numpy(float) for _ in rounds])
    return _summary(observed, null)


def _with_edges(graphs: Graphs) -> Graphs:
    linked = graphs.edges.any(axis=(1, 2))
    if not linked.any():
        raise ValueError(f"None of the {len(graphs)} graphs has an edge; choose a lower cut.")
    return graphs.take(graphs.samples[linked])


def _summary(observed: pd.DataFrame, null: np.ndarray) -> pd.DataFrame:
    """Return a row per statistic, of observed (n, m) and null (draws, n, m)."""
    mean, means = observed.to_numpy(float).mean(0), null.mean(1)  # (m,), (draws, m)
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    above = observed.to_numpy() > np.quantile(null, 0.95, axis=0)
    columns = dict(statistic=observed.columns, n=len(observed), observed=mean, null_mean=means.mean(0))
    return pd.DataFrame(columns | dict(null_low=low, null_high=high, p=_p(mean, means), patients_above=above.mean(0)))


def _p(observed: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Return the two-sided p of observed (m,) in null (draws, m)."""
    slack = TIE * np.abs(observed)
    tails = [(null >= observed - slack).sum(0), (null <= observed + slack).sum(0)]
    return np.minimum(1, 2 * (1 + np.minimum(*tails)) / (1 + len(null)))


def _check_draws(draws: int) -> None:
    if draws < 1:
        raise ValueError(f"draws is {draws}; a null needs one or more.")
