from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import CoxPHFitter, KaplanMeierFitter
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.util import Surv
from SurvivalEVAL.evaluations.calibration.single_time.integrated_calibration_index import integrated_calibration_index

from txtlib.bootstrap import patient_counts, score_draws
from txtlib.cohort import CohortError, split
from txtlib.comparisons import paired_difference, summary
from txtlib.decisions import net_benefit
from txtlib.external import (
    CALIBRATION,
    CLIP,
    TRACE,
    by_subgroup,
    calibration,
    calibration_curve,
    calibration_draws,
    calibration_groups,
    calibration_slope,
    cox,
    event_risk,
    events_by,
    frozen_draws,
    log_cumulative_hazard,
    net_benefit_intervals,
    observed_risk,
    smooth_observed,
    subgroups,
    until,
)
from txtlib.metrics import LOWER_IS_BETTER, UNDIRECTED, uno_c
from txtlib.peers.floors import clinical_cox, trivial
from txtlib.planted import planted, second_site
from txtlib.predictions import Predictions

HORIZON = 4.0


def patients(seed, n=400, off=0.0, slope=1.0, ties=False):
    """Return (outcome, true risk, predicted risk): the predicted log cumulative hazard is (true - off) / slope."""
    generator = np.random.default_rng(seed)
    score = generator.normal(-1.5, 0.8, n)  # the true log cumulative hazard at the horizon
    time = HORIZON * generator.exponential(np.exp(-score))
    censoring = generator.uniform(2, 12, n)
    outcome = np.minimum(time, censoring), (time <= censoring).astype(float)
    if ties:
        outcome = np.ceil(outcome[0] * 4) / 4, outcome[1]
    return outcome, *(1 - np.exp(-np.exp(x)) for x in (score, (score - off) / slope))


def drawn(seed, n, resamples=3):
    """Return counts with everybody once in the first row, and the rows that each sample holds."""
    rows = np.random.default_rng(seed).integers(0, n, (resamples, n))
    counts = np.array([np.bincount(row, minlength=n) for row in [np.arange(n), *rows]], float)
    return counts, [np.repeat(np.arange(n), row.astype(int)) for row in counts]


# --- Kaplan-Meier and Cox on samples ------------------------------------------------------------------------------


@given(st.integers(0, 10_000), st.booleans())
@settings(deadline=None, max_examples=20)
def test_cox_on_samples_equals_scikit_survival_on_their_rows(seed, ties):
    outcome, _, risk = patients(seed, 120, ties=ties)
    x = np.column_stack([log_cumulative_hazard(risk), np.random.default_rng(seed).normal(size=120)])
    counts, samples = drawn(seed, 120)
    found, hazards, _ = cox(x, outcome, HORIZON, counts)
    for coefficients, hazard, rows in zip(found, hazards, samples, strict=True):
        time, event = outcome[0][rows], (outcome[1] == 1)[rows]
        event, time = event & (time <= HORIZON), np.minimum(time, HORIZON + 1e-9)
        model = CoxPHSurvivalAnalysis(alpha=TRACE, ties="breslow").fit(x[rows], Surv.from_arrays(event, time))
        np.testing.assert_allclose(coefficients, model.coef_, rtol=1e-5, atol=1e-6)
        assert hazard == pytest.approx(float(model.cum_baseline_hazard_(HORIZON)), rel=1e-5)


@given(st.integers(0, 10_000), st.booleans())
@settings(deadline=None, max_examples=20)
def test_observed_risk_equals_lifelines_on_the_rows_of_each_sample(seed, ties):
    outcome, *_ = patients(seed, 60, ties=ties)
    counts, samples = drawn(seed, 60)
    for found, rows in zip(observed_risk(outcome, HORIZON, counts), samples, strict=True):
        curve = KaplanMeierFitter().fit(outcome[0][rows], outcome[1][rows])
        assert found == pytest.approx(1 - curve.predict(HORIZON))


def test_a_sample_in_which_nobody_is_followed_to_the_horizon_has_no_observed_risk():
    outcome = np.array([1.0, 2.0, 9.0]), np.array([1.0, 0.0, 0.0])
    found = observed_risk(outcome, HORIZON, np.array([[1.0, 1.0, 1.0], [2.0, 1.0, 0.0]]))
    assert found[0] == pytest.approx(1 / 3) and np.isnan(found[1])


