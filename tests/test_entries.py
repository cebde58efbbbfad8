"""Entries of the ledger from a benchmark's table: which claims, by which comparisons, and what is said without any."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from txtlib.catalogue import PUBLISHED, TXT
from txtlib.cohort import Task
from txtlib.entries import FEW, MANY, RIVALS, benchmark_entries, cluster_entry, kept_entries
from txtlib.frozen import Frozen
from txtlib.ledger import NOT_ATTEMPTED, NOT_COMPARABLE, NOT_REPRODUCED, REPRODUCED, TOO_SMALL, published_rows

MAIN = {"survival": "Uno's C", "classification": "accuracy", "regression": "Spearman"}
MEASURES = {
    "survival": ("Uno's C", "Harrell's C", "integrated Brier score"),
    "classification": ("accuracy", "macro F1"),
    "regression": ("Spearman", "mean absolute error"),
}
N_TRAIN, N_TEST = 42, 12


@pytest.fixture
def patients(build):
    """A cohort of 60 patients with the tasks Age, NHG and OS, known by this name."""

    def named(name="SMALL", endpoint="OS", tasks=("Age", "NHG", "OS")):
        cohort = build()
        clinical = cohort.clinical.rename(columns={"Grade": "NHG"}).assign(PAM50="LumA", Size=20.0)
        known = {
            "Age": Task("Age", "regression", ("Age",)),
            "Size": Task("Size", "regression", ("Size",)),
            "NHG": Task("NHG", "classification", ("NHG",)),
            "PAM50": Task("PAM50", "classification", ("PAM50",)),
            "OS": Task(endpoint, "survival", ("OS_duration", "OS_event")),
        }
        found = tuple(known[task] for task in tasks)
        return replace(cohort, clinical=clinical, tasks=found, about={"name": name})

    return named


def table_of(cohort, better, splits=6, noise=0.01, seed=0):
    """Return a benchmark's table, all tasks and measures: ``better`` {method: what its scores have more than 0.5}."""
    generator = np.random.default_rng(seed)
    rows = [
        (method, data_seed, model_seed, task.name, measure, 0.5 + gain + noise * generator.normal())
        for method, gain in better.items()
        for data_seed in range(splits)
        for model_seed in range(2)
        for task in cohort.tasks
        for measure in MEASURES[task.kind]
    ]
    columns = ["method", "data_seed", "model_seed", "task", "measure", "score"]
    return pd.DataFrame(rows, columns=columns).assign(n_train=N_TRAIN, n_test=N_TEST)


def of(entries, id):
    (found,) = [entry for entry in entries if entry.id == id]
    return found


def by_hand(differences, level=0.95):
    """Return mean, low and high of differences (k,), Nadeau and Bengio's t, written out."""
    k = len(differences)
    scale = np.sqrt((1 / k + N_TEST / N_TRAIN) * np.var(differences, ddof=1))
    reach = stats.t.ppf(1 - (1 - level) / 2, k - 1) * scale
    return [np.mean(differences), np.mean(differences) - reach, np.mean(differences) + reach]


def split_means(table, method, task, measure):
    rows = table[(table["method"] == method) & (table["task"] == task) & (table["measure"] == measure)]
    return np.array([rows.loc[rows["data_seed"] == k, "score"].mean() for k in sorted(rows["data_seed"].unique())])


def numbers(line):
    return [line.mean, line.low, line.high]


ALL = {TXT: 0.2, MANY: 0.25} | dict.fromkeys(RIVALS, 0.1)


# --- C1 -----------------------------------------------------------------------------------------------------------


WHOLE = ("Age", "Size", "NHG", "PAM50", "OS")  # the tasks of the article's Table 1


