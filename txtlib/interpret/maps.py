"""Maps of patients: what a trained network makes of them, drawn in two dimensions, and numbers beside the picture.

The article shows t-SNE maps of encoder outputs and says that age, grade, PAM50 and risk can be seen on them (bbaf628,
Fig. 4). A picture cannot be wrong, a number can: how far a patient's nearest neighbours share its label, against
labels dealt out anew, in the full vectors, on the map, and in the principal components of the expression that went
in. Give test patients: those that a network was trained on carry the labels that it was shown.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.stats import rankdata
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE, trustworthiness
from sklearn.neighbors import NearestNeighbors
from sksurv.nonparametric import nelson_aalen_estimator

from txtlib import metrics, resampled
from txtlib.bootstrap import patient_counts
from txtlib.cohort import Cohort, CohortError, Task
from txtlib.interpret.attention import without_dropout
from txtlib.interpret.plain import fdr
from txtlib.training import GENES_AT_ONCE

POOLINGS = ("mean", "flatten")
COMPONENTS = 50  # that t-SNE and UMAP see of a vector: the rest is mostly noise, and costs time
FEWEST = 5  # patients of a map
PERPLEXITY = 30  # of t-SNE, where there are more than 90 patients
NEIGHBOURS = 15  # of UMAP, where there are more than 15 patients
SAME = 1e-6  # a spread below this part of the largest value is float32's rounding
ROUNDING = 1e-12  # equal shares may come out of a mean so far apart


# --- vectors --------------------------------------------------------------------------------------------------


def patient_vectors(network: torch.nn.Module, x: np.ndarray, pooling: str = "mean") -> np.ndarray:
    """Return a vector per patient from the encoder of a TxT or a variant: (n, d) or (n, G * d), float32.

    x (n, G) comes from ``preprocessor.expression(cohort)``. pooling "mean" averages a patient's gene vectors,
    "flatten" puts them in a row, as the heads read them under that readout. A few patients are in memory at a time,
    dropout is off. Raises ValueError for another pooling, or an x without the network's genes.
    """
    if pooling not in POOLINGS:
        raise ValueError(f"pooling is one of {', '.join(POOLINGS)}, not {pooling!r}.")
    x, genes = np.asarray(x, np.float32), network.settings["n_genes"]
    if x.ndim != 2 or x.shape[1] != genes or not len(x):
        raise ValueError(f"x has the shape {x.shape}, but the network reads (patients, {genes} genes).")
    with without_dropout(network) as device:
        return np.concatenate([_encoded(network, part, pooling, device) for part in _pieces(x)])


def _pieces(x: np.ndarray) -> list[np.ndarray]:
    size = max(1, GENES_AT_ONCE // x.shape[1])
    return [x[start : start + size] for start in range(0, len(x), size)]


@torch.no_grad()
def _encoded(network: torch.nn.Module, x: np.ndarray, pooling: str, device: torch.device) -> np.ndarray:
    hidden = network.encode(torch.from_numpy(x).to(device))  # (B, G, d)
    return (hidden.mean(1) if pooling == "mean" else hidden.flatten(1)).float().cpu().numpy()


def components(vectors: np.ndarray, count: int = COMPONENTS, seed: int = 0) -> np.ndarray:
    """Return the first principal components of vectors (n, p): (n, c), c the least of count, n - 1 and p.

    On scaled expression this is the control: what is there without any network. No label is looked at. The seed
    matters to large tables only, whose components are found by random projections. Raises ValueError as
    ``checked_vectors`` does, and for a count below 1.
    """
    if count < 1:
        raise ValueError(f"count is {count}; principal components are 1 or more.")
    vectors = checked_vectors(vectors)
    return PCA(min(count, len(vectors) - 1, vectors.shape[1]), random_state=seed).fit_transform(vectors)


def checked_vectors(vectors: np.ndarray, what: str = "vectors") -> np.ndarray:
    """Return ``finite_vectors``; ValueError also if all rows are the same, but for float32's rounding."""
    vectors = finite_vectors(vectors, what)
    if np.ptp(vectors, axis=0).max() <= SAME * max(vectors.max(), -vectors.min()):
        raise ValueError(f"All {len(vectors)} rows of the {what} are the same, so there is nothing to tell apart.")
    return vectors


def finite_vectors(vectors: np.ndarray, what: str = "vectors") -> np.ndarray:
    """Return vectors (n, p) as an array; ValueError, which calls them ``what``, if they are no table of numbers."""
    vectors = np.asarray(vectors)
    if vectors.ndim != 2 or min(vectors.shape) < 1 or vectors.dtype.kind not in "fiu":
        found = f"{vectors.dtype} of the shape {vectors.shape}"
        raise ValueError(f"The {what} are a table of numbers, (patients, values), not {found}.")
    bad = np.flatnonzero(~np.isfinite(vectors).all(1))
    if len(bad):
        raise ValueError(
            f"Row {bad[0]} of the {what} has a value that is missing or infinite: fill it or leave it out."
        )
    return vectors


