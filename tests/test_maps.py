from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import CoxPHFitter
from scipy import stats
from sksurv.metrics import concordance_index_censored

from txtlib.cohort import CohortError, Task, make_cohort
from txtlib.interpret import maps
from txtlib.interpret.maps import (
    components,
    martingale_residuals,
    nearest_neighbours,
    neighbour_differences,
    neighbour_scores,
    patient_maps,
    patient_vectors,
    spaces,
    trust,
)
from txtlib.variants import variant

SMALL = dict(n_genes=12, outputs={"Age": 1}, width=8, layers=2, heads=2, dropout=0.3)
FEW = dict(resamples=50, permutations=50)
TASKS = (
    Task("Age", "regression", ("Age",)),
    Task("Group", "classification", ("Group",)),
    Task("OS", "survival", ("OS_duration", "OS_event")),
)


def expression(n=20, genes=12, seed=0):
    return np.random.default_rng(seed).random((n, genes)).astype(np.float32)


def cohort_of(place, seed=0, missing=True):
    """Return patients whose age, group and hazard follow ``place`` (n,), with a few labels missing."""
    rng, n = np.random.default_rng(seed), len(place)
    samples = pd.Index([f"S{row:03d}" for row in range(n)], name="Sample")
    clinical = pd.DataFrame(
        {
            "Age": 60 + 10 * place + rng.normal(0, 3, n),
            "Group": np.array(["A", "B", "C"])[np.digitize(place, [-0.5, 0.5])],
            "OS_duration": rng.exponential(1000 * np.exp(-1.5 * place)),
            "OS_event": (rng.random(n) < 0.7).astype(float),
        },
        samples,
    )
    if missing:
        clinical.loc[samples[:3], "Age"] = np.nan
        clinical.loc[samples[2:6], "Group"] = None
        clinical.loc[samples[5:7], "OS_duration"] = np.nan
    return make_cohort(pd.DataFrame(rng.random((n, 3)), samples, ["a", "b", "c"]), clinical, TASKS, {"name": "known"})


@pytest.fixture(scope="module")
def known():
    """Patients on a line, and the two spaces that hold it: as it is, and lost in noise."""
    rng = np.random.default_rng(1)
    place = rng.normal(size=150)
    good = np.column_stack([place, 0.1 * rng.normal(size=150)])
    return cohort_of(place), {"good": good, "noise": rng.normal(size=(150, 4))}


# --- vectors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["product", "value token", "full rank"])
def test_vectors_are_those_of_the_encoder_piece_by_piece(name, monkeypatch):
    network, x, sizes = variant(name, **SMALL).eval(), expression(), []
    with torch.no_grad():
        hidden = network.encode(torch.from_numpy(x))
        read = network.features(torch.from_numpy(x)).numpy()
    encode = network.encode
    monkeypatch.setattr(network, "encode", lambda part: sizes.append(len(part)) or encode(part))
    monkeypatch.setattr(maps, "GENES_AT_ONCE", 12 * 8)
    found = patient_vectors(network, x)
    np.testing.assert_allclose(found, hidden.mean(1).numpy(), atol=1e-6)
    np.testing.assert_allclose(patient_vectors(network, x, "flatten"), read, atol=1e-6)
    assert sizes == [8, 8, 4] * 2 and found.dtype == np.float32


def test_hierarchical_networks_have_vectors_too():
    network = variant("product", sets=[[0, 1, 2, 3], [3, 4, 5, 6, 7, 8, 9, 10, 11]], **SMALL)
    assert patient_vectors(network, expression()).shape == (20, 8)


def test_dropout_is_off_and_the_mode_stays_as_it_was():
    network, x = variant("product", **SMALL).train(), expression()
    np.testing.assert_array_equal(patient_vectors(network, x), patient_vectors(network, x))
    assert network.training and not network.eval().training
    patient_vectors(network, x)
    assert not network.training


@pytest.mark.parametrize("x", [expression(genes=11), expression()[0], expression()[:0]])
def test_an_x_that_the_network_cannot_read_is_refused(x):
    with pytest.raises(ValueError, match=r"the network reads \(patients, 12 genes\)"):
        patient_vectors(variant("product", **SMALL), x)