def test_c1_compares_txt_with_every_rival_on_every_task(patients):
    cohort = patients(tasks=WHOLE)
    table = table_of(cohort, ALL | {"SVM, mine": 0.9, "constant": 0.0})
    entry = of(benchmark_entries(cohort, table, MAIN), "C1")
    assert len(RIVALS) == 8 and MANY not in RIVALS and entry.verdict == REPRODUCED and "without" not in entry.note
    wanted = [(rival, task.name, MAIN[task.kind]) for rival in RIVALS for task in cohort.tasks]
    assert [line.compared for line in entry.lines] == [", ".join(one) for one in wanted]
    for line, (rival, *pair) in zip(entry.lines, wanted, strict=True):
        differences = split_means(table, TXT, *pair) - split_means(table, rival, *pair)
        np.testing.assert_allclose(numbers(line), by_hand(differences))
    assert (entry.cohort, entry.patients, entry.splits) == ("SMALL", 60, 6)
    assert entry.events == int(np.nansum(cohort.outcome()[1]))


def test_c1_holds_by_plain_intervals_and_fails_by_widened_ones(patients):
    cohort, seen = patients(tasks=WHOLE), set()
    for noise in np.geomspace(0.01, 0.3, 12):
        table = table_of(cohort, ALL | {"SVM": 0.3}, noise=noise)
        entry = of(benchmark_entries(cohort, table, MAIN), "C1")
        assert "fails only by intervals of 99.88 %" in entry.note  # of 40
        for line in entry.lines:
            pair = line.compared.split(", ", 2)
            rival, task, measure = pair if pair[0] != "OmiEmbed" else line.compared.rsplit(", ", 2)
            gains = split_means(table, TXT, task, measure) - split_means(table, rival, task, measure)
            (_, low, high), (_, *wide) = by_hand(gains), by_hand(gains, 1 - 0.05 / 40)
            inside = low <= 0 <= high and max(-wide[0], wide[1]) <= 0.02
            said = REPRODUCED if low > 0 else NOT_REPRODUCED if wide[1] < 0 or inside else TOO_SMALL
            assert line.verdict == said
            seen.add((said, high < 0))
    assert (TOO_SMALL, True) in seen  # a plain interval below 0 whose widened one is not: it does not refute


def test_c1_is_never_reproduced_while_rivals_or_tasks_are_missing(patients):
    cohort = patients()
    table = table_of(cohort, {TXT: 0.2, "SVM": 0.1, "MLP": 0.1})
    table = table[(table["method"] != "MLP") | (table["task"] == "OS")]
    entry = of(benchmark_entries(cohort, table, MAIN), "C1")
    assert [line.compared for line in entry.lines] == [
        "SVM, Age, Spearman",
        "SVM, NHG, accuracy",
        "SVM, OS, Uno's C",
        "MLP, OS, Uno's C",
    ]
    assert {line.verdict for line in entry.lines} == {REPRODUCED} and entry.verdict == TOO_SMALL
    for absent in ("random forest", "T-GEM", "PAM50", "Size", "MLP on Age", "MLP on NHG"):
        assert absent in entry.note


def test_c6_is_c1_on_whole_clusters(patients):
    cohort = patients(tasks=WHOLE)
    table = table_of(cohort, ALL)
    c1, c6 = of(benchmark_entries(cohort, table, MAIN, "small"), "C1"), cluster_entry(cohort, table, MAIN, "small")
    assert c6.id == "C6" and (c6.lines, c6.note, c6.splits) == (c1.lines, c1.note, c1.splits)


def test_a_txt_that_has_not_left_its_plateau_decides_nothing(patients):
    cohort = patients(tasks=WHOLE)
    table = table_of(cohort, ALL | {"SVM": 0.4, "constant": 0.0})
    flat = (table["method"] == TXT) & (table["task"] == "Age")
    table.loc[flat, "score"] = 0.5 + 0.001 * np.random.default_rng(1).normal(size=flat.sum())
    entry = of(benchmark_entries(cohort, table, MAIN), "C1")
    said = {line.compared: line.verdict for line in entry.lines}
    assert said["SVM, Age, Spearman"] == TOO_SMALL and said["SVM, OS, Uno's C"] == NOT_REPRODUCED
    assert "not shown to be better than a constant: Age" in entry.note and entry.verdict == NOT_REPRODUCED
    alone = of(benchmark_entries(cohort, table[table["method"] != "constant"], MAIN), "C1")
    assert {line.compared: line.verdict for line in alone.lines}["SVM, Age, Spearman"] == NOT_REPRODUCED


