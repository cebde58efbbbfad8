"""How much attention each gene receives, what changes it, and what plain expression would have said.

Query gene i gives attention to key gene j; what j receives, averaged over queries, is one number per gene and patient.
Claim C13 (Koo et al. 2025, bbaf628, Fig. S2): clinical tasks raise it for some genes. Trainings are compared by one
number per seed, for all patients of one training share its weights: they say nothing of the next training.
"""

import warnings
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
import torch
from scipy import stats
from statsmodels.stats.multitest import multipletests
from torch import Tensor

from txtlib.cohort import Cohort
from txtlib.model import TxT
from txtlib.training import Trained

GENES_AT_ONCE = 4_000  # genes x patients that go through the network together
ENTRIES = 1_000_000  # attention weights in memory at a time
NEWTON_STEPS = 30
LARGEST_STEP = 1.0  # in log hazard per SD: a full Newton step may overshoot where few patients have events
CONVERGED = 1e-6  # the last step, in log hazard per SD


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


def chosen_layers(network: TxT, layers: Iterable[int] | None) -> list[int]:
    """Return the layers in rising order, all if None; ValueError for one that is not there, and for none."""
    there = range(len(network.blocks))
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
    seen, training = [], network.training
    blocks = [network.blocks[layer] for layer in layers]
    hooks = [block.register_forward_pre_hook(lambda _, arguments: seen.append(arguments)) for block in blocks]
    try:
        network.eval().encode(x)
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    return [block.project(*arguments)[:2] for block, arguments in zip(blocks, seen, strict=True)]


# --- two arms of trainings ------------------------------------------------------------------------------------


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
    tested = _welch(multi.to_numpy(float), single[multi.columns].to_numpy(float))
    return _compared(multi, single, "multi", "single", *tested)


def _paired(first: pd.DataFrame, second: pd.DataFrame, *names: str) -> pd.DataFrame:
    _check_arms(first, second, "seed")
    if set(first.index) != set(second.index):
        raise ValueError(
            f"The arms are paired by seed, and have seeds {first.index.tolist()} and {second.index.tolist()}; train "
            "both with the same seeds."
        )
    second = second.loc[first.index, first.columns]
    with _undefined_is_nan():
        tested = stats.ttest_rel(first.to_numpy(float), second.to_numpy(float))
    defined = _varying((first - second).to_numpy(float))
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


def check_values(values: pd.DataFrame, row: str) -> None:
    """Raise ValueError for a name that is there twice, and for a value that is missing or infinite."""
    for what, names in ((row, values.index), ("column", values.columns)):
        if not names.is_unique:
            raise ValueError(f"The {what} '{names[names.duplicated()][0]}' is there more than once; give each once.")
    bad = ~np.isfinite(values.to_numpy(float))
    if bad.any():
        at, column = np.argwhere(bad)[0]
        raise ValueError(
            f"Column '{values.columns[column]}' has no finite value in {row} '{values.index[at]}'; fill it "
            "(Preprocessor.expression does), or leave it out."
        )


def fdr(p) -> np.ndarray:
    """Return Benjamini-Hochberg's adjusted p-values in the same order; NaN stays so and does not count as a test."""
    p = np.asarray(p, float)
    adjusted, known = p.copy(), ~np.isnan(p)
    if known.any():
        adjusted[known] = multipletests(p[known], method="fdr_bh")[1]
    return adjusted


# --- the plain twins: expression alone ------------------------------------------------------------------------


def group_tests(values: pd.DataFrame, group: pd.Series) -> pd.DataFrame:
    """Compare each column of values (n, F), e.g. genes, between the patients in a group and the others.

    ``group`` holds True or False by sample; only its samples take part. Returns a row per column, in their order:
    inside and outside (means), difference, auc (the chance that a patient inside has the higher value, ties count
    half), t, p_welch, fdr_welch, p_mannwhitney, fdr_mannwhitney (each Benjamini-Hochberg over columns), n_inside,
    n_outside and rank (1 for the largest |t|). Both tests are two-sided: Welch's that the means are equal, Mann and
    Whitney's that neither side tends to be higher; n = patients. NaN where a column is constant. Raises ValueError.
    """
    inside, outside = _groups(values, group)
    t, p = _welch(inside, outside)
    with _undefined_is_nan():
        u, p_u = stats.mannwhitneyu(inside, outside)
    p_u = np.where(_varying(np.concatenate([inside, outside])), p_u, np.nan)
    means = {"inside": inside.mean(0), "outside": outside.mean(0), "difference": inside.mean(0) - outside.mean(0)}
    tests = {"t": t, "p_welch": p, "fdr_welch": fdr(p), "p_mannwhitney": p_u, "fdr_mannwhitney": fdr(p_u)}
    sizes = {"n_inside": len(inside), "n_outside": len(outside), "rank": _rank(t)}
    return pd.DataFrame(means | {"auc": u / (len(inside) * len(outside))} | tests | sizes, values.columns)


