"""Tuning: equal trials, one criterion, on the validation part."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss

from txtlib.cohort import load_cohort, split
from txtlib.metrics import harrell_c, log_score
from txtlib.peers.floors import Trivial
from txtlib.predictions import Predictions
from txtlib.tuning import candidates, relative_loss, tune

HORIZON = 1825.0


@pytest.fixture(scope="module")
def parts():
    return split(load_cohort("gse7390"), seed=0)


def constant(train, validation):
    """The best constant of the training part, by hand."""
    answer = Trivial().fit(train).predict(validation)
    means = {name: np.full(len(validation), train.clinical[name].mean()) for name in answer.values}
    return replace(answer, values=means)


class Shifted:
    """The training median, moved by a setting; keeps what it was given."""

    def __init__(self, shift=0.0, name=""):
        self.shift = shift

    def fit(self, train, validation):
        self.floor = Trivial().fit(train)

    def predict(self, cohort):
        answer = self.floor.predict(cohort)
        return replace(answer, values={name: value + self.shift for name, value in answer.values.items()})


spaces = st.dictionaries(st.sampled_from("abc"), st.lists(st.integers(0, 3), min_size=1, max_size=4, unique=True))


@given(spaces, st.integers(1, 20))
def test_as_many_different_settings_as_asked_or_as_there_are(space, trials):
    settings = {"fixed": "x"}
    found = candidates(settings, space, trials)
    size = int(np.prod([len(values) for values in space.values()]))
    assert len(found) == min(trials, size)
    assert all(one["fixed"] == "x" and all(one[name] in space[name] for name in space) for one in found)
    assert len({tuple(sorted(one.items())) for one in found}) == len(found)
    assert found[0] == settings | {name: values[0] for name, values in space.items()}


def test_a_given_setting_stays_and_a_longer_list_only_adds():
    space = {"a": [1, 2, 3], "b": [1, 2]}
    assert candidates({"a": 7}, space, 9) == [{"a": 7, "b": 1}, {"a": 7, "b": 2}]
    assert candidates({}, space, 6)[:3] == candidates({}, space, 3)
    assert candidates({"a": 7}, {}, 3) == [{"a": 7}]


def test_trials_go_from_the_default_outwards_the_setting_declared_first_ahead():
    found = candidates({}, {"b": ["x", "y", "z"], "a": [3, 1], "c": [0, 9]}, 99)
    first = [("x", 3, 0), ("y", 3, 0), ("x", 1, 0), ("x", 3, 9)]
    second = [("y", 1, 0), ("y", 3, 9), ("z", 3, 0), ("x", 1, 9)]
    assert [tuple(one.values()) for one in found] == [
        *first,
        *second,
        ("y", 1, 9),
        ("z", 1, 0),
        ("z", 3, 9),
        ("z", 1, 9),
    ]


@given(spaces)
def test_a_trial_is_never_nearer_to_the_default_than_the_one_before(space):
    steps = [sum(space[name].index(one[name]) for name in space) for one in candidates({}, space, 10_000)]
    assert steps == sorted(steps)


def test_the_lowest_loss_wins_and_the_first_of_equals(parts):
    options = [{"shift": 30.0}, {"shift": 0.0, "name": "first"}, {"shift": 0.0, "name": "second"}, {"shift": -30.0}]
    tuned = tune(Shifted, options, parts.train, parts.validation, HORIZON)
    assert tuned.chosen == options[1] and tuned.method.shift == 0
    assert 0 < tuned.fit_seconds < tuned.tuning_seconds


def test_one_option_is_not_judged(parts):
    class Mute(Shifted):
        def predict(self, cohort):
            raise AssertionError("nobody asked")

    assert tune(Mute, [{"shift": 1.0}], parts.train, parts.validation, HORIZON).chosen == {"shift": 1.0}


def test_the_best_constant_has_the_relative_loss_one(parts):
    answer = constant(parts.train, parts.validation)
    assert relative_loss(answer, parts.train, parts.validation, HORIZON) == pytest.approx(1)


@given(st.floats(-30, 30))
def test_no_other_constant_does_better_on_the_patients_that_it_is_taken_from(parts, shift):
    train = parts.train.with_tasks("Size")
    answer = constant(train, train)
    moved = replace(answer, values={"Size": answer.values["Size"] + shift})
    expected = 1 + shift**2 / train.clinical["Size"].var(ddof=0)
    assert relative_loss(moved, train, train, None) == pytest.approx(expected)


class Fragile(Shifted):
    """Refuses to be fitted, or to answer, with some of the shifts."""

    def fit(self, train, validation):
        if self.shift == 1:
            raise ArithmeticError("no convergence") from KeyError("deeper")
        super().fit(train, validation)

    def predict(self, cohort):
        if self.shift == 2:
            raise MemoryError("out of memory")
        return super().predict(cohort)


@pytest.mark.parametrize(
    "shifts, best, failed", [([1, 9, 2, 0], 0, 2), ([9, 1], 9, 1), ([2, 1, 9], 9, 2), ([0, 9], 0, 0)]
)
def test_a_trial_that_fails_loses_only_itself(shifts, best, failed, parts):
    tuned = tune(Fragile, [{"shift": shift} for shift in shifts], parts.train, parts.validation, HORIZON)
    assert tuned.chosen == {"shift": best} and tuned.failed == failed


def test_where_all_trials_fail_the_last_error_goes_up_with_its_cause(parts):
    with pytest.raises(ArithmeticError, match="no convergence") as raised:
        tune(Fragile, [{"shift": 2}, {"shift": 1}], parts.train, parts.validation, HORIZON)
    assert isinstance(raised.value.__cause__, KeyError)
    with pytest.raises(MemoryError):
        tune(Fragile, [{"shift": 1}, {"shift": 2}], parts.train, parts.validation, HORIZON)


def test_ctrl_c_is_no_failed_trial(parts):
    class Interrupted(Shifted):
        def fit(self, train, validation):
            if not self.shift:
                raise KeyboardInterrupt
            super().fit(train, validation)

    with pytest.raises(KeyboardInterrupt):
        tune(Interrupted, [{}, {"shift": 1.0}], parts.train, parts.validation, HORIZON)


# --- survival by a score alone ------------------------------------------------------------------------------------


def ranked(part, score):
    return Predictions(part.samples, score=score)


def test_a_score_without_curves_is_judged_by_harrells_c(parts):
    train, validation = (part.with_tasks("DM") for part in (parts.train, parts.validation))
    score = np.random.default_rng(0).normal(size=len(validation))
    expected = 2 * (1 - harrell_c(validation.outcome(), score))
    assert relative_loss(ranked(validation, score), train, validation, HORIZON) == pytest.approx(expected)
    assert relative_loss(ranked(validation, -score), train, validation, HORIZON) == pytest.approx(2 - expected)
    assert relative_loss(ranked(validation, 0 * score), train, validation, HORIZON) == 1
    score[3] = np.nan
    assert relative_loss(ranked(validation, score), train, validation, HORIZON) == np.inf


def test_beside_other_tasks_a_score_is_one_of_them_and_is_left_out_without_a_pair(parts):
    train, validation = (part.with_tasks("DM", "Age") for part in (parts.train, parts.validation))
    age, score = constant(train, validation).values, -validation.outcome()[0]
    losses = [relative_loss(ranked(validation, score), train.with_tasks("DM"), validation.with_tasks("DM"), HORIZON), 1]
    both = replace(ranked(validation, score), values=age)
    assert relative_loss(both, train, validation, HORIZON) == pytest.approx(np.mean(losses))
    assert losses[0] < 0.2  # the order is known
    censored = replace(validation, clinical=validation.clinical.assign(DM_event=0.0))
    assert relative_loss(both, train, censored, HORIZON) == pytest.approx(1)
    assert relative_loss(ranked(validation, score), train, censored, HORIZON) == np.inf  # and silent on age


def test_a_method_that_only_ranks_is_tuned(parts):
    class Ranking:
        def __init__(self, sign):
            self.sign = sign

        def fit(self, train, validation):
            return self

        def predict(self, cohort):
            return ranked(cohort, self.sign * cohort.outcome()[0])

    train, validation = (part.with_tasks("DM") for part in (parts.train, parts.validation))
    assert tune(Ranking, [{"sign": 1}, {"sign": -1}], train, validation, HORIZON).chosen == {"sign": -1}


def test_the_criterion_is_the_mean_of_proper_losses_over_constants(parts):
    train, validation = (part.with_tasks("Age", "ER", "DM") for part in (parts.train, parts.validation))
    rng = np.random.default_rng(0)
    shares = rng.dirichlet([2, 2], len(validation))
    edges = np.linspace(300, 4000, 12)
    answer = Predictions(
        validation.samples,
        edges,
        np.sort(rng.random((len(validation), 12)), 1)[:, ::-1],
        {"Age": rng.normal(50, 5, len(validation))},
        {"ER": pd.DataFrame(shares, validation.samples, ["negative", "positive"])},
    )
    floor = constant(train, validation)
    age, er = (validation.clinical[name].to_numpy() for name in ("Age", "ER"))
    clipped = [np.clip(one.probabilities["ER"][["negative", "positive"]], 0.01, None) for one in (answer, floor)]
    logs = [
        -np.mean([np.log(row[label]) for (_, row), label in zip(one.iterrows(), er, strict=True)]) for one in clipped
    ]
    assert logs[0] == pytest.approx(log_loss(er, shares), rel=0.2)  # they differ by the floor only
    outcomes = train.outcome(), validation.outcome()
    survival = [log_score(*outcomes, one.survival, one.edges, HORIZON) for one in (answer, floor)]
    squares = [np.mean((age - one.values["Age"]) ** 2) for one in (answer, floor)]
    expected = np.mean([squares[0] / squares[1], logs[0] / logs[1], survival[0] / survival[1]])
    assert relative_loss(answer, train, validation, HORIZON) == pytest.approx(expected)


def test_a_task_without_label_is_left_out_and_one_without_answer_is_not(parts):
    train, validation = (part.with_tasks("Age", "Size") for part in (parts.train, parts.validation))
    answer = constant(train, validation)
    half = replace(validation, clinical=validation.clinical.assign(Size=np.nan))
    assert relative_loss(answer, train, half, None) == pytest.approx(1)
    silent = replace(answer, values={"Age": answer.values["Age"]})
    broken = replace(answer, values=answer.values | {"Size": np.where(np.arange(len(half)) == 3, np.nan, 20.0)})
    assert relative_loss(silent, train, validation, None) == relative_loss(broken, train, validation, None) == np.inf
    blind = replace(validation, clinical=validation.clinical.assign(Age=np.nan, Size=np.nan))
    assert relative_loss(answer, train, blind, None) == np.inf


def test_the_test_part_plays_no_role(parts):
    seen = []

    class Watching(Shifted):
        def fit(self, train, validation):
            seen.extend([train.samples, validation.samples])
            super().fit(train, validation)

        def predict(self, cohort):
            seen.append(cohort.samples)
            return super().predict(cohort)

    tune(Watching, [{}, {"shift": 1.0}], parts.train, parts.validation, HORIZON)
    assert not set(parts.test.samples) & set().union(*seen)
