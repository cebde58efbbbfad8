"""Tuning: equal trials, one criterion, on the validation part."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss

from txtlib.cohort import load_cohort, split
from txtlib.metrics import log_score
from txtlib.peers.floors import Trivial
from txtlib.predictions import Predictions
from txtlib.tuning import candidates, relative_loss, tune

HORIZON = 1825.0


@pytest.fixture(scope="module")
def parts():
    return split(load_cohort("gse7390"), seed=0)


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


def test_a_constant_has_the_relative_loss_one(parts):
    answer = Trivial().fit(parts.train).predict(parts.validation)
    assert relative_loss(answer, parts.train, parts.validation, HORIZON) == pytest.approx(1)


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
    floor = Trivial().fit(train).predict(validation)
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
    answer = Trivial().fit(train).predict(validation)
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