# --- maps -----------------------------------------------------------------------------------------------------


def patient_maps(
    vectors: np.ndarray, samples: Sequence, methods: Sequence[str] = ("PCA", "t-SNE", "UMAP"), seed: int = 0
) -> pd.DataFrame:
    """Return a place in two dimensions for each patient by each method: columns sample, method, x, y.

    vectors (n, p) are in the order of ``samples`` (n,). All methods start from the first 50 principal components:
    "PCA" is the first two of them, "t-SNE" that of van der Maaten and Hinton (2008, scikit-learn, perplexity 30 or
    a third of n - 1), "UMAP" that of McInnes et al. (2018, umap-learn, 15 neighbours or n - 1). Axes have no unit, and
    distances between groups on the last two mean little. The same seed gives the same map. Raises ValueError for an
    unknown method, fewer than five patients, and as ``checked_vectors`` does.
    """
    unknown = [name for name in methods if name not in MAPPERS]
    if unknown or not len(methods):
        raise ValueError(f"A map is made by {', '.join(MAPPERS)}, not by {(unknown or [None])[0]!r}.")
    vectors = checked_vectors(vectors)
    if len(vectors) != len(samples) or len(vectors) < FEWEST or vectors.shape[1] < 2:
        raise ValueError(
            f"A map needs {FEWEST} patients or more, two values of each or more, and a sample name for each row, not "
            f"vectors of the shape {vectors.shape} and {len(samples)} names."
        )
    reduced = components(vectors, seed=seed).astype(np.float32, order="C")
    return pd.concat([_placed(MAPPERS[name](reduced, seed), samples, name) for name in methods], ignore_index=True)


def _placed(places: np.ndarray, samples: Sequence, method: str) -> pd.DataFrame:
    return pd.DataFrame({"sample": list(samples), "method": method, "x": places[:, 0], "y": places[:, 1]})


def _pca(reduced: np.ndarray, seed: int) -> np.ndarray:
    return reduced[:, :2]


