import json
import statistics
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import MinMaxScaler, QuantileTransformer, StandardScaler

from txtlib.cohort import Cohort, CohortError, Task, make_cohort, split
from txtlib.preprocess import (
    MISSING,
    SCALERS,
    Preprocessor,
    fit_preprocessor,
    gene_table,
    relog,
    scale_genes,
    time_cell,
    time_edges,
    variable_genes,
)

MODERATE = settings(deadline=None, max_examples=40)


@pytest.fixture(scope="module")
def cohort(build):
    return build()


@pytest.fixture(scope="module")
def division(cohort):
    return split(cohort, 0)


def identical(first: Preprocessor, second: Preprocessor) -> bool:
    """Compare two fitted preprocessors bit for bit."""
    (arrays, fields), (others, other_fields) = first.state(), second.state()
    same = all(arrays[key].tobytes() == others[key].tobytes() for key in arrays)
    return same and arrays.keys() == others.keys() and json.dumps(fields) == json.dumps(other_fields)


def with_expression(cohort: Cohort, expression: pd.DataFrame) -> Cohort:
    return replace(cohort, expression=expression)


def labelled(labels, kind="classification", classes=None) -> Cohort:
    """Return a cohort whose one task holds these labels."""
    samples = [f"S{row}" for row in range(len(labels))]
    expression = pd.DataFrame({"TP53": np.arange(len(labels), dtype=float)}, samples)
    about = {"name": "labelled"} | ({"classes": {"Label": classes}} if classes else {})
    return make_cohort(expression, pd.DataFrame({"Label": labels}, samples), (Task("Label", kind, ("Label",)),), about)


# --- fitted on the training part only ----------------------------------------------------------------------------


def noisy(cohort: Cohort, kept: pd.Index) -> Cohort:
    """Replace expression and labels of every sample that is not kept by noise."""
    generator = np.random.default_rng(99)
    rest = cohort.samples.difference(kept)
    expression, clinical = cohort.expression.copy(), cohort.clinical.copy()
    expression.loc[rest] = generator.normal(1e4, 1e4, (len(rest), expression.shape[1])).astype(np.float32)
    clinical.loc[rest, "Age"] = generator.normal(1e4, 1e4, len(rest))
    clinical.loc[rest, "Grade"] = np.resize(["G1", "never seen"], len(rest))
    clinical.loc[rest, "OS_duration"] = generator.uniform(1e5, 1e6, len(rest))
    clinical.loc[rest, "OS_event"] = generator.integers(0, 2, len(rest)).astype(float)
    return make_cohort(expression, clinical, cohort.tasks, cohort.about)


@pytest.mark.parametrize("grid", ["even", "quantile"])
@pytest.mark.parametrize("scaler", SCALERS)
@pytest.mark.parametrize("declared", [True, False])
def test_noise_in_the_test_rows_leaves_every_fitted_artefact_bit_identical(cohort, scaler, grid, declared):
    cohort = cohort if declared else replace(cohort, about={"name": "undeclared"})
    train = split(cohort, 0).train.samples
    altered = noisy(cohort, train)
    options = {"n_genes": 8, "scaler": scaler, "grid": grid, "n_times": 10}
    assert identical(fit_preprocessor(cohort.take(train), **options), fit_preprocessor(altered.take(train), **options))


def test_the_noise_would_have_shown_if_the_test_rows_were_used(cohort, division):
    declared = replace(noisy(cohort, division.train.samples), about={"name": "noise"})
    assert not identical(fit_preprocessor(cohort, n_genes=8), fit_preprocessor(declared, n_genes=8))


def test_one_patient_more_in_the_training_part_shows_in_the_state(division):
    fewer = division.train.take(division.train.samples[1:])
    assert not identical(fit_preprocessor(division.train), fit_preprocessor(fewer))


def test_fitting_changes_nothing_in_the_cohort(cohort):
    expression, clinical = cohort.expression.copy(), cohort.clinical.copy()
    fit_preprocessor(cohort).encode(cohort)
    assert cohort.expression.equals(expression) and cohort.clinical.equals(clinical)