def test_a_column_that_parts_events_from_the_others_has_a_finite_coefficient():
    time, event = np.arange(1.0, 41.0) / 20, np.r_[np.ones(20), np.zeros(20)]
    found, hazard, _ = cox(np.where(event == 1, 1.0, -1.0)[:, None], (time, event), HORIZON, np.ones((1, 40)))
    assert np.isfinite(found).all() and np.isfinite(hazard).all() and 2 < found[0, 0] < 30


def test_until_cuts_follow_up_and_keeps_what_is_unknown():
    time, event = until((np.array([1.0, 4.0, 5.0, np.nan]), np.array([1.0, 1.0, 1.0, np.nan])), HORIZON)
    np.testing.assert_array_equal(time, [1, 4, 4, np.nan])
    np.testing.assert_array_equal(event, [1, 1, 0, np.nan])
    outcome, *_ = patients(0)
    assert events_by(outcome, HORIZON) == until(outcome, HORIZON)[1].sum()


# --- calibration --------------------------------------------------------------------------------------------------


@given(st.integers(0, 10_000))
@settings(deadline=None, max_examples=15)
def test_slope_equals_lifelines_cox(seed):
    outcome, _, risk = patients(seed, 150, slope=0.6)
    table = pd.DataFrame({"x": log_cumulative_hazard(risk), "T": np.minimum(outcome[0], HORIZON)})
    table["E"] = (outcome[1] == 1) & (outcome[0] <= HORIZON)
    expected = CoxPHFitter().fit(table, "T", "E").params_["x"]
    found = calibration_slope(outcome, risk, HORIZON, np.ones((1, 150)))[0]
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-4)


@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.8]), st.sampled_from([0.5, 1.0, 2.0]))
@settings(deadline=None, max_examples=20)
def test_distances_equal_survivaleval(seed, off, slope):
    outcome, _, risk = patients(seed, 200, off, slope)
    risk = risk.clip(CLIP, 1 - CLIP)  # beyond, SurvivalEVAL sees how near to 0 and 1 a risk is
    cut = np.minimum(outcome[0], HORIZON + 1e-9), (outcome[1] == 1) & (outcome[0] <= HORIZON)
    expected = integrated_calibration_index(risk, *cut, HORIZON)
    found = calibration(outcome, risk, HORIZON, np.ones((1, 200)))
    for name in ("ICI", "E50", "E90"):
        assert found[name][0] == pytest.approx(expected[name], rel=1e-3, abs=1e-5)
    np.testing.assert_allclose(
        smooth_observed(outcome, risk, HORIZON, np.ones((1, 200)), expected["curve"]["grid"])[0],
        expected["curve"]["cal_pred"],
        atol=5e-4,
    )


@given(st.integers(0, 10_000))
@settings(deadline=None, max_examples=10)
def test_measures_of_a_sample_equal_those_of_its_rows_alone(seed):
    outcome, _, risk = patients(seed, 200, ties=True)
    counts, samples = drawn(seed, 200, resamples=1)
    found = calibration(outcome, risk, HORIZON, counts)
    rows = samples[1]
    alone = calibration(tuple(part[rows] for part in outcome), risk[rows], HORIZON, np.ones((1, 200)))
    for name in ("calibration slope", "observed / expected"):
        assert found[name][1] == pytest.approx(alone[name][0], rel=1e-3)
    for name in ("ICI", "E50", "E90"):  # the knots lie elsewhere
        assert found[name][1] == pytest.approx(alone[name][0], abs=0.03)


def test_the_truth_is_calibrated_and_what_is_off_is_found():
    outcome, truth, _ = patients(0, 20_000)
    right = calibration(outcome, truth, HORIZON, np.ones((1, 20_000)))
    assert right["calibration slope"][0] == pytest.approx(1, abs=0.05)
    assert right["observed / expected"][0] == pytest.approx(1, abs=0.03) and right["E90"][0] < 0.03
    outcome, truth, steep = patients(0, 20_000, slope=0.5)
    assert calibration(outcome, steep, HORIZON, np.ones((1, 20_000)))["calibration slope"][0] == pytest.approx(
        0.5, abs=0.05
    )
    found = calibration(outcome, truth / 2, HORIZON, np.ones((1, 20_000)))
    assert found["observed / expected"][0] == pytest.approx(2, abs=0.06)
    assert found["ICI"][0] == pytest.approx(truth.mean() / 2, abs=0.01)


