import fcntl
import json
import lzma
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from test_benchmark import Counted, Fragile, Moved, trivial, until

from txtlib import benchmark, plans, runs
from txtlib.benchmark import Method
from txtlib.cohort import load_cohort, split
from txtlib.curves import gains_by_size, scores_by_size
from txtlib.frozen import RESULTS, by_task, freeze, frozen, frozen_or_why
from txtlib.plans import PLANS, Plan, read_plan
from txtlib.runs import Run, execute, of_other_code, state
from txtlib.tuning import tune

DECLARED = yaml.safe_load(PLANS.read_text())
QUIET = {"progress": False}
SPACE = {"move": [20.0, 0.0, -20.0]}
REGRESSION = {"kinds": ("regression",)}


class CountedMoved(Moved):
    """Moved, that leaves a file for each fit, named by what it was given."""

    def __init__(self, seed, log, move=0.0):
        super().__init__(seed, move)
        self.log, self.seed = Path(log), seed

    def fit(self, train, validation):
        name = f"{self.seed} {len(train)} {self.move} {','.join(task.name for task in train.tasks)}"
        (self.log / f"{name} {time.monotonic_ns()}").touch()
        return super().fit(train, validation)


def trivial_with(seed, gene_sets):
    """The floor, whatever its settings."""
    return trivial(seed)


class Telling(Counted):
    """Fails with the name of a patient in its sentence."""

    def fit(self, train, validation):
        raise ValueError(f"no good: {train.samples[0]}")


@pytest.fixture(scope="module")
def cohort():
    return load_cohort("gse7390").with_tasks("Age", "Grade", "DM")


@pytest.fixture
def log(tmp_path):
    (tmp_path / "log").mkdir()
    return tmp_path / "log"


@pytest.fixture
def here(monkeypatch):
    """Work in this process: a new one needs seconds to import, and tests/test_benchmark.py has those."""

    @contextmanager
    def open_here(work, shared, *ignored):
        yield lambda items, alone: (work(shared, item) for item in items)

    monkeypatch.setattr(benchmark, "open_workers", open_here)


@pytest.fixture
def made(monkeypatch, cohort, tmp_path, here):
    """Return a function that makes a run of methods on the cohort, in one folder."""

    def make(*methods, older=False, runs_folder=tmp_path / "runs", **declared):
        plan = Plan("mine", "gse7390", **{"splits": 2, "model_seeds": 2, "trials": 3, "reference": "floor"} | declared)
        monkeypatch.setattr(runs, "entrants", lambda plan: (cohort, list(methods)))
        return Run(plan, runs_folder, older, tmp_path / "results").read()

    return make


FLOOR = Method("floor", trivial)


def moved(log, name="moved", **fields):
    return Method(name, CountedMoved, {"log": str(log)}, SPACE, joint=False, **REGRESSION, **fields)


def text_of(path):
    """Return the text of a file, compressed or not."""
    return (lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()).decode()


def fits(log, pattern=""):
    return len([path for path in log.iterdir() if re.search(pattern, path.name)])


# --- running and freezing -----------------------------------------------------------------------------------------


def test_a_frozen_run_is_the_summed_up_table_of_a_benchmark(made, cohort, tmp_path, log):
    methods, sizes = [FLOOR, moved(log)], [60, None]
    run = execute(made(*methods, tune="cell", train_sizes=["all", 60]), **QUIET)
    freeze(run, tmp_path)
    found = frozen("mine", tmp_path)
    options = {"trials": 3, "horizon_size": 60, **QUIET}
    parts = [
        benchmark.run(methods, cohort, tmp_path / "own", range(2), range(2), train_size=size, **options)
        for size in sizes
    ]
    table = pd.concat(parts)
    for frame, expected in ((found.scores, scores_by_size(table)), (found.differences, gains_by_size(table, "floor"))):
        pd.testing.assert_frame_equal(frame[expected.columns], expected, rtol=1e-5)
    assert set(found.scores["scheme"]) == {"random"} and set(found.differences["reference"]) == {"floor"}
    assert (found.scores["failed"] == 0).all() and found.scores[["seconds", "peak_mb"]].gt(0).all(axis=None)
    assert found.whole and found.about["cells"] == {"planned": 16, "done": 16, "failed": 0}


