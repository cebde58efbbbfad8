"""Attention as a graph per patient: who tells whom, how many edges a gene has, and which genes have many.

Row i, column j of an attention matrix is how much query gene i takes from key gene j; the edge runs the way the
information does, from key to query: j -> i. Every matrix here is [key, query], so a row sum is an out-degree. A gene's
attention to itself is no edge, anywhere in this package.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from txtlib.interpret.attention import chosen_layers, without_dropout


@dataclass(frozen=True)
class Graphs:
    """A directed graph per patient: samples (n,), genes (G,), and edges (n, G, ceil(G / 8)) uint8, a bit per pair.

    Bit q of row k says whether there is an edge from key gene k to query gene q (``numpy.packbits``). A bit per pair
    takes 50 MB for 400 patients and 1,000 genes whatever the cut; a sparse matrix takes 32 bits per edge, so more
    from a density of 3 % on, and 1.6 GB for complete graphs.
    """

    samples: pd.Index
    genes: pd.Index
    edges: np.ndarray

    def __len__(self) -> int:
        """Return n."""
        return len(self.samples)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield each patient's graph, see ``matrix``."""
        return (self.matrix(number) for number in range(len(self)))

    def matrix(self, number: int) -> np.ndarray:
        """Return one patient's graph, (G, G) bool, [key, query]; the diagonal is False."""
        return np.unpackbits(self.edges[number], axis=1, count=len(self.genes)).view(bool)

    def take(self, samples: Iterable) -> "Graphs":
        """Return the graphs of these samples, in this order; ValueError for one that is not there, or there twice."""
        rows = rows_of(self.samples, samples)
        return replace(self, samples=self.samples[rows], edges=self.edges[rows])


def make_graphs(matrices: Iterable[np.ndarray], samples: Iterable, genes: Iterable) -> Graphs:
    """Pack one (G, G) bool matrix [key, query] per sample; diagonals are set to False.

    Takes the matrices one after another, so that a generator's are never together in memory. Raises ValueError for
    another shape or number of matrices, and for a sample or gene that is named twice.
    """
    samples, genes = _names(samples, "Sample"), _names(genes, "Gene")
    others = ~np.eye(len(genes), dtype=bool)
    packed = [np.packbits(_square(matrix, genes) & others, axis=1) for matrix in matrices]
    if len(packed) != len(samples):
        raise ValueError(f"There are {len(packed)} matrices for {len(samples)} samples; give one each.")
    return Graphs(samples, genes, np.stack(packed))


def rows_of(samples: pd.Index, wanted: Iterable) -> np.ndarray:
    """Return where the wanted samples stand; ValueError if there is none, a stranger, or one of them twice."""
    wanted = _names(wanted, "Sample")
    rows = samples.get_indexer(wanted)
    if (rows < 0).any():
        raise ValueError(f"Sample {wanted[rows < 0][0]!r} is none of these {len(samples)}; name some of them.")
    return rows


def _square(matrix: np.ndarray, genes: pd.Index) -> np.ndarray:
    if matrix.shape != (len(genes), len(genes)) or matrix.dtype != bool:
        raise ValueError(
            f"A matrix is {matrix.shape} of {matrix.dtype}, for {len(genes)} genes; give bool, with a row and a column "
            "for each gene."
        )
    return matrix


def _names(names: Iterable, what: str) -> pd.Index:
    names = pd.Index(list(names), dtype=object)
    if not len(names):
        raise ValueError(f"There is no {what.lower()}; name one or more.")
    if names.has_duplicates:
        raise ValueError(f"{what} {names[names.duplicated()][0]!r} stands there more than once; give each once.")
    return names


# --- from attention ---------------------------------------------------------------------------------------------


def cut(n_genes: int, weight: float | None = None, times_uniform: float | None = None) -> float:
    """Return the attention weight above which there is an edge, given as it is or in multiples of 1 / G.

    ``cut(1000, weight=0.01)`` is the article's; with 99 genes or fewer, that is below uniform attention, which says
    nothing and would pass. ``cut(1000, times_uniform=10)`` is the same weight, and means the same with other numbers
    of genes. Raises ValueError for neither or both, and for a weight not between 0 and 1.
    """
    if (weight is None) == (times_uniform is None):
        raise ValueError("Give either weight, e.g. 0.01, or times_uniform, e.g. 5, and not both.")
    if n_genes < 2:
        raise ValueError(f"n_genes is {n_genes}; a graph needs 2 or more.")
    return _checked(times_uniform / n_genes if weight is None else weight)


def _checked(threshold: float) -> float:
    if not 0 < threshold < 1:
        raise ValueError(f"The cut is a weight of {threshold:g}; weights of a row sum to 1, so choose one in between.")
    return float(threshold)


def attention_graphs(
    network: torch.nn.Module,
    x: np.ndarray,
    samples: Iterable,
    genes: Iterable,
    threshold: float,
    layers: Sequence[int] | None = None,
    progress: bool = False,
) -> Graphs:
    """Return each patient's graph: an edge key -> query where the weight of any head exceeds the threshold.

    x (n, G) is scaled expression, as ``preprocessor.expression(cohort)`` returns it; ``threshold`` comes from ``cut``.
    ``layers`` are counted from 0, all by default; more layers, or heads, mean more chances for an edge. One layer
    of one patient is in memory at a time. Works on a TxT and its variants; one with sets has no attention between all
    genes and says so (ValueError). Raises ValueError for shapes that do not match, an x that is not finite, or a
    layer that is not there.
    """
    samples, genes, threshold = list(samples), list(genes), _checked(threshold)
    _check_x(x, samples, genes)
    layers = chosen_layers(network, layers)
    quiet = {} if progress else {"disable": True}  # said only then, so that TQDM_DISABLE works too
    with torch.no_grad(), without_dropout(network) as device:
        patients = tqdm(torch.as_tensor(x, device=device), desc="attention graphs", unit="patient", **quiet)
        return make_graphs((_edges(network, row, layers, threshold) for row in patients), samples, genes)


