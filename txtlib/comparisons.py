"""Is one method better than another? Intervals over patients and over splits, p-values, and what may be said."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

from txtlib.metrics import LOWER_IS_BETTER, UNDIRECTED

PAIR = ["task", "measure", "data_seed"]  # what two scores must share to be compared
VERDICTS = ("better than", "worse than", "as good as", "not to be told apart from")
COMPARED = ["mean", "low", "high", "p", "splits"]
ROUNDING = 1e-9  # differences that are this near to each other, or to 0, are so but for the machine's rounding


# --- over the patients of one test part ---------------------------------------------------------------------------


def summary(draws: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """Return score, low and high (percentiles of the resamples) for each column of ``score_draws``."""
    tails = draws.iloc[1:].quantile([(1 - level) / 2, (1 + level) / 2])
    return pd.DataFrame({"score": draws.iloc[0], "low": tails.iloc[0], "high": tails.iloc[1]})


def paired_difference(draws: pd.DataFrame, method: str, floor: str, level: float = 0.95) -> pd.DataFrame:
    """Return by how much ``method`` is better than ``floor`` (positive is better), paired within each resample.

    A row (task, measure) for each that both have; those of ``metrics.UNDIRECTED``, which have no better, are left out.
    """
    both = [key for key in draws[method].columns if key in draws[floor].columns]
    shared = [(task, measure) for task, measure in both if measure not in UNDIRECTED]
    signs = np.array([_sign(measure) for _, measure in shared])
    return summary((draws[method][shared] - draws[floor][shared]) * signs, level)


def _sign(measure: str) -> int:
    return -1 if measure in LOWER_IS_BETTER else 1


# --- over splits --------------------------------------------------------------------------------------------------


def over_splits(differences: np.ndarray, n_train: float, n_test: float, level: float = 0.95) -> pd.Series:
    """Return mean, low and high of paired differences over k random splits, (k,).

    Splits share training patients, so the usual t interval is too narrow: the variance of the mean is taken as
    (1 / k + n_test / n_train) times that of the differences (Nadeau and Bengio 2003, 10.1023/A:1024068626366).
    Differences that are all equal show no spread to hold their mean against, as scores of few patients can by chance:
    low and high are NaN, and where all are 0 they are 0.
    """
    mean, spread = _mean_and_spread(differences, n_train, n_test)
    reach = stats.t.ppf(0.5 + level / 2, len(differences) - 1) * spread
    return pd.Series({"mean": mean, "low": mean - reach, "high": mean + reach})


def p_over_splits(differences: np.ndarray, n_train: float, n_test: float) -> float:
    """Return the two-sided p of the same corrected t: is the mean difference over splits, (k,), other than 0?

    Where all differences are equal there is no test: NaN, and where all are 0 p is 1.
    """
    mean, spread = _mean_and_spread(differences, n_train, n_test)
    if spread == 0:
        return 1.0
    return float(2 * stats.t.sf(abs(mean) / spread, len(differences) - 1))


def _mean_and_spread(differences: np.ndarray, n_train: float, n_test: float) -> tuple[float, float]:
    k = len(differences)
    if k < 2:
        raise ValueError(f"{k} split(s) have no spread; an interval over splits needs two or more.")
    if np.ptp(differences) < ROUNDING:  # the standard deviation of equal numbers may come out as 1e-17
        zero = np.abs(differences).max() < ROUNDING
        return (0.0, 0.0) if zero else (float(np.mean(differences)), np.nan)
    return float(np.mean(differences)), float(np.std(differences, ddof=1) * np.sqrt(1 / k + n_test / n_train))


def paired_over_splits(table: pd.DataFrame, method: str, reference: str, level: float = 0.95) -> pd.DataFrame:
    """Return by how much ``method`` is better than ``reference`` over the splits of a benchmark's tidy table.

    A row (task, measure) for each that both have, with mean, low, high (``over_splits``; positive is better) and p
    (``p_over_splits``), splits (how many pairs there are) and missing (data seeds without a score of both). Scores
    are averaged over model seeds first, those that failed or have no value left out, and paired by data seed. With
    one pair there is no interval: NaN. What has no better (``metrics.UNDIRECTED``) is left out. ``table`` is that of
    ``benchmark.run``, of one cohort, or as much of it as its columns method, data_seed, model_seed, task, measure,
    score, n_train and n_test. Raises ValueError for a method that it does not hold, and for two scores of one method,
    split and seed.
    """
    rows = table[table["method"].isin([method, reference])]
    _check_rows(table, rows, method, reference)
    scores = rows.groupby([*PAIR, "method"])["score"].mean().unstack().reindex(columns=[method, reference])
    gains = scores[method] - scores[reference]
    sizes = rows[["n_train", "n_test"]].astype(float).mean()
    listed = rows.groupby(PAIR[:2], sort=False)["method"].nunique()
    names = [name for name in listed.index[listed == 2] if name[1] not in UNDIRECTED]
    compared = [_compared(_sign(name[1]) * gains[name].dropna().to_numpy(), sizes, level) for name in names]
    found = pd.DataFrame(compared, pd.MultiIndex.from_tuples(names, names=PAIR[:2]), COMPARED)
    found["splits"] = found["splits"].astype(int)
    return found.assign(missing=rows["data_seed"].nunique() - found["splits"])


def against(table: pd.DataFrame, reference: str, level: float = 0.95) -> pd.DataFrame:
    """Return ``paired_over_splits`` of every method against one: rows (method, task, measure), methods as they come.

    A method that shares no task and measure with the reference has no row.
    """
    others = [name for name in table["method"].unique() if name != reference]
    found = {name: paired_over_splits(table, name, reference, level) for name in others}
    found = {name: rows for name, rows in found.items() if len(rows)}
    names = ["method", *PAIR[:2]]
    if not found:
        return pd.DataFrame([], pd.MultiIndex.from_tuples([], names=names), [*COMPARED, "missing"], float)
    return pd.concat(found, names=names)


def standing(table: pd.DataFrame, forms: Iterable[str], task: str, measure: str, level: float = 0.95) -> pd.DataFrame:
    """Return, for each form of a method, how many rows of the table it beats on one task and measure.

    Rows are the methods that are none of the ``forms``. A line for each form that has scores: ``better``, ``worse``
    and ``open`` (neither) count its comparisons, by intervals widened for their number (Bonferroni), since to be ahead
    of all takes all; ``hardest`` is the row with the highest lower bound over the form, ``by`` (``low``, ``high``) how
    much the form is better than it at the plain level.
    """
    rows = table[(table["task"] == task) & (table["measure"] == measure)]
    forms = [name for name in forms if name in set(rows.dropna(subset="score")["method"])]
    others = [name for name in rows["method"].unique() if name not in forms]
    found = {form: _standing(rows[rows["method"].isin([form, *others])], form, level) for form in forms}
    return pd.DataFrame(found, ["better", "worse", "open", "hardest", "by", "low", "high"]).T.rename_axis("form")


def _standing(rows: pd.DataFrame, form: str, level: float) -> list:
    plain = against(rows, form, level)
    plain = plain[plain["mean"].notna()]
    wide = against(rows, form, 1 - (1 - level) / max(1, len(plain))).loc[plain.index]
    better, worse = int((wide["high"] < 0).sum()), int((wide["low"] > 0).sum())
    if not len(plain):
        return [0, 0, 0, "", np.nan, np.nan, np.nan]
    hardest = plain["low"].fillna(-np.inf).idxmax()
    mean, low, high = -plain.loc[hardest, ["mean", "high", "low"]].astype(float)
    return [better, worse, len(plain) - better - worse, hardest[0], mean, low, high]


def spread(table: pd.DataFrame, task: str, measure: str, digits: int = 3) -> pd.Series:
    """Write each method's mean over splits with the lowest and the highest, by method: ``0.66 (0.55 to 0.76)``.

    Model seeds are averaged first. The range describes the splits; it is no interval for the mean.
    """
    rows = table[(table["task"] == task) & (table["measure"] == measure)].dropna(subset="score")
    by_split = rows.groupby(["method", "data_seed"], sort=False)["score"].mean()
    found = by_split.groupby("method", sort=False).agg(["mean", "min", "max"])
    return pd.Series({name: "{:.{d}f} ({:.{d}f} to {:.{d}f})".format(*row, d=digits) for name, row in found.iterrows()})


def _compared(gains: np.ndarray, sizes: pd.Series, level: float) -> list[float]:
    """Return what COMPARED names."""
    if len(gains) < 2:
        return [*gains, *[np.nan] * (4 - len(gains)), len(gains)]
    return [*over_splits(gains, *sizes, level), p_over_splits(gains, *sizes), len(gains)]


def _check_rows(table: pd.DataFrame, rows: pd.DataFrame, method: str, reference: str) -> None:
    there = list(table["method"].unique())
    absent = [name for name in (method, reference) if name not in there]
    if absent or method == reference:
        raise ValueError(
            f"Two methods of the table are compared, not {method!r} and {reference!r}; it holds {', '.join(there)}."
        )
    twice = rows[rows.duplicated(["method", "model_seed", *PAIR])]
    if len(twice):
        first = twice.iloc[0]
        raise ValueError(
            f"{first['method']!r} has two rows for {first['task']}, {first['measure']}, data seed {first['data_seed']} "
            f"and model seed {first['model_seed']}: keep one cohort and one setting of each method."
        )


def holm(p: pd.Series) -> pd.Series:
    """Return Holm's adjusted p-values, in the same order: below 0.05 means below it with all of them in view.

    Holm 1979, by statsmodels. Those that are NaN stay so and do not count as tests.
    """
    known = p.notna()
    adjusted = p.astype(float).copy()
    if known.any():
        adjusted[known] = multipletests(p[known], method="holm")[1]
    return adjusted


# --- what may be said ---------------------------------------------------------------------------------------------


def verdict(low: float, high: float, margin: float = 0.02) -> str:
    """Say in words what an interval of "better by" allows: the rule of the results ledger.

    better or worse: the interval excludes 0, however near it is; as good as: it holds 0 and lies within +-margin,
    ends included; else, and where it is undefined (NaN), too small to tell. A claim of "better" is so reproduced by
    "better than", not reproduced by "worse than" and "as good as", and otherwise open. The margin is meant for
    measures between 0 and 1 (C, accuracy, correlation); an error in years needs one of its own.
    """
    if low > 0:
        return "better than"
    if high < 0:
        return "worse than"
    return "as good as" if -margin <= low and high <= margin else "not to be told apart from"


def verdicts(found: pd.DataFrame, margin: float = 0.02) -> dict[str, list[str]]:
    """Return {verdict: names} for rows with low and high; a verdict that no row has is there with no name."""
    said: dict[str, list[str]] = {word: [] for word in VERDICTS}
    for name, row in found.iterrows():
        said[verdict(row["low"], row["high"], margin)].append(name)
    return said
