"""Protein networks and gene vectors: read, restrict, rewire, embed, and say how good the vectors are.

A network is a table of edges, (E, 3): gene1, gene2, score. It is undirected and simple: gene1 < gene2, each pair once,
no self loops, rows in the order of their names. PecanPy's import is repaired here, and nowhere else.
"""

import hashlib
import importlib.metadata
import inspect
import os
import sys
import tempfile
import types
import warnings
import zlib
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from txtlib.cohort import RAW, CohortError, cells

COLUMNS = ("protein1", "protein2", "combined_score")  # as in STRING's files
SUFFIXES = {"networks": ("", ".csv.gz", ".csv"), "genesets": ("", ".gmt")}
NEGATIVES = 1  # the article's negative samples per pair
TRIES = 20  # rounds of proposals after which a rewiring has to do with the swaps that it found

GeneSets = dict[str, list[str]]


@dataclass(frozen=True)
class Vectors:
    """A vector per gene: ``table`` (G, width), indexed by gene.

    ``isolated`` names the genes without an edge. They keep their row, which is the mean vector of all others.
    """

    table: pd.DataFrame
    isolated: tuple[str, ...] = ()

    @property
    def linked(self) -> np.ndarray:
        """True for each gene with an edge, (G,)."""
        return ~self.table.index.isin(self.isolated)

    def unit(self) -> np.ndarray:
        """Return the rows at length 1, (G, width), so that their products are cosines; a row of zeros stays."""
        values = self.table.to_numpy(float)
        norms = np.linalg.norm(values, axis=1, keepdims=True)
        return values / np.where(norms > 0, norms, 1)


# --- finding and reading --------------------------------------------------------------------------------------


def find_file(name_or_path: str | Path, kind: str) -> Path:
    """Find a file of ``kind`` "networks" or "genesets": a path, or a name with or without its suffix.

    Names are looked for in the folder of that kind beside the ``$TXT_DATA`` folder, then in ``data/raw``. Raises
    CohortError with the places looked at.
    """
    data = os.environ.get("TXT_DATA")
    folders = [Path(data).absolute().parent / kind] if data else []
    places = [Path(name_or_path), *(folder / name_or_path for folder in (*folders, RAW / kind))]
    for place in places:
        for suffix in SUFFIXES[kind]:
            if place.with_name(place.name + suffix).is_file():
                return place.with_name(place.name + suffix)
    looked = ", ".join(str(place) for place in places)
    hint = "" if data else " (TXT_DATA is not set)"
    raise CohortError(
        f"No file {str(name_or_path)!r} for {kind}: looked for {looked}{hint}, also with "
        f"{' or '.join(SUFFIXES[kind][1:])} added; give the path of the file, or put it into one of these folders."
    )


def read_network(name_or_path: str | Path, cut: float = 0) -> pd.DataFrame:
    """Read an edge list with the columns protein1, protein2, combined_score; see ``make_network``."""
    path = find_file(name_or_path, "networks")
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)  # a gene may be called NA
    except (ValueError, EOFError, OSError, zlib.error) as error:
        raise CohortError(f"{path} cannot be read as a table ({error}); give a whole CSV file.") from error
    missing = [column for column in COLUMNS if column not in frame]
    if missing:
        raise CohortError(
            f"{path} has no column {', '.join(missing)}; a network is a CSV file with the columns {','.join(COLUMNS)}, "
            f"and this one has {', '.join(map(str, frame.columns))}."
        )
    return make_network(frame[list(COLUMNS)], cut, where=path)