def test_fitting_twice_is_bit_identical(division):
    assert identical(fit_preprocessor(division.train), fit_preprocessor(division.train))


@pytest.mark.parametrize("scaler", SCALERS)
def test_the_memory_order_of_the_table_does_not_show_in_the_last_bit(cohort, scaler):
    values, names = cohort.expression.to_numpy(), {"index": cohort.samples, "columns": cohort.expression.columns}
    rows, columns = (pd.DataFrame(np.array(values, order=order), **names, copy=False) for order in "CF")
    first, second = (fit_preprocessor(with_expression(cohort, table), scaler=scaler) for table in (rows, columns))
    assert identical(first, second)


# --- the genes ---------------------------------------------------------------------------------------------------


def test_the_genes_are_those_of_largest_variance(cohort):
    variance = {gene: statistics.variance(v for v in column if v == v) for gene, column in cohort.expression.items()}
    assert variable_genes(cohort.expression, 5) == sorted(variance, key=variance.get, reverse=True)[:5]


@given(order=st.permutations(range(12)))
@settings(deadline=None, max_examples=10)
def test_the_choice_of_genes_does_not_depend_on_their_order(cohort, order):
    assert variable_genes(cohort.expression.iloc[:, order], 6) == variable_genes(cohort.expression, 6)


def test_genes_of_equal_variance_come_by_name():
    values = np.arange(4.0)
    assert variable_genes(pd.DataFrame({"C": values, "A": -values, "B": values + 8, "D": values * 2}), 3) == [
        "D",
        "A",
        "B",
    ]


def test_a_gene_list_restricts_the_choice(cohort):
    assert variable_genes(cohort.expression, 2, ["GENE1", "GENE4", "GENE2", "not measured"]) == ["GENE4", "GENE2"]


def test_fewer_genes_than_asked_for_are_all_taken(cohort):
    assert len(fit_preprocessor(cohort, n_genes=1000).genes) == 12


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6 + 0.1])
def test_constant_genes_are_not_chosen(cohort, value):
    expression = cohort.expression.assign(GENE3=np.float32(value), GENE5=value, GENE7=np.nan)
    assert {"GENE3", "GENE5", "GENE7"}.isdisjoint(variable_genes(expression, 12))


def test_a_gene_seen_in_one_patient_only_is_not_chosen(cohort):
    alone = np.where(np.arange(60) == 7, 5.0, np.nan)
    assert "ALONE" not in variable_genes(cohort.expression.assign(ALONE=alone), 99)


@pytest.mark.parametrize("options", [{"gene_list": ["not measured"]}, {"gene_list": []}])
def test_a_gene_list_without_any_measured_gene_is_refused(cohort, options):
    with pytest.raises(CohortError, match=r"No gene varies .* among the 0 .* give more samples, or a gene list"):
        fit_preprocessor(cohort, **options)


def test_a_training_part_without_any_varying_gene_is_refused(cohort):
    with pytest.raises(CohortError, match=r"No gene varies .* among the 12"):
        fit_preprocessor(with_expression(cohort, cohort.expression * 0))


@pytest.mark.parametrize("options", [{"n_genes": 0}, {"n_genes": -5}, {"n_times": 0}])
def test_a_number_of_genes_or_times_below_one_is_refused(cohort, options):
    with pytest.raises(ValueError, match="1 or more"):
        fit_preprocessor(cohort, **options)


# --- the scalers -------------------------------------------------------------------------------------------------

SIZES = st.tuples(st.integers(2, 30), st.integers(1, 4), st.integers(0, 2**32 - 1))


def drawn(n, genes, seed):
    return np.random.default_rng(seed).normal(0, 10, (n, genes))


