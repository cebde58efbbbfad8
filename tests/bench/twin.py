"""TxT's training step in plain vectorised PyTorch: the slow obvious twin that every fast path must equal.

The same network, the same parameters; attention is materialised and kept for the way back, and each task makes
one full backward pass. Nothing slows it on purpose. tests/test_gradients.py compares the numbers,
tests/bench/bench_speed.py the cost.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from txtlib.losses import task_loss


def plain_features(network, x: Tensor) -> Tensor:
    """What the heads read, (B, G * d) or (B, d)."""
    position = plain_position(network, x)
    hidden = network.vectors.expand(len(x), -1, -1)
    for block in network.blocks:
        hidden = plain_block(block, hidden, position)
    hidden = network.norm(hidden)
    return hidden.flatten(1) if network.readout == "flatten" else hidden.mean(1)


def plain_position(network, x: Tensor) -> Tensor:
    """(x_i u_q)(x_j u_k)^T of each head, (B, H, G, G)."""
    position = network.position
    q, k = (
        (x[..., None] * column[:, 0]).unflatten(2, (position.n_heads, -1)).transpose(1, 2)
        for column in (position.query, position.key)
    )
    return q @ k.mT


def plain_block(block, hidden: Tensor, position: Tensor) -> Tensor:
    normed = block.norm1(hidden)
    q, k, v = (
        F.linear(normed, layer.weight).unflatten(2, (block.n_heads, -1)).transpose(1, 2)
        for layer in (block.query, block.key, block.value)
    )
    weights = ((q @ k.mT + position) / math.sqrt(2 * q.shape[-1])).softmax(-1)  # (B, H, G, G)
    hidden = hidden + block.dropout(F.linear((weights @ v).transpose(1, 2).flatten(2), block.out.weight))
    wide = F.relu(F.linear(block.norm2(hidden), block.wide.weight))
    return hidden + block.dropout(F.linear(wide, block.narrow.weight))


def plain_gradients(network, x: Tensor, labels, kinds) -> tuple[Tensor, Tensor]:
    """As txtlib.gradients.task_gradients: losses (T,) and Jacobian (T, P); heads get their gradient."""
    features = plain_features(network, x)
    losses = [task_loss(kind, network.head(task)(features), labels[task]) for task, kind in kinds.items()]
    rows = [plain_gradient(network, task, loss) for task, loss in zip(kinds, losses, strict=True)]
    return torch.stack(losses).detach(), torch.stack(rows)


def plain_gradient(network, task: str, loss: Tensor) -> Tensor:
    shared, own = network.shared_parameters(), list(network.head(task).parameters())
    gradients = torch.autograd.grad(loss, [*shared, *own], retain_graph=True)
    for parameter, gradient in zip(own, gradients[len(shared) :], strict=True):
        parameter.grad = gradient
    return torch.cat([gradient.flatten() for gradient in gradients[: len(shared)]])
