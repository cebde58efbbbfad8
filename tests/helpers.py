"""What the tests of several methods do with cohorts and answers."""

from dataclasses import replace

import numpy as np
import pandas as pd

from txtlib.cohort import Cohort, Task, make_cohort
from txtlib.metrics import harrell_c

TASKS = (
    Task("Age", "regression", ("Age",)),
    Task("Grade", "classification", ("Grade",)),
    Task("OS", "survival", ("OS_duration", "OS_event")),
)


def build_cohort(n: int = 60, genes: int = 12, seed: int = 0) -> Cohort:
    """Return n patients with every kind of task; a few values and labels are missing."""
    generator = np.random.default_rng(seed)
    samples = pd.Index([f"S{row:03d}" for row in range(n)], name="Sample")
    values = generator.normal(5, 1 + np.arange(genes), (n, genes)).astype(np.float32)
    values[generator.random((n, genes)) < 0.02] = np.nan
    clinical = pd.DataFrame(
        {
            "Age": generator.normal(60, 10, n),
            "Grade": generator.permutation(np.resize(["G1", "G2", "G3"], n)),
            "OS_duration": generator.exponential(1000, n),
            "OS_event": generator.permutation(np.resize([1.0, 0.0], n)),
        },
        samples,
    )
    for row, column in enumerate(clinical.columns):
        clinical.iloc[row, clinical.columns.get_loc(column)] = np.nan
    expression = pd.DataFrame(values, samples, [f"GENE{gene}" for gene in range(genes)])
    about = {"name": "a small cohort", "classes": {"Grade": ["G1", "G2", "G3"]}}
    return make_cohort(expression, clinical, TASKS, about)


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