def make_network(frame: pd.DataFrame, cut: float = 0, where="the network") -> pd.DataFrame:
    """Check three columns (gene, gene, score) and return the network of all edges with a score of ``cut`` or more.

    Self loops and scores of 0 go; of a pair that is there more than once, in either direction, the best score
    stays. ``attrs`` counts what went: self_loops, below_cut, repeated. Raises CohortError.
    """
    names = frame.iloc[:, :2].astype(str).apply(lambda column: column.str.strip())
    scores = _scores(frame.iloc[:, 2], where)
    if (names == "").to_numpy().any():
        raise CohortError(f"{where}: {int((names == '').any(axis=1).sum())} edges lack a gene name; name both ends.")
    first, second = names.min(axis=1), names.max(axis=1)
    edges = pd.DataFrame({"gene1": first, "gene2": second, "score": scores})
    loop, low = first == second, (scores < cut) | (scores <= 0)
    kept = edges[~loop & ~low]
    if kept.empty:
        raise CohortError(
            f"{where}: none of the {len(edges)} edges joins two genes with a score of {cut:g} or more (best score: "
            f"{scores.max():g}); lower the cut, or check that the score column is in the unit of the cut."
        )
    simple = _canonical(kept)
    dropped = {"self_loops": loop.sum(), "below_cut": (low & ~loop).sum(), "repeated": len(kept) - len(simple)}
    simple.attrs = {key: int(count) for key, count in dropped.items()}
    return simple


def _scores(column: pd.Series, where) -> pd.Series:
    scores = pd.to_numeric(column, errors="coerce").astype(float)
    bad = column[~np.isfinite(scores) | (scores < 0)]
    if len(bad):
        raise CohortError(
            f"{where}: column {column.name!r} must hold numbers of 0 or more, and does not in row {cells(bad)} "
            "(counted from 0); correct or remove these edges."
        )
    return scores


def _canonical(edges: pd.DataFrame) -> pd.DataFrame:
    ordered = edges.sort_values(["gene1", "gene2", "score"], ascending=[True, True, False], kind="stable")
    return ordered.drop_duplicates(["gene1", "gene2"]).reset_index(drop=True)


def read_gene_sets(name_or_path: str | Path) -> GeneSets:
    """Read a GMT file: a line per set, of its name, a note and its genes, between tabs. Raises CohortError."""
    path = find_file(name_or_path, "genesets")
    lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    short = [parts[0] for parts in lines if len(parts) < 3]
    if short or not lines:
        raise CohortError(
            f"{path} is no GMT file ({f'line {short[0][:40]!r} holds no gene' if short else 'it is empty'}); each line "
            "is a name, a note and the genes, with tabs between them."
        )
    return {name: [gene.strip() for gene in genes if gene.strip()] for name, _, *genes in lines}


# --- networks -------------------------------------------------------------------------------------------------


def genes_of(gene_sets: str | Path) -> set[str] | None:
    """Return all genes of a GMT file, or None for an empty name: no restriction."""
    return {gene for genes in read_gene_sets(gene_sets).values() for gene in genes} if gene_sets else None


def restrict(edges: pd.DataFrame, genes) -> pd.DataFrame:
    """Return the edges between two of the genes. Raises CohortError for a repeated gene, or where no edge is left."""
    genes = pd.Index(genes)
    if genes.has_duplicates:
        raise CohortError(f"Gene {genes[genes.duplicated()][0]!r} stands there more than once; give each gene once.")
    ends = edges["gene1"].isin(genes), edges["gene2"].isin(genes)
    kept = edges[ends[0] & ends[1]].reset_index(drop=True)
    if kept.empty:
        known = int(genes.isin(pd.unique(edges[["gene1", "gene2"]].to_numpy().ravel())).sum())
        raise CohortError(
            f"No edge of the network joins two of the {len(genes)} genes, and {known} of them are in it at all (the "
            f"genes begin with {genes[0] if len(genes) else 'nothing'}, the network with {edges['gene1'].iloc[0]}); "
            "use gene symbols in both, more genes or a lower cut."
        )
    return kept


def degrees(edges: pd.DataFrame, genes) -> pd.Series:
    """Return the number of edges of each gene, (G,), with 0 for a gene that the network lacks."""
    ends = pd.concat([edges["gene1"], edges["gene2"]])
    return ends.value_counts().reindex(list(genes), fill_value=0)


