"""What two clusters of patients and their attention graphs say of the claims C9 to C12: entries of the results ledger.

Conditions (LEAST_VARYING, EQUAL, a C9 that holds) can only leave a claim undecided. LEAST_VARYING was added after first
trials, whose graphs were the same in nearly all patients; the other rules came before any of their numbers.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from txtlib import ledger
from txtlib.comparisons import over_splits
from txtlib.ledger import REPRODUCED, Entry

SIGNS = {  # the sets that C11 names, and 1 where it says that they mark the worse cluster
    "HALLMARK_INFLAMMATORY_RESPONSE": -1,
    "HALLMARK_COAGULATION": 1,
    "HALLMARK_EPITHELIAL_MESENCHYMAL_TRANSITION": 1,
}
PAIR = ("SERPINE1", "PLAU")  # of which C12 speaks
LEAST_VARYING = 0.05  # share of the genes that must be marked in some patients and not in others
EQUAL = 0.5  # SDs: expression is called equal where the interval of its difference lies within
SHARE = 0.02  # of the genes: a number of differing genes within it is none


# --- rows ---------------------------------------------------------------------------------------------------------


def log_ratio(row: pd.Series) -> dict[str, float]:
    """Return the log hazard ratio of a row of ``pooled_tests``, 95 %: {mean, low, high}.

    Patients of cross-fitted clusters are not independent: where permuted outcomes make the pooled z vary more than
    its 1, Wald's interval is widened by as much (``null_sd``). NaN where the ratio is.
    """
    mean, low, high = np.log(row[["hazard_ratio", "low", "high"]].to_numpy(float))
    wider = max(1.0, float(row["null_sd"]))
    return {"mean": mean, "low": mean - (mean - low) * wider, "high": mean + (high - mean) * wider}


def beyond_null(observed: Sequence[float], null: np.ndarray) -> dict[str, float]:
    """Return by how much a mean over S networks lies above the same mean under a null: {mean, low, high}.

    observed (S,), null (S, draws): draw by draw over all networks. The interval holds the middle 95 % of the null: the
    difference leaves out 0 where the observed mean is beyond 97.5 % of the draws. It is about chance in the groups of
    these patients, for these networks.
    """
    mean, means = float(np.mean(observed)), np.asarray(null, float).mean(0)
    low, high = np.quantile(means, [0.025, 0.975])
    return {"mean": mean - float(means.mean()), "low": mean - float(high), "high": mean - float(low)}


def varying(marks: pd.DataFrame, least: float = 0.05) -> float:
    """Return the share of genes that are marked in ``least`` of the patients or more, and not in as many; (n, G)."""
    shares = marks.mean()
    return float(((shares >= least) & (shares <= 1 - least)).mean())


def expression_differences(values: pd.DataFrame, worse: np.ndarray) -> pd.DataFrame:
    """Return each column's mean among the worse less that among the others, in SDs: difference, low, high, p.

    values (n, m) and worse (n,). Welch's 95 % interval and two-sided p that the means are equal, n = patients. The SD
    is that of all patients; NaN for a constant column.
    """
    worse = np.asarray(worse, bool)
    scaled = (values - values.mean()) / values.std().where(values.std() > 0)
    rows = {name: _welch(scaled[name].to_numpy(float), worse) for name in values}
    return pd.DataFrame(rows, ["difference", "low", "high", "p"]).T


def _welch(values: np.ndarray, worse: np.ndarray) -> list[float]:
    if np.isnan(values).any():
        return [np.nan] * 4
    found = stats.ttest_ind(values[worse], values[~worse], equal_var=False)
    low, high = found.confidence_interval(0.95)
    return [values[worse].mean() - values[~worse].mean(), low, high, found.pvalue]


# --- entries ------------------------------------------------------------------------------------------------------


def clusters_entry(row: pd.Series, **about) -> Entry:
    """C9: the cluster that was worse among other patients is worse here, by ``log_ratio``; ``about`` as ``claim``'s."""
    found = log_ratio(row)
    if not np.isfinite(list(found.values())).all():
        why = "one of the two clusters has no event among patients who did not choose it"
        return ledger.not_attempted("C9", cohort=about["cohort"], why=why)
    return ledger.claim("C9", {"log hazard ratio, worse to better cluster": found.values()}, **about)


