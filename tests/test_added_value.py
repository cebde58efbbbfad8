from dataclasses import replace
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import CoxPHFitter
from scipy import stats

from txtlib.added_value import WITHIN, added_value, bands, linear_predictor, partial_c, partial_c_samples, within_bands
from txtlib.benchmark import Method, answer_of, run
from txtlib.cohort import CohortError, load_cohort
from txtlib.comparisons import spread
from txtlib.external import until
from txtlib.metrics import harrell_c
from txtlib.peers.floors import clinical_cox, trivial
from txtlib.planted import planted
from txtlib.predictions import Predictions

# --- ranking within bands -----------------------------------------------------------------------------------------


def by_loops(outcome, risk, strata):
    """Look at each ordered pair of patients."""
    time, event = outcome
    won = pairs = 0.0
    for i, j in permutations(range(len(risk)), 2):
        if strata[i] == strata[j] and event[i] and (time[i] < time[j] or (time[i] == time[j] and not event[j])):
            pairs += 1
            won += 0.5 if risk[i] == risk[j] else risk[i] > risk[j]
    return won / pairs if pairs else np.nan


def draw(seed, n=40, groups=3):
    generator = np.random.default_rng(seed)
    outcome = generator.integers(1, 15, n).astype(float), (generator.random(n) < 0.6).astype(float)
    return outcome, generator.integers(0, 12, n).astype(float), generator.integers(0, groups, n).astype(float)


@given(st.integers(0, 10_000), st.sampled_from([2, 5, 40]))
@settings(deadline=None, max_examples=30)
def test_partial_c_by_loops_and_on_the_rows_of_a_sample(seed, groups):
    outcome, risk, strata = draw(seed, groups=groups)
    assert partial_c(outcome, risk, strata) == pytest.approx(by_loops(outcome, risk, strata), nan_ok=True)
    rows = np.random.default_rng(seed).integers(0, 40, 40)
    counts = np.bincount(rows, minlength=40)[None].astype(float)
    found = partial_c_samples(outcome, risk, strata, counts)[0]
    alone = by_loops(tuple(part[rows] for part in outcome), risk[rows], strata[rows])
    assert found == pytest.approx(alone, nan_ok=True)


@given(st.integers(0, 10_000))
@settings(deadline=None, max_examples=20)
def test_one_stratum_is_harrells_c_and_a_reversed_risk_its_complement(seed):
    outcome, risk, strata = draw(seed)
    assert partial_c(outcome, risk, np.zeros(40)) == pytest.approx(harrell_c(outcome, risk))
    found = partial_c(outcome, risk, strata)
    assert partial_c(outcome, -risk, strata) == pytest.approx(1 - found)
    assert partial_c(outcome, np.exp(risk) + 100 * strata, strata) == pytest.approx(found)  # other strata play no part


def test_a_missing_stratum_is_in_no_pair_and_words_do_as_well():
    outcome, risk, strata = draw(1)
    hidden = np.where(np.arange(40) < 10, np.nan, strata)
    kept = tuple(part[10:] for part in outcome)
    assert partial_c(outcome, risk, hidden) == pytest.approx(partial_c(kept, risk[10:], strata[10:]))
    words = np.array([f"class {value:g}" for value in strata], object)
    assert partial_c(outcome, risk, words) == pytest.approx(partial_c(outcome, risk, strata))
    words[:10] = None
    assert partial_c(outcome, risk, words) == pytest.approx(partial_c(kept, risk[10:], strata[10:]))
    assert np.isnan(partial_c(outcome, risk, np.arange(40)))


def test_bands():
    assert bands([63, 65, 69.9, 70], 5).tolist() == [60, 65, 65, 70] and np.isnan(bands([np.nan], 5))[0]
    with pytest.raises(ValueError, match="width is above 0"):
        bands([63], 0)


@pytest.fixture(scope="module")
def world():
    """Age counts, and so do genes."""
    return planted(n=600, n_genes=40, seed=2, event_rate=0.4, main_effect=0.8, interaction=0.0, age_effect=0.1)


def planted_risks(world):
    """Return what age says, and what the genes of the hazard say."""
    age = world.truth.labels["Age"].to_numpy(float)
    genes = world.truth.linear_predictor.to_numpy() - world.truth.age_coefficient * (age - 65)
    return age, genes


