"""Which genes an answer of a trained network rests on, per patient: integrated gradients, and two cheaper looks.

Integrated gradients (Sundararajan et al. 2017, arXiv:1703.01365, by captum) share out the difference between the
answer for a patient and that for a baseline profile among the genes: along the straight line from one to the other,
each gene gets the mean slope of the answer times its own way. The shares add up to the difference, but for the error
of the steps, which is reported. They depend on the baseline, so it must be given: the training part's mean,
``preprocessor.expression(train).mean(0)``, or zeros. TxT is even in the whole profile, so from zeros the path begins
where all its slopes are 0.

Gradient times input takes the slope at the patient alone: one step of the same. Permutation importance asks without
slopes: how much do answers change if a gene's values are shuffled over the patients? All three describe the network,
and say nothing of the patients of another training.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import TqdmWarning

from txtlib.cohort import Cohort
from txtlib.gradients import TOKENS
from txtlib.interpret.attention import without_dropout
from txtlib.interpret.perturbation import changes, columns_of, decoded, scaled
from txtlib.training import Trained

with warnings.catch_warnings(action="ignore", category=TqdmWarning):  # captum asks for a widget that a page cannot have
    from captum.attr import IntegratedGradients


@dataclass(frozen=True)
class Attributed:
    """Each gene's share in one answer: values (n, G), in the answer's unit, for n samples and G genes.

    change (n,) is the answer for the patient minus that for the baseline, and gap (n,) the sum over genes minus
    change: 0 where the shares are complete.
    """

    genes: tuple[str, ...]
    samples: pd.Index
    values: np.ndarray
    change: np.ndarray
    gap: np.ndarray

    def ranking(self) -> pd.DataFrame:
        """Rank the genes by their mean share, sign aside: gene, importance (mean of |values|), mean, sd over patients.

        The highest comes first, ties by name. sd is NaN for one patient.
        """
        spread = self.values.std(0, ddof=1) if len(self.values) > 1 else np.nan
        found = {"importance": np.abs(self.values).mean(0), "mean": self.values.mean(0), "sd": spread}
        return _sorted(pd.DataFrame({"gene": self.genes, **found}))


def integrated_gradients(
    trained: Trained,
    cohort: Cohort,
    baseline: np.ndarray,
    task: str,
    output: str | None = None,
    horizon: float | None = None,
    n_steps: int = 50,
) -> Attributed:
    """Share one answer out among the genes, for each patient, from a baseline profile (G,) in scaled units.

    ``output`` is the class of a classification; a regression has one answer, its value in the label's unit, and
    survival has one, the risk at the ``horizon``. ``n_steps`` of a Gauss-Legendre sum: look at the gap, and take more
    if it is not small beside the change. A few patients or steps go through the network at a time. Raises ValueError
    for an answer that the network does not give, a missing horizon, a baseline of another shape or not finite, and
    fewer than one step.
    """
    if n_steps < 1:
        raise ValueError(f"n_steps is {n_steps}; integrated gradients need one step or more.")

    def one_piece(answer: Callable, x: Tensor, start: Tensor) -> Tensor:
        at_once = max(len(x), TOKENS // x.shape[1])
        return IntegratedGradients(answer).attribute(x, start, n_steps=n_steps, internal_batch_size=at_once)

    return _attributed(trained, cohort, baseline, (task, output), horizon, one_piece, n_steps)


def gradient_times_input(
    trained: Trained,
    cohort: Cohort,
    baseline: np.ndarray,
    task: str,
    output: str | None = None,
    horizon: float | None = None,
) -> Attributed:
    """Return the slope of the answer at each patient times the way from the baseline, (n, G).

    The cheap twin of ``integrated_gradients``, with the same arguments and errors; equal to it where the answer is
    linear. Elsewhere the gap says how far a straight line misses.
    """

    def one_piece(answer: Callable, x: Tensor, start: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(answer(x).sum(), x)
        return slope * (x.detach() - start)

    return _attributed(trained, cohort, baseline, (task, output), horizon, one_piece, 1)


def _attributed(trained, cohort, baseline, which, horizon, one_piece: Callable, steps: int) -> Attributed:
    """Run ``one_piece(answer, x, start)`` on a few patients at a time, so that steps x patients stay few."""
    trained, key = _asked(trained, *which)
    x = torch.from_numpy(scaled(trained, cohort))
    start = torch.from_numpy(_profile(baseline, x.shape[1]))[None]

    def answer(rows: Tensor) -> Tensor:
        return decoded(trained.network(rows), trained.preprocessor, horizon)[key]

    values, change = [], []
    with without_dropout(trained.network) as device:
        start = start.to(device)
        for some in x.to(device).split(max(1, TOKENS // x.shape[1] // steps)):
            values.append(one_piece(answer, some, start).double().cpu())
            with torch.no_grad():
                change.append((answer(some) - answer(start)).cpu())
    values, change = (torch.cat(pieces).numpy() for pieces in (values, change))
    return Attributed(trained.preprocessor.genes, cohort.samples, values, change, values.sum(1) - change)


def permutation_importance(
    trained: Trained,
    cohort: Cohort,
    task: str,
    output: str | None = None,
    horizon: float | None = None,
    genes: Sequence[str] | None = None,
    repeats: int = 5,
    seed: int = 0,
) -> pd.DataFrame:
    """Shuffle one gene (each of all, if none is named) over the n patients and look how one answer changes.

    Columns: gene, importance (mean |change| over patients and repeats), mean (of the change), sd (of the importance
    over repeats; NaN for one repeat). The slow obvious look: repeats x G' x n forward passes. It needs no baseline,
    and a gene that the network does not use has 0, but for rounding. Every gene gets orders of its own, from ``seed``.
    Raises ValueError as ``integrated_gradients`` does, for a gene that the network does not see, for fewer than one
    repeat, and for a single patient.
    """
    trained, key = _asked(trained, task, output)
    x, columns = scaled(trained, cohort), columns_of(trained.preprocessor, genes)
    if repeats < 1 or len(x) < 2:
        raise ValueError(f"Shuffling needs a repeat or more and two patients or more, not {repeats} and {len(x)}.")
    rng = np.random.default_rng(seed)
    old = np.broadcast_to(x[:, columns].T, (repeats, len(columns), len(x)))
    _, found = changes(trained, x, columns, rng.permuted(old, axis=2), horizon)
    each = np.abs(found[key]).mean(2)  # (repeats, G')
    columns = {
        "gene": np.array(trained.preprocessor.genes)[columns],
        "importance": each.mean(0),
        "mean": found[key].mean((0, 2)),
        "sd": each.std(0, ddof=1) if repeats > 1 else np.nan,
    }
    return _sorted(pd.DataFrame(columns))


def _sorted(found: pd.DataFrame) -> pd.DataFrame:
    return found.sort_values(["importance", "gene"], ascending=[False, True]).reset_index(drop=True)


def _profile(baseline: np.ndarray, n_genes: int) -> np.ndarray:
    values = np.asarray(baseline, np.float32)
    if values.shape != (n_genes,) or not np.isfinite(values).all():
        raise ValueError(
            f"The baseline is one finite number for each of the network's {n_genes} genes, in scaled units, not an "
            f"array of shape {values.shape}{'' if np.isfinite(values).all() else ' with numbers that are not finite'}."
        )
    return values


def _asked(trained: Trained, task: str, output: str | None) -> tuple[Trained, tuple[str, str]]:
    """Return the network with one task, and the name that ``decoded`` gives the answer; ValueError if it has none."""
    preprocessor = trained.preprocessor
    kinds = {each.name: each.kind for each in preprocessor.tasks}
    if task not in kinds:
        raise ValueError(f"The network has no task {task!r}; it has {', '.join(kinds)}.")
    one = {"survival": ("risk",), "regression": ("value",)}
    there = one.get(kinds[task]) or preprocessor.classes[task]
    output = there[0] if output is None and kinds[task] in one else output
    if output not in there:
        raise ValueError(f"Task {task!r} has no answer {output!r}; output is one of {', '.join(there)}.")
    return replace(trained, preprocessor=preprocessor.with_tasks(task)), (task, output)
