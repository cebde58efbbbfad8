from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from txtlib.benchmark import Method, run
from txtlib.cohort import CohortError, load_cohort, split
from txtlib.joining import AWAY, HOME, SITE, joined
from txtlib.metrics import uno_c
from txtlib.peers.floors import ClinicalCox, clinical_cox
from txtlib.plans import Plan, entrants
from txtlib.splits import fold_split, make_folds
from txtlib.transfer import fit_mapping

ELSEWHERE = {"name": "elsewhere", "column": SITE, "tested": AWAY}


@pytest.fixture(scope="module")
def pair():
    return load_cohort("planted"), load_cohort("planted_site2")


@pytest.fixture(scope="module")
def both(pair):
    return joined(*pair)


def test_a_joined_cohort_holds_both_with_what_both_have(pair, both):
    home, away = pair
    assert list(both.samples) == [*home.samples, *away.samples]
    assert both.clinical[SITE].value_counts().to_dict() == {HOME: len(home), AWAY: len(away)}
    assert set(both.expression) == set(home.expression) & set(away.expression)
    assert {task.name for task in both.tasks} == {task.name for task in home.tasks} & {t.name for t in away.tasks}
    at_home = both.clinical[SITE] == HOME
    pd.testing.assert_frame_equal(both.expression[at_home], home.expression[list(both.expression)])
    mapped = fit_mapping(home, away, "quantile").apply(away)
    pd.testing.assert_frame_equal(both.expression[~at_home], mapped.expression[list(both.expression)])
    for task in both.tasks:
        for column in task.columns:
            expected = [*home.clinical[column], *away.clinical[column]]
            assert both.clinical[column].fillna(-1).tolist() == pd.Series(expected).fillna(-1).tolist()


def test_times_are_in_the_unit_of_the_first(pair, both):
    home, away = pair
    column = home.survival_task.columns[0]
    years = replace(
        away,
        clinical=away.clinical.assign(**{column: away.clinical[column] / 365.25}),
        about=away.about | {"units": away.about.get("units", {}) | {column: "years"}},
    )
    days = replace(home, about=home.about | {"units": home.about.get("units", {}) | {column: "days"}})
    np.testing.assert_allclose(joined(days, years).outcome()[0], both.outcome()[0])


def test_a_sample_in_both_is_refused(pair):
    with pytest.raises(CohortError, match="600 samples are in both"):
        joined(pair[0], pair[0])


def test_elsewhere_all_of_one_site_is_tested_and_none_of_it_is_learned_from(pair, both):
    folds = make_folds(both, ELSEWHERE)
    parts = [fold_split(both, folds, seed) for seed in (0, 1, 25)]
    for part in parts:
        assert list(part.test.samples) == list(pair[1].samples)
        assert set(part.train.clinical[SITE]) == set(part.validation.clinical[SITE]) == {HOME}
        assert not set(part.train.samples) & set(part.validation.samples)
    assert set(parts[0].train.samples) != set(parts[1].train.samples)
    at_home = split(both.take(pair[0].samples), 1)
    assert list(parts[1].train.samples) == list(at_home.train.samples)


@pytest.mark.parametrize(
    "scheme, sentence",
    [
        ({**ELSEWHERE, "tested": "nowhere"}, "some, but not all, samples need 'nowhere' in the clinical column 'Site'"),
        ({**ELSEWHERE, "column": "Ward"}, "some, but not all, samples need 'away' in the clinical column 'Ward'"),
    ],
)
def test_a_site_that_is_not_there_is_named(both, scheme, sentence):
    with pytest.raises(CohortError, match=sentence):
        make_folds(both, scheme)


def test_a_cell_elsewhere_scores_the_other_cohort_by_its_own_censoring(both, pair, tmp_path):
    method = Method("age alone", clinical_cox, {"columns": ["Age"]}, kinds=("survival",))
    found = run([method], both, tmp_path, data_seeds=[0, 7], scheme=ELSEWHERE, workers=1, threads=1, progress=False)
    assert found["error"].isna().all() and set(found["n_test"]) == {len(pair[1])}
    part = fold_split(both, make_folds(both, ELSEWHERE), 7)
    part = [one.with_tasks(one.survival_task.name) for one in part]
    answer = ClinicalCox("Age").fit(part[0]).predict(part[2])
    row = found[(found["data_seed"] == 7) & (found["measure"] == "Uno's C")].iloc[0]
    outcome = part[2].outcome()
    assert row["score"] == pytest.approx(uno_c(outcome, outcome, answer.risk(row["horizon"]), row["horizon"]), abs=1e-9)


def test_a_plan_may_be_tested_elsewhere_and_then_has_no_scheme(both):
    plan = Plan("mine", "planted", elsewhere="planted_site2", tasks=["Age", "OS"], methods=["age alone"])
    cohort, _ = entrants(plan)
    assert set(cohort.clinical[SITE]) == {HOME, AWAY} and plan.folds == ELSEWHERE
    assert list(cohort.samples) == list(both.samples)
    assert Plan("mine", "planted", scheme={"name": "clusters"}).folds == {"name": "clusters"}
