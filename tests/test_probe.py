from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers import draw
from sklearn.metrics import matthews_corrcoef

from txtlib.bootstrap import patient_counts
from txtlib.cohort import CohortError, load_cohort, split
from txtlib.peers.pca import pca
from txtlib.pretrain.pathways import activity, agreement, told_by
from txtlib.pretrain.probe import (
    MCC,
    answering,
    fit_probe,
    gene_reader,
    in_versions,
    labelled,
    mcc,
    on_vectors,
    probe_draws,
    rank_reader,
    with_outcomes,
)
from txtlib.pretrain.versions import VERSIONS, fit_versions


@pytest.fixture(scope="module")
def parts():
    return split(load_cohort("planted").with_tasks("PAM50"), 0)


@pytest.fixture(scope="module")
def genes(parts):
    return list(parts.train.expression.columns[:30])


def quick(train, reader):
    return fit_probe(train, reader.fixed, method=pca, n_components=10)


def drawn_shares(n, classes, seed=0):
    return pd.DataFrame(np.random.default_rng(seed).dirichlet(np.ones(len(classes)), n), columns=classes)


# --- Matthews' correlation --------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [["a", "b"], ["a", "b", "c", "d"]])
def test_mcc_is_that_of_scikit_learn_on_every_resample(classes):
    truth = np.random.default_rng(1).choice(classes, 40)
    shares = drawn_shares(40, classes)
    counts = np.random.default_rng(2).multinomial(40, np.full(40, 1 / 40), 12).astype(float)
    told = shares.idxmax(axis=1).to_numpy()
    theirs = [matthews_corrcoef(*(np.repeat(x, row.astype(int)) for x in (truth, told))) for row in counts]
    assert np.allclose(mcc(truth, shares, counts), theirs)


def test_mcc_of_one_answer_is_zero_and_of_the_truth_one():
    truth = np.array(["a", "b", "b", "c"])
    right = pd.get_dummies(pd.Series(truth)).astype(float)
    always = pd.DataFrame({"a": np.ones(4), "b": np.zeros(4), "c": np.zeros(4)})
    assert mcc(truth, right, np.ones((1, 4))) == pytest.approx(1)
    assert mcc(truth, always, np.ones((1, 4))) == 0


def test_draws_hold_mcc_beside_the_other_measures(parts, genes):
    reader = gene_reader(parts.train, genes)
    answer = quick(parts.train, reader).predict(on_vectors(parts.test, reader.fixed(parts.test)))
    draws = probe_draws({"genes": answer}, parts.train, parts.test, 1.0, 20, seed=3)
    known = parts.test.clinical["PAM50"].notna().to_numpy()
    told = answer.probabilities["PAM50"][known].idxmax(axis=1)
    first = draws["genes", "PAM50", MCC].iloc[0]
    assert first == pytest.approx(matthews_corrcoef(parts.test.clinical["PAM50"][known], told))
    assert draws.shape[0] == 21 and draws.columns.names == ["method", "task", "measure"]
    counts = patient_counts(parts.test, 20, 3)[:, known]
    right = (parts.test.clinical["PAM50"][known] == told).to_numpy()
    assert np.allclose(draws["genes", "PAM50", "accuracy"].iloc[1:], counts @ right / counts.sum(1))


# --- readers ----------------------------------------------------------------------------------------------


def test_ranks_within_a_sample_give_one_answer_in_every_monotone_version(parts):
    expressed = (parts.train.expression > 0).all() & (parts.test.expression > 0).all()
    reader = rank_reader(list(parts.train.expression.columns[expressed]))
    answers = in_versions(reader, quick(parts.train, reader), fit_versions(parts.train), parts.train, parts.test)
    log = answers["log, fixed"].probabilities["PAM50"]
    for name in VERSIONS:
        same = np.allclose(answers[f"{name}, fixed"].probabilities["PAM50"], log, atol=1e-6)
        assert same == (name != "zscore")
    assert not any("told" in name for name in answers)


def test_genes_told_their_unit_come_near_and_genes_that_are_not_do_not(parts, genes):
    reader = gene_reader(parts.train, genes)
    answers = in_versions(reader, quick(parts.train, reader), fit_versions(parts.train), parts.train, parts.test)
    gap = {
        name: np.abs(answer.probabilities["PAM50"] - answers["log, fixed"].probabilities["PAM50"]).to_numpy().mean()
        for name, answer in answers.items()
    }
    assert gap["log, told"] == pytest.approx(0, abs=1e-6)
    assert gap["linear, told"] < gap["linear, fixed"] and gap["rank, told"] < gap["rank, fixed"]


def test_a_probe_sees_the_training_part_only(parts, genes):
    reader = gene_reader(parts.train, genes)
    vectors = reader.fixed(parts.test)
    first = quick(parts.train, reader)
    alone, together = (
        first.predict(on_vectors(part, rows)).probabilities["PAM50"].iloc[:1]
        for part, rows in (
            (parts.test.take(parts.test.samples[:1]), vectors.iloc[:1]),
            (parts.test, vectors),
        )
    )
    assert np.allclose(alone, together)


def test_a_probe_can_be_asked_about_one_task_only(build):
    cohort = build(n=90)
    reader = gene_reader(cohort, list(cohort.expression.columns))
    filled = replace(cohort, expression=cohort.expression.fillna(0.0))
    probe = fit_probe(filled, reader.fixed, method=pca, n_components=5)
    whole, part = (one.predict(filled) for one in (probe, answering(probe, "Grade")))
    assert part.survival is None and not part.values and whole.survival is not None
    assert part.probabilities["Grade"].equals(whole.probabilities["Grade"])
    with pytest.raises(KeyError):
        answering(probe, "Stage")


