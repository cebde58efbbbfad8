"""TxT behind the two calls that every method answers to."""

from functools import cache

import numpy as np
import pandas as pd
import torch

from txtlib.hierarchical import sets_for
from txtlib.network import cached_node2vec, make_network, read_network, restrict
from txtlib.peers.networks import GeneSets, NetworkMethod
from txtlib.preprocess import Preprocessor
from txtlib.variants import variant

SPACE = {
    "readout": ["flatten", "mean"],
    "learning_rate": [0.01, 0.003, 0.001, 0.0003, 0.0001],
    "dropout": [0.1, 0.3],
}
SPACE_FORMS = {"variant": ["value token", "product", "full rank"], "scaler": ["rank", "minmax"], **SPACE}


def txt(seed: int = 0, gene_sets: GeneSets | None = None, **settings) -> NetworkMethod:
    """Return TxT, or the ``variant`` of it that is named, with the settings of a ``NetworkMethod`` and of ``TxT``.

    Gene vectors start from node2vec on ``network``, a protein network by path or name or as [gene, gene, score] rows;
    without one they are drawn at random. With ``sets=True`` genes attend within the gene sets (txtlib/hierarchical.py),
    those of none within blocks of at most ``rest``.
    """
    return NetworkMethod(_build, seed, gene_sets, **settings)


def _build(
    x, preprocessor: Preprocessor, gene_sets: GeneSets, seed: int, network=None, sets=False, rest=128, **settings
):
    genes = list(preprocessor.genes)
    settings = {"variant": "product", "width": 64, **settings, "n_genes": len(genes), "outputs": preprocessor.outputs}
    if network is not None:
        settings["vectors"] = _vectors(network, genes, settings["width"], seed)
    if sets:
        settings["sets"] = sets_for(genes, dict(gene_sets), rest)
    return variant(**settings, seed=seed)


def _vectors(network, genes: list[str], width: int, seed: int) -> torch.Tensor:
    edges = _read(network) if isinstance(network, str) else make_network(pd.DataFrame(network))
    walked = cached_node2vec(restrict(edges, genes), genes, width=width, seed=seed)
    return torch.from_numpy(walked.table.to_numpy(np.float32))


@cache
def _read(name: str) -> pd.DataFrame:
    return read_network(name)
