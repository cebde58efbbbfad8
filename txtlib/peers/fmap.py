"""FMAP-like CNN: genes laid out on a square picture, correlated ones side by side, and an Inception network on it.

After Yan et al. 2025 (Comput Biol Med: transcriptomic feature maps and an Inception network with gated convolutions),
reconstructed from the abstract, in our own words and code; no code of theirs was found. What the abstract leaves open
is our choice: the distance, the layout by t-SNE and assignment, the sizes, how a branch is gated, the training. The
authors also "amplify" their data; there is no augmentation here, which done before a split would put copies of one
patient on both sides of it.

Whether the picture helps is for the control to say: the same network with its pixels permuted at random.
"""

import math
from functools import partial

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from scipy.stats import rankdata
from sklearn.manifold import TSNE, ClassicalMDS
from torch import Tensor, nn
from torch.nn import functional as F

from txtlib.peers.networks import GeneSets, NetworkMethod, Shared
from txtlib.preprocess import Preprocessor

SPACE = {
    "learning_rate": [0.001, 0.003, 0.0003],
    "channels": [[32, 64, 128], [16, 32, 64], [16, 16, 32]],
    "scaler": ["standard", "minmax", "rank"],
    "dropout": [0.3, 0.5, 0.0],
    "weight_decay": [0.0001, 1.0, 0.1],
}
DEFAULTS = {"scaler": "standard", "learning_rate": 0.001, "weight_decay": 0.0001}
PIXELS = ("layout", "permuted")
BRANCHES = 4
PERPLEXITY = 30.0  # scikit-learn's own; fewer genes have a third of their number
TINY = np.finfo(np.float32).tiny  # a divisor where all genes are one


def fmap_cnn(seed: int = 0, gene_sets: GeneSets | None = None, **settings) -> NetworkMethod:
    """Return the FMAP-like CNN, with the settings of a ``NetworkMethod`` and those below.

    ``channels`` are those of the Inception blocks, three by default, each a multiple of 4; ``dropout`` is that before
    the linear layer of each task. ``pixels="permuted"`` is the control: the pixels in an order drawn from ``seed``.
    The picture is that of the training part; it is kept as ``trained.network.body[0].source``. Fitting raises
    ValueError for other pixels or channels.
    """
    return NetworkMethod(_build, seed, gene_sets, **{**DEFAULTS, **settings})


def _build(
    x, preprocessor: Preprocessor, gene_sets: GeneSets, seed: int, pixels="layout", channels=(32, 64, 128), dropout=0.3
) -> nn.Module:
    _check(pixels, channels)
    source = layout(x) if pixels == "layout" else permuted(layout(x), seed)
    head = partial(linear_head, dropout=dropout)
    return Shared(lambda: inception(source, channels), channels[-1], preprocessor.outputs, head, seed)


def _check(pixels: str, channels) -> None:
    if pixels not in PIXELS:
        raise ValueError(f"FMAP-like: pixels is one of {', '.join(PIXELS)}, not {pixels!r}.")
    if not len(channels) or any(size < 1 or size % BRANCHES for size in channels):
        raise ValueError(f"FMAP-like: channels are multiples of {BRANCHES}, one for each block, not {channels}.")


# --- the picture ----------------------------------------------------------------------------------------------


def layout(x: np.ndarray) -> np.ndarray:
    """Return which gene each pixel shows, (S, S) columns of x (n, G), -1 for none; S is the least with S * S >= G.

    Genes at a distance of 1 - |Spearman's rho| are embedded in the plane and each is assigned a pixel of its own, so
    that the squared way there is least in all. Nothing is drawn: one x has one layout.
    """
    n_genes = x.shape[1]
    side = math.isqrt(n_genes - 1) + 1
    source = np.full(side * side, -1)
    source[_pixels(x, side)] = np.arange(n_genes)
    return source.reshape(side, side)


