"""Frozen representations on trial: a linear probe per task, and what becomes of it in other units.

A reader turns a cohort into vectors: a pretrained model, or genes as they are. Reader and probe are fitted on the
training part in one unit and stay as they are.
"""

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from txtlib.bootstrap import patient_counts, score_draws
from txtlib.cohort import Cohort, CohortError, Task
from txtlib.metrics import most_probable
from txtlib.peers.ridge import ridge
from txtlib.predictions import Predictions
from txtlib.pretrain.versions import VERSIONS, Versions
from txtlib.transfer import fit_mapping

FIXED, TOLD = "fixed", "told"
MCC = "MCC"
Read = Callable[[Cohort], pd.DataFrame]


@dataclass(frozen=True)
class Reader:
    """How a cohort is read: ``fixed`` gives vectors (n, D) and knows of no other unit.

    ``told`` takes the training part in a cohort's unit, without labels, and gives a reader for that unit: what a
    laboratory can do that has the unlabelled training part in both. None: there is nothing to tell.
    """

    fixed: Read
    told: Callable[[Cohort], Read] | None = None


def model_reader(model) -> Reader:
    """Read by a pretrained model; told a unit, it weighs genes by that unit's training part."""
    return Reader(model.embed, lambda train: model.reweighted(train).embed)


def gene_reader(train: Cohort, genes: list[str]) -> Reader:
    """Read genes as they are; told a unit, bring mean and spread of each gene to those of the training part."""

    def fixed(cohort: Cohort) -> pd.DataFrame:
        return cohort.expression.reindex(columns=genes)

    return Reader(fixed, lambda own: lambda cohort: fixed(fit_mapping(train, own, "zscore").apply(cohort)))


def rank_reader(genes: list[str]) -> Reader:
    """Read each gene as its rank within the sample, among these genes: no rising map of the sample changes it."""
    return Reader(lambda cohort: cohort.expression.reindex(columns=genes).rank(axis=1, pct=True))


def on_vectors(cohort: Cohort, vectors: pd.DataFrame) -> Cohort:
    """Return the cohort with vectors (n, D) in the place of expression, for any method of the benchmark."""
    return replace(cohort, expression=vectors)


def fit_probe(train: Cohort, read: Read, seed: int = 0, method: Callable = ridge, **settings):
    """Fit a probe to every task on all vectors of the training part: by default logistic, Cox and linear ridge."""
    vectors = read(train)
    return method(seed=seed, n_genes=vectors.shape[1], **settings).fit(on_vectors(train, vectors), None)


def answering(probe, task: str):
    """Return the same fitted probe with answers to one task only; KeyError if it has not learned that."""
    only = copy(probe)
    only.models = {task: probe.models[task]}
    return only


def in_versions(reader: Reader, probe, units: Versions, train: Cohort, test: Cohort) -> dict[str, Predictions]:
    """Answer the test part in each version, by the reader as it is and told the unit: {"rank, fixed": answers}.

    Of classes: a hazard that is linear in vectors may overflow in a unit that the probe does not know.
    """
    answers = {}
    for name in VERSIONS:
        seen = units.apply(test, name)
        answers[f"{name}, {FIXED}"] = probe.predict(on_vectors(seen, reader.fixed(seen)))
        if reader.told and name != "zscore":  # shares of negative numbers mean nothing, so no weights can be had
            own = reader.told(units.apply(train, name))
            answers[f"{name}, {TOLD}"] = probe.predict(on_vectors(seen, own(seen)))
    return answers


def probe_draws(
    answers: Mapping[str, Predictions], train: Cohort, test: Cohort, horizon: float, resamples: int, seed: int = 0
) -> pd.DataFrame:
    """Return ``score_draws`` of these answers with Matthews' correlation beside the other measures of classes."""
    draws = score_draws(dict(answers), train, test, horizon, resamples, seed)
    counts = np.vstack([np.ones(len(test)), patient_counts(test, resamples, seed)])
    more = {}
    for task in [task.name for task in test.tasks if task.kind == "classification"]:
        truth = test.clinical[task].to_numpy()
        known = ~pd.isna(truth)
        for name, answer in answers.items():
            if task in answer.probabilities and known.any():
                more[name, task, MCC] = mcc(truth[known], answer.probabilities[task][known], counts[:, known])
    return pd.concat([draws, pd.DataFrame(more, index=draws.index)], axis=1).rename_axis(columns=draws.columns.names)


def mcc(truth: np.ndarray, shares: pd.DataFrame, counts: np.ndarray) -> np.ndarray:
    """Return Matthews' correlation of true (n,) and most probable classes in each sample of ``counts`` (R, n).

    Gorodkin's for many classes (2004, 10.1016/j.compbiolchem.2004.09.006): 0 where one class is all that is answered
    or all that is true, as in scikit-learn.
    """
    told = most_probable(shares)
    classes = np.unique(np.concatenate([truth, told]).astype(str))
    true, taken = (labels.astype(str)[:, None] == classes for labels in (truth, told))
    n, hits, of_true, of_taken = counts.sum(1), counts @ (true & taken).sum(1), counts @ true, counts @ taken
    together = hits * n - (of_true * of_taken).sum(1)
    spread = (n**2 - np.square(of_true).sum(1)) * (n**2 - np.square(of_taken).sum(1))
    return np.divide(together, np.sqrt(spread), out=np.zeros(len(n)), where=spread > 0)


def labelled(cohort: Cohort, label: str = "") -> Cohort:
    """Return the cohort with one classification task, and its survival task if it has one.

    ``label`` is a classification task or any other column of the clinical table; by default the first such task.
    CohortError if there is none.
    """
    names = [task.name for task in cohort.tasks if task.kind == "classification"]
    label = label or next(iter(names), "")
    if label not in cohort.clinical:
        raise CohortError(
            f"{cohort.name}: {f'no column {label!r}' if label else 'no classification task'} to tell patients apart; "
            f"name one of the clinical columns {', '.join(map(str, cohort.clinical.columns))}."
        )
    clinical = cohort.clinical
    if label not in names:
        known = clinical[label].notna()
        clinical = clinical.assign(**{label: clinical[label].astype(str).where(known, np.nan).astype(object)})
    tasks = (Task(label, "classification", (label,)), *(task for task in cohort.tasks if task.kind == "survival"))
    return replace(cohort, clinical=clinical, tasks=tasks)


def with_outcomes(cohort: Cohort, other: Cohort) -> Cohort:
    """Return the cohort with the survival task of another one that has the same patients, by patient.

    Patients that the other lacks have no outcome. CohortError if no patient is in both, or if the other has no
    survival task or two outcomes of one patient.
    """
    other.outcome()  # says so where there is none
    task, names = other.survival_task, other.patients()
    labels = other.clinical[list(task.columns)].set_axis(names.to_numpy())
    own = cohort.patients()
    if labels.index.has_duplicates or not own.isin(labels.index).any():
        what = "holds a patient twice" if labels.index.has_duplicates else f"shares no patient with {cohort.name}"
        raise CohortError(f"{other.name} {what}, so its outcomes cannot be joined; name another cohort.")
    found = labels.reindex(own.to_numpy()).set_axis(cohort.samples)
    tasks = (*(one for one in cohort.tasks if one.kind != "survival"), task)
    return replace(cohort, clinical=cohort.clinical.assign(**found), tasks=tasks)
