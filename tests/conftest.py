"""Fixtures that several test files share."""

import os
from pathlib import Path

import pytest
from helpers import build_cohort

from txtlib.cohort import Cohort, load_cohort

REPOSITORY = Path(__file__).parents[1]
COHORTS = Path(os.environ.get("TXT_DATA") or REPOSITORY.parent / "shared" / "data" / "cohorts")
FOLDERS = sorted(path.parent for path in COHORTS.glob("*/tasks.csv"))
NO_DATA = "no cohort folder found; to run this on real data: TXT_DATA=FOLDER_OF_COHORT_FOLDERS make test"


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
