import hashlib
import os
import subprocess
import sys
from dataclasses import replace

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import CoxPHFitter
from scipy import stats
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import RidgeCV
from sklearn.metrics import balanced_accuracy_score

from txtlib.cohort import CohortError, load_cohort
from txtlib.metrics import harrell_c
from txtlib.planted import MODULES, PROGRAMMES, SHARES, marginals, planted, second_site

BLOCKS = 20  # disjoint groups of patients, so that an interval needs no bootstrap
SURE = 0.99  # level of the intervals: the seeds are fixed, and few of many intervals may be unlucky ones


@pytest.fixture(scope="module")
def world():
    """Many patients, many events: what must be found is found, and intervals are short."""
    return planted(n=4000, n_genes=200, seed=1, event_rate=0.6)


@pytest.fixture(scope="module")
def default():
    return planted()


@pytest.fixture(scope="module")
def site2(world):
    return second_site(world, n=2000)


def c_interval(outcome, risk):
    """Mean C-index of disjoint blocks of patients, with its t interval."""
    time, event = outcome
    parts = np.array_split(np.arange(len(time)), BLOCKS)
    scores = [harrell_c((time[rows], event[rows]), np.asarray(risk)[rows]) for rows in parts]
    half = stats.t.ppf((1 + SURE) / 2, BLOCKS - 1) * np.std(scores, ddof=1) / np.sqrt(BLOCKS)
    return np.mean(scores) - half, np.mean(scores) + half


def covers(interval, value):
    low, high = interval
    return low <= value <= high


def standardised(expression):
    return (expression - expression.mean()) / expression.std()


def terms(truth, genes):
    """The true terms as an analyst would compute them from measured expression (n, G) and age."""
    return hazard_terms(truth, standardised(genes))


def hazard_terms(truth, z):
    table = z[truth.coefficients.index].copy()
    for a, b in truth.pairs[["gene1", "gene2"]].itertuples(index=False):
        table[f"{a} x {b}"] = z[a] * z[b]
    return table.assign(Age=truth.labels["Age"])


def cox(table, outcome):
    time, event = outcome
    return CoxPHFitter(alpha=1 - SURE).fit(table.assign(_time=time, _event=event), "_time", "_event")