@given(size=SIZES)
@MODERATE
def test_the_minmax_scaler_is_that_of_sklearn_clipped(size):
    values, new = drawn(*size), 3 * drawn(*size)
    oracle = MinMaxScaler(clip=True).fit(values)
    assert np.allclose(scale_genes(new, "minmax", gene_table(values, "minmax")), oracle.transform(new))


@given(size=SIZES)
@MODERATE
def test_the_standard_scaler_is_that_of_sklearn(size):
    values, new = drawn(*size), 3 * drawn(*size)
    oracle = StandardScaler().fit(values)
    assert np.allclose(scale_genes(new, "standard", gene_table(values, "standard")), oracle.transform(new))


@given(size=SIZES)
@MODERATE
def test_the_rank_scaler_gives_each_training_value_its_empirical_rank(size):
    values = drawn(*size)
    scaled = scale_genes(values, "rank", gene_table(values, "rank"))
    below = [[sum(other < value for other in gene) for value in gene] for gene in values.T.tolist()]
    assert np.allclose(scaled.T, np.array(below) / (len(values) - 1))


@pytest.mark.parametrize("n", [50, 500])
def test_the_rank_scaler_is_the_quantile_transformer_of_sklearn(n):
    values, new = drawn(n, 3, 1), drawn(n, 3, 2)
    oracle = QuantileTransformer(n_quantiles=min(n, 101), subsample=None).fit(values)
    assert np.allclose(scale_genes(new, "rank", gene_table(values, "rank")), oracle.transform(new))


@pytest.mark.parametrize("scaler", SCALERS)
@given(size=SIZES)
@MODERATE
def test_scaling_never_turns_the_order_of_two_patients_round(scaler, size):
    values = np.round(drawn(*size))  # with ties
    table = gene_table(values, scaler)
    new = np.sort(drawn(*size) * 3, axis=0)
    assert (np.diff(scale_genes(new, scaler, table), axis=0) >= 0).all()


@pytest.mark.parametrize("scaler", ["minmax", "rank"])
@given(extreme=st.floats(-1e30, 1e30))
@MODERATE
def test_minmax_and_rank_stay_between_0_and_1_on_extreme_new_patients(cohort, scaler, extreme):
    new = with_expression(cohort, cohort.expression * 0 + np.float32(extreme))
    x = fit_preprocessor(cohort, scaler=scaler).expression(new)
    assert x.min() >= 0 and x.max() <= 1


@pytest.mark.parametrize("scaler", ["minmax", "rank"])
def test_minmax_and_rank_reach_0_and_1_on_the_training_part(cohort, scaler):
    x = fit_preprocessor(cohort, scaler=scaler).expression(cohort)
    assert (x.min(0) == 0).all() and (x.max(0) == 1).all()


@pytest.mark.parametrize("scaler", ["minmax", "standard"])
@pytest.mark.parametrize("value", [0.0, 0.1, -7.3])
def test_a_constant_gene_is_scaled_to_about_0(scaler, value):
    values = np.full((7, 2), value)
    assert np.allclose(scale_genes(values, scaler, gene_table(values, scaler)), 0)


@pytest.mark.parametrize("scaler", SCALERS)
def test_integer_expression_is_scaled_like_the_same_numbers_with_a_point(cohort, scaler):
    counts = cohort.expression.fillna(0).round().astype(np.int64)
    whole, point = with_expression(cohort, counts), with_expression(cohort, counts.astype(float))
    x = fit_preprocessor(whole, scaler=scaler).expression(whole)
    assert np.array_equal(x, fit_preprocessor(point, scaler=scaler).expression(point))
    assert (x % 1 != 0).any()


def test_the_fill_of_integer_genes_is_not_truncated():
    expression = pd.DataFrame({"TP53": [0, 1, 2, 5], "ESR1": [4, 3, 2, 1]}, ["S0", "S1", "S2", "S3"])
    train = with_expression(labelled(["a", "a", "b", "b"]), expression)
    assert fit_preprocessor(train).fill.tolist() == [1.5, 2.5]