def test_the_provenance_says_what_a_table_rests_on(made, cohort, tmp_path):
    run = execute(made(FLOOR, train_sizes=["all", 60]), **QUIET)
    freeze(run, tmp_path)
    about = frozen("mine", tmp_path).about
    assert about["cohort"] == {
        **{"name": cohort.name, "hash": benchmark.content_hash(cohort), "patients": 198, "genes": 76, "events": 51},
        "tasks": {"Age": "regression", "Grade": "classification", "DM": "survival"},
    }
    assert about["code"]["of this code"] == 8 and about["code"]["of other code"] == 0
    assert about["code"]["versions"][0]["txtlib"] == benchmark.__version__
    (session,) = about["sessions"]
    assert session["results"] == 8 and session["machine"]["cores"] > 0 and {"commit", "edited"} <= session.keys()
    assert session["started"] <= session["last result"]
    assert about["repeat"] == "make run NAME=mine && make freeze NAME=mine"
    parts = [split(cohort, seed) for seed in range(2)]
    small, whole = about["parts"]
    assert small["train_size"] == 60 and small["n_train"] == [60, 60] and whole["train_size"] == "all"
    assert whole["n_test"] == [len(parts[0].test), len(parts[1].test)]
    assert about["declared"]["trials"] == 3 and about["methods"] == {"floor": "8 of 8"}


def test_clusters_are_folds_of_a_kept_run(made, tmp_path):
    run = execute(made(FLOOR, scheme={"name": "clusters", "k": 2}, model_seeds=1), **QUIET)
    freeze(run, tmp_path)
    found = frozen("mine", tmp_path)
    assert set(found.scores["scheme"]) == {"clusters"} and found.whole
    assert sum(found.about["parts"][0]["n_test"]) == 198


# --- tuning on the first split ------------------------------------------------------------------------------------


def test_settings_are_chosen_on_the_first_split_and_then_fixed(made, cohort, tmp_path, log):
    run = execute(made(FLOOR, moved(log)), **QUIET)
    train, validation, _ = split(cohort, 0)
    fits_before = fits(log)
    options = [{"move": move} for move in SPACE["move"]]
    parts = train.with_tasks("Age"), validation.with_tasks("Age")
    expected = {"Age": tune(partial(CountedMoved, 0, log), options, *parts, None).chosen}
    assert run.chosen() == {None: {"moved": expected}} and expected["Age"]["move"] == 0.0
    assert fits_before == 3 + 2 * 2  # three trials once, and then one fit in each cell
    assert fits(log, " 0.0 Age") == 2 + 2 * 2  # a trial here, and one of its own in this test
    freeze(run, tmp_path)
    tuning = frozen("mine", tmp_path).about["tuning"]
    assert tuning["chosen"] == {"all": {"moved": expected}} and "first split" in tuning["settings"]


def test_each_training_size_is_tuned_on_its_own(made, log):
    run = execute(made(FLOOR, moved(log), train_sizes=[60, "all"], model_seeds=1), **QUIET)
    assert set(run.chosen()) == {60, None} and len(run.tuning().cells) == 2
    assert fits(log, "^0 60 ") == 3 + 2


def test_a_method_whose_tuning_failed_is_left_out_until_it_works(made, tmp_path, log):
    fragile = Method("fragile", Fragile, {"log": str(log)}, {"name": ["run", "walk"]}, **REGRESSION)
    (log / "broken").touch()
    run = execute(made(FLOOR, fragile), **QUIET)
    assert state(run) == "mine: 0 of 1 tuning, 4 of 8 cells done, 1 failed"
    (log / "broken").unlink()
    assert state(execute(run, **QUIET)) == "mine: 1 of 1 tuning, 8 of 8 cells done, 0 failed"