def _edges(network: torch.nn.Module, patient: torch.Tensor, layers: Sequence[int], threshold: float) -> np.ndarray:
    """Return the edges of one patient (G,), (G, G) bool [key, query]."""
    found = torch.zeros(len(patient), len(patient), dtype=torch.bool, device=patient.device)
    for layer in layers:
        found |= (network.attention(patient[None], layer)[0] > threshold).any(0)  # (H, G, G) to (G, G)
    return found.T.cpu().numpy()


def _check_x(x: np.ndarray, samples: list, genes: list) -> None:
    if x.shape != (len(samples), len(genes)):
        raise ValueError(
            f"x is {x.shape}, for {len(samples)} samples and {len(genes)} genes; give a row each and a column each."
        )
    if not np.isfinite(x).all():
        raise ValueError("x holds values that are not finite; take what the model's own preprocessor returns.")


# --- degrees ----------------------------------------------------------------------------------------------------


class Degrees(NamedTuple):
    """Edges that leave (``out``) and reach (``into``) each gene, two tables (n, G) of whole numbers, 0 to G - 1."""

    out: pd.DataFrame
    into: pd.DataFrame


def degrees(graphs: Graphs) -> Degrees:
    """Count each gene's edges in each patient's graph; its attention to itself is none."""
    counts = np.stack([(matrix.sum(1), matrix.sum(0)) for matrix in graphs])  # (n, 2, G)
    return Degrees(*(pd.DataFrame(counts[:, way], graphs.samples, graphs.genes) for way in (0, 1)))


def centrality(degree: pd.DataFrame) -> pd.DataFrame:
    """Return degrees (n, G) as a share of the G - 1 other genes, 0 to 1."""
    return degree / (degree.shape[1] - 1)


def hubs(found: Degrees, k: float = 2.0) -> pd.DataFrame:
    """Say in which patients each gene is a hub, (n, G) bool: out-degree > mean + k SD of that patient's genes.

    The SD is that of the G genes themselves (divided by G). The article (Fig. 5B) prints the rule as an image; k = 2
    is our reading. Where all genes have the same degree there is no hub.
    """
    return _outstanding(found.out, k)


def attractors(found: Degrees, k: float = 2.0) -> pd.DataFrame:
    """Say in which patients each gene is an attractor, (n, G) bool: as ``hubs``, by in-degree (Fig. 5C)."""
    return _outstanding(found.into, k)


def _outstanding(degree: pd.DataFrame, k: float) -> pd.DataFrame:
    if not k > 0:
        raise ValueError(f"k is {k}; a gene stands out by a number of SDs above 0.")
    return degree.gt(degree.mean(axis=1) + k * degree.std(axis=1, ddof=0), axis=0)


# --- what is no function of the degrees ---------------------------------------------------------------------------


def reciprocity(graphs: Graphs) -> pd.Series:
    """Return the share of each patient's edges that have their reverse, (n,); NaN for a graph without edges."""
    counts = np.array([((matrix & matrix.T).sum(), matrix.sum()) for matrix in graphs], float)  # (n, 2)
    both, edges = counts.T
    share = np.divide(both, edges, out=np.full(len(edges), np.nan), where=edges > 0)
    return pd.Series(share, graphs.samples, name="reciprocity")


def edges_within(graphs: Graphs, gene_sets: dict[str, list[str]]) -> pd.DataFrame:
    """Count each patient's edges with both ends in a set, (n, sets), a column per set.

    A set with fewer than two of the genes has 0 everywhere. Raises ValueError if all sets are such.
    """
    columns = {name: np.flatnonzero(graphs.genes.isin(genes)) for name, genes in gene_sets.items()}
    if max(map(len, columns.values()), default=0) < 2:
        raise ValueError(
            f"None of the {len(columns)} gene sets holds two of the {len(graphs.genes)} genes (first: "
            f"{graphs.genes[0]}); use sets with the same kind of gene names."
        )
    counts = [[matrix[np.ix_(chosen, chosen)].sum() for chosen in columns.values()] for matrix in graphs]
    return pd.DataFrame(counts, graphs.samples, list(columns))


def edges_shared(graphs: Graphs, network_edges: pd.DataFrame) -> pd.Series:
    """Count each patient's edges, either way, between two genes that a network joins, (n,).

    ``network_edges`` has a row per undirected edge in its columns gene1 and gene2 (txtlib/network.py). Raises
    ValueError if no edge of it joins two of the genes.
    """
    ends = [graphs.genes.get_indexer(network_edges[end]) for end in ("gene1", "gene2")]
    first, second = (end[(ends[0] >= 0) & (ends[1] >= 0) & (ends[0] != ends[1])] for end in ends)
    if not len(first):
        raise ValueError(
            f"None of the network's {len(network_edges)} edges joins two of the {len(graphs.genes)} genes (first: "
            f"{graphs.genes[0]}); use a network with the same kind of gene names."
        )
    joined = np.zeros((len(graphs.genes), len(graphs.genes)), bool)
    joined[first, second] = joined[second, first] = True
    return pd.Series([(matrix & joined).sum() for matrix in graphs], graphs.samples, name="edges_shared")
