"""How two genes attend to each other in each patient, beside how they are expressed.

Claim C12 (Koo et al. 2025, bbaf628, Fig. S3): attention between SERPINE1 and PLAU differs between two groups of
patients although neither gene's expression does. An edge is written "key -> query": it goes from the gene that is
looked at to the gene that looks.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor

from txtlib.cohort import Cohort
from txtlib.interpret.attention import chosen_layers, on_device, pieces, queries_and_keys
from txtlib.interpret.plain import fdr, group_tests
from txtlib.model import TxT
from txtlib.training import Trained


def pair_weights(network: TxT, x, a: int, b: int, layers: Iterable[int] | None = None) -> np.ndarray:
    """Return the attention between columns a and b of expression x (n, G), (n, layers, 2, H).

    Of the two directions, 0 is the edge a -> b (query b looks at key a) and 1 is b -> a. Only the rows of these two
    queries are made; no dropout. Layers are in rising order, all by default. Raises ValueError for a layer that is not
    there, columns that are equal or not there, and a network whose genes attend in sets.
    """
    layers, x = chosen_layers(network, layers), on_device(network, x)
    if a == b or not {a, b} <= set(range(x.shape[1])):
        raise ValueError(f"A pair is two different columns of 0 to {x.shape[1] - 1}, not {a} and {b}.")
    return torch.cat([_weights(network, patients, a, b, layers) for patients in pieces(x)]).cpu().numpy()


@torch.no_grad()
def _weights(network: TxT, x: Tensor, a: int, b: int, layers: list[int]) -> Tensor:
    rows = [(q[:, :, [b, a]] @ k.mT).softmax(-1) for q, k in queries_and_keys(network, x, layers)]  # (B, H, 2, G)
    both = [torch.stack([weights[:, :, 0, a], weights[:, :, 1, b]], 1) for weights in rows]  # (B, 2, H)
    return torch.stack(both, 1)


def pair_attention(
    trained: Trained, cohort: Cohort, a: str, b: str, layers: Iterable[int] | None = None
) -> pd.DataFrame:
    """Return the attention between two genes: a row per sample, layer and direction ("key -> query").

    The columns after these are mean and max over heads. Raises ValueError, also for a gene that the network has not.
    """
    genes = list(trained.preprocessor.genes)
    absent = [gene for gene in (a, b) if gene not in genes]
    if absent:
        raise ValueError(f"Gene {absent[0]!r} is not among the {len(genes)} genes of this training; choose another.")
    x, layers = trained.preprocessor.expression(cohort), chosen_layers(trained.network, layers)
    weights = pair_weights(trained.network, x, genes.index(a), genes.index(b), layers)  # (n, L, 2, H)
    keys = [cohort.samples, layers, [f"{a} -> {b}", f"{b} -> {a}"]]
    index = pd.MultiIndex.from_product(keys, names=["sample", "layer", "direction"])
    return pd.DataFrame({"mean": weights.mean(-1).ravel(), "max": weights.max(-1).ravel()}, index).reset_index()


def over_layers(pairs: pd.DataFrame) -> pd.DataFrame:
    """Turn a table of ``pair_attention`` into one without layers: the mean of means, and the largest max."""
    groups = pairs.groupby(["sample", "direction"], sort=False)
    return groups.agg(mean=("mean", "mean"), max=("max", "max")).reset_index()


def compare_pair(pairs: pd.DataFrame, expression: pd.DataFrame, group: pd.Series) -> pd.DataFrame:
    """Compare a pair's attention between the patients in a group and the others, beside the genes' expression.

    ``pairs`` is a table of ``pair_attention`` or ``over_layers``, ``expression`` (n, genes) holds the genes to show
    beside it, ``group`` True or False by sample; only its samples take part. Returns ``group_tests``, a row per
    statistic, direction and layer of attention, then one per gene, with a column kind (attention or expression) in
    front. Both tests have n = patients of ONE trained network: they say whether it treats the groups differently, not
    whether the next training would; ``pair_over_seeds`` does. fdr is over all rows. Raises ValueError.
    """
    places = [name for name in ("layer", "direction") if name in pairs]
    wide = pairs.pivot(index="sample", columns=places, values=["mean", "max"])
    wide.columns = [_label(*name) for name in wide.columns.to_flat_index()]
    values = wide.join(expression.rename(columns="expression of {}".format), how="left")
    kinds = np.repeat(["attention", "expression"], [wide.shape[1], expression.shape[1]])
    tests = group_tests(values, group)
    tests.insert(0, "kind", kinds)
    return tests.rename_axis("compared")


def _label(statistic: str, *place) -> str:
    *layer, direction = place
    return f"{statistic} attention {direction}" + "".join(f", layer {number}" for number in layer)


def pair_over_seeds(tables: Mapping[int, pd.DataFrame]) -> pd.DataFrame:
    """Ask of several trainings, {seed: table of ``compare_pair``}, whether attention differs between the groups.

    One number per training counts: auc, the chance that a patient in the group has the higher attention, which does
    not depend on how sharp a training's attention is. Returns a row per kind of attention: auc (mean over seeds), sd,
    above (trainings with auc > 0.5), t, p, fdr (Benjamini-Hochberg over rows) and n. p is that of a two-sided t-test
    that the mean auc is 0.5, n = trainings; NaN where all agree to the last digit. Expression is the same for all
    trainings and so left out. Raises ValueError for fewer than two tables, or tables of different rows.
    """
    if len(tables) < 2:
        raise ValueError(f"{len(tables)} training(s) have no spread; compare two seeds or more.")
    auc = pd.DataFrame({seed: table.loc[table["kind"] == "attention", "auc"] for seed, table in tables.items()})
    if auc.isna().to_numpy().any():
        raise ValueError("The tables do not hold the same rows; compare one pair, with one choice of layers.")
    defined = np.ptp(auc, 1) > 0
    t, p = np.full((2, len(auc)), np.nan)
    t[defined], p[defined] = stats.ttest_1samp(auc[defined], 0.5, axis=1)
    found = {"auc": auc.mean(axis=1), "sd": auc.std(axis=1), "above": (auc > 0.5).sum(axis=1), "t": t, "p": p}
    return pd.DataFrame(found).assign(fdr=fdr(p), n=len(tables))