def test_one_rival_that_is_better_refutes_c1(patients):
    cohort = patients()
    found = benchmark_entries(cohort, table_of(cohort, ALL | {"SVM": 0.4}), MAIN)
    assert of(found, "C1").verdict == NOT_REPRODUCED and "3 not reproduced" in of(found, "C1").note
    wide = benchmark_entries(cohort, table_of(cohort, ALL, noise=1.0), MAIN)
    assert of(wide, "C1").verdict == TOO_SMALL


def test_failed_cells_and_scores_without_a_value_are_left_out(patients):
    cohort = patients()
    table = table_of(cohort, {TXT: 0.2, "SVM": 0.1, "MLP": 0.1, "T-GEM": 0.1}, splits=5)
    table.loc[(table["method"] == "SVM") & (table["data_seed"] == 2), "score"] = np.nan
    failed = table["method"] == "MLP"  # as a failed cell is written
    table.loc[failed, ["task", "measure", "score"]] = None
    table = table.drop_duplicates(["method", "data_seed", "model_seed", "task", "measure"])
    table.loc[(table["method"] == "T-GEM") & (table["data_seed"] > 0), "score"] = np.nan  # one split: no interval
    entry = of(benchmark_entries(cohort, table, MAIN), "C1")
    named = [", ".join(line.compared.split(", ")[:2]) for line in entry.lines]
    assert named == ["SVM, Age", "SVM, NHG", "SVM, OS"]
    kept = table[table["data_seed"] != 2]
    differences = split_means(kept, TXT, "OS", "Uno's C") - split_means(kept, "SVM", "OS", "Uno's C")
    np.testing.assert_allclose(numbers(entry.lines[2]), by_hand(differences))


def test_leukaemia_speaks_to_c4_and_its_own_number(patients):
    cohort = patients("TARGET-AML", tasks=("Age", "OS"))
    found = benchmark_entries(cohort, table_of(cohort, {TXT: 0.0, MANY: 0.1}), MAIN)
    assert {"C1", "C4", "S8-MTL-TxT-OS-c_index"} == {entry.id for entry in found}
    assert of(found, "C4").verdict == REPRODUCED


def test_rivals_that_did_not_run_are_named(patients):
    cohort = patients()
    entry = of(benchmark_entries(cohort, table_of(cohort, {TXT: 0.2, "SVM": 0.1}), MAIN, "small"), "C1")
    assert "without random forest, MLP" in entry.note and entry.note.endswith("small")


@pytest.mark.parametrize("better", [{TXT: 0.2, "ridge": 0.1}, {"SVM": 0.2, "MLP": 0.1}, {MANY: 0.1}])
def test_without_txt_or_any_rival_c1_is_not_attempted(patients, better):
    cohort = patients()
    entry = of(benchmark_entries(cohort, table_of(cohort, better), MAIN), "C1")
    assert entry.verdict == NOT_ATTEMPTED and "no task in common" in entry.note


# --- C2 and C3 ----------------------------------------------------------------------------------------------------


def test_c2_is_judged_by_harrells_c_on_overall_survival(patients):
    cohort = patients()
    table = table_of(cohort, ALL)
    entries = benchmark_entries(cohort, table, MAIN)
    entry = of(entries, "C2")
    differences = split_means(table, MANY, "OS", "Harrell's C") - split_means(table, TXT, "OS", "Harrell's C")
    (line,) = entry.lines
    np.testing.assert_allclose(numbers(line), by_hand(differences))  # one comparison: not widened
    assert line.compared == "TxT on all tasks against one, OS, Harrell's C" and entry.verdict == REPRODUCED
    assert "C3" not in {entry.id for entry in entries}


