from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers import draw

from txtlib.cohort import CohortError, load_cohort, split
from txtlib.pretrain.ranking import fit_ranking
from txtlib.pretrain.versions import VERSIONS, fit_versions


@pytest.fixture(scope="module")
def parts():
    return split(load_cohort("planted"), 0)


@pytest.fixture(scope="module")
def units(parts):
    return fit_versions(parts.train)


@pytest.mark.parametrize("name", VERSIONS)
def test_versions_keep_samples_genes_and_labels(parts, units, name):
    seen = units.apply(parts.test, name)
    assert seen.expression.shape == parts.test.expression.shape and seen.clinical.equals(parts.test.clinical)
    assert seen.samples.equals(parts.test.samples) and seen.expression.notna().all(axis=None)


def test_linear_undoes_the_logarithm(parts, units):
    assert np.allclose(np.log2(units.apply(parts.test, "linear").expression + 1), parts.test.expression, atol=1e-5)


def test_ranks_and_z_scores_are_those_of_pandas(parts, units):
    values = parts.test.expression.astype(float)
    assert np.allclose(units.apply(parts.test, "rank").expression, values.rank(axis=1) / values.shape[1])
    train = parts.train.expression.astype(float)
    assert np.allclose(
        units.apply(parts.test, "zscore").expression, (values - train.mean()) / train.std(ddof=0), atol=1e-6
    )


def test_quantile_normalisation_gives_samples_one_distribution():
    values = np.exp(np.random.default_rng(0).normal(size=(30, 400)))  # no ties
    cohort = replace(load_cohort("gse7390"), expression=pd.DataFrame(values), clinical=pd.DataFrame(), tasks=())
    seen = np.sort(fit_versions(cohort).apply(cohort, "quantile").expression, axis=1)
    assert np.allclose(seen, seen[0]) and np.allclose(seen[0], np.sort(values, axis=1).mean(0), rtol=0.05)


@pytest.mark.parametrize("name", VERSIONS)
def test_plain_order_survives_all_versions_but_z_scores(parts, units, name):
    """By construction, and on patients of the test part; ties of genes that are not expressed may change places."""
    genes = list(parts.train.expression.columns[(parts.train.expression > 0).all() & (parts.test.expression > 0).all()])
    ranking = fit_ranking(parts.train, genes, "plain")
    same = np.array_equal(ranking.sentences(parts.test), ranking.sentences(units.apply(parts.test, name)))
    assert same == (name != "zscore")


@pytest.mark.parametrize("name", ["linear", "rank", "quantile", "zscore"])
def test_weighted_order_survives_no_other_version_than_its_own(parts, units, name):
    genes = list(parts.train.expression.columns)
    ranking = fit_ranking(parts.train, genes, "entropy")
    first, other = (
        ranking.sentences(part)
        for part in (units.apply(parts.test, "log"), units.apply(parts.test.take(parts.test.samples), name))
    )
    assert (first != other).mean() > 0.2


def test_missing_values_stay_missing(parts, units):
    holed = parts.test.expression.mask(draw(*parts.test.expression.shape) > 1)
    cohort = replace(parts.test, expression=holed)
    for name in VERSIONS:
        assert units.apply(cohort, name).expression.isna().equals(holed.isna())


def test_test_patients_do_not_move_the_versions(parts):
    cohort = load_cohort("planted")
    expression = cohort.expression.copy()
    expression.loc[~cohort.samples.isin(parts.train.samples)] = 7.0
    noisy = replace(cohort, expression=expression)
    first, second = (fit_versions(split(one, 0).train) for one in (cohort, noisy))
    assert np.array_equal(first.reference, second.reference) and first.mean.equals(second.mean)


def test_z_scores_and_unknown_names_are_refused(parts, units):
    below = replace(parts.train, expression=parts.train.expression - 5)
    with pytest.raises(CohortError, match="no values of log2"):
        fit_versions(below)
    with pytest.raises(ValueError, match="A version is one of linear"):
        units.apply(parts.test, "tpm")
