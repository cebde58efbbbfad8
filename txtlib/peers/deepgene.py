"""DeepGene-like: convolutions along the genes, then a small transformer, for expression read as one long signal.

After Khan and Lee 2023 (DeepGene Transformer, Expert Systems with Applications; arXiv:2108.11833), of which only the
abstract was read; no code was found. So this is a reconstruction, hence "-like". Known is that convolutions take the
place of positional encoding before multi-head self-attention, and that genes are not selected first. Sizes, depths,
pooling and the linear layer that answers each task are ours, as are the split and the choice of the epoch.

A convolution sees neighbours, but genes come in no natural order. ``order`` sets one, and "shuffled" is the control.
Since the mean over positions is taken at the end, a gene is known by its neighbours only.
"""

from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from txtlib.peers.gene_order import clustered
from txtlib.peers.networks import GeneSets, NetworkMethod, Shared
from txtlib.preprocess import Preprocessor

SPACE = {
    "learning_rate": [3e-4, 1e-3, 1e-4],
    "dropout": [0.2, 0.4, 0.1],
    "batch_size": [32, 16, 64],
    "weight_decay": [0.0, 1.0, 0.1],
}
DEFAULTS = {"scaler": "standard", "learning_rate": 3e-4, "batch_size": 32, "epochs": 200, "patience": 30}
WIDTH, HEADS, BLOCKS, HIDDEN, FEATURES = 64, 8, 2, 128, 128  # of the transformer, and what the heads of tasks read


def deepgene(seed: int = 0, gene_sets: GeneSets | None = None, **settings) -> NetworkMethod:
    """Return DeepGene-like on all tasks, with the settings of a ``NetworkMethod``, ``order`` and ``dropout``.

    order is "given" (the most variable gene first), "clustered" (correlated genes side by side, by the training part)
    or "shuffled" (by the seed). Fitting raises ValueError for any other.
    """
    return NetworkMethod(_build, seed, gene_sets, **{**DEFAULTS, **settings})


def _build(x, preprocessor: Preprocessor, gene_sets: GeneSets, seed: int, order: str = "given", **settings):
    if order not in ORDERS:
        raise ValueError(f"order is one of {', '.join(ORDERS)}, not {order!r}.")
    body = partial(DeepGene, ORDERS[order](x, seed), **settings)
    return Shared(body, FEATURES, preprocessor.outputs, nn.Linear, seed)


ORDERS = {
    "given": lambda x, seed: np.arange(x.shape[1]),
    "clustered": lambda x, seed: clustered(x),
    "shuffled": lambda x, seed: np.random.default_rng(seed).permutation(x.shape[1]),
}


class DeepGene(nn.Module):
    """The layers that all tasks share; ``order`` (G,) names the column that comes first, second, and so on."""

    def __init__(self, order: np.ndarray, dropout: float = 0.2):
        super().__init__()
        self.register_buffer("order", torch.from_numpy(order).long())
        self.stem = nn.Sequential(*_convolution(1, WIDTH // 2), *_convolution(WIDTH // 2, WIDTH))
        self.blocks = nn.Sequential(
            *(nn.TransformerEncoderLayer(WIDTH, HEADS, HIDDEN, dropout, batch_first=True) for _ in range(BLOCKS))
        )
        self.dense = nn.Sequential(nn.Linear(WIDTH, FEATURES), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """Map expression x (B, G) to what the heads read, (B, 128)."""
        signal = self.stem(x[:, None, self.order])  # (B, 64, L), a position for 16 genes
        return self.dense(self.blocks(signal.mT).mean(1))


def _convolution(inputs: int, outputs: int) -> list[nn.Module]:
    """Build layers from (B, inputs, L) to (B, outputs, L / 4), rounded up: even one gene is long enough."""
    return [nn.Conv1d(inputs, outputs, 7, stride=4, padding=3), nn.BatchNorm1d(outputs), nn.ReLU()]