@pytest.mark.parametrize("endpoint", ["DM", "DRFi"])
def test_distant_recurrence_speaks_to_c3_and_not_to_c2(patients, endpoint):
    cohort = patients(endpoint=endpoint)
    entries = benchmark_entries(cohort, table_of(cohort, {TXT: 0.3, MANY: 0.1, "SVM": 0.1}), MAIN)
    assert of(entries, "C3").verdict == NOT_REPRODUCED and endpoint in of(entries, "C3").lines[0].compared
    assert of(entries, "C2").verdict == NOT_ATTEMPTED
    assert of(entries, "C2").note == f"this cohort's endpoint is {endpoint}, and the claim's is overall survival"


@pytest.mark.parametrize("endpoint, tasks", [("PFI", ("Age", "OS")), ("none", ("Age", "NHG"))])
def test_another_endpoint_or_none_speaks_to_neither(patients, endpoint, tasks):
    cohort = patients(endpoint=endpoint, tasks=tasks)
    entries = benchmark_entries(cohort, table_of(cohort, ALL), MAIN)
    assert {entry.id for entry in entries if entry.id.startswith("C")} == {"C1", "C2"}
    assert of(entries, "C2").verdict == NOT_ATTEMPTED and f"endpoint is {endpoint}" in of(entries, "C2").note
    assert of(entries, "C1").events == (None if endpoint == "none" else int(np.nansum(cohort.outcome()[1])))


def test_two_arms_that_have_both_not_learned_survival_say_nothing_of_many_tasks(patients):
    cohort = patients()
    table = table_of(cohort, {TXT: 0.0, MANY: 0.0, "constant": 0.0}, noise=0.001)
    entry = of(benchmark_entries(cohort, table, MAIN), "C2")
    assert entry.verdict == TOO_SMALL and "not shown to be better than a constant: OS" in entry.note
    learned = of(
        benchmark_entries(cohort, table_of(cohort, {TXT: 0.1, MANY: 0.1, "constant": 0.0}, noise=0.001), MAIN), "C2"
    )
    assert learned.verdict == NOT_REPRODUCED and "constant" not in learned.note


@pytest.mark.parametrize(
    "tasks, better",
    [(("OS",), ALL), (("Age", "OS"), {TXT: 0.2, "SVM": 0.1}), (("Age", "OS"), {MANY: 0.2, "SVM": 0.1})],
)
def test_one_task_or_one_arm_is_no_test_of_many_tasks(patients, tasks, better):
    cohort = patients(tasks=tasks)
    entry = of(benchmark_entries(cohort, table_of(cohort, better), MAIN), "C2")
    assert entry.verdict == NOT_ATTEMPTED
    assert entry.note == "TxT did not learn OS both alone and among other tasks here"


def test_an_arm_that_failed_on_all_splits_is_no_test_either(patients):
    cohort = patients()
    table = table_of(cohort, ALL)
    table.loc[table["method"] == MANY, ["task", "measure", "score"]] = None
    table = table.drop_duplicates(["method", "data_seed", "model_seed", "task", "measure"])
    assert "both alone and among" in of(benchmark_entries(cohort, table, MAIN), "C2").note


# --- C5 -----------------------------------------------------------------------------------------------------------

FORMS = {name: 0.9 for name in ("TxT, all tasks", "TxT, fourier", "TxT on permuted labels", "TxT, as published")}
CONTROLS = {name: 0.9 for name in ("CNN on permuted pixels", "DeepGene, shuffled genes")}


