import ast
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib import import_module, invalidate_caches
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import numpy as np
import pandas as pd
import pytest

from txtlib import benchmark, workers
from txtlib.benchmark import (
    COLUMNS,
    COST,
    Method,
    code_hash,
    content_hash,
    plan,
    run,
    run_cell,
    run_cells,
    same_but_code,
    training_horizon,
)
from txtlib.bootstrap import CURVE_MEASURES
from txtlib.cohort import CohortError, load_cohort, split
from txtlib.peers.floors import ClinicalCox, Trivial
from txtlib.peers.txt import txt
from txtlib.predictions import Predictions
from txtlib.preprocess import fit_preprocessor
from txtlib.splits import cut, fold_split, folds_from

# --- methods, as a reader would write them --------------------------------------------------------------------


def trivial(seed):
    return Trivial()


def cox(seed, columns):
    return ClinicalCox(*columns)


class SmallTxT:
    def __init__(self, seed, width=8):
        self.seed, self.width = seed, width

    def fit(self, train, validation):
        from txtlib.model import TxT  # here, or torch's second of import is paid in each process of these tests
        from txtlib.training import fit

        preprocessor = fit_preprocessor(train, n_genes=8, n_times=5, grid="quantile")
        sizes = {"width": self.width, "layers": 1, "heads": 2, "readout": "mean"}
        network = TxT(8, preprocessor.outputs, seed=self.seed, **sizes)
        options = {"epochs": 2, "learning_rate": 1e-3, "device": "cpu", "progress": False}
        return fit(network, train, validation, preprocessor, seed=self.seed, **options)


class Counted(Trivial):
    """Leaves a file in ``log`` for each time that it is fitted."""

    def __init__(self, seed, log, name="run"):
        self.log, self.name = Path(log), name

    def fit(self, train, validation):
        (self.log / f"{self.name}-{uuid4()}").touch()
        return super().fit(train, validation)


class Deadly(Counted):
    """Kills its process, the first so many times."""

    def __init__(self, seed, log, name, times):
        super().__init__(seed, log, name)
        self.times = times

    def fit(self, train, validation):
        super().fit(train, validation)
        if runs(self.log, self.name) <= self.times:
            os.kill(os.getpid(), signal.SIGKILL)
        return self


class Fragile(Counted):
    """Fails as long as there is a file ``broken`` in ``log``."""

    def fit(self, train, validation):
        if (self.log / "broken").exists():
            raise ArithmeticError("no convergence,\nafter all")
        return super().fit(train, validation)


class Shuffled(Trivial):
    def __init__(self, seed):
        pass

    def predict(self, cohort):
        return super().predict(cohort.take(cohort.samples[::-1]))


class Silent(Shuffled):
    def predict(self, cohort):
        return Predictions(cohort.samples)


class Leaving(Shuffled):
    def fit(self, train, validation):
        sys.exit("out of licences")


class Ranking(Shuffled):
    def predict(self, cohort):
        return Predictions(cohort.samples, score=np.arange(float(len(cohort))))


METHODS = [
    Method("Kaplan-Meier", trivial),
    Method("age alone", cox, {"columns": ["Age"]}, kinds=("survival",)),
    Method("TxT", SmallTxT),
]


def runs(log, name="run"):
    return len(list(Path(log).glob(f"{name}-*")))


def counted(log, name="run", **settings):
    return Method(name, Counted, {"log": str(log), "name": name, **settings})


@pytest.fixture(scope="module")
def cohort():
    return load_cohort("gse7390")


@pytest.fixture
def log(tmp_path):
    (tmp_path / "log").mkdir()
    return tmp_path / "log"


@pytest.fixture(scope="module")
def cluster():
    dask, distributed = pytest.importorskip("dask"), pytest.importorskip("distributed")
    local_web = {"dashboard_address": "127.0.0.1:0"}  # with None, a second cluster finds port 8787 taken, and warns
    give_up = {"distributed.scheduler.allowed-failures": 0}  # one death is enough, and each costs a new worker
    with (
        dask.config.set(give_up),
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, **local_web) as local,
    ):
        yield local.scheduler_address


# --- the table ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_workers(cohort, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    return folder, run(METHODS, cohort, folder, range(2), range(2), workers=2, threads=1, progress=False)


def assert_same(folder, found, other_folder, other):
    costs = set(COST) - {"error"}
    pd.testing.assert_frame_equal(found.drop(columns=costs), other.drop(columns=costs), check_exact=True)
    for cell in found["cell"].unique():
        answers = (pd.read_parquet(place / f"{cell}.parquet") for place in (folder, other_folder))
        pd.testing.assert_frame_equal(*answers, check_exact=True)


def test_one_worker_gives_the_same_table(cohort, two_workers, tmp_path):
    found = run(METHODS, cohort, tmp_path, range(2), range(2), workers=1, threads=1, progress=False)
    assert_same(tmp_path, found, *two_workers)


def test_a_dask_cluster_gives_the_same_table(cohort, two_workers, tmp_path, cluster):
    found = run(METHODS, cohort, tmp_path, range(2), range(2), cluster=cluster, progress=False)
    assert_same(tmp_path, found, *two_workers)


