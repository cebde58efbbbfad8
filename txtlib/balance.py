"""Ways to join the gradients of several tasks, from a plain sum to projections: the ladder of chapter 03.

Each is called as ``combine(jacobian, losses, generator)`` once a step and returns the gradient of the shared
parameters, (P,): jacobian (T, P) holds the tasks' gradients, losses (T,) their losses, and generator is for those
that draw. Weighted sums keep their weights between steps.
"""

import torch
from torch import Tensor

from txtlib.pcgrad import pcgrad


def plain_sum(jacobian: Tensor, losses: Tensor, generator: torch.Generator) -> Tensor:
    """Add the gradients."""
    return jacobian.sum(0)


def surgery(jacobian: Tensor, losses: Tensor, generator: torch.Generator) -> Tensor:
    """Project conflicts away (PCGrad), then add."""
    return pcgrad(jacobian, generator)


def upgrad(jacobian: Tensor, losses: Tensor, generator: torch.Generator) -> Tensor:
    """Project each gradient onto the cone in which no task gets worse, then add (UPGrad, Quinton 2024), by torchjd."""
    from torchjd.aggregation import UPGrad  # an optional dependency

    return UPGrad()(jacobian) * len(jacobian)  # torchjd takes the mean; a sum compares with the others


class UncertaintyWeights:
    """Weights exp(-s_t), s_t learned from sum_t exp(-s_t) L_t + s_t (Kendall et al. 2018, arXiv:1705.07115)."""

    def __init__(self, tasks: int, learning_rate: float = 0.01):
        self.log_variance = torch.zeros(tasks)
        self.learning_rate = learning_rate

    def __call__(self, jacobian: Tensor, losses: Tensor, generator: torch.Generator) -> Tensor:
        """Add the weighted gradients, then move the weights one step."""
        weights = torch.exp(-self.log_variance)
        self.log_variance = self.log_variance - self.learning_rate * (1 - weights * losses.cpu())
        return weights.to(jacobian) @ jacobian


class GradNorm:
    """Weights that let all tasks train at one pace (Chen et al. 2018, arXiv:1711.02257).

    Kept as logarithms, so positive; they sum to T after each step; the losses that the pace refers to are those
    of a task's first batch with a label, fixed once.
    """

    def __init__(self, tasks: int, learning_rate: float = 0.01, alpha: float = 1.5):
        self.log_weights = torch.zeros(tasks)
        self.first_losses = torch.zeros(0)
        self.learning_rate, self.alpha = learning_rate, alpha

    def __call__(self, jacobian: Tensor, losses: Tensor, generator: torch.Generator) -> Tensor:
        """Add the weighted gradients, then move the weights one step."""
        losses, weights = losses.cpu(), self.log_weights.exp()
        if not len(self.first_losses):
            self.first_losses = torch.zeros_like(losses)
        self.first_losses = torch.where(
            self.first_losses > 0, self.first_losses, losses
        )  # 0: no label in the batch yet
        norms = weights * jacobian.norm(dim=1).cpu()
        pace = torch.where(self.first_losses > 0, losses / self.first_losses, torch.ones(()))
        target = norms.mean() * (pace / pace.mean().clamp(min=1e-8)) ** self.alpha
        moved = self.log_weights - self.learning_rate * torch.sign(norms - target) * norms / norms.mean().clamp(
            min=1e-8
        )
        self.log_weights = moved - torch.logsumexp(moved, 0) + torch.log(torch.tensor(float(len(moved))))
        return weights.to(jacobian) @ jacobian