def permuted(source: np.ndarray, seed: int) -> np.ndarray:
    """Return a picture (S, S) with all its pixels, the empty ones too, in an order drawn from the seed."""
    return np.random.default_rng(seed).permutation(source.ravel()).reshape(source.shape)


def _pixels(x: np.ndarray, side: int) -> np.ndarray:
    """Return the pixel of each gene, (G,) of S * S."""
    if side <= 2:  # all pixels touch each other, and t-SNE needs more genes
        return np.arange(x.shape[1])
    places = _embedding(gene_distances(x))
    places = (places - places.min(0)) / np.ptp(places, 0).clip(min=TINY) * (side - 1)
    pixels = np.stack(np.divmod(np.arange(side * side), side), 1)  # row and column of each
    return linear_sum_assignment(cdist(places, pixels, "sqeuclidean"))[1]


def gene_distances(x: np.ndarray) -> np.ndarray:
    """Return 1 - |Spearman's rho| between the columns of x (n, G), each of which varies: (G, G), 0 to 1."""
    correlation = np.abs(np.corrcoef(rankdata(x, axis=0), rowvar=False))
    distance = 1 - correlation.clip(max=1)  # rounding may leave more than 1
    np.fill_diagonal(distance, 0)
    return distance


def _embedding(distance: np.ndarray) -> np.ndarray:
    """Embed G genes in the plane, (G, 2), by t-SNE from classical scaling: nothing random, unlike its usual start."""
    start = ClassicalMDS(metric="precomputed").fit_transform(distance)
    start *= 1e-4 / max(start[:, 0].std(), TINY)  # as small as scikit-learn's own starts
    perplexity = min(PERPLEXITY, len(distance) / 3)
    tsne = TSNE(metric="precomputed", init=start.astype(np.float32), perplexity=perplexity, random_state=0)
    return tsne.fit_transform(distance).astype(float)


# --- the network ----------------------------------------------------------------------------------------------


class Picture(nn.Module):
    """Expression as pictures: ``source`` (H, W) names the gene, a column, that each pixel shows, -1 for none."""

    def __init__(self, source: np.ndarray):
        super().__init__()
        self.register_buffer("source", torch.from_numpy(source))

    def forward(self, x: Tensor) -> Tensor:
        """Map expression x (B, G) to pictures (B, 1, H, W), 0 where there is no gene."""
        return F.pad(x, (0, 1))[:, self.source][:, None]  # a column of zeros at the end, which -1 points to


class Gated(nn.Module):
    """A convolution to a and b, of which a * sigmoid(b) is left: (B, C, H, W) to (B, outputs, H, W)."""

    def __init__(self, inputs: int, outputs: int, kernel: int):
        super().__init__()
        self.both = nn.Conv2d(inputs, 2 * outputs, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve and gate."""
        return F.glu(self.both(x), 1)


class Inception(nn.Module):
    """Gated branches side by side, 1 x 1, 3 x 3, 5 x 5 and pooled 1 x 1, a quarter of the outputs each."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        quarter = outputs // BRANCHES
        pooled = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), Gated(inputs, quarter, 1))
        self.branches = nn.ModuleList([*(Gated(inputs, quarter, kernel) for kernel in (1, 3, 5)), pooled])

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H, W)."""
        return torch.cat([branch(x) for branch in self.branches], 1)


def inception(source: np.ndarray, channels) -> nn.Sequential:
    """Build the body, (B, G) to (B, channels[-1]): Inception blocks, each halving the picture, and the mean over it."""
    layers, before = [Picture(source)], 1
    for size in channels:
        # a side is rounded up, so that few genes do not leave a picture without pixels
        layers += [Inception(before, size), nn.BatchNorm2d(size), nn.MaxPool2d(2, ceil_mode=True)]
        before = size
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def linear_head(features: int, outputs: int, dropout: float) -> nn.Module:
    """Return the one layer that a task has on what the convolutions make of a patient."""
    return nn.Sequential(nn.Dropout(dropout), nn.Linear(features, outputs))