@pytest.mark.parametrize("options", [{"scaler": "zscore"}, {"grid": "odd"}])
def test_an_unknown_scaler_or_grid_is_refused_with_those_there_are(cohort, options):
    with pytest.raises(ValueError, match=r"is one of (minmax, standard, rank|even, quantile), not '(zscore|odd)'"):
        fit_preprocessor(cohort, **options)


# --- missing values and genes ------------------------------------------------------------------------------------


def filled_by_hand(preprocessor: Preprocessor, train: Cohort, new: Cohort) -> np.ndarray:
    columns = []
    for gene in preprocessor.genes:
        median = statistics.median(float(v) for v in train.expression[gene] if v == v)
        values = new.expression[gene] if gene in new.expression else [np.nan] * len(new)
        columns.append([float(v) if v == v else median for v in values])
    return scale_genes(np.array(columns).T, preprocessor.scaler, preprocessor.table).astype(np.float32)


@pytest.mark.parametrize("scaler", SCALERS)
def test_missing_values_become_the_training_median(division, scaler):
    preprocessor = fit_preprocessor(division.train, scaler=scaler)
    assert division.train.expression.isna().to_numpy().any()
    for part in division:
        assert np.array_equal(preprocessor.expression(part), filled_by_hand(preprocessor, division.train, part))


@pytest.mark.parametrize("scaler", SCALERS)
def test_missing_genes_become_the_training_median(division, scaler):
    preprocessor = fit_preprocessor(division.train, scaler=scaler)
    new = with_expression(division.test, division.test.expression.drop(columns=["GENE2", "GENE9"]))
    assert set(preprocessor.missing_genes(new)) == {"GENE2", "GENE9"}
    assert np.array_equal(preprocessor.expression(new), filled_by_hand(preprocessor, division.train, new))


def test_genes_are_matched_by_name_never_by_position(division):
    preprocessor = fit_preprocessor(division.train, n_genes=6)
    turned = with_expression(division.test, division.test.expression.iloc[:, ::-1].assign(OTHER=1.0))
    assert np.array_equal(preprocessor.expression(turned), preprocessor.expression(division.test))


def test_a_cohort_without_any_gene_of_the_model_is_refused(cohort, division):
    new = with_expression(cohort, cohort.expression.add_prefix("ENSG"))
    with pytest.raises(
        CohortError, match=r"a small cohort has none of the 12 genes .*\(first: GENE\d+\); bring its gene"
    ):
        fit_preprocessor(division.train).expression(new)


def test_the_expression_of_one_patient_does_not_depend_on_the_others(division):
    preprocessor = fit_preprocessor(division.train)
    alone = [preprocessor.expression(division.test.take([sample])) for sample in division.test.samples]
    assert np.array_equal(np.concatenate(alone), preprocessor.expression(division.test))


# --- the labels --------------------------------------------------------------------------------------------------


def test_a_target_is_scaled_by_mean_and_sd_of_the_training_part(division):
    known = [age for age in division.train.clinical["Age"] if age == age]
    preprocessor = fit_preprocessor(division.train)
    assert preprocessor.scales["Age"] == pytest.approx((statistics.fmean(known), statistics.pstdev(known)))
    (scaled,) = preprocessor.encode(division.test).labels["Age"]
    expected = (division.test.clinical["Age"] - statistics.fmean(known)) / statistics.pstdev(known)
    assert np.allclose(scaled, expected, equal_nan=True, atol=1e-6)


def test_a_missing_target_stays_missing(cohort):
    (scaled,) = fit_preprocessor(cohort).encode(cohort).labels["Age"]
    assert np.array_equal(np.isnan(scaled), cohort.clinical["Age"].isna())


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6 + 0.1])
def test_a_constant_target_is_scaled_to_about_0(value):
    train = labelled([value] * 7, "regression")
    assert np.allclose(fit_preprocessor(train).encode(train).labels["Label"], 0)


def test_a_target_without_any_training_value_is_refused():
    with pytest.raises(CohortError, match="labelled: no training patient has a value of 'Label'; leave the task out"):
        fit_preprocessor(labelled([np.nan] * 4, "regression"))


