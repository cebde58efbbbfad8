"""TxT beside the clinic: it begins as a regression on clinical columns, and the genes may only add to that.

A form of ours, not the article's. The clinical columns go straight to N-MTLR's logits, by a map that is fitted first;
TxT's own head ends in zeros then, so before its first step the whole is that regression. What the genes say is
learned as a correction, and the validation part says how much of it is kept.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from txtlib.cohort import Cohort
from txtlib.losses import task_loss
from txtlib.model import TxT
from txtlib.peers.clinical import Design
from txtlib.peers.networks import GeneSets
from txtlib.peers.txt import txt
from txtlib.predictions import Predictions
from txtlib.preprocess import Encoded, Preprocessor

RIDGE = 0.01  # on the weights of the clinical columns, in SDs: keeps those of a rare class finite


def txt_beside_clinic(seed: int = 0, gene_sets: GeneSets | None = None, columns=("Age",), **settings) -> "BesideClinic":
    """Return TxT for survival beside clinical ``columns``; ``settings`` are those of ``txtlib.peers.txt.txt``."""
    return BesideClinic(txt(seed, gene_sets, **settings), tuple(columns))


class BesideClinic:
    """A TxT and clinical columns in one survival model; see ``txt_beside_clinic``."""

    def __init__(self, method, columns: tuple[str, ...]):
        self.method, self.columns = method, columns

    def fit(self, train: Cohort, validation: Cohort) -> "BesideClinic":
        """Fit the clinical map, then train all of it; the validation part chooses the epoch.

        Raises CohortError without a survival task, or if a column is missing or empty.
        """
        train.outcome()  # says so where there is no survival task
        endpoint = train.survival_task.name
        known = self.method.preprocessor(train.with_tasks(endpoint))
        both = _WithColumns(known, Design(train, self.columns))
        network = _Both(self.method.network(train, known), endpoint, both.design.width)
        _begin(network, both.encode(train), endpoint)
        self.method.learn(network, train, validation, both)
        self.trained, self.capped = self.method.trained, self.method.capped
        return self

    def predict(self, cohort: Cohort) -> Predictions:
        """Answer survival for each patient; CohortError if a clinical column is missing."""
        return self.trained.predict(cohort)


class _WithColumns:
    """A preprocessor whose arrays hold clinical columns behind the genes: x (n, G + C)."""

    def __init__(self, genes: Preprocessor, design: Design):
        self.genes, self.design = genes, design
        self.tasks, self.outputs, self.edges = genes.tasks, genes.outputs, genes.edges
        self.scales, self.classes = genes.scales, genes.classes

    def with_tasks(self, *names: str) -> "_WithColumns":
        return _WithColumns(self.genes.with_tasks(*names), self.design)

    def expression(self, cohort: Cohort) -> np.ndarray:
        return np.hstack([self.genes.expression(cohort), self.design.table(cohort)])

    def encode(self, cohort: Cohort) -> Encoded:
        return replace(self.genes.encode(cohort), x=self.expression(cohort))


class _Both(nn.Module):
    """A TxT on the first G columns of x (B, G + C); the other C go to the one task's head as they are."""

    in_pieces = True

    def __init__(self, network: TxT, task: str, n_columns: int):
        super().__init__()
        self.network, self.task, self.n_columns = network, task, n_columns
        self.settings = network.settings
        last = [part for part in network.head(task).modules() if isinstance(part, nn.Linear)][-1]
        for part in (last.weight, last.bias):
            nn.init.zeros_(part)
        self.answer = _Answer(network.head(task), nn.Linear(n_columns, last.out_features))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {self.task: self.answer(self.features(x))}

    def features(self, x: Tensor) -> Tensor:
        """Map x (B, G + C) to what the head reads, (B, F + C)."""
        genes, columns = x.split([x.shape[1] - self.n_columns, self.n_columns], 1)
        return torch.cat([self.network.features(genes), columns], 1)

    def head(self, task: str) -> nn.Module:
        return self.answer

    def shared_parameters(self) -> list[nn.Parameter]:
        return self.network.shared_parameters()


class _Answer(nn.Module):
    """TxT's head on the genes' features, plus a linear map of the clinical columns."""

    def __init__(self, genes: nn.Module, clinic: nn.Linear):
        super().__init__()
        self.genes, self.clinic = genes, clinic

    def forward(self, features: Tensor) -> Tensor:
        genes, columns = features.split([features.shape[1] - self.clinic.in_features, self.clinic.in_features], 1)
        return self.genes(genes) + self.clinic(columns)


def _begin(network: _Both, encoded: Encoded, task: str) -> None:
    """Fit the clinical map alone, by N-MTLR's loss and a small ridge: a convex problem, so no seed plays a role."""
    clinic = network.answer.clinic
    columns = torch.from_numpy(encoded.x[:, -network.n_columns :])
    label = tuple(map(torch.from_numpy, encoded.labels[task]))
    for part in clinic.parameters():
        nn.init.zeros_(part)
    optimizer = torch.optim.LBFGS(clinic.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = task_loss("survival", clinic(columns), label) + RIDGE * clinic.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