def test_methods_with_a_fit_for_each_task_may_be_kept_to_some_kinds():
    names = ["constant", "ridge", "nearest centroid", "TxT, one task"]
    _, methods = plans.entrants(Plan("mine", "gse7390", methods=names, kinds=["survival"]))
    assert {method.name: method.kinds for method in methods} == {
        "constant": ("regression", "classification", "survival"),
        "ridge": ("survival",),
        "TxT, one task": ("survival",),
    }


def test_cut_parts_get_epochs_for_as_many_steps_as_the_largest(made, cohort):
    net = Method("net", trivial, {"epochs": 10, "patience": 3})

    def epochs(*sizes, **declared):
        run = made(FLOOR, net, train_sizes=list(sizes), tune="cell", **declared)
        cells = [cell for cell in run.scoring().cells if cell.method.name == "net"]
        return {c.identity.get("train_size"): tuple(c.method.settings.values()) for c in cells}, run

    assert epochs(30, 60, 90, same_steps=True)[0] == {30: (30, 9), 60: (15, 5), 90: (10, 3)}
    assert epochs(30, 60, 90)[0] == dict.fromkeys((30, 60, 90), (10, 3))
    found, run = epochs(50, "all", same_steps=True)
    whole = 0.7 * len(cohort)
    assert found == {50: (np.ceil(10 * whole / 50), np.ceil(3 * whole / 50)), None: (10, 3)}
    assert all(cell.method.settings == {} for cell in run.scoring().cells if cell.method.name == "floor")


def test_a_part_without_the_reference_has_no_differences(made, tmp_path, log):
    freeze(execute(made(moved(log), tune="cell"), **QUIET), tmp_path)
    found = frozen("mine", tmp_path)
    assert len(found.scores) and not len(found.differences)
    assert list(found.differences) == KNOWN["differences"].split()


# --- going on -----------------------------------------------------------------------------------------------------


def test_what_is_done_is_not_done_again(made, log):
    counted = Method("floor", Counted, {"log": str(log)})
    execute(made(counted), **QUIET)
    execute(made(counted), **QUIET)
    assert fits(log) == 4
    assert state(execute(made(counted, splits=3), **QUIET)) == "mine: 6 of 6 cells done, 0 failed"
    assert fits(log) == 6


def test_with_no_time_left_nothing_is_begun(made, log):
    run = execute(made(FLOOR, moved(log)), hours=0, **QUIET)
    assert fits(log) == 0 and state(run) == "mine: 0 of 1 tuning, 0 of 8 cells done, 0 failed"


def test_part_of_a_run_can_be_frozen_and_says_so(made, tmp_path, log):
    execute(made(FLOOR, moved(log), splits=3), **QUIET)
    for path in (tmp_path / "runs" / "mine" / "cells").glob("*.json"):
        identity = json.loads(path.read_text())["identity"]
        if identity["method"] == "moved" and identity["model_seed"] == 1 and "fixed" in identity:
            path.unlink()
    torn = next(path for path in path.parent.glob("*.json") if '"floor"' in path.read_text())
    torn.write_text(torn.read_text()[:99])
    freeze(made(FLOOR, moved(log), splits=3), tmp_path)
    found = frozen("mine", tmp_path)
    assert not found.whole and found.about["cells"] == {"planned": 12, "done": 8, "failed": 0}
    assert found.about["methods"] == {"floor": "5 of 6", "moved": "3 of 6"}
    assert (found.scores.loc[found.scores["method"] == "moved", "seeds"] == 1).all()


def test_nothing_cannot_be_frozen(made, tmp_path):
    with pytest.raises(ValueError, match=r"Nothing of 'mine' is done yet; first: python -m txtlib\.runs mine"):
        freeze(made(FLOOR), tmp_path)


