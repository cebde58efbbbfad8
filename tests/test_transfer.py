from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.preprocessing import quantile_transform

from txtlib.cohort import Cohort, CohortError, load_cohort, split
from txtlib.external import observed_risk
from txtlib.metrics import harrell_c
from txtlib.peers.coxnet import coxnet
from txtlib.peers.txt import txt
from txtlib.planted import planted, second_site
from txtlib.preprocess import fit_preprocessor
from txtlib.training import load_trained
from txtlib.transfer import HOWS, LEAST, LEVELS, fit_mapping, load_mapping, new_patients, overlap

MOVING = ("zscore", "quantile")


@pytest.fixture(scope="module")
def world():
    return planted(n=300, n_genes=60, seed=4, event_rate=0.5, main_effect=0.8)


@pytest.fixture(scope="module")
def site(world):
    """The same biology on another platform, where some genes are not measured."""
    return second_site(world, n=200, seed=2).cohort


def shifted(cohort):
    """The same patients on another platform: each gene is bent and moved, and no two patients change places."""
    values = cohort.expression.to_numpy(float)
    moved = np.sinh(values / 3) * np.linspace(0.5, 2, values.shape[1]) - np.arange(values.shape[1])
    return replace(cohort, expression=pd.DataFrame(moved, cohort.samples, cohort.expression.columns))


# --- what a map is ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", HOWS)
def test_the_training_part_is_mapped_to_itself(how, build):
    train = build(80)
    mapped = fit_mapping(train, train, how).apply(train)
    pd.testing.assert_frame_equal(mapped.expression, train.expression, rtol=1e-5, atol=1e-5)
    assert mapped.expression.isna().to_numpy().any() and mapped.clinical is train.clinical


def columns(least=LEAST):
    values = st.floats(-50, 50, width=32).map(lambda value: round(value, 1))  # many ties
    return arrays(np.float64, st.tuples(st.integers(least, 60), st.just(2)), elements=values)


@given(columns(), columns(), columns(1), st.sampled_from(MOVING))
@settings(deadline=None, max_examples=60)
def test_each_gene_keeps_the_order_of_its_patients_and_the_training_range(source, target, new, how):
    train, cohort, patients = (_cohort(values) for values in (target, source, new))
    found = fit_mapping(train, cohort, how).apply(patients).expression.to_numpy(float)
    for gene in range(2):
        order = np.argsort(new[:, gene], kind="stable")
        assert (np.diff(found[order, gene]) >= 0).all()
        if how == "quantile":
            low, high = target[:, gene].min(), target[:, gene].max()
            assert (found[:, gene] >= low - 1e-4).all() and (found[:, gene] <= high + 1e-4).all()


def _cohort(values):
    samples = pd.Index([f"P{row}" for row in range(len(values))], name="Sample")
    frame = pd.DataFrame(values, samples, [f"G{gene}" for gene in range(values.shape[1])])
    return Cohort(frame, pd.DataFrame(index=samples), (), {"name": "made up"})


@given(columns(), st.sampled_from(MOVING))
@settings(deadline=None, max_examples=30)
def test_the_training_part_is_mapped_to_itself_with_any_ties(values, how):
    train = _cohort(values)
    found = fit_mapping(train, train, how).apply(train).expression
    np.testing.assert_allclose(found, values, rtol=1e-5, atol=1e-5)


def test_zscore_brings_mean_and_spread(world, site):
    mapped = fit_mapping(world.cohort, site, "zscore").apply(site).expression
    known = world.cohort.expression[mapped.columns]
    np.testing.assert_allclose(mapped.mean(), known.mean(), atol=1e-3)
    np.testing.assert_allclose(mapped.std(ddof=0), known.std(ddof=0), atol=1e-3)


def test_quantile_equals_scikit_learns_ranks_read_in_the_training_part(world, site):
    mapped = fit_mapping(world.cohort, site, "quantile").apply(site).expression
    for gene in mapped.columns[:8]:
        values = site.expression[[gene]].to_numpy(float)
        rank = quantile_transform(values, n_quantiles=LEVELS, output_distribution="uniform", subsample=None)[:, 0]
        levels = np.quantile(world.cohort.expression[gene].to_numpy(float), np.linspace(0, 1, LEVELS))
        np.testing.assert_allclose(mapped[gene], np.interp(rank, np.linspace(0, 1, LEVELS), levels), atol=1e-4)