def _tsne(reduced: np.ndarray, seed: int) -> np.ndarray:
    perplexity = min(PERPLEXITY, (len(reduced) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(reduced)


def _umap(reduced: np.ndarray, seed: int) -> np.ndarray:
    with warnings.catch_warnings():  # umap tells everybody who imports it that TensorFlow or a widget is missing
        warnings.filterwarnings("ignore", "Tensorflow not installed", ImportWarning)
        warnings.filterwarnings("ignore", "IProgress not found")
        from umap import UMAP  # its first use takes some 15 s
    neighbours = min(NEIGHBOURS, len(reduced) - 1)
    return UMAP(n_neighbors=neighbours, init="pca", random_state=seed, n_jobs=1).fit_transform(reduced)


MAPPERS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {"PCA": _pca, "t-SNE": _tsne, "UMAP": _umap}


def spaces(name: str, vectors: np.ndarray, maps: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return the vectors and their maps under names, for the numbers below: ``name``, ``name, t-SNE`` and so on.

    maps is the table of ``patient_maps`` for these vectors.
    """
    drawn = {f"{name}, {method}": rows[["x", "y"]].to_numpy() for method, rows in maps.groupby("method", sort=False)}
    return {name: np.asarray(vectors), **drawn}


def trust(vectors: np.ndarray, maps: pd.DataFrame, k: int = 10) -> pd.DataFrame:
    """Return how far each map's neighbours are neighbours in the vectors (n, p) too: columns method, k, n, trust.

    Trustworthiness (Venna and Kaski 2001, by scikit-learn) falls from 1 by the ranks of those that the map puts among
    a patient's k nearest and the vectors do not; a map drawn at random has about 0.5. maps is the table of
    ``patient_maps`` for these vectors. Raises ValueError if k is not below n / 2.
    """
    vectors = checked_vectors(vectors)
    _check_k(k, len(vectors), "these patients")
    drawn = {method: rows[["x", "y"]].to_numpy() for method, rows in maps.groupby("method", sort=False)}
    rows = [(name, k, len(vectors), trustworthiness(vectors, xy, n_neighbors=k)) for name, xy in drawn.items()]
    return pd.DataFrame(rows, columns=["method", "k", "n", "trust"])


# --- do neighbours share a label? -----------------------------------------------------------------------------


class Measure(NamedTuple):
    """How neighbours speak for a kind of label: what they say of a patient, and how good that is.

    said(labels, nearest (n, k)) -> (n,); score(labels, said) -> float; on_samples(labels, said, counts (R, n)) -> (R,).
    labels are (n,) class codes or numbers, or (n, 3) time, event and martingale residual.
    """

    name: str
    said: Callable[[np.ndarray, np.ndarray], np.ndarray]
    score: Callable[[np.ndarray, np.ndarray], float]
    on_samples: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


MEASURES = {
    "classification": Measure(
        "neighbours of the same class",
        lambda labels, nearest: (labels[nearest] == labels[:, None]).mean(1),
        lambda labels, said: float(said.mean()),
        lambda labels, said, counts: counts @ said / counts.sum(1),
    ),
    "regression": Measure(
        "Spearman with neighbours' mean",
        lambda labels, nearest: labels[nearest].mean(1),
        lambda labels, said: metrics.pearson(rankdata(labels), rankdata(said)),  # Spearman's, ten times as fast
        resampled.spearman,
    ),
    "survival": Measure(
        "Harrell's C of neighbours' events",
        lambda labels, nearest: labels[nearest, 2].mean(1),
        lambda labels, said: metrics.harrell_c((labels[:, 0], labels[:, 1]), said),
        lambda labels, said, counts: resampled.harrell_c((labels[:, 0], labels[:, 1]), said, counts),
    ),
}
SCORED = ["task", "measure", "space", "k", "n", "value", "low", "high", "chance", "p", "q"]
COMPARED = ["task", "measure", "space", "reference", "k", "n", "difference", "low", "high"]


def nearest_neighbours(vectors: np.ndarray, k: int) -> np.ndarray:
    """Return the rows of the k nearest others of each patient, (n, k), by Euclidean distance, the nearest first."""
    return NearestNeighbors(n_neighbors=k).fit(vectors).kneighbors(return_distance=False)


def neighbour_scores(
    spaces: Mapping[str, np.ndarray],
    cohort: Cohort,
    k: int = 10,
    resamples: int = 1000,
    permutations: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> pd.DataFrame:
    """Say how well the k nearest neighbours in each space tell a patient's label: a row per task and space.

    spaces {name: (n, any)} hold vectors or maps of the cohort's patients, in its order. To ask about a number that is
    no task, say a predicted risk, add a clinical column and a regression task. Neighbours are sought among those who
    have the label. Columns: task, measure, space, k, n (patients with the label), and

    - value: for classes the mean share of a patient's neighbours that are of its class; for numbers Spearman's
      correlation of the number with its mean over the neighbours; for survival Harrell's C of the neighbours' mean
      martingale residual (events less those expected of their follow-up by the Nelson-Aalen estimate of all).
    - low, high: percentiles over bootstrap samples of the patients, what the neighbours say of each held fixed.
    - chance: the mean of the value over permutations of the labels over the patients; for classes close to the
      chance that two patients are of one class, for numbers and survival somewhat below 0 and 0.5, since a patient
      is never its own neighbour.
    - p: the share of these permutations, and the observed labels with them, whose value is as high or higher: a
      one-sided test that labels fall on the n patients at random, whatever the space. It is about these patients and
      this one trained network. q: p after Benjamini and Hochberg over all rows.

    NaN where a measure is undefined (all numbers equal, no event). Raises ValueError for a space without a row per
    patient or as ``checked_vectors`` does, for k not below half of those with a label, and for fewer than one
    resample or permutation, CohortError for a cohort without tasks or with two samples of one patient.
    """
    asked = questions(spaces, cohort, k, resamples, permutations, seed)
    rows = [
        [*_about(one), space, k, len(one.labels), *_scored(one, one.nearest[space], permutations, seed, level)]
        for one in asked
        for space in spaces
    ]
    found = pd.DataFrame(rows, columns=SCORED[:-1])
    return found.assign(q=fdr(found["p"]))


def neighbour_differences(
    spaces: Mapping[str, np.ndarray],
    cohort: Cohort,
    reference: str,
    k: int = 10,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> pd.DataFrame:
    """Return by how much the neighbours in each space tell the labels better than those in the reference space.

    Arguments, values, NaN and errors are those of ``neighbour_scores``; ``reference`` names one of the spaces (say
    the principal components of expression). Columns: task, measure, space, reference, k, n, difference, low, high;
    positive is better than the reference. The interval is over bootstrap samples of the patients, the same in both
    spaces. It is about this one trained network: compare networks by one difference per training seed.
    """
    if reference not in spaces:
        raise ValueError(f"reference is one of the spaces {', '.join(spaces)}, not {reference!r}.")
    asked = questions(spaces, cohort, k, resamples, 1, seed)
    rows = [
        [*_about(one), space, reference, k, len(one.labels), *_difference(one, space, reference, level)]
        for one in asked
        for space in spaces
        if space != reference
    ]
    return pd.DataFrame(rows, columns=COMPARED)


class Question(NamedTuple):
    """A task, the labels of those who have one, {space: nearest (n, k)} and bootstrap counts (R, n) among them."""

    task: Task
    labels: np.ndarray
    nearest: dict[str, np.ndarray]
    counts: np.ndarray

    @property
    def measure(self) -> Measure:
        """What the labels of neighbours are compared by."""
        return MEASURES[self.task.kind]


def questions(spaces, cohort: Cohort, k: int, resamples: int, permutations: int, seed: int) -> list[Question]:
    """Return, for each task, who has a label and who their neighbours are in each space; see ``neighbour_scores``."""
    if min(resamples, permutations) < 1:
        raise ValueError(f"resamples and permutations are 1 or more, not {resamples} and {permutations}.")
    _check_cohort(cohort)
    checked = {name: _checked_space(name, vectors, cohort) for name, vectors in spaces.items()}
    counts = patient_counts(cohort, resamples, seed)
    return [_question(task, checked, cohort, k, counts) for task in cohort.tasks]


def _question(task: Task, spaces, cohort: Cohort, k: int, counts: np.ndarray) -> Question:
    known = cohort.clinical[list(task.columns)].notna().all(axis=1).to_numpy()
    _check_k(k, int(known.sum()), f"those with a label of {task.name!r}")
    nearest = {name: nearest_neighbours(vectors[known], k) for name, vectors in spaces.items()}
    drawn = counts[:, known]
    return Question(task, _labels(task, cohort.clinical.loc[known]), nearest, drawn[drawn.any(1)])


def _labels(task: Task, clinical: pd.DataFrame) -> np.ndarray:
    if task.kind == "survival":
        time, event = (clinical[column].to_numpy(float) for column in task.columns)
        return np.column_stack([time, event, martingale_residuals(time, event)])
    if task.kind == "classification":
        return pd.factorize(clinical[task.name])[0]
    return clinical[task.name].to_numpy(float)


def martingale_residuals(time: np.ndarray, event: np.ndarray) -> np.ndarray:
    """Return event less the Nelson-Aalen cumulative hazard of all at each patient's time, (n,); their sum is 0."""
    if not event.any():  # the estimator refuses it; nobody has more events than expected
        return np.zeros(len(time))
    times, hazard = nelson_aalen_estimator(event == 1, time)
    return event - hazard[np.searchsorted(times, time)]


def _about(one: Question) -> list[str]:
    return [one.task.name, one.measure.name]


def _scored(one: Question, nearest: np.ndarray, permutations: int, seed: int, level: float) -> list[float]:
    """Return value, low, high, chance and p."""
    said = one.measure.said(one.labels, nearest)
    value = one.measure.score(one.labels, said)
    if np.isnan(value):
        return [np.nan] * 5
    generator = np.random.default_rng(seed)
    dealt = (generator.permutation(one.labels) for _ in range(permutations))
    null = np.array([one.measure.score(labels, one.measure.said(labels, nearest)) for labels in dealt])
    p = (1 + np.sum(~(null < value - ROUNDING))) / (1 + permutations)
    return [value, *_interval(one.measure.on_samples(one.labels, said, one.counts), level), np.nanmean(null), p]


def _difference(one: Question, space: str, reference: str, level: float) -> list[float]:
    """Return the difference, low and high."""
    said = [one.measure.said(one.labels, one.nearest[name]) for name in (space, reference)]
    value, floor = (one.measure.score(one.labels, side) for side in said)
    drawn, below = (one.measure.on_samples(one.labels, side, one.counts) for side in said)
    return [value - floor, *_interval(drawn - below, level)]


def _interval(draws: np.ndarray, level: float) -> list[float]:
    draws = draws[~np.isnan(draws)]  # a sample without an event has no C
    return list(np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])) if len(draws) else [np.nan, np.nan]


def _checked_space(name: str, vectors: np.ndarray, cohort: Cohort) -> np.ndarray:
    vectors = checked_vectors(vectors, f"vectors of {name!r}")
    if len(vectors) != len(cohort):
        raise ValueError(f"The vectors of {name!r} have {len(vectors)} rows, {cohort.name} {len(cohort)} patients.")
    return vectors


def _check_cohort(cohort: Cohort) -> None:
    if not cohort.tasks:
        raise CohortError(f"{cohort.name} has no task, so its patients have no label to compare: add one.")
    twice = cohort.patients().duplicated()
    if twice.any():
        raise CohortError(
            f"{cohort.name}: sample {twice.index[twice][0]!r} is a second one of a patient, and the two would be each "
            "other's neighbours; keep one sample of each patient."
        )


def _check_k(k: int, n: int, whose: str) -> None:
    if not 1 <= k < n / 2:
        raise ValueError(f"k is {k}; the neighbours of {whose}, {n} in number, are 1 or more and fewer than half.")
