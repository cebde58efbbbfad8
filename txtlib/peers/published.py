"""TxT as the article's released code makes it: each finding in that code is a switch, alone or with others.

FINDINGS says, for D1 to D8, what the released code does and what this book does instead. All of it is written anew
here, and nowhere else in the library. What is not listed stays as in the rest of the book: missing labels are masked,
the likelihood is stable, a training that is no longer finite ends with an error.
"""

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from sksurv.metrics import integrated_brier_score
from sksurv.util import Surv
from torch import Tensor, nn

from txtlib.cohort import KINDS, Cohort
from txtlib.pcgrad import pcgrad
from txtlib.peers.networks import GeneSets, NetworkMethod
from txtlib.peers.txt import txt
from txtlib.predictions import Predictions
from txtlib.preprocess import Preprocessor

MARGIN = 1.1  # the released code's time points reach so many times the longest follow-up
LEAST = 1e-300  # survival below this counts as this, so that a hazard stays a number


class Finding(NamedTuple):
    """What the released code does, and what this book does: a sentence each."""

    released: str
    ours: str


FINDINGS = {
    "D1": Finding(
        "The released code keeps the epoch, and stops, by the validation loss of its first task alone, tasks being "
        "ordered regression, classification, survival: where age is learned, that is age.",
        "The epoch is chosen by the survival task's loss, or by what the call names: another task, or the mean of all.",
    ),
    "D2": Finding(
        "The released code learns years and millimetres as they are, so their squared errors outweigh other losses.",
        "Regression targets are scaled on the training part; answers come back in the label's unit.",
    ),
    "D3": Finding(
        "The released code projects the gradients of shared layers and heads as one vector, so the heads' length, "
        "which no other task's gradient meets, makes the correction smaller; and each one lengthens a head's gradient.",
        "Only the gradients of shared parameters are projected; each head follows its own task.",
    ),
    "D4": Finding(
        "The released code shuffles the tasks once a step, and each task's gradient visits all of them, its own too, "
        "in that one order.",
        "Each task's gradient visits the others in an order of its own.",
    ),
    "D5": Finding(
        "The released code ranks patients by cumulative hazards added up over all time cells, those after the last "
        "follow-up too; a cell's hazard is its probability divided by that of outliving it.",
        "Patients are ranked by 1 - S at a horizon that is declared beforehand.",
    ),
    "D6": Finding(
        "The released code weights the Brier score for censoring by the test patients themselves, and averages it "
        "over the time points between their own shortest and longest follow-up.",
        "The weights come from the training part, and the horizon is the same for all methods.",
    ),
    "D7": Finding(
        "The released code makes time points and class codes from all patients, before the split: even steps up to "
        "1.1 times the longest follow-up.",
        "The time grid comes from the training part; classes are declared with the cohort, so their codes are too.",
    ),
    "D8": Finding(
        "The released code gives a time to the cell whose left edge is nearest: times in the later half of a cell go "
        "one cell late.",
        "A time belongs to the cell that it falls into.",
    ),
}


def as_published(
    seed: int = 0,
    gene_sets: GeneSets | None = None,
    switches: Collection[str] = tuple(FINDINGS),
    follow_up: float | None = None,
    n_times: int = 64,
    **settings,
) -> "AsPublished":
    """Return TxT with the released code's behaviour in the ``switches``, keys of FINDINGS; with none it is ``txt``.

    ``settings`` are those of ``txt``; a switch comes before the setting that it is about (D1: select; D3, D4:
    combine; D7: grid). D7 needs ``follow_up``, the longest time over all patients, in the cohort's unit; its
    ``n_times`` points include 0, so there is one edge less. D6 changes no answer, it is a way to score one:
    ``self_weighted_brier``. Raises ValueError for an unknown switch, and for D7 without a follow-up above 0 or with
    fewer than two points.
    """
    unknown = [switch for switch in switches if switch not in FINDINGS]
    if unknown:
        raise ValueError(f"switches are of {', '.join(FINDINGS)}; {unknown[0]!r} is none of them.")
    if "D7" in switches and not (follow_up and 0 < follow_up < np.inf):
        raise ValueError(
            f"follow_up is {follow_up}; with D7 it is the longest time over all patients: give it, or leave D7 out."
        )
    if "D7" in switches and n_times < 2:
        raise ValueError(f"n_times is {n_times}; with D7 it counts time 0 too, so it is 2 or more.")
    return AsPublished(txt(seed, gene_sets, n_times=n_times, **settings), set(switches), follow_up, n_times)