def rewire(edges: pd.DataFrame, seed: int, swaps_per_edge: int = 10) -> pd.DataFrame:
    """Return a random network in which each gene has as many edges as before, by double-edge swaps.

    Two edges a-b and c-d become a-d and c-b, unless that makes a self loop or a repeated edge (Maslov and Sneppen
    2002). A score travels with the first end of its row. Nothing keeps the network in one piece.
    Raises CohortError where no swap is possible, as in a star.
    """
    names, codes = np.unique(edges[["gene1", "gene2"]].to_numpy(str), return_inverse=True)
    ends = codes.reshape(-1, 2).tolist()
    if not _swap(ends, len(names), swaps_per_edge * len(ends), np.random.default_rng(seed)):
        raise CohortError(
            f"No two of the {len(ends)} edges can be swapped: each gene's number of edges leaves one network only, so "
            "there is no rewired control; take more genes or a lower cut."
        )
    pairs = np.sort(names[np.array(ends)], axis=1)
    swapped = pd.DataFrame({"gene1": pairs[:, 0], "gene2": pairs[:, 1], "score": edges["score"].to_numpy()})
    return _canonical(swapped)


def _swap(ends: list[list[int]], size: int, goal: int, generator: np.random.Generator) -> int:
    """Swap partners in place until ``goal`` swaps are made, or proposals run out; return the swaps made."""
    taken = {min(pair) * size + max(pair) for pair in ends}
    made = 0
    for _ in range(TRIES):
        for i, j, turn in generator.integers(0, (len(ends), len(ends), 2), (goal, 3)).tolist():
            (a, b), (c, d) = ends[i], ends[j][::-1] if turn else ends[j]
            new = min(a, d) * size + max(a, d), min(c, b) * size + max(c, b)
            if a == d or b == c or new[0] in taken or new[1] in taken:
                continue
            taken -= {min(a, b) * size + max(a, b), min(c, d) * size + max(c, d)}
            taken |= set(new)
            ends[i], ends[j] = [a, d], [c, b]
            made += 1
            if made == goal:
                return made
    return made


def _adjacency(edges: pd.DataFrame, genes: list[str], weighted: bool):
    """Return a symmetric CSR matrix (G, G): scores, or ones."""
    from scipy.sparse import coo_array

    index = pd.Index(genes)
    rows, columns = index.get_indexer(edges["gene1"]), index.get_indexer(edges["gene2"])
    values = edges["score"].to_numpy(np.float32) if weighted else np.ones(len(edges), np.float32)
    half = coo_array((values, (rows, columns)), (len(index), len(index)))
    matrix = (half + half.T).tocsr()
    matrix.sort_indices()
    return matrix


# --- vectors --------------------------------------------------------------------------------------------------


def node2vec(
    edges: pd.DataFrame,
    genes,
    width: int = 64,
    walks: int = 10,
    length: int = 20,
    window: int = 10,
    p: float = 1.0,
    q: float = 1.0,
    weighted: bool = False,
    epochs: int = 5,
    seed: int = 0,
) -> Vectors:
    """Return vectors of the genes (G, width) from random walks on the edges between them: node2vec, or node2vec+.

    ``walks`` walks of ``length`` genes start at each gene; genes within ``window`` of each other are drawn together
    by skip-gram with the article's one negative sample. ``weighted`` is node2vec+ (Liu et al. 2023), which walks by
    score; with p = q = 1 that is the plain weighted walk, and node2vec (Grover and Leskovec 2016) is DeepWalk.
    The same bits on every run of one machine, whatever the threads, the hash seed and the order of the genes.
    Raises CohortError.
    """
    from gensim.models import Word2Vec

    inside = restrict(edges, genes)
    linked = _linked(inside)
    graph = _walker(weighted, p, q, seed)
    matrix = _adjacency(inside, linked, weighted)
    graph.indptr, graph.indices = matrix.indptr.astype(np.uint32), matrix.indices.astype(np.uint32)
    graph.data = matrix.data
    graph.set_node_ids(linked)
    with _numpy_state_kept(), _torch_threads_kept():
        sentences = graph.simulate_walks(walks, length - 1)  # PecanPy counts the steps
    model = Word2Vec(
        sentences,
        vector_size=width,
        window=window,
        sg=1,
        negative=NEGATIVES,
        min_count=0,
        workers=1,
        epochs=epochs,
        seed=seed,
    )
    return _with_isolated(model.wv[linked], linked, genes)


