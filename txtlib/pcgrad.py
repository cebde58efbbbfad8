"""Gradient surgery for tasks that pull against each other (PCGrad, Yu et al. 2020, arXiv:2001.06782)."""

import torch
from torch import Tensor


def pcgrad(jacobian: Tensor, generator: torch.Generator) -> Tensor:
    """Combine the T task gradients (T, P) of the shared parameters into one, (P,).

    Each task's gradient visits the others in a fresh random order drawn from ``generator`` (on the CPU) and
    loses its component along each one that it conflicts with; then all are added. What is left of g_i is
    always a combination of the rows, so the T x T Gram matrix is all that the visits need.
    """
    gram = (jacobian @ jacobian.T).double().cpu()  # (T, T): g_i . g_j
    kept = [_project(i, gram, generator) for i in range(len(gram))]
    return torch.stack(kept).sum(0).to(jacobian) @ jacobian


def _project(i: int, gram: Tensor, generator: torch.Generator) -> Tensor:
    """Return the weights (T,) of the rows that make up task i's gradient after its visits."""
    weights = torch.zeros(len(gram), dtype=gram.dtype)
    weights[i] = 1.0
    for j in torch.randperm(len(gram), generator=generator).tolist():
        conflict = weights @ gram[:, j]
        if j != i and conflict < 0:
            weights[j] -= conflict / gram[j, j]
    return weights


def gradient_cosines(jacobian: Tensor) -> Tensor:
    """Return the cosines between the T task gradients (T, P), as (T, T); below 0 two tasks are in conflict."""
    unit = torch.nn.functional.normalize(jacobian, dim=1)
    return unit @ unit.T
