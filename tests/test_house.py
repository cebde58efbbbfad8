"""The rules of the house that a machine can check."""

import ast
import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
LIBRARY = sorted((ROOT / "txtlib").rglob("*.py"))
SOURCES = [*LIBRARY, *sorted((ROOT / "book").glob("*.py"))]
CORE = ("model.py", "losses.py", "pcgrad.py", "survival.py")


def functions(path):
    tree = ast.parse(path.read_text())
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def body_lines(node):
    body = node.body[1:] if ast.get_docstring(node) else node.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def imports(path):
    tree = ast.parse(path.read_text())
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    origins = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    rooms = [f"txtlib.{alias.name}" for node in origins if node.module == "txtlib" for alias in node.names]
    return names + rooms + [node.module or "" for node in origins]


def test_the_core_is_thin():
    assert sum(len((ROOT / "txtlib" / name).read_text().splitlines()) for name in CORE) < 500


@pytest.mark.parametrize("where", ["txtlib", "book"])
def test_functions_are_small(where):
    sizes = [body_lines(node) for path in SOURCES if where in path.parts for node in functions(path)]
    assert np.median(sizes) <= 7 and np.percentile(sizes, 90) <= 20 and max(sizes) <= 40


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.stem)
def test_public_things_have_docstrings(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    public = [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef) and not n.name.startswith("_")]
    assert [node.name for node in public if not ast.get_docstring(node)] == []


@pytest.mark.parametrize(
    "room, allowed",
    [
        ("cohort.py", {"embedded"}),
        ("embedded.py", {"cohort", "planted"}),
        ("planted.py", {"cohort"}),
        ("preprocess.py", {"cohort"}),
        ("network.py", {"cohort"}),
        ("products.py", set()),
        ("splits.py", {"cohort", "preprocess"}),
        ("parallel.py", set()),
        ("model.py", {"products"}),
        ("gradients.py", {"losses", "parallel"}),
        ("hierarchical.py", {"model"}),
        ("variants.py", {"hierarchical", "model"}),
        ("losses.py", set()),
        ("pcgrad.py", set()),
        ("balance.py", {"pcgrad"}),
        ("batchnorm.py", set()),
        ("checkpoint.py", set()),
        ("survival.py", set()),
        ("predictions.py", {"survival"}),
        ("metrics.py", {"survival"}),
        ("calibration.py", {"survival"}),
        ("decisions.py", set()),
        ("resampled.py", {"metrics", "survival"}),
        ("bootstrap.py", {"calibration", "cohort", "metrics", "predictions", "resampled", "survival"}),
        ("comparisons.py", {"metrics"}),
        (
            "training.py",
            {"balance", "batchnorm", "checkpoint", "cohort", "gradients", "losses", "parallel", "pcgrad", "predictions"}
            | {"preprocess", "survival", "variants"},
        ),
        ("cost.py", {"gradients", "hierarchical", "products"}),
        ("measure.py", {"balance", "cost", "gradients", "products", "variants"}),
        ("overview.py", {"cohort", "metrics", "peers", "survival"}),
        ("transfer.py", {"checkpoint", "cohort"}),
        ("external.py", {"bootstrap", "cohort", "comparisons", "metrics", "predictions", "resampled"}),
        ("added_value.py", {"bootstrap", "cohort", "external", "metrics", "peers", "predictions", "resampled"}),
        ("figures.py", set()),
        ("ledger.py", {"comparisons"}),
        ("workers.py", set()),
        ("tuning.py", {"cohort", "metrics", "peers", "predictions"}),
        ("benchmark.py", {"bootstrap", "cohort", "network", "predictions", "splits", "workers", "tuning"}),
        ("catalogue.py", {"benchmark", "ledger", "network", "peers", "planted"}),
        ("entries.py", {"catalogue", "cohort", "comparisons", "frozen", "ledger"}),
        ("companions.py", {"benchmark", "peers"}),
        ("trainings.py", {"benchmark", "cohort", "peers", "training"}),
        ("entries_attention.py", {"interpret", "ledger"}),
        ("entries_luma.py", {"comparisons", "ledger"}),
        ("entries_maps.py", {"cohort", "entries", "interpret", "ledger", "predictions", "survival"}),
        (
            "entries_perturbation.py",
            {"benchmark", "bootstrap", "cohort", "comparisons", "entries", "interpret", "ledger", "network", "peers"}
            | {"training", "trainings"},
        ),
        ("entries_pretrain.py", {"comparisons", "ledger"}),
        ("entries_ranked.py", {"comparisons", "entries", "ledger", "pretrain"}),
        (
            "moved.py",
            {"benchmark", "bootstrap", "catalogue", "cohort", "comparisons", "entries", "external", "ledger"}
            | {"metrics", "predictions", "tuning", "workers"},
        ),
        ("joining.py", {"cohort", "transfer"}),
        ("plans.py", {"benchmark", "catalogue", "cohort", "joining", "planted", "preprocess", "transfer"}),
        ("kept.py", {"benchmark"}),
        ("runs.py", {"benchmark", "frozen", "kept", "plans", "splits"}),
        ("curves.py", {"comparisons"}),
        ("frozen.py", {"benchmark", "curves", "kept", "runs"}),
    ],
)
def test_rooms_import_only_what_they_may(room, allowed):
    inside = {name.split(".")[1] for name in imports(ROOT / "txtlib" / room) if name.startswith("txtlib.")}
    assert inside - {"__version__"} <= allowed


BESIDE = [path for room in ("interpret", "pretrain") for path in sorted((ROOT / "txtlib" / room).glob("*.py"))]


@pytest.mark.parametrize("path", BESIDE, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_interpretation_and_pretraining_stand_beside_the_benchmark_and_knows_no_page(path):
    inside = {name.split(".")[1] for name in imports(path) if name.startswith("txtlib.")}
    assert not inside & {
        "benchmark",
        "catalogue",
        "companions",
        "entries",
        "figures",
        "frozen",
        "ledger",
        "plans",
        "runs",
    }


@pytest.mark.parametrize("name", ["products.py", "model.py", "losses.py", "pcgrad.py"])
def test_model_and_losses_need_torch_only(name):
    modules = set(imports(ROOT / "txtlib" / name)) - {"txtlib.products"}
    assert {module.split(".")[0] for module in modules} <= {"torch", "math", "itertools", "collections"}


def test_no_pickle_and_no_global_seed():
    for path in LIBRARY:
        text = path.read_text()
        assert not re.search(
            r"pickle|torch\.save|torch\.load|np\.random\.seed|random\.seed\(",
            text.replace("never pickle", "").replace("without pickle", ""),
        ), path