def random_vectors(like: Vectors, seed: int) -> Vectors:
    """Return vectors in random directions, each as long as that of ``like``; isolated genes share one again."""
    rows = np.random.default_rng(seed).normal(size=like.table.shape)
    if like.isolated:
        rows[~like.linked] = rows[~like.linked][0]
    norms = np.linalg.norm(like.table.to_numpy(float), axis=1, keepdims=True)
    rows *= norms / np.linalg.norm(rows, axis=1, keepdims=True)
    return replace(like, table=pd.DataFrame(rows.astype(np.float32), like.table.index))


def permuted(vectors: Vectors, seed: int) -> Vectors:
    """Return the same vectors with other owners: rows change places among the genes that have an edge."""
    order = np.arange(len(vectors.table))
    order[vectors.linked] = np.random.default_rng(seed).permutation(order[vectors.linked])
    return replace(vectors, table=vectors.table.iloc[order].set_axis(vectors.table.index))


def spectral(edges: pd.DataFrame, genes, width: int = 64) -> Vectors:
    """Return the first eigenvectors of the normalised adjacency matrix, largest first, (G, width), each of length 1.

    The classic without walks (Ng, Jordan and Weiss 2002). Needs a dense (G, G) matrix, so a few thousand genes; with
    fewer linked genes than ``width`` the last columns are 0. A column's sign: its largest entry is positive.
    """
    from scipy.linalg import eigh

    inside = restrict(edges, genes)
    linked = _linked(inside)
    matrix = _adjacency(inside, linked, weighted=False).toarray().astype(float)
    root = np.sqrt(matrix.sum(0))
    found = min(width, len(linked))
    _, columns = eigh(matrix / np.outer(root, root), subset_by_index=(len(linked) - found, len(linked) - 1))
    columns = columns[:, ::-1] * np.sign(columns[np.abs(columns).argmax(0), np.arange(found)])[::-1]
    return _with_isolated(np.pad(columns, ((0, 0), (0, width - found))).astype(np.float32), linked, genes)


def _linked(edges: pd.DataFrame) -> list[str]:
    return sorted(set(edges["gene1"]) | set(edges["gene2"]))


def _with_isolated(rows: np.ndarray, linked: list[str], genes) -> Vectors:
    rows = np.ascontiguousarray(rows)  # the last bit of a mean depends on the memory order
    mean = rows.mean(0, dtype=float).astype(rows.dtype)
    place = pd.Index(linked).get_indexer(list(genes))
    table = pd.DataFrame(np.where(place[:, None] >= 0, rows[place], mean), index=list(genes))
    return Vectors(table, tuple(table.index[place < 0]))


def _walker(weighted: bool, p: float, q: float, seed: int):
    from numba import njit

    pecanpy = import_pecanpy()
    if p == q == 1:  # no step looks back, and node2vec+ is the weighted first-order walk
        kind = pecanpy.PreCompFirstOrder if weighted else pecanpy.FirstOrderUnweighted
    else:
        kind = partial(pecanpy.SparseOTF, extend=weighted)
    graph = kind(p=p, q=q, workers=1, random_state=seed)
    # PecanPy seeds one thread, and under some of numba's threading layers another one walks: compile without threads.
    graph._random_walks = njit(nogil=True)(pecanpy.Base._random_walks.py_func)
    return graph


