"""Does a trained network need each of its attention heads? Switch one off, ask again, and compare on the same patients.

A head is off when its part of the attention output is set to zero before the block's output projection. No weight is
touched: a hook on the projection does it and goes away again, also after an error. The other heads were trained with
this one beside them, so a drop says that this network uses the head, not that a network trained without it would be
worse; and a network without a drop may have the same in another head.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pandas as pd
import torch

from txtlib.bootstrap import score_draws
from txtlib.cohort import Cohort
from txtlib.comparisons import paired_difference
from txtlib.model import Block
from txtlib.predictions import Predictions
from txtlib.training import Trained

ALL = "all"  # in place of a head's number: all heads of the layer
FULL = "full"
COLUMNS = ["layer", "head", "task", "measure", "full", "pruned", "difference", "low", "high"]


@contextmanager
def heads_off(network: torch.nn.Module, layer: int, heads: Sequence[int]) -> Iterator[torch.nn.Module]:
    """Switch heads of one layer off, both counted from 0 as in ``TxT.attention``, while the context lasts.

    Works for TxT and those variants whose layers are its ``Block``. Raises ValueError for any other network, and for
    a layer or head that is not there.
    """
    blocks = blocks_of(network)
    _check_number("layer", layer, len(blocks))
    block = blocks[layer]
    for head in heads:
        _check_number("head", head, block.n_heads)
    width = block.out.in_features // block.n_heads

    def without(_, inputs: tuple) -> torch.Tensor:
        kept = inputs[0].unflatten(-1, (block.n_heads, width)).clone()  # (B, G, H, d_head)
        kept[..., list(heads), :] = 0
        return kept.flatten(-2)

    hook = block.out.register_forward_pre_hook(without)
    try:
        yield network
    finally:
        hook.remove()


def blocks_of(network: torch.nn.Module) -> list[Block]:
    """Return a network's layers; ValueError if they are not all TxT's own."""
    blocks = list(getattr(network, "blocks", []))
    if not blocks or not all(isinstance(block, Block) for block in blocks):
        raise ValueError(
            f"{type(network).__name__} has no layers of TxT's own kind, so no heads to switch off; give a TxT, or a "
            "variant of it, without sets."
        )
    return blocks


def prune_heads(
    trained: Trained, train: Cohort, test: Cohort, horizon: float, resamples: int = 500, seed: int = 0
) -> pd.DataFrame:
    """Score the test part with each head off, and with each whole layer's heads off, beside the full network.

    Columns: layer, head (a number from 0, or "all"), task, measure, full, pruned, difference, low, high. full and
    pruned are the scores. difference is by how much the pruned network is better, so below 0 the head was of use,
    also for measures of error; low and high are its 95 % interval over bootstrap samples of the n test patients, the
    same for both networks (``score_draws``, whose measures these are; a calibration test's p is left out). NaN where
    a measure is undefined, as the correlation of a constant answer. The interval is of this one training, for one head
    and measure: it may miss 0 by chance in one of twenty. Another training has other heads, so compare trainings by one
    value each. ``train`` gives the weights for censoring, ``horizon`` is in the cohort's time unit. Tasks are those of
    ``test`` that the network answers. Raises ValueError as ``heads_off`` and ``score_draws`` do, for fewer than 2
    resamples, and for a test part without a task of the network.
    """
    if resamples < 2:
        raise ValueError(f"resamples is {resamples}; an interval needs two or more.")
    if not {task.name for task in test.tasks} & {task.name for task in trained.preprocessor.tasks}:
        raise ValueError(f"{test.name} has no task that this network answers; give a test part with its tasks.")
    pruned = pruned_answers(trained, test)
    answers = {FULL: trained.predict(test)} | {name_of(*which): answer for which, answer in pruned.items()}
    draws = score_draws(answers, train, test, horizon, resamples, seed)
    return pd.concat([_compared(draws, *which) for which in pruned], ignore_index=True)


def pruned_answers(trained: Trained, test: Cohort) -> dict[tuple[int, int | str], Predictions]:
    """Return the predictions by (layer, head): each head off, then each layer's heads. Raises as ``heads_off``."""
    blocks = blocks_of(trained.network)
    off = {(layer, head): [head] for layer, block in enumerate(blocks) for head in range(block.n_heads)}
    off |= {(layer, ALL): list(range(block.n_heads)) for layer, block in enumerate(blocks)}
    found = {}
    for (layer, head), heads in off.items():
        with heads_off(trained.network, layer, heads):
            found[layer, head] = trained.predict(test)
    return found


def name_of(layer: int, head: int | str) -> str:
    """Return what an answer without this head is called in tables."""
    return f"layer {layer}, head {head}"


def _compared(draws: pd.DataFrame, layer: int, head: int | str) -> pd.DataFrame:
    name = name_of(layer, head)
    found = paired_difference(draws, name, FULL).rename(columns={"score": "difference"})
    scores = {column: draws[method].iloc[0].loc[found.index] for column, method in (("full", FULL), ("pruned", name))}
    found = found.assign(layer=layer, head=head, **scores).rename_axis(["task", "measure"]).reset_index()
    return found[COLUMNS]


def _check_number(what: str, number: int, count: int) -> None:
    if number not in range(count):
        raise ValueError(f"There is no {what} {number!r}; the network has {what}s 0 to {count - 1}.")
