"""The catalogue of chapters 07 and 08: every method is there, can be tuned, and runs."""

import json
import sys
from functools import cache
from inspect import signature

import numpy as np
import pandas as pd
import pytest
import torch

from txtlib import bootstrap
from txtlib.benchmark import Method, answer_of, plan, run, run_cell
from txtlib.catalogue import (
    ABOUT,
    NEED_PATHWAYS,
    NOT_RIVALS,
    PUBLISHED,
    TXT,
    catalogue,
    network_named,
    own_method,
    published_numbers,
    sets_named,
)
from txtlib.cohort import CohortError, load_cohort, split
from txtlib.ledger import published_rows
from txtlib.network import make_network
from txtlib.peers.networks import NetworkMethod
from txtlib.planted import planted
from txtlib.preprocess import fit_preprocessor
from txtlib.training import fit

# what the book promises, written down apart from the code
GROUPS = {
    "floors": ["constant", "random", "age alone", "clinical Cox", "clinical and genes", "ridge age, then Cox"],
    "classic": [
        "SVM",
        "random forest",
        "MLP",
        "ridge",
        "PCA",
        "gradient boosting",
        "elastic net Cox",
        "nearest centroid",
        "DeepSurv",
        "LogisticHazard",
        "DeepHit",
    ],
    "of the article": [
        "TxT, one task",
        "TxT, all tasks",
        "OmiEmbed, one task",
        "OmiEmbed, all tasks",
        "OmiEmbed, GradNorm",
        "T-GEM",
        "AutoSurv-like",
        "AutoSurv-like, clinical",
        "SurvConvMixer-like",
        "CNN+FMAP-like",
        "DeepGene-like",
        "DeepGene-like, clustered",
    ],
    "variants of TxT": [
        "TxT, ranked expression",
        "TxT, per layer",
        "TxT, full rank",
        "TxT, fourier",
        "TxT, value token",
        "TxT, chosen form",
        "TxT beside the clinic",
    ],
    "controls": [
        "TxT without expression",
        "TxT on permuted labels",
        "elastic net on permuted labels",
        "CNN on permuted pixels",
        "DeepGene, shuffled genes",
        "TxT, random vectors",
    ],
    "the released code": ["TxT, as published"],
}
FORMS = {"variant": ["value token", "product", "full rank"], "scaler": ["rank", "minmax"]}
NAMES = [name for group in GROUPS.values() for name in group]
SURVIVAL_ONLY = {
    "age alone",
    "clinical Cox",
    "clinical and genes",
    "AutoSurv-like, clinical",
    "TxT beside the clinic",
    "ridge age, then Cox",
    "elastic net Cox",
    "elastic net on permuted labels",
    "DeepSurv",
    "LogisticHazard",
    "DeepHit",
}
JOINT = {"constant", "random", "TxT, all tasks", "OmiEmbed, all tasks", "OmiEmbed, GradNorm", "TxT, as published"}
UNTUNED = [name for name in GROUPS["floors"] if name != "clinical and genes"]
UNTUNED += ["ridge", "TxT on permuted labels", "elastic net on permuted labels"]
ONE_ANSWER = {"constant", "TxT without expression"}  # for everybody: no correlation with age