@contextmanager
def _numpy_state_kept():
    """PecanPy also seeds numpy's global generator: leave that as it was."""
    state = np.random.get_state()
    try:
        yield
    finally:
        np.random.set_state(state)


@contextmanager
def _torch_threads_kept():
    """Numba's first walk sets how many threads OpenMP takes, and with that how many torch does: keep torch's number."""
    import torch

    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


# --- how good are they? ---------------------------------------------------------------------------------------


class Links(NamedTuple):
    """Edges to learn from, edges held out, and as many pairs of genes without an edge for each (tables of names)."""

    kept: pd.DataFrame
    held: pd.DataFrame
    apart: pd.DataFrame
    apart_held: pd.DataFrame


def split_links(edges: pd.DataFrame, seed: int, share: float = 0.15) -> Links:
    """Hold out a share of the edges at random, and draw the pairs without an edge among genes that have one.

    Vectors that ``link_auroc`` is to judge must be fitted on ``kept`` only. Raises CohortError where the network is
    too small or too dense for that.
    """
    generator = np.random.default_rng(seed)
    out = round(share * len(edges))
    genes = np.array(_linked(edges))
    if not 0 < out < len(edges) or len(genes) * (len(genes) - 1) < 4 * len(edges):
        raise CohortError(
            f"A network of {len(edges)} edges among {len(genes)} genes cannot be split for link prediction: it needs "
            "edges on both sides and as many pairs of genes without an edge; take more genes or another cut."
        )
    order = generator.permutation(len(edges))
    apart = _pairs_apart(edges, genes, generator)
    held, kept = np.sort(order[:out]), np.sort(order[out:])
    return Links(edges.iloc[kept], edges.iloc[held], apart.iloc[out:], apart.iloc[:out])


def _pairs_apart(edges: pd.DataFrame, genes: np.ndarray, generator: np.random.Generator) -> pd.DataFrame:
    """Draw as many different pairs of genes without an edge as there are edges."""
    taken = set(zip(edges["gene1"], edges["gene2"], strict=True))
    pairs = {}
    while len(pairs) < len(edges):
        drawn = np.sort(genes[generator.integers(0, len(genes), (len(edges), 2))], axis=1)
        pairs.update({(a, b): None for a, b in drawn.tolist() if a != b and (a, b) not in taken})
    return pd.DataFrame(list(pairs)[: len(edges)], columns=["gene1", "gene2"])


