"""A pretrained encoder under TxT's heads: what it has learned without labels goes into learning many tasks."""

from functools import partial
from pathlib import Path

from torch import nn

from txtlib.peers.networks import NetworkMethod, Shared
from txtlib.preprocess import Preprocessor
from txtlib.pretrain.gexbert import load_gexbert


def transferred(model, seed: int = 0, **settings) -> NetworkMethod:
    """Return a method whose body is a pretrained encoder and whose heads are TxT's own; all of it goes on learning.

    ``model`` is a pretrained model or the file of one. It has ``genes``, and ``encoder(genes)`` returns a module with
    ``encode`` (B, G) -> (B, d), and d as ``features``, for values in SDs of these genes. Genes are those of the model
    that the training part has, up to ``n_genes`` of the most variable ones; their means and SDs are those of the
    training part, which need not be the cohort of pretraining. The other settings are those of a ``NetworkMethod``.
    Whoever compares it with others must keep test patients out of the pretraining too (``check_apart``).
    """
    model = load_gexbert(model) if isinstance(model, str | Path) else model
    settings = {"n_genes": len(model.genes), **settings, "scaler": "standard"}
    return NetworkMethod(partial(_build, model), seed, {"pretrained": list(model.genes)}, **settings)


def _build(model, x, preprocessor: Preprocessor, gene_sets, seed: int) -> nn.Module:
    encoder = model.encoder(preprocessor.genes)
    return Shared(lambda: encoder, encoder.features, preprocessor.outputs, seed=seed)
