"""TxT beside the clinic: it begins as clinical N-MTLR, the genes may add, and nothing else may enter."""

import numpy as np
import pytest
import torch
from helpers import relabelled

from txtlib.cohort import CohortError, load_cohort, split
from txtlib.metrics import harrell_c
from txtlib.peers import beside
from txtlib.peers.beside import txt_beside_clinic
from txtlib.peers.floors import clinical_cox
from txtlib.peers.networks import NetworkMethod
from txtlib.planted import planted

SMALL = dict(n_genes=12, n_times=6, grid="quantile", width=8, layers=1, heads=2, epochs=2, batch_size=32)


@pytest.fixture(scope="module")
def parts():
    return split(load_cohort("gse7390").with_tasks("Age", "DM"), seed=0)


@pytest.fixture
def untrained(monkeypatch):
    """Leave the network as it is before its first step."""
    monkeypatch.setattr(NetworkMethod, "learn", kept)


def kept(self, network, train, validation, preprocessor, **others):
    from txtlib.training import Trained

    network.eval()
    self.trained, self.capped = Trained(network, preprocessor, None, None, 0), False
    return self


def fitted(parts, **settings):
    return txt_beside_clinic(**{**SMALL, **settings}).fit(parts.train, parts.validation)


def test_before_its_first_step_it_ranks_as_clinical_regression_does(untrained):
    parts = split(planted(n=1500, n_genes=100).cohort.with_tasks("OS"), seed=0)
    columns = ["Age", "Size"]
    begun = fitted(parts, columns=columns).predict(parts.test)
    cox = clinical_cox(columns=columns).fit(parts.train, parts.validation).predict(parts.test)
    horizon = float(np.median(parts.train.outcome()[0]))
    ours, theirs = begun.risk(horizon), cox.risk(horizon)
    assert np.corrcoef(ours, theirs)[0, 1] > 0.97
    time, event = parts.test.outcome()
    seen = ~np.isnan(event)
    c = [harrell_c((time[seen], event[seen]), risk[seen]) for risk in (ours, theirs)]
    assert abs(c[0] - c[1]) < 0.02


def test_the_clinical_map_is_the_minimum_of_its_loss(parts, untrained):
    method = fitted(parts, columns=["Age", "Size"])
    network, both = method.trained.network, method.trained.preprocessor
    encoded = both.encode(parts.train)
    clinic = network.answer.clinic
    columns = torch.from_numpy(encoded.x[:, -2:])
    label = tuple(map(torch.from_numpy, encoded.labels["DM"]))
    clinic.zero_grad()
    loss = beside.task_loss("survival", clinic(columns), label) + beside.RIDGE * clinic.weight.square().sum()
    loss.backward()
    assert max(part.grad.abs().max() for part in clinic.parameters()) < 1e-3


def test_genes_change_the_answer_once_it_is_trained(parts):
    method = fitted(parts, columns=["Age"], learning_rate=0.01)
    before = method.predict(parts.test).survival
    other = parts.test.expression.iloc[::-1].set_axis(parts.test.samples)
    after = method.predict(beside.replace(parts.test, expression=other)).survival
    older = relabelled(parts.test, Age=parts.test.clinical["Age"] + 20)
    assert not np.allclose(before, after) and not np.allclose(before, method.predict(older).survival)


def test_it_answers_survival_alone_and_reads_no_label(parts):
    method = fitted(parts, columns=["Size"])
    answer = method.predict(parts.test)
    assert answer.survival.shape[0] == len(parts.test) and not answer.values and not answer.probabilities
    blind = relabelled(parts.test, DM_duration=np.nan, DM_event=np.nan, Age=np.nan)
    np.testing.assert_array_equal(method.predict(blind).survival, answer.survival)


def test_the_seed_decides(parts):
    first = fitted(parts, columns=["Age"]).predict(parts.test).survival
    np.testing.assert_array_equal(fitted(parts, columns=["Age"]).predict(parts.test).survival, first)
    assert not np.array_equal(fitted(parts, columns=["Age"], seed=1).predict(parts.test).survival, first)


def test_bad_input_is_named(parts):
    with pytest.raises(CohortError, match="no column 'Stage'"):
        fitted(parts, columns=["Stage"])
    alone = split(load_cohort("gse7390").with_tasks("Age"), seed=0)
    with pytest.raises(CohortError, match="survival"):
        fitted(alone, columns=["Age"])
    with pytest.raises(CohortError, match="no column 'Age'"):
        method = fitted(parts, columns=["Age"])
        method.predict(beside.replace(parts.test, clinical=parts.test.clinical.drop(columns="Age"), tasks=()))