class AsPublished:
    """A network method with some of the released code's behaviour; see ``as_published``."""

    def __init__(self, method: NetworkMethod, switches: set[str], follow_up: float | None, n_times: int):
        self.method, self.switches, self.follow_up, self.n_times = method, switches, follow_up, n_times

    def fit(self, train: Cohort, validation: Cohort) -> "AsPublished":
        """Fit as the method does, but for the switches; ValueError if a patient is followed beyond ``follow_up``."""
        known = self._preprocessor(train)
        network = self.method.network(train, known)
        labelled = replace(known, edges=rounding_edges(known.edges)) if "D8" in self.switches else known
        self.method.learn(network, train, validation, labelled, **self._training(network, known))
        self.trained = replace(self.method.trained, preprocessor=known)  # curves are read at the true edges
        self.capped = self.method.capped
        return self

    def predict(self, cohort: Cohort) -> Predictions:
        """Answer as the method does; under D5 ranked by ``summed_hazard``."""
        answer = self.trained.predict(cohort)
        if "D5" in self.switches and answer.survival is not None:
            return replace(answer, score=summed_hazard(answer.survival))
        return answer

    def _preprocessor(self, train: Cohort) -> Preprocessor:
        known = self.method.preprocessor(train)
        if "D2" in self.switches:
            known = replace(known, scales=dict.fromkeys(known.scales, (0.0, 1.0)))
        if "D7" in self.switches and len(known.edges):
            self._check_follow_up(train)
            known = replace(known, edges=np.linspace(0, MARGIN * self.follow_up, self.n_times)[1:])
        return known

    def _check_follow_up(self, train: Cohort) -> None:
        longest = np.nanmax(train.outcome()[0])
        if longest > self.follow_up:
            raise ValueError(
                f"{train.name}: a training patient is followed for {longest:g}, longer than follow_up "
                f"{self.follow_up:g}, which is the longest time over all patients, in the cohort's unit."
            )

    def _training(self, network: nn.Module, known: Preprocessor) -> dict:
        """Return the arguments of ``txtlib.training.fit`` that the switches change."""
        changed = {}
        if "D1" in self.switches:
            changed["select"] = min(known.tasks, key=lambda task: KINDS.index(task.kind)).name
        project = one_order if "D4" in self.switches else pcgrad
        if "D3" in self.switches:
            changed["combine"] = WithHeads([network.head(task.name) for task in known.tasks], project)
        elif "D4" in self.switches:
            changed["combine"] = lambda jacobian, losses, generator: project(jacobian, generator)
        return changed


# --- D3, D4: how gradients are joined -----------------------------------------------------------------------------


class WithHeads:
    """Joins the tasks' gradients of shared parameters and heads as one vector each: a combine of txtlib/balance.py.

    A head's gradient is a direction that no other task's gradient has a part in, so its length is all that the
    projections need; and what they do to it is to stretch it. ``heads`` are in the order of the rows.
    """

    def __init__(self, heads: list[nn.Module], project: Callable[[Tensor, torch.Generator], Tensor]):
        self.heads, self.project = heads, project

    def __call__(self, jacobian: Tensor, losses: Tensor, generator: torch.Generator) -> Tensor:
        """Join (T, P) to (P,), and stretch the gradient that each head holds."""
        lengths = torch.stack([_length(head) for head in self.heads])  # (T,)
        joined = self.project(torch.cat([jacobian, lengths.diag()], 1), generator)
        shared, own = joined.split([jacobian.shape[1], len(lengths)])
        for head, length, stretched in zip(self.heads, lengths, own, strict=True):
            if length > 0:  # 0: no label in the batch
                for parameter in head.parameters():
                    parameter.grad *= stretched / length
        return shared


def _length(head: nn.Module) -> Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in head.parameters()]).norm()


def one_order(jacobian: Tensor, generator: torch.Generator) -> Tensor:
    """Combine the T task gradients (T, P) into (P,) as PCGrad does, but all tasks visit all, in one random order.

    A task that visits its own gradient may lose by it too, after visits to two others or more.
    """
    gram = (jacobian @ jacobian.T).double().cpu()  # (T, T)
    weights = torch.eye(len(gram), dtype=gram.dtype)  # row i: the rows that make up task i's gradient after its visits
    for j in torch.randperm(len(gram), generator=generator).tolist():
        conflict = weights @ gram[:, j]  # (T,)
        weights[:, j] -= torch.where(conflict < 0, conflict / gram[j, j], 0.0)
    return weights.sum(0).to(jacobian) @ jacobian


# --- D5, D6: how answers are read and judged ----------------------------------------------------------------------


def summed_hazard(curves: np.ndarray) -> np.ndarray:
    """Return cumulative hazards (n,) of curves (n, K), added up over all K cells: higher is worse.

    The hazard of a cell is f / S, the probability of the cell over that of outliving it.
    """
    mass = -np.diff(curves, axis=1, prepend=1.0)  # (n, K)
    return (mass / np.maximum(curves, LEAST)).cumsum(1).sum(1)


def self_weighted_brier(answer: Predictions, test: Cohort) -> float:
    """Return the integrated Brier score of an answer's curves with the test part as its own censoring reference.

    It is averaged over 0 and the edges, as far as they lie within the follow-up of these patients. NaN where fewer
    than two of them do.
    """
    time, event = test.outcome()
    known = ~np.isnan(event)
    outcome = Surv.from_arrays(event[known] == 1, time[known])
    times = np.append(0.0, answer.edges)  # (K + 1,)
    curves = np.pad(answer.survival[known], ((0, 0), (1, 0)), constant_values=1.0)
    within = (times >= time[known].min()) & (times < time[known].max())
    if within.sum() < 2:
        return np.nan
    return float(integrated_brier_score(outcome, outcome, curves[:, within], times[within]))


# --- D8: which cell a time belongs to -----------------------------------------------------------------------------


def rounding_edges(edges: np.ndarray) -> np.ndarray:
    """Return edges (K,) whose cells hold the times that are nearest to the left ends of the cells of ``edges`` (K,).

    Halfway goes to the earlier one; no time goes to the open cell.
    """
    left = np.append(0.0, edges[:-1])
    return np.append(np.nextafter((left[1:] + left[:-1]) / 2, np.inf), np.inf)