@given(st.integers(0, 10_000), st.floats(0.3, 3))
@settings(deadline=None, max_examples=10)
def test_the_slope_undoes_a_stretch_and_does_not_see_a_shift(seed, stretch):
    outcome, truth, _ = patients(seed, 200)
    x = np.clip(log_cumulative_hazard(truth), -6, 1.5) / 3
    plain, other = (1 - np.exp(-np.exp(score)) for score in (x, x * stretch - 0.2))
    slopes = [calibration_slope(outcome, risk, HORIZON, np.ones((1, 200)))[0] for risk in (plain, other)]
    assert slopes[1] * stretch == pytest.approx(slopes[0], rel=1e-6)


def test_one_risk_for_all_has_no_slope_and_is_as_far_off_as_its_mean():
    outcome, *_ = patients(3, 300)
    found = calibration(outcome, np.full(300, 0.4), HORIZON, np.ones((2, 300)))
    nelson_aalen = 1 - np.exp(-cox(np.zeros((300, 1)), outcome, HORIZON, np.ones((1, 300)))[1][0])
    assert np.isnan(found["calibration slope"]).all()
    np.testing.assert_allclose([found["ICI"], found["E90"]], abs(nelson_aalen - 0.4))
    assert found["observed / expected"][0] == pytest.approx(nelson_aalen / 0.4, rel=0.02)


def test_risks_with_few_values_have_no_bend():
    outcome, truth, _ = patients(1, 300)
    binary = np.where(truth > np.quantile(truth, 0.95), 0.6, 0.2)  # all three knots at one value
    seen = smooth_observed(outcome, binary, HORIZON, np.ones((1, 300)), np.array([0.2, 0.6]))[0]
    by_group = [
        observed_risk(tuple(p[binary == v] for p in outcome), HORIZON, np.ones((1, (binary == v).sum())))[0]
        for v in (0.2, 0.6)
    ]
    np.testing.assert_allclose(seen, by_group, atol=0.1)


def test_too_few_events_are_no_measure():
    outcome, _, risk = patients(0, 300)
    few = outcome[0], outcome[1] * (np.cumsum(outcome[1]) <= 9)
    assert all(np.isnan(values).all() for values in calibration(few, risk, HORIZON, np.ones((2, 300))).values())


def test_certain_answers_count_as_one_in_ten_thousand():
    found = log_cumulative_hazard(np.array([0.0, 1e-4, 1 - 1e-4, 1.0]))
    assert np.isfinite(found).all() and found[0] == found[1] and found[2] == found[3]
    assert found[1] == pytest.approx(np.log(-np.log(1 - 1e-4)))


def test_groups_by_hand():
    outcome, _, risk = patients(5, 500)
    table = calibration_groups(outcome, risk, HORIZON, groups=4)
    assert table["n"].tolist() == [125] * 4 and table["events"].sum() == events_by(outcome, HORIZON)
    for k, rows in enumerate(np.array_split(np.argsort(risk), 4)):
        curve = KaplanMeierFitter().fit(outcome[0][rows], outcome[1][rows])
        assert table["predicted"][k] == pytest.approx(risk[rows].mean())
        assert table["observed"][k] == pytest.approx(1 - curve.predict(HORIZON))
        assert table["low"][k] < table["observed"][k] < table["high"][k]
    assert len(calibration_groups(outcome, np.full(500, 0.3), HORIZON)) == 1
    early = outcome[0].clip(max=3.0), np.where(outcome[0] > 3, 0, outcome[1])
    assert calibration_groups(early, risk, HORIZON, groups=2)[["observed", "low", "high"]].isna().all(axis=None)


def test_the_curve_of_the_truth_is_the_diagonal():
    outcome, truth, _ = patients(2, 2000)
    counts, _ = drawn(0, 2000, resamples=60)
    curve = calibration_curve(outcome, truth, HORIZON, counts[1:])
    assert (curve["low"] <= curve["high"]).all() and np.abs(curve["observed"] - curve["predicted"]).max() < 0.1
    assert ((curve["low"] <= curve["predicted"]) & (curve["predicted"] <= curve["high"])).mean() > 0.8
    assert curve["predicted"].iloc[[0, -1]].tolist() == pytest.approx(np.quantile(truth, [0.01, 0.99]))


# --- decisions ----------------------------------------------------------------------------------------------------


