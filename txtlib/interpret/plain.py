"""What plain numbers per patient say without any network: the twins beside which attention has to be shown.

Columns are usually genes' expression, but any numbers per patient will do, a gene's attention too.
"""

import warnings

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

NEWTON_STEPS = 30
LARGEST_STEP = 1.0  # in log hazard per SD: a full Newton step may overshoot where few patients have events
CONVERGED = 1e-6  # the last step, in log hazard per SD


def group_tests(values: pd.DataFrame, group: pd.Series) -> pd.DataFrame:
    """Compare each column of values (n, F), e.g. genes, between the patients in a group and the others.

    ``group`` holds True or False by sample; only its samples take part. Returns a row per column, in their order:
    inside and outside (means), difference, auc (the chance that a patient inside has the higher value, ties count
    half), t, pwelch, fdrwelch, p_mannwhitney, fdr_mannwhitney (each Benjamini-Hochberg over columns), n_inside,
    n_outside and rank (1 for the largest |t|). Both tests are two-sided: Welch's that the means are equal, Mann and
    Whitney's that neither side tends to be higher; n = patients. NaN where a column is constant. Raises ValueError.
    """
    inside, outside = _groups(values, group)
    t, p = welch(inside, outside)
    with undefined_is_nan():
        u, p_u = stats.mannwhitneyu(inside, outside)
    p_u = np.where(varying(np.concatenate([inside, outside])), p_u, np.nan)
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
    with undefined_is_nan():
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
    with undefined_is_nan():
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


def welch(inside: np.ndarray, outside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return t and p of Welch's test for each column of (n, F) and (m, F); NaN where a column is constant."""
    with undefined_is_nan():
        found = stats.ttest_ind(inside, outside, equal_var=False)
    defined = varying(np.concatenate([inside, outside]))
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


def undefined_is_nan() -> warnings.catch_warnings:
    """Keep scipy and numpy silent where a statistic of constant numbers is undefined: the table says NaN."""
    return warnings.catch_warnings(action="ignore", category=RuntimeWarning)


def varying(values: np.ndarray) -> np.ndarray:
    """Say which columns of (n, F) hold more than one value."""
    return np.ptp(values, 0) > 0  # a variance of 0 may come out as 1e-17


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
