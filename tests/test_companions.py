"""The arms of chapter 08: each differs from TxT on all tasks, or on survival alone, in one thing."""

from functools import cache

import numpy as np
import pytest

from txtlib.catalogue import catalogue
from txtlib.cohort import split
from txtlib.companions import ALONE, LONG, SUMMED, companions
from txtlib.peers.published import summed_hazard
from txtlib.planted import planted

TASKS = ["Age", "NHG", "OS"]
SETTINGS = dict(width=8, layers=1, heads=2)


@cache
def many():
    training = {"epochs": 3, "patience": 3, "batch_size": 32}
    groups = catalogue(
        ["Age"], {"n_genes": 12, "gene_sets": {}}, {"n_times": 4, "grid": "quantile"}, training, SETTINGS
    )
    return next(one for one in groups["of the article"] if one.name == "TxT, all tasks")


@cache
def parts():
    return split(planted(n=120, n_genes=60, event_rate=0.5).cohort.with_tasks(*TASKS), 0)


@cache
def answers():
    train, validation, test = parts()
    arms = [many(), *companions(many(), TASKS, "OS")]
    made = {arm.name: arm.factory(seed=0, **arm.tried(1)[0]) for arm in arms}
    return {name: method.fit(train, validation).predict(test) for name, method in made.items()}


def test_the_arms_and_what_they_answer():
    found = {name: set(answer.values) | set(answer.probabilities) for name, answer in answers().items()}
    alone, both = set(), {"Age", "NHG"}
    assert found == {
        "TxT, all tasks": both,
        ALONE: alone,
        LONG: alone,
        "TxT, Age permuted": both,
        "TxT, NHG permuted": both,
        "TxT, all but Age": {"NHG"},
        "TxT, all but NHG": {"Age"},
        SUMMED[0]: alone,
        SUMMED[1]: both,
    }
    assert all(answer.survival is not None for answer in answers().values())


def test_the_summed_arms_are_the_same_networks_ranked_in_another_way():
    for summed, plain in zip(SUMMED, (ALONE, "TxT, all tasks"), strict=True):
        one, other = answers()[summed], answers()[plain]
        np.testing.assert_array_equal(one.survival, other.survival)
        np.testing.assert_allclose(one.score, summed_hazard(other.survival))


def test_alone_is_txt_on_a_cohort_of_one_task():
    train, validation, test = (part.with_tasks("OS") for part in parts())
    twin = many().factory(seed=0, **many().tried(1)[0] | {"select": "OS"}).fit(train, validation).predict(test)
    np.testing.assert_array_equal(answers()[ALONE].survival, twin.survival)


def test_a_permuted_task_changes_what_is_learned_of_survival():
    assert not np.array_equal(answers()["TxT, Age permuted"].survival, answers()["TxT, all tasks"].survival)


def test_none_is_tuned_and_of_two_tasks_none_is_left_out():
    arms = companions(many(), ["Age", "OS"], "OS")
    assert not any(arm.space for arm in arms) and not any("but" in arm.name for arm in arms)


@pytest.mark.parametrize("tasks, endpoint", [(["OS"], "OS"), (["Age", "NHG"], "OS"), (["Age", "NHG"], "")])
def test_without_survival_among_other_tasks_there_are_no_arms(tasks, endpoint):
    with pytest.raises(ValueError, match="need a survival task among others"):
        companions(many(), tasks, endpoint)
