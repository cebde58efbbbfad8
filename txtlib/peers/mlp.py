"""TxT's own heads on the expression itself: what is left of TxT without its transformer."""

from torch import nn

from txtlib.peers.networks import GeneSets, NetworkMethod, Shared
from txtlib.preprocess import Preprocessor

SPACE = {"learning_rate": [0.001, 0.003, 0.0003], "weight_decay": [0.0, 1.0, 0.1], "scaler": ["standard", "minmax"]}


def mlp(seed: int = 0, gene_sets: GeneSets | None = None, **settings) -> NetworkMethod:
    """Return a perceptron of 128 and 64 units for each task, with the settings of a ``NetworkMethod``.

    Nothing is shared between tasks, so many tasks at once are as many perceptrons.
    """
    return NetworkMethod(_build, seed, gene_sets, **{"scaler": "standard", "learning_rate": 0.001, **settings})


def _build(x, preprocessor: Preprocessor, gene_sets: GeneSets, seed: int) -> nn.Module:
    return Shared(nn.Identity, x.shape[1], preprocessor.outputs, seed=seed)