def test_net_benefit_equals_dcurves_for_all_and_on_the_rows_of_a_sample():
    outcome, _, risk = patients(7, 300)
    counts, samples = drawn(1, 300, resamples=1)
    thresholds = [0.1, 0.2, 0.4]
    found = net_benefit_intervals(outcome, {"ours": risk}, HORIZON, thresholds, counts[1:])
    expected = net_benefit(outcome, {"ours": risk}, HORIZON, thresholds)
    assert found["model"].tolist() == expected["model"].tolist()
    np.testing.assert_allclose(found["net benefit"], expected["net benefit"])
    alone = net_benefit(tuple(part[samples[1]] for part in outcome), {"ours": risk[samples[1]]}, HORIZON, thresholds)
    np.testing.assert_allclose(found["low"], alone["net benefit"])  # of one sample, both ends of the interval
    nobody = net_benefit_intervals(outcome, {"none": risk * 0}, HORIZON, [0.5], counts)
    assert (nobody[nobody["model"] == "none"][["net benefit", "low", "high"]] == 0).all(axis=None)


# --- a frozen model on another cohort -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def frozen():
    """Return (site, answers): age alone and a constant of one site, on another with far more events."""
    world = planted(n=400, n_genes=40, seed=5, event_rate=0.3, age_effect=0.05)
    site = second_site(world, n=300, seed=3, event_rate=0.6).cohort
    parts = split(world.cohort, seed=0)
    fitted = {"age": clinical_cox(), "constant": trivial()}
    return parts.train, site, {name: one.fit(parts.train, None).predict(site) for name, one in fitted.items()}


DAYS = 3000.0


def test_weights_come_from_the_external_cohort_itself(frozen):
    train, site, answers = frozen
    draws = frozen_draws(answers, site, DAYS, resamples=20)
    pd.testing.assert_frame_equal(draws, score_draws(answers, site, site, DAYS, 20))
    weighted_by_itself = uno_c(site.outcome(), site.outcome(), answers["age"].risk(DAYS), DAYS)
    assert draws.loc[0, ("age", "OS", "Uno's C")] == pytest.approx(weighted_by_itself)
    assert weighted_by_itself != uno_c(train.outcome(), site.outcome(), answers["age"].risk(DAYS), DAYS)


def test_draws_of_calibration_join_those_of_the_scores(frozen):
    _, site, answers = frozen
    ranks = Predictions(site.samples, score=np.arange(len(site)))
    found = calibration_draws(answers | {"ranks": ranks}, site, DAYS, resamples=30, seed=1)
    assert set(found.columns) == {(name, "OS", measure) for name in answers for measure in CALIBRATION}
    assert len(found) == 31 and found.columns.names == ["method", "task", "measure"]
    table = summary(found).xs("OS", level="task")
    row = table.loc[("age", "calibration slope")]
    assert row["low"] < row["score"] < row["high"] and table.loc[("constant", "calibration slope")].isna().all()
    again = calibration_draws(answers, site, DAYS, resamples=30, seed=1)
    pd.testing.assert_frame_equal(found, again)


HIGHER_IS_BETTER = [
    *("Harrell's C", "Uno's C", "AUC at horizon", "time-dependent AUC", "Brier skill", "Pearson", "Spearman"),
    *("accuracy", "balanced accuracy", "macro precision", "macro F1", "macro AUROC"),
]


def test_every_measure_has_a_direction_or_is_said_to_have_none(frozen):
    _, site, answers = frozen
    drawn = [function(answers, site, DAYS, resamples=1) for function in (frozen_draws, calibration_draws)]
    names = {name for draws in drawn for name in draws.columns.get_level_values("measure")}
    names |= set(by_subgroup(answers, site, subgroups(site, {"Age": [60]}), DAYS, 2)["measure"])
    assert sorted([*LOWER_IS_BETTER, *UNDIRECTED, *HIGHER_IS_BETTER]) == sorted(names)  # and each is in one of them


def test_nearer_to_what_was_observed_is_better_and_a_slope_is_not_compared(frozen):
    _, site, answers = frozen
    far = replace(answers["age"], survival=answers["age"].survival ** 0.2)
    draws = calibration_draws({"age": answers["age"], "far": far}, site, DAYS, resamples=20)
    found = paired_difference(draws, "age", "far").loc["OS"]
    assert list(found.index) == ["ICI", "E50", "E90"] and (found["score"] > 0.05).all()


