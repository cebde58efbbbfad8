import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from txtlib.pretrain.masking import drawn_sets, hide, observed_first


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def values(n, genes, missing=0.0, seed=0):
    drawn = np.random.default_rng(seed)
    x = drawn.normal(size=(n, genes)).astype(np.float32)
    x[drawn.random(x.shape) < missing] = np.nan
    return x


# --- sets of a pretraining step -------------------------------------------------------------------------------


@given(st.integers(2, 30), st.integers(1, 29), st.integers(1, 29), st.integers(1, 40), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_what_is_asked_for_was_not_shown(genes, least, most, targets, seed):
    least, most = sorted(min(count, genes - 1) for count in (least, most))
    shown, asked = drawn_sets(torch.zeros(4, genes), (least, most), targets, generator(seed))
    assert least <= shown.shape[1] <= most and asked.shape[1] == min(targets, genes - shown.shape[1])
    for own, other in zip(shown.tolist(), asked.tolist(), strict=True):
        assert len({*own, *other}) == len(own) + len(other)


def test_sets_differ_between_patients_and_steps():
    drawn, x = generator(), torch.zeros(3, 40)
    first, second = (drawn_sets(x, (10, 10), 10, drawn)[0] for _ in range(2))
    rows = [tuple(row) for row in [*first.tolist(), *second.tolist()]]
    assert len(set(rows)) == 6


def test_sizes_are_spread_evenly_over_the_logarithm():
    drawn = generator()
    sizes = [drawn_sets(torch.zeros(1, 130), (8, 128), 1, drawn)[0].shape[1] for _ in range(2000)]
    assert min(sizes) == 8 and max(sizes) == 128
    assert 28 < np.median(sizes) < 36  # the geometric mean of 8 and 128 is 32


def test_missing_values_are_shown_and_asked_for_last():
    x = torch.from_numpy(values(50, 20, missing=0.3))
    shown, asked = drawn_sets(x, (6, 6), 6, generator())
    enough = (~x.isnan()).sum(1) >= 12
    assert enough.any() and not x.gather(1, torch.cat([shown, asked], 1))[enough].isnan().any()


@pytest.mark.parametrize("inputs, targets", [((0, 5), 3), ((5, 4), 3), ((3, 10), 3), ((3, 5), 0)])
def test_impossible_sets_are_refused(inputs, targets):
    with pytest.raises(ValueError, match="10 genes"):
        drawn_sets(torch.zeros(2, 10), inputs, targets, generator())


@given(st.integers(1, 8), st.integers(1, 12), st.floats(0, 0.9), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_what_is_there_comes_first(n, genes, missing, seed):
    x = values(n, genes, missing, seed)
    codes, found, hidden = observed_first(torch.from_numpy(x))
    for row in range(n):
        there = np.flatnonzero(~np.isnan(x[row]))
        kept = slice(0, len(there))
        assert codes[row, kept].tolist() == there.tolist()
        np.testing.assert_array_equal(found[row, kept], x[row, there])
        assert hidden is None or hidden[row].tolist() == [place >= len(there) for place in range(codes.shape[1])]
    assert (hidden is None) == (len(set((~np.isnan(x)).sum(1))) == 1)


# --- missing values for a test --------------------------------------------------------------------------------


@given(st.floats(0.05, 0.95), st.sampled_from(["at random", "low values"]), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_the_share_is_hidden_and_each_patient_keeps_a_gene(share, how, seed):
    x = values(40, 30, missing=0.1, seed=seed)
    hidden = hide(x, share, how, seed)
    known = ~np.isnan(x)
    assert not (hidden & ~known).any() and (known & ~hidden).any(1).all()
    assert hidden.sum() == pytest.approx(share * known.sum(), abs=0.5 + len(x) * (share > 0.7))


def test_at_random_does_not_look_at_the_value_and_low_values_does():
    x = values(400, 50)
    means = {how: x[hide(x, 0.4, how, 0)].mean() for how in ("at random", "low values")}
    assert abs(means["at random"]) < 0.05 and means["low values"] < -0.5


def test_hiding_is_that_of_the_seed():
    x = values(20, 10)
    assert (hide(x, 0.5, "at random", 1) == hide(x, 0.5, "at random", 1)).all()
    assert (hide(x, 0.5, "at random", 1) != hide(x, 0.5, "at random", 2)).any()


@pytest.mark.parametrize("share, how", [(0.0, "at random"), (1.0, "at random"), (0.5, "sometimes")])
def test_other_patterns_are_refused(share, how):
    with pytest.raises(ValueError, match="pattern is one of"):
        hide(values(4, 4), share, how, 0)