def test_an_unknown_pooling_is_refused():
    with pytest.raises(ValueError, match="mean, flatten, not 'max'"):
        patient_vectors(variant("product", **SMALL), expression(), "max")


def test_a_network_without_expression_tells_nobody_apart():
    vectors = patient_vectors(variant("none", **SMALL), expression())
    with pytest.raises(ValueError, match="All 20 rows of the vectors are the same"):
        components(vectors)


def test_components_keep_distances_and_come_in_order():
    x = np.random.default_rng(0).normal(size=(12, 30)) * np.linspace(3, 0.1, 30)
    found = components(x)
    assert found.shape == (12, 11) and components(x, 4).shape == (12, 4)
    centred = x - x.mean(0)
    np.testing.assert_allclose(found @ found.T, centred @ centred.T, atol=1e-8)
    np.testing.assert_allclose(np.linalg.norm(found, axis=0), np.linalg.svd(centred)[1][:11])
    np.testing.assert_allclose(components(x, 4), found[:, :4])


@pytest.mark.parametrize(
    "bad, message",
    [
        (np.zeros(5), "table of numbers"),
        (np.zeros((5, 0)), "table of numbers"),
        (np.array([["a", "b"]]), "table of numbers"),
        (np.array([[1.0, 2.0], [np.nan, 1.0]]), "Row 1 of the vectors"),
        (np.array([[1.0, 2.0], [1.0, np.inf]]), "Row 1 of the vectors"),
        (np.zeros((5, 2)), "All 5 rows"),
        (np.ones((5, 2)) + 1e-8 * np.arange(10).reshape(5, 2), "All 5 rows"),
    ],
)
def test_vectors_that_are_no_vectors_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        components(bad)
    with pytest.raises(ValueError, match=message):
        patient_maps(bad, range(len(bad)))


def test_no_component_is_refused():
    with pytest.raises(ValueError, match="count is 0"):
        components(expression(), 0)


# --- maps -----------------------------------------------------------------------------------------------------


def two_groups(n=40, p=20, seed=0):
    rng = np.random.default_rng(seed)
    group = np.arange(n) % 2
    return group, (rng.normal(size=(n, p)) + 8 * group[:, None]).astype(np.float32)


@pytest.fixture(scope="module")
def drawn():
    """Two groups and their maps, once for this file: the first UMAP is compiled."""
    group, vectors = two_groups()
    state = np.random.get_state()[1].copy()
    table = patient_maps(vectors, [f"S{row}" for row in range(40)], seed=3)
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    return group, vectors, table


def test_maps_are_a_tidy_table_that_keeps_groups_apart(drawn):
    group, vectors, table = drawn
    assert list(table.columns) == ["sample", "method", "x", "y"]
    assert list(table["method"].unique()) == ["PCA", "t-SNE", "UMAP"] and len(table) == 3 * 40
    for name, places in spaces("vectors", vectors, table).items():
        nearest = nearest_neighbours(places, 5)
        assert (group[nearest] == group[:, None]).all(), name
    assert list(table["sample"][:40]) == [f"S{row}" for row in range(40)]


def test_the_seed_decides(drawn):
    _, vectors, table = drawn
    again = patient_maps(vectors, [f"S{row}" for row in range(40)], seed=3)
    pd.testing.assert_frame_equal(again, table)
    other = patient_maps(vectors, table["sample"][:40], ["UMAP"], seed=4)
    assert not np.allclose(other[["x", "y"]], table.loc[table["method"] == "UMAP", ["x", "y"]])


@pytest.mark.parametrize("n", [5, 16])
def test_few_patients_have_maps_too(n):
    table = patient_maps(two_groups(n)[1], range(n))
    assert np.isfinite(table[["x", "y"]].to_numpy()).all() and len(table) == 3 * n


def test_patients_with_the_same_vector_do_no_harm():
    table = patient_maps(np.repeat(two_groups(6, 3)[1], 5, axis=0), range(30))
    assert np.isfinite(table[["x", "y"]].to_numpy()).all()


