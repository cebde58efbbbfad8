"""Other ways for expression to enter, named apart from TxT: arms of the benchmark and of chapter 02."""

import math

import torch
from torch import Tensor, nn

from txtlib.hierarchical import attend_in_sets
from txtlib.model import Position, TxT


def variant(variant: str, seed: int = 0, sets: list[list[int]] | None = None, **settings) -> TxT:
    """Build a TxT in which expression enters in another way; ``settings`` are those of TxT.

    product: as in TxT. full rank: a network of x gives position vectors, which have projections of their own.
    fourier: the same on sines and cosines of x. per layer: each layer has its own c_h. value token: a network of
    x is added to the token too. none: expression enters nowhere, a control that must answer the same for
    everybody. All other initial numbers are those of the TxT of the same seed. With ``sets`` of columns, genes attend
    within them only, whatever the variant (txtlib/hierarchical.py). Raises ValueError.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant is one of {', '.join(VARIANTS)}, not {variant!r}.")
    network = TxT(seed=seed, **settings)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        VARIANTS[variant](network)
        if sets is not None:
            attend_in_sets(network, sets)
    network.settings["variant"] = variant
    return network


class FeaturePosition(nn.Module):
    """Position vectors made of features of x, projected to queries and keys: TUPE's form at full rank."""

    def __init__(self, features: nn.Module, size: int, width: int, heads: int):
        super().__init__()
        self.features, self.n_heads = features, heads
        self.query, self.key = (nn.Linear(size, width, bias=False) for _ in range(2))

    def forward(self, x: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Map x (B, G) to columns for queries and keys, (B, H, G, d_head) each; all layers share them."""
        features = self.features(x[..., None])  # (B, G, f)
        q, k = (to(features).unflatten(2, (self.n_heads, -1)).transpose(1, 2) for to in (self.query, self.key))
        return q / math.sqrt(2 * q.shape[-1]), k


class PositionPerLayer(nn.Module):
    """A Position for each layer."""

    def __init__(self, width: int, heads: int, layers: int):
        super().__init__()
        self.each = nn.ModuleList(Position(width, heads) for _ in range(layers))
        for parameter in self.parameters():
            nn.init.xavier_uniform_(parameter)

    def forward(self, x: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Return the columns of a layer's own Position."""
        return self.each[layer](x, layer)


class NoPosition(nn.Module):
    """No columns at all."""

    def __init__(self, heads: int):
        super().__init__()
        self.n_heads = heads

    def forward(self, x: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Return two empty columns, (B, H, G, 0)."""
        nothing = x.new_empty(len(x), self.n_heads, x.shape[1], 0)
        return nothing, nothing


class Fourier(nn.Module):
    """Sines and cosines of pi x 2^k for k = 0..3."""

    size = 8

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, G, 1) to (B, G, 8)."""
        angles = x * math.pi * 2.0 ** torch.arange(self.size // 2, device=x.device)
        return torch.cat([angles.sin(), angles.cos()], -1)


def _value_network(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(1, width), nn.GELU(), nn.Linear(width, width))


def _shape(network: TxT) -> tuple[int, int]:
    return network.settings["width"], network.settings["heads"]


def _full_rank(network: TxT) -> None:
    width, heads = _shape(network)
    network.position = FeaturePosition(_value_network(width), width, width, heads)


def _fourier(network: TxT) -> None:
    network.position = FeaturePosition(Fourier(), Fourier.size, *_shape(network))


def _per_layer(network: TxT) -> None:
    network.position = PositionPerLayer(*_shape(network), network.settings["layers"])


def _value_token(network: TxT) -> None:
    network.value = _value_network(network.settings["width"])


def _none(network: TxT) -> None:
    network.position = NoPosition(network.settings["heads"])


VARIANTS = {
    "product": lambda network: None,
    "per layer": _per_layer,
    "full rank": _full_rank,
    "fourier": _fourier,
    "value token": _value_token,
    "none": _none,
}