def test_class_codes_come_in_the_declared_order():
    train = labelled(["low", "high", "mid", "low", "mid", "high", None], classes=["low", "mid", "high"])
    assert fit_preprocessor(train).encode(train).labels["Label"][0].tolist() == [0, 2, 1, 0, 1, 2, MISSING]


def test_without_a_declaration_class_codes_come_in_sorted_order():
    train = labelled(["low", "high", "mid", "low", "mid", "high"])
    assert fit_preprocessor(train).classes == {"Label": ("high", "low", "mid")}


def test_a_declared_class_has_its_code_even_if_the_training_part_lacks_it():
    preprocessor = fit_preprocessor(labelled(["a", "c", "a", "c"], classes=["a", "b", "c"]))
    assert preprocessor.encode(labelled(["b", "b"])).labels["Label"][0].tolist() == [1, 1]
    assert preprocessor.outputs == {"Label": 3}


def test_classes_declared_as_numbers_match_labels_read_as_text():
    train = labelled([3, 1, 2, 1, 2, 3], classes=[1, 2, 3])
    assert fit_preprocessor(train).encode(train).labels["Label"][0].tolist() == [2, 0, 1, 0, 1, 2]


def test_a_label_that_was_never_seen_counts_as_missing():
    preprocessor = fit_preprocessor(labelled(["a", "b", "a", "b"]))
    assert preprocessor.encode(labelled(["a", "z", "z", "a"])).labels["Label"][0].tolist() == [0, -1, -1, 0]


def test_an_undeclared_class_is_refused_with_cohort_column_and_rows():
    train = labelled(["a", "b", "z", "a", "b", "z"], classes=["a", "b"])
    with pytest.raises(CohortError) as caught:
        fit_preprocessor(train)
    sentence = str(caught.value)
    assert "labelled: column 'Label'" in sentence and "S2: z, S5: z" in sentence and "declare them" in sentence


@pytest.mark.parametrize("labels", [["a", "a", "a"], [None, None, None]])
def test_a_single_class_is_refused(labels):
    with pytest.raises(CohortError, match=r"labelled: 'Label' needs two classes or more .*; leave the task out"):
        fit_preprocessor(labelled(labels))


def test_a_survival_label_is_a_cell_and_an_event(cohort):
    preprocessor = fit_preprocessor(cohort, n_times=8)
    cell, event = preprocessor.encode(cohort).labels["OS"]
    time, happened = cohort.outcome()
    assert cell.tolist() == [MISSING if t != t else cell_by_hand(t, preprocessor.edges) for t in time]
    assert event[cell != MISSING].tolist() == (happened[~np.isnan(happened)] == 1).tolist()


def test_the_arrays_have_the_types_a_network_needs(cohort):
    encoded = fit_preprocessor(cohort).encode(cohort)
    types = {name: [array.dtype for array in arrays] for name, arrays in encoded.labels.items()}
    assert types == {"Age": [np.float32], "Grade": [np.int64], "OS": [np.int64, bool]}
    assert encoded.x.dtype == np.float32 and encoded.x.shape == (60, 12)


def test_the_outputs_are_what_each_task_needs(cohort):
    assert fit_preprocessor(cohort, n_times=16).outputs == {"Age": 1, "Grade": 3, "OS": 16}


def test_fewer_tasks_leave_the_fitted_numbers_alone(cohort):
    preprocessor = fit_preprocessor(cohort)
    few = preprocessor.with_tasks("OS", "Age")
    assert list(few.encode(cohort).labels) == list(few.outputs) == ["OS", "Age"]
    assert few.table is preprocessor.table and few.edges is preprocessor.edges


def test_a_task_that_was_not_fitted_is_refused(cohort):
    with pytest.raises(KeyError, match="PAM50"):
        fit_preprocessor(cohort).with_tasks("PAM50")


