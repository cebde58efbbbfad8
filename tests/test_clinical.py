"""Clinical columns as numbers."""

import numpy as np
import pandas as pd
import pytest
from helpers import relabelled

from txtlib.cohort import CohortError
from txtlib.peers.clinical import Design, columns_of


@pytest.fixture
def cohort(build):
    rng = np.random.default_rng(0)
    stage = pd.Series(rng.choice(["II", "I", "III"], 60)).where(np.arange(60) != 4)
    return relabelled(
        build(60), Stage=stage.to_numpy(), Node=rng.integers(0, 2, 60) == 1, Same=0.1
    )  # whose computed SD is not 0


def test_a_design_equals_one_made_cell_by_cell(cohort):
    train, new = cohort.take(cohort.samples[:40]), cohort.take(cohort.samples[40:])
    design = Design(train, ["Stage", "Age", "Node", "Same"])
    age = train.clinical["Age"].dropna()
    assert age.size == 39 and design.width == 7
    for part in (train, new):
        table = design.table(part)
        assert table.shape == (len(part), 7) and table.dtype == np.float32
        for row, patient in zip(table, part.clinical.itertuples(), strict=True):
            number = 0.0 if np.isnan(patient.Age) else (patient.Age - age.mean()) / age.std(ddof=0)
            classes = [patient.Stage == stage for stage in ("I", "II", "III")]
            np.testing.assert_allclose(row, [number, 0.0, *classes, not patient.Node, patient.Node], atol=1e-6)
    assert (design.table(train).mean(0)[:2] < 1e-6).all() and (design.table(train)[4, 2:5] == 0).all()


def test_a_class_that_the_training_part_does_not_have_is_0_in_all_columns(cohort):
    table = Design(cohort, ["Stage"]).table(relabelled(cohort, Stage=["IV", None] * 30))
    assert table.shape == (60, 3) and (table == 0).all()


def test_a_number_that_is_the_same_for_all_is_0(cohort):
    assert cohort.clinical["Same"].std(ddof=0) > 0  # by rounding, and nothing to divide by
    assert np.abs(Design(cohort, ["Same"]).table(cohort)).max() < 1e-6


def test_no_columns_are_a_table_without_any(cohort):
    assert Design(cohort, ()).table(cohort).shape == (60, 0)


def test_numbers_may_come_as_text_or_be_missing_altogether(cohort):
    design = Design(cohort, ["Age"])
    as_text = relabelled(cohort, Age=cohort.clinical["Age"].map(str, na_action="ignore"))
    np.testing.assert_allclose(design.table(as_text), design.table(cohort))
    assert (design.table(relabelled(cohort, Age=None)) == 0).all()


def test_what_cannot_be_read_is_refused_in_a_sentence(cohort):
    with pytest.raises(CohortError, match="no column 'Menopause'; choose other columns"):
        columns_of(cohort, ["Age", "Menopause"])
    with pytest.raises(CohortError, match="no column 'Menopause'"):
        Design(cohort, ["Menopause"])
    with pytest.raises(CohortError, match="no training patient has a value of 'Stage'"):
        Design(relabelled(cohort, Stage=None), ["Stage"])
    design = Design(cohort, ["Age"])
    with pytest.raises(CohortError, match="'Age' holds numbers in the training part and not here"):
        design.table(relabelled(cohort, Age="old"))
    with pytest.raises(CohortError, match="no column 'Age'"):
        design.table(cohort.__class__(cohort.expression, cohort.clinical[[]], (), cohort.about))