def test_the_table_is_tidy_and_fits_into_parquet_and_csv(two_workers, tmp_path):
    _, found = two_workers
    assert list(found.columns) == COLUMNS
    assert not found.duplicated(["method", "data_seed", "model_seed", "task", "measure"]).any()
    assert len(found.drop_duplicates(["method", "data_seed", "model_seed"])) == 3 * 2 * 2
    assert found["error"].isna().all()
    assert found.loc[found["measure"] == "Harrell's C", "score"].between(0, 1).all()
    found.to_parquet(tmp_path / "table.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "table.parquet"), found)
    found.to_csv(tmp_path / "table.csv", index=False)
    again = pd.read_csv(tmp_path / "table.csv", float_precision="round_trip")
    pd.testing.assert_series_equal(again["score"], found["score"], check_exact=True)


def test_a_row_says_what_it_rests_on_and_what_it_cost(cohort, two_workers):
    row = two_workers[1].query("method == 'age alone' and data_seed == 1").iloc[0]
    parts = split(cohort, 1)
    for name, part in parts._asdict().items():
        assert row[f"n_{name}"] == len(part) and row[f"events_{name}"] == part.outcome()[1].sum()
    assert row["horizon"] == training_horizon(parts.train)
    assert json.loads(row["settings"]) == {"columns": ["Age"]} and row["cohort_hash"] == content_hash(cohort)
    assert {"python", "torch", "numpy", "scikit-survival", "txtlib"} <= json.loads(row["versions"]).keys()
    assert row["threads"] == 1 and 0 < row["fit_seconds"] < 60 and 0 < row["predict_seconds"] < 60
    assert 50 < row["peak_mb"] < 5000


def test_scores_are_those_of_the_metrics(cohort, two_workers):
    parts = split(cohort, 0)
    answer = ClinicalCox("Age").fit(parts.train).predict(parts.test)
    expected = benchmark.score_draws({"m": answer}, parts.train, parts.test, training_horizon(parts.train), 0)
    found = two_workers[1].query("method == 'age alone' and data_seed == 0 and model_seed == 0")
    assert found.set_index("measure")["score"].to_dict() == expected["m"]["DM"].iloc[0].to_dict()


def test_all_methods_see_the_same_patients_of_a_data_seed(cohort, two_workers):
    folder, found = two_workers
    assert (found.groupby("data_seed")["split_hash"].nunique() == 1).all() and found["split_hash"].nunique() == 2
    for data_seed, cells in found.groupby("data_seed")["cell"]:
        for cell in cells.unique():
            samples = pd.read_parquet(folder / f"{cell}.parquet").index
            assert list(samples) == list(split(cohort, data_seed).test.samples)


def test_data_seed_and_model_seed_are_apart(two_workers):
    scores = two_workers[1].pivot_table("score", ["method", "task", "measure"], ["data_seed", "model_seed"])
    assert scores.loc["age alone"][0, 0].equals(scores.loc["age alone"][0, 1])
    assert not scores.loc["TxT"][0, 0].equals(scores.loc["TxT"][0, 1])
    assert not scores.loc["age alone"][0, 0].equals(scores.loc["age alone"][1, 0])


def test_the_answer_for_each_test_patient_is_kept(cohort, two_workers):
    folder, found = two_workers
    row = found.query("method == 'Kaplan-Meier' and data_seed == 0").iloc[0]
    kept = pd.read_parquet(folder / f"{row['cell']}.parquet")
    parts = split(cohort, 0)
    answer = Trivial().fit(parts.train).predict(parts.test)
    shares = [f"{task}={k}" for task in ("Grade", "ER") for k in answer.probabilities[task]]
    assert list(kept) == ["Age", "Size", *shares, "DM"]
    np.testing.assert_array_equal(kept["DM"], answer.risk(row["horizon"]))
    np.testing.assert_array_equal(kept["Age"], answer.values["Age"])


def test_a_stored_answer_scores_as_the_answer_did(cohort, two_workers):
    folder, found = two_workers
    parts = split(cohort, 0)
    for name in ("Kaplan-Meier", "TxT"):
        rows = found[(found["method"] == name) & (found["data_seed"] == 0) & (found["model_seed"] == 0)]
        kept = benchmark.predictions_of(benchmark.answer_of(folder, rows["cell"].iloc[0]), parts.test)
        again = benchmark.score_draws({"m": kept}, parts.train, parts.test, rows["horizon"].iloc[0], 0)["m"].iloc[0]
        scores = rows.set_index(["task", "measure"])["score"]
        shared = [key for key in again.index if key[1] != "time-dependent AUC"]  # which reads the curves
        assert len(shared) == len(scores) - 1 - len(CURVE_MEASURES)  # and those of curves, which are gone
        pd.testing.assert_series_equal(again[shared].rename("score"), scores[shared], check_names=False)


# --- a finished cell is never run again, and never lost -------------------------------------------------------


def test_what_is_finished_is_not_run_again_and_other_settings_are(cohort, tmp_path, log):
    options = {"folder": tmp_path / "cells", "workers": 1, "progress": False}
    first = run([counted(log)], cohort, data_seeds=range(2), **options)
    again = run([counted(log)], cohort, data_seeds=range(3), **options)
    assert runs(log) == 3  # two, and the one that is new
    pd.testing.assert_frame_equal(again[again["data_seed"] < 2].reset_index(drop=True), first)
    run([Method("run", Counted, {"log": f"{log}/", "name": "run"})], cohort, data_seeds=range(2), **options)
    assert runs(log) == 5
    assert len(list((tmp_path / "cells").iterdir())) == 2 * (3 + 2)  # and nothing else is left there


def deadly(log, name, times):
    return Method(name, Deadly, {"log": str(log), "name": name, "times": times})


def test_a_process_that_dies_takes_one_cell_along(cohort, tmp_path, log):
    methods = [deadly(log, "once", 1), deadly(log, "ever", 9), *(counted(log, name) for name in "abc")]
    found = run(methods, cohort, tmp_path / "cells", data_seeds=[0], workers=2, progress=False)
    failed = found[found["error"].notna()].set_index("method")["error"]
    assert failed.to_dict() == {"ever": "the process died: SIGKILL (often: out of memory)"}
    assert [runs(log, name) for name in ("a", "b", "c", "once", "ever")] == [1, 1, 1, 2, 2]


def test_a_dask_worker_that_dies_takes_one_cell_along(cohort, tmp_path, log, cluster):
    methods = [deadly(log, "ever", 9), *(counted(log, name) for name in "abc")]
    with import_module("distributed").Client(cluster, set_as_default=False) as client:
        found = run(methods, cohort, tmp_path / "cells", data_seeds=[0], cluster=client, progress=False)
        assert client.status == "running"  # the caller's, so not closed
    failed = found[found["error"].notna()].set_index("method")["error"]
    assert list(failed.index) == ["ever"] and failed["ever"].startswith("the process died: KilledWorker")
    assert set(found["method"]) == {"ever", *"abc"} and runs(log, "ever") == 2


SCRIPT = """
import os, signal, sys, time
from pathlib import Path
from txtlib.benchmark import Method, run
from txtlib.peers.floors import Trivial

class Waiting(Trivial):  # a method may also stand in the script itself
    def __init__(self, seed, log):
        self.log = Path(log)
    def fit(self, train, validation):
        while len(list(self.log.glob("run-*"))) >= int((self.log / "limit").read_text()):
            time.sleep(0.02)
        (self.log / f"run-{os.getpid()}-{time.time_ns()}").touch()
        return super().fit(train, validation)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    folder, log, workers = sys.argv[1:]
    found = run([Method("waits", Waiting, {"log": log})], "gse7390", folder, data_seeds=range(6), workers=int(workers))
    print(found["data_seed"].nunique(), found["error"].notna().sum())
"""


def test_a_run_that_is_ended_goes_on_where_it_was(tmp_path, log):
    (tmp_path / "mine.py").write_text(SCRIPT)
    cells, command = tmp_path / "cells", [sys.executable, str(tmp_path / "mine.py"), str(tmp_path / "cells"), str(log)]
    quiet = {"stderr": subprocess.DEVNULL, "env": {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}}
    kept = {}
    for end, least, crew in ((signal.SIGKILL, 2, "2"), (signal.SIGINT, 4, "1")):
        (log / "limit").write_text(str(least))
        with subprocess.Popen([*command, crew], **quiet) as process:
            try:
                until(lambda least=least: len(list(cells.glob("*.json"))) >= least)
            finally:
                process.send_signal(end)
        kept |= {path: path.read_bytes() for path in cells.glob("*.json")}
    (log / "limit").write_text("99")
    found = subprocess.run([*command, "1"], stdout=subprocess.PIPE, text=True, **quiet)
    assert found.stdout.split() == ["6", "0"]
    assert kept == {path: path.read_bytes() for path in kept} and runs(log) == 6


def until(condition, seconds=180.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_failed_cell_is_shown_kept_and_tried_again(cohort, tmp_path, log):
    methods = [Method("fragile", Fragile, {"log": str(log)}), counted(log, "steady")]
    options = {"folder": tmp_path / "cells", "data_seeds": [0], "workers": 1, "progress": False}
    (log / "broken").touch()
    found = run(methods, cohort, **options).set_index("method")
    assert found.loc["fragile", "error"] == "ArithmeticError: no convergence, after all"
    assert found.loc["fragile", "n_test"] == 39 and found.loc["fragile", ["task", "measure", "score"]].isna().all()
    assert found.loc["steady", "error"].isna().all() and found["score"].dtype == float
    record = json.loads((tmp_path / "cells" / f"{found.loc['fragile', 'cell']}.json").read_text())
    assert "Traceback" in record["traceback"] and "raise ArithmeticError" in record["traceback"]
    (log / "broken").unlink()
    assert run(methods, cohort, **options)["error"].isna().all()
    assert runs(log, "steady") == 1


def test_a_torn_cell_is_run_again(cohort, tmp_path, log):
    options = {"folder": tmp_path / "cells", "workers": 1, "progress": False}
    first = run([counted(log)], cohort, data_seeds=range(4), **options)
    torn, other, emptied, whole = (tmp_path / "cells" / f"{cell}.json" for cell in first["cell"].unique())
    torn.write_bytes(torn.read_bytes()[:300])
    other.write_bytes(whole.read_bytes())  # a cell under another's name
    emptied.with_suffix(".parquet").unlink()
    again = run([counted(log)], cohort, data_seeds=range(4), **options)
    pd.testing.assert_series_equal(again["score"], first["score"], check_exact=True)
    assert runs(log) == 4 + 3 and json.loads(torn.read_text())["key"] == torn.stem


# --- what makes a cell ----------------------------------------------------------------------------------------


def keys(cohort, method=METHODS[1], **options):
    return [cell.key for cell in plan([method], cohort, **{"data_seeds": [0], "model_seeds": [0], **options})]


def test_all_that_decides_a_result_makes_another_cell(cohort):
    renamed, other = replace(METHODS[1], name="Age"), replace(METHODS[1], settings={"columns": ["Size"]})
    about_time = cohort.clinical.assign(DM_duration=cohort.clinical["DM_duration"] + 1)
    changed = [
        keys(cohort, renamed),
        keys(cohort, other),
        keys(cohort, data_seeds=[1]),
        keys(cohort, model_seeds=[1]),
        keys(cohort, horizon=1825.0),
        keys(replace(cohort, clinical=about_time)),
        keys(replace(cohort, expression=cohort.expression + 1)),
        keys(cohort.with_tasks("DM")),
        keys(cohort.take(cohort.samples[:-1])),
    ]
    assert len({key for (key,) in [keys(cohort), *changed]}) == 1 + len(changed)
    assert keys(cohort) == keys(load_cohort("gse7390"))


def test_an_edit_of_the_code_makes_another_cell_and_one_of_a_comment_does_not(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    text = 'from txtlib.peers.floors import Trivial\n\n\ndef mine(seed):\n    """Say."""\n    return Trivial()\n'
    (tmp_path / "a_readers_file.py").write_text(text)
    invalidate_caches()
    mine = import_module("a_readers_file").mine
    before = code_hash(mine)
    (tmp_path / "a_readers_file.py").write_text(text.replace("Say.", "Tell.") + "# a comment\n")
    assert code_hash(mine) == before
    (tmp_path / "a_readers_file.py").write_text(text + "x = 1\n")
    assert code_hash(mine) != before


def test_an_edit_of_the_library_counts_where_it_is_imported(monkeypatch):
    before = code_hash(ClinicalCox), code_hash(SmallTxT)
    source = benchmark._source
    edited = lambda module: source(module) + ("\nx = 1" if module == "txtlib.losses" else "")  # noqa: E731
    monkeypatch.setattr(benchmark, "_source", edited)
    assert code_hash(ClinicalCox) == before[0] and code_hash(SmallTxT) != before[1]


def of_file(cohort, **fields):
    (cell,) = plan([Method("m", Named, **fields)], cohort, [0], [0], trials=3)
    return cell


class Named(Trivial):
    def __init__(self, seed, network=None, sets=None):
        pass


def test_the_content_of_a_file_that_a_setting_names_makes_the_cell(cohort, tmp_path, monkeypatch):
    monkeypatch.setenv("TXT_DATA", str(tmp_path / "cohorts"))
    file = tmp_path / "networks" / "mine.csv.gz"
    file.parent.mkdir()
    for fields in (
        {"settings": {"network": str(file)}},
        {"settings": {"network": "mine"}},
        {"space": {"network": [None, "mine"]}},
        {"fixed": {"DM": {"network": "mine"}}},
    ):
        file.write_bytes(b"one")
        before = of_file(cohort, **fields)
        assert of_file(cohort, **fields).key == before.key
        file.write_bytes(b"two")
        after = of_file(cohort, **fields)
        assert after.key != before.key and len(after.identity["files"]) == 1
        assert json.loads(json.dumps(after.identity))["files"] == after.identity["files"]
        file.write_bytes(b"one")
        assert of_file(cohort, **fields).key == before.key  # another time of writing alone is nothing
    file.rename(tmp_path / "networks" / "yours.csv.gz")
    assert (
        of_file(cohort, settings={"network": "yours"}).identity["files"]["yours"] in before.identity["files"].values()
    )


def test_gene_sets_are_files_too_and_of_two_kinds_with_one_name_both_count(cohort, tmp_path, monkeypatch):
    monkeypatch.setenv("TXT_DATA", str(tmp_path / "cohorts"))
    found = set()
    for kind, file in (("genesets", "mine.gmt"), ("networks", "mine.csv")):
        for content in ("one", "two"):
            (tmp_path / kind).mkdir(exist_ok=True)
            (tmp_path / kind / file).write_text(content)
            found.add(of_file(cohort, settings={"sets": "mine"}).key)
    assert len(found) == 4


@pytest.mark.parametrize("value", ["", ".", "no such file", "x" * 5000, "a\0b", "a/b", "/", 3, None, ["mine"]])
def test_what_is_no_file_says_nothing_of_files(value, cohort, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").touch()
    assert "files" not in of_file(cohort, settings={"network": value}).identity


def test_a_file_is_read_once_and_again_when_it_changes(cohort, tmp_path, monkeypatch):
    (tmp_path / "mine").write_text("one")
    read, digest = [], benchmark.hashlib.file_digest
    monkeypatch.setattr(benchmark.hashlib, "file_digest", lambda *given: read.append(given) or digest(*given))
    methods = [Method(name, Named, {"network": str(tmp_path / "mine"), "sets": name}) for name in "ab"]
    for _ in range(2):
        plan(methods, cohort, [0, 1, 2], [0, 1])
    assert len(read) == 1
    (tmp_path / "mine").write_text("other")
    plan(methods, cohort, [0], [0])
    assert len(read) == 2


def test_a_worker_with_another_file_is_found_out(cohort, tmp_path):
    (tmp_path / "mine").write_text("one")
    cell = of_file(cohort, settings={"network": str(tmp_path / "mine")})
    assert run_cell(cohort, cell)[0]["error"] is None
    (tmp_path / "mine").write_text("other")
    record, answer = run_cell(cohort, cell)
    assert "a file that its settings name, is not what it was" in record["error"] and answer is None


@pytest.mark.parametrize(
    "line", ["import txtlib.peers.floors", "from txtlib.peers import floors", "from txtlib.peers.floors import Trivial"]
)
def test_each_way_to_import_is_followed(line):
    assert "txtlib.peers.floors" in set(benchmark._imports(ast.parse(line)))


def test_a_worker_with_other_code_is_found_out(cohort):
    (cell,) = plan(METHODS[:1], cohort, [0], [0])
    record, answer = run_cell(cohort, replace(cell, identity={**cell.identity, "code": "other"}))
    assert "bring all workers to one version" in record["error"] and answer is None


# --- one cell -------------------------------------------------------------------------------------------------


def one(factory, cohort, **options):
    (cell,) = plan([Method("m", factory)], cohort, [0], [0], **options)
    return run_cell(cohort, cell)


def test_a_method_that_only_ranks_has_no_brier_score(cohort):
    record, answer = one(Ranking, cohort)
    ranking = ["Harrell's C", "Uno's C", "AUC at horizon", "time-dependent AUC"]
    assert [score["measure"] for score in record["scores"]] == ranking
    assert list(answer) == ["DM"]


@pytest.mark.parametrize(
    "factory, sentence",
    [
        (Shuffled, "not for the test patients in their order"),
        (Silent, "answers none of the tasks of TRANSBIG"),
        (Leaving, "SystemExit: out of licences"),
    ],
)
def test_a_method_that_breaks_the_protocol_is_a_failed_cell(factory, sentence, cohort):
    record, answer = one(factory, cohort)
    assert sentence in record["error"] and record["scores"] == [] and answer is None


class Marred(Trivial):
    """Has no number for the first ``n`` patients, in one part of its answer."""

    def __init__(self, seed, part, n, value=float("nan")):
        self.part, self.n, self.value = part, n, value

    def predict(self, cohort):
        answer = super().predict(cohort)
        answer = replace(answer, score=np.arange(float(len(cohort)))) if self.part == "score" else answer
        places = {"Age": answer.values["Age"], "ER": answer.probabilities["ER"].to_numpy(copy=True)}
        places |= {"curve": answer.survival, "score": answer.score}
        rows = places[self.part].reshape(len(cohort), -1)
        rows[: self.n, -1] = self.value
        shares = pd.DataFrame(places["ER"], cohort.samples, answer.probabilities["ER"].columns)
        return replace(answer, probabilities=answer.probabilities | {"ER": shares})


@pytest.mark.parametrize(
    "part, task, n, value",
    [("Age", "Age", 3, np.nan), ("ER", "ER", 2, np.nan), ("curve", "DM", 1, np.nan), ("score", "DM", 39, -np.inf)],
)
def test_an_answer_that_is_no_number_is_a_failed_cell(part, task, n, value, cohort):
    record, answer = result(cohort, factory=Marred, settings={"part": part, "n": n, "value": value})
    expected = f"ValueError: The answer to '{task}' is not a finite number for {n} of 39 test patients"
    assert record["error"].startswith(expected) and record["scores"] == [] and answer is None
    assert result(cohort, factory=Marred, settings={"part": part, "n": 0})[0]["error"] is None


# --- what a method sees of the test part ----------------------------------------------------------------------


class Curious(Trivial):
    """Says what it finds of age instead of what it has learned."""

    def __init__(self, seed):
        pass

    def predict(self, cohort):
        known = cohort.clinical[["Age", "ER", "DM_duration", "DM_event"]].notna().all(axis=None)
        if known:
            raise AssertionError("the labels are there")
        score = cohort.clinical["Age"].fillna(0.0).to_numpy()
        return replace(super().predict(cohort), survival=None, score=score)


def test_labels_of_the_tasks_that_are_asked_are_hidden_and_all_are_scored(cohort):
    record, answer = result(cohort, factory=Curious)
    whole, expected = result(cohort, factory=trivial)
    assert record["error"] is None and (answer["DM"] == 0).all()  # no age is known
    columns = [column for column in expected if column != "DM"]
    pd.testing.assert_frame_equal(answer[columns], expected[columns])
    scores, others = ({(s["task"], s["measure"]): s["score"] for s in one["scores"]} for one in (record, whole))
    assert {key: score for key, score in others.items() if key[0] != "DM"}.items() <= scores.items()


def test_columns_of_other_tasks_can_be_read(cohort):
    _, answer = result(cohort, factory=Curious, kinds=("survival",))
    np.testing.assert_array_equal(answer["DM"], split(cohort, 0).test.clinical["Age"])


def test_hidden_labels_keep_their_kind_and_place(build):
    cohort = build(20).with_tasks("Age", "Grade", "OS")
    clinical = cohort.clinical.assign(Age=cohort.clinical["Age"].round().astype("Int64"))
    for kind in ("category", "string", object):
        clinical["Grade"] = clinical["Grade"].astype(kind)
        hidden = benchmark.unlabelled(replace(cohort, clinical=clinical.assign(Site="A", Known=True))).clinical
        assert hidden[list(clinical)].isna().all(axis=None) and list(hidden) == [*clinical, "Site", "Known"]
        pd.testing.assert_series_equal(hidden.dtypes[list(clinical)], clinical.dtypes)
        assert (hidden["Site"] == "A").all() and hidden["Known"].all() and list(hidden.index) == list(cohort.samples)
    assert clinical["Age"].notna().any()  # the caller's own
    alone = benchmark.unlabelled(replace(cohort, clinical=clinical).with_tasks("OS")).clinical
    pd.testing.assert_frame_equal(alone[["Age", "Grade"]], clinical[["Age", "Grade"]])


def test_a_cohort_without_survival_has_no_horizon(cohort):
    record, answer = one(trivial, cohort.with_tasks("Age", "ER"))
    assert record["horizon"] is None and record["error"] is None
    assert list(answer) == ["Age", "ER=positive", "ER=negative"]


def test_a_declared_horizon_is_used(cohort):
    assert one(trivial, cohort, horizon=1825.0)[0]["horizon"] == 1825.0


def test_the_horizon_is_an_event_that_enough_training_patients_outlive(cohort):
    train = split(cohort, 0).train
    time, event = train.outcome()
    horizon = training_horizon(train)
    assert horizon in time[event == 1] and (time > horizon).mean() >= 0.2
    later = time[(event == 1) & (time > horizon)]
    assert all((time > moment).mean() < 0.2 for moment in later)
    edges = fit_preprocessor(train, n_times=5).edges
    assert horizon <= edges[-1]


def test_without_an_event_that_is_outlived_there_is_no_horizon(build):
    with pytest.raises(CohortError, match=r"no event .* is outlived by 10 patients.*give one, or a larger cohort"):
        training_horizon(build(n=8))


# --- one task at a time, and tuning ---------------------------------------------------------------------------


class Moved(Trivial):
    """Answers the training medians, moved by a setting; knows which tasks it was given."""

    def __init__(self, seed, move=0.0, blob=""):
        self.move = move

    def fit(self, train, validation):
        self.tasks = [task.name for task in train.tasks]
        return super().fit(train, validation)

    def predict(self, cohort):
        answer = super().predict(cohort)
        return replace(answer, values={name: value + self.move for name, value in answer.values.items()})


class Once(Moved):
    """Refuses more tasks than one."""

    def fit(self, train, validation):
        if len(train.tasks) > 1:
            raise ValueError("one at a time, please")
        return super().fit(train, validation)


def result(cohort, trials=1, **fields):
    (cell,) = plan([Method("m", **fields)], cohort, [0], [0], trials=trials)
    return run_cell(cohort, cell)


def test_a_method_that_is_not_joint_learns_one_task_after_another(cohort):
    together, _ = result(cohort, factory=Once)
    assert "one at a time" in together["error"]
    record, answer = result(cohort, factory=Once, joint=False)
    assert record["error"] is None
    whole, expected = result(cohort, factory=Moved)
    pd.testing.assert_frame_equal(answer, expected)
    pd.testing.assert_frame_equal(pd.DataFrame(record["scores"]), pd.DataFrame(whole["scores"]))


def test_a_method_is_given_the_kinds_that_it_answers(cohort):
    record, answer = result(cohort, factory=Moved, kinds=("regression",))
    assert list(answer) == ["Age", "Size"] and {score["task"] for score in record["scores"]} == {"Age", "Size"}
    record, _ = result(cohort.with_tasks("DM"), factory=Moved, kinds=("regression",))
    assert "no task of the kinds that it answers, regression" in record["error"]


def test_each_fit_is_tuned_on_its_own_tasks_and_the_row_says_so(cohort):
    space = {"move": [20.0, 0.0, -20.0]}
    apart, _ = result(cohort, factory=Moved, space=space, joint=False, trials=3, kinds=("regression",))
    assert {task: chosen["move"] for task, chosen in apart["chosen"].items()} == {"Age": 0.0, "Size": 0.0}
    whole, _ = result(cohort, factory=Moved, space=space, trials=3)
    assert list(whole["chosen"]) == ["Age, Size, Grade, ER, DM"]
    few, _ = result(cohort, factory=Moved, space=space, trials=1)
    assert few["chosen"] == {} and few["trials"] == 1
    errors = [
        {s["task"]: s["score"] for s in record["scores"] if "absolute" in s["measure"]} for record in (apart, few)
    ]
    assert errors[0]["Age"] < errors[1]["Age"]  # untuned, the first value counts
    row = benchmark.table([apart]).iloc[0]
    assert row["trials"] == 3 and json.loads(row["chosen"])["Size"] == {"move": 0.0}
    assert row["fit_seconds"] < row["tuning_seconds"] and not row["calibrated"]


class Refusing(Moved):
    def fit(self, train, validation):
        if self.move == 20.0 or (self.move == 0.0 and len(train.tasks) == 1 and train.tasks[0].name == "Size"):
            raise ArithmeticError("no convergence")
        return super().fit(train, validation)


def test_a_trial_that_fails_is_counted_and_the_cell_goes_on(cohort):
    fields = {"factory": Refusing, "space": {"move": [20.0, 0.0, -20.0]}, "joint": False, "kinds": ("regression",)}
    record, answer = result(cohort, trials=3, **fields)
    assert record["error"] is None and list(answer) == ["Age", "Size"]
    assert record["chosen"]["Age"]["move"] == 0.0 and record["chosen"]["Size"]["move"] == -20.0
    row = benchmark.table([record]).iloc[0]
    assert (row["trials"], row["failed_trials"]) == (3, 1 + 2)
    assert result(cohort, trials=1, **fields)[0]["error"] == "ArithmeticError: no convergence"
    older = {key: value for key, value in record.items() if key != "failed_trials"}
    assert benchmark.table([older])["failed_trials"].isna().all()


def test_fits_that_used_up_their_epochs_are_counted(cohort):
    nets = {"n_genes": 8, "width": 4, "layers": 1, "heads": 1, "batch_size": 32}
    fields = {"factory": txt, "joint": False, "kinds": ("regression",)}
    brief = {**nets, "epochs": 2, "patience": 2}
    (row,) = [benchmark.table([result(cohort, settings=brief, **fields)[0]]).iloc[0]]
    assert row["capped"] == 2  # Age and Size
    spoiled = {**nets, "epochs": 40, "patience": 1, "learning_rate": 3.0}  # no epoch is much better than the first
    assert benchmark.table([result(cohort, settings=spoiled, **fields)[0]])["capped"].eq(0).all()
    record, _ = result(cohort, factory=Moved, kinds=("regression",))
    assert benchmark.table([record])["capped"].isna().all()


def test_tuning_never_sees_the_test_part(cohort):
    parts = split(cohort, 0)
    noise = cohort.clinical.copy()
    noise.loc[parts.test.samples, ["Age", "Size"]] = 0.0
    space = {"move": [20.0, 0.0, -20.0]}
    first, other = (
        result(one, factory=Moved, space=space, trials=3)[0]["chosen"]
        for one in (cohort, replace(cohort, clinical=noise))
    )
    assert first == other


def test_a_long_setting_stands_in_the_table_as_a_hash(cohort):
    record, _ = result(
        cohort, factory=Moved, settings={"blob": "x" * 1000, "move": 1.0}, space={"move": [1.0]}, trials=2
    )
    row = benchmark.table([record]).iloc[0]
    settings = json.loads(row["settings"])
    assert settings["move"] == 1.0 and re.fullmatch("hash [0-9a-f]{16}", settings["blob"])
    assert record["identity"]["settings"]["blob"] == "x" * 1000  # whole in the cell's file


def test_a_calibrated_curve_is_marked(cohort):
    record, _ = result(cohort, factory=Calibrated)
    assert record["calibrated"] and benchmark.table([record])["calibrated"].all()


class Calibrated(Moved):
    def predict(self, cohort):
        return replace(super().predict(cohort), calibrated=True)


# --- other parts than those of a random split ----------------------------------------------------------------


@pytest.fixture(scope="module")
def halves(cohort):
    return folds_from(pd.Series(np.resize(["b", "a"], len(cohort)), cohort.samples), "halves")


def test_a_fold_is_tested_by_its_number(cohort, halves):
    cells = plan(METHODS[1:2], cohort, [0, 1], [0], scheme=halves)
    for fold, cell in enumerate(cells):
        record, answer = run_cell(cohort, cell)
        parts = fold_split(cohort, halves, fold)
        assert record["error"] is None and list(answer.index) == list(parts.test.samples)
        expected = ClinicalCox("Age").fit(parts.train).predict(parts.test)
        np.testing.assert_array_equal(answer["DM"], expected.risk(record["horizon"]))
        assert benchmark.table([record])["scheme"].iloc[0] == "halves"


def test_a_scheme_may_be_described_in_plain_words(cohort, tmp_path):
    scheme = {"name": "clusters", "k": 3, "n_genes": 50}
    found = run(METHODS[:1], cohort, tmp_path, range(3), scheme=scheme, workers=1, progress=False)
    assert found["error"].isna().all() and set(found["scheme"]) == {"clusters"}
    assert found.drop_duplicates("data_seed")["n_test"].sum() == len(cohort)
    assert found["split_hash"].nunique() == 3


def test_a_cut_training_part_is_all_that_a_method_sees(cohort):
    (cell,) = plan(METHODS[1:2], cohort, [1], [0], train_size=60)
    record, answer = run_cell(cohort, cell)
    parts = split(cohort, 1)
    train = cut(parts.train, 60, 1)
    expected = ClinicalCox("Age").fit(train).predict(parts.test)
    np.testing.assert_array_equal(answer["DM"], expected.risk(record["horizon"]))
    assert record["horizon"] == training_horizon(train)
    assert (record["n_train"], record["n_whole"], record["n_test"]) == (60, len(parts.train), len(parts.test))
    assert record["events_train"] == train.outcome()[1].sum()
    scores = benchmark.score_draws({"m": expected}, parts.train, parts.test, record["horizon"], 0)["m"]["DM"].iloc[0]
    assert {score["measure"]: score["score"] for score in record["scores"]} == scores.to_dict()  # by the whole part


def test_one_horizon_for_several_sizes_is_reached_by_all(cohort):
    records = [
        run_cell(cohort, plan(METHODS[2:], cohort, [0], [0], train_size=size, horizon_size=50)[0])[0]
        for size in (50, 100, None)
    ]
    assert [record["error"] for record in records] == [None] * 3
    assert {record["horizon"] for record in records} == {training_horizon(cut(split(cohort, 0).train, 50, 0))}
    table = benchmark.table(records)
    assert table.drop_duplicates("cell")["train_size"].tolist() == [50, 100, pd.NA]


def test_parts_make_another_cell_and_the_default_says_nothing_of_them(cohort, halves):
    other = folds_from(pd.Series(np.resize(["a", "b"], len(cohort)), cohort.samples), "halves")
    options = [{"scheme": halves}, {"scheme": other}, {"train_size": 60}, {"train_size": 60, "horizon_size": 50}]
    changed = {keys(cohort, **option)[0] for option in options}
    assert len({*keys(cohort), *changed}) == 5
    assert keys(cohort, scheme={"name": "random"}) == keys(cohort)
    (cell,) = plan(METHODS[:1], cohort, [0], [0])
    assert not {"scheme", "train_size", "horizon_size", "splits_code", "fixed"} & cell.identity.keys()
    (cell,) = plan(METHODS[:1], cohort, [0], [0], scheme=halves)
    json.dumps(cell.identity)


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"train_size": 0}, "train_size and horizon_size are whole numbers of patients from 1 up"),
        ({"train_size": 10.5}, "whole numbers of patients"),
        ({"train_size": 50, "horizon_size": 60}, "horizon_size not above train_size, not 50 and 60"),
        ({"scheme": {"name": "clusters", "k": 2}}, "There are 2 folds, so data_seeds are among 0 to 1"),
        ({"scheme": {"name": "site"}}, "A scheme is"),
    ],
)
def test_parts_that_cannot_be_are_refused(options, sentence, cohort):
    with pytest.raises(ValueError, match=sentence):
        plan(METHODS[:1], cohort, [0, 1, 2], [0], **options)