def test_c5_is_asked_on_tcga_only_against_all_methods_that_are_no_form_of_txt_and_no_control(patients):
    cohort = patients("TCGA-BRCA, 956 patients", tasks=("Age", "PAM50", "OS"))
    others = {"SVM": 0.1, "nearest centroid": 0.1, "constant": 0.0}
    table = table_of(cohort, {TXT: 0.2} | others | FORMS | CONTROLS)
    (entry,) = benchmark_entries(cohort, table, MAIN)
    assert entry.id == "C5" and entry.verdict == TOO_SMALL and "without random forest" in entry.note
    assert [line.compared for line in entry.lines] == [f"{name}, PAM50, accuracy" for name in others]
    gains = split_means(table, TXT, "PAM50", "accuracy") - split_means(table, "nearest centroid", "PAM50", "accuracy")
    np.testing.assert_allclose(numbers(entry.lines[1]), by_hand(gains))
    whole = table_of(cohort, ALL | others | FORMS | CONTROLS)
    assert benchmark_entries(cohort, whole, MAIN)[0].verdict == REPRODUCED
    elsewhere = benchmark_entries(replace(cohort, about={"name": "METABRIC"}), table, MAIN)
    assert "C5" not in {entry.id for entry in elsewhere} and of(elsewhere, "C1")


def test_c5_without_pam50_is_not_attempted(patients):
    cohort = patients("TCGA-BRCA, 956 patients")
    (entry,) = benchmark_entries(cohort, table_of(cohort, ALL), MAIN)
    assert (entry.id, entry.verdict) == ("C5", NOT_ATTEMPTED) and "no PAM50 in common here" in entry.note
    with_it = patients("TCGA-BRCA, 956 patients", tasks=("PAM50", "OS"))
    (entry,) = benchmark_entries(with_it, table_of(with_it, {TXT: 0.2} | FORMS), MAIN)  # nobody to be better than
    assert entry.verdict == NOT_ATTEMPTED


# --- published numbers --------------------------------------------------------------------------------------------


def test_each_published_number_of_a_task_and_method_that_ran_is_entered_with_our_interval(patients):
    cohort = patients()
    table = table_of(cohort, {TXT: 0.2, "SVM": 0.1, "OmiEmbed, all tasks": 0.1, "ridge": 0.1})
    entries = [entry for entry in benchmark_entries(cohort, table, MAIN) if entry.id.startswith("T1")]
    arms = {PUBLISHED[name] for name in (TXT, "SVM", "OmiEmbed, all tasks")}
    ran = {
        id: row
        for id, row in published_rows().items()
        if row["item"] == "Table 1" and (row["method"], row["setting"]) in arms and row["task"] in ("Age", "NHG", "OS")
    }
    assert [entry.id for entry in entries] == list(ran) and len(ran) == 17  # the article has no Brier score of the SVM
    assert {entry.verdict for entry in entries} == {NOT_COMPARABLE}
    measures = {
        "T1-STL-TxT-OS-c_index": (TXT, "OS", "Harrell's C"),
        "T1-STL-SVM-Age-mae_years": ("SVM", "Age", "mean absolute error"),
    }
    for id, place in measures.items():
        (line,) = of(entries, id).lines
        np.testing.assert_allclose(numbers(line), by_hand(split_means(table, *place)))
        assert line.compared == f"published {ran[id]['value']}"


def test_a_number_whose_task_is_not_the_cohorts_or_that_has_one_split_is_left_out(patients):
    cohort = patients()
    table = table_of(cohort, {TXT: 0.2, "SVM": 0.1})
    table.loc[(table["method"] == "SVM") & (table["data_seed"] > 0) & (table["measure"] == "Spearman"), "score"] = (
        np.nan
    )
    ids = {entry.id for entry in benchmark_entries(cohort.with_tasks("Age", "OS"), table, MAIN)}
    assert "T1-STL-TxT-Age-spearman" in ids and "T1-STL-SVM-Age-mae_years" in ids
    assert "T1-STL-SVM-Age-spearman" not in ids and not any("NHG" in id for id in ids)
    table.loc[(table["method"] == TXT) & (table["measure"] == "Harrell's C"), "score"] = 0.5  # no spread, no interval
    entries = benchmark_entries(cohort.with_tasks("Age", "OS"), table, MAIN)
    assert "T1-STL-TxT-OS-c_index" in ids and "T1-STL-TxT-OS-c_index" not in {entry.id for entry in entries}