def halves(table):
    return table.iloc[: len(table) // 2], table.iloc[len(table) // 2 :]


def half_outcomes(outcome):
    cut = len(outcome[0]) // 2
    return tuple(part[:cut] for part in outcome), tuple(part[cut:] for part in outcome)


def held_out_interval(table, outcome):
    """Cox on the first half of the patients, the interval of its C-index on the second."""
    (train, test), (seen, unseen) = halves(table), half_outcomes(outcome)
    return c_interval(unseen, cox(train, seen).predict_log_partial_hazard(test))


# --- the truth is found by what must find it, and by nothing else ---------------------------------------------


def test_cox_on_the_true_terms_finds_the_true_coefficients(world):
    intervals = cox(terms(world.truth, world.cohort.expression), world.cohort.outcome()).confidence_intervals_
    assert len(world.truth.effects) == 7
    for term, effect in world.truth.effects.items():
        assert covers(intervals.loc[term], effect), (term, effect, intervals.loc[term].tolist())


def test_cox_on_the_true_terms_ranks_as_well_as_the_true_predictor(world):
    oracle = c_interval(half_outcomes(world.cohort.outcome())[1], halves(world.truth.linear_predictor)[1])
    found = held_out_interval(terms(world.truth, world.cohort.expression), world.cohort.outcome())
    assert np.mean(oracle) > 0.75
    assert abs(np.mean(found) - np.mean(oracle)) < 0.01


def test_cox_on_as_many_decoys_ranks_by_chance(world):
    genes = world.truth.decoys[:: len(world.truth.decoys) // len(world.truth.effects)][: len(world.truth.effects)]
    table = standardised(world.cohort.expression[genes])
    assert covers(held_out_interval(table, world.cohort.outcome()), 0.5)


def test_cox_on_all_decoys_and_their_neighbours_products_ranks_by_chance(world):
    z = standardised(world.cohort.expression[world.truth.decoys])
    products = pd.DataFrame({f"{a}{b}": z[a] * z[b] for a, b in zip(z.columns[::2], z.columns[1::2], strict=False)})
    assert covers(held_out_interval(pd.concat([z, products], axis=1), world.cohort.outcome()), 0.5)


def test_permuted_outcomes_are_ranked_by_chance(world):
    order = np.random.default_rng(0).permutation(len(world.cohort))
    outcome = tuple(part[order] for part in world.cohort.outcome())
    assert covers(c_interval(outcome, world.truth.linear_predictor), 0.5)
    assert covers(held_out_interval(terms(world.truth, world.cohort.expression), outcome), 0.5)


def test_a_gene_of_a_pair_shows_nothing_alone_and_its_product_does(world):
    table, outcome = terms(world.truth, world.cohort.expression), world.cohort.outcome()
    z = standardised(world.cohort.expression)
    for a, b, coefficient in world.truth.pairs.itertuples(index=False):
        assert covers(c_interval(outcome, z[a]), 0.5) and covers(c_interval(outcome, z[b]), 0.5)
        assert covers(c_interval(outcome, z[a] + z[b]), 0.5)
        assert c_interval(outcome, np.sign(coefficient) * table[f"{a} x {b}"])[0] > 0.5


def test_a_gene_with_a_main_effect_shows_it_alone(world):
    z = standardised(world.cohort.expression)
    for gene, coefficient in world.truth.coefficients.items():
        assert c_interval(world.cohort.outcome(), np.sign(coefficient) * z[gene])[0] > 0.5, gene


@pytest.mark.parametrize("control", ["main_effect", "interaction", "age_effect"])
def test_an_effect_of_0_is_a_control(control):
    world = planted(n=2000, n_genes=60, seed=4, event_rate=0.6, **{control: 0.0})
    intervals = cox(terms(world.truth, world.cohort.expression), world.cohort.outcome()).confidence_intervals_
    gone = {"main_effect": slice(0, 4), "interaction": slice(4, 6), "age_effect": slice(6, 7)}[control]
    assert np.array_equal(np.flatnonzero(world.truth.effects == 0), np.arange(7)[gone])
    assert all(covers(intervals.loc[term], 0) for term in world.truth.effects.index[gone])


# --- survival -------------------------------------------------------------------------------------------------


def test_event_times_follow_each_patients_own_true_curve(world):
    at_event = np.diag(world.truth.true_survival(world.truth.event_time))
    assert stats.kstest(at_event, "uniform").pvalue > 0.01


def test_the_first_site_has_the_stated_survival_at_5_years():
    for seed in range(3):
        assert abs(planted(n=4000, n_genes=40, seed=seed).truth.true_survival([1826]).mean() - 0.86) < 0.012


def test_without_censoring_kaplan_meier_agrees_with_the_mean_true_curve(world):
    times = np.quantile(world.truth.event_time, np.linspace(0.02, 0.98, 40))
    kaplan_meier = (world.truth.event_time.to_numpy()[:, None] > times).mean(0)  # nobody is censored
    assert np.abs(kaplan_meier - world.truth.true_survival(times).mean(0)).max() < 1.63 / np.sqrt(len(world.cohort))


def test_true_curves_start_at_1_fall_and_follow_the_stated_hazard(world):
    times = np.array([0.0, 100.0, 1000.0, 1000.001])
    curves, truth = world.truth.true_survival(times), world.truth
    assert curves.shape == (len(world.cohort), 4)
    assert (curves[:, 0] == 1).all() and (np.diff(curves) < 0).all()
    hazard = truth.shape / truth.scale * (1000 / truth.scale) ** (truth.shape - 1) * np.exp(truth.linear_predictor)
    slope = -np.log(curves[:, 3] / curves[:, 2]) / 0.001
    assert np.allclose(slope, hazard, rtol=1e-2, atol=1e-9)


def test_the_linear_predictor_is_the_design_times_the_effects(world):
    truth = world.truth
    assert np.allclose(truth.design @ truth.effects, truth.linear_predictor)
    a, b = truth.pairs.loc[0, ["gene1", "gene2"]]
    assert truth.age_coefficient == truth.effects["Age"] and f"{a} x {b}" in truth.design
    assert np.allclose(truth.design["Age"], truth.labels["Age"] - 65)


@pytest.mark.parametrize("event_rate", [0.05, 0.12, 0.5, 0.9])
def test_the_chosen_event_rate_is_hit(event_rate):
    cohort = planted(n=4000, n_genes=40, seed=3, event_rate=event_rate).cohort
    error = np.sqrt(event_rate * (1 - event_rate) / len(cohort))
    assert abs(cohort.outcome()[1].mean() - event_rate) < 3.3 * error + 0.005  # the second part: reference patients


def test_censoring_changes_nothing_but_what_is_seen():
    few, many = (planted(n=300, n_genes=60, seed=2, event_rate=rate) for rate in (0.1, 0.7))
    assert few.cohort.expression.equals(many.cohort.expression)
    assert few.truth.event_time.equals(many.truth.event_time) and few.network.equals(many.network)
    assert few.truth.effects.equals(many.truth.effects) and few.truth.scale == many.truth.scale
    (short, event), (long, _) = few.cohort.outcome(), many.cohort.outcome()
    assert (short <= long).all() and (short == long)[event == 1].all()


def test_an_event_is_seen_at_its_time_and_a_censored_one_later(world):
    (time, event), true = world.cohort.outcome(), world.truth.event_time.to_numpy()
    assert (time == np.ceil(true))[event == 1].all() and (time <= np.ceil(true))[event == 0].all()
    assert time.min() >= 1


def test_censoring_is_independent_of_risk(world):
    time, event = world.cohort.outcome()
    assert covers(c_interval((time, 1 - event), world.truth.linear_predictor), 0.5)


# --- labels ---------------------------------------------------------------------------------------------------


def test_grade_rises_with_proliferation(world):
    activity = standardised(world.cohort.expression[world.truth.programmes["proliferation"]]).mean(axis=1)
    means = activity.groupby(world.truth.labels["NHG"]).mean()
    assert list(means.index) == ["G1", "G2", "G3"] and (np.diff(means) > 0.4).all()


def test_the_subtype_genes_tell_pam50_and_decoys_do_not(world):
    labels, genes = world.truth.labels["PAM50"], world.truth.programmes["subtype"]
    assert set(genes) == {gene for module in PROGRAMMES for gene in world.modules[module]}
    assert classified(world.cohort.expression[genes], labels) > 0.85
    assert abs(classified(world.cohort.expression[world.truth.decoys], labels) - 0.2) < 0.03


def classified(expression, labels):
    (train, test), (seen, unseen) = halves(standardised(expression)), halves(labels)
    return balanced_accuracy_score(unseen, LinearDiscriminantAnalysis().fit(train, seen).predict(test))


def test_the_age_programme_tells_age_and_decoys_do_not(world):
    def rank_correlation(genes):
        (train, test), (seen, unseen) = (
            halves(standardised(world.cohort.expression[genes])),
            halves(world.truth.labels["Age"]),
        )
        return stats.spearmanr(RidgeCV().fit(train, seen).predict(test), unseen).statistic

    assert rank_correlation(world.truth.programmes["age"]) > 0.4
    assert abs(rank_correlation(world.truth.decoys)) < 0.075


def test_size_rises_with_invasion_and_proliferation(world):
    for module in ("invasion", "proliferation"):
        activity = standardised(world.cohort.expression[world.modules[module]]).mean(axis=1)
        assert stats.spearmanr(activity, world.truth.labels["Size"]).statistic > 0.2


def test_labels_are_missing_at_the_stated_share_and_right_elsewhere():
    world = planted(n=3000, n_genes=40, missing=0.2)
    for column, labels in world.truth.labels.items():
        seen = world.cohort.clinical[column]
        assert abs(seen.isna().mean() - 0.2) < 0.025
        assert (seen == labels)[seen.notna()].all()
    assert world.cohort.clinical[["OS_duration", "OS_event"]].notna().all(axis=None)
    assert world.cohort.expression.notna().all(axis=None)
    assert planted(n=200, n_genes=40, missing=0).cohort.clinical.notna().all(axis=None)


def test_subtype_shares_are_as_asked():
    asked = {"LumA": 0.5, "Basal": 0.5}
    assert set(planted(n=300, n_genes=40, subtype_shares=asked).truth.labels["PAM50"]) == set(asked)
    found = planted(n=3000, n_genes=40).truth.labels["PAM50"].value_counts(normalize=True)
    assert all(abs(found[name] - share) < 0.03 for name, share in SHARES.items())


# --- expression, modules and network --------------------------------------------------------------------------


def test_the_default_world_is_as_its_users_expect(default):
    cohort = default.cohort
    assert cohort.expression.shape == (600, 300) and (cohort.expression.dtypes == np.float32).all()
    assert [(task.name, task.kind) for task in cohort.tasks] == [
        ("Age", "regression"),
        ("Size", "regression"),
        ("NHG", "classification"),
        ("PAM50", "classification"),
        ("OS", "survival"),
    ]
    assert list(cohort.clinical) == ["Age", "Size", "NHG", "PAM50", "OS_duration", "OS_event"]
    assert cohort.expression.columns[0] == "PLT0001" and "simulated" in cohort.about["notes"]


def test_expression_is_floored_at_0_and_the_hazards_genes_are_spared(default):
    expression = default.cohort.expression
    assert expression.min(axis=None) == 0 and 0.01 < (expression == 0).mean(axis=None) < 0.2
    assert expression.mean().between(0, 11).all() and expression.mean().std() > 1
    assert (expression[default.biology.hazard_genes()] > 0).all(axis=None)


def test_genes_have_the_stated_mean_and_sd(world):
    high = world.biology.mean > 5  # the floor spares these
    expression = world.cohort.expression.loc[:, high]
    shift = (expression.mean() - world.biology.mean[high]) / world.biology.spread[high]
    ratio = expression.std() / np.hypot(world.biology.spread[high], world.biology.noise)
    assert high.sum() > 20 and shift.abs().max() < 0.08 and (ratio - 1).abs().max() < 0.06
    assert high[np.isin(world.biology.genes, world.truth.programmes["age"])].any()


def test_noise_is_technical_and_changes_nothing_else():
    clean, noisy = (planted(n=500, n_genes=60, seed=2, noise=noise) for noise in (0.0, 0.5))
    assert clean.truth.design.equals(noisy.truth.design) and clean.cohort.clinical.equals(noisy.cohort.clinical)
    added = (noisy.cohort.expression - clean.cohort.expression)[clean.biology.hazard_genes()].to_numpy()
    assert added.std() == pytest.approx(0.5, rel=0.05) and abs(added.mean()) < 0.03
    a, b = clean.truth.pairs.loc[0, ["gene1", "gene2"]]
    seen = clean.cohort.expression[[a, b]]
    places = clean.biology.genes.get_indexer([a, b])
    z = (seen - clean.biology.mean[places]) / clean.biology.spread[places]
    assert np.allclose(z[a] * z[b], clean.truth.design[f"{a} x {b}"], atol=1e-4)


def test_background_genes_share_axes_of_nuisance(world):
    background = world.biology.genes[world.biology.role < 0]
    correlation = world.cohort.expression[background].corr().to_numpy()[np.triu_indices(len(background), 1)]
    assert np.quantile(correlation, 0.05) < -0.2 and np.quantile(correlation, 0.95) > 0.2


def test_modules_are_disjoint_and_decoys_lie_outside_all_roles(default):
    members = [gene for genes in default.modules.values() for gene in genes]
    assert set(default.modules) == set(MODULES) and len(members) == len(set(members)) < 300
    roles = {gene for name, genes in default.modules.items() if not name.startswith("neutral") for gene in genes}
    assert not roles & set(default.truth.decoys) and roles | set(default.truth.decoys) == set(default.biology.genes)
    assert set(default.biology.hazard_genes()) <= roles


def test_the_name_of_a_gene_does_not_tell_its_role(default):
    places = default.biology.genes.get_indexer(default.truth.decoys)
    assert stats.ks_1samp(places / 300, stats.uniform.cdf).pvalue > 0.01


def test_network_has_each_pair_once_scores_and_lacks_some_genes(default):
    network = default.network
    assert list(network) == ["gene1", "gene2", "score"]
    assert (network["gene1"] < network["gene2"]).all() and not network.duplicated(["gene1", "gene2"]).any()
    assert network["score"].between(0, 1000).all() and pd.api.types.is_integer_dtype(network["score"])
    known = set(network["gene1"]) | set(network["gene2"])
    assert 0.85 * 300 < len(known & set(default.biology.genes)) < 300
    assert set(default.biology.hazard_genes()) <= known


def test_network_is_scale_free_and_hangs_together():
    graph = nx.from_pandas_edgelist(planted(n=20, n_genes=1000).network, "gene1", "gene2")
    degree = np.array([value for _, value in graph.degree])
    tail = degree[degree >= 4]
    exponent = 1 + len(tail) / np.log(tail / 3.5).sum()  # Clauset et al. 2009
    assert 2 < exponent < 3.5 and degree.max() > 8 * np.median(degree)
    assert len(max(nx.connected_components(graph), key=len)) > 0.95 * len(graph)


def test_co_expression_follows_the_network(world):
    correlation = world.cohort.expression.corr()
    module = {gene: name for name, genes in world.modules.items() for gene in genes}
    edges = (
        world.network.merge(world.truth.network.assign(true=True), how="left")
        .fillna({"true": 0})
        .astype({"true": bool})
    )
    inside = edges["gene1"].map(module).eq(edges["gene2"].map(module))
    assert (edges["true"] == inside).all() and inside.mean() > 0.5

    def mean_correlation(pairs):
        return np.mean([correlation.at[a, b] for a, b in pairs])

    linked = mean_correlation(edges.loc[inside, ["gene1", "gene2"]].to_numpy())
    within = mean_correlation([(a, b) for genes in world.modules.values() for a in genes for b in genes if a < b])
    noise = mean_correlation(edges.loc[~inside, ["gene1", "gene2"]].to_numpy())
    assert linked > within + 0.02 > noise + 0.3
    assert edges.groupby("true")["score"].mean().diff().iloc[1] > 200


# --- seeds and growth -----------------------------------------------------------------------------------------


def digest(world):
    tables = (world.cohort.expression, world.cohort.clinical, world.network, world.truth.design.round(9))
    return hashlib.sha256("".join(table.to_csv() for table in tables).encode()).hexdigest()


def test_same_seed_same_bits_other_seeds_differ():
    one, same, patients, other = (planted(80, 50, *seeds) for seeds in [(5, 0), (5, 0), (5, 1), (6, 0)])
    assert digest(one) == digest(same)
    assert len({digest(one), digest(patients), digest(other)}) == 3
    assert one.truth.effects.equals(patients.truth.effects) and one.network.equals(patients.network)
    assert one.modules == patients.modules != other.modules
    assert not one.cohort.clinical.equals(patients.cohort.clinical)


def test_two_processes_agree():
    code = (
        "from test_planted import digest, planted, second_site; "
        "world = planted(80, 50, 5); print(digest(world), digest(second_site(world, 60)))"
    )
    here = os.path.dirname(__file__)
    environment = {**os.environ, "PYTHONPATH": here, "PYTHONHASHSEED": "123", "OMP_NUM_THREADS": "1"}
    answer = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    world = planted(80, 50, 5)
    assert answer.stdout.split() == [digest(world), digest(second_site(world, 60))]


def assert_nested(small, large):
    n, cohort, more = len(small.cohort), small.cohort, large.cohort
    assert cohort.expression.equals(more.expression.iloc[:n])
    assert cohort.clinical.equals(more.clinical.iloc[:n])
    assert small.truth.design.equals(large.truth.design.iloc[:n])
    assert small.truth.event_time.equals(large.truth.event_time.iloc[:n])


@pytest.mark.parametrize("n", [200, 333, 1001])
def test_a_larger_cohort_keeps_the_first_patients(n):
    large = planted(n=2000, n_genes=60, seed=7)
    assert_nested(planted(n=n, n_genes=60, seed=7), large)
    assert_nested(second_site(large, n=n), second_site(large, n=2000))


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(20, 90),
    n_genes=st.integers(40, 90),
    seed=st.integers(0, 2**40),
    event_rate=st.floats(0.01, 0.99),
    missing=st.floats(0, 0.9),
    effects=st.tuples(*[st.floats(-1.5, 1.5)] * 2, st.floats(-0.2, 0.2)),
)
def test_any_world_is_whole(n, n_genes, seed, event_rate, missing, effects):
    main, interaction, age = effects
    world = planted(n, n_genes, seed, 0, event_rate, missing, main, interaction, age)
    for site in (world, second_site(world, n, seed, event_rate, missing)):
        time, event = site.cohort.outcome()
        assert len(site.cohort) == n and np.isfinite(time).all() and (time >= 1).all() and set(event) <= {0, 1}
        assert np.isfinite(site.cohort.expression).all(axis=None) and np.isfinite(site.truth.linear_predictor).all()
        assert ((site.truth.true_survival([1, 1e4]) >= 0) & (site.truth.true_survival([1, 1e4]) <= 1)).all()
    assert not world.network.duplicated(["gene1", "gene2"]).any() and (world.network.gene1 != world.network.gene2).all()


def test_a_class_that_is_left_with_one_patient_is_left_empty():
    for seed in range(30):
        counts = planted(n=20, n_genes=40, patient_seed=seed).cohort.clinical["PAM50"].value_counts()
        assert counts.min() >= 2


# --- the second site ------------------------------------------------------------------------------------------


def test_the_second_site_has_new_patients_of_the_same_biology(world, site2):
    assert site2.truth.effects.equals(world.truth.effects) and site2.truth.scale == world.truth.scale
    assert site2.modules == world.modules and site2.network.equals(world.network)
    assert not set(site2.cohort.samples) & set(world.cohort.samples)
    assert site2.cohort.tasks == world.cohort.tasks
    same_number = planted(n=2000, n_genes=200, seed=1, patient_seed=1).truth.design
    for others in (same_number, world.truth.design.iloc[:2000]):
        assert abs(np.corrcoef(others.iloc[:, 0], site2.truth.design.iloc[:, 0])[0, 1]) < 0.1
    assert site2.truth.labels["Age"].mean() < world.truth.labels["Age"].mean() - 3


def test_cox_finds_the_same_coefficients_at_the_second_site(site2):
    table = terms(site2.truth, site2.cohort.expression)
    intervals = cox(table, site2.cohort.outcome()).confidence_intervals_
    missed = [term for term, effect in site2.truth.effects.items() if not covers(intervals.loc[term], effect)]
    assert len(missed) <= 1  # SDs of another population and a ceiling: nearly the same unit


def test_missing_genes_are_missing_and_the_hazards_are_spared(world, site2):
    assert len(site2.cohort.expression.columns) == 180
    assert set(site2.cohort.expression.columns) < set(world.cohort.expression.columns)
    assert set(world.biology.hazard_genes()) <= set(site2.cohort.expression.columns)
    assert second_site(world, n=50, missing_genes=0).cohort.expression.shape == (50, 200)


def test_the_platform_keeps_ranks_and_changes_location_spread_and_top(world, site2):
    plain = second_site(world, n=2000, shift=0, scale=0, saturation=1000).cohort.expression[
        site2.cohort.expression.columns
    ]
    other = site2.cohort.expression
    ranks = [stats.spearmanr(plain[gene], other[gene]).statistic for gene in other.columns[:40]]
    assert min(ranks) > 0.9999
    assert np.log(other.std() / plain.std()).std() > 0.2
    shift = second_site(world, n=2000, scale=0, saturation=1000).cohort.expression[other.columns] - plain
    assert (shift.std() < 1e-3).all() and shift.mean().std() == pytest.approx(1, abs=0.15)
    assert other.max(axis=None) < 13.01 < plain.max(axis=None) + 3


def test_saturation_flattens_the_top(world):
    free, flat = (second_site(world, n=500, saturation=top).cohort.expression for top in (1000, 9.0))
    high = free.mean() > 9.5
    assert high.any() and (flat.loc[:, high].std() < 0.5 * free.loc[:, high].std()).all()
    low = free.max() < 7
    assert low.any() and np.allclose(free.loc[:, low], flat.loc[:, low], atol=0.05)


def scores(table):
    """Normal scores of the patients' ranks within each gene."""
    return pd.DataFrame(stats.norm.ppf((table.rank() - 0.5) / len(table)), table.index, table.columns)


def test_a_model_of_site_1_keeps_its_ranking_on_ranks_and_loses_it_on_raw_values(world):
    """Products need centred genes: on raw values of another platform they drown in its shifts."""
    site2, genes, found = second_site(world, n=2000, shift=2), world.biology.hazard_genes(), {}
    for name, form in (("raw", lambda table: table), ("ranked", scores)):
        train, test = (form(site.cohort.expression[genes]) for site in (world, site2))
        mean, sd = train.mean(), train.std()
        fit = cox(hazard_terms(world.truth, (train - mean) / sd), world.cohort.outcome())
        risk = fit.predict_log_partial_hazard(hazard_terms(site2.truth, (test - mean) / sd))
        found[name] = c_interval(site2.cohort.outcome(), risk)
    oracle = c_interval(site2.cohort.outcome(), site2.truth.linear_predictor)
    assert np.mean(found["ranked"]) > np.mean(oracle) - 0.02
    assert found["raw"][1] < found["ranked"][0]


def test_a_classifier_of_site_1_works_on_ranks_and_not_on_raw_values(world, site2):
    genes = [gene for gene in world.truth.programmes["subtype"] if gene in site2.cohort.expression]
    for form, passes in ((lambda table: table, False), (scores, True)):
        model = LinearDiscriminantAnalysis().fit(form(world.cohort.expression[genes]), world.truth.labels["PAM50"])
        found = model.predict(form(site2.cohort.expression[genes]))
        assert (balanced_accuracy_score(site2.truth.labels["PAM50"], found) > 0.8) == passes


# --- bad input ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"n": 5}, "n is 5"),
        ({"n_genes": 12}, "n_genes is 12"),
        ({"event_rate": 0}, "event_rate is 0"),
        ({"event_rate": 1.0}, "event_rate is 1.0"),
        ({"event_rate": float("nan")}, "event_rate is nan"),
        ({"missing": 1}, "missing is 1"),
        ({"missing": -0.1}, "missing is -0.1"),
        ({"noise": -1}, "noise is -1"),
        ({"interaction": float("inf")}, "interaction"),
        ({"subtype_shares": {"LumC": 1.0}}, "LumC"),
        ({"subtype_shares": {"LumA": 0.7}}, "add up to 1"),
        ({"subtype_shares": {}}, "add up to 1"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(wrong, named):
    with pytest.raises(CohortError, match=named) as refusal:
        planted(**wrong)
    assert str(refusal.value).endswith(".") and "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"n": 3}, "n is 3"),
        ({"event_rate": 2}, "event_rate is 2"),
        ({"missing_genes": 1.2}, "missing_genes is 1.2"),
        ({"missing_genes": 0.99}, "missing_genes is 0.99"),
        ({"missing_genes": -0.1}, "missing_genes is -0.1"),
        ({"shift": -1}, "shift is -1"),
        ({"saturation": 0}, "saturation is 0"),
        ({"subtype_shares": {"LumC": 1.0}}, "LumC"),
    ],
)
def test_a_bad_second_site_is_refused(default, wrong, named):
    with pytest.raises(CohortError, match=named):
        second_site(default, **wrong)


