"""TxT behind the two calls of a method."""

import numpy as np
import pytest

from txtlib.benchmark import Method, run
from txtlib.cohort import load_cohort, split
from txtlib.peers.txt import txt

SMALL = dict(
    n_genes=12, n_times=5, grid="quantile", width=8, layers=1, heads=2, readout="mean", epochs=2, batch_size=32
)


@pytest.fixture(scope="module")
def parts():
    return split(load_cohort("gse7390"), seed=0)


def answer(parts, seed=0, **settings):
    return txt(seed=seed, **{**SMALL, **settings}).fit(parts.train, parts.validation).predict(parts.test)


def test_it_answers_all_tasks_or_those_named(parts):
    everything, one = answer(parts), answer(parts, tasks=("DM",))
    assert set(everything.values) == {"Age", "Size"} and everything.survival is not None
    assert not one.values and one.survival is not None


def test_the_seed_decides_and_the_settings_reach_their_places(parts):
    first = answer(parts).survival
    np.testing.assert_array_equal(answer(parts).survival, first)
    assert not np.array_equal(answer(parts, seed=1).survival, first)
    method = txt(**{**SMALL, "variant": "none", "sets": True, "rest": 5}).fit(parts.train, parts.validation)
    settings = method.trained.network.settings
    assert settings["variant"] == "none" and [len(genes) for genes in settings["sets"]] == [4, 4, 4]
    assert method.trained.history["epoch"].max() == 2
    with pytest.raises(TypeError, match="depth"):
        answer(parts, depth=3)


def test_genes_are_chosen_from_the_gene_sets(parts):
    columns = list(parts.train.expression.columns)
    sets = {"A": columns[:8], "B": columns[6:15]}
    method = txt(**{**SMALL, "gene_sets": sets, "sets": True}).fit(parts.train, parts.validation)
    assert set(method.trained.preprocessor.genes) <= set(columns[:15])
    assert len(method.trained.network.settings["sets"]) == 2


def test_half_a_training_is_no_answer(parts, monkeypatch):
    from txtlib.training import Run

    def stop(self, *_):
        if self.done.epoch:
            raise KeyboardInterrupt
        return whole(self, *_)

    whole = Run.one_epoch
    monkeypatch.setattr(Run, "one_epoch", stop)
    with pytest.raises(KeyboardInterrupt):
        answer(parts)


def test_it_runs_in_the_benchmark(tmp_path):
    found = run([Method("TxT", txt, SMALL)], "gse7390", tmp_path, data_seeds=[0], workers=1, progress=False)
    assert found["error"].isna().all() and {"DM", "Age"} <= set(found["task"])
