"""What a cohort is before any model sees it: counts, gaps and oddities, and how far age and clinic get."""

import numpy as np
import pandas as pd
from lifelines import KaplanMeierFitter

from txtlib.cohort import Cohort, split
from txtlib.metrics import harrell_c
from txtlib.peers.floors import ClinicalCox
from txtlib.survival import DAYS_PER_YEAR


def overview(cohort: Cohort) -> pd.Series:
    """Return what is in a cohort, one number for each name; durations are taken to be days."""
    values = cohort.expression.to_numpy()
    counts = {
        "samples": len(cohort),
        "patients": cohort.patients().nunique(),
        "genes": values.shape[1],
        "samples in one table only": sum(cohort.about.get("unmatched", {}).values()),
        "missing expression values": int(np.isnan(values).sum()),
        "genes with a missing value": int(np.isnan(values).any(0).sum()),
        "largest absolute value": float(np.nanmax(np.abs(values))),
        "missing labels": int(cohort.clinical[labels(cohort)].isna().to_numpy().sum()),
        "samples with every label": int(cohort.clinical[labels(cohort)].notna().all(axis=1).sum()),
    }
    return pd.Series(counts | (_follow_up(cohort) if cohort.survival_task else {}), name=cohort.name)


def labels(cohort: Cohort) -> list[str]:
    """Return the clinical columns that the tasks name."""
    return [column for task in cohort.tasks for column in task.columns]


def _follow_up(cohort: Cohort) -> dict[str, float]:
    time, event = cohort.outcome()
    known = ~np.isnan(event)
    reverse = KaplanMeierFitter().fit(time[known], 1 - event[known])
    return {
        "events": int(event[known].sum()),
        "event rate": event[known].mean(),
        "median follow-up (years)": reverse.median_survival_time_ / DAYS_PER_YEAR,
        "longest follow-up (years)": time[known].max() / DAYS_PER_YEAR,
        "zero durations": int((time[known] == 0).sum()),
    }


def cox_over_splits(cohort: Cohort, *columns: str, splits: int = 10) -> tuple[float, float]:
    """Return mean and SD of Harrell's C of a Cox model on clinical columns, over splits with the seeds 0, 1, ...

    Fitted on each training part and judged on each test part. The SD is over overlapping splits, so it is no
    standard error.
    """
    scores = []
    for seed in range(splits):
        train, _, test = split(cohort, seed)
        answer = ClinicalCox(*columns).fit(train).predict(test)
        known = ~np.isnan(test.outcome()[1])
        outcome = tuple(part[known] for part in test.outcome())
        scores.append(harrell_c(outcome, answer.risk(np.median(answer.edges))[known]))
    return float(np.mean(scores)), float(np.std(scores, ddof=1))
