"""Other ways to split than at random: whole clusters of patients as test parts, and training parts cut to a size.

Folds of one partition share no test patient, random splits do; both share most training patients. An interval over
folds (txtlib/comparisons.py) nevertheless takes the correction n_test / n_train of random splits: no unbiased
variance exists for folds (Bengio and Grandvalet 2004, jmlr.org/papers/v5/grandvalet04a.html), and without it the
interval would be too narrow.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from txtlib.cohort import Cohort, CohortError, Split, split, stratum_of
from txtlib.preprocess import gene_table, scale_genes, variable_genes

LEAST = 10  # patients of a test part
VALIDATION = 1 / 8  # of what is not tested, as in a random split of 70, 10 and 20 %


@dataclass(frozen=True)
class Folds:
    """A partition of a cohort: ``labels`` holds the fold 0 .. k - 1 of each sample, ``about`` says how it was made.

    ``about`` is plain: a ``name``, and what else decides the folds; ``seed`` also divides training and validation.
    ``tested`` is the fold that is tested always; the others are then split anew by each data seed.
    """

    labels: pd.Series
    about: dict
    tested: int | None = None

    def __len__(self) -> int:
        """Return k."""
        return int(self.labels.max()) + 1


def make_folds(cohort: Cohort, scheme: Folds | Mapping[str, Any] | None) -> Folds | None:
    """Return the folds that a scheme describes, None for random splits.

    A scheme is None or ``{"name": "random"}``, ``{"name": "clusters", ...}`` with the settings of ``cluster_folds``,
    ``{"name": "elsewhere", "column": ..., "tested": ...}``, or Folds. With ``elsewhere`` the test part is always the
    samples with that value in the clinical column, a hospital, say, and methods learn from the others. Raises
    ValueError for another, and CohortError for folds that cannot each be a test part.
    """
    if isinstance(scheme, Folds):
        return _checked(cohort, scheme)
    settings = dict(scheme or {"name": "random"})
    name = settings.pop("name", None)
    if name == "random" and not settings:
        return None
    if name == "elsewhere" and settings.keys() == {"column", "tested"}:
        return _elsewhere(cohort, **settings)
    if name != "clusters" or not settings.keys() <= {"k", "components", "n_genes", "seed"}:
        raise ValueError(
            "A scheme is {'name': 'random'}, {'name': 'clusters'} with any of k, components, n_genes and seed, "
            "{'name': 'elsewhere'} with column and tested, or folds of your own (txtlib.splits.folds_from), not "
            f"{scheme!r}."
        )
    return cluster_folds(cohort, **settings)


def cluster_folds(cohort: Cohort, k: int = 5, components: int = 10, n_genes: int = 1000, seed: int = 0) -> Folds:
    """Return k-means clusters of the patients as folds, the largest first; no label is looked at.

    Clusters of the first principal components of the most variable genes, of all patients. Genes are scaled by rank,
    then to unit variance: in z-scores with a heavy tail a few tumours would be clusters of their own. Raises
    CohortError for a cluster that is too small, or has no event, to be a test part.
    """
    if not 2 <= k <= len(cohort):
        raise ValueError(f"k is from 2 to the number of patients, not {k}.")
    values = cohort.expression[variable_genes(cohort.expression, n_genes)].to_numpy(float)
    values = np.where(np.isnan(values), np.nanmedian(values, 0), values)
    for scaler in ("rank", "standard"):
        values = scale_genes(values, scaler, gene_table(values, scaler))
    axes = PCA(min(components, *values.shape), svd_solver="full").fit_transform(values)
    found = KMeans(k, n_init=20, random_state=seed).fit_predict(axes)
    order = np.argsort(-np.bincount(found, minlength=k), kind="stable")
    about = {"name": "clusters", "k": k, "components": components, "n_genes": n_genes, "seed": seed}
    return _checked(cohort, Folds(pd.Series(np.argsort(order)[found], cohort.samples), about))


def _elsewhere(cohort: Cohort, column: str, tested: str) -> Folds:
    there = cohort.clinical[column] == tested if column in cohort.clinical else pd.Series(False, cohort.samples)
    if not there.any() or there.all():
        raise CohortError(
            f"{cohort.name}: some, but not all, samples need {tested!r} in the clinical column {column!r}."
        )
    about = {"name": "elsewhere", "column": column, "tested": tested}
    return _checked(cohort, Folds(there.astype(int), about, tested=1))


def folds_from(labels: pd.Series | Mapping, name: str = "given", seed: int = 0) -> Folds:
    """Return folds from a label per sample (a site, or a cluster of a model's vectors), in the order of the labels.

    ``name`` says in tables what they are. Raises ValueError for a missing label, or fewer than two.
    """
    labels = pd.Series(labels)
    if labels.isna().any() or labels.nunique() < 2:
        raise ValueError(f"Folds need a label for each sample, and two or more of them; {name!r} has not.")
    return Folds(pd.Series(pd.factorize(labels, sort=True)[0], labels.index), {"name": name, "seed": seed})


def _checked(cohort: Cohort, folds: Folds) -> Folds:
    """Return the folds of the cohort's samples, those of one patient together, if each can be tested."""
    unknown = cohort.samples.difference(folds.labels.index)
    if len(unknown):
        raise CohortError(
            f"{cohort.name}: {len(unknown)} of {len(cohort)} samples have no fold in {folds.about['name']!r} (the "
            f"first is {str(unknown[0])!r}); give a label for each."
        )
    patients = cohort.patients()
    own = folds.labels.loc[cohort.samples].groupby(patients.to_numpy())
    labels = patients.map(own.agg(lambda labels: labels.mode().iloc[0]))  # the most common, the first of equals
    for fold in range(len(folds)):
        _check_fold(cohort.take(cohort.samples[labels.to_numpy() == fold]), fold, folds)
    return replace(folds, labels=labels)


def _check_fold(test: Cohort, fold: int, folds: Folds) -> None:
    size = test.patients().nunique()
    events = np.nansum(test.outcome()[1]) if test.survival_task else None
    if size < LEAST or events == 0:
        counted = "" if events is None else f" and {events:.0f} events of {test.survival_task.name!r}"
        raise CohortError(
            f"{test.name}: fold {fold} of {len(folds)} ({folds.about['name']}) has {size} patients{counted}, but a "
            f"test part needs {LEAST} and an event: take fewer folds, fewer components, or another seed."
        )


def fold_split(cohort: Cohort, folds: Folds, fold: int) -> Split:
    """Test on one fold; of the others, an eighth is for validation, stratified as in ``stratified_order``.

    Where one fold is tested always, ``fold`` is the seed of a random split of the others, of which the part that would
    be tested stays out: as many patients learn as elsewhere. Raises ValueError for a fold that is not there, and
    CohortError for a part without an event.
    """
    if folds.tested is not None:
        away = folds.labels.loc[cohort.samples].to_numpy() == folds.tested
        return split(cohort.take(cohort.samples[~away]), fold)._replace(test=cohort.take(cohort.samples[away]))
    if not 0 <= fold < len(folds):
        raise ValueError(f"There are {len(folds)} folds, 0 to {len(folds) - 1}: no data seed {fold}.")
    tested = folds.labels.loc[cohort.samples].to_numpy() == fold
    rest = cohort.take(cohort.samples[~tested])
    order = stratified_order(rest, [folds.about.get("seed", 0), fold])
    held_out = rest.patients().isin(order[: round(VALIDATION * len(order))]).to_numpy()
    parts = rest.samples[~held_out], rest.samples[held_out], cohort.samples[tested]
    return Split(*(_with_event(cohort.take(part), name) for part, name in zip(parts, Split._fields, strict=True)))


def cut(train: Cohort, size: int, seed: int) -> Cohort:
    """Keep so many patients of a training part, in its order; a smaller cut of the same seed is within a larger.

    Raises CohortError if there are fewer, or if no event is left.
    """
    order = stratified_order(train, [seed])
    if not 1 <= size <= len(order):
        raise CohortError(f"{train.name}: the training part has {len(order)} patients, so it cannot be cut to {size}.")
    kept = train.patients().isin(order[:size]).to_numpy()
    return _with_event(train.take(train.samples[kept]), "cut train")


def _with_event(part: Cohort, name: str) -> Cohort:
    if part.survival_task is not None and not np.nansum(part.outcome()[1]):
        raise CohortError(
            f"{part.name}: the {name} part ({len(part)} samples) holds no event of {part.survival_task.name!r}, so "
            "nothing can be learned or tested there; take fewer folds, another seed, or a larger part."
        )
    return part


def stratified_order(cohort: Cohort, seed: list[int]) -> list[str]:
    """Return the patients in a random order whose every beginning holds each stratum's share, to within one.

    The stratum is that of ``txtlib.cohort.split``: the event, or the first classification label.
    """
    strata = stratum_of(cohort).groupby(cohort.patients().to_numpy()).max()
    generator = np.random.default_rng(seed)
    place = {}
    for _, members in sorted(strata.groupby(strata).groups.items()):
        order = generator.permutation(np.sort(members.to_numpy(str)))
        place |= {patient: (row + 0.5) / len(order) for row, patient in enumerate(order.tolist())}
    return sorted(place, key=lambda patient: (place[patient], strata[patient], patient))