def link_auroc(vectors: Vectors, links: Links) -> float:
    """Return how well a logistic regression tells held-out edges from pairs without one: area under the ROC curve.

    Its inputs are the entry-wise products of two unit vectors, as in the article's check (Grover and Leskovec's
    Hadamard operator); it learns from the kept edges. 0.5 is chance.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    unit = vectors.unit()
    model = LogisticRegression(max_iter=5000).fit(*_products(vectors, unit, links.kept, links.apart))
    inputs, truth = _products(vectors, unit, links.held, links.apart_held)
    return float(roc_auc_score(truth, model.decision_function(inputs)))


def _products(vectors: Vectors, unit: np.ndarray, edges: pd.DataFrame, apart: pd.DataFrame):
    pairs = pd.concat([edges[["gene1", "gene2"]], apart])
    first, second = (unit[vectors.table.index.get_indexer(pairs[end])] for end in ("gene1", "gene2"))
    return first * second * unit.shape[1], np.repeat([1, 0], [len(edges), len(apart)])


def same_set(genes, gene_sets: GeneSets) -> np.ndarray:
    """Say for each two genes whether a set holds both, (G, G) bool; the diagonal is False."""
    members = np.array([np.isin(list(genes), list(names)) for names in gene_sets.values()], np.float32)
    shared = members.T @ members > 0
    np.fill_diagonal(shared, False)
    return shared


def neighbours_found(vectors: Vectors, gene_sets: GeneSets, k: int = 10) -> pd.Series:
    """Return for each gene the share of its k nearest genes (by cosine) with which it shares a gene set.

    Indexed by gene; genes that share a set with no other gene are left out. Ties go to the gene that comes first.
    """
    if not 1 <= k < len(vectors.table):
        raise ValueError(f"k is between 1 and the number of other genes, {len(vectors.table) - 1}, not {k}.")
    unit = vectors.unit()
    cosine = np.round(unit @ unit.T, 9)  # equal vectors tie, whatever the last bit says
    np.fill_diagonal(cosine, -np.inf)
    nearest = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
    shared = same_set(vectors.table.index, gene_sets)
    found = np.take_along_axis(shared, nearest, axis=1).mean(1)
    return pd.Series(found, vectors.table.index)[shared.any(1)]


# --- cache ----------------------------------------------------------------------------------------------------


def cached_node2vec(edges: pd.DataFrame, genes, **settings) -> Vectors:
    """Return ``node2vec(edges, genes, **settings)``, from disk if the very same was asked before.

    The file's name is a hash of edges, genes, all settings and the versions of what computes them. It lies in
    ``$TXT_CACHE``, or ``data/raw/cache``.
    """
    inside = restrict(edges, genes)
    path = cache_folder() / f"node2vec-{content_key(inside, genes, **settings)}.npy"
    linked = _linked(inside)
    rows = _stored(path)
    if rows is None:
        fitted = node2vec(inside, genes, **settings)
        rows = fitted.table.loc[linked].to_numpy()
        _store(path, rows)
    return _with_isolated(rows, linked, genes)


def cache_folder() -> Path:
    """Return where computed vectors are kept: ``$TXT_CACHE``, or ``data/raw/cache``."""
    return Path(os.environ.get("TXT_CACHE") or RAW / "cache")


def content_key(edges: pd.DataFrame, genes, **settings) -> str:
    """Return a hash of everything that vectors depend on; a setting left out counts with its default."""
    call = inspect.signature(node2vec).bind(None, None, **settings)
    call.apply_defaults()
    versions = {name: importlib.metadata.version(name) for name in ("pecanpy", "gensim", "numba", "numpy")}
    words = [repr(sorted(call.arguments.items())), repr(versions), repr(NEGATIVES), *map(str, genes), ""]
    text = "\n".join(words) + edges[["gene1", "gene2", "score"]].to_csv(index=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _stored(path: Path) -> np.ndarray | None:
    try:
        return np.load(path)
    except (OSError, ValueError, EOFError):  # not there, or not whole
        return None


def _store(path: Path, rows: np.ndarray) -> None:
    """Write whole or not at all; a folder that cannot be written to costs time, not the result."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as draft:
            np.save(Path(draft) / path.name, rows)
            os.replace(Path(draft) / path.name, path)
    except OSError as error:
        warnings.warn(f"The vectors could not be kept ({error}); set TXT_CACHE to a folder.", stacklevel=3)


# --- PecanPy on numpy 2 ---------------------------------------------------------------------------------------


def import_pecanpy():
    """Import and return ``pecanpy.pecanpy`` on numpy 2.

    PecanPy 2.0.9 annotates with nptyping, which needs a name that numpy 2 dropped. The annotations are never
    evaluated, so an empty stand-in serves, and it goes away again after the import.
    """
    stand_in = types.ModuleType("nptyping")
    stand_in.__getattr__ = lambda name: _AnyHint
    known = sys.modules.get("nptyping")
    sys.modules["nptyping"] = stand_in
    try:
        from pecanpy import pecanpy
    finally:
        if known is None:
            del sys.modules["nptyping"]
        else:
            sys.modules["nptyping"] = known
    return pecanpy


class _Subscriptable(type):
    def __getitem__(cls, item):
        return cls


class _AnyHint(metaclass=_Subscriptable):
    """Stands for any type hint, subscripted or not."""