def test_patients_without_an_outcome_are_left_out(frozen):
    _, site, answers = frozen
    clinical = site.clinical.copy()
    clinical.iloc[::7, clinical.columns.get_loc("OS_event")] = np.nan
    partly = replace(site, clinical=clinical)
    known = np.arange(len(site)) % 7 != 0
    fewer = site.take(site.samples[known])
    risk = event_risk(answers["age"], DAYS)[known]
    found = calibration_draws(answers, partly, DAYS, resamples=2)
    expected = calibration(fewer.outcome(), risk, DAYS, np.ones((1, known.sum())))
    assert found.loc[0, ("age", "OS", "ICI")] == pytest.approx(expected["ICI"][0])
    groups = subgroups(partly, {"PAM50": []})
    assert by_subgroup({"age": answers["age"]}, partly, groups, DAYS, 5)["n"].max() < known.sum()


def test_a_method_that_ranks_by_a_score_is_calibrated_by_its_curves():
    curves = np.array([[0.9, 0.5], [0.8, 0.7]])
    answer = Predictions(pd.Index(["a", "b"]), np.array([1.0, 2.0]), curves, score=np.array([5.0, -3.0]))
    np.testing.assert_allclose(event_risk(answer, 2.0), [0.5, 0.3])


# --- subgroups ----------------------------------------------------------------------------------------------------


def test_subgroups_share_out_all_patients(build):
    cohort = build(60)
    found = subgroups(cohort, {"Age": [50, 65], "Grade": []})
    names = [group for column, group in found if column == "Age"]
    assert names == ["under 50", "50 to 65", "65 and over", "unknown"]
    for column in ("Age", "Grade"):
        assert (sum(members for (name, _), members in found.items() if name == column) == 1).all()
    age = cohort.clinical["Age"].to_numpy()
    np.testing.assert_array_equal(found["Age", "50 to 65"], (age >= 50) & (age < 65))
    np.testing.assert_array_equal(found["Age", "unknown"], np.isnan(age))
    assert [group for column, group in found if column == "Grade"] == ["G1", "G2", "G3", "unknown"]
    with pytest.raises(CohortError, match="no column 'Stage'"):
        subgroups(cohort, {"Stage": []})


def test_by_subgroup_by_hand(frozen):
    _, site, answers = frozen
    groups = {**subgroups(site, {"Age": [50, 70]}), ("few", "few"): np.arange(len(site)) < 8}
    table = by_subgroup({"age": answers["age"]}, site, groups, DAYS, resamples=40, seed=2)
    few = table[table["group"] == "few"]
    assert few[["score", "low", "high"]].isna().all(axis=None) and set(few["note"]) == {"too few events"}
    rows = table[table["group"] == "50 to 70"].set_index("measure")
    inside = groups["Age", "50 to 70"]
    mine, risk = tuple(part[inside] for part in site.outcome()), answers["age"].risk(DAYS)[inside]
    assert (rows["n"] == inside.sum()).all() and (rows["events"] == events_by(mine, DAYS)).all()
    assert rows.loc["Uno's C", "score"] == pytest.approx(uno_c(site.outcome(), mine, risk, DAYS))
    observed = 1 - KaplanMeierFitter().fit(*mine).predict(DAYS)
    assert rows.loc["observed / expected", "score"] == pytest.approx(observed / risk.mean())
    slope = calibration_slope(mine, risk, DAYS, np.ones((1, len(risk))))[0]
    assert rows.loc["calibration slope", "score"] == pytest.approx(slope)
    assert (rows["low"] < rows["high"]).all() and (rows["note"] == "").all()


def test_a_subgroup_is_drawn_as_it_is_in_the_whole_cohort(frozen):
    _, site, answers = frozen
    everybody = {("all", "all"): np.ones(len(site), bool)}
    table = by_subgroup({"age": answers["age"]}, site, everybody, DAYS, resamples=50, seed=3).set_index("measure")
    whole = summary(calibration_draws({"age": answers["age"]}, site, DAYS, 50, seed=3)).xs("OS", level="task")
    for measure in ("calibration slope", "observed / expected"):
        np.testing.assert_allclose(
            table.loc[measure, ["score", "low", "high"]].astype(float), whole.loc[("age", measure)], rtol=1e-6
        )
    assert patient_counts(site, 2, 3).shape == (2, len(site))


def test_a_method_without_curves_is_only_ranked(frozen):
    _, site, _ = frozen
    ranks = Predictions(site.samples, score=site.clinical["Age"].fillna(60).to_numpy())
    table = by_subgroup({"ranks": ranks}, site, subgroups(site, {"Age": [65]}), DAYS, resamples=5)
    scored = table.dropna(subset="score")
    assert set(scored["measure"]) == {"Uno's C"} and len(scored)
