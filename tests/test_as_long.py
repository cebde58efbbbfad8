"""TxT on survival alone, trained for longer than its own validation loss allows."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from txtlib import checkpoint
from txtlib.cohort import CohortError, load_cohort, split
from txtlib.peers.as_long import fit_to_the_end, trained_as_long
from txtlib.peers.txt import txt

SMALL = dict(
    n_genes=12, n_times=5, grid="quantile", width=8, layers=1, heads=2, readout="mean", batch_size=32, epochs=6
)
QUICK = {**SMALL, "learning_rate": 0.01}


@pytest.fixture(scope="module")
def parts():
    return split(load_cohort("gse7390"), seed=0)


def test_the_last_epoch_is_what_a_checkpoint_of_the_same_run_holds(parts, tmp_path):
    settings = {**QUICK, "tasks": ("DM",), "epochs": 8, "patience": 8, "learning_rate": 0.03}
    found = fit_to_the_end(txt(seed=2, **settings), parts.train, parts.validation)
    method = txt(seed=2, **settings)
    known = method.preprocessor(parts.train)
    network = method.network(parts.train, known)
    method.learn(network, parts.train, parts.validation, known, checkpoint=tmp_path / "run")
    last = checkpoint.parts(checkpoint.read(tmp_path / "run", checkpoint.RUN)[0])["network"]
    assert method.trained.best_epoch < 8  # or this test would show nothing
    assert all(torch.equal(value, last[name]) for name, value in found.network.state_dict().items())
    assert any(not torch.equal(value, last[name]) for name, value in method.trained.network.state_dict().items())
    assert found.best_epoch == 8 and not found.network.training and not network._forward_hooks
    pd.testing.assert_series_equal(found.history["loss"], method.trained.history["loss"])


def test_it_takes_as_many_epochs_as_all_tasks_together_and_answers_survival(parts):
    method = trained_as_long(seed=1, **QUICK, select="all", patience=3).fit(parts.train, parts.validation)
    many = txt(seed=1, **QUICK, select="all", patience=3).fit(parts.train, parts.validation).trained
    assert method.epochs == many.best_epoch == method.trained.history["epoch"].max()
    assert set(method.trained.history["task"]) == {"DM"}
    answer = method.predict(parts.test)
    assert answer.survival.shape[0] == len(parts.test) and not answer.values and not answer.probabilities
    alone = {**QUICK, "tasks": ("DM",), "epochs": method.epochs, "patience": method.epochs}
    expected = fit_to_the_end(txt(seed=1, **alone), parts.train, parts.validation).predict(parts.test)
    np.testing.assert_array_equal(answer.survival, expected.survival)


def test_the_task_that_chooses_the_epoch_together_may_be_another(parts):
    by_age = trained_as_long(seed=1, **QUICK, select="Age").fit(parts.train, parts.validation)
    assert by_age.epochs == by_age.together.best_epoch and set(by_age.together.history["task"]) > {"DM", "Age"}


def test_a_cohort_without_survival_or_without_companions_is_refused(parts):
    for tasks in (("Age", "Size"), ("DM",)):
        train = parts.train.with_tasks(*tasks)
        with pytest.raises(CohortError, match="needs a survival task and another one"):
            trained_as_long(**QUICK).fit(train, replace(parts.validation, tasks=train.tasks))