def test_tied_values_take_the_mean_of_the_levels_that_they_cover():
    floor = np.r_[np.zeros(60), np.linspace(1, 2, 41)]
    train, cohort = _cohort(np.arange(101.0)[:, None]), _cohort(floor[:, None])
    mapped = fit_mapping(train, cohort, "quantile").apply(cohort).expression["G0"]
    assert mapped.iloc[0] == pytest.approx(np.arange(60).mean()) and mapped.iloc[-1] == 100
    np.testing.assert_allclose(mapped.iloc[60:], np.arange(60, 101), atol=1e-4)


def test_quantile_undoes_any_rising_change_of_platform_and_zscore_does_not(build):
    train = build(120)
    platform = shifted(train)
    gaps = {}
    for how in HOWS:
        mapped = fit_mapping(train, platform, how).apply(platform).expression
        gaps[how] = np.nanmean(np.abs(mapped - train.expression) / train.expression.std())
    assert gaps["quantile"] < 0.06 < 0.08 < gaps["zscore"] < gaps["none"]


def test_a_constant_gene_becomes_a_constant_of_the_training_part(build):
    train, cohort = build(60), build(60, seed=1)
    cohort.expression["GENE3"] = np.float32(7.1)
    for how in MOVING:
        mapped = fit_mapping(train, cohort, how).apply(cohort).expression["GENE3"]
        assert mapped.nunique() == 1
        assert mapped.iloc[0] == pytest.approx(train.expression["GENE3"].mean(), abs=0.3)


@pytest.mark.parametrize("how", HOWS)
def test_labels_play_no_role_and_other_patients_of_the_training_cohort_neither(how, world, site):
    train = split(world.cohort, seed=0).train
    first = fit_mapping(train, site, how)
    bare = fit_mapping(replace(train, clinical=train.clinical[[]], tasks=()), replace(site, tasks=()), how)
    np.testing.assert_array_equal(first.source, bare.source)
    np.testing.assert_array_equal(first.target, bare.target)


# --- genes --------------------------------------------------------------------------------------------------------


def test_genes_that_one_side_lacks_are_left_to_the_preprocessor(world, site):
    known = fit_preprocessor(world.cohort, n_genes=60)
    mapping = fit_mapping(world.cohort, site, "quantile")
    mapped = mapping.apply(site)
    absent = set(world.cohort.expression.columns) - set(site.expression.columns)
    assert absent and set(known.missing_genes(mapped)) == absent and not absent & set(mapping.genes)
    x = known.expression(mapped)
    for gene in absent:
        column = x[:, known.genes.index(gene)]
        assert (column == column[0]).all()


def test_twenty_six_genes_suffice_and_a_gene_with_few_values_is_left_out(world, site):
    cohort = replace(site, expression=site.expression.iloc[:, :26].copy())
    gene = cohort.expression.columns[5]
    cohort.expression.loc[cohort.samples[LEAST - 1 :], gene] = np.nan
    mapping = fit_mapping(world.cohort, cohort, "zscore")
    assert len(mapping.genes) == 25 and gene not in mapping.genes
    assert gene in fit_mapping(world.cohort, cohort, "none").genes
    method = coxnet(n_genes=60).fit(world.cohort)
    assert np.ptp(method.predict(mapping.apply(cohort)).risk(1000.0)) > 0.05


def test_overlap_says_what_is_known_of_each_gene(build):
    cohort = build(40)
    cohort.expression["GENE1"], cohort.expression["GENE2"] = np.float32(3), np.float32(np.nan)
    found = overlap(["GENE2", "GENE0", "GENE1", "OTHER"], cohort)
    assert found.to_dict() == {"GENE2": "empty", "GENE0": "measured", "GENE1": "constant", "OTHER": "absent"}
    assert overlap(["GENE0"], cohort).value_counts().to_dict() == {
        "measured": 1,
        "constant": 0,
        "empty": 0,
        "absent": 0,
    }


# --- what it is for -----------------------------------------------------------------------------------------------


def test_a_mapping_gives_a_frozen_model_back_what_the_platform_took(world):
    site = second_site(world, n=400, seed=2, shift=3.0, scale=0.6).cohort
    method = coxnet(n_genes=60, scaler="minmax").fit(world.cohort)
    truth = {how: method.predict(fit_mapping(world.cohort, site, how).apply(site)) for how in HOWS}
    time, event = site.outcome()
    c = {how: harrell_c((time, event), answer.risk(1000.0)) for how, answer in truth.items()}
    assert min(c["zscore"], c["quantile"]) > c["none"] + 0.03
    seen = observed_risk((time, event), 1000.0, np.ones((1, len(time))))[0]
    away = {how: abs(answer.risk(1000.0).mean() - seen) for how, answer in truth.items()}
    assert max(away["zscore"], away["quantile"]) < away["none"]


