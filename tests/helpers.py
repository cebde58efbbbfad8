"""What the tests of several methods do with cohorts and answers."""

from dataclasses import replace

import numpy as np

from txtlib.metrics import harrell_c


def draw(*shape, seed=0):
    """Return normal numbers, float32."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def relabelled(cohort, **columns):
    """Return the cohort with other clinical columns."""
    return replace(cohort, clinical=cohort.clinical.assign(**columns))


def with_permuted_outcomes(cohort, seed=1):
    """Return the cohort with outcomes that belong to other patients."""
    columns, order = list(cohort.survival_task.columns), np.random.default_rng(seed).permutation(len(cohort))
    return relabelled(cohort, **{name: cohort.clinical[name].to_numpy()[order] for name in columns})


def known(cohort, task, answer):
    """Return label and answer of the patients whose label is known."""
    seen = cohort.clinical[task].notna().to_numpy()
    return cohort.clinical[task].to_numpy()[seen], answer[seen]


def c_interval(cohort, risk):
    """Return the 95 % interval of Harrell's C of a risk (n,) over samples of the patients."""
    time, event = cohort.outcome()
    drawn = np.random.default_rng(0).integers(0, len(time), (200, len(time)))
    return np.quantile([harrell_c((time[rows], event[rows]), risk[rows]) for rows in drawn], [0.025, 0.975])
