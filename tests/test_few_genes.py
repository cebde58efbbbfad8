from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sksurv.metrics import concordance_index_censored

from txtlib.cohort import CohortError
from txtlib.predictions import Predictions
from txtlib.pretrain.few_genes import (
    GroupedCox,
    anchor_designs,
    anchors,
    groups_of,
    having,
    in_sds,
    on_axes,
    only,
    panel_accuracy,
    random_panel,
    within_c,
    within_c_draws,
    without_gaps,
)


def drawn(n=300, genes=6, seed=0, groups=3):
    """Patients whose hazard follows gene 0 within groups of very different hazards."""
    rng = np.random.default_rng(seed)
    x, group = rng.normal(size=(n, genes)), rng.integers(0, groups, n)
    time = rng.exponential(np.exp(-x[:, 0] - 2.0 * group))
    end = rng.exponential(np.exp(-2.0 * group))
    return x, (np.minimum(time, end), (time <= end).astype(float)), group.astype(str)


@given(st.integers(0, 30), st.integers(1, 30))
def test_panels_of_a_seed_are_nested_and_their_own(seed, size):
    genes = [f"g{gene}" for gene in range(20)]
    panel = random_panel(genes, size, seed)
    assert len(set(panel)) == min(size, 20) and set(panel) <= set(genes)
    assert random_panel(genes, size + 3, seed)[:size] == panel


def test_only_keeps_these_genes_and_all_patients(build):
    cohort = build()
    seen = only(cohort, ["GENE3", "GENE1"])
    assert list(seen.expression) == ["GENE3", "GENE1"] and seen.clinical.equals(cohort.clinical)


def test_anchors_are_the_genes_of_the_hazard():
    x, outcome, _ = drawn(groups=1)
    assert anchors(pd.DataFrame(x, columns=list("abcdef")), outcome, 1) == ["a"]
    holed = pd.DataFrame(x, columns=list("abcdef")).mask(np.random.default_rng(0).random(x.shape) < 0.1)
    assert len(anchors(holed, outcome, 4)) == 4


# --- ranking within groups ------------------------------------------------------------------------------------


def test_one_group_is_scikit_survivals_c():
    x, outcome, group = drawn(groups=1)
    expected = concordance_index_censored(outcome[1] == 1, outcome[0], x[:, 0])[0]
    assert within_c(outcome, x[:, 0], group) == pytest.approx(expected)


def test_groups_are_weighed_by_their_pairs():
    x, outcome, group = drawn()
    parts = []
    for name in np.unique(group):
        mine = group == name
        c, right, wrong, *_ = concordance_index_censored(outcome[1][mine] == 1, outcome[0][mine], x[mine, 0])
        parts.append((c, right + wrong))
    expected = np.average([c for c, _ in parts], weights=[pairs for _, pairs in parts])
    assert within_c(outcome, x[:, 0], group) == pytest.approx(expected)


def test_telling_groups_apart_earns_nothing():
    _, outcome, group = drawn()
    assert within_c(outcome, group.astype(float), group) == 0.5


def test_draws_are_those_of_the_rows_drawn():
    x, outcome, group = drawn(80)
    outcome[0][:5], outcome[1][:5] = np.nan, np.nan
    rows = np.random.default_rng(0).integers(0, 80, (4, 80))
    counts = np.stack([np.bincount(row, minlength=80) for row in rows]).astype(float)
    found = within_c_draws(outcome, x[:, 0], group, counts)
    for value, row in zip(found, rows, strict=True):
        assert value == pytest.approx(within_c(tuple(part[row] for part in outcome), x[row, 0], group[row]))


def test_without_events_there_is_no_c():
    assert np.isnan(within_c((np.arange(4.0), np.zeros(4)), np.arange(4.0), np.array(["a"] * 4)))


@pytest.mark.parametrize("groups", [1, 3])
def test_grouped_cox_finds_the_hazard_within_groups(groups):
    parts = {
        part: drawn(400, seed=seed, groups=groups) for part, seed in (("train", 1), ("validation", 2), ("test", 3))
    }
    x, outcomes, group = ({part: found[k] for part, found in parts.items()} for k in range(3))
    outcomes["train"][0][:3] = np.nan
    risk = GroupedCox().fit(x, outcomes, group).predict(x["test"], group["test"])
    truth = within_c(outcomes["test"], x["test"][:, 0], group["test"])
    assert within_c(outcomes["test"], risk, group["test"]) > truth - 0.02