def test_the_first_map_is_that_of_the_principal_components(drawn):
    _, vectors, table = drawn
    first = table.loc[table["method"] == "PCA", ["x", "y"]]
    np.testing.assert_allclose(first, components(vectors)[:, :2], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "shape, samples, methods, message",
    [
        ((10, 4), range(10), ["PCA", "MDS"], "not by 'MDS'"),
        ((10, 4), range(10), [], "not by None"),
        ((10, 4), range(9), ["PCA"], "9 names"),
        ((4, 4), range(4), ["PCA"], "5 patients or more"),
        ((10, 1), range(10), ["PCA"], "two values of each"),
    ],
)
def test_maps_that_cannot_be_drawn_are_refused(shape, samples, methods, message):
    with pytest.raises(ValueError, match=message):
        patient_maps(np.random.default_rng(0).normal(size=shape), samples, methods)


def slow_trust(vectors, places, k):
    """Venna and Kaski's formula, patient by patient."""
    n, penalty = len(vectors), 0
    for i in range(n):
        order = [j for j in np.argsort(np.linalg.norm(vectors - vectors[i], axis=1), kind="stable") if j != i]
        near = [j for j in np.argsort(np.linalg.norm(places - places[i], axis=1), kind="stable") if j != i][:k]
        penalty += sum(max(0, order.index(j) + 1 - k) for j in near)
    return 1 - 2 / (n * k * (2 * n - 3 * k - 1)) * penalty


def test_trust_is_that_of_its_formula(drawn):
    _, vectors, table = drawn
    found = trust(vectors, table, 5)
    for name, row in found.set_index("method").iterrows():
        places = table.loc[table["method"] == name, ["x", "y"]].to_numpy()
        assert row["trust"] == pytest.approx(slow_trust(vectors, places, 5))
    assert (found["k"] == 5).all() and (found["n"] == 40).all()


def test_trust_is_one_for_the_vectors_themselves_and_half_for_any_map():
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(300, 2))
    table = pd.DataFrame(flat, columns=["x", "y"]).assign(method="itself")
    dealt = pd.DataFrame(rng.permutation(flat), columns=["x", "y"]).assign(method="dealt")
    assert trust(flat, pd.concat([table, dealt]))["trust"].to_list() == pytest.approx([1, 0.5], abs=0.03)


# --- neighbours ------------------------------------------------------------------------------------------------


@given(st.integers(4, 25), st.integers(1, 6), st.integers(0, 10**6))
@settings(deadline=None, max_examples=20)
def test_neighbours_are_those_of_a_slow_twin(n, p, seed):
    vectors = np.random.default_rng(seed).normal(size=(n, p))
    for row, found in enumerate(nearest_neighbours(vectors, 3)):
        distance = np.linalg.norm(vectors - vectors[row], axis=1)
        distance[row] = np.inf
        assert list(found) == list(np.argsort(distance)[:3])


def slow_said(vectors, labels, k):
    """What the neighbours of each patient say on average: labels are numbers."""
    said = []
    for row in range(len(vectors)):
        distance = np.linalg.norm(vectors - vectors[row], axis=1)
        distance[row] = np.inf
        said.append(np.mean([labels[near] for near in np.argsort(distance)[:k]]))
    return np.array(said)


def test_scores_are_those_of_a_slow_twin(known):
    cohort, held = known
    found = neighbour_scores(held, cohort, k=7, **FEW).set_index(["task", "space"])
    clinical, vectors = cohort.clinical, held["good"]
    age = clinical["Age"].notna().to_numpy()
    said = slow_said(vectors[age], clinical["Age"].to_numpy()[age], 7)
    assert found.loc[("Age", "good"), "value"] == pytest.approx(stats.spearmanr(clinical["Age"][age], said).statistic)
    group = clinical["Group"].notna().to_numpy()
    shares = [
        slow_said(vectors[group], (clinical["Group"][group] == name).to_numpy(float), 7)
        * (clinical["Group"][group] == name)
        for name in "ABC"
    ]
    assert found.loc[("Group", "good"), "value"] == pytest.approx(np.sum(shares, 0).mean())
    time, event = cohort.outcome()
    seen = ~np.isnan(event)
    said = slow_said(vectors[seen], martingale_residuals(time[seen], event[seen]), 7)
    expected = concordance_index_censored(event[seen] == 1, time[seen], said)[0]
    assert found.loc[("OS", "good"), "value"] == pytest.approx(expected)
    assert found["n"].to_list() == [147, 147, 146, 146, 148, 148] and (found["k"] == 7).all()


