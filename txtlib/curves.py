"""A benchmark's table, summed up by the size of the training part: learning curves, and where two of them cross.

All intervals are over splits, corrected (txtlib/comparisons.py) by n_test / n_train of the training part before it was
cut: cut parts have fewer patients in common than whole ones, so the correction errs on the wide side.
"""

import numpy as np
import pandas as pd

from txtlib.comparisons import against, over_splits, verdict

SIZES = ["train_size", "n_train"]
GAINED = ["method", "task", "measure", *SIZES, "mean", "low", "high", "p", "splits", "missing"]
SCORED = ["mean", "low", "high", "sd", "lowest", "highest", "splits", "seeds"]


def scores_by_size(table: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """Sum up a tidy table: a row for each method, task, measure and training size.

    ``table`` is that of ``benchmark.run``, or of several runs that differ in train_size. Columns: method, task,
    measure, train_size (missing: not cut), n_train, mean with low and high, sd, lowest and highest over splits, how
    many splits, and the least number of model seeds in a split; scores are averaged over model seeds first. With one
    split low, high and sd are NaN; where all splits have the same score, low and high are those of ``over_splits``.
    """
    scored = table.dropna(subset="score")
    groups = scored.groupby(["method", "task", "measure", "train_size"], sort=False, dropna=False)
    rows = [[*name, _n_train(group), *_summed(group, level)] for name, group in groups]
    found = pd.DataFrame(rows, columns=["method", "task", "measure", *SIZES, *SCORED])
    return found.astype(dict.fromkeys([*SIZES, "splits", "seeds"], "Int64"))


def _summed(group: pd.DataFrame, level: float) -> list[float]:
    """Return what SCORED names."""
    by_split = group.groupby("data_seed")["score"].agg(["mean", "size"])
    values = by_split["mean"].to_numpy()
    reach = [values.mean(), np.nan, np.nan]
    if len(values) > 1:
        reach = over_splits(values, *_whole(group)[["n_train", "n_test"]].astype(float).mean(), level)
    return [*reach, by_split["mean"].std(), values.min(), values.max(), len(values), by_split["size"].min()]


def gains_by_size(table: pd.DataFrame, reference: str, level: float = 0.95) -> pd.DataFrame:
    """Return by how much each method is better than the reference, by training size, paired within each split.

    A row for each method, task, measure and training size that both have: train_size, n_train, mean, low, high, p,
    splits and missing, as of ``paired_over_splits`` (positive is better).
    """
    groups = table.groupby("train_size", sort=False, dropna=False)
    there = {size: group for size, group in groups if reference in set(group["method"])}
    parts = [_gains(group, size, reference, level) for size, group in there.items()]
    if not parts:
        raise ValueError(f"The table has no {reference!r} to compare with; it holds {_names(table)}.")
    return pd.concat(parts, ignore_index=True).astype(dict.fromkeys([*SIZES, "splits", "missing"], "Int64"))


def _gains(group: pd.DataFrame, size, reference: str, level: float) -> pd.DataFrame:
    found = against(_whole(group), reference, level).reset_index()
    found.insert(3, "train_size", size)
    found.insert(4, "n_train", _n_train(group))
    return found


def _whole(group: pd.DataFrame) -> pd.DataFrame:
    """Put the training part before it was cut in the place of what was kept of it."""
    return group.assign(n_train=group["n_whole"].fillna(group["n_train"]))


def _n_train(group: pd.DataFrame) -> int:
    return round(group["n_train"].astype(float).mean())


def _names(table: pd.DataFrame) -> str:
    return ", ".join(table["method"].unique())


def crossings(gains: pd.DataFrame) -> pd.DataFrame:
    """Return from how many training patients on each method is ahead of the reference.

    gains: method, n_train, mean and low of one task and measure (``gains_by_size``). A row for each method with
    ``crosses``, n where the mean difference crosses 0 for good, on a line between the sizes beside it, drawn over
    log n (the smallest size, if it is above 0 at all of them); ``sure_from``, the smallest size from which on the
    interval lies above 0; ``up_to``, the largest size. Missing where there is none up to that size; ``said`` puts
    that in words.
    """
    _check_one(gains)
    found = {name: _crossing(curve.sort_values("n_train")) for name, curve in gains.groupby("method", sort=False)}
    rows = pd.DataFrame(found.values(), pd.Index(found, name="method"), ["crosses", "sure_from", "up_to", "said"])
    return rows.astype({"crosses": float, "sure_from": "Int64", "up_to": "Int64"})


def _check_one(gains: pd.DataFrame) -> None:
    if gains.duplicated(["method", "n_train"]).any():
        raise ValueError("A curve has one difference for each method and size: keep one task and one measure.")


def _crossing(curve: pd.DataFrame) -> list:
    """Return what the columns of ``crossings`` are."""
    n, mean, low = (curve[name].to_numpy(float) for name in ("n_train", "mean", "low"))
    above, sure = _lasting(mean), _lasting(low)
    crosses = np.nan if above is None else _between(n, mean, above)
    sure_from = pd.NA if sure is None else round(n[sure])
    return [crosses, sure_from, round(n[-1]), _said(n, above, crosses, sure_from)]


def _lasting(values: np.ndarray) -> int | None:
    """Return the first place from which on all values are above 0, None if the last is not."""
    below = np.flatnonzero(~(values > 0))
    first = below[-1] + 1 if len(below) else 0
    return None if first == len(values) else int(first)


def _between(n: np.ndarray, mean: np.ndarray, above: int) -> float:
    if above == 0 or np.isnan(mean[above - 1]):
        return float(n[above])
    return float(np.exp(np.interp(0, mean[above - 1 : above + 1], np.log(n[above - 1 : above + 1]))))


def _said(n: np.ndarray, above: int | None, crosses: float, sure_from) -> str:
    if above is None:
        return f"none up to {n[-1]:,.0f}"
    begin = f"at every size from {n[0]:,.0f}" if above == 0 else f"from about {crosses:,.0f}"
    return f"{begin}, " + (f"not surely up to {n[-1]:,.0f}" if pd.isna(sure_from) else f"surely from {sure_from:,}")


# --- what a size is good for ----------------------------------------------------------------------------------


def pays_from(gains: pd.DataFrame, margin: float = 0.02) -> pd.DataFrame:
    """Return from how many training patients on the verdict on each method is a good one, at each larger size too.

    gains: method, n_train, low and high of one task and measure (``gains_by_size``). A row for each method with
    ``better``, the smallest size from which on it is "better than" the reference (``comparisons.verdict``),
    ``as_good``, that from which on it is that or "as good as" it, both missing where there is none, ``up_to``, the
    largest size, and ``there``, the verdict at that size.
    """
    _check_one(gains)
    found = {name: _pays(curve.sort_values("n_train"), margin) for name, curve in gains.groupby("method", sort=False)}
    rows = pd.DataFrame(found.values(), pd.Index(found, name="method"), ["better", "as_good", "up_to", "there"])
    return rows.astype(dict.fromkeys(["better", "as_good", "up_to"], "Int64"))


def _pays(curve: pd.DataFrame, margin: float) -> list:
    """Return what the columns of ``pays_from`` are."""
    said = [verdict(*row, margin) for row in curve[["low", "high"]].to_numpy(float)]
    starts = [_lasting(np.isin(said, words)) for words in (["better than"], ["better than", "as good as"])]
    n = [round(size) for size in curve["n_train"]]
    return [*(pd.NA if start is None else n[start] for start in starts), n[-1], said[-1]]


def size_for(counts: pd.Series, count: float) -> int | None:
    """Return the largest size of a curve that takes no more than ``count``; None where even the smallest takes more.

    counts {training size: how many} are the events of a training part of each size, say, or its patients.
    """
    within = [size for size, needed in counts.items() if needed <= count]
    return max(within, default=None)
