"""pycox's survival networks: our housekeeping around them, with pycox's own curves as the oracle."""

import inspect
import random
import tempfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import c_interval, relabelled, with_permuted_outcomes
from hypothesis import given
from hypothesis import strategies as st
from lifelines import KaplanMeierFitter

from txtlib.cohort import CohortError, split
from txtlib.metrics import integrated_brier
from txtlib.peers import hazards
from txtlib.peers.floors import trivial
from txtlib.peers.hazards import Discrete, PycoxMethod, batch_of, deep_hit, deep_surv, logistic_hazard
from txtlib.planted import planted
from txtlib.survival import survival_at

FACTORIES = [deep_surv, logistic_hazard, deep_hit]
each = pytest.mark.parametrize("factory", FACTORIES, ids=lambda factory: factory.__name__)


@pytest.fixture(scope="module")
def cohort():
    world = planted(n=360, n_genes=120, event_rate=0.5, main_effect=1.0, interaction=0.0, age_effect=0.0)
    return world.cohort


@pytest.fixture(scope="module")
def parts(cohort):
    return split(cohort, seed=0)


@pytest.fixture(scope="module")
def fitted(parts):
    return {factory: factory().fit(parts.train, parts.validation) for factory in FACTORIES}


def with_outcome(part, time=None, event=None):
    columns = dict(zip(part.survival_task.columns, (time, event), strict=True))
    return relabelled(part, **{name: values for name, values in columns.items() if values is not None})


def horizon(parts):
    return float(np.median(parts.train.outcome()[0]))


def short(factory, parts, train=None, validation=None, **settings):
    """Fit for one epoch, which is the best one whatever the validation part says."""
    method = factory(**{"epochs": 1, "n_genes": 20, **settings})
    return method.fit(train or parts.train, validation or parts.validation)


# --- answers ----------------------------------------------------------------------------------------------------


@each
def test_it_beats_the_same_answer_for_everybody(fitted, parts, factory):
    answer, floor = fitted[factory].predict(parts.test), trivial().fit(parts.train).predict(parts.test)
    assert c_interval(parts.test, answer.risk(horizon(parts)))[0] > 0.5
    ours, constant = (
        integrated_brier(parts.train.outcome(), parts.test.outcome(), one.survival, one.edges, horizon(parts))
        for one in (answer, floor)
    )
    assert ours < constant


@each
def test_with_outcomes_that_belong_to_others_it_finds_nothing(cohort, factory):
    parts = split(with_permuted_outcomes(cohort), seed=0)  # about one order in twenty would miss 0.5
    answer = factory(epochs=30).fit(parts.train, parts.validation).predict(parts.test)
    low, high = c_interval(parts.test, answer.risk(horizon(parts)))
    assert low < 0.5 < high


@each
def test_answers_are_curves_of_their_own_and_nothing_else(fitted, parts, factory):
    answer = fitted[factory].predict(parts.test)
    assert list(answer.samples) == list(parts.test.samples)
    assert not answer.values and not answer.probabilities and not answer.calibrated
    assert answer.survival.shape == (len(parts.test), len(answer.edges)) and answer.survival.dtype == float
    assert (np.diff(answer.edges) > 0).all() and answer.edges[0] > 0
    assert answer.edges[-1] == parts.train.outcome()[0].max()
    assert (np.diff(answer.survival, axis=1) <= 0).all()
    assert answer.survival.min() >= 0 and answer.survival.max() <= 1


@pytest.mark.parametrize("factory", [logistic_hazard, deep_hit])
def test_between_cuts_the_curves_are_pycoxs_interpolation(fitted, parts, factory):
    method = fitted[factory]
    answer = method.predict(parts.test)
    expected = method.model.interpolate(10).predict_surv_df(method.preprocessor.expression(parts.test))
    expected = expected[expected.index >= answer.edges[0]]  # before, ours begins at 1 and pycox's at S(0) < 1
    ours = survival_at(answer.survival, answer.edges, expected.index.to_numpy(float))
    np.testing.assert_allclose(ours, expected.to_numpy().T, atol=1e-6)
    first = method.model.predict_surv(method.preprocessor.expression(parts.test))[:, 0]
    assert (first > 0.9).all()


