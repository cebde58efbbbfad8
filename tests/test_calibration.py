import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import KaplanMeierFitter
from SurvivalEVAL import d_calibration as of_survivaleval

from txtlib.calibration import d_calibration

EDGES = np.arange(1.0, 41.0)


def exponential(generator, n, rate=0.08, follow_up=(5, 60)):
    time, censoring = generator.exponential(1 / rate, n), generator.uniform(*follow_up, n)
    return np.minimum(time, censoring), (time <= censoring).astype(float)


def shares_by_loops(outcome, curves, horizon, bins):
    """Spread the patients one by one, bin by bin, as Haider et al. write it."""
    held = np.zeros(bins)
    for time, event, curve in zip(*outcome, curves, strict=True):
        level = np.interp(min(time, horizon), [0.0, *EDGES], [1.0, *curve])
        for k in range(bins):
            low, high = k / bins, (k + 1) / bins
            inside = low <= level < high or (k == bins - 1 and level == 1)
            if event and time <= horizon:
                held[k] += inside
            elif inside:
                held[k] += (level - low) / level if level else 1
            elif high <= level:
                held[k] += (high - low) / level
    return held / len(curves)


@given(st.integers(0, 10_000), st.sampled_from([4, 10]))
@settings(deadline=None, max_examples=25)
def test_shares_by_loops(seed, bins):
    generator = np.random.default_rng(seed)
    outcome = exponential(generator, 30)
    curves = np.sort(generator.random((30, 40)))[:, ::-1]
    found = d_calibration(outcome, curves, EDGES, 30.0, bins)
    np.testing.assert_allclose(found.shares, shares_by_loops(outcome, curves, 30.0, bins), atol=1e-12)
    assert found.shares.sum() == pytest.approx(1) and 0 <= found.p <= 1


@given(st.integers(0, 10_000))
@settings(deadline=None, max_examples=25)
def test_equal_to_survivaleval(seed):
    generator = np.random.default_rng(seed)
    time, event = exponential(generator, 80)
    curves = np.sort(generator.random((80, 40)))[:, ::-1]
    level = np.array([np.interp(min(t, 30), [0.0, *EDGES], [1.0, *row]) for t, row in zip(time, curves, strict=True)])
    _, p, held = of_survivaleval(level, (event == 1) & (time <= 30), 10)
    found = d_calibration((time, event), curves, EDGES, 30.0)
    assert found.p == pytest.approx(p)
    np.testing.assert_allclose(found.shares, held[::-1] / 80, atol=1e-12)


def test_the_ends_of_the_scale():
    sure = np.array([[1.0], [1.0], [0.0], [0.0]])
    outcome = np.full(4, 1.0), np.array([1.0, 0.0, 1.0, 0.0])
    found = d_calibration(outcome, sure, np.array([1.0]), 1.0)
    # event at S = 1: highest bin; censored there: anywhere; at S = 0 both are in the lowest
    np.testing.assert_allclose(found.shares * 4, [2.1, *[0.1] * 8, 1.1])


def test_the_kaplan_meier_curve_of_other_patients_of_the_same_law_passes_and_a_shift_by_half_fails():
    p = {"same": [], "shifted": []}
    for seed in range(20):
        generator = np.random.default_rng(seed)
        others, outcome = exponential(generator, 2000), exponential(generator, 200)
        curve = KaplanMeierFitter().fit(*others).survival_function_at_times(EDGES).to_numpy()
        for name, answer in (("same", curve), ("shifted", np.clip(curve - 0.5, 0, 1))):
            p[name].append(d_calibration(outcome, np.tile(answer, (200, 1)), EDGES, 40.0).p)
    assert np.mean(np.array(p["same"]) > 0.05) >= 0.9 and max(p["shifted"]) < 1e-6


def test_what_happens_after_the_horizon_changes_nothing():
    generator = np.random.default_rng(0)
    time, event = exponential(generator, 50)
    curves = np.sort(generator.random((50, 40)))[:, ::-1]
    late = time > 20
    other = np.where(late, 20 + generator.exponential(9, 50), time), np.where(late, 1 - event, event)
    first, second = (d_calibration(outcome, curves, EDGES, 20.0) for outcome in ((time, event), other))
    assert late.any() and first.p == second.p
    np.testing.assert_array_equal(first.shares, second.shares)


def test_curves_that_end_before_the_horizon_are_refused():
    with pytest.raises(ValueError, match="known from time 0 to 40"):
        d_calibration((np.array([50.0]), np.array([0.0])), np.full((1, 40), 0.5), EDGES, 50.0)
