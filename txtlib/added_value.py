"""Does a risk say more than age and clinic do? Ranking within bands, and what a risk adds to clinical columns."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy import stats

import txtlib.resampled as resampled
from txtlib.bootstrap import patient_counts
from txtlib.cohort import Cohort, CohortError
from txtlib.external import Cox, cox, log_cumulative_hazard, until
from txtlib.metrics import Outcome, harrell_c
from txtlib.peers.coxnet import partial_log_likelihood
from txtlib.peers.tabular import FOLDS, folds
from txtlib.predictions import Predictions

WITHIN = "C within bands"

# --- ranking within bands -------------------------------------------------------------------------------------


def partial_c(outcome: Outcome, risk: np.ndarray, strata: np.ndarray) -> float:
    """Return Harrell's C among the pairs of one stratum (n,) only: what is left where both have the same age.

    Each comparable pair weighs the same, so large strata count most; a patient whose stratum is missing is in no
    pair. ``txtlib.external.until`` cuts the outcome at a horizon. What varies within a stratum is not taken away: age
    still tells a little within bands of ten years. NaN without a comparable pair.
    """
    return float(partial_c_samples(outcome, risk, strata, np.ones((1, len(risk))))[0])


def partial_c_samples(outcome: Outcome, risk: np.ndarray, strata: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return ``partial_c`` in each bootstrap sample, (R,); a row of counts (R, n) says how often each was drawn."""
    won, pairs = np.zeros(len(counts)), np.zeros(len(counts))
    for stratum in pd.unique(np.asarray(strata)[pd.notna(strata)]):
        inside = np.flatnonzero(strata == stratum)
        mine, drawn = tuple(part[inside] for part in outcome), counts[:, inside]
        comparable = _comparable(*mine)
        gap = risk[inside][:, None] - risk[inside]
        first = comparable * np.where(np.abs(gap) <= resampled.TIED, 0.5, gap > 0)
        won += ((drawn @ first) * drawn).sum(1)
        pairs += ((drawn @ comparable) * drawn).sum(1)
    return np.divide(won, pairs, out=np.full(len(counts), np.nan), where=pairs > 0)


def _comparable(time: np.ndarray, event: np.ndarray) -> np.ndarray:
    """Return (n, n): 1 where the first has an event while the second is known to be free of it."""
    later = (time[:, None] < time) | ((time[:, None] == time) & (event != 1))
    return ((event == 1)[:, None] & later).astype(float)


def bands(values: np.ndarray, width: float) -> np.ndarray:
    """Return the lower end of each value's band, (n,): 60 for 63 in bands of 5 or 10; NaN stays."""
    if not width > 0:
        raise ValueError(f"width is above 0, in the unit of the values, not {width}.")
    return np.floor(np.asarray(values, float) / width) * width


def within_bands(
    table: pd.DataFrame, answers: Callable[[str], pd.DataFrame], cohort: Cohort, column: str, width: float
) -> pd.DataFrame:
    """Return rows of a benchmark's table for one more measure, ``WITHIN``: ``partial_c`` in bands of a column.

    A row for each finished cell of ``table`` that answers the survival task, follow-up cut at the cell's horizon.
    ``answers(cell)`` is what ``txtlib.benchmark.answer_of`` returns.
    """
    endpoint, strata = cohort.survival_task.name, pd.Series(bands(cohort.clinical[column], width), cohort.samples)
    rows = table[(table["task"] == endpoint) & table["error"].isna()].drop_duplicates("cell")
    scores = []
    for cell, horizon in zip(rows["cell"], rows["horizon"], strict=True):
        risk = answers(cell)[endpoint]
        outcome = until(cohort.take(risk.index).outcome(), horizon)
        scores.append(partial_c(outcome, risk.to_numpy(), strata[risk.index].to_numpy()))
    return rows.assign(measure=WITHIN, score=scores)


# --- beside clinical columns ----------------------------------------------------------------------------------


def linear_predictor(answer: Predictions, horizon: float) -> np.ndarray:
    """Return what a Cox regression takes of an answer, (n,): the score that it ranks by, else log(-log S(horizon))."""
    return log_cumulative_hazard(answer.risk(horizon)) if answer.score is None else answer.score


