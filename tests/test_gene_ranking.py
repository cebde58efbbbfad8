from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers import draw
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy, spearmanr
from sklearn.feature_extraction.text import TfidfTransformer

from txtlib.cohort import CohortError, make_cohort, split
from txtlib.pretrain.ranking import (
    ORDERS,
    Ranking,
    complete_genes,
    document_weights,
    entropy_weights,
    fit_ranking,
    kept,
    likeness,
    norm_weights,
    weight_table,
)


def cohort_of(values, prefix="S"):
    values = np.asarray(values, float)
    samples = pd.Index([f"{prefix}{row:03d}" for row in range(len(values))], name="Sample")
    expression = pd.DataFrame(values, samples, [f"GENE{gene}" for gene in range(values.shape[1])])
    return make_cohort(expression, pd.DataFrame(index=samples), (), {"name": "made up"})


@pytest.fixture
def positive():
    return cohort_of(np.exp(draw(40, 15)))


def genes_of(cohort):
    return list(cohort.expression.columns)


# --- weights ----------------------------------------------------------------------------------------------


def test_entropy_weights_are_those_of_scipy():
    values = np.exp(draw(30, 6).astype(float))
    assert np.allclose(entropy_weights(values), np.log(30) - entropy(values, axis=0))


def test_entropy_weights_run_from_a_gene_that_all_have_alike_to_one_that_a_single_sample_has():
    values = np.stack([np.full(8, 3.0), np.eye(8)[0], np.zeros(8)], 1)
    assert np.allclose(entropy_weights(values), [0, np.log(8), 0])


def test_document_weights_are_those_of_scikit_learn():
    values = np.random.default_rng(0).poisson(0.7, (50, 8)).astype(float)
    theirs = TfidfTransformer(norm=None, smooth_idf=False).fit(values).idf_ - 1  # it adds 1 so that none vanishes
    assert np.allclose(document_weights(values), theirs)


def test_document_weights_vanish_where_every_sample_has_every_gene(positive):
    assert not document_weights(positive.expression.to_numpy()).any()


def test_norm_weights_give_each_gene_the_length_of_one():
    values = np.c_[draw(20, 5), np.zeros(20)]
    assert np.allclose(np.linalg.norm(values * norm_weights(values), axis=0), [1, 1, 1, 1, 1, 0])


def test_weights_do_not_mind_the_unit_of_a_gene_but_a_norm_does():
    values = np.exp(draw(20, 5).astype(float))
    assert np.allclose(entropy_weights(values), entropy_weights(values * np.arange(1, 6)))
    assert np.allclose(norm_weights(values), norm_weights(values * np.arange(1, 6)) * np.arange(1, 6))


def test_the_table_of_weights_holds_those_that_the_orders_use(positive):
    table = weight_table(positive, genes_of(positive))
    for order in table:
        assert np.array_equal(table[order], fit_ranking(positive, genes_of(positive), order).weights)
    below = weight_table(cohort_of(draw(20, 5)), [f"GENE{gene}" for gene in range(5)])
    assert below["entropy"].isna().all() and below["norm"].notna().all()


# --- sentences --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS)
def test_a_sentence_holds_each_gene_once(positive, order):
    sentences = fit_ranking(positive, genes_of(positive), order).sentences(positive)
    assert np.array_equal(np.sort(sentences, axis=1), np.tile(np.arange(15), (40, 1)))


def test_plain_order_is_that_of_expression(positive):
    sentences = fit_ranking(positive, genes_of(positive), "plain").sentences(positive)
    ordered = np.take_along_axis(positive.expression.to_numpy(), sentences, 1)
    assert (np.diff(ordered) <= 0).all()


def test_tf_idf_order_is_that_of_shares_of_the_sample_times_weights(positive):
    ranking = fit_ranking(positive, genes_of(positive), "entropy")
    values = positive.expression.to_numpy()
    scores = values / values.sum(1, keepdims=True) * entropy_weights(values.astype(float))
    assert np.array_equal(ranking.sentences(positive), np.argsort(-scores, axis=1, kind="stable"))


@given(st.integers(0, 99), st.sampled_from([np.log1p, np.sqrt, np.expm1, lambda x: 3 * x + 1]))
@settings(max_examples=20, deadline=None)
def test_plain_order_survives_every_rising_map(seed, rising):
    cohort = cohort_of(np.exp(draw(10, 8, seed=seed)))
    ranking = fit_ranking(cohort, genes_of(cohort), "plain")
    assert np.array_equal(
        ranking.sentences(cohort), ranking.sentences(replace(cohort, expression=rising(cohort.expression)))
    )


def test_weighted_order_survives_a_factor_by_sample_and_not_a_logarithm(positive):
    ranking = fit_ranking(positive, genes_of(positive), "entropy")
    factors = replace(positive, expression=positive.expression.mul(np.arange(1, 41), axis=0))
    logs = replace(positive, expression=np.log2(positive.expression + 1))
    assert np.array_equal(ranking.sentences(positive), ranking.sentences(factors))
    assert not np.array_equal(ranking.sentences(positive), ranking.sentences(logs))


def test_random_order_depends_on_the_sample_and_the_seed_only(positive):
    genes = genes_of(positive)
    first = fit_ranking(positive, genes, "random", seed=1).sentences(positive)
    other = replace(positive, expression=positive.expression[::-1] * 7).take(positive.samples)
    assert np.array_equal(first, fit_ranking(other, genes, "random", seed=1).sentences(other))
    assert not np.array_equal(first, fit_ranking(positive, genes, "random", seed=2).sentences(positive))
    assert len(np.unique(first, axis=0)) == len(first)