def test_deep_survs_curves_are_pycoxs_own(fitted, parts):
    method = fitted[deep_surv]
    answer = method.predict(parts.test)
    method.model.compute_baseline_hazards()
    expected = method.model.predict_surv_df(method.preprocessor.expression(parts.test))
    np.testing.assert_allclose(answer.edges, expected.index, rtol=1e-6)
    np.testing.assert_allclose(answer.survival, expected.to_numpy().T, atol=1e-5)


def test_deep_survs_baseline_accounts_for_each_event_of_the_training_part(fitted, parts):
    answer = fitted[deep_surv].predict(parts.train)
    time, event = parts.train.outcome()
    own = answer.survival[np.arange(len(time)), np.searchsorted(answer.edges, time)]
    assert -np.log(own).sum() == pytest.approx(event.sum())  # what Breslow's estimate solves


def test_what_rounding_adds_to_a_curve_is_taken_off():
    head = Discrete("DeepHitSingle", 4)
    head.fit_labels(np.array([1.0, 2.0, 3.0]), np.ones(3))
    raw = np.array([[1.0, 1.0000001, 0.5, 0.50000006], [1.0, 0.3, 1e-8, -1e-7]], np.float32)
    edges, curves = head.curves(SimpleNamespace(predict_surv=lambda x: raw), None)
    assert edges.tolist() == [1.0, 2.0, 3.0]
    assert curves.tolist() == [[1.0, 0.5, 0.5], [float(raw[1, 1]), float(raw[1, 2]), 0.0]]


@each
def test_patients_without_labels_are_answered_one_by_one(fitted, parts, factory):
    whole = fitted[factory].predict(parts.test)
    bare = replace(parts.test, clinical=pd.DataFrame(index=parts.test.samples), tasks=())
    np.testing.assert_array_equal(fitted[factory].predict(bare).survival, whole.survival)
    one = fitted[factory].predict(bare.take(bare.samples[[7]]))
    np.testing.assert_allclose(one.survival[0], whole.survival[7], atol=1e-5)


# --- labels -----------------------------------------------------------------------------------------------------


def test_cuts_are_quantiles_of_the_training_parts_kaplan_meier_curve():
    rng = np.random.default_rng(0)
    time, event = rng.exponential(3.0, 300), (rng.random(300) < 0.7).astype(float)
    head = Discrete("LogisticHazard", 11)
    index, seen = head.fit_labels(time, event)
    cuts = head.transform.cuts
    assert cuts[0] == 0 and cuts[-1] == time.max() and len(cuts) <= 11 and head.outputs == len(cuts)
    curve = KaplanMeierFitter().fit(time, event)
    levels = curve.survival_function_at_times(cuts).to_numpy()
    step = (1 - levels.min()) / 10
    jump = -np.diff(curve.survival_function_["KM_estimate"]).min()
    assert (np.abs(-np.diff(levels) - step) <= jump + 1e-9).all()
    for place, moment, died in zip(index, time, event, strict=True):
        expected = cuts[cuts >= moment].min() if died else cuts[cuts <= moment].max()
        assert cuts[place] == expected
    np.testing.assert_array_equal(seen, event)


def test_quantiles_that_fall_together_make_fewer_cuts():
    head = Discrete("LogisticHazard", 20)
    head.fit_labels(np.array([0.0, 1.0, 1.0, 2.0, 2.0, 3.0]), np.array([0.0, 1.0, 1.0, 1.0, 0.0, 0.0]))
    assert head.transform.cuts.tolist() == [0.0, 1.0, 3.0] and head.outputs == 3  # the curve is 1, 0.6, 0.4, 0.4


@each
def test_times_beyond_the_training_part_and_at_0_are_labels_too(parts, factory):
    time, _ = parts.validation.outcome()
    time[:2] = [0.0, 10 * time.max()]
    answer = short(factory, parts, validation=with_outcome(parts.validation, time)).predict(parts.test)
    assert np.isfinite(answer.survival).all()


