import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from txtlib.pretrain.imputers import IMPUTERS, Pattern, covariance_of, error_draws, ridge_imputer, told_linearly


def correlated(n, genes=15, axes=3, noise=0.3, seed=0):
    drawn = np.random.default_rng(seed)
    weights = np.random.default_rng(7).normal(size=(axes, genes))
    x = drawn.normal(size=(n, axes)) @ weights + noise * drawn.normal(size=(n, genes))
    return x / np.sqrt((weights**2).sum(0) + noise**2)


SIZES = {"train": (200, 0), "validation": (40, 1), "test": (60, 2)}
PARTS = {part: correlated(n, seed=seed) for part, (n, seed) in SIZES.items()}


@given(st.integers(1, 14), st.sampled_from([0.03, 0.3, 3.0]))
@settings(max_examples=20, deadline=None)
def test_telling_linearly_is_scikit_learns_ridge(observed, penalty):
    train, x = PARTS["train"], PARTS["test"].copy()
    x[:, observed:] = np.nan
    model = Ridge(penalty * len(train), fit_intercept=False).fit(train[:, :observed], train[:, observed:])
    found = told_linearly(x, covariance_of(train), penalty)
    np.testing.assert_allclose(found[:, observed:], model.predict(x[:, :observed]).reshape(len(x), -1), atol=1e-8)
    np.testing.assert_array_equal(found[:, :observed], x[:, :observed])


@pytest.mark.parametrize("name", IMPUTERS)
@pytest.mark.parametrize("how", ["at random", "low values"])
def test_an_imputer_fills_what_is_missing_and_nothing_else(name, how):
    pattern = Pattern(0.4, how)
    hidden = pattern.hide(PARTS["test"])
    holed = np.where(hidden, np.nan, PARTS["test"])
    kept = {part: x.copy() for part, x in PARTS.items()}
    found = IMPUTERS[name](PARTS["train"], PARTS["validation"], pattern)(holed)
    assert np.isfinite(found).all() and found.shape == holed.shape
    np.testing.assert_allclose(found[~hidden], holed[~hidden])
    assert all((PARTS[part] == x).all() for part, x in kept.items())


@pytest.mark.parametrize("name", [name for name in IMPUTERS if name != "mean"])
def test_an_imputer_that_looks_at_genes_beats_the_mean(name):
    pattern = Pattern(0.3)
    hidden = pattern.hide(PARTS["test"])
    holed = np.where(hidden, np.nan, PARTS["test"])
    told = {key: IMPUTERS[key](PARTS["train"], PARTS["validation"], pattern)(holed) for key in (name, "mean")}
    errors = error_draws(told, PARTS["test"], hidden, np.zeros((0, 60))).loc[0]
    assert errors[name] < 0.8 * errors["mean"]


@pytest.mark.parametrize("name", IMPUTERS)
def test_holes_in_the_training_part_are_borne(name):
    train = PARTS["train"].copy()
    train[::7, 3], train[:, 5] = np.nan, np.nan
    holed = PARTS["test"].copy()
    holed[:, 4:6] = np.nan
    assert np.isfinite(IMPUTERS[name](train, PARTS["validation"], Pattern(0.2))(holed)).all()


def test_nothing_of_the_test_part_is_learned():
    fitted = ridge_imputer(PARTS["train"], PARTS["validation"], Pattern(0.5))
    one = PARTS["test"][:1].copy()
    one[:, 3:] = np.nan
    among = np.vstack([one, 100 * PARTS["test"]])
    np.testing.assert_allclose(fitted(among)[:1], fitted(one))


def test_errors_are_those_of_the_rows_drawn():
    x, told = PARTS["test"], {"a": PARTS["test"] + 1, "b": np.zeros_like(PARTS["test"])}
    hidden = Pattern(0.5).hide(x)
    rows = np.random.default_rng(0).integers(0, len(x), (5, len(x)))
    counts = np.stack([np.bincount(row, minlength=len(x)) for row in rows])
    found = error_draws(told, x, hidden, counts)
    np.testing.assert_allclose(found["a"], 1)
    for draw, row in enumerate([np.arange(len(x)), *rows]):
        assert found["b"][draw] == pytest.approx(np.sqrt((x[row][hidden[row]] ** 2).mean()))