def test_a_part_that_is_too_small_to_be_cut_is_a_failed_cell(cohort):
    (cell,) = plan(METHODS[:1], cohort, [0], [0], train_size=150)
    assert "cannot be cut to 150" in run_cell(cohort, cell)[0]["error"]


# --- settings that were chosen before, and a time to stop ----------------------------------------------------------


def test_fixed_settings_are_taken_for_each_fit_and_not_tuned_again(cohort):
    space = {"move": [20.0, 0.0, -20.0]}
    fixed = {"Age": {"move": 5.0}, "Size": {"move": -5.0}}
    options = {"factory": Moved, "space": space, "joint": False, "trials": 3, "kinds": ("regression",)}
    record, answer = result(cohort, fixed=fixed, **options)
    _, plain = result(cohort, factory=Moved, kinds=("regression",))
    np.testing.assert_allclose(answer["Age"] - plain["Age"], 5)
    np.testing.assert_allclose(answer["Size"] - plain["Size"], -5)
    assert record["chosen"] == fixed and record["trials"] == 1
    lacking, _ = result(cohort, fixed={"Age": {"move": 5.0}}, **options)
    assert "has fixed settings, but none for Size" in lacking["error"]


def test_the_code_alone_makes_a_cell_of_the_same_experiment(cohort):
    (cell,) = plan(METHODS[:1], cohort, [0], [0], train_size=60)
    older = {**cell.identity, "code": "older", "splits_code": "older", "txtlib": "0"}
    assert same_but_code(older) == same_but_code(cell.identity)
    assert same_but_code({**older, "data_seed": 1}) != same_but_code(cell.identity)