def test_permuting_the_columns_of_a_table_changes_nothing(positive):
    ranking = fit_ranking(positive, genes_of(positive), "entropy")
    turned = replace(positive, expression=positive.expression[positive.expression.columns[::-1]])
    assert np.array_equal(ranking.sentences(positive), ranking.sentences(turned))


# --- missing values ---------------------------------------------------------------------------------------


def test_a_missing_gene_stands_where_it_stands_in_the_median_training_sample():
    cohort = cohort_of(np.tile([5.0, 4.0, 3.0, 2.0, 1.0], (9, 1)) + draw(9, 5) / 100)
    ranking = fit_ranking(cohort, genes_of(cohort), "plain")
    assert np.allclose(ranking.levels, [1, 0.75, 0.5, 0.25, 0])
    without = replace(cohort, expression=cohort.expression.drop(columns="GENE2"))
    assert np.array_equal(ranking.sentences(without), ranking.sentences(cohort))


def test_missing_values_need_no_unit(positive):
    holed = positive.expression.mask(draw(40, 15, seed=3) > 1)
    ranking = fit_ranking(positive, genes_of(positive), "plain")
    small, large = (ranking.filled(replace(positive, expression=holed * unit)) for unit in (1, 1000))
    assert np.allclose(small * 1000, large) and not np.isnan(small).any()


def test_a_sample_without_any_of_the_genes_is_refused(positive):
    ranking = fit_ranking(positive, genes_of(positive), "plain")
    other = replace(positive, expression=positive.expression.add_prefix("X"))
    with pytest.raises(CohortError, match="'S000' has none of the 15 genes"):
        ranking.sentences(other)


def test_genes_with_a_missing_training_value_are_not_chosen(positive):
    holed = positive.expression.copy()
    holed.iloc[3, 4] = np.nan
    assert "GENE4" not in complete_genes(replace(positive, expression=holed), 15)


# --- fitting ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS)
def test_nothing_is_fitted_on_test_patients(build, order):
    cohort = build(n=80)
    cohort = replace(cohort, expression=cohort.expression.abs())
    parts = split(cohort, 0)
    expression = cohort.expression.copy()
    expression.loc[~cohort.samples.isin(parts.train.samples)] = 7.0
    noisy = replace(cohort, expression=expression)
    fitted = [
        fit_ranking(part.train, complete_genes(part.train, 8), order).state() for part in (parts, split(noisy, 0))
    ]
    assert fitted[0][1] == fitted[1][1]
    assert all(np.array_equal(fitted[0][0][key], fitted[1][0][key]) for key in fitted[0][0])


def test_a_ranking_comes_back_from_its_state(positive):
    ranking = fit_ranking(positive, genes_of(positive), "entropy", seed=4)
    again = Ranking.from_state(*ranking.state())
    assert np.array_equal(again.sentences(positive), ranking.sentences(positive)) and again.genes == ranking.genes


def test_other_units_have_weights_of_their_own(positive):
    ranking = fit_ranking(positive, genes_of(positive), "entropy")
    logs = replace(positive, expression=np.log2(positive.expression + 1))
    assert np.allclose(ranking.reweighted(logs).weights, entropy_weights(logs.expression.to_numpy(float)))
    assert np.array_equal(ranking.reweighted(positive).weights, ranking.weights)


@pytest.mark.parametrize("order", ["entropy", "counts"])
def test_values_below_zero_are_refused_where_they_mean_nothing(order):
    cohort = cohort_of(draw(20, 5))
    with pytest.raises(CohortError, match="take order 'plain'"):
        fit_ranking(cohort, genes_of(cohort), order)


def test_an_unknown_order_is_refused(positive):
    with pytest.raises(ValueError, match="order is one of entropy, counts"):
        fit_ranking(positive, genes_of(positive), "tfidf")


# --- likeness ---------------------------------------------------------------------------------------------


@given(st.integers(2, 7), st.integers(2, 9), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_likeness_is_the_mean_spearman_correlation_of_all_pairs(n, length, seed):
    generator = np.random.default_rng(seed)
    sentences = np.stack([generator.permutation(length) for _ in range(n)])
    places = np.argsort(sentences, axis=1)
    pairs = [spearmanr(places[a], places[b]).statistic for a in range(n) for b in range(a)]
    assert likeness(sentences) == pytest.approx(np.mean(pairs))


def test_likeness_of_equal_sentences_is_one_and_one_sentence_has_none():
    assert likeness(np.tile(np.arange(6), (4, 1))) == pytest.approx(1)
    with pytest.raises(ValueError, match="cannot be compared"):
        likeness(np.arange(6)[None])


@given(st.integers(1, 6), st.integers(2, 9), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_what_is_kept_is_the_spearman_correlation_within_each_sample(n, length, seed):
    generator = np.random.default_rng(seed)
    first, second = (np.stack([generator.permutation(length) for _ in range(n)]) for _ in range(2))
    places = [np.argsort(side, axis=1) for side in (first, second)]
    assert kept(first, second) == pytest.approx(
        np.mean([spearmanr(*pair).statistic for pair in zip(*places, strict=True)])
    )
    assert kept(first, first) == 1


def test_sentences_of_other_genes_cannot_be_compared():
    with pytest.raises(ValueError, match="are not of the same samples and genes"):
        kept(np.zeros((3, 4), int), np.zeros((3, 5), int))