# --- one split ----------------------------------------------------------------------------------------------------


def test_one_split_is_entered_as_not_attempted_with_the_reason(patients):
    cohort = patients()
    entries = benchmark_entries(cohort, table_of(cohort, ALL, splits=1), MAIN)
    assert {entry.id: (entry.verdict, entry.note) for entry in entries} == dict.fromkeys(
        ("C1", "C2"), (NOT_ATTEMPTED, FEW)
    )
    tcga = patients("TCGA-BRCA, 956 patients", tasks=("Age", "PAM50"))
    (entry,) = benchmark_entries(tcga, table_of(tcga, ALL, splits=1), MAIN)
    assert (entry.id, entry.note) == ("C5", FEW)


def test_the_order_of_the_rows_does_not_matter(patients):
    cohort = patients()
    table = table_of(cohort, ALL)
    shuffled = benchmark_entries(cohort, table.sample(frac=1, random_state=0), MAIN)
    for one, other in zip(benchmark_entries(cohort, table, MAIN), shuffled, strict=True):
        assert (one.id, one.verdict, one.note) == (other.id, other.verdict, other.note)
        for line, twin in zip(one.lines, other.lines, strict=True):
            np.testing.assert_allclose(numbers(line), numbers(twin))


# --- kept runs ------------------------------------------------------------------------------------------------------


def kept(cohort, table, scheme="random"):
    """Return a frozen run of the cohort with this table of cells."""
    plan = {"shape": {"layers": 2, "width": 8}, "training": {"epochs": 9}, "changes": {}, "n_genes": 50}
    about = {
        "plan": "mine",
        "cohort": {"name": cohort.name, "patients": len(cohort), "events": int(np.nansum(cohort.outcome()[1]))}
        | {"tasks": {task.name: task.kind for task in cohort.tasks}},
        "cells": {"done": 30, "planned": 1200},
        "declared": plan | {"scheme": {"name": scheme}},
    }
    return Frozen(table, table, about, table)


def test_a_kept_run_says_what_a_fresh_one_would_and_that_it_is_kept(patients):
    cohort = patients()
    table = table_of(cohort, ALL)
    found, fresh = kept_entries(kept(cohort, table), MAIN), benchmark_entries(cohort, table, MAIN)
    assert [entry.id for entry in found] == ["C1", "C2"]
    for entry in found:
        twin = of(fresh, entry.id)
        assert (entry.verdict, entry.lines, entry.events) == (twin.verdict, twin.lines, twin.events)
        assert entry.cohort == "SMALL, kept run" and entry.anchor != twin.anchor
        assert "kept run mine, 30 of 1,200 cells; TxT of 2 layer(s), width 8, 50 genes, at most 9 epochs" in entry.note


def test_a_kept_run_of_clusters_speaks_of_c6(patients):
    cohort = patients()
    (entry,) = kept_entries(kept(cohort, table_of(cohort, ALL), "clusters"), MAIN)
    assert entry.id == "C6" and entry.lines == cluster_entry(cohort, table_of(cohort, ALL), MAIN).lines


def test_a_kept_run_that_can_say_nothing_yet_enters_nothing(patients):
    cohort = patients()
    assert kept_entries(kept(cohort, table_of(cohort, ALL, splits=1)), MAIN) == []


def test_a_kept_run_that_is_tested_elsewhere_speaks_of_c7_and_counts_the_patients_there(patients):
    cohort = patients()
    table = table_of(cohort, ALL).assign(n_test=237, events_test=103)
    run = kept(cohort, table)
    run.about["declared"]["elsewhere"] = "there"
    (entry,) = kept_entries(run, MAIN)
    assert (entry.id, entry.patients, entry.events) == ("C7", 237, 103)
    same = table.assign(score=table["score"] - 0.2 * table["method"].eq(TXT))
    (behind,) = kept_entries(replace(run, cells=same), MAIN)
    assert behind.verdict != entry.verdict == REPRODUCED and "the tested patients are the same in all" in entry.note