def test_results_of_other_code_are_run_again_or_kept_and_counted(made, tmp_path, log, monkeypatch):
    counted = Method("floor", Counted, {"log": str(log)})
    execute(made(counted), **QUIET)
    source = benchmark._source
    edited = lambda module: source(module) + ("\nx = 1" if module == "txtlib.peers.floors" else "")  # noqa: E731
    monkeypatch.setattr(benchmark, "_source", edited)
    run = made(counted)
    assert state(run) == "mine: 0 of 4 cells done, 0 failed"
    again = "those cells are run again; --older keeps them"
    assert of_other_code(run) == f"mine: 4 results are of other code than this ({again})"
    run = execute(made(counted, splits=3, older=True), **QUIET)
    assert fits(log) == 6 and "4 results are of other code than this (they count)" in of_other_code(run)
    freeze(run, tmp_path)
    code = frozen("mine", tmp_path).about["code"]
    assert (code["of this code"], code["of other code"]) == (2, 4)
    execute(made(counted, splits=3), **QUIET)
    assert fits(log) == 10
    freeze(made(counted, splits=3, older=True), tmp_path)
    assert frozen("mine", tmp_path).about["code"]["of other code"] == 0


def test_two_processes_cannot_be_at_one_run(made, tmp_path):
    run = made(FLOOR)
    run.folder.mkdir(parents=True)
    with (run.folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match=r"Another process is at .*mine; let it finish, or end it"):
            execute(run, **QUIET)
    assert state(execute(run, **QUIET)) == "mine: 4 of 4 cells done, 0 failed"


SCRIPT = """
import sys, time
from pathlib import Path
from txtlib.peers.floors import Trivial

class Waiting(Trivial):
    def __init__(self, seed, log):
        self.log = Path(log)
    def fit(self, train, validation):
        while len(list(self.log.glob("run-*"))) >= int((self.log / "limit").read_text()):
            time.sleep(0.02)
        (self.log / f"run-{time.time_ns()}").touch()
        return super().fit(train, validation)

if __name__ == "__main__":
    from txtlib import runs  # slow to import, and the worker needs it not
    from txtlib.benchmark import Method
    from txtlib.cohort import load_cohort
    from txtlib.plans import Plan

    folder, log = sys.argv[1:]
    runs.RUNS = Path(folder)
    runs.read_plan = lambda name, path: Plan(name, "gse7390", splits=4, model_seeds=1)
    runs.entrants = lambda plan: (load_cohort("gse7390"), [Method("waits", Waiting, {"log": log})])
    runs.obey_signals()
    sys.exit(runs.main(["mine", "--workers", "1"]))
"""