def test_martingale_residuals_are_those_of_a_cox_regression_on_nothing():
    rng = np.random.default_rng(0)
    time, event = rng.integers(1, 30, 80).astype(float), (rng.random(80) < 0.6).astype(float)
    table = pd.DataFrame({"time": time, "event": event, "nothing": rng.normal(size=80)})
    model = CoxPHFitter(penalizer=1e9).fit(table, "time", "event")
    expected = model.compute_residuals(table, "martingale")["martingale"].sort_index()
    found = martingale_residuals(time, event)
    assert (martingale_residuals(time, 0 * event) == 0).all()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.sum() == pytest.approx(0, abs=1e-9)


def test_what_is_there_is_found_and_what_is_not_is_not(known):
    cohort, held = known
    found = neighbour_scores(held, cohort, permutations=250, seed=2).set_index(["task", "space"])
    assert (found.xs("good", level="space")["p"] < 0.005).all()
    assert (found.xs("noise", level="space")["p"] > 0.02).all()
    inside = (found["low"] < found["value"]) & (found["value"] < found["high"])
    assert inside.all()
    good = found.xs("good", level="space")
    assert (good["low"] > good["chance"]).all() and (found["q"] >= found["p"]).all()


def test_the_chance_of_classes_is_that_two_patients_are_of_one_class(known):
    cohort, held = known
    found = neighbour_scores(held, cohort.with_tasks("Group"), permutations=2000, resamples=1)
    counts = cohort.clinical["Group"].value_counts()
    expected = (counts * (counts - 1)).sum() / (counts.sum() * (counts.sum() - 1))
    np.testing.assert_allclose(found["chance"], expected, atol=0.003)


def test_p_is_uniform_where_labels_are_dealt_out():
    rng, found = np.random.default_rng(0), []
    for seed in range(30):
        cohort = cohort_of(rng.normal(size=60), seed, missing=False)
        rows = neighbour_scores({"noise": rng.normal(size=(60, 3))}, cohort, permutations=39, resamples=1, seed=seed)
        found.append(rows["p"].to_numpy())
    for p in np.transpose(found):
        assert stats.kstest(p, "uniform").pvalue > 0.01
        assert p.min() >= 1 / 40


def test_a_bootstrap_interval_covers_the_spread_over_new_patients():
    rng, values, widths = np.random.default_rng(0), [], []
    for seed in range(30):
        place = rng.normal(size=100)
        cohort = cohort_of(place, seed, missing=False).with_tasks("Age")
        row = neighbour_scores({"s": np.column_stack([place, place])}, cohort, permutations=1, resamples=200).iloc[0]
        values.append(row["value"])
        widths.append(row["high"] - row["low"])
    assert 0.5 < np.mean(widths) / (4 * np.std(values)) < 2


def test_q_is_that_of_benjamini_and_hochberg(known):
    cohort, held = known
    found = neighbour_scores(held, cohort, **FEW)
    p = found["p"].to_numpy()
    order = np.argsort(p)
    q = np.minimum.accumulate((p[order] * len(p) / np.arange(1, len(p) + 1))[::-1])[::-1]
    np.testing.assert_allclose(found["q"].to_numpy()[order], np.minimum(q, 1))


def test_the_seed_decides_the_numbers(known):
    cohort, held = known
    first, again = (neighbour_scores(held, cohort, seed=1, **FEW) for _ in range(2))
    pd.testing.assert_frame_equal(first, again)
    assert not neighbour_scores(held, cohort, seed=2, **FEW)["chance"].equals(first["chance"])


