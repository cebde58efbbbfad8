"""The gradients of all tasks in one training step: each head's own, and the Jacobian of what the tasks share.

The heads are differentiated task by task down to the features that they read; the encoder, where the work is,
then carries all tasks' gradients back together, some patients at a time. That is for networks that say
``in_pieces``, as TxT does; any other sees its batch whole, and its tasks go back one after another.
"""

import torch
from torch import Tensor

from txtlib.losses import task_loss
from txtlib.parallel import added, gathered, own_randomness, own_rows

PRECISIONS = ("float32", "bfloat16")
TOKENS = 4000  # genes x patients that go through the encoder together on a CPU: their gradients stay in the cache

Labels = dict[str, tuple[Tensor, ...]]


def task_gradients(
    network: torch.nn.Module, x: Tensor, labels: Labels, kinds: dict[str, str], precision: str = "float32"
) -> tuple[Tensor, Tensor]:
    """Return each task's loss, (T,), and its gradient of the shared parameters, (T, P); heads get their ``.grad``.

    x (B, G) and labels are one batch; kinds maps task to kind. precision "bfloat16" runs the encoder under
    autocast, the heads and losses stay in float32.
    """
    shared, rows = network.shared_parameters(), own_rows(len(x)) if in_pieces(network) else slice(0, len(x))
    with own_randomness():
        pieces = _pieces(network, x[rows], precision)
        own = torch.cat([piece.detach() for piece in pieces]) if pieces else _features(network, x[:1], precision)[:0]
    features = gathered(own.detach(), len(x)).requires_grad_()
    answers = [_head_gradient(network.head(task), kind, features, labels[task]) for task, kind in kinds.items()]
    losses, seeds = (torch.stack(each) for each in zip(*answers, strict=True))  # (T,), (T, B, F)
    some = seeds[:, rows].split([len(piece) for piece in pieces], 1)
    jacobian = losses.new_zeros(len(kinds), sum(parameter.numel() for parameter in shared))
    for piece, seed in zip(pieces, some, strict=True):
        jacobian += encoder_jacobian(piece, shared, seed, together=in_pieces(network) and x.device.type == "cpu")
    return losses, added(jacobian)


def in_pieces(network: torch.nn.Module) -> bool:
    """Tell whether a network's encoder may see the patients of a batch apart, and all tasks' gradients at once."""
    return getattr(network, "in_pieces", False)


def set_shared(network: torch.nn.Module, combined: Tensor) -> None:
    """Give the shared parameters their part of one joined gradient, (P,), as ``.grad``."""
    shared = network.shared_parameters()
    pieces = combined.split([parameter.numel() for parameter in shared])
    for parameter, gradient in zip(shared, pieces, strict=True):
        parameter.grad = gradient.view_as(parameter)


def encoder_jacobian(features: Tensor, shared: list[Tensor], seeds: Tensor, together: bool) -> Tensor:
    """Return the gradients of T tasks, (T, P), from those of the features (B, F): seeds (T, B, F).

    Tasks that do not go ``together`` go one after another: fused kernels of a GPU know one gradient at a time.
    """
    if not shared:
        return seeds.new_zeros(len(seeds), 0)

    def gradient(seed: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(features, shared, seed, retain_graph=True)

    if together and len(seeds) > 1:
        found = torch.func.vmap(gradient)(seeds)
    else:
        found = [torch.stack(each) for each in zip(*map(gradient, seeds), strict=True)]
    return torch.cat([each.flatten(1) for each in found], 1)


def _pieces(network: torch.nn.Module, x: Tensor, precision: str) -> list[Tensor]:
    """Return the features of x (B, G), some patients at a time; nothing of nobody."""
    size = _patients_at_once(x) if in_pieces(network) else len(x)
    return [_features(network, some, precision) for some in x.split(size) if len(some)]


def _features(network: torch.nn.Module, x: Tensor, precision: str) -> Tensor:
    with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        return network.features(x).to(x.dtype)


def _head_gradient(head: torch.nn.Module, kind: str, features: Tensor, label: tuple[Tensor, ...]):
    """Set the gradients of a task's head; return its loss and the gradient of the features, (B, F)."""
    own = list(head.parameters())
    loss = task_loss(kind, head(features), label)
    seed, *gradients = torch.autograd.grad(loss, [features, *own])
    for parameter, gradient in zip(own, gradients, strict=True):
        parameter.grad = gradient
    return loss.detach(), seed


def _patients_at_once(x: Tensor) -> int:
    return max(1, TOKENS // x.shape[1]) if x.device.type == "cpu" else len(x)