def test_a_run_that_is_ended_goes_on_where_it_was(tmp_path, log):
    (tmp_path / "mine.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "mine.py"), str(tmp_path / "runs"), str(log)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    options = {**streams, "env": {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}}
    cells, kept = tmp_path / "runs" / "mine" / "cells", {}
    for end, least, code in ((signal.SIGKILL, 1, -9), (signal.SIGTERM, 3, 130)):
        (log / "limit").write_text(str(least))
        with subprocess.Popen(command, **options) as process:
            try:
                until(lambda least=least: len(list(cells.glob("*.json"))) >= least)
            finally:
                process.send_signal(end)
            _, errors = process.communicate()
        assert process.returncode == code
        kept |= {path: path.read_bytes() for path in cells.glob("*.json")}
    assert "what is finished is kept. To go on: python -m txtlib.runs mine" in errors
    (log / "limit").write_text("99")
    found = subprocess.run(command, **options)
    assert "mine: 3 of 4 cells done, 0 failed" in found.stdout and "mine: 4 of 4 cells done" in found.stdout
    assert found.returncode == 0 and len(kept) == 3 and kept == {path: path.read_bytes() for path in kept}
    assert len((tmp_path / "runs" / "mine" / "sessions.jsonl").read_text().splitlines()) == 3


# --- nobody's row ---------------------------------------------------------------------------------------------------


def test_no_patient_stands_in_a_frozen_file(made, cohort, tmp_path, log, monkeypatch):
    named = cohort.samples.map(lambda name: f"SECRET{name}")
    hidden = replace(cohort, expression=cohort.expression.set_axis(named), clinical=cohort.clinical.set_axis(named))
    run = made(FLOOR, moved(log), Method("telling", Telling, {"log": str(log)}), train_sizes=[60, "all"])
    monkeypatch.setattr(runs, "entrants", lambda plan: (hidden, run.methods))
    run = execute(Run(run.plan, tmp_path / "other").read(), **QUIET)
    paths = freeze(run, tmp_path / "results")
    records = (tmp_path / "other" / "mine" / "cells").glob("*.json")
    assert any("SECRET" in path.read_text() for path in records)  # the error's sentence names one
    assert not any("SECRET" in text_of(path) for path in paths)
    about = frozen("mine", tmp_path / "results").about
    assert about["errors"] == ["telling: ValueError (8)"] and about["cells"]["failed"] == 8
    for values in hidden.clinical[["DM_duration"]].to_numpy():
        assert not any(f",{values[0]:g}," in path.read_text() for path in paths[:2])


KNOWN = {
    "scores": "method task measure scheme train_size n_train mean low high sd lowest highest splits seeds failed "
    "seconds peak_mb",
    "differences": "method reference task measure scheme train_size n_train mean low high p splits missing",
}


def test_a_frozen_table_has_these_columns_and_a_row_for_each_score(made, tmp_path, log):
    freeze(execute(made(FLOOR, moved(log)), **QUIET), tmp_path)
    found = frozen("mine", tmp_path)
    for name, columns in KNOWN.items():
        assert list(getattr(found, name)) == columns.split()
    assert not found.scores.duplicated(["method", "task", "measure", "train_size"]).any()


# --- cells that the repository keeps ------------------------------------------------------------------------------


def test_a_run_goes_on_elsewhere_from_the_cells_that_are_kept(made, tmp_path, log):
    methods = [FLOOR, moved(log)]
    freeze(execute(made(*methods, splits=1), **QUIET), tmp_path / "results")
    before = fits(log)
    elsewhere = made(*methods, splits=1, runs_folder=tmp_path / "elsewhere")
    assert not elsewhere.tuning().todo and not elsewhere.scoring().todo
    execute(elsewhere, **QUIET)
    assert fits(log) == before
    both = execute(made(*methods, runs_folder=tmp_path / "elsewhere"), **QUIET)
    freeze(both, tmp_path / "both")
    freeze(execute(made(*methods, runs_folder=tmp_path / "alone"), **QUIET), tmp_path / "alone")
    there, alone = (frozen("mine", tmp_path / name) for name in ("both", "alone"))
    pd.testing.assert_frame_equal(there.differences, alone.differences)
    assert there.whole and sum(session["results"] for session in there.about["sessions"]) == 8
    assert there.about["tuning"]["chosen"] == alone.about["tuning"]["chosen"]


def test_the_table_of_kept_cells_is_that_of_the_run(made, tmp_path, log):
    run = execute(made(FLOOR, moved(log)), **QUIET)
    freeze(run, tmp_path)
    found = frozen("mine", tmp_path).cells
    expected = benchmark.table(run.scoring().records.values())
    order = ["cell", "task", "measure"]
    left, right = (one.sort_values(order, ignore_index=True) for one in (found, expected))
    pd.testing.assert_frame_equal(left, right)


def test_kept_cells_name_no_patient_and_are_the_same_bytes_for_the_same_cells(made, cohort, tmp_path):
    run = execute(made(FLOOR, Method("telling", Telling, {"log": str(tmp_path)}), model_seeds=1), **QUIET)
    *_, first = freeze(run, tmp_path / "a")
    *_, second = freeze(run, tmp_path / "b")
    text = text_of(first)
    assert first.read_bytes() == second.read_bytes()
    assert "floor" in text and "telling" not in text and not any(sample in text for sample in cohort.samples)


def test_a_long_setting_is_kept_as_a_hash_and_its_cell_is_found_again(made, tmp_path):
    long = Method("floor", trivial_with, {"gene_sets": {"a set": [f"GENE{n}" for n in range(500)]}})
    *_, path = freeze(execute(made(long), **QUIET), tmp_path / "results")
    assert "GENE499" not in text_of(path)
    assert not made(long, runs_folder=tmp_path / "elsewhere").scoring().todo


def test_kept_cells_of_other_code_count_only_if_they_may(made, tmp_path, monkeypatch):
    freeze(execute(made(FLOOR), **QUIET), tmp_path / "results")
    monkeypatch.setattr(benchmark, "code_hash", lambda factory: "edited")
    assert len(made(FLOOR, runs_folder=tmp_path / "elsewhere").scoring().todo) == 4
    assert not made(FLOOR, older=True, runs_folder=tmp_path / "elsewhere").scoring().todo


def test_a_torn_file_of_kept_cells_is_named(made, tmp_path):
    *_, path = freeze(execute(made(FLOOR), **QUIET), tmp_path / "results")
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"mine_cells\.jsonl\.xz is torn"):
        made(FLOOR)


