"""Do trainings that differ in their seed alone point to the same genes?

A ranking that the next seed does not repeat is a property of the seed. Scores are (S, G): a row per seed, or per
way of ranking, and a column per gene, higher for genes that count more.
"""

from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

from txtlib.interpret.plain import check_values


def stability(scores: pd.DataFrame, ks: tuple[int, ...] = (10, 50, 100), seed: int = 0) -> pd.DataFrame:
    """Say how far S rankings of G genes agree, on average over all pairs of them.

    Returns a row per k: k, spearman (mean rank correlation of all genes, the same in each row), jaccard (mean over
    pairs of the shared part of both top k sets: 1 if they are equal, 0 if apart), chance (``chance_jaccard``) and n
    (S). A pair with a constant row has no rank correlation and is left out of that mean. Raises ValueError as
    ``agreement`` does.
    """
    rows = []
    for k in ks:
        pairs = agreement(scores, k, seed)[["spearman", "jaccard"]].mean()
        rows.append({"k": k, **pairs, "chance": chance_jaccard(scores.shape[1], k), "n": len(scores)})
    return pd.DataFrame(rows)


def agreement(scores: pd.DataFrame, k: int, seed: int = 0) -> pd.DataFrame:
    """Compare every two rows of scores, (S, G): two seeds, or attention and a plain ranking.

    Returns a row per pair: first, second, spearman (NaN where a row is constant) and jaccard of the top k sets.
    ``seed`` draws who of equal genes comes first, in each row anew, so that ties do not agree more than by chance.
    Raises ValueError for fewer than two rows, k outside 1..G, and a score that is missing or infinite.
    """
    _check(scores, k, least=2)
    top = top_sets(scores, k, seed).to_numpy(int)
    both = top @ top.T  # (S, S) genes in both sets
    ranks = stats.rankdata(scores.to_numpy(float), axis=1)
    with np.errstate(invalid="ignore"):
        rho = np.corrcoef(ranks)
    pairs = [
        (scores.index[i], scores.index[j], rho[i, j], both[i, j] / (2 * k - both[i, j]))
        for i, j in combinations(range(len(scores)), 2)
    ]
    return pd.DataFrame(pairs, columns=["first", "second", "spearman", "jaccard"])


def top_sets(scores: pd.DataFrame, k: int, seed: int = 0) -> pd.DataFrame:
    """Return True for the k highest genes of each row of scores, (S, G); ties as ``agreement`` breaks them."""
    _check(scores, k, least=1)
    values = scores.to_numpy(float)
    order = np.lexsort((np.random.default_rng(seed).random(values.shape), -values))  # rows of columns, best first
    top = np.zeros(values.shape, bool)
    np.put_along_axis(top, order[:, :k], True, 1)
    return pd.DataFrame(top, scores.index, scores.columns)


def top_frequency(scores: pd.DataFrame, k: int, seed: int = 0) -> pd.Series:
    """Return the share of rankings that have each gene in their top k, (G,), most frequent first; k / G is chance."""
    shares = top_sets(scores, k, seed).mean().rename("frequency").rename_axis("gene")
    return shares.sort_values(ascending=False, kind="stable")


def chance_jaccard(n_genes: int, k: int) -> float:
    """Return the expected Jaccard index of two sets of k genes drawn at random of G; near k / (2 G - k).

    Exact: the shared genes are hypergeometric. Raises ValueError for k outside 1..G.
    """
    _check_k(k, n_genes)
    shared = np.arange(k + 1)
    return float(stats.hypergeom.pmf(shared, n_genes, k, k) @ (shared / (2 * k - shared)))


def _check(scores: pd.DataFrame, k: int, least: int) -> None:
    check_values(scores, "row")
    if len(scores) < least:
        raise ValueError(f"{len(scores)} ranking(s) have nothing to agree with; give {least} or more.")
    _check_k(k, scores.shape[1])


def _check_k(k: int, n_genes: int) -> None:
    if not 1 <= k <= n_genes:
        raise ValueError(f"k is {k}; the top k of {n_genes} genes needs k from 1 to {n_genes}.")