KINDS = {"Age": "regression", "NHG": "classification", "OS": "survival"}
CURVES, TRAINING = {"n_times": 5, "grid": "quantile"}, {"epochs": 2, "patience": 2, "batch_size": 32}
SHAPE = {"width": 8, "layers": 1, "heads": 2}
SMALL = {
    "OmiEmbed": {"hidden": [16], "latent": 4, "phases": [1, 1, 2]},
    "AutoSurv": {"vae_epochs": 4, "epochs": 4, "smallest": 2, "latent": 4, "hidden": 4},
    "random forest": {"n_estimators": 10},
    "gradient boosting": {"n_estimators": 10},
    "DeepSurv": {"epochs": 2},
    "LogisticHazard": {"epochs": 2},
    "DeepHit": {"epochs": 2},
    "SurvConvMixer": {"dim": 8, "depth": 1},
    "CNN": {"channels": [4, 8]},
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def world():
    return planted(n=100, n_genes=60, event_rate=0.5)


@cache
def cohort():
    return world().cohort.with_tasks(*KINDS)


@cache
def parts():
    return split(cohort(), seed=0)


def pathways():
    return {module: list(genes) for module, genes in world().modules.items()}


def listed(sets=True, network=True, changes=None, training=TRAINING):
    genes = {"n_genes": 30, "gene_sets": pathways() if sets else {}}
    edges = world().network.to_numpy().tolist() if network else None
    longest = float(np.nanmax(cohort().outcome()[0]))
    return catalogue(["Age", "Size"], genes, CURVES, training, SHAPE, edges, longest, changes)


def by_name(groups):
    return {method.name: method for group in groups.values() for method in group}


@cache
def small():
    return by_name(listed(changes=SMALL))


@cache
def untouched():
    return by_name(listed(training={}))


# --- what is there ------------------------------------------------------------------------------------------------


def test_every_method_is_there_once_in_its_group():
    assert {group: [method.name for method in methods] for group, methods in listed().items()} == GROUPS
    assert len(set(NAMES)) == len(NAMES) == 43
    assert [*NOT_RIVALS] == [*GROUPS["controls"], *GROUPS["the released code"]]


def test_each_answers_its_kinds_of_tasks_one_at_a_time_or_together():
    for name, method in small().items():
        kinds = {"classification"} if name == "nearest centroid" else set(KINDS.values())
        assert set(method.kinds) == ({"survival"} if name in SURVIVAL_ONLY else kinds)
        if len(method.kinds) > 1:
            assert method.joint == (name in JOINT)
        assert bool(method.space) == (name not in UNTUNED)


def test_without_gene_sets_methods_of_pathways_stay_out():
    assert (
        set(NAMES) - set(by_name(listed(sets=False)))
        == set(NEED_PATHWAYS)
        == {
            "AutoSurv-like",
            "AutoSurv-like, clinical",
            "SurvConvMixer-like",
        }
    )


def test_random_vectors_are_a_control_only_where_there_is_a_network():
    with_network, without = by_name(listed()), by_name(listed(network=False))
    assert set(with_network) - set(without) == {"TxT, random vectors"}
    assert with_network["TxT, random vectors"].settings == with_network[TXT].settings | {"network": None}
    assert without[TXT].settings["network"] is None


def test_all_methods_choose_from_the_same_genes():
    for name, method in small().items():
        if name not in ("constant", "random", "age alone", "clinical Cox"):
            assert method.settings["n_genes"] == 30 and method.settings["gene_sets"] == pathways()


def test_what_sets_a_form_of_txt_apart_is_in_its_settings():
    methods, plain = small(), small()[TXT]
    for name in ("per layer", "full rank", "fourier", "value token"):
        assert methods[f"TxT, {name}"].settings == plain.settings | {"variant": name}
    assert methods["TxT, ranked expression"].settings == plain.settings | {"scaler": "rank"}
    assert methods["TxT without expression"].settings == plain.settings | {"variant": "none"}
    assert methods["TxT on permuted labels"].settings == plain.tried(1)[0]
    assert methods["TxT, all tasks"].settings == plain.settings | {"select": "all"}
    assert methods["TxT, as published"].settings["follow_up"] == np.nanmax(cohort().outcome()[0])
    tuned = [name for name in NAMES if name.startswith("TxT") and name not in (*UNTUNED, "TxT, as published")]
    forms = ["TxT, chosen form", "TxT beside the clinic"]
    assert all(methods[name].space == plain.space for name in tuned if name not in forms)
    assert all(methods[name].space == {**FORMS, **plain.space} for name in forms)
    assert methods[forms[1]].settings == plain.settings | {"columns": ["Age", "Size"]}
    assert methods["TxT, as published"].space == {"learning_rate": plain.space["learning_rate"]}
    assert methods["TxT, as published"].settings["readout"] == "flatten"


def test_what_is_taken_away_from_another_method_is_in_the_settings():
    pairs = {
        "CNN on permuted pixels": ("CNN+FMAP-like", {"pixels": "permuted"}),
        "DeepGene, shuffled genes": ("DeepGene-like", {"order": "shuffled"}),
        "OmiEmbed, GradNorm": ("OmiEmbed, all tasks", {"weighting": "gradnorm"}),
        "OmiEmbed, all tasks": ("OmiEmbed, one task", {}),
        "DeepGene-like, clustered": ("DeepGene-like", {"order": "clustered"}),
    }
    for name, (of, more) in pairs.items():
        assert small()[name].settings == small()[of].settings | more and small()[name].space == small()[of].space
    assert small()["elastic net on permuted labels"].settings == small()["elastic net Cox"].tried(1)[0]
    assert small()["AutoSurv-like, clinical"].settings["clinical"] == small()["clinical Cox"].settings["columns"]


def test_there_are_a_few_words_on_each_method():
    assert set(ABOUT) == set(NAMES) and all(ABOUT.values())


def test_clinical_columns_are_the_callers_and_age_alone_is_age():
    methods = small()
    assert methods["clinical Cox"].settings == {"columns": ["Age", "Size"]}
    assert methods["clinical and genes"].settings["columns"] == ["Age", "Size"]
    assert methods["age alone"].settings == {"columns": ["Age"]} and methods["constant"].settings == {}


@pytest.mark.parametrize("start", ["TxT", "TxT, all", "OmiEmbed", "CNN", "T-GEM", "age", "elastic net"])
def test_a_change_reaches_all_methods_whose_name_begins_so_and_no_other(start):
    plain, changed = by_name(listed()), by_name(listed(changes={start: {"n_genes": 7}}))
    for name in NAMES:
        more = {"n_genes": 7} if name.startswith(start) else {}
        assert changed[name].settings == plain[name].settings | more
    assert sum(changed[name] != plain[name] for name in NAMES) == sum(name.startswith(start) for name in NAMES) > 0


def test_changes_add_up_and_a_later_one_wins():
    changes = {"TxT": {"epochs": 3, "width": 4}, "TxT, all": {"epochs": 9}}
    methods = by_name(listed(changes=changes))
    assert methods[TXT].settings["epochs"] == 3
    assert methods["TxT, all tasks"].settings["epochs"] == 9 and methods["TxT, all tasks"].settings["width"] == 4


def test_a_change_of_no_method_is_refused_and_one_of_a_method_that_stays_out_is_not():
    with pytest.raises(ValueError, match="No method's name begins with 'TXT'; take a name of the benchmark's table"):
        listed(changes={"MLP": {"epochs": 1}, "TXT": {"epochs": 1}})
    assert "AutoSurv-like" not in by_name(listed(sets=False, changes={"AutoSurv": {"epochs": 3}}))


def test_the_catalogue_keeps_nothing_of_the_callers():
    genes, clinical = {"n_genes": 30, "gene_sets": {}}, ["Age"]
    groups = catalogue(clinical, genes, CURVES, TRAINING, SHAPE, changes={"SVM": {"n_genes": 3}})
    assert (
        genes == {"n_genes": 30, "gene_sets": {}} and clinical == ["Age"] and by_name(groups)["PCA"].settings == genes
    )


# --- what tuning may choose from ----------------------------------------------------------------------------------

TUNED = [name for name in NAMES if name not in UNTUNED]


def inner(made):
    """Return the network's method behind a wall (permuted labels, the released code), or the method itself."""
    return made.method if isinstance(getattr(made, "method", None), NetworkMethod) else made


def network_of(made):
    """Return the network that a method would train; TypeError for a setting that nobody takes."""
    own = inner(made)
    assert set(own.training) <= set(signature(fit).parameters)
    return own.network(parts().train, own.preprocessor(parts().train))


@pytest.mark.parametrize("name", TUNED)
def test_every_value_of_a_space_is_accepted(name):
    method = untouched()[name]
    assert json.loads(json.dumps(method.space)) == method.space
    for setting, values in method.space.items():
        assert len({json.dumps(value) for value in values}) == len(values) > 1
        for value in values:
            made = method.factory(seed=0, **method.settings | {setting: value})
            if isinstance(inner(made), NetworkMethod):
                assert sum(parameter.numel() for parameter in network_of(made).parameters())


def defaults(function, *names):
    return {name: signature(function).parameters[name].default for name in names}


def described(made):
    """Return all that decides what a method becomes: as JSON text, and as arrays."""
    own = inner(made)
    if not isinstance(own, NetworkMethod):
        return json.dumps(vars(own), default=lambda value: repr(vars(value))), []
    network = network_of(made)
    plain = {
        **defaults(fit, "epochs", "patience", "batch_size", "learning_rate", "weight_decay", "select", "precision"),
        **defaults(fit_preprocessor, "n_genes", "scaler", "n_times", "grid"),
        **own.training,
        **own.preprocessing,
    }
    return repr(plain) + repr(network), list(network.state_dict().values())


@pytest.mark.parametrize("name", TUNED)
def test_the_first_settings_tried_are_the_defaults(name):
    method = untouched()[name]
    if name.startswith("TxT"):  # its rates and forms suit small cohorts; txt's own are the article's
        known = method.settings | {
            one: method.space[one][0] for one in ("learning_rate", *FORMS) if one in method.space
        }
        method = Method(name, method.factory, known, method.space)
    (first,) = method.tried(1)
    assert set(first) == {*method.settings, *method.space}
    text, arrays = described(method.factory(seed=0, **method.settings))
    tried, theirs = described(method.factory(seed=0, **first))
    assert text == tried and len(arrays) == len(theirs)
    assert all(torch.equal(a, b) for a, b in zip(arrays, theirs, strict=True))


@pytest.mark.parametrize("name", ["SVM", "ridge", "PCA", "elastic net Cox", "nearest centroid", "random forest"])
def test_untuned_the_answer_is_that_of_the_factory(name):
    method = small()[name]
    train, validation, test = parts()
    first, plain = (
        method.factory(seed=3, **settings).fit(train, validation).predict(test)
        for settings in (method.tried(1)[0], method.settings)
    )
    np.testing.assert_equal(first.survival, plain.survival)
    np.testing.assert_equal(first.values, plain.values)
    for task, shares in plain.probabilities.items():
        pd.testing.assert_frame_equal(first.probabilities[task], shares)


def test_every_method_has_as_many_trials_as_the_others_or_as_its_space_holds():
    for name, method in small().items():
        size = int(np.prod([len(values) for key, values in method.space.items() if key not in method.settings]))
        assert len(method.tried(4)) == min(4, size), name
        assert method.tried(4)[:2] == method.tried(2)


# --- all of them run ----------------------------------------------------------------------------------------------


@cache
def smoked(name):
    """Run a method on one split with two settings tried; return the record and the patients' table."""
    (cell,) = plan([small()[name]], cohort(), [0], [0], trials=2)
    record, patients = run_cell(cohort(), cell)
    return record, patients


@pytest.mark.parametrize("name", NAMES)
def test_it_runs(name):
    record, patients = smoked(name)
    assert record["error"] is None, record["traceback"]
    answered = {task for task, kind in KINDS.items() if kind in small()[name].kinds}
    assert {score["task"] for score in record["scores"]} == answered
    assert {column.split("=")[0] for column in patients} == answered and np.isfinite(patients.to_numpy()).all()
    undefined = {score["measure"] for score in record["scores"] if not np.isfinite(score["score"])}
    assert undefined == set()
    assert ("Age" in patients and patients["Age"].nunique() == 1) == (name in ONE_ANSWER)
    assert record["trials"] == len(small()[name].tried(2)) and bool(record["chosen"]) == (record["trials"] > 1)


# --- the article's table ------------------------------------------------------------------------------------------


def test_every_row_of_table_1_has_its_method():
    rows = [row for row in published_rows().values() if row["item"] == "Table 1"]
    theirs = {(row["method"], row["setting"]) for row in rows}
    assert set(PUBLISHED.values()) == theirs and len(PUBLISHED) == len(theirs) == 11
    assert set(PUBLISHED) <= set(NAMES)
    for name, (method, setting) in PUBLISHED.items():
        assert name.startswith(method) or {"RF": "random forest"}[method] == name
        assert small()[name].joint == (setting == "MTL")


def test_all_numbers_of_table_1_stand_under_our_names():
    every = published_numbers().set_index("id")
    assert list(every.index[every["claim"] == "C4"]) == ["S8-MTL-TxT-OS-c_index"]
    numbers = every[every["claim"] != "C4"]
    rows = {id: row for id, row in published_rows().items() if row["item"] == "Table 1"}
    assert list(numbers.index) == list(rows) and numbers.notna().all(axis=None)
    for id, row in rows.items():
        assert PUBLISHED[numbers.loc[id, "method"]] == (row["method"], row["setting"])
        assert numbers.loc[id, "value"] == float(row["value"]) and numbers.loc[id, "task"] == row["task"]
        assert numbers.loc[id, "claim"] == row["claim"]
    measures = {
        "c_index": "Harrell's C",
        "ibs": "integrated Brier score",
        "accuracy": "accuracy",
        "f1_macro": "macro F1",
        "mae_years": "mean absolute error",
        "mae_mm": "mean absolute error",
        "spearman": "Spearman",
    }
    assert set(measures.values()) <= set(bootstrap.MEASURES)
    assert list(numbers["measure"]) == [measures[row["metric"]] for row in rows.values()]
    jump = numbers.set_index(["method", "task", "measure"])["value"]
    assert (jump[TXT, "OS", "Harrell's C"], jump["TxT, all tasks", "OS", "Harrell's C"]) == (0.701, 0.797)
    assert jump["SVM", "Age", "mean absolute error"] == 8.42


# --- what a notebook's parameters name ----------------------------------------------------------------------------


def test_gene_sets_by_name(tmp_path):
    known = planted().modules
    assert sets_named("planted") == {name: list(genes) for name, genes in known.items()}
    json.dumps(sets_named("planted"))
    assert sets_named("") == {}
    (tmp_path / "two.gmt").write_text("A\tnote\tTP53\tESR1\nB\t\tERBB2\n")
    assert sets_named(str(tmp_path / "two.gmt")) == {"A": ["TP53", "ESR1"], "B": ["ERBB2"]}
    with pytest.raises(CohortError, match=r"nowhere\.gmt"):
        sets_named("nowhere.gmt")


def test_networks_by_name():
    rows = network_named("planted")
    json.dumps(rows)
    pd.testing.assert_frame_equal(make_network(pd.DataFrame(rows)), make_network(planted().network))
    assert network_named("") is None and network_named("string_v12.csv.gz") == "string_v12.csv.gz"


OWN = """
from txtlib.peers.floors import ClinicalCox

from {helper} import COLUMN

SPACE = {{"penalty": [1, 2]}}


class Mine:
    def __init__(self, seed, penalty=1):
        self.cox = ClinicalCox(COLUMN)

    def fit(self, train, validation):
        self.cox.fit(train)
        return self

    def predict(self, cohort):
        return self.cox.predict(cohort)


def of_all(seed):
    return Mine(seed)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A reader's file, which imports another one beside it; what it does to this process is undone."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    known = set(sys.modules)
    stem = "reader_" + "".join(letter for letter in tmp_path.name if letter.isalnum())
    (tmp_path / f"{stem}_columns.py").write_text('COLUMN = "Age"\n')
    (tmp_path / f"{stem}.py").write_text(OWN.format(helper=f"{stem}_columns"))
    yield tmp_path / f"{stem}.py"
    for name in set(sys.modules) - known:
        if name.startswith("reader_"):
            del sys.modules[name]


def test_a_method_of_ones_own_is_tuned_over_its_space(own):
    method = own_method(f"{own}:Mine")
    assert method.name == "Mine" and method.space == {"penalty": [1, 2]} and method.kinds == ("survival",)
    assert method.settings == {} and len(method.tried(5)) == 2
    own.with_name(f"{own.stem}_all.py").write_text(
        'from txtlib.peers.floors import trivial\n\nKINDS = ["regression", "survival"]\n'
    )
    plain = own_method(f"{own.with_name(f'{own.stem}_all.py')}:trivial")
    assert plain.kinds == ("regression", "survival") and plain.space == {}


def test_workers_find_a_method_of_ones_own(own, tmp_path):
    method = own_method(f"{own}:Mine")
    patients = load_cohort("gse7390")
    found = run([method], patients, tmp_path / "cells", [0], workers=1, trials=2, progress=False)
    assert found["error"].isna().all() and set(found["task"]) == {"DM"} and (found["trials"] == 2).all()
    answer = answer_of(tmp_path / "cells", found["cell"].iloc[0])
    parts = split(patients, 0)
    here = method.factory(seed=0).fit(parts.train, parts.validation).predict(parts.test)
    assert list(answer.index) == list(parts.test.samples) and list(answer.columns) == ["DM"]
    np.testing.assert_allclose(answer["DM"], here.risk(found["horizon"].iloc[0]))
    with pytest.raises(FileNotFoundError):
        answer_of(tmp_path / "cells", "no such cell")


@pytest.mark.parametrize("place", ["nowhere.py:Mine", "nowhere.py", "Mine", "", ":", "{folder}:Mine"])
def test_a_place_without_a_file_is_refused(own, place):
    with pytest.raises(ValueError, match=r"for a method of your own; write it as path/to/file\.py:Name"):
        own_method(place.format(folder=own.parent))


@pytest.mark.parametrize("name", ["Theirs", ""])
def test_a_name_that_the_file_lacks_is_refused(own, name):
    with pytest.raises(ValueError, match=f"{own.name} has no '{name}'; write the place of your method as"):
        own_method(f"{own}:{name}")


def test_another_module_of_the_same_name_is_never_taken_for_it(own, tmp_path):
    own_method(f"{own}:Mine")
    (tmp_path / "elsewhere").mkdir()
    for name in (own.name, "json.py", "sys.py"):
        twin = tmp_path / "elsewhere" / name
        twin.write_text(OWN.format(helper=f"{own.stem}_columns"))
        with pytest.raises(ValueError, match=f"Python has another module '{twin.stem}' already; give the file another"):
            own_method(f"{twin}:Mine")
    dotted = tmp_path / "reader.v2.py"
    dotted.write_text("")
    with pytest.raises(ValueError, match=r"reader\.v2\.py cannot be imported, since its name has a second dot"):
        own_method(f"{dotted}:Mine")
