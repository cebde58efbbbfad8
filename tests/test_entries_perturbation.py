"""Entries on pruned heads, gene vectors and moved genes: against sums by hand, and rules that must not say too much."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from txtlib.cohort import CohortError, Task, split
from txtlib.comparisons import paired_difference
from txtlib.entries import CONSTANT
from txtlib.entries_perturbation import (
    RANDOM,
    REWIRED,
    WALKED,
    WANTED,
    Wanted,
    arm_gains,
    arm_scores,
    between_trainings,
    head_draws,
    horizon_of,
    largest_loss,
    learned,
    losses_of,
    mean_changes,
    measures_of,
    moved_gene,
    named,
    networks_of,
    over_seeds,
    pruning_entry,
    risk_entry,
    vectors_entry,
)
from txtlib.interpret.perturbation import Perturbed
from txtlib.interpret.pruning import FULL, prune_heads
from txtlib.ledger import NOT_ATTEMPTED, NOT_REPRODUCED, REPRODUCED, TOO_SMALL
from txtlib.network import degrees, make_network
from txtlib.preprocess import fit_preprocessor
from txtlib.training import Trained
from txtlib.variants import variant

GENES, HORIZON = 8, 400.0
MEASURES = {"Age": "Spearman", "Grade": "accuracy", "OS": "Uno's C"}


@pytest.fixture(scope="module")
def patients(build):
    return build(n=120, genes=GENES)


@pytest.fixture(scope="module")
def parts(patients):
    return split(patients, seed=0)


@pytest.fixture(scope="module")
def network(parts):
    preprocessor = fit_preprocessor(parts.train, n_genes=GENES, n_times=6, grid="quantile")
    shape = dict(n_genes=GENES, outputs=preprocessor.outputs, width=8, layers=2, heads=2)
    return Trained(variant("value token", **shape), preprocessor, pd.DataFrame(), pd.DataFrame(), 0)


# --- heads --------------------------------------------------------------------------------------------------------


def test_each_task_has_the_measure_of_the_benchmark(patients):
    assert measures_of(patients) == MEASURES


def test_losses_are_those_of_prune_heads_with_the_other_sign(network, parts):
    draws = head_draws(network, parts.train, parts.test, HORIZON, resamples=40, seed=3)
    ours = losses_of(draws, MEASURES)
    theirs = prune_heads(network, parts.train, parts.test, HORIZON, resamples=40, seed=3)
    theirs["off"] = [f"layer {row.layer}, head {row.head}" for row in theirs.itertuples()]
    theirs = theirs[[MEASURES[row.task] == row.measure for row in theirs.itertuples()]].set_index(["off", "task"])
    assert len(ours) == 3 * (2 * 2 + 2)
    for name, row in ours.iterrows():
        other = theirs.loc[name]
        np.testing.assert_allclose(row, [-other["difference"], -other["high"], -other["low"]], atol=1e-12)


def made(losses, tasks=("Age", "Grade"), gain=0.3, noise=0.001, resamples=400, heads=None):
    """Return draws of one network: ``losses`` {head: a loss for each task}; it beats the constant by ``gain``."""
    rng = np.random.default_rng(0)
    levels = {FULL: [0.5] * len(tasks), CONSTANT: [0.5 - gain] * len(tasks)}
    levels |= {name: [0.5 - loss for loss in each] for name, each in losses.items()}
    columns = {}
    for name, each in levels.items():
        for task, level in zip(tasks, each, strict=True):
            columns[name, task, MEASURES[task]] = np.append(level, level + noise * rng.normal(size=resamples))
    return pd.DataFrame(columns).rename_axis(columns=["method", "task", "measure"])


TWO = {"layer 0, head 0": [0.1, 0.2], "layer 0, head 1": [-0.1, 0.05], "layer 0, head all": [0.3, 0.3]}


def test_the_largest_loss_lies_within_intervals_that_hold_together():
    draws, kept = made(TWO, noise=0.05), {task: MEASURES[task] for task in ("Age", "Grade")}
    found = largest_loss(draws, kept)
    for name in TWO:
        rows = paired_difference(draws, FULL, name, 0.975)  # of two tasks
        np.testing.assert_allclose(found.loc[name], [rows["score"].max(), rows["low"].max(), rows["high"].max()])


def test_a_task_is_learned_if_its_mean_gain_over_the_constant_has_an_interval_above_0():
    kept = {"Age": "Spearman"}
    draws = [made({}, tasks=("Age",), gain=gain) for gain in (0.3, 0.1)]
    found = learned(draws, kept).loc["Age"]
    assert found["mean"] == pytest.approx(0.2) and 0.19 < found["low"] < 0.2 < found["high"] < 0.21
    assert learned([made({}, tasks=("Age",), gain=0.0)], kept).loc["Age", "low"] < 0


@pytest.mark.parametrize(
    "losses, gain, said",
    [
        (TWO, 0.3, REPRODUCED),
        (TWO | {"layer 0, head 1": [-0.1, -0.05]}, 0.3, NOT_REPRODUCED),  # no task is worse without it
        (TWO | {"layer 0, head 1": [0.0, 0.001]}, 0.3, NOT_REPRODUCED),  # none by more than the margin
        (TWO | {"layer 0, head all": [-0.3, -0.3]}, 0.3, REPRODUCED),  # a layer is no head
        (TWO, 0.0, TOO_SMALL),  # nothing was learned
        (TWO | {"layer 0, head 1": [-0.1, -0.05]}, 0.0, TOO_SMALL),
    ],
)
def test_every_head_matters_if_some_task_is_worse_without_each(patients, losses, gain, said):
    entry = pruning_entry(patients.with_tasks("Age", "Grade"), {"training 0": made(losses, gain=gain)}, "small")
    assert entry.id == "C14" and entry.verdict == said and len(entry.lines) == 2 and entry.note.endswith("small")
    assert entry.lines[0].compared == "training 0, layer 0, head 0" and entry.lines[0].mean == pytest.approx(0.2)


def test_tasks_that_were_not_learned_do_not_save_a_head(patients):
    draws = made(TWO | {"layer 0, head 1": [-0.1, 0.05]})
    flat = draws.copy()
    flat[CONSTANT, "Grade", "accuracy"] = flat[FULL, "Grade", "accuracy"]  # where the head is of use
    two = patients.with_tasks("Age", "Grade")
    assert pruning_entry(two, {"a": draws}).verdict == REPRODUCED
    assert pruning_entry(two, {"a": flat}).verdict == NOT_REPRODUCED


def test_a_head_fails_by_intervals_widened_for_all_heads(patients):
    many = {f"layer 0, head {head}": [0.1, 0.1] for head in range(20)}
    shaky = made(many | {"layer 0, head 3": [-0.11, -0.11]}, noise=0.033)
    entry = pruning_entry(patients.with_tasks("Age", "Grade"), {"a": shaky})
    assert "fails only by intervals of 99.75 %" in entry.note
    line = entry.lines[3]
    assert line.mean < 0 and line.verdict == TOO_SMALL


def test_another_training_is_the_scale_of_a_loss():
    draws = [made({}, tasks=("Age",)) for _ in range(3)]
    for each, level in zip(draws, (0.5, 0.6, 0.9), strict=True):
        each.iloc[0, 0] = level
    assert between_trainings(draws, {"Age": "Spearman"})["Age"] == pytest.approx((0.1 + 0.4 + 0.3) / 3)
    with pytest.raises(ValueError, match="two or more"):
        between_trainings(draws[:1], {"Age": "Spearman"})


def test_a_cohort_without_survival_has_no_horizon(patients):
    assert horizon_of(patients.with_tasks("Age")) is None and horizon_of(patients) > 0


# --- arms ---------------------------------------------------------------------------------------------------------


def ring(genes):
    return make_network(pd.DataFrame([(a, b, 900) for a, b in zip(genes, [*genes[1:], genes[0]], strict=True)]))


def test_the_rewired_arm_keeps_each_genes_number_of_edges_among_the_genes():
    genes = [f"G{number}" for number in range(20)]
    found = networks_of(ring([*genes, "outside"]), genes, seed=1)
    assert found[RANDOM] is None and list(found) == [WALKED, RANDOM, REWIRED]
    edges = {arm: make_network(pd.DataFrame(found[arm])) for arm in (WALKED, REWIRED)}
    assert "outside" not in set(edges[WALKED]["gene1"]) | set(edges[WALKED]["gene2"])
    assert degrees(edges[WALKED], genes).equals(degrees(edges[REWIRED], genes))
    assert not edges[WALKED].equals(edges[REWIRED])


def test_genes_without_an_edge_are_no_arm():
    with pytest.raises(CohortError, match="No edge"):
        networks_of(ring(["A", "B", "C"]), ["X", "Y"], seed=0)


def test_arms_are_trained_on_the_same_splits_and_scored_beside_a_constant(patients, tmp_path):
    settings = dict(n_genes=GENES, n_times=4, grid="quantile", width=4, layers=1, heads=1, epochs=1, batch_size=32)
    edges = ring(list(patients.expression.columns))
    table = arm_scores(patients, edges, [0, 1], [0], tmp_path, **settings)
    assert set(table["method"]) == {WALKED, RANDOM, REWIRED, CONSTANT}
    assert not table.duplicated(["method", "data_seed", "model_seed", "task", "measure"]).any()
    parts = split(patients, 1)
    sizes = table.loc[table["data_seed"] == 1, ["n_train", "n_test"]].drop_duplicates().to_numpy().tolist()
    assert sizes == [[len(parts.train), len(parts.test)]]
    share = parts.test.clinical["Grade"].value_counts(normalize=True)
    most = parts.train.clinical["Grade"].value_counts().index[0]
    constant = table.query("method == 'constant' and task == 'Grade' and measure == 'accuracy' and data_seed == 1")
    assert constant["score"].item() == pytest.approx(share[most])
    kept = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert len(kept) == 2 * 3
    again = arm_scores(patients, edges, [0, 1], [0], tmp_path, **settings)
    pd.testing.assert_frame_equal(table, again)


def arms(better, splits=6, noise=0.002, tasks=("Age", "OS")):
    """Return a table of arms: ``better`` {arm: what its scores have more than the constant's}."""
    rng = np.random.default_rng(0)
    rows = [
        (arm, data_seed, 0, task, MEASURES[task], 0.5 + gain + noise * rng.normal(), 70, 20)
        for arm, gain in ({CONSTANT: 0.0} | better).items()
        for data_seed in range(splits)
        for task in tasks
    ]
    names = ["method", "data_seed", "model_seed", "task", "measure", "score", "n_train", "n_test"]
    return pd.DataFrame(rows, columns=names)


GOOD = {WALKED: 0.3, RANDOM: 0.2, REWIRED: 0.1}


def test_gains_are_paired_over_splits_and_corrected():
    table = arms(GOOD, noise=0.05)
    found = arm_gains(table, {"OS": "Uno's C"}).loc[REWIRED, "OS"]
    scores = table[table["task"] == "OS"].pivot(index="data_seed", columns="method", values="score")
    gains = (scores[WALKED] - scores[REWIRED]).to_numpy()
    reach = stats.t.ppf(0.975, 5) * np.sqrt((1 / 6 + 20 / 70) * gains.var(ddof=1))
    np.testing.assert_allclose(
        found[["mean", "low", "high"]], [gains.mean(), gains.mean() - reach, gains.mean() + reach]
    )


@pytest.mark.parametrize(
    "better, own, said",
    [
        (GOOD, True, REPRODUCED),
        (GOOD, False, TOO_SMALL),  # another form decides nothing
        (GOOD | {REWIRED: 0.4}, True, NOT_REPRODUCED),
        (GOOD | {REWIRED: 0.3}, True, NOT_REPRODUCED),  # the same within the margin
        ({WALKED: 0.0, RANDOM: -0.1, REWIRED: -0.1}, True, TOO_SMALL),  # nothing was learned
    ],
)
def test_vectors_are_better_if_they_beat_both_rivals_on_every_task(patients, better, own, said):
    entry = vectors_entry(patients.with_tasks("Age", "OS"), arms(better), own_form=own)
    assert (entry.id, entry.verdict, len(entry.lines), entry.splits) == ("C15", said, 4, 6)
    assert entry.lines[0].compared == f"{WALKED} against {RANDOM}, Age"


def test_one_split_has_no_interval(patients):
    assert vectors_entry(patients.with_tasks("Age", "OS"), arms(GOOD, splits=1)).verdict == NOT_ATTEMPTED


# --- genes --------------------------------------------------------------------------------------------------------


def perturbed(effects, seeds=3, n=20, noise=1e-4, genes=40, endpoint="OS"):
    """Return networks that answer a risk: ``effects`` {gene: change when up}; down is opposite, others are small."""
    names = tuple([*effects, *(f"G{number}" for number in range(genes - len(effects)))])
    found = {}
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        up = np.append(list(effects.values()), 0.001 * np.random.default_rng(99).normal(size=genes - len(effects)))
        change = np.stack([-up, up])[:, :, None] + noise * rng.normal(size=(2, genes, n))
        key, rows = (endpoint, "risk"), pd.RangeIndex(n)
        found[seed] = Perturbed(names, (-0.5, 0.5), rows, {key: np.zeros(n)}, {key: change}, change, {key: 1e-5})
    return found


def test_means_are_over_patients_by_training_and_gene():
    networks = perturbed({"CCL19": -0.1})
    found = mean_changes(networks, ("OS", "risk"), 0.5)
    assert found.shape == (3, 40) and found.columns[0] == "CCL19"
    assert found.loc[2, "CCL19"] == networks[2].change["OS", "risk"][1, 0].mean()
    with pytest.raises(ValueError, match="were not moved by"):
        mean_changes(networks, ("OS", "risk"), 0.25)


def test_trainings_are_the_replicates():
    changes = np.array([[1.0, 2.0, 3.0], [3.0, 4.0, 5.0]])  # trainings differ by 2, patients by 1
    variance = np.var([2, 4], ddof=1) / 2 + np.var([2, 3, 4], ddof=1) / 3
    reach = stats.t.ppf(0.975, 1) * np.sqrt(variance)
    np.testing.assert_allclose(over_seeds(changes), [3, 3 - reach, 3 + reach])
    for few in (changes[:1], changes[:, :1]):
        with pytest.raises(ValueError, match="no spread"):
            over_seeds(few)


@given(st.integers(2, 6), st.integers(2, 30), st.floats(0.001, 1000), st.integers(0, 99))
def test_the_interval_holds_the_mean_and_has_the_unit_of_the_changes(seeds, n, factor, seed):
    changes = np.random.default_rng(seed).normal(size=(seeds, n))
    mean, low, high = over_seeds(changes)
    assert low < mean < high and mean == pytest.approx(changes.mean())
    np.testing.assert_allclose(over_seeds(factor * changes), factor * np.array([mean, low, high]))


def test_the_interval_covers_where_trainings_and_patients_are_drawn():
    rng, inside = np.random.default_rng(0), 0
    for _ in range(400):
        changes = rng.normal(size=(4, 1)) + rng.normal(size=(1, 15)) + 0.1 * rng.normal(size=(4, 15))
        _, low, high = over_seeds(changes)
        inside += low <= 0 <= high
    assert inside >= 0.93 * 400


def test_a_gene_is_moved_its_own_way_and_placed_among_all_genes():
    networks = perturbed({"CCL19": -0.1, "SERPINB5": -0.05})
    up = moved_gene(networks, "OS", "CCL19", WANTED["CCL19"])
    assert up["mean"] == pytest.approx(0.1, abs=1e-3) and up["low"] > 0 and up["by"] == 0.5
    assert up["place"] == 1 / 40 and up["opposite"] == 1
    down = moved_gene(networks, "OS", "SERPINB5", WANTED["SERPINB5"])  # less of it raises the risk here
    assert down["mean"] == pytest.approx(0.05, abs=1e-3) and down["by"] == -0.5 and down["place"] == 2 / 40
    assert 0 < up["median"] < 0.01


ONE = {"CCL19": WANTED["CCL19"]}


@pytest.mark.parametrize(
    "effect, is_learned, said",
    [
        (-0.1, True, REPRODUCED),
        (0.1, True, NOT_REPRODUCED),
        (-0.1, False, TOO_SMALL),
        (0.1, False, TOO_SMALL),
        (0.0, True, NOT_REPRODUCED),  # within what moving any gene does
    ],
)
def test_a_named_gene_decides_by_direction(patients, effect, is_learned, said):
    entry = risk_entry(patients, perturbed({"CCL19": effect}, noise=1e-5), is_learned, wanted=ONE)
    assert (entry.id, entry.verdict) == ("C16", said)
    assert [line.compared for line in entry.lines] == ["CCL19 up lowers the risk"]


def test_a_gene_that_goes_no_further_than_others_decides_nothing(patients):
    others = {f"BIG{number}": -0.2 for number in range(10)}
    entry = risk_entry(patients, perturbed({"CCL19": -0.1} | others, noise=1e-5), True, wanted=ONE)
    assert entry.lines[0].low > 0 and entry.verdict == TOO_SMALL


def test_genes_of_another_endpoint_are_left_out_and_the_claim_is_then_partial(patients):
    networks = perturbed({"CCL19": -0.1, "SERPINB5": -0.05, "FABP4": -0.04})
    entry = risk_entry(patients, networks, True)
    assert len(entry.lines) == 1 and entry.verdict == TOO_SMALL and "without SERPINB5, FABP4" in entry.note
    task = Task("DRFi", "survival", patients.survival_task.columns)
    other = replace(patients, tasks=(*patients.tasks[:2], task))
    found = risk_entry(other, perturbed({"CCL19": -0.1, "SERPINB5": -0.05}, endpoint="DRFi"), True)
    assert [line.compared for line in found.lines] == ["CCL19 up lowers the risk", "SERPINB5 down raises the risk"]


def test_what_cannot_be_asked_is_not_attempted(patients):
    entry = risk_entry(patients, perturbed({}), True)
    assert entry.verdict == NOT_ATTEMPTED and "CCL19" in entry.note
    assert "no survival" in risk_entry(patients.with_tasks("Age"), {}, True).note
    assert "no network" in risk_entry(patients, {}, True).note


def test_a_claim_is_written_out():
    assert named("X", Wanted(-1, 1, ())) == "X down raises the risk"