def test_within_bands_age_says_little_and_genes_as_much_as_before(world):
    outcome, (age, genes) = world.cohort.outcome(), planted_risks(world)
    c = {name: harrell_c(outcome, risk) for name, risk in (("age", age), ("genes", genes))}
    within = {name: partial_c(outcome, risk, bands(age, 2)) for name, risk in (("age", age), ("genes", genes))}
    assert c["age"] > 0.7 and abs(within["age"] - 0.5) < 0.06
    assert within["genes"] > c["genes"] - 0.02
    assert abs(partial_c(outcome, age, bands(age, 10)) - 0.5) > abs(within["age"] - 0.5)  # what a wide band leaves


def test_within_bands_is_one_more_measure_of_a_benchmark(tmp_path):
    cohort = load_cohort("gse7390").with_tasks("Age", "DM")
    methods = [Method("constant", trivial), Method("age", clinical_cox, {"columns": ["Age"]}, kinds=("survival",))]
    table = run(methods, cohort, tmp_path, data_seeds=[0, 1], workers=1, progress=False)
    found = within_bands(table, lambda cell: answer_of(tmp_path, cell), cohort, "Age", 10)
    assert set(found.columns) == set(table.columns) and len(found) == 4 and set(found["task"]) == {"DM"}
    assert (found.loc[found["method"] == "constant", "score"] == 0.5).all()
    row = found[(found["method"] == "age") & (found["data_seed"] == 1)].iloc[0]
    risk = answer_of(tmp_path, row["cell"])["DM"]
    outcome = until(cohort.take(risk.index).outcome(), row["horizon"])
    strata = cohort.clinical.loc[risk.index, "Age"].to_numpy() // 10
    assert row["score"] == pytest.approx(by_loops(outcome, risk.to_numpy(), strata))
    assert list(spread(pd.concat([table, found]), "DM", WITHIN).index) == ["constant", "age"]


# --- beside clinical columns --------------------------------------------------------------------------------------


LATE = 1e6  # days: after everybody's last visit


def table_of(cohort):
    time, event = cohort.outcome()
    return cohort.clinical[["Age", "Size"]].assign(T=time, E=event)


@pytest.fixture(scope="module")
def whole(world):
    """Return patients with all labels, and what age and genes say of them."""
    labels = world.truth.labels
    clinical = world.cohort.clinical.assign(**{name: labels[name] for name in ("Age", "Size")})
    return replace(world.cohort, clinical=clinical), *planted_risks(world)


def test_likelihood_ratio_and_hazard_ratio_by_lifelines(whole):
    cohort, _, genes = whole
    noisy = genes + np.random.default_rng(0).normal(size=len(genes))
    found = added_value(cohort, ["Age", "Size"], noisy, LATE, resamples=50)
    table = table_of(cohort)
    fits = [CoxPHFitter().fit(one, "T", "E") for one in (table, table.assign(R=stats.zscore(noisy)))]
    expected = 2 * (fits[1].log_likelihood_ - fits[0].log_likelihood_)
    assert found["chi-square"] == pytest.approx(expected, rel=1e-3)
    assert found["p"] == pytest.approx(stats.chi2.sf(expected, 1), rel=0.05)
    ends = fits[1].confidence_intervals_.loc["R"].to_numpy()
    assert found["log hazard ratio"] == pytest.approx(fits[1].params_["R"], rel=1e-3)
    np.testing.assert_allclose(
        found[["log hazard ratio, low", "log hazard ratio, high"]].astype(float), ends, rtol=1e-3
    )
    assert found["n"] == 600 and found["events"] == np.nansum(cohort.outcome()[1])


def test_genes_add_to_age_and_age_adds_nothing_to_itself(whole):
    cohort, age, genes = whole
    adds = added_value(cohort, ["Age"], genes, LATE, resamples=100)
    assert adds["p"] < 1e-10 and adds["delta C"] > 0.05 and adds["delta C, low"] > 0.02
    assert adds["delta C"] == pytest.approx(adds["C, with risk"] - adds["C, clinical"])
    assert adds["C, clinical"] == pytest.approx(harrell_c(cohort.outcome(), age), abs=0.01)
    again = added_value(cohort, ["Age"], 3 * age - 7, LATE, resamples=100)
    assert again["chi-square"] == pytest.approx(0, abs=0.01) and abs(again["delta C"]) < 0.005
    nothing = added_value(cohort, ["Age"], np.ones(600), LATE, resamples=10)
    assert nothing["chi-square"] == pytest.approx(0, abs=1e-6) and nothing["p"] == pytest.approx(1, abs=1e-3)
    assert nothing["delta C"] == 0 and np.isnan(nothing["log hazard ratio"])


