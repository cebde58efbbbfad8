"""A control: any method, trained on labels that belong to other patients. What it scores is what luck scores."""

from dataclasses import replace

import numpy as np

from txtlib.cohort import Cohort
from txtlib.peers.coxnet import coxnet
from txtlib.peers.txt import txt
from txtlib.predictions import Predictions


class PermutedLabels:
    """A method behind a wall: within the training part, and within the validation part, labels change patients.

    All labels of a patient stay together, so tasks remain as related to each other as they are.
    """

    def __init__(self, method, seed: int):
        self.method, self.seed = method, seed

    def fit(self, train: Cohort, validation: Cohort) -> "PermutedLabels":
        """Fit the method on the permuted labels."""
        generator = np.random.default_rng(self.seed)
        parts = (permuted(part, generator) for part in (train, validation))
        fitted = self.method.fit(*parts)
        self.method = self.method if fitted is None else fitted
        return self

    def predict(self, cohort: Cohort) -> Predictions:
        """Answer as the method does."""
        return self.method.predict(cohort)


def permuted(cohort: Cohort, generator: np.random.Generator) -> Cohort:
    """Return the cohort with the rows of its clinical table shuffled over its patients."""
    order = generator.permutation(len(cohort))
    return replace(cohort, clinical=cohort.clinical.iloc[order].set_axis(cohort.samples))


def txt_permuted(seed: int = 0, **settings) -> PermutedLabels:
    """Return TxT on permuted labels."""
    return PermutedLabels(txt(seed, **settings), seed)


def coxnet_permuted(seed: int = 0, **settings) -> PermutedLabels:
    """Return the elastic net on permuted labels."""
    return PermutedLabels(coxnet(seed, **settings), seed)
