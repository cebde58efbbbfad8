from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from txtlib import ledger
from txtlib.benchmark import Method
from txtlib.bootstrap import score_draws
from txtlib.catalogue import TXT
from txtlib.cohort import CohortError, split
from txtlib.external import LEAST_EVENTS, frozen_draws
from txtlib.joining import common_columns, common_genes, in_common
from txtlib.moved import (
    MAIN,
    answers_of,
    fit_methods,
    main_draws,
    moved_entry,
    on_columns,
    on_genes,
    reaching,
)
from txtlib.peers.coxnet import coxnet
from txtlib.peers.floors import clinical_cox, trivial
from txtlib.peers.ridge import ridge
from txtlib.planted import planted, second_site
from txtlib.predictions import Predictions


@pytest.fixture(scope="module")
def sites():
    """Return two sites of one world: days, two thirds of the genes in common."""
    world = planted(n=240, n_genes=60, seed=5, event_rate=0.5)
    return world.cohort, second_site(world, n=150, seed=3).cohort


def with_unit(cohort, column, unit):
    return replace(cohort, about={**cohort.about, "units": {**cohort.about.get("units", {}), column: unit}})


# --- what two cohorts have in common ------------------------------------------------------------------------------


def test_times_come_in_the_unit_of_the_training_cohort(sites):
    train, site = sites
    days = site.outcome()[0]
    months = site.clinical.assign(OS_duration=site.clinical["OS_duration"] / (365.25 / 12))
    for unit in ("months", "Month"):
        found = in_common(train, with_unit(replace(site, clinical=months), "OS_duration", unit))
        np.testing.assert_allclose(found.outcome()[0], days)
    assert months["OS_duration"].max() < 1000  # the reader's own table is left as it was
    silent = replace(site, about={"name": "silent"})
    np.testing.assert_array_equal(in_common(train, silent).outcome()[0], days)


def test_a_unit_that_cannot_be_converted_ends_with_the_sentence(sites):
    train, site = sites
    with pytest.raises(CohortError, match="'OS_duration' is in cycles and that of"):
        in_common(train, with_unit(site, "OS_duration", "cycles"))


def test_tasks_in_common_by_name_kind_and_unit(sites):
    train, site = sites
    assert [task.name for task in in_common(train, site).tasks] == [task.name for task in site.tasks]
    assert "Size" not in [task.name for task in in_common(train, with_unit(site, "Size", "cm")).tasks]
    few = train.with_tasks("PAM50", "OS")
    assert [task.name for task in in_common(few, site).tasks] == ["PAM50", "OS"]
    with pytest.raises(CohortError, match="has no task in common with"):
        in_common(train.with_tasks("OS"), site.with_tasks("Age"))


def test_clinical_columns_in_common(sites):
    train, site = sites
    assert common_columns([train, site], ["Age", "NHG", "Menopause"]) == ["Age", "NHG"]
    coded = replace(site, clinical=site.clinical.assign(NHG=2.0))
    assert common_columns([train, site, coded], ["Age", "NHG"]) == ["Age"]
    assert common_columns([train, with_unit(site, "Size", "cm")], ["Age", "Size"]) == ["Age"]


def test_genes_in_common_come_from_the_lists_alone(sites):
    train, site = sites
    blank = replace(site, expression=site.expression * np.nan)
    assert common_genes([train, site]) == common_genes([train, blank])
    assert set(common_genes([train, site])) == set(train.expression) & set(site.expression)
    few = replace(site, expression=site.expression.iloc[:, :5])
    assert set(common_genes([train, site, few])) == set(few.expression)


def test_methods_choose_among_the_given_genes(sites):
    train, site = sites
    genes = common_genes([train, site])[:7]
    reading, floor = on_genes(
        [Method("net", coxnet, {"n_genes": 50, "gene_sets": {}}), Method("constant", trivial)], genes
    )
    fitted, _ = fit_methods([reading, floor], *split(train, 0)[:2], 1000.0)
    (net,) = fitted["net"].fits.values()
    assert set(net.preprocessor.genes) == set(genes) and floor.settings == {}


def test_methods_read_the_given_columns(sites):
    methods = [*METHODS, Method("clinical Cox", clinical_cox, {"columns": ["Age", "Size", "ER"]}, kinds=("survival",))]
    found = on_columns(methods, ["Size", "ER"])
    assert [one.name for one in found] == ["ridge", "constant", "clinical Cox"]
    assert found[-1].settings == {"columns": ["Size", "ER"]} and found[0].settings == {"n_genes": 40}


def test_survival_goes_where_it_cannot_be_scored(sites):
    _, site = sites
    last = site.outcome()[0].max()
    assert (
        reaching(site, last - 1) is site
        and reaching(site.with_tasks("Age"), None).tasks == site.with_tasks("Age").tasks
    )
    tenth = np.sort(site.outcome()[0][site.outcome()[1] == 1])[LEAST_EVENTS - 1]
    assert reaching(site, tenth) is site
    for horizon in (last, tenth - 1, None):
        assert reaching(site, horizon).survival_task is None and len(reaching(site, horizon).tasks) == 4


# --- fitted once, then frozen -------------------------------------------------------------------------------------


def fitted_here(train, *methods):
    return fit_methods(methods, *split(train, 0)[:2], 1000.0)[0]


METHODS = (
    Method("ridge", ridge, {"n_genes": 40}, joint=False),
    Method("age alone", clinical_cox, {"columns": ["Age"]}, kinds=("survival",)),
    Method("constant", trivial),
)