# --- outcomes of the same patients --------------------------------------------------------------------------


def test_outcomes_are_joined_by_patient(build):
    other = build(n=30)
    names = other.patients().to_numpy()
    twice = pd.Index([f"{names[3]}-a", f"{names[5]}-b", f"{names[3]}-c", "unknown"], name="Sample")
    clinical = pd.DataFrame({"Patient": [names[3], names[5], names[3], "nobody"]}, twice)
    own = replace(other, expression=other.expression.iloc[:4].set_axis(twice), clinical=clinical, tasks=())
    joined = with_outcomes(own, other)
    time, event = joined.outcome()
    theirs = [np.asarray(each)[[3, 5, 3]] for each in other.outcome()]
    assert np.array_equal(time[:3], theirs[0], equal_nan=True) and np.array_equal(event[:3], theirs[1], equal_nan=True)
    assert np.isnan(time[3]) and joined.survival_task.name == "OS"


def test_outcomes_that_cannot_be_joined_are_refused(build):
    cohort = build(n=30)
    stranger = replace(
        cohort, expression=cohort.expression.add_prefix("X", axis=0), clinical=cohort.clinical.add_prefix("X", axis=0)
    )
    with pytest.raises(CohortError, match="shares no patient"):
        with_outcomes(stranger, cohort)
    with pytest.raises(CohortError, match="no survival task"):
        with_outcomes(cohort, cohort.with_tasks("Age"))
    repeated = replace(cohort, clinical=cohort.clinical.assign(Patient="one"))
    with pytest.raises(CohortError, match="holds a patient twice"):
        with_outcomes(cohort, repeated)


def test_a_label_is_a_task_or_a_clinical_column(build):
    cohort = build(n=30)
    assert [task.name for task in labelled(cohort).tasks] == ["Grade", "OS"]
    assert [task.kind for task in labelled(cohort, "Grade").tasks] == ["classification", "survival"]
    site = labelled(replace(cohort, clinical=cohort.clinical.assign(Site=[1] * 15 + [2] * 14 + [None])), "Site")
    assert (
        site.clinical["Site"].dropna().unique().tolist() == ["1.0", "2.0"] and site.clinical["Site"].isna().sum() == 1
    )
    assert [task.name for task in labelled(cohort.with_tasks("Grade")).tasks] == ["Grade"]


def test_a_label_that_is_not_there_is_refused(build):
    with pytest.raises(CohortError, match=r"no column 'Type' to tell patients apart; name one of .* Age, Grade"):
        labelled(build(n=30), "Type")
    with pytest.raises(CohortError, match="no classification task"):
        labelled(build(n=30).with_tasks("Age"))


# --- pathways ---------------------------------------------------------------------------------------------


def test_activity_is_the_mean_z_score_in_sds_of_the_training_part(parts):
    columns = list(parts.train.expression.columns)
    sets = {"one": columns[:6], "two": [*columns[4:12], "unmeasured"], "small": columns[:2]}
    found = activity(parts.test, parts.train, sets)
    known = parts.train.expression.to_numpy(float)
    z = (parts.test.expression.to_numpy(float) - known.mean(0)) / known.std(0)
    fitted = ((known - known.mean(0)) / known.std(0))[:, 4:12].mean(1)
    assert list(found) == ["one", "two"]
    assert np.allclose(found["two"], (z[:, 4:12].mean(1) - fitted.mean()) / fitted.std(), atol=1e-5)
    assert np.allclose(activity(parts.train, parts.train, sets).std(ddof=0), 1)


def test_activity_needs_measured_genes(parts):
    with pytest.raises(CohortError, match="none of the 1 gene sets has 5 measured genes"):
        activity(parts.test, parts.train, {"other": ["A", "B", "C", "D", "E"]})


def test_agreement_is_the_mean_of_correlations_over_rows_and_over_columns():
    truth, told = (pd.DataFrame(draw(12, 5, seed=seed)) for seed in (1, 2))
    found = agreement(truth, told, np.zeros((0, 12)))
    rows = [np.corrcoef(a, b)[0, 1] for a, b in zip(truth.to_numpy(), told.to_numpy(), strict=True)]
    columns = [np.corrcoef(truth[k], told[k])[0, 1] for k in truth]
    assert found["by sample"] == pytest.approx(np.mean(rows)) and found["by pathway"] == pytest.approx(np.mean(columns))


def test_agreement_on_resamples_is_that_of_the_rows_as_drawn():
    truth, told = (pd.DataFrame(draw(12, 5, seed=seed)) for seed in (1, 2))
    rows = np.random.default_rng(0).integers(0, 12, 12)
    found = agreement(truth, told, np.bincount(rows, minlength=12)[None].astype(float))
    drawn = agreement(truth.iloc[rows], told.iloc[rows], np.zeros((0, 12)))
    assert all(found[key][1] == pytest.approx(drawn[key][0]) for key in found)


def test_activity_is_linear_so_ridge_on_its_own_genes_tells_it(parts):
    columns = list(parts.train.expression.columns[:20])
    truth = [
        activity(part, parts.train, {"one": columns[:8], "two": columns[8:]}) for part in (parts.train, parts.test)
    ]
    read = gene_reader(parts.train, columns).fixed
    (told,) = told_by(read(parts.train), truth[0], read(parts.test))
    assert agreement(truth[1], told, np.zeros((0, len(told))))["by pathway"] > 0.99
