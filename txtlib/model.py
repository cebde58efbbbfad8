"""The Transcriptome Transformer (Koo et al. 2025, bbaf628): genes are tokens, expression acts as their position.

Query gene i looks at key gene j of patient n with the score

    [(h_ni W_q)(h_nj W_k)^T + (x_ni u_q)(x_nj u_k)^T] / sqrt(2 d_head)

Per head the second term is exactly c_h x_ni x_nj, one number c_h. So a layer is plain scaled-dot-product
attention with one more column on queries and keys, and no (B, H, G, G) tensor is needed in training.
"""

import math
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from txtlib.products import Linear, attend


class TxT(nn.Module):
    """A set of G genes with their expression in, one output per task out.

    ``outputs`` maps a task to its number of outputs: 1 for a regression, C for C classes, K for survival on K
    time points. ``vectors`` (G, width) are the gene vectors to start from, e.g. node2vec on a protein network;
    without them they are drawn at random. ``readout`` is "flatten" or "mean" over genes. All initial numbers
    come from ``seed``, the encoder's whatever the tasks. Dropout sits on each block's two outputs and in the heads;
    the released code also drops attention weights, which would need them in memory.
    """

    in_pieces = True  # a patient's vectors do not depend on the rest of the batch (txtlib/gradients.py)

    def __init__(
        self,
        n_genes: int,
        outputs: dict[str, int],
        width: int = 64,
        layers: int = 8,
        heads: int = 4,
        dropout: float = 0.1,
        readout: str = "flatten",
        vectors: Tensor | None = None,
        seed: int = 0,
    ):
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of heads {heads}; choose e.g. width {heads * 16}.")
        if readout not in ("flatten", "mean"):
            raise ValueError(f"readout is 'flatten' or 'mean', not {readout!r}.")
        self.settings = dict(
            n_genes=n_genes, outputs=outputs, width=width, layers=layers, heads=heads, dropout=dropout, readout=readout
        )
        self.readout = readout
        features = n_genes * width if readout == "flatten" else width
        own = torch.Generator().manual_seed(seed)  # heads come last, so the same encoder starts with any tasks
        with torch.random.fork_rng():  # torch's layers draw from the global generator: leave it as it was
            torch.manual_seed(seed)
            self.vectors = nn.Parameter(torch.randn(n_genes, width, generator=own))  # (G, d)
            self.position = Position(width, heads)
            self.value = None  # variants may add a module of x to the tokens (txtlib/variants.py); TxT does not
            self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
            self.norm = nn.LayerNorm(width)
            self.heads = nn.ModuleDict({_key(task): head(features, size, dropout) for task, size in outputs.items()})
            for name, parameter in self.named_parameters():
                if name != "vectors" and parameter.dim() > 1:
                    nn.init.xavier_uniform_(parameter, generator=own)
        if vectors is not None:
            self.vectors.data.copy_(vectors)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map expression x (B, G) to {task: (B, outputs)}."""
        features = self.features(x)
        return {task: self.head(task)(features) for task in self.settings["outputs"]}

    def features(self, x: Tensor) -> Tensor:
        """Map expression x (B, G) to what the heads read, (B, G * d), or (B, d) under the readout "mean"."""
        hidden = self.encode(x)  # (B, G, d)
        return hidden.flatten(1) if self.readout == "flatten" else hidden.mean(1)

    def encode(self, x: Tensor) -> Tensor:
        """Map expression x (B, G) to each gene's vector in each patient's context, (B, G, d)."""
        return self.norm(self._hidden(x, len(self.blocks)))

    def attention(self, x: Tensor, layer: int) -> Tensor:
        """Return the attention of layer 0 <= layer < L in each head, (B, H, G, G): rows are queries, each sums to 1."""
        q, k, _ = self.blocks[layer].project(self._hidden(x, layer), *self.position(x, layer))
        return (q @ k.transpose(-1, -2)).softmax(-1)

    def attentions(self, x: Tensor, layer: int) -> Iterator[Tensor]:
        """Yield the attention of one patient after another, (H, G, G), so that a cohort's is never in memory."""
        return (self.attention(patient[None], layer)[0] for patient in x)

    def _hidden(self, x: Tensor, layer: int) -> Tensor:
        """Return the vectors that enter a layer, (B, G, d): at the first one they are equal for all patients."""
        hidden = self.vectors.expand(len(x), -1, -1)
        if self.value is not None:
            hidden = hidden + self.value(x[..., None])
        for number, block in enumerate(self.blocks[:layer]):
            hidden = block(hidden, *self.position(x, number))
        return hidden

    def head(self, task: str) -> nn.Module:
        """Return the layers of one task."""
        return self.heads[_key(task)]

    def shared_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that all tasks share: everything but the heads."""
        return [parameter for name, parameter in self.named_parameters() if not name.startswith("heads.")]


def _key(task: str) -> str:
    return "head_" + task.replace(".", "_dot_")  # torch has no module called "Tumor.Size", or "type"


class Position(nn.Module):
    """Expression as position: two maps 1 -> d, u_q and u_k, of which each head keeps one number c_h."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.query = nn.Parameter(torch.empty(width, 1))
        self.key = nn.Parameter(torch.empty(width, 1))
        self.n_heads = heads

    def forward(self, x: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Return c_h x_i for the queries and x_j for the keys, each (B, H, G, 1): their products are c_h x_i x_j.

        All layers share them, as in the released code, so ``layer`` plays no role here.
        """
        x = x[:, None, :, None].expand(-1, self.n_heads, -1, 1)
        return self.strength().view(-1, 1, 1) * x, x

    def strength(self) -> Tensor:
        """Return c (H,), the number per head that is left of u_q and u_k."""
        product = (self.query * self.key).view(self.n_heads, -1)  # (H, d_head)
        return product.sum(1) / math.sqrt(2 * product.shape[1])


class Block(nn.Module):
    """A pre-norm encoder layer without biases: attention, then a feed-forward of 4 d units, each added to its input."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.n_heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value, self.out = (Linear(width, width) for _ in range(4))
        self.wide, self.narrow = Linear(width, 4 * width), Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor, query_position: Tensor, key_position: Tensor) -> Tensor:
        """Map hidden (B, G, d) to (B, G, d); the positions are m more columns of queries and keys, (B, H, G, m)."""
        mixed = attend(*self.project(hidden, query_position, key_position))  # (B, H, G, d_head)
        mixed = mixed.transpose(1, 2).flatten(2)  # (B, G, d)
        hidden = hidden + self.dropout(self.out(mixed))
        return hidden + self.dropout(self.narrow(F.relu(self.wide(self.norm2(hidden)))))

    def project(self, hidden: Tensor, query_position: Tensor, key_position: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries and keys (B, H, G, d_head + m), whose dot products are the whole score, and values."""
        hidden = self.norm1(hidden)
        q, k, v = (  # (B, H, G, d_head)
            layer(hidden).unflatten(2, (self.n_heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        q = torch.cat([q / math.sqrt(2 * q.shape[-1]), query_position], -1)
        return q, torch.cat([k, key_position], -1), v


def head(features: int, outputs: int, dropout: float) -> nn.Sequential:
    """Build a task's own layers: 128 and 64 units with batch norm, LeakyReLU(0.2) and dropout, then the outputs."""
    sizes, layers = (features, 128, 64), []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.LeakyReLU(0.2), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], outputs))
