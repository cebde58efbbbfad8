from dataclasses import replace

import numpy as np
import pytest
from lifelines import CoxPHFitter
from lifelines.utils import concordance_index

from txtlib.cohort import load_cohort, split
from txtlib.overview import cox_over_splits, overview
from txtlib.peers.floors import RIDGE


@pytest.fixture(scope="module")
def cohort():
    return load_cohort("gse7390")


def test_counts_are_those_of_the_tables(cohort):
    expression, clinical = cohort.expression.copy(), cohort.clinical.copy()
    expression.iloc[:3, 0] = np.nan
    expression.iloc[5, 1] = -123.0
    clinical.iloc[0, clinical.columns.get_loc("DM_duration")] = 0.0
    seen = overview(replace(cohort, expression=expression, clinical=clinical))
    assert (seen["samples"], seen["patients"], seen["genes"]) == (198, 198, 76)
    assert (seen["missing expression values"], seen["genes with a missing value"]) == (3, 1)
    assert seen["largest absolute value"] == 123.0
    assert (seen["missing labels"], seen["samples with every label"]) == (2, 196)
    assert (seen["events"], seen["zero durations"]) == (51, 1)
    assert seen["longest follow-up (years)"] == pytest.approx(cohort.outcome()[0][1:].max() / 365.25)


def test_a_cohort_without_survival_has_no_follow_up(cohort):
    assert "events" not in overview(cohort.with_tasks("Age"))


def test_cox_over_splits_equals_lifelines_split_by_split(cohort):
    scores = []
    for seed in range(3):
        train, _, test = split(cohort, seed)
        columns = ["Age", "Size", "DM_duration", "DM_event"]
        model = CoxPHFitter(penalizer=RIDGE).fit(train.clinical[columns], "DM_duration", "DM_event")
        hazard = model.predict_partial_hazard(test.clinical[["Age", "Size"]])
        scores.append(concordance_index(test.clinical["DM_duration"], -hazard, test.clinical["DM_event"]))
    assert cox_over_splits(cohort, "Age", "Size", splits=3) == pytest.approx((np.mean(scores), np.std(scores, ddof=1)))


@pytest.mark.parametrize("name, expected", [("scanb", 0.789), ("tcga_brca", 0.615), ("metabric_panel", 0.589)])
def test_age_alone_on_the_real_cohorts_is_near_the_floor_that_was_measured_before(data_folder, name, expected):
    mean, _ = cox_over_splits(load_cohort(data_folder / name), "Age", splits=10)
    assert mean == pytest.approx(expected, abs=0.04)