@each
def test_patients_without_an_outcome_are_left_out(parts, factory):
    time, event = parts.train.outcome()
    event[::5] = np.nan
    first = short(factory, parts, with_outcome(parts.train, time, event))
    time[::5] = 1e6
    second = short(factory, parts, with_outcome(parts.train, time, event))
    np.testing.assert_array_equal(first.predict(parts.test).survival, second.predict(parts.test).survival)
    assert first.predict(parts.test).edges[-1] == time[~np.isnan(event)].max()
    assert not np.array_equal(first.predict(parts.test).survival, short(factory, parts).predict(parts.test).survival)


@each
def test_validation_labels_choose_the_epoch_and_nothing_else(parts, factory):
    order = np.random.default_rng(0).permutation(len(parts.validation))
    time, event = parts.validation.outcome()
    other = with_outcome(parts.validation, 0.7 * time[order], event[order])
    first, second = short(factory, parts), short(factory, parts, validation=other)
    np.testing.assert_array_equal(first.predict(parts.test).survival, second.predict(parts.test).survival)
    np.testing.assert_array_equal(first.predict(parts.test).edges, second.predict(parts.test).edges)


@each
def test_curves_are_in_the_cohorts_unit_of_time(parts, factory):
    train, validation = (with_outcome(part, 2 * part.outcome()[0]) for part in (parts.train, parts.validation))
    first, second = (
        method.predict(parts.test) for method in (short(factory, parts), short(factory, parts, train, validation))
    )
    np.testing.assert_array_equal(second.edges, 2 * first.edges)
    np.testing.assert_array_equal(second.survival, first.survival)


# --- training ---------------------------------------------------------------------------------------------------


@each
def test_the_best_epoch_is_kept_and_patience_ends_the_search(fitted, parts, factory):
    method = fitted[factory]
    losses = method.model.val_metrics.scores["loss"]["score"]
    x, labels = method.preprocessor.expression(parts.validation), method.head.labels(*parts.validation.outcome())
    assert method.model.score_in_batches(x, labels)["loss"] == pytest.approx(min(losses), rel=1e-5)
    assert len(losses) - np.argmin(losses) == 21 or len(losses) == 200


@each
def test_the_seed_decides_and_leaves_no_trace(parts, factory):
    before = torch.random.get_rng_state(), np.random.get_state()[1], random.getstate()
    first = short(factory, parts, epochs=2).predict(parts.test).survival
    after = torch.random.get_rng_state(), np.random.get_state()[1], random.getstate()
    assert torch.equal(before[0], after[0]) and np.array_equal(before[1], after[1]) and before[2] == after[2]
    torch.rand(3)
    np.testing.assert_array_equal(short(factory, parts, epochs=2).predict(parts.test).survival, first)
    assert not np.array_equal(short(factory, parts, epochs=2, seed=1).predict(parts.test).survival, first)


@each
@pytest.mark.parametrize("interrupted", [False, True])
def test_no_file_is_left_behind(parts, factory, interrupted, tmp_path, monkeypatch):
    from torchtuples import Model

    def save(self, path):
        saved.append(Path(path))
        return whole(self, path)

    def stop(self, *_):
        raise KeyboardInterrupt

    saved, whole = [], Model.save_model_weights
    (tmp_path / "work").mkdir()
    (tmp_path / "temporary").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(Model, "save_model_weights", save)
    if interrupted:
        monkeypatch.setattr(Model, "compute_metrics", stop)
        with pytest.raises(KeyboardInterrupt):
            short(factory, parts)
    else:
        short(factory, parts)
        short(factory, parts)  # as another process in the same folder might
        assert len({path.parent for path in saved}) == 2
    assert saved and all(path.is_relative_to(tmp_path / "temporary") for path in saved)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert list((tmp_path / "temporary").iterdir()) == []


@given(n=st.integers(2, 400), size=st.integers(2, 500))
def test_no_batch_holds_a_single_patient(n, size):
    def parts_of(batch):
        return [len(range(n)[start : start + batch]) for start in range(0, n, batch)]

    batch = batch_of(n, size)
    assert min(parts_of(batch)) > 1 and batch >= min(n, size)
    assert all(1 in parts_of(smaller) for smaller in range(min(n, size), batch))


@each
def test_a_single_patient_left_over_joins_the_others(parts, factory):
    few = parts.train.take(parts.train.samples[:65])
    assert np.isfinite(short(factory, parts, few, batch_size=64).predict(parts.test).survival).all()


