"""Looking at a trained network's attention: without dropout, layer by layer, a few patients at a time.

Query gene i gives attention to key gene j; what j receives, averaged over queries, is one number per gene and patient.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from txtlib.cohort import Cohort
from txtlib.model import TxT
from txtlib.training import Trained

GENES_AT_ONCE = 4_000  # genes x patients that go through the network together
ENTRIES = 1_000_000  # attention weights in memory at a time


# --- looking without a trace ----------------------------------------------------------------------------------


@contextmanager
def without_dropout(network: torch.nn.Module) -> Iterator[torch.device]:
    """Switch dropout off while the context lasts, and leave the network as it was; yields the device that it is on."""
    training = network.training
    network.eval()
    try:
        yield next(network.parameters(), torch.empty(0)).device
    finally:
        network.train(training)


def chosen_layers(network: TxT, layers: Iterable[int] | None) -> list[int]:
    """Return the layers in rising order, all if None; ValueError for one that is not there, and for none."""
    there = range(network.settings["layers"])
    chosen = sorted(set(there if layers is None else layers))
    wrong = [layer for layer in chosen if layer not in there]
    if wrong or not chosen:
        raise ValueError(f"The network has layers 0 to {len(there) - 1}, so layers cannot be {wrong or chosen}.")
    return chosen


def on_device(network: TxT, x) -> Tensor:
    """Return expression (n, G) as a tensor of the network's type and place; ValueError for another number of genes."""
    vectors = network.vectors
    if np.ndim(x) != 2 or x.shape[1] != len(vectors):
        raise ValueError(f"x is (patients, {len(vectors)} genes) for this network, not {tuple(np.shape(x))}.")
    return torch.as_tensor(x, dtype=vectors.dtype, device=vectors.device)


def pieces(x: Tensor) -> tuple[Tensor, ...]:
    """Cut (n, G) into few patients at a time."""
    return x.split(max(1, GENES_AT_ONCE // x.shape[1]))


def queries_and_keys(network: TxT, x: Tensor, layers: list[int]) -> list[tuple[Tensor, Tensor]]:
    """Return queries and keys of the layers (rising), (B, H, G, d_head + m) each: q k^T is the whole score.

    One pass forward serves all layers, without dropout; the network stays in the mode that it was in.
    """
    seen, blocks = [], [network.blocks[layer] for layer in layers]
    hooks = [block.register_forward_pre_hook(lambda _, arguments: seen.append(arguments)) for block in blocks]
    try:
        with without_dropout(network):
            network.encode(x)
    finally:
        for hook in hooks:
            hook.remove()
    return [block.project(*arguments)[:2] for block, arguments in zip(blocks, seen, strict=True)]


# --- attention received ---------------------------------------------------------------------------------------


def received(network: TxT, x, layers: Iterable[int] | None = None) -> np.ndarray:
    """Return the attention that each gene receives as a key in each patient, (n, G) float64; rows sum to 1.

    It is the mean over queries, heads and the chosen layers (all by default) for expression x (n, G), without
    dropout. What a gene gives to itself is included. 1 / G is what all would get if nobody preferred anybody. No
    more than ENTRIES weights are in memory at a time, or one query's. Raises ValueError for a layer that is not there
    and for a network whose genes attend in sets.
    """
    layers, x = chosen_layers(network, layers), on_device(network, x)
    parts = [_received(network, patients, layers) for patients in pieces(x)]
    return torch.cat(parts).cpu().numpy()


@torch.no_grad()
def _received(network: TxT, x: Tensor, layers: list[int]) -> Tensor:
    total = torch.zeros(x.shape, dtype=torch.float64, device=x.device)
    for q, k in queries_and_keys(network, x, layers):
        for some in q.split(max(1, ENTRIES // (k.shape[:3].numel())), 2):  # (B, H, g, m)
            total += (some @ k.mT).softmax(-1).sum((1, 2))
    return total / (len(layers) * q.shape[1:3].numel())


def received_table(trained: Trained, cohort: Cohort, layers: Iterable[int] | None = None) -> pd.DataFrame:
    """Return ``received`` with names: a row per sample, a column per gene."""
    values = received(trained.network, trained.preprocessor.expression(cohort), layers)
    return pd.DataFrame(values, cohort.samples, trained.preprocessor.genes)


def received_per_seed(
    models: Mapping[int, Trained], cohort: Cohort, layers: Iterable[int] | None = None
) -> pd.DataFrame:
    """Return ``received`` averaged over a cohort's patients, a row per seed and a column per gene: an arm.

    ``models`` holds trainings that differ in their seed only. Raises ValueError if they do not have the same genes.
    """
    rows = {seed: received_table(trained, cohort, layers).mean() for seed, trained in models.items()}
    first = next(iter(models.values())).preprocessor.genes
    other = [seed for seed, trained in models.items() if set(trained.preprocessor.genes) != set(first)]
    if other:
        raise ValueError(
            f"The training of seed {other[0]} has other genes than that of seed {next(iter(models))}; compare "
            "trainings on one training part, or with one gene list."
        )
    return pd.DataFrame(rows).T.rename_axis("seed")[list(first)]