def univariate_cox(values: pd.DataFrame, time: np.ndarray, event: np.ndarray) -> pd.DataFrame:
    """Fit a Cox regression to each column of values (n, F) alone, ties as Breslow's; 1,000 genes take a second.

    time and event (n,) are as from ``Cohort.outcome``, in the order of the rows; patients without them are left out.
    Returns a row per column, in their order: hazard_ratio per SD, z, p, fdr (Benjamini-Hochberg over columns), n,
    events and rank (1 for the largest |z|). p is that of Wald's two-sided test that the hazard ratio is 1, n = patients
    of whom ``events`` died. NaN where a column is constant, or orders the events perfectly. Raises ValueError.
    """
    check_values(values, "sample")
    known = ~np.isnan(time + event)
    time, event = time[known], event[known] == 1
    if not event.any():
        raise ValueError(f"None of the {len(time)} patients with an outcome has an event; Cox regression needs events.")
    with _undefined_is_nan():
        z = stats.zscore(values.to_numpy(float)[known], axis=0)
        beta, information = _newton(z[np.argsort(time, kind="stable")], *_in_order(time, event))
        wald = beta * np.sqrt(information)
    p = 2 * stats.norm.sf(np.abs(wald))
    found = {"hazard_ratio": np.exp(beta), "z": wald, "p": p, "fdr": fdr(p), "n": len(time), "events": event.sum()}
    return pd.DataFrame(found | {"rank": _rank(wald)}, values.columns)


def correlations(values: pd.DataFrame, label: pd.Series) -> pd.DataFrame:
    """Correlate each column of values (n, F) with a number per patient, by rank (Spearman).

    ``label`` holds numbers by sample; only its samples that have one take part. Returns a row per column, in their
    order: rho, p, fdr (Benjamini-Hochberg over columns), n and rank (1 for the largest |rho|). p is that of the
    two-sided t-test that rho is 0, n = patients. NaN where a column is constant. Raises ValueError.
    """
    label = label.dropna()
    values = _rows(values, label.index)
    if len(label) < 3 or label.nunique() < 2:
        raise ValueError(f"{len(label)} label(s) of {label.nunique()} value(s) correlate with nothing; give more.")
    ranks = stats.rankdata(values.to_numpy(float), axis=0)
    with _undefined_is_nan():
        rho, p = stats.pearsonr(ranks, stats.rankdata(label.to_numpy(float))[:, None], axis=0)
    return pd.DataFrame({"rho": rho, "p": p, "fdr": fdr(p), "n": len(label), "rank": _rank(rho)}, values.columns)


def _groups(values: pd.DataFrame, group: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    if group.dtype != bool:
        raise ValueError(
            f"A group is True or False for each sample, not {group.dtype}; compare the column with a value."
        )
    parts = [_rows(values, group.index[group == side]).to_numpy(float) for side in (True, False)]
    if min(map(len, parts)) < 2:
        raise ValueError(
            f"{len(parts[0])} patient(s) in the group and {len(parts[1])} outside; each needs two or more."
        )
    return parts[0], parts[1]


def _rows(values: pd.DataFrame, samples: pd.Index) -> pd.DataFrame:
    absent = samples.difference(values.index)
    if len(absent):
        raise ValueError(f"Sample '{absent[0]}' has a label but no values; give the labels of these patients only.")
    check_values(values, "sample")
    if not samples.is_unique:
        raise ValueError(f"Sample '{samples[samples.duplicated()][0]}' has more than one label; give each sample once.")
    return values.loc[samples]


def _welch(inside: np.ndarray, outside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    with _undefined_is_nan():
        found = stats.ttest_ind(inside, outside, equal_var=False)
    defined = _varying(np.concatenate([inside, outside]))
    return tuple(np.where(defined, each, np.nan) for each in found)


def _rank(statistic: np.ndarray) -> np.ndarray:
    return pd.Series(np.abs(statistic)).rank(ascending=False).to_numpy()


def _in_order(time: np.ndarray, event: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return, in order of time, the rows of events, and for each the first row with its time: who is at risk."""
    order = np.argsort(time, kind="stable")
    rows = np.flatnonzero(event[order])
    return rows, np.searchsorted(time[order], time[order][rows])


def _newton(z: np.ndarray, rows: np.ndarray, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return beta and information (F,) of one Cox regression per column of z (n, F), rows in order of time."""
    beta = np.zeros(z.shape[1])
    for _ in range(NEWTON_STEPS):
        score, information = _score(z, beta, rows, first)
        step = np.clip(score / information, -LARGEST_STEP, LARGEST_STEP)
        beta = beta + step
        if not (np.abs(step) > CONVERGED).any():
            break
    ended = np.abs(step) <= CONVERGED
    return np.where(ended, beta, np.nan), np.where(ended, _score(z, beta, rows, first)[1], np.nan)


def _score(z: np.ndarray, beta: np.ndarray, rows: np.ndarray, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first and minus the second derivative of the log partial likelihood by beta, (F,) each."""
    hazard = np.exp(beta * z)
    total, mean, square = (np.cumsum((hazard * z**power)[::-1], 0)[::-1][first] for power in range(3))
    mean, square = mean / total, square / total
    return (z[rows] - mean).sum(0), (square - mean**2).sum(0)


def _undefined_is_nan() -> warnings.catch_warnings:
    """Keep scipy and numpy silent where a statistic of constant numbers is undefined: the table says NaN."""
    return warnings.catch_warnings(action="ignore", category=RuntimeWarning)


def _varying(values: np.ndarray) -> np.ndarray:
    return np.ptp(values, 0) > 0  # a variance of 0 may come out as 1e-17
