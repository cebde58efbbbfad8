"""Where a GexBERT-like model looks when it restores a gene: attention as numbers, in multiples of uniform."""

import numpy as np
import torch
from scipy.stats import rankdata

from txtlib.pretrain.gexbert import GexBert


@torch.no_grad()
def asking_matrices(model: GexBert, x: np.ndarray, halvings: int = 8, seed: int = 0) -> np.ndarray:
    """Return how much each gene is looked at when another is asked for, (n, G, G) [key, query], mean over heads.

    x (n, G) is in SDs. As in training, a gene that is asked for is not shown: one half of the genes is shown and the
    other asked for, then the other way round, over ``halvings`` random halves, and each pair has the mean over those in
    which it was apart. 1 is what all shown genes, and the summary, would get if nobody preferred any; 0 where a pair
    was never apart, and on the diagonal.
    """
    values, generator = torch.nan_to_num(torch.from_numpy(np.asarray(x, np.float32))), np.random.default_rng(seed)
    n, genes = values.shape
    total, times = np.zeros((n, genes, genes), np.float32), np.zeros((genes, genes))
    for _ in range(halvings):
        order = generator.permutation(genes)
        halves = order[: genes // 2], order[genes // 2 :]
        for shown, asked in (halves, halves[::-1]):
            places = np.ix_(range(n), shown, asked)
            total[places] += _weights(model, values, shown, asked)
            times[np.ix_(shown, asked)] += 1
    return total / np.maximum(times, 1).astype(np.float32)


def _weights(model: GexBert, values: torch.Tensor, shown: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Return attention (n, shown, asked), times the number of what there is to look at."""
    network = model.network.eval()
    codes, wanted = (torch.as_tensor(some).expand(len(values), -1) for some in (shown, asked))
    memory = network.encode(codes, values[:, shown])
    found = network.asking(wanted, memory).mean(1)[..., 1:]  # (n, asked, shown), the summary aside
    return found.mT.numpy() * (1 + len(shown))


def same_set(genes: list[str], gene_sets: dict[str, list[str]]) -> np.ndarray:
    """Return whether two genes share a set, (G, G) bool, without the diagonal."""
    member = np.array([[gene in set(members) for gene in genes] for members in gene_sets.values()], float)
    return (member.T @ member > 0) & ~np.eye(len(genes), dtype=bool)


def pair_auc(weights: np.ndarray, pairs: np.ndarray, draws: int = 200, seed: int = 0) -> tuple[float, float]:
    """Return the chance that a pair that counts outweighs one that does not, of weights (G, G), and p.

    pairs (G, G) bool are those that count; the diagonal is left out and ties count half. Permuted: the names of the
    genes, so that a set's genes become as many random others; p is the share of ``draws`` with as much or more, one
    added to both. NaN where all pairs count, or none.
    """
    off = ~np.eye(len(weights), dtype=bool)
    ranks = np.zeros(weights.shape)
    ranks[off] = rankdata(weights[off])
    generator = np.random.default_rng(seed)
    orders = [np.arange(len(weights)), *(generator.permutation(len(weights)) for _ in range(draws))]
    found = np.array([_auc(ranks, pairs[np.ix_(order, order)] & off, off.sum()) for order in orders])
    return float(found[0]), float((1 + (found[1:] >= found[0]).sum()) / (1 + draws))


def _auc(ranks: np.ndarray, pairs: np.ndarray, total: int) -> float:
    count = pairs.sum()
    if count in (0, total):
        return np.nan
    return (ranks[pairs].sum() - count * (count + 1) / 2) / (count * (total - count))
