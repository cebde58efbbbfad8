import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from txtlib.losses import mtlr_scores
from txtlib.survival import risk, rmst, survival_at, survival_curves

EDGES = np.array([1.0, 3.0, 4.0, 8.0])
logits = arrays(float, (3, 4), elements=st.floats(-200, 200))


@given(logits)
@settings(deadline=None, max_examples=100)
def test_curves_never_rise_and_stay_within_0_and_1(psi):
    curves = survival_curves(psi)
    assert np.isfinite(curves).all() and (curves >= 0).all() and (curves <= 1).all()
    assert (np.diff(curves, axis=1) <= 0).all()


@given(arrays(float, (3, 4), elements=st.floats(-5, 5)))
@settings(deadline=None, max_examples=50)
def test_curves_are_the_mass_after_each_edge(psi):
    mass = mtlr_scores(torch.from_numpy(psi)).softmax(1).numpy()
    expected = np.array([[row[k + 1 :].sum() for k in range(4)] for row in mass])
    np.testing.assert_allclose(survival_curves(psi), expected, atol=1e-12)


def test_a_curve_starts_at_1_and_is_straight_between_edges():
    curve = np.array([[0.8, 0.4, 0.4, 0.0]])
    np.testing.assert_allclose(survival_at(curve, EDGES, [0, 0.5, 1, 2, 4, 6, 8]), [[1, 0.9, 0.8, 0.6, 0.4, 0.2, 0]])


@given(logits, st.floats(0.1, 8.0))
@settings(deadline=None, max_examples=50)
def test_rmst_equals_a_fine_sum(psi, horizon):
    curves = survival_curves(psi)
    times = np.linspace(0, horizon, 20_001)
    middle = (times[1:] + times[:-1]) / 2
    expected = survival_at(curves, EDGES, middle).mean(1) * horizon
    np.testing.assert_allclose(rmst(curves, EDGES, horizon), expected, atol=1e-3)


def test_risk_is_one_minus_survival_at_the_horizon():
    np.testing.assert_allclose(risk(np.array([[0.8, 0.4, 0.4, 0.0]]), EDGES, 3.0), [0.6])


@pytest.mark.parametrize("horizon", [8.1, -1.0])
def test_beyond_the_grid_nothing_is_known(horizon):
    with pytest.raises(ValueError, match=r"known from time 0 to 8.*choose an earlier horizon"):
        risk(np.full((1, 4), 0.5), EDGES, horizon)


def published_risk(curves):
    """The released code's score: hazards f_j / S_{j+1} summed over cells, and summed again over time."""
    steps = np.concatenate([np.ones((len(curves), 1)), curves, np.full((len(curves), 1), 1e-7)], 1)
    hazard = (steps[:, :-2] - steps[:, 1:-1]) / steps[:, 1:-1]
    return np.cumsum(hazard, 1).sum(1)


@given(st.integers(0, 1000))
@settings(deadline=None, max_examples=30)
def test_risk_at_a_horizon_does_not_see_how_the_tail_is_split(seed):
    # D5: curves equal up to the horizon, the mass beyond it dealt out at random; only the released score moves
    generator = np.random.default_rng(seed)
    edges = np.arange(1.0, 11.0)
    start = np.sort(generator.uniform(0.5, 1, (6, 5)))[:, ::-1]
    tails = [start[:, -1:] * (1 - np.cumsum(generator.dirichlet(np.ones(6) * 0.3, 6), 1)[:, :5]) for _ in range(2)]
    one, other = (np.concatenate([start, np.clip(tail, 1e-7, 1)], 1) for tail in tails)
    np.testing.assert_array_equal(risk(one, edges, 5.0), risk(other, edges, 5.0))
    np.testing.assert_array_equal(rmst(one, edges, 5.0), rmst(other, edges, 5.0))
    assert not np.allclose(published_risk(one), published_risk(other), rtol=0.01)