# --- marginals ------------------------------------------------------------------------------------------------

# How far the planted default may be from the real SCAN-B subset (400 patients, 48 events).
NEAR = {
    "event rate": 0.03,
    "median follow-up": 200,
    "C-index of age": 0.06,
    "Age mean": 2,
    "Age SD": 2,
    "Size mean": 2,
    "Size SD": 2,
    "NHG G1": 0.06,
    "NHG G2": 0.06,
    "NHG G3": 0.06,
    "PAM50 Basal": 0.05,
    "PAM50 Her2": 0.05,
    "PAM50 LumA": 0.05,
    "PAM50 LumB": 0.05,
    "PAM50 Normal": 0.05,
    "correlation 5% quantile": 0.1,
    "correlation 25% quantile": 0.06,
    "correlation 50% quantile": 0.06,
    "correlation 75% quantile": 0.1,
    "correlation 95% quantile": 0.15,
}


def test_the_planted_cohort_looks_like_the_real_one(data_folder):
    if not (data_folder / "scanb").is_dir():
        pytest.skip("no SCAN-B folder found; give one in TXT_DATA")
    real = marginals(load_cohort(data_folder / "scanb"))
    simulated = marginals(planted(n=4000, n_genes=300).cohort)
    far = {
        name: (simulated[name], real[name]) for name, limit in NEAR.items() if abs(simulated[name] - real[name]) > limit
    }
    assert not far