def test_a_cohort_without_survival_has_no_time_grid(cohort):
    assert fit_preprocessor(cohort.with_tasks("Age")).edges.size == 0


# --- the time grid -----------------------------------------------------------------------------------------------

EDGES = st.lists(st.integers(1, 200).map(lambda k: k / 4), min_size=1, max_size=20, unique=True).map(sorted)
TIMES = st.lists(st.integers(0, 240).map(lambda k: k / 4), min_size=1, max_size=40)


def cell_by_hand(time: float, edges) -> int:
    start = 0.0
    for cell, end in enumerate(edges):
        if start <= time < end:
            return cell
        start = end
    return len(edges)


@given(edges=EDGES, times=TIMES)
@settings(deadline=None, max_examples=100)
def test_a_time_is_in_the_right_open_cell_that_holds_it(edges, times):
    cells = time_cell(np.array(times + edges), np.array(edges))
    assert cells.tolist() == [cell_by_hand(time, edges) for time in times + edges]


def test_a_time_on_an_edge_goes_to_the_next_cell():
    assert time_cell(np.array([0.0, 1.0, 2.0, 4.0]), np.array([1.0, 2.0, 4.0])).tolist() == [0, 1, 2, 3]


def test_a_time_later_than_the_last_edge_is_in_the_open_cell():
    assert time_cell(np.array([4.5, 1e9]), np.array([1.0, 2.0, 4.0])).tolist() == [3, 3]


def last_with_ten_at_risk(times) -> float:
    return max(t for t in times if sum(other >= t for other in times) >= 10)


@given(times=st.lists(st.integers(1, 60).map(float), min_size=10, max_size=60), n_times=st.integers(1, 30))
@MODERATE
def test_the_even_grid_has_equal_widths_up_to_the_last_time_with_ten_at_risk(times, n_times):
    edges = time_edges(np.array(times), np.ones(len(times)), n_times)
    assert len(edges) == n_times and edges[-1] == last_with_ten_at_risk(times)
    assert np.allclose(np.diff(edges, prepend=0), edges[-1] / n_times)


def test_the_even_grid_asks_nothing_of_the_events(cohort):
    time, event = cohort.outcome()
    assert np.array_equal(time_edges(time, event, 8), time_edges(time, event * 0, 8))


def test_a_training_part_without_events_has_an_even_grid(cohort):
    cohort = replace(cohort, clinical=cohort.clinical.assign(OS_event=0.0))
    preprocessor = fit_preprocessor(cohort, n_times=8)
    assert len(preprocessor.edges) == 8 and not preprocessor.encode(cohort).labels["OS"][1].any()


@given(events=st.integers(8, 100), n_times=st.integers(1, 8), seed=st.integers(0, 2**32 - 1))
@MODERATE
def test_the_quantile_grid_shares_the_events_out_evenly(events, n_times, seed):
    generator = np.random.default_rng(seed)
    time, event = generator.permutation(np.arange(1.0, 151.0)), np.arange(150) < events
    edges = time_edges(time, event.astype(float), n_times, "quantile")
    counts = [sum(start <= t < end for t in time[event]) for start, end in zip([0, *edges], edges, strict=False)]
    assert len(counts) == n_times and edges[-1] == max(time[event])
    assert max(counts) - min(counts) <= 2 and sum(counts) == events - 1  # the last event is in the open cell


def test_the_quantile_grid_asks_nothing_of_the_censored():
    time, event = np.arange(1.0, 41.0), np.resize([1.0, 0.0], 40)
    moved = np.where(event == 1, time, 1000.0)
    assert np.array_equal(time_edges(time, event, 5, "quantile"), time_edges(moved, event, 5, "quantile"))


def test_quantiles_that_coincide_are_one_edge():
    assert time_edges(np.full(30, 7.0), np.ones(30), 10, "quantile").tolist() == [7.0]