@each
def test_batches_without_an_event_do_no_harm(parts, factory):
    time, event = parts.train.outcome()
    event[np.flatnonzero(event == 1)[10:]] = 0
    method = short(factory, parts, with_outcome(parts.train, time, event), batch_size=4, epochs=3)
    assert np.isfinite(method.predict(parts.test).survival).all()


def test_the_loss_without_events_is_0_and_moves_nothing():
    log_hazard = torch.tensor([[0.3], [-0.2], [1.0]], requires_grad=True)
    time, event = torch.tensor([1.0, 2.0, 3.0]), torch.zeros(3)
    loss = hazards._cox_loss(log_hazard, time, event)
    loss.backward()
    assert loss == 0 and (log_hazard.grad == 0).all()
    event[0] = 1.0
    risk = np.exp([0.3, -0.2, 1.0])
    expected = -np.log(risk[0] / risk.sum())
    assert hazards._cox_loss(log_hazard, time, event).item() == pytest.approx(expected, rel=1e-5)


# --- settings and bad input -------------------------------------------------------------------------------------


def test_tasks_that_it_does_not_answer_cannot_stop_it(parts):
    ungraded = relabelled(parts.train, NHG=None, Age=np.nan)
    first, second = short(deep_surv, parts), short(deep_surv, parts, ungraded)
    np.testing.assert_array_equal(first.predict(parts.test).survival, second.predict(parts.test).survival)


def test_settings_reach_their_places(parts):
    columns = list(parts.train.expression.columns)
    method = short(deep_hit, parts, gene_sets={"A": columns[:8], "B": columns[5:12]}, alpha=0.7, sigma=0.4, n_times=5)
    assert set(method.preprocessor.genes) == set(columns[:12])
    assert method.model.loss.alpha == 0.7 and method.model.loss.sigma == 0.4 and method.head.outputs <= 5
    method = short(deep_surv, parts, learning_rate=0.02, dropout=0.2, scaler="rank", n_genes=7)
    assert method.model.optimizer.param_groups[0]["lr"] == 0.02
    assert [layer.p for layer in method.model.net.modules() if isinstance(layer, torch.nn.Dropout)] == [0.2, 0.2]
    assert method.preprocessor.scaler == "rank" and len(method.preprocessor.genes) == 7
    widths = [layer.out_features for layer in method.model.net.modules() if isinstance(layer, torch.nn.Linear)]
    assert widths == [128, 64, 1]


@each
def test_what_tuning_may_try_is_allowed_and_starts_with_the_default(factory):
    space = getattr(hazards, f"SPACE_{factory.__name__.upper()}")
    known = {**inspect.signature(PycoxMethod).parameters, **inspect.signature(factory).parameters}
    for name, values in space.items():
        assert values[0] == known[name].default and 3 <= len(set(values)) == len(values) <= 5
        assert all(isinstance(factory(**{name: value}), PycoxMethod) for value in values)


@each
def test_a_part_without_events_is_refused_in_one_sentence(parts, factory):
    time, event = parts.validation.outcome()
    quiet = with_outcome(parts.validation, time, 0 * event)
    late = with_outcome(parts.validation, time + 1e6, event)
    at_once = with_outcome(parts.train, np.where(parts.train.outcome()[1] == 1, 0.0, parts.train.outcome()[0]))
    for train, validation in ((parts.train, quiet), (parts.train, late), (at_once, parts.validation)):
        with pytest.raises(CohortError, match="has no event of 'OS' between 0 and the end"):
            short(factory, parts, train, validation)
    with pytest.raises(CohortError, match="no survival task"):
        factory().fit(parts.train.with_tasks("Age"), parts.validation)


def test_settings_out_of_range_are_refused_in_one_sentence(parts):
    for wrong in ({"epochs": 0}, {"patience": 0}, {"batch_size": 1}):
        with pytest.raises(ValueError, match="batch_size is 2 or more"):
            deep_surv(**wrong)
    with pytest.raises(ValueError, match="n_times is 1"):
        deep_hit(n_times=1)
    with pytest.raises(TypeError, match="depth"):
        logistic_hazard(depth=3)
    with pytest.raises(ValueError, match="scaler is one of"):
        short(deep_surv, parts, scaler="log")