COMMITTED = sorted(path.stem for path in RESULTS.glob("*.yml"))


@pytest.mark.parametrize("name", COMMITTED or [pytest.param("", marks=pytest.mark.skip(reason="nothing is frozen"))])
def test_what_is_committed_can_be_read_and_holds_aggregates_only(name):
    found = frozen(name)
    assert [set(getattr(found, table)) for table in KNOWN] == [set(columns.split()) for columns in KNOWN.values()]
    assert (found.scores["splits"] >= 1).all() and name in DECLARED


def test_a_score_stands_under_its_own_task_also_where_a_method_answers_few(made, tmp_path, log):
    freeze(execute(made(moved(log), FLOOR), **QUIET), tmp_path)
    main = {"regression": "Spearman", "classification": "accuracy", "survival": "Uno's C"}
    kept = frozen("mine", tmp_path)
    found = by_task(kept, main, lambda mean, low, high: f"{mean:.6g}")
    assert list(found.index) == ["moved", "floor"]
    assert list(found.columns) == ["Age, Spearman", "Grade, accuracy", "DM, Uno's C"]
    for (method, column), text in found.stack().items():
        wanted = [method, *column.split(", ")]
        rows = kept.scores[(kept.scores[["method", "task", "measure"]] == wanted).all(axis=1)]
        assert text == ("" if rows.empty else f"{rows['mean'].item():.6g}")
    assert (found.loc["moved"] == "").any()


def test_a_page_is_told_how_far_a_run_is_or_how_to_make_it(made, tmp_path):
    assert frozen_or_why(tmp_path / "mine.yml") == (
        None,
        "mine is not frozen yet (make run NAME=mine, then make freeze NAME=mine)",
    )
    freeze(execute(made(FLOOR), **QUIET), tmp_path)
    kept, words = frozen_or_why(tmp_path / "mine.yml")
    assert kept.whole and words == "mine has 4 of 4 cells"
    freeze(execute(made(FLOOR, Method("telling", Telling, {"log": str(tmp_path)})), **QUIET), tmp_path)
    assert frozen_or_why(tmp_path / "mine.yml")[1].startswith("mine has 4 of 8 cells, so that its numbers")


def test_what_is_not_frozen_is_named_with_the_way_to_make_it(tmp_path):
    (tmp_path / "other.yml").touch()
    with pytest.raises(FileNotFoundError, match=r"No frozen run 'mine' .*there: other.*txtlib.runs mine --freeze"):
        frozen("mine", tmp_path)


# --- plans ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DECLARED)
def test_a_declared_plan_can_be_run(name, monkeypatch, cohort):
    plan = read_plan(name)
    there = {plan.elsewhere: "planted_site2", plan.cohort: "planted"}
    monkeypatch.setattr(plans, "load_cohort", lambda name: load_cohort(there[name]))
    monkeypatch.setattr(plans, "sets_named", lambda name: {"a set": ["X"]})
    plan = replace(plan, world=plan.world and plan.world | {"n": 300}, tasks=[])
    _, methods = plans.entrants(plan)
    assert len({method.name for method in methods}) == len(methods) >= 7
    assert plan.reference in [method.name for method in methods]
    assert plan.horizon_size == (min(plan.train_sizes) if "all" not in plan.train_sizes else plan.sizes[0])
    assert json.loads(json.dumps(plan.declared())) == plan.declared()