def added_value(
    test: Cohort,
    columns: list[str],
    risk: np.ndarray,
    horizon: float,
    resamples: int = 500,
    seed: int = 0,
    level: float = 0.95,
) -> pd.Series:
    """Return what a frozen risk adds to clinical columns up to the horizon, among patients that it was not made on.

    Two Cox regressions are fitted on these patients, on the clinical columns and on these with the risk (n,), higher
    is worse, best on the scale of ``linear_predictor``. They get what the columns can give here, so that a risk that
    only knows the columns better than another cohort's model does adds nothing. "chi-square" and "p" are those of the
    likelihood ratio, one degree of freedom; "log hazard ratio" with low and high is that of one SD of the risk, the
    columns held fixed (NaN where all risks are equal). Below 0 the risk points the wrong way here: whatever p and
    delta C say is then to the credit of its opposite, and no value of the method.

    "delta C" is the difference of Harrell's C, each patient's log hazard being that of regressions without the
    patient's fold (5 folds, drawn from ``seed``), or more columns would always rank better; its low and high are of the
    patient bootstrap with these log hazards, "C, clinical" and "C, with risk" its parts.

    Missing numbers become the median, classes 0/1 columns, a missing class one of its own. Raises CohortError for a
    missing column, and for fewer than two events for each fold.
    """
    outcome, known = _known(test, horizon)
    clinical = _design(test, columns)[known]
    risk = np.asarray(risk, float)[known]
    both = np.column_stack([clinical, _scaled(risk)])
    fits, likelihoods = zip(*(_fit(table, outcome) for table in (clinical, both)), strict=True)
    chi_square = max(0.0, 2 * (likelihoods[1] - likelihoods[0]))
    ratio = fits[1].coefficients[0, -1] if both[:, -1].any() else np.nan
    reach = stats.norm.ppf(0.5 + level / 2) * np.sqrt(np.linalg.inv(fits[1].information[0])[-1, -1])
    found = {"n": len(risk), "events": int(outcome[1].sum()), "chi-square": chi_square}
    found |= {"p": stats.chi2.sf(chi_square, 1), "log hazard ratio": ratio}
    found |= {"log hazard ratio, low": ratio - reach, "log hazard ratio, high": ratio + reach}
    counts = patient_counts(test, resamples, seed)[:, known]
    scores = [_left_out(table, outcome, test.patients().to_numpy()[known], seed) for table in (clinical, both)]
    return pd.Series(found | _delta_c(outcome, *scores, counts, level))


def _fit(x: np.ndarray, outcome: Outcome) -> tuple[Cox, float]:
    """Return the regression on x (n, p) and its log partial likelihood."""
    fit = cox(x, outcome, np.inf, np.ones((1, len(x))))
    return fit, float(partial_log_likelihood(x @ fit.coefficients.T, outcome[0], outcome[1] == 1)[0])


def _delta_c(outcome: Outcome, without: np.ndarray, score: np.ndarray, counts: np.ndarray, level: float) -> dict:
    c = [harrell_c(outcome, one) for one in (without, score)]
    draws = [resampled.harrell_c(outcome, one, counts) for one in (without, score)]
    low, high = np.nanquantile(draws[1] - draws[0], [(1 - level) / 2, (1 + level) / 2])
    return dict(zip(("C, clinical", "C, with risk"), c, strict=True)) | {
        "delta C": c[1] - c[0],
        "delta C, low": low,
        "delta C, high": high,
    }


def _left_out(x: np.ndarray, outcome: Outcome, patients: np.ndarray, seed: int) -> np.ndarray:
    """Return each patient's log hazard (n,) by a regression without the patient's fold; all have one origin."""
    fold = folds(outcome[1], FOLDS, seed, patients)
    rest = (fold != np.arange(FOLDS)[:, None]).astype(float)
    return np.einsum("np,np->n", x, cox(x, outcome, np.inf, rest).coefficients[fold])


def _design(cohort: Cohort, columns: list[str]) -> np.ndarray:
    """Return numbers and 0/1 columns with mean 0 and SD 1, (n, p); one that tells nothing is 0."""
    missing = [name for name in columns if name not in cohort.clinical]
    if missing or not columns:
        what = f"no column {missing[0]!r}; choose other columns" if missing else "no column chosen; name some"
        raise CohortError(f"{cohort.name}: the clinical table has {what}.")
    chosen = cohort.clinical[list(columns)]
    numeric = chosen.select_dtypes("number").astype(float)
    parts = [values.fillna(values.median()) for _, values in numeric.items()]
    for _, values in chosen.drop(columns=numeric.columns).items():
        told = values.astype(object).where(values.notna(), "unknown").astype(str)
        parts += [told == level for level in sorted(told.unique())[1:]]
    return np.column_stack([_scaled(np.asarray(part, float)) for part in parts or [np.zeros(len(cohort))]])


def _scaled(values: np.ndarray) -> np.ndarray:
    varies = np.ptp(values) > 1e-9 * np.abs(values).max()  # the SD of equal numbers may come out as 1e-17
    return (values - values.mean()) / values.std() if varies else np.zeros(len(values))


def _known(cohort: Cohort, horizon: float) -> tuple[Outcome, np.ndarray]:
    time, event = until(cohort.outcome(), horizon)
    known = ~np.isnan(event)
    events = int(event[known].sum())
    if events < 2 * FOLDS:
        raise CohortError(
            f"{cohort.name}: {events} events by {horizon:g}, where {2 * FOLDS} or more are needed to say what a risk "
            "adds; take a larger test part, or a later horizon."
        )
    return (time[known], event[known]), known
