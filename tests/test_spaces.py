"""What each method may try in tuning: the first few candidates are alternatives, not the same or nothing again."""

from itertools import combinations

import numpy as np
import pytest

from txtlib.benchmark import training_horizon
from txtlib.cohort import split
from txtlib.peers import (
    autosurv,
    boosting,
    centroid,
    coxnet,
    deepgene,
    floors,
    fmap,
    forest,
    hazards,
    mlp,
    omiembed,
    pca,
    ridge,
    survconvmixer,
    svm,
    tgem,
)
from txtlib.planted import planted
from txtlib.tuning import candidates

TRIALS = 4
FEW = 0.02  # of a label's SD, or of probability: closer answers are the same
QUICK = {
    "svm": (svm.svm, svm.SPACE),
    "forest": (forest.forest, forest.SPACE),
    "boosting": (boosting.boosting, boosting.SPACE),
    "ridge": (ridge.ridge, ridge.SPACE),
    "pca": (pca.pca, pca.SPACE),
    "coxnet": (coxnet.coxnet, coxnet.SPACE),
    "centroid": (centroid.centroid, centroid.SPACE),
    "clinical and genes": (floors.clinical_and_genes, floors.SPACE_CLINICAL_AND_GENES),
}
SETS = {"A": ["a", "b", "c", "d", "e"]}
NETWORKS = {
    "mlp": (mlp.mlp, mlp.SPACE),
    "tgem": (tgem.tgem, tgem.SPACE),
    "deepgene": (deepgene.deepgene, deepgene.SPACE),
    "survconvmixer": (survconvmixer.survconvmixer, survconvmixer.SPACE),
    "fmap": (fmap.fmap_cnn, fmap.SPACE),
    "omiembed": (omiembed.OmiEmbed, omiembed.SPACE),
    "autosurv": (autosurv.AutoSurv, autosurv.SPACE),
    "deep_surv": (hazards.deep_surv, hazards.SPACE_DEEP_SURV),
    "logistic_hazard": (hazards.logistic_hazard, hazards.SPACE_LOGISTIC_HAZARD),
    "deep_hit": (hazards.deep_hit, hazards.SPACE_DEEP_HIT),
}


@pytest.fixture(scope="module")
def parts():
    """A cohort with fewer genes than some methods could take."""
    return split(planted(n=300, n_genes=40, event_rate=0.4, main_effect=0.6, interaction=0.0, seed=0).cohort, seed=0)


def said(answer, horizon, sd):
    """Return what an answer says of each patient, {what: (n, any)}: numbers in SDs, all others in probabilities."""
    found = {name: values[:, None] / sd for name, values in answer.values.items()}
    found |= {name: shares.to_numpy() for name, shares in answer.probabilities.items()}
    if answer.survival is not None:
        at = np.searchsorted(answer.edges, horizon)
        found |= {"curves": answer.survival[:, [at]]}
    return found


@pytest.mark.parametrize("name", QUICK)
def test_the_first_candidates_say_something_each_and_not_the_same(name, parts):
    factory, space = QUICK[name]
    sd, horizon = parts.train.clinical["Age"].std(), training_horizon(parts.train)
    train = parts.train.with_tasks("Age", "PAM50", "OS")
    answers = [
        said(factory(seed=0, **settings).fit(train).predict(parts.test), horizon, sd)
        for settings in candidates({}, space, TRIALS)
    ]
    for what in answers[0]:
        tables = [answer[what] for answer in answers]
        assert all(np.ptp(table, axis=0).max() > 0.1 for table in tables), what
        assert all(np.abs(one - other).max() > FEW for one, other in combinations(tables, 2)), what
        if tables[0].shape[1] > 1:
            assert all(len(set(table.argmax(1))) > 1 for table in tables), what


@pytest.mark.parametrize("name", NETWORKS)
def test_the_first_candidates_of_a_network_change_a_setting_each(name):
    factory, space = NETWORKS[name]
    tried = candidates({}, space, TRIALS)
    assert len({str(settings) for settings in tried}) == TRIALS
    changed = [{key for key in space if settings[key] != space[key][0]} for settings in tried[1:]]
    assert [len(keys) for keys in changed] == [1] * (TRIALS - 1) and len(set.union(*changed)) == TRIALS - 1
    for settings in tried:
        assert factory(seed=0, **settings, **({} if name.startswith(("deep_", "logistic")) else {"gene_sets": SETS}))


@pytest.mark.parametrize("name", [*QUICK, *NETWORKS])
def test_a_space_lists_each_value_once(name):
    _, space = (QUICK | NETWORKS)[name]
    assert all(len({str(value) for value in values}) == len(values) > 1 for values in space.values())
