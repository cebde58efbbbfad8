"""What changes the attention that genes receive: two arms of trainings, compared over seeds.

Claim C13 (Koo et al. 2025, bbaf628, Fig. S2): clinical tasks raise it for some genes. Trainings are compared by one
number per seed, for all patients of one training share its weights: they say nothing of the next training.
"""

import numpy as np
import pandas as pd
from scipy import stats

from txtlib.interpret.plain import check_values, fdr, undefined_is_nan, varying, welch


def differential(multi: pd.DataFrame, single: pd.DataFrame) -> pd.DataFrame:
    """Compare what each gene receives in two arms of trainings, multi-task and single-task, over seeds.

    Each arm is (S seeds, G genes) as from ``received_per_seed``, of the same patients. Returns a row per gene, lowest p
    first: multi and single (means over seeds), difference, log2_ratio (of the means), t, p, fdr and n. p is that of a
    paired two-sided t-test that the mean difference over seeds is 0, n = S trainings of each arm; fdr is
    Benjamini-Hochberg's over genes. NaN where all seeds differ by the same. Raises ValueError.
    """
    return _paired(multi, single, "multi", "single")


def null_differential(single: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Make the same comparison where there is nothing to find: between two halves of one arm's seeds.

    ``seed`` draws which of the S seeds are in the first half, and their partners in the second. The table is that of
    ``differential``, with first and second for multi and single. p is that of the same paired t-test, n = S // 2 pairs
    of trainings: half as many as the real comparison has, and the two of a pair share no seed. A gene that is called
    here is a false call. Raises ValueError for fewer than four seeds.
    """
    if len(single) < 4:
        raise ValueError(f"{len(single)} seeds cannot be halved and compared; train four or more.")
    half = len(single) // 2
    drawn = single.iloc[np.random.default_rng(seed).permutation(len(single))]
    pairs = range(half)
    return _paired(drawn[:half].set_axis(pairs), drawn[half : 2 * half].set_axis(pairs), "first", "second")


def naive_differential(multi: pd.DataFrame, single: pd.DataFrame) -> pd.DataFrame:
    """Compare two single trainings with patients as replicates: the article's test, to show what it claims.

    Each arm is (n patients, G genes) of ONE training, as from ``received_table``. Columns as in ``differential``. p is
    that of a two-sided Welch t-test between the patients of both arms, n = patients of each arm. It answers whether
    these two trained networks differ, which any two seeds do, not whether the tasks made them differ.
    """
    _check_arms(multi, single, "patient")
    tested = welch(multi.to_numpy(float), single[multi.columns].to_numpy(float))
    return _compared(multi, single, "multi", "single", *tested)


def _paired(first: pd.DataFrame, second: pd.DataFrame, *names: str) -> pd.DataFrame:
    _check_arms(first, second, "seed")
    if set(first.index) != set(second.index):
        raise ValueError(
            f"The arms are paired by seed, and have seeds {first.index.tolist()} and {second.index.tolist()}; train "
            "both with the same seeds."
        )
    second = second.loc[first.index, first.columns]
    with undefined_is_nan():
        tested = stats.ttest_rel(first.to_numpy(float), second.to_numpy(float))
    defined = varying((first - second).to_numpy(float))
    return _compared(first, second, *names, *(np.where(defined, each, np.nan) for each in tested))


def _compared(first, second, name: str, other: str, t: np.ndarray, p: np.ndarray) -> pd.DataFrame:
    means, others = first.mean(), second.mean()[first.columns]
    with np.errstate(divide="ignore", invalid="ignore"):  # a head may be so sharp that a gene receives exactly 0
        ratio = np.log2(means / others)
    found = pd.DataFrame({name: means, other: others, "difference": means - others, "log2_ratio": ratio, "t": t})
    found = found.assign(p=p, fdr=fdr(p), n=len(first)).rename_axis("gene")
    return found.sort_values(["p", "t"], key=np.abs, ascending=[True, False], kind="stable")


def _check_arms(first: pd.DataFrame, second: pd.DataFrame, row: str) -> None:
    if set(first.columns) != set(second.columns):
        odd = sorted(map(str, set(first.columns) ^ set(second.columns)))[0]
        raise ValueError(f"Gene {odd!r} is in one arm only; both need the same genes.")
    for arm in (first, second):
        check_values(arm, row)
        if len(arm) < 2:
            raise ValueError(f"An arm has {len(arm)} {row}(s); a t-test needs two or more.")
