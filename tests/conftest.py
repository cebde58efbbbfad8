"""Fixtures that several test files share."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from txtlib.cohort import Cohort, Task, load_cohort, make_cohort

REPOSITORY = Path(__file__).parents[1]
COHORTS = Path(os.environ.get("TXT_DATA") or REPOSITORY.parent / "shared" / "data" / "cohorts")
FOLDERS = sorted(path.parent for path in COHORTS.glob("*/tasks.csv"))
NO_DATA = "no cohort folder found; to run this on real data: TXT_DATA=FOLDER_OF_COHORT_FOLDERS make test"
TASKS = (
    Task("Age", "regression", ("Age",)),
    Task("Grade", "classification", ("Grade",)),
    Task("OS", "survival", ("OS_duration", "OS_event")),
)


@pytest.fixture(
    scope="session",
    params=FOLDERS or [pytest.param(None, marks=pytest.mark.skip(reason=NO_DATA))],
    ids=lambda folder: folder.name if folder else "none",
)
def real_cohort(request) -> Cohort:
    return load_cohort(request.param)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    if not FOLDERS:
        pytest.skip(NO_DATA)
    return COHORTS


@pytest.fixture(scope="session")
def build():
    return build_cohort


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