@pytest.mark.parametrize("name", DECLARED)
def test_a_declared_plan_fits_its_cohort(name, monkeypatch, data_folder):
    monkeypatch.setenv("TXT_DATA", str(data_folder))
    plan = read_plan(name)
    folder = data_folder / plan.cohort
    tasks = pd.read_csv(folder / "tasks.csv")["name"].str.removesuffix("_duration") if folder.is_dir() else plan.tasks
    assert set(plan.tasks) <= set(tasks)
    assert (folder.is_dir() or plan.cohort == "planted") and len(plan.tasks) > 1


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("mine: {cohort: gse7390}", "No plan 'yours' in .*it declares mine"),
        ("yours: {cohort: gse7390, epochs: 3}", "does not know 'epochs'; a plan has cohort, about, world"),
        ("yours: {tasks: [OS]}", "lacks a cohort"),
        ("yours: {cohort: gse7390, tune: never}", "Plan 'yours': tune is one of first, cell"),
        ("yours: {cohort: gse7390, splits: 0}", "splits, model_seeds and trials are 1 or more"),
        ("yours: {cohort: gse7390, train_sizes: [0]}", "train_sizes are numbers from 1 up, or all, each once"),
        ("yours: {cohort: gse7390, train_sizes: [9, 9]}", "train_sizes are numbers"),
        ("yours: {cohort: gse7390, kinds: [ranking]}", "kinds are some of regression, classification, survival"),
        ("yours: {cohort: gse7390, world: {n: 9}}", "world is for the cohort planted"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(text, sentence, tmp_path):
    (tmp_path / "plans.yml").write_text(text)
    with pytest.raises(ValueError, match=sentence):
        read_plan("yours", tmp_path / "plans.yml")


def test_a_plan_with_a_method_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="Plan 'mine': no method is called 'SMV'; there are constant, random"):
        plans.entrants(Plan("mine", "gse7390", methods=["SMV"]))


def test_a_plan_is_what_its_methods_are_made_of():
    plan = Plan("mine", "gse7390", tasks=["DM"], methods=["constant", "ridge"], log_offset=0.5, n_genes=7)
    cohort, methods = plans.entrants(plan)
    assert [method.name for method in methods] == ["constant", "ridge"] and methods[1].settings["n_genes"] == 7
    assert [task.name for task in cohort.tasks] == ["DM"]
    raw = load_cohort("gse7390").expression
    np.testing.assert_allclose(cohort.expression, np.log2((2.0**raw - 0.5).clip(lower=0) + 1), rtol=1e-5)


# --- the command ----------------------------------------------------------------------------------------------------


def test_the_command_runs_freezes_and_says_what_is_wrong(made, monkeypatch, tmp_path, capsys):
    made(FLOOR)
    monkeypatch.setattr(runs, "read_plan", lambda name, path: Plan(name, "gse7390", splits=2, reference="floor"))
    monkeypatch.setattr(runs, "RUNS", tmp_path / "runs")
    monkeypatch.setattr("txtlib.frozen.RESULTS", tmp_path / "results")
    assert runs.main(["mine", "--freeze"]) == 2 and "Nothing of 'mine' is done yet" in capsys.readouterr().err
    assert runs.main(["mine"]) == 0 and "mine: 6 of 6 cells done, 0 failed" in capsys.readouterr().out
    assert runs.main(["mine", "--freeze"]) == 0 and frozen("mine", tmp_path / "results").whole
    monkeypatch.undo()
    assert runs.main(["nothing"]) == 2
    assert "txtlib.runs: No plan 'nothing'" in capsys.readouterr().err


def test_the_command_says_what_failed(made, monkeypatch, tmp_path, capsys, log):
    made(FLOOR, Method("telling", Telling, {"log": str(log)}))
    monkeypatch.setattr(runs, "read_plan", lambda name, path: Plan(name, "gse7390", splits=1, model_seeds=1))
    monkeypatch.setattr(runs, "RUNS", tmp_path / "runs")
    assert runs.main(["mine"]) == 1
    assert "failed: telling: ValueError: no good" in capsys.readouterr().err