@pytest.mark.parametrize("grid", ["even", "quantile"])
@given(times=st.lists(st.just(0.0) | st.floats(0, 1e4), min_size=1, max_size=40), n_times=st.integers(1, 70))
@MODERATE
def test_edges_rise_above_zero_or_the_grid_is_refused(grid, times, n_times):
    try:
        edges = time_edges(np.array(times), np.ones(len(times)), n_times, grid)
    except CohortError:
        assert sum(time > 0 for time in times) < (1 if grid == "quantile" else 10)
    else:
        assert 1 <= len(edges) <= n_times and edges[0] > 0 and (np.diff(edges) > 0).all()


def test_missing_outcomes_do_not_count_for_the_grid(cohort):
    time, event = cohort.outcome()
    known = ~np.isnan(time)
    for grid in ("even", "quantile"):
        assert np.array_equal(time_edges(time, event, 9, grid), time_edges(time[known], event[known], 9, grid))


@pytest.mark.parametrize(
    ("time", "event", "grid"),
    [
        ([np.nan], [np.nan], "even"),
        ([np.nan], [np.nan], "quantile"),
        ([0.0] * 12, [1.0] * 12, "even"),
        ([0.0] * 12, [1.0] * 12, "quantile"),
        ([1.0, 2.0], [0.0, 0.0], "quantile"),
    ],
)
def test_times_that_no_grid_fits_are_refused(time, event, grid):
    with pytest.raises(CohortError, match=r"survival times and \d+ events, too few above 0 .*; use a larger training"):
        time_edges(np.array(time), np.array(event), 4, grid)


# --- saved and read again ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scaler", SCALERS)
def test_a_preprocessor_survives_the_trip_through_json(cohort, scaler):
    first = fit_preprocessor(cohort, n_genes=7, scaler=scaler)
    arrays, fields = first.state()
    second = Preprocessor.from_state(arrays, json.loads(json.dumps(fields)))
    assert identical(first, second) and second.tasks == first.tasks
    assert np.array_equal(first.expression(cohort), second.expression(cohort))


def test_the_state_holds_arrays_and_plain_values_only(cohort):
    arrays, fields = fit_preprocessor(cohort).state()
    assert {array.dtype for array in arrays.values()} == {np.dtype(float)}
    assert json.loads(json.dumps(fields, allow_nan=False)).keys() == fields.keys()


# --- real data ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scaler", SCALERS)
def test_a_real_cohort_is_encoded_without_missing_expression(real_cohort, scaler):
    division = split(real_cohort, 0)
    preprocessor = fit_preprocessor(division.train, n_genes=200, scaler=scaler)
    for part in division:
        encoded = preprocessor.encode(part)
        assert np.isfinite(encoded.x).all() and encoded.x.shape == (len(part), len(preprocessor.genes))
        assert scaler == "standard" or (encoded.x.min() >= 0 and encoded.x.max() <= 1)


def test_the_labels_of_a_real_cohort_are_known_where_they_are_given(real_cohort):
    division = split(real_cohort, 0)
    preprocessor = fit_preprocessor(division.train, n_genes=50)
    labels = preprocessor.encode(division.test).labels
    for task in real_cohort.tasks:
        column = division.test.clinical[list(task.columns)]
        known = column.isin(preprocessor.classes[task.name]) if task.kind == "classification" else column.notna()
        code = np.nan_to_num(labels[task.name][0], nan=MISSING - 100.0)
        assert np.array_equal(code > -100 if task.kind == "regression" else code != MISSING, known.all(axis=1))


def test_another_offset_of_the_logarithm_is_undone():
    fpkm = pd.DataFrame({"a": [0.0, 1.0, 300.0], "b": [0.05, np.nan, 7.0]})
    relogged = relog(np.log2(fpkm + 0.1), 0.1)
    pd.testing.assert_frame_equal(relogged, np.log2(fpkm + 1))
    pd.testing.assert_frame_equal(relog(relogged, 1.0), relogged)
    assert (relog(pd.DataFrame({"a": [-5.0]}), 0.1) == 0).all().all()  # rounded below FPKM 0