def genes_entry(counts: Mapping[str, tuple], n_genes: int, share: float, **about) -> Entry:
    """C10: more genes differ than under each null.

    counts {compared: (observed (S,), null (S, draws))}: numbers of genes. ``share`` is that of ``varying`` genes,
    averaged over networks: below LEAST_VARYING the graphs are the same in all patients, and nothing is decided.
    """
    rows = {name: (*beyond_null(*one).values(), SHARE * n_genes) for name, one in counts.items()}
    still = share < LEAST_VARYING
    note = f"{share:.0%} of the genes are marked in some patients and not in others"
    about["note"] = "; ".join(filter(None, [f"decides nothing: {note}" if still else note, about.get("note", "")]))
    return ledger.claim("C10", rows, undecided=list(rows) if still else (), **about)


def sets_entry(scores: Mapping[str, tuple], survival: Entry, share: float, **about) -> Entry:
    """C11: each set that the article names stands out in its cluster, by more than in random cuts.

    scores {set: (observed (S,), null (S, draws))}: ``set_contrasts``, above 0 where the set marks the worse cluster.
    Undecided where the graphs do not vary (``genes_entry``), or where better and worse are names only (C9 of the same
    cohort is not reproduced).
    """
    named = {name: scores[name] for name in SIGNS if name in scores}
    if not named:
        why = "none of the three sets that the claim names has enough of these genes"
        return ledger.not_attempted("C11", cohort=about["cohort"], why=why)
    rows = {f"{name} marks the {_side(name)} cluster": _turned(SIGNS[name], *one) for name, one in named.items()}
    still = share < LEAST_VARYING or survival.verdict != REPRODUCED
    absent = [f"without {name}" for name in SIGNS if name not in named]
    about["note"] = "; ".join(filter(None, [*absent, *_reasons(share, survival), about.get("note", "")]))
    return ledger.claim("C11", rows, undecided=list(rows) if still else (), partial=bool(absent), **about)


def _side(name: str) -> str:
    return "worse" if SIGNS[name] > 0 else "better"


def _turned(sign: int, observed: Sequence[float], null: np.ndarray) -> list[float]:
    return list(beyond_null(sign * np.asarray(observed), sign * np.asarray(null)).values())


def _reasons(share: float, survival: Entry) -> list[str]:
    said = {
        "decides nothing: the graphs hardly vary between patients": share < LEAST_VARYING,
        "decides nothing: better and worse are names only, see C9": survival.verdict != REPRODUCED,
    }
    return [reason for reason, holds in said.items() if holds]


def pair_entry(
    auc: pd.DataFrame, expression: pd.DataFrame, pair: Sequence[str], sizes: tuple[float, float], **about
) -> Entry:
    """C12: attention in both directions is higher in the worse cluster, and expression is not different.

    auc (directions, networks): the chance that a patient of the worse cluster has the higher attention, each network
    on test patients of its own; mean less 0.5 over networks with the interval of ``over_splits``, ``sizes`` the mean
    numbers of training and test patients. ``expression`` is the table of ``expression_differences`` of both genes:
    unless both intervals lie within +-EQUAL SDs, attention may have followed expression, and nothing is decided.
    """
    if set(pair) != set(PAIR):
        why = f"{' and '.join(PAIR)} are not both measured, or not looked at, here"
        return ledger.not_attempted("C12", cohort=about["cohort"], why=why)
    several = auc.shape[1] > 1  # networks; one has no spread, and nor have those that agree to the last digit
    rows = {f"attention {name}": over_splits(row.to_numpy() - 0.5, *sizes) for name, row in auc.iterrows() if several}
    if not rows or any(row.isna().any() for row in rows.values()):
        why = "there are not two networks with patients in both clusters whose attention differs"
        return ledger.not_attempted("C12", cohort=about["cohort"], why=why)
    alike = bool((expression["low"] > -EQUAL).all() and (expression["high"] < EQUAL).all())
    reason = "" if alike else f"decides nothing: expression is not shown to be equal within {EQUAL:g} SD"
    about["note"] = "; ".join(filter(None, [reason, about.get("note", "")]))
    return ledger.claim("C12", rows, undecided=() if alike else list(rows), **about)