def test_what_happens_after_the_horizon_plays_no_part(whole):
    cohort, _, genes = whole
    horizon = float(np.median(cohort.outcome()[0]))
    found = added_value(cohort, ["Age"], genes, horizon, resamples=20)
    time, event = cohort.outcome()
    seen = cohort.clinical.assign(OS_duration=np.minimum(time, horizon), OS_event=event * (time <= horizon))
    expected = added_value(replace(cohort, clinical=seen), ["Age"], genes, LATE, resamples=20)
    pd.testing.assert_series_equal(found, expected)
    assert found["events"] == np.sum(event * (time <= horizon)) < event.sum()


def test_noise_is_found_to_add_at_the_rate_of_the_test(world):
    cohort = world.cohort.take(world.cohort.samples[:150])
    found = [
        added_value(cohort, ["Age"], np.random.default_rng(seed).normal(size=150), LATE, resamples=5)
        for seed in range(60)
    ]
    p = np.array([one["p"] for one in found])
    assert 0 <= np.mean(p < 0.05) <= 0.15 and stats.kstest(p, "uniform").pvalue > 0.01
    assert np.mean([one["delta C"] for one in found]) < 0.002  # in-sample it would be above 0 in nearly each


def test_the_seed_decides_and_the_interval_holds_the_score(whole):
    cohort, _, genes = whole
    first, again = (added_value(cohort, ["Age"], genes, LATE, resamples=30, seed=4) for _ in range(2))
    pd.testing.assert_series_equal(first, again)
    assert first["delta C, low"] < first["delta C"] < first["delta C, high"]


def test_classes_gaps_and_constants_are_coped_with():
    cohort = load_cohort("gse7390")
    stage = np.where((cohort.clinical["DM_event"] == 0) & (np.arange(len(cohort)) % 19 == 0), "T0", "T2")
    clinical = cohort.clinical.assign(Stage=stage, Site="one", Rare=np.arange(len(cohort)) == 0)
    odd = replace(cohort, clinical=clinical.astype({"Rare": str}))
    assert odd.clinical["Grade"].isna().any()
    risk = np.random.default_rng(0).normal(size=len(odd))
    found = added_value(odd, ["Age", "Size", "Grade", "Stage", "Site", "Rare"], risk, LATE, resamples=20)
    assert found.notna().all() and len(found) == 12 and np.isfinite(found.astype(float)).all() and 0 <= found["p"] <= 1


def test_what_cannot_be_answered_is_said(whole):
    cohort, _, genes = whole
    with pytest.raises(CohortError, match="no column 'Stage'; choose other"):
        added_value(cohort, ["Age", "Stage"], genes, LATE)
    with pytest.raises(CohortError, match="no column chosen"):
        added_value(cohort, [], genes, LATE)
    few = cohort.take(cohort.samples[cohort.clinical["OS_event"] == 0]).samples[:100]
    some = cohort.samples[cohort.clinical["OS_event"] == 1][:9]
    rows = cohort.samples.get_indexer([*few, *some])
    with pytest.raises(CohortError, match=r"9 events by 1e\+06, where 10 or more"):
        added_value(cohort.take([*few, *some]), ["Age"], genes[rows], LATE)


def test_linear_predictor_is_the_score_or_the_log_cumulative_hazard():
    curves, edges = np.array([[0.9, 0.5], [0.8, 0.7]]), np.array([1.0, 2.0])
    answer = Predictions(pd.Index(["a", "b"]), edges, curves)
    np.testing.assert_allclose(linear_predictor(answer, 2.0), np.log(-np.log([0.5, 0.7])))
    assert linear_predictor(replace(answer, score=np.array([5.0, 1.0])), 2.0).tolist() == [5, 1]
