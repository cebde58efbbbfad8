"""Controls: a method trained on labels that belong to other patients.

With all labels permuted it scores what luck scores. With those of one task permuted, a method that learns all tasks
together loses what that task's labels tell of the others, and nothing else: neither tasks nor loss become fewer.

A control is run with settings that are given, or its defaults: trials would be judged by the validation part's right
labels, and the best of several lucky ones is no longer luck.
"""

from dataclasses import replace

import numpy as np

from txtlib.cohort import Cohort
from txtlib.peers.coxnet import coxnet
from txtlib.peers.txt import txt
from txtlib.predictions import Predictions


class PermutedLabels:
    """A method behind a wall: within the training part, and within the validation part, labels change patients.

    All labels of a patient stay together, so tasks remain as related to each other as they are. All clinical columns
    are labels here: for a method that reads some of them, as clinical Cox regression does, this is no control. With a
    ``task`` its labels alone change patients.
    """

    def __init__(self, method, seed: int, task: str | None = None):
        self.method, self.seed, self.task = method, seed, task

    def fit(self, train: Cohort, validation: Cohort) -> "PermutedLabels":
        """Fit the method on the permuted labels."""
        generator = np.random.default_rng(self.seed)
        parts = (permuted(part, generator, self.task) for part in (train, validation))
        fitted = self.method.fit(*parts)
        self.method = self.method if fitted is None else fitted
        return self

    def predict(self, cohort: Cohort) -> Predictions:
        """Answer as the method does."""
        return self.method.predict(cohort)


def permuted(cohort: Cohort, generator: np.random.Generator, task: str | None = None) -> Cohort:
    """Return the cohort with the rows of its clinical table, or the labels of one task, shuffled over its patients.

    KeyError for a task that it does not have.
    """
    order = generator.permutation(len(cohort))
    columns = list(cohort.clinical if task is None else cohort.task(task).columns)
    moved = cohort.clinical[columns].iloc[order].set_axis(cohort.samples)
    return replace(cohort, clinical=cohort.clinical.assign(**moved))


def txt_permuted(seed: int = 0, **settings) -> PermutedLabels:
    """Return TxT on permuted labels."""
    return PermutedLabels(txt(seed, **settings), seed)


def coxnet_permuted(seed: int = 0, **settings) -> PermutedLabels:
    """Return the elastic net on permuted labels."""
    return PermutedLabels(coxnet(seed, **settings), seed)


def permuted_task(seed: int = 0, task: str = "Age", **settings) -> PermutedLabels:
    """Return TxT on all tasks, the labels of one of them permuted: does that task help the others?"""
    return PermutedLabels(txt(seed, **settings), seed, task)