def test_marginals_of_a_small_cohort(build):
    cohort = build(60, 12)
    values, (time, event) = marginals(cohort), cohort.outcome()
    assert values["patients"] == 60 and values["genes"] == 12
    assert values["Age mean"] == pytest.approx(cohort.clinical["Age"].mean())
    assert values["Age 25% quantile"] == pytest.approx(cohort.clinical["Age"].quantile(0.25))
    assert values["event rate"] == pytest.approx(np.nanmean(event)) and values["Age missing"] == pytest.approx(1 / 60)
    assert 0 < values["median follow-up"] <= np.nanmax(time) and 0 <= values["C-index of age"] <= 1
    assert not any(name.startswith(("PAM50", "Size")) for name in values.index)


def test_marginals_take_follow_up_from_reverse_kaplan_meier(default):
    time, event = default.cohort.outcome()
    assert marginals(default.cohort)["median follow-up"] > np.median(time)  # deaths cut follow-up short
    alive = replace(default.cohort, clinical=default.cohort.clinical.assign(OS_event=0.0))
    assert marginals(alive)["median follow-up"] == np.sort(time)[len(time) // 2 - 1] and event.any()
    assert np.isnan(marginals(alive)["C-index of age"])


def test_embedded_names_give_both_sites(default):
    assert load_cohort("planted").expression.equals(default.cohort.expression)
    assert load_cohort("planted_site2").expression.equals(second_site(default).cohort.expression)