@given(st.floats(-50, 50))
@settings(max_examples=10, deadline=None)
def test_a_constant_added_to_a_group_changes_no_c(shift):
    x, outcome, group = drawn(60)
    moved = x[:, 0] + shift * (group == "1")
    assert within_c(outcome, moved, group) == pytest.approx(within_c(outcome, x[:, 0], group), abs=1e-3)


# --- arms -----------------------------------------------------------------------------------------------------


def test_only_the_last_arm_sees_an_anchor():
    x = {part: np.random.default_rng(seed).normal(size=(5, 6)) for seed, part in enumerate(("train", "test"))}
    x["test"][0, 1] = np.nan
    seen = []

    def told(values):
        seen.append(values)
        return np.full_like(values, 7.0)

    arms = anchor_designs(x, [0, 1], [3, 5], {"told": told})
    assert list(arms) == ["panel alone", "told", "anchors measured"]
    assert all(np.isnan(values[:, 2:]).all() for values in seen)
    for part in x:
        assert (arms["told"][part][:, 2:] == 7).all()
        np.testing.assert_array_equal(arms["panel alone"][part], np.nan_to_num(x[part][:, :2]))
        np.testing.assert_array_equal(arms["anchors measured"][part][:, 2:], x[part][:, [3, 5]])


def test_accuracy_is_averaged_over_panels_and_methods_see_no_other_gene(build):
    cohort = build(40).with_tasks("Grade")
    seen = []

    def fit(part):
        seen.append(list(part.expression))
        share = {"GENE1": 1.0}.get(part.expression.columns[0], 0.0)  # right for G1, or for G2, all the time
        table = pd.DataFrame({"G1": share, "G2": 1 - share}, cohort.samples)
        return lambda other: Predictions(other.samples, probabilities={"Grade": table})

    found = panel_accuracy({"m": fit}, cohort, cohort, [["GENE1"], ["GENE2", "GENE3"]], np.ones((3, 40)))
    shares = cohort.clinical["Grade"].value_counts(normalize=True)
    assert seen == [["GENE1"], ["GENE2", "GENE3"]]
    np.testing.assert_allclose(found["m"], shares[["G1", "G2"]].mean())


# --- which samples and genes ----------------------------------------------------------------------------------


def test_genes_with_a_gap_are_left_out(build):
    cohort = build()
    table = cohort.expression.fillna(5.0)
    table.iloc[3, [0, 4]] = np.nan
    found = without_gaps(replace(cohort, expression=table))
    assert list(found.expression) == [gene for gene in table if gene not in ("GENE0", "GENE4")]
    with pytest.raises(CohortError, match="have a value in every sample"):
        without_gaps(replace(cohort, expression=table.mask(np.eye(60, 12, dtype=bool))))


def test_samples_are_kept_by_a_clinical_column(build):
    cohort = build()
    assert (having(cohort, {"Grade": "G2"}).clinical["Grade"] == "G2").all() and len(having(cohort, {})) == len(cohort)
    for wrong in ({"Grade": "G9"}, {"Nothing": "G1"}):
        with pytest.raises(CohortError, match="no sample has"):
            having(cohort, wrong)


def test_groups_are_a_column_or_one(build):
    cohort = build()
    assert set(groups_of(cohort)) == {"all"} and set(groups_of(cohort, "Grade")) >= {"G1", "G2", "G3"}
    with pytest.raises(CohortError, match="no clinical column"):
        groups_of(cohort, "Nothing")


def test_axes_are_those_of_scikit_learn_and_only_the_training_part_is_asked():
    x = {part: np.random.default_rng(seed).normal(size=(30, 6)) for seed, part in enumerate(("train", "test"))}
    found, model = on_axes(x, 3), PCA(3, whiten=True).fit(x["train"])
    for part in x:
        expected = model.transform(x[part]) * np.sqrt(30 / 29)  # whitened by n - 1
        np.testing.assert_allclose(np.abs(found[part]), np.abs(expected - 0), atol=1e-8)
    constant = in_sds({"train": np.ones((4, 2)), "test": np.full((2, 2), 3.0)})
    assert (constant["train"] == 0).all() and (constant["test"] == 2).all()