# --- one new patient ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", HOWS)
def test_patients_may_come_one_by_one(how, world, site, tmp_path):
    mapping = fit_mapping(world.cohort, site, how)
    together = mapping.apply(site).expression
    mapping.save(tmp_path / "mapping.safetensors")
    again = load_mapping(tmp_path / "mapping.safetensors")
    assert (again.how, again.genes) == (how, mapping.genes)
    for sample in site.samples[:3]:
        alone = again.apply(site.take([sample])).expression
        pd.testing.assert_frame_equal(alone, together.loc[[sample]])


@pytest.fixture(scope="module")
def parts():
    return split(load_cohort("gse7390"), seed=0)


SMALL = dict(n_genes=12, n_times=5, grid="quantile", width=8, layers=1, heads=2, epochs=2, batch_size=32)


@pytest.mark.parametrize("readout", ["mean", "flatten"])
def test_a_saved_model_predicts_one_new_patient_in_two_lines(readout, parts, tmp_path):
    trained = txt(**SMALL, readout=readout).fit(parts.train, parts.validation).trained
    trained.save(tmp_path / "model.safetensors")
    expected = trained.predict(parts.test)
    parts.test.expression.iloc[[3]].to_csv(tmp_path / "patient.csv")

    patient = new_patients(tmp_path / "patient.csv")
    answer = load_trained(tmp_path / "model.safetensors").predict(patient)

    assert list(answer.samples) == [parts.test.samples[3]] and not patient.tasks
    np.testing.assert_allclose(answer.survival, expected.survival[[3]], atol=1e-4)  # float32, one patient or many
    for task, values in expected.values.items():
        np.testing.assert_allclose(answer.values[task], values[[3]], rtol=1e-4)
    for task, shares in expected.probabilities.items():
        np.testing.assert_allclose(answer.probabilities[task], shares.iloc[[3]], rtol=1e-4)
    assert 0 <= answer.risk(1000.0)[0] <= 1


def test_one_new_patient_may_lack_genes_and_values(parts, tmp_path):
    trained = txt(**SMALL).fit(parts.train, parts.validation).trained
    genes = list(trained.preprocessor.genes)
    row = parts.test.expression.iloc[[0]].copy()
    row[genes[1]] = np.nan
    row.drop(columns=genes[0]).to_csv(tmp_path / "patient.csv")
    found = trained.predict(new_patients(tmp_path / "patient.csv"))
    filled = row.assign(**{gene: trained.preprocessor.fill[genes.index(gene)] for gene in genes[:2]})
    expected = trained.predict(replace(parts.test.take(parts.test.samples[:1]), expression=filled))
    np.testing.assert_array_equal(found.survival, expected.survival)


def test_a_network_left_in_training_mode_answers_as_in_evaluation_mode(parts):
    """Batch norm must use what it has learned: a patient's answer does not depend on who else is asked for."""
    trained = txt(**SMALL).fit(parts.train, parts.validation).trained
    together = trained.predict(parts.test).survival
    trained.network.train()
    before = {name: value.clone() for name, value in trained.network.state_dict().items()}
    alone = trained.predict(parts.test.take(parts.test.samples[:1])).survival
    np.testing.assert_allclose(alone, together[:1], atol=1e-4)  # float32, one patient or many
    assert all(value.equal(before[name]) for name, value in trained.network.state_dict().items())


# --- bad input ----------------------------------------------------------------------------------------------------


def test_one_patient_has_no_scale(world, site):
    alone = site.take(site.samples[:1])
    for how in MOVING:
        with pytest.raises(CohortError, match=r"none has 20 values in both \(1 and 300 patients\).*one by one"):
            fit_mapping(world.cohort, alone, how)
    assert len(fit_mapping(world.cohort, alone, "none").apply(alone)) == 1


def test_other_names_and_other_words_are_refused(world, site, tmp_path):
    foreign = replace(site, expression=site.expression.add_prefix("ENSG"))
    with pytest.raises(CohortError, match=r"of 0 genes shared with PLANTED"):
        fit_mapping(world.cohort, foreign, "none")
    with pytest.raises(CohortError, match=r"has none of the .* genes of this mapping"):
        fit_mapping(world.cohort, site, "zscore").apply(foreign)
    with pytest.raises(ValueError, match="how is one of none, zscore, quantile, not 'rank'"):
        fit_mapping(world.cohort, site, "rank")
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"x\.safetensors"):
        load_mapping(tmp_path / "x.safetensors")


def test_a_bad_cell_of_a_new_patient_is_named(tmp_path):
    (tmp_path / "patient.csv").write_text("Sample,TP53,ESR1\nP1,high,3\n")
    with pytest.raises(CohortError, match=r"patient.csv: column 'TP53' does not hold numbers, P1: high"):
        new_patients(tmp_path / "patient.csv")
