"""SurvConvMixer-like: a ConvMixer on a picture in which every patch is a pathway.

After Wang et al. 2024 (SurvConvMixer, BMC Bioinformatics: ConvMixer on pathway-customised gene expression images),
reconstructed from the abstract, in our own words and code; no code of theirs was found. What the abstract leaves open
is our choice: the order of the genes, the size of the tiles, all sizes and the training. The ConvMixer is that of
Trockman and Kolter 2022 (arXiv 2201.09792). The authors ask for survival at a short, a middle and a long term, which
leaves out patients censored before it; here survival is learned as all networks of the book learn it, from everybody.

The first convolution has the size of a tile and steps from tile to tile, with the same weights for each. So the order
of the genes within a tile only says which genes of different pathways share a weight; and that a patch is this
pathway and not another, the network knows from its neighbours and the picture's border alone.
"""

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
from torch import Tensor, nn

from txtlib.peers.fmap import Picture, linear_head
from txtlib.peers.gene_order import clustered
from txtlib.peers.networks import GeneSets, NetworkMethod, Shared
from txtlib.preprocess import Preprocessor

SPACE = {
    "depth": [4, 2, 1],
    "learning_rate": [0.001, 0.003, 0.0003],
    "scaler": ["standard", "minmax", "rank"],
    "dim": [128, 64, 32],
    "dropout": [0.2, 0.5, 0.0],
    "kernel": [5, 3, 7],
    "weight_decay": [0.0001, 1.0, 0.1],
}
DEFAULTS = {"scaler": "standard", "learning_rate": 0.001, "weight_decay": 0.0001}
LARGEST = 14  # pixels on the side of a tile


def survconvmixer(seed: int = 0, gene_sets: GeneSets | None = None, **settings) -> NetworkMethod:
    """Return the SurvConvMixer-like network, with the settings of a ``NetworkMethod`` and those below.

    ``dim`` channels, ``depth`` layers, a ``kernel`` of so many pathways on its side (odd), and the ``dropout`` before
    the linear layer of each task. What became of genes and pathways is kept as ``trained.network.tiles``. Raises
    ValueError without gene sets; fitting raises it if no set has a chosen gene, and for sizes that cannot be.
    """
    if not gene_sets:
        raise ValueError("SurvConvMixer-like: its picture is made of gene sets, and gene_sets has none; give some.")
    return NetworkMethod(_build, seed, gene_sets, **{**DEFAULTS, **settings})


def _build(
    x, preprocessor: Preprocessor, gene_sets: GeneSets, seed: int, dim=128, depth=4, kernel=5, dropout=0.2
) -> nn.Module:
    _check(dim, depth, kernel)
    tiles = pathway_tiles(x, preprocessor.genes, gene_sets)
    head = partial(linear_head, dropout=dropout)
    network = Shared(lambda: convmixer(tiles, dim, depth, kernel), dim, preprocessor.outputs, head, seed)
    network.tiles = tiles
    return network


def _check(dim: int, depth: int, kernel: int) -> None:
    if min(dim, depth) < 1:
        raise ValueError(f"SurvConvMixer-like: dim and depth are 1 or more, not {dim} and {depth}.")
    if kernel < 1 or kernel % 2 == 0:
        raise ValueError(f"SurvConvMixer-like: kernel is an odd number, not {kernel}.")


# --- the picture ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tiles:
    """P pathways as square tiles of ``side`` pixels, side by side on a near-square picture of R x C tiles.

    ``pathways`` are the sets with a chosen gene, in the order of the tiles, row by row; ``source`` (R * side,
    C * side) says which gene, a column, each pixel shows, -1 for none; ``copies`` (G,) in how many tiles each gene is.
    ``cut`` counts the places that genes lost because their pathway has more than a tile has pixels.
    """

    pathways: tuple[str, ...]
    side: int
    source: np.ndarray
    copies: np.ndarray
    cut: int

    @property
    def duplicated(self) -> int:
        """The number of genes in more than one tile."""
        return int((self.copies > 1).sum())

    @property
    def dropped(self) -> int:
        """The number of genes in no tile."""
        return int((self.copies == 0).sum())


def pathway_tiles(x: np.ndarray, genes, gene_sets: GeneSets) -> Tiles:
    """Lay out x (n, G), the training part's expression of ``genes`` (G,), as a tile for each set that has one of them.

    All tiles are as small as the largest pathway allows, and of at most 14 x 14 pixels: of a larger pathway the
    first genes are kept, which are the most variable ones in the order of a ``Preprocessor``. A gene of several
    pathways is in all their tiles, one of none in no tile. Raises ValueError if no set has one of the genes.
    """
    column = {gene: number for number, gene in enumerate(genes)}
    members = {name: sorted({column[gene] for gene in listed if gene in column}) for name, listed in gene_sets.items()}
    found = {name: columns for name, columns in members.items() if columns}
    if not found:
        raise ValueError(
            f"SurvConvMixer-like: none of the {len(column)} chosen genes (the first is {next(iter(column), 'missing')})"
            f" is in any of the {len(gene_sets)} gene sets; use sets with the same kind of gene names."
        )
    kept = [np.array(columns[: LARGEST**2]) for columns in found.values()]
    side = math.isqrt(max(map(len, kept)) - 1) + 1
    source = _picture([_tile(columns[clustered(x[:, columns])], side) for columns in kept])
    copies = np.bincount(source[source >= 0], minlength=len(column))
    return Tiles(tuple(found), side, source, copies, cut=sum(map(len, found.values())) - sum(map(len, kept)))


def _tile(columns: np.ndarray, side: int) -> np.ndarray:
    return np.pad(columns, (0, side * side - len(columns)), constant_values=-1).reshape(side, side)


def _picture(tiles: list[np.ndarray]) -> np.ndarray:
    """Put tiles (p, p) on a near-square grid, row by row, with empty ones at the end."""
    across = math.isqrt(len(tiles) - 1) + 1
    rows = [tiles[first : first + across] for first in range(0, len(tiles), across)]
    rows[-1] = rows[-1] + [np.full_like(tiles[0], -1)] * (across - len(rows[-1]))
    return np.block(rows)


# --- the network ----------------------------------------------------------------------------------------------


class Residual(nn.Module):
    """Layers whose answer is added to their input."""

    def __init__(self, *layers: nn.Module):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, d, R, C) to the same."""
        return x + self.layers(x)


def convmixer(tiles: Tiles, dim: int, depth: int, kernel: int) -> nn.Sequential:
    """Build the body, (B, G) to (B, dim): a vector per pathway, ``depth`` mixing layers, the mean over them.

    A mixing layer looks around within each channel (added to what it saw), then across channels at each pathway.
    """
    layers = [Picture(tiles.source), *_activated(nn.Conv2d(1, dim, tiles.side, stride=tiles.side), dim)]
    for _ in range(depth):
        around = nn.Conv2d(dim, dim, kernel, padding=kernel // 2, groups=dim)
        layers += [Residual(*_activated(around, dim)), *_activated(nn.Conv2d(dim, dim, 1), dim)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def _activated(convolution: nn.Module, dim: int) -> tuple[nn.Module, ...]:
    return convolution, nn.GELU(), nn.BatchNorm2d(dim)