def test_no_label_of_the_other_cohort_is_seen(sites):
    train, site = sites
    fitted = fitted_here(train, *METHODS)
    columns = [column for task in site.tasks for column in task.columns if column != "Age"]  # age alone reads it
    blank = replace(site, clinical=site.clinical.assign(**{column: np.nan for column in columns}))
    bare = replace(site, tasks=())
    for cohort in (blank, bare):
        for name, answer in answers_of(fitted, cohort)[0].items():
            expected = fitted[name].predict(site)
            np.testing.assert_array_equal(answer.survival, expected.survival)
            for task, values in expected.values.items():
                np.testing.assert_array_equal(answer.values[task], values)


def test_a_method_answers_the_tasks_of_its_kinds(sites):
    answers, _ = answers_of(fitted_here(sites[0], *METHODS), sites[1])
    assert set(answers["ridge"].values) == {"Age", "Size"} and set(answers["ridge"].probabilities) == {"NHG", "PAM50"}
    assert not answers["age alone"].values and answers["age alone"].survival is not None


class Broken:
    def __init__(self, seed=0, when="fit"):
        self.when = when

    def fit(self, train, validation):
        if self.when == "fit":
            raise ValueError("it broke")
        return self

    def predict(self, cohort):
        return Predictions(cohort.samples, score=np.full(len(cohort), np.nan))


def test_a_method_that_fails_is_named_and_the_others_go_on(sites):
    train, site = sites
    methods = [Method("fits badly", Broken), Method("not a number", Broken, {"when": "predict"}), METHODS[2]]
    fitted, errors = fit_methods(methods, *split(train, 0)[:2], 1000.0)
    assert list(fitted) == ["not a number", "constant"] and "it broke" in errors["fits badly"]
    answers, wrong = answers_of(fitted, site)
    assert list(answers) == ["constant"] and "not a finite number" in wrong["not a number"]
    _, none = fit_methods([METHODS[1]], *(part.with_tasks("Age") for part in split(train, 0)[:2]), None)
    assert "no task here" in none["age alone"]


# --- as good as the others? ---------------------------------------------------------------------------------------


def test_main_draws_are_those_of_the_frozen_draws(sites):
    train, site = sites
    site = site.take(site.samples[:60])
    answers, _ = answers_of(fitted_here(train, *METHODS), site)
    expected = frozen_draws(answers, site, 1000.0, resamples=20, seed=4)
    found = main_draws(answers, site, 1000.0, resamples=20, seed=4)
    assert set(found.columns.get_level_values("measure")) == {name for names in MAIN.values() for name in names}
    pd.testing.assert_frame_equal(found, expected[list(found.columns)])


def test_main_draws_of_a_test_part_are_weighed_by_the_training_part(sites):
    parts = split(sites[0], 0)
    answers, _ = answers_of(fitted_here(sites[0], *METHODS), parts.test)
    expected = score_draws(answers, parts.train, parts.test, 900.0, resamples=5)
    found = main_draws(answers, parts.test, 900.0, resamples=5, train=parts.train)
    pd.testing.assert_frame_equal(found, expected[list(found.columns)])


def test_main_draws_without_labels_or_survival(sites):
    train, site = sites
    answers, _ = answers_of(fitted_here(train, *METHODS), site)
    nobody = replace(site, clinical=site.clinical.assign(Age=np.nan, OS_event=np.nan))
    found = main_draws(answers, nobody, 1000.0, resamples=3)
    assert found["constant"]["Age"].isna().all(axis=None) and found["age alone"]["OS"].isna().all(axis=None)
    assert found["ridge"]["PAM50"].notna().all(axis=None)
    assert "age alone" not in main_draws(answers, site.with_tasks("PAM50"), None, resamples=3).columns.levels[0]


def made_up(**scores):
    """Return draws of Uno's C for OS: of each method a score, with noise that all share."""
    noise = np.random.default_rng(0).normal(0, 0.03, 400)
    noise[0] = 0
    frame = pd.DataFrame({(name, "OS", "Uno's C"): score + noise for name, score in scores.items()})
    return frame.rename_axis(columns=["method", "task", "measure"])


OS = {"OS": "Uno's C"}
ABOUT = dict(cohort="METABRIC", patients=237, events=48)


def entry(draws, **about):
    return moved_entry("C7", draws, OS, **ABOUT | about)


def test_the_claim_is_open_while_baselines_are_missing_and_fails_by_one():
    same = made_up(**{TXT: 0.6, "MLP": 0.61, "random forest": 0.6, "constant": 0.5})
    found = entry(same, note="small")
    assert found.verdict == ledger.TOO_SMALL and {line.verdict for line in found.lines} == {ledger.REPRODUCED}
    assert "without SVM, OmiEmbed, one task" in found.note and found.note.endswith("small") and found.splits == 1
    worse = made_up(**{TXT: 0.6, "MLP": 0.66, "random forest": 0.6, "constant": 0.5})
    assert entry(worse).verdict == ledger.NOT_REPRODUCED and "fails only by intervals of 97.5 %" in entry(worse).note


def test_where_txt_knows_no_more_than_a_constant_nothing_is_decided():
    found = entry(made_up(**{TXT: 0.5, "MLP": 0.66, "constant": 0.5}))
    assert found.verdict == ledger.TOO_SMALL and "undecided where TxT" in found.note
    unmeasured = entry(made_up(**{TXT: 0.5, "MLP": 0.66}))
    assert unmeasured.verdict == ledger.NOT_REPRODUCED  # without a constant there is nothing to tell by


def test_without_a_comparison_the_claim_is_not_attempted():
    for draws in (made_up(**{TXT: 0.6, "ridge": 0.6}), made_up(MLP=0.6), made_up(**{TXT: np.nan, "MLP": 0.6})):
        assert entry(draws).verdict == ledger.NOT_ATTEMPTED
