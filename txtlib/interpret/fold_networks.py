"""Folds of a cohort that each get a network of their own, with the same few genes asked of each."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from txtlib.cohort import Cohort, CohortError, Split
from txtlib.preprocess import variable_genes
from txtlib.splits import Folds, folds_from


def dealt_folds(cohort: Cohort, member: Sequence[bool], count: int, seed: int = 0) -> Folds:
    """Return folds that hold equally many, to within one, of four kinds of patients: members or not, with event or not.

    ``member`` (n,) says who is in the group that is looked at, whose events are few. All samples of a patient are in
    one fold. Raises ValueError for fewer than two folds, and CohortError where the group has fewer events than folds.
    """
    if count < 2:
        raise ValueError(f"There are {count} folds; a part that is tested and one that is not need two or more.")
    member, event = np.asarray(member, bool), np.nan_to_num(cohort.outcome()[1])
    kinds = pd.Series(2 * member + event, cohort.samples).groupby(cohort.patients()).max()
    if (kinds == 3).sum() < count:
        raise CohortError(
            f"{cohort.name}: the group has {(kinds == 3).sum()} patients with an event, too few for {count} folds; "
            "take fewer folds or a larger group."
        )
    order = np.random.default_rng(seed).permutation(len(kinds))
    order = order[np.argsort(kinds.to_numpy()[order], kind="stable")]
    fold = pd.Series(np.arange(len(order)) % count, kinds.index[order])
    return folds_from(cohort.patients().map(fold), name="dealt", seed=seed)


def narrowed(parts: Split, n_genes: int, gene_list: Iterable[str] | None = None, forced: Sequence[str] = ()) -> Split:
    """Return the same patients with n genes: those forced in, then the most variable of the training part's others.

    ``gene_list`` restricts the others, not those forced in. Raises CohortError for a forced gene that is not measured.
    """
    train = parts.train.expression
    absent = [gene for gene in forced if gene not in train]
    if absent:
        raise CohortError(f"{parts.train.name} does not measure {absent[0]!r}; force genes in that it has.")
    others = variable_genes(train.drop(columns=list(forced)), max(1, n_genes - len(forced)), gene_list)
    genes = [*forced, *others][:n_genes]
    return Split(*(replace(part, expression=part.expression[genes]) for part in parts))
