"""The released code's behaviour, switch by switch, against slow twins and examples made by hand."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from txtlib.cohort import load_cohort, split
from txtlib.gradients import set_shared, task_gradients
from txtlib.metrics import harrell_c
from txtlib.pcgrad import pcgrad
from txtlib.peers.published import (
    FINDINGS,
    WithHeads,
    as_published,
    one_order,
    rounding_edges,
    self_weighted_brier,
    summed_hazard,
)
from txtlib.peers.txt import txt
from txtlib.predictions import Predictions
from txtlib.preprocess import time_cell
from txtlib.survival import risk, survival_curves
from txtlib.variants import variant

SMALL = dict(n_genes=12, n_times=6, width=8, layers=1, heads=2, readout="mean", epochs=3, learning_rate=0.01)
FOLLOW_UP = 9108.0  # the longest time to distant metastasis in GSE7390, days


@pytest.fixture(scope="module")
def cohort():
    return load_cohort("gse7390")


@pytest.fixture(scope="module")
def parts(cohort):
    return split(cohort, seed=0)


def published(parts, *switches, seed=0, **others):
    """A fitted TxT with these switches."""
    given = {"follow_up": FOLLOW_UP} if "D7" in switches else {}
    return as_published(seed, switches=switches, **{**SMALL, **given, **others}).fit(parts.train, parts.validation)


def weights(method):
    return torch.cat([value.flatten().double() for value in method.trained.network.state_dict().values()])


# --- all, none, each ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("others", [{}, {"grid": "quantile", "select": "all", "combine": "sum"}, {"tasks": ("DM",)}])
def test_without_a_switch_it_is_txt_to_the_bit(parts, others):
    ours, plain = published(parts, **others), txt(**SMALL | others).fit(parts.train, parts.validation)
    assert torch.equal(weights(ours), weights(plain))
    mine, its = ours.predict(parts.test), plain.predict(parts.test)
    np.testing.assert_array_equal(mine.survival, its.survival)
    np.testing.assert_array_equal(mine.edges, its.edges)
    assert mine.score is None and mine.values.keys() == its.values.keys()
    for name, shares in its.probabilities.items():
        pd.testing.assert_frame_equal(mine.probabilities[name], shares)


def test_the_default_is_all_of_them_and_they_answer_every_task(parts):
    assert set(FINDINGS) == {f"D{number}" for number in range(1, 9)}
    method = as_published(follow_up=FOLLOW_UP, **SMALL).fit(parts.train, parts.validation)
    answer, again = (one.predict(parts.test) for one in (method, published(parts, *FINDINGS)))
    np.testing.assert_array_equal(answer.survival, again.survival)  # the same seed, the same bits
    assert set(answer.values) == {"Age", "Size"} and set(answer.probabilities) == {"Grade", "ER"}
    assert answer.survival.shape == (len(parts.test), 5) and list(answer.samples) == list(parts.test.samples)
    assert np.isfinite(harrell_c(parts.test.outcome(), answer.risk(1825.0)))
    assert 0 < self_weighted_brier(answer, parts.test) < 1


def test_settings_are_plain_json(parts):
    given = json.loads(json.dumps({**SMALL, "switches": ["D3", "D5"]}))
    answer = as_published(**given).fit(parts.train, parts.validation).predict(parts.test)
    np.testing.assert_array_equal(answer.score, published(parts, "D3", "D5").predict(parts.test).score)


@pytest.mark.parametrize("switch", ["D2", "D3", "D4", "D7", "D8"])
def test_each_of_these_alone_changes_what_is_learned(parts, switch):
    ours, plain = (published(parts, *switches).trained for switches in ([switch], []))
    ours, plain = (trained.history.query("part == 'train' and task == 'DM'")["loss"] for trained in (ours, plain))
    assert not np.allclose(ours, plain, rtol=1e-6)


@pytest.mark.parametrize("switch", ["D1", "D5", "D6"])
def test_the_others_leave_every_step_as_it_is(parts, switch):
    ours, plain = (published(parts, *switches).trained for switches in ([switch], []))
    pd.testing.assert_frame_equal(*(trained.history.drop(columns="seconds") for trained in (ours, plain)))


@pytest.mark.parametrize(
    "wrong, words",
    [
        ({"switches": ["D9"]}, "'D9' is none of them"),
        ({"switches": "D1"}, "'D' is none of them"),
        ({"switches": ["D7"]}, "follow_up is None; with D7"),
        ({}, "give it, or leave D7 out"),
        ({"follow_up": -1.0}, "follow_up is -1.0"),
        ({"follow_up": float("nan")}, "follow_up is nan"),
        ({"follow_up": FOLLOW_UP, "n_times": 1}, "n_times is 1; with D7"),
    ],
)
def test_wrong_settings_are_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        as_published(**wrong)


# --- D1: the epoch ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tasks, first",
    [((), "Age"), (("DM", "ER", "Size", "Age"), "Size"), (("DM", "ER"), "ER"), (("DM",), "DM")],
)
def test_d1_follows_the_first_task_of_the_first_kind(parts, tasks, first):
    trained = published(parts, "D1", tasks=tasks, epochs=8, select="all").trained
    losses = trained.history.query("part == 'validation' and task == @first").set_index("epoch")["loss"]
    assert trained.best_epoch == losses.idxmin()


def test_d1_keeps_another_epoch_than_survival_would(parts):
    late, early = (published(parts, *one, epochs=8, learning_rate=0.03).trained for one in (["D1"], []))
    assert late.best_epoch != early.best_epoch


# --- D2: raw targets ----------------------------------------------------------------------------------------------


def test_d2_lets_the_unit_of_age_decide_what_survival_learns(parts):
    clinical = parts.train.clinical.assign(Age=parts.train.clinical["Age"] * 8)  # by a power of two: no rounding
    months = parts._replace(train=replace(parts.train, clinical=clinical))

    def curves(parts, *switches):
        return published(parts, *switches, select="DM").predict(parts.test).survival

    np.testing.assert_array_equal(curves(months), curves(parts))
    assert not np.allclose(curves(months, "D2"), curves(parts, "D2"), atol=1e-6)


def test_d2_learns_and_answers_in_the_unit_of_the_label(parts):
    trained = published(parts, "D2").trained
    first = trained.history.query("part == 'train' and task == 'Age' and epoch == 1")["loss"].item()
    assert first == pytest.approx(np.square(parts.train.clinical["Age"]).mean(), rel=0.1)
    output = trained.network.eval()(torch.from_numpy(trained.preprocessor.expression(parts.test)))["Age"]
    np.testing.assert_allclose(trained.predict(parts.test).values["Age"], output[:, 0].detach(), rtol=1e-5, atol=1e-5)


# --- D3, D4: joined gradients -------------------------------------------------------------------------------------


def visits(rows, order, own=False):
    """PCGrad on whole gradients, (T, P): order[i] is that of task i; ``own`` visits count or not."""
    kept = []
    for i, before in enumerate(rows):
        left = before.clone()
        for j in order[i]:
            if (own or i != j) and left @ rows[j] < 0:
                left -= (left @ rows[j]) / (rows[j] @ rows[j]) * rows[j]
        kept.append(left)
    return torch.stack(kept).sum(0)


def draws(seed):
    return torch.Generator().manual_seed(seed)


def rows(seed, tasks=4, size=6):
    return torch.randn(tasks, size, generator=draws(seed), dtype=torch.double)


def heads_of(gradients):
    """One-layer heads that hold these gradients."""
    heads = [torch.nn.Linear(len(gradient), 1, bias=False, dtype=torch.double) for gradient in gradients]
    for head, gradient in zip(heads, gradients, strict=True):
        head.weight.grad = gradient.clone()[None]
    return heads


@given(st.integers(0, 10_000), st.integers(1, 5))
@settings(deadline=None, max_examples=40)
def test_d4_equals_visits_in_one_order(seed, tasks):
    jacobian = rows(seed, tasks, 3)
    order = torch.randperm(tasks, generator=draws(seed)).tolist()
    ours = one_order(jacobian, draws(seed))
    torch.testing.assert_close(ours, visits(jacobian, [order] * tasks, own=True))


def test_d4_a_visit_to_oneself_can_take_something_away():
    degrees = torch.deg2rad(torch.tensor([0.0, 170.0, 200.0], dtype=torch.double))
    jacobian = torch.stack([degrees.cos(), degrees.sin()], 1)
    alone, with_self = (visits(jacobian, [[1, 2, 0]] * 3, own=own) for own in (False, True))
    seed = next(s for s in range(100) if torch.randperm(3, generator=draws(s)).tolist() == [1, 2, 0])
    torch.testing.assert_close(one_order(jacobian, draws(seed)), with_self)
    assert not torch.allclose(alone, with_self)


def test_d4_a_batch_without_a_label_changes_nothing():
    jacobian = torch.tensor([[1.0, 0.0], [-1.0, 1.0], [0.0, 0.0]])
    torch.testing.assert_close(one_order(jacobian, draws(0)), torch.tensor([0.5, 1.5]))


@pytest.mark.parametrize("switches", [("D3",), ("D3", "D4")])
@pytest.mark.parametrize("seed", range(4))
def test_d3_equals_surgery_on_all_parameters(switches, seed):
    kinds = {"Age": "regression", "ER": "classification", "OS": "survival"}
    outputs = {"Age": 1, "ER": 2, "OS": 4}
    shape = dict(width=8, layers=1, heads=2, readout="mean", dropout=0.0, seed=seed)
    network = variant("value token", n_genes=6, outputs=outputs, **shape).double().train()
    draw = draws(seed)
    labels = {"Age": (torch.randn(9, generator=draw).double(),), "ER": (torch.randint(2, (9,), generator=draw),)}
    labels["OS"] = torch.randint(5, (9,), generator=draw), torch.rand(9, generator=draw) > 0.5
    losses, jacobian = task_gradients(network, torch.rand(9, 6, generator=draw).double(), labels, kinds)
    jacobian[1] -= 2 * jacobian[0]  # a conflict, whatever the draw
    heads = [network.head(task) for task in kinds]
    own = [torch.cat([p.grad.flatten() for p in head.parameters()]) for head in heads]
    whole = torch.cat([jacobian, torch.block_diag(*own)], 1)
    if "D4" in switches:
        expected = visits(whole, [torch.randperm(3, generator=draws(seed)).tolist()] * 3, own=True)
    else:
        draw = draws(seed)
        expected = visits(whole, [torch.randperm(3, generator=draw).tolist() for _ in range(3)])
    combine = WithHeads(heads, one_order if "D4" in switches else pcgrad)
    set_shared(network, combine(jacobian, losses, draws(seed)))
    found = [
        p.grad.flatten() for p in [*network.shared_parameters(), *(p for head in heads for p in head.parameters())]
    ]
    torch.testing.assert_close(torch.cat(found), expected)
    assert not torch.allclose(expected[: jacobian.shape[1]], jacobian.sum(0))


@pytest.mark.parametrize("project", [pcgrad, one_order])
@pytest.mark.parametrize("seed", range(5))
def test_d3_without_heads_to_speak_of_is_plain_surgery(project, seed):
    combine = WithHeads(heads_of(torch.zeros(4, 2, dtype=torch.double)), project)
    torch.testing.assert_close(combine(rows(seed), None, draws(seed)), project(rows(seed), draws(seed)))


@pytest.mark.parametrize("project", [pcgrad, one_order])
def test_d3_tends_to_the_plain_sum_as_heads_grow(project):
    gaps = []
    for size in (0.0, 1.0, 10.0, 100.0, 1000.0):
        heads = heads_of(size * torch.ones(4, 2, dtype=torch.double))
        gaps.append((WithHeads(heads, project)(rows(3), None, draws(0)) - rows(3).sum(0)).norm().item())
    assert gaps == sorted(gaps, reverse=True) and gaps[-1] < 1e-4 * gaps[0]
    assert heads[0].weight.grad[0, 0].item() == pytest.approx(1000, rel=1e-4)  # nor is there anything left to stretch


@given(st.floats(0.05, 0.99))
@settings(deadline=None, max_examples=20)
def test_d3_of_two_tasks_removes_the_shared_share_of_a_conflict(shared):
    jacobian = torch.tensor([[1.0, 0.0], [-0.6, 0.8]], dtype=torch.double)  # of length 1 both
    own = torch.full((2, 1), ((1 - shared) / shared) ** 0.5, dtype=torch.double)
    left = WithHeads(heads_of(own), pcgrad)(jacobian, None, draws(0)) - jacobian.sum(0)
    torch.testing.assert_close(left, shared * (pcgrad(jacobian, draws(0)) - jacobian.sum(0)))


# --- D5: the score ------------------------------------------------------------------------------------------------


def test_d5_equals_hazards_made_one_by_one():
    logits = np.random.default_rng(0).normal(0, 2, (5, 4))
    expected = []
    for psi in logits:
        mass = np.exp([psi[k:].sum() for k in range(5)])
        mass /= mass.sum()
        hazard = [mass[k] / mass[k + 1 :].sum() for k in range(4)]
        expected.append(sum(sum(hazard[: k + 1]) for k in range(4)))
    np.testing.assert_allclose(summed_hazard(survival_curves(logits)), expected)


def test_d5_ranks_by_the_tail_that_no_patient_reaches():
    generator, n, seen, tail = np.random.default_rng(1), 300, 6, 3
    before = survival_curves(generator.normal(0.0, 0.3, (n, seen)) - 0.5)  # the last of them at the horizon
    order = 1 - before[:, -1]
    scores = []
    for concentration in (1e6, 1.0, 0.2):  # an even split of what is left after the horizon, to a wild one
        shares = generator.dirichlet([concentration] * (tail + 1), n)
        after = before[:, -1:] * (1 - shares.cumsum(1)[:, :-1]).clip(0, 1)
        curves, edges = np.hstack([before, after]), np.arange(1.0, seen + tail + 1)
        np.testing.assert_array_equal(risk(curves, edges, edges[seen - 1]), order)
        scores.append(spearmanr(order, summed_hazard(curves)).statistic)
    assert scores[0] > 0.95 and 0.9 > scores[1] > scores[2]


def test_d5_stays_a_number_where_a_curve_reaches_zero():
    found = summed_hazard(np.array([[0.5, 0.0, 0.0], [0.5, 0.4, 0.3]]))
    assert np.isfinite(found).all() and found[0] > found[1]


def test_d5_changes_the_ranking_and_nothing_else(parts):
    ours, plain = (published(parts, *switches).predict(parts.test) for switches in (["D5"], []))
    np.testing.assert_array_equal(ours.survival, plain.survival)
    for horizon in (1000.0, 1825.0):
        np.testing.assert_array_equal(ours.risk(horizon), summed_hazard(plain.survival))
    assert not np.array_equal(plain.risk(1825.0), ours.risk(1825.0))
    assert published(parts, "D5", tasks=("Age",)).predict(parts.test).score is None


# --- D6: the Brier score ------------------------------------------------------------------------------------------


def slow_brier(time, event, curves, edges):
    """The score by its definition, one patient and one time point after another."""

    def uncensored(at):  # Kaplan-Meier of censoring, up to and including a time; events come first at a tie
        product = 1.0
        for moment in np.unique(time[time <= at]):
            product *= 1 - ((time == moment) & (event == 0)).sum() / (
                (time > moment).sum() + ((time == moment) & (event == 0)).sum()
            )
        return product

    grid = [at for at in [0.0, *edges] if time.min() <= at < time.max()]
    scores = []
    for at in grid:
        errors = []
        for t, e, curve in zip(time, event, curves, strict=True):
            s = 1.0 if at == 0 else curve[list(edges).index(at)]
            errors.append((t <= at and e == 1) * s**2 / uncensored(t) if t <= at else (1 - s) ** 2 / uncensored(at))
        scores.append(np.mean(errors))
    return np.trapezoid(scores, grid) / (grid[-1] - grid[0])


@pytest.mark.parametrize("first", [0.0, 0.4])
def test_d6_equals_the_definition(build, first):
    generator, test = np.random.default_rng(2), build(40)
    time, event = first + generator.exponential(3, 40).round(1), (generator.random(40) < 0.6).astype(float)
    time[0] = first
    clinical = test.clinical.assign(OS_duration=time, OS_event=event)
    edges = np.arange(1.0, 13.0)
    curves = survival_curves(generator.normal(size=(40, 12)))
    answer = Predictions(test.samples, edges, curves)
    found = self_weighted_brier(answer, replace(test, clinical=clinical))
    assert found == pytest.approx(slow_brier(time, event, curves, edges))
    clinical.loc[test.samples[5:9], ["OS_duration", "OS_event"]] = np.nan
    known = np.r_[0:5, 9:40]
    found = self_weighted_brier(answer, replace(test, clinical=clinical))
    assert found == pytest.approx(slow_brier(time[known], event[known], curves[known], edges))


def test_d6_needs_two_time_points_within_the_follow_up(build):
    test = build(40)
    answer = Predictions(test.samples, np.array([1e6, 2e6]), np.full((40, 2), 0.5))
    assert np.isnan(self_weighted_brier(answer, test))


# --- D7, D8: time -------------------------------------------------------------------------------------------------


def test_d7_takes_its_grid_from_the_longest_follow_up(parts, cohort):
    assert np.nanmax(cohort.outcome()[0]) == FOLLOW_UP
    trained = published(parts, "D7", n_times=64, grid="quantile", epochs=1).trained
    edges = trained.preprocessor.edges
    assert (
        len(edges) == 63 and edges[-1] == pytest.approx(1.1 * FOLLOW_UP) and edges[0] == pytest.approx(edges[-1] / 63)
    )
    assert trained.network.head("DM")[-1].out_features == 63
    alone = published(parts, "D7", tasks=("Age",), epochs=1).predict(parts.test)
    assert alone.survival is None and set(alone.values) == {"Age"}


def test_d7_refuses_a_follow_up_that_a_patient_outlasts(parts):
    with pytest.raises(ValueError, match="longer than follow_up 100"):
        published(parts, "D7", follow_up=100.0)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8), st.lists(st.integers(0, 2000), max_size=20))
@settings(deadline=None, max_examples=100)
def test_d8_takes_the_nearest_left_edge(widths, quarters):
    edges = np.cumsum(widths).astype(float)
    left = np.append(0.0, edges[:-1])
    times = np.concatenate([np.array(quarters) / 4, left, (left[1:] + left[:-1]) / 2])  # all of them exact
    nearest = np.abs(times[:, None] - left).argmin(1)  # the first of equals
    np.testing.assert_array_equal(time_cell(times, rounding_edges(edges)), nearest)


def test_d8_sends_half_of_all_times_to_the_next_cell():
    edges, times = np.arange(1.0, 11.0), np.linspace(0, 9.999, 10_001)
    late = time_cell(times, rounding_edges(edges)) - time_cell(times, edges)
    assert set(late) == {0, 1} and late.mean() == pytest.approx(0.45, abs=0.001)  # the last cell has no next one
    assert list(time_cell(np.array([0.5, 1.5, 1.6, 50.0]), rounding_edges(edges))) == [0, 1, 2, 9]


def test_d8_labels_training_and_validation_but_curves_keep_their_edges(parts, monkeypatch):
    from txtlib.peers import networks

    seen = []

    def spy(network, train, validation, preprocessor, **others):
        seen.append(preprocessor)
        return whole(network, train, validation, preprocessor, **others)

    whole = networks.fit
    monkeypatch.setattr(networks, "fit", spy)
    answers = [published(parts, *switches, epochs=1).predict(parts.test) for switches in ([], ["D8"])]
    np.testing.assert_array_equal(answers[0].edges, answers[1].edges)
    plain, late = (preprocessor.encode(parts.train).labels["DM"][0] for preprocessor in seen)
    left = np.append(0.0, answers[0].edges[:-1])
    time = parts.train.outcome()[0]
    known = ~np.isnan(time)
    np.testing.assert_array_equal(late[known], np.abs(time[known, None] - left).argmin(1))
    assert (late[known] != plain[known]).any() and (late == -1).sum() == (plain == -1).sum()