def test_a_predicted_risk_is_a_number_like_any_other(known):
    cohort, held = known
    asked = replace(
        cohort,
        clinical=cohort.clinical.assign(risk=held["good"][:, 0] ** 3),
        tasks=(Task("risk", "regression", ("risk",)),),
    )
    found = neighbour_scores(held, asked, **FEW).set_index("space")
    assert found.loc["good", "value"] > 0.95 and found.loc["good", "n"] == 150


def test_what_is_undefined_is_missing(known):
    cohort, held = known
    clinical = cohort.clinical.assign(Age=50.0, OS_event=0.0)
    found = neighbour_scores(held, replace(cohort, clinical=clinical), **FEW).set_index("task")
    numbers = ["value", "low", "high", "chance", "p", "q"]
    assert found.loc[["Age", "OS"], numbers].isna().all(axis=None) and found.loc["Group", numbers].notna().all(
        axis=None
    )
    differences = neighbour_differences(held, replace(cohort, clinical=clinical), "noise", resamples=20)
    assert differences.set_index("task").loc[["Age", "OS"], ["difference", "low", "high"]].isna().all(axis=None)


def test_one_class_is_no_news(known):
    cohort, held = known
    found = neighbour_scores(held, replace(cohort, clinical=cohort.clinical.assign(Group="A")), **FEW)
    row = found[found["task"] == "Group"].iloc[0]
    assert row[["value", "low", "high", "chance", "p"]].to_list() == [1] * 5


# --- differences --------------------------------------------------------------------------------------------------


def test_differences_are_paired(known):
    cohort, held = known
    scores = neighbour_scores(held, cohort, **FEW).set_index(["task", "space"])["value"]
    found = neighbour_differences(held, cohort, "noise").set_index("task")
    back = neighbour_differences(held, cohort, "good").set_index("task")
    for task, row in found.iterrows():
        assert row["difference"] == pytest.approx(scores[task, "good"] - scores[task, "noise"])
        assert row["low"] > 0 and row["space"] == "good" and row["reference"] == "noise"
        np.testing.assert_allclose(
            -back.loc[task, ["difference", "high", "low"]].astype(float), row.iloc[-3:].astype(float)
        )


def test_the_same_space_twice_makes_no_difference(known):
    cohort, held = known
    found = neighbour_differences({"a": held["noise"], "b": held["noise"] + 5}, cohort, "a", resamples=30)
    np.testing.assert_allclose(found[["difference", "low", "high"]], 0, atol=1e-12)


# --- doors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"k": 0}, "k is 0"),
        ({"k": 80}, "k is 80; the neighbours of those with a label of 'Age', 147 in number"),
        ({"resamples": 0}, "not 0 and"),
        ({"permutations": 0}, "and 0"),
        ({"spaces": {"good": np.eye(149)}}, "149 rows, known 150 patients"),
        ({"spaces": {"good": np.zeros((150, 2))}}, "the vectors of 'good' are the same"),
        ({"spaces": {"good": np.full((150, 2), np.nan)}}, "Row 0 of the vectors of 'good'"),
    ],
)
def test_questions_without_an_answer_are_refused(settings, message, known):
    cohort, held = known
    with pytest.raises(ValueError, match=message):
        neighbour_scores(**{"spaces": held, "cohort": cohort, **settings})


def test_an_unknown_reference_is_refused(known):
    with pytest.raises(ValueError, match="good, noise, not 'PCA'"):
        neighbour_differences(known[1], known[0], "PCA")


def test_a_cohort_without_tasks_or_with_a_patient_twice_is_refused(known):
    cohort, held = known
    with pytest.raises(CohortError, match="has no task"):
        neighbour_scores(held, replace(cohort, tasks=()))
    patients = ["P0", "P0", *[f"P{row}" for row in range(2, 150)]]
    with pytest.raises(CohortError, match="'S001' is a second one of a patient"):
        neighbour_scores(held, replace(cohort, clinical=cohort.clinical.assign(Patient=patients)))


def test_trust_needs_few_neighbours():
    _, vectors = two_groups(10)
    table = patient_maps(vectors, range(10), ["PCA"])
    with pytest.raises(ValueError, match="k is 5; the neighbours of these patients, 10"):
        trust(vectors, table, 5)