class Slow(Counted):
    def fit(self, train, validation):
        time.sleep(0.3)
        return super().fit(train, validation)


def test_after_its_time_no_cell_is_begun_and_those_that_were_are_finished(cohort, tmp_path, log):
    cells = plan([Method("slow", Slow, {"log": str(log)})], cohort, list(range(6)), [0, 1])
    options = {"workers": 2, "threads": 1, "progress": False}
    run_cells(cells, cohort, tmp_path, until=time.time(), **options)
    assert runs(log) == 0
    run_cells(cells, cohort, tmp_path, until=UntilTwoRan(log), **options)
    done = [record for record in (benchmark._read(tmp_path, cell) for cell in cells) if record]
    assert 2 <= len(done) == runs(log) <= 4 and all(record["error"] is None for record in done)
    assert {record["identity"]["model_seed"] for record in done} == {0}  # one seed of all splits comes first


class UntilTwoRan:
    """A moment that is later than any time until two cells ran, and then earlier."""

    def __init__(self, log):
        self.log = log

    def __gt__(self, now):
        return runs(self.log) < 2


# --- what is refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "methods, options, sentence",
    [
        ([], {}, "needs methods, .*there is none"),
        (METHODS[:1] * 2, {}, "two are called 'Kaplan-Meier'"),
        ([Method("m", "trivial")], {}, "factory is a class or a function.*not 'trivial'"),
        ([Method("m", Trivial().fit)], {}, "factory is a class or a function"),
        ([Method("m", trivial, {"seed": 3})], {}, "settings are named values without `seed`"),
        ([Method("m", trivial, ["seed"])], {}, "settings are named values"),
        ([Method("m", trivial, {"x": {1, 2}})], {}, "settings are plain values"),
        ([Method("m", trivial, space={"seed": [1]})], {}, "settings are named values without `seed`"),
        ([Method("m", trivial, space={"x": []})], {}, "'x' of its space has no list of values"),
        ([Method("m", trivial, space={"x": 3})], {}, "'x' of its space has no list of values"),
        ([Method("m", trivial, kinds=("ranking",))], {}, "kinds are some of regression, classification, survival"),
        ([Method("m", trivial, kinds=())], {}, "kinds are some of"),
        (METHODS, {"trials": 0}, "trials is 1 or more, not 0"),
        (METHODS, {"data_seeds": []}, r"data_seeds are whole numbers from 0 up, at least one, and each once, not \[\]"),
        (METHODS, {"data_seeds": [1, 1]}, "data_seeds are .*each once"),
        (METHODS, {"model_seeds": [-1]}, "model_seeds are whole numbers"),
        (METHODS, {"model_seeds": [0.5]}, "model_seeds are whole numbers"),
        (METHODS, {"horizon": 0}, "horizon is a time above 0"),
        (METHODS, {"horizon": float("nan")}, "horizon is a time above 0"),
        (METHODS, {"workers": 0}, "workers and threads are 1 or more, not 0 and None"),
        (METHODS, {"threads": -1}, "1 or more"),
        (METHODS, {"cluster": "tcp://127.0.0.1:1", "workers": 2}, "are for this machine"),
        (METHODS, {"cohort": "nowhere"}, "No cohort 'nowhere'"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is_made(methods, options, sentence, tmp_path, cohort):
    with pytest.raises(ValueError, match=sentence):  # also a CohortError
        run(methods, **{"cohort": cohort, "folder": tmp_path / "cells", **options})
    assert not (tmp_path / "cells").exists()


@pytest.mark.parametrize("folder", ["file", "file/cells"])
def test_a_folder_that_is_a_file_is_refused(folder, tmp_path, cohort):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="a file is in its place; name another folder"):
        run(METHODS, cohort, tmp_path / folder)


def test_a_method_from_nowhere_is_refused(cohort, monkeypatch):
    monkeypatch.delattr(sys.modules[__name__], "__file__")  # as in a notebook
    with pytest.raises(ValueError, match="move it into a file"):
        plan([Method("m", trivial)], cohort, [0], [0])


def test_an_address_without_a_scheduler_is_refused(cohort, tmp_path):
    pytest.importorskip("distributed")
    with pytest.raises(ConnectionError, match=r"No Dask scheduler answers at 'nonsense'.*tcp://host:8786"):
        run(METHODS, cohort, tmp_path, cluster="nonsense", progress=False)


def test_workers_of_a_cluster_that_share_a_process_are_refused():
    client = SimpleNamespace(nthreads=lambda: {"tcp://a:1": 1, "tcp://b:2": 4})
    with pytest.raises(ValueError, match=r"worker tcp://b:2 runs 4 items at once in one process.*one thread each"):
        workers._check_one_thread_each(client)


def test_a_script_that_each_process_would_run_again_is_told_so(tmp_path):
    unguarded = (
        SCRIPT[: SCRIPT.index("if __name__")]
        + "run([Method('m', Waiting, {'log': ''})], 'gse7390', 'cells', workers=1)\n"
    )
    (tmp_path / "mine.py").write_text(unguarded)
    found = subprocess.run([sys.executable, "mine.py"], cwd=tmp_path, capture_output=True, text=True)
    assert found.returncode == 1 and "outside of `if __name__ == '__main__':`" in found.stderr


def test_without_dask_a_cluster_asks_for_the_extra(cohort, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ImportError, match=r"pip install 'txtlib\[cluster\]'"):
        run(METHODS, cohort, tmp_path, cluster="tcp://127.0.0.1:1", progress=False)
