"""What every notebook must be, whatever it says."""

import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from papermill import inspect_notebook

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)

TYPED = re.compile(r"(?<![\w.])\d+\.\d+(?![\w.])|(?<![\w.])\d+ ?%")
# constants of a method or of the book's own rules, not results
CONSTANTS = {"95 %", "0.5", "0.02"}


def cells(path, kind):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def prose(path):
    text = "\n".join(cell.source for cell in cells(path, "markdown"))
    text = re.sub(r"```.*?```", "", text, flags=re.S)  # code, and the solutions of exercises
    text = re.sub(r"^\| \d\d\.\d+ \||^\*Practises .*$", "", text, flags=re.M)  # ids of objectives
    return re.sub(r"\$\$.*?\$\$|\$[^$]*\$|`[^`]*`|\]\([^)]*\)", "", text, flags=re.S)


@each_notebook
def test_every_parameter_has_a_type_and_a_help(path):
    parameters = inspect_notebook(str(path))
    assert parameters
    for name, parameter in parameters.items():
        assert parameter["inferred_type_name"] != "None", f"{name} has no type"
        assert parameter["help"], f"{name} has no comment"


@each_notebook
def test_help_notebook_explains_the_parameters(path):
    command = [sys.executable, "-m", "papermill", "--help-notebook", str(path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert all(name in said for name in inspect_notebook(str(path)))


@each_notebook
def test_results_in_the_prose_are_computed(path):
    assert [number for number in TYPED.findall(prose(path)) if number not in CONSTANTS] == []


@each_notebook
def test_figures_and_tables_go_through_the_house_functions(path):
    code = "\n".join(cell.source for cell in cells(path, "code"))
    assert "plt.show(" not in code and ".savefig(" not in code
    assert code.count("plt.subplots(") == len(re.findall(r"^ *show\(", code, flags=re.M))


@each_notebook
def test_shown_cells_are_short_and_the_page_is_not_a_script(path):
    for cell in cells(path, "code"):
        if not {"hide-input", "remove-cell"} & set(cell.metadata.get("tags", [])):
            assert len(cell.source.splitlines()) <= 25
    words = len(prose(path).split())
    assert 600 <= words <= 2500


@each_notebook
def test_committed_without_output(path):
    verify = [sys.executable, "-m", "nbstripout", "--verify", "--keep-id", str(path)]
    assert subprocess.run(verify).returncode == 0


@pytest.mark.slow
def test_plain_papermill_runs_a_notebook_on_a_cohort_folder(tmp_path):
    from txtlib.cohort import load_cohort, write_cohort

    folder = write_cohort(load_cohort("gse7390"), tmp_path / "my cohort")
    out = tmp_path / "out.ipynb"
    options = ["-p", "cohort", str(folder), "-p", "epochs", "2", "-p", "resamples", "5"]
    command = [
        sys.executable,
        "-m",
        "papermill",
        "--no-progress-bar",
        str(ROOT / "notebooks/06_training.ipynb"),
        str(out),
    ]
    subprocess.run([*command, *options], cwd=ROOT, check=True, capture_output=True)
    executed = json.loads(out.read_text())
    assert all(cell["execution_count"] for cell in executed["cells"] if cell["cell_type"] == "code")
    assert sum("book-figure" in json.dumps(cell.get("outputs", "")) for cell in executed["cells"]) >= 4


@pytest.mark.slow
def test_a_bad_cohort_ends_papermill_with_the_sentence(tmp_path):
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", str(ROOT / "notebooks/04_cohorts.ipynb")]
    done = subprocess.run(
        [*command, str(tmp_path / "out.ipynb"), "-p", "cohort", "nowhere"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode != 0 and "No cohort 'nowhere'" in done.stderr


PANEL = {"cohort": "metabric_panel", "gene_sets": "", "n_genes": 35, "training": {"epochs": 1}}
PANEL |= {"shape": {"width": 8, "layers": 1, "heads": 2}}
INSIDE = {
    "10_maps": {"methods": ["PCA"], "permuted_training": {"epochs": 1}, "resamples": 20, "permutations": 20},
    "11_luma": {"permutations": 20, "splits": 2, "fold_genes": 20, "fold_training": {"epochs": 1, "combine": "sum"}},
    "12_clinical_tasks": {"second": {}, "top": 5},
    "13_perturbation": {"second": {"variant": "value token", "epochs": 1}, "arm_network": "", "moved_patients": 3}
    | {"null_models": 1, "resamples": 20},
}


@pytest.mark.slow
@pytest.mark.parametrize("stem", INSIDE)
def test_a_panel_of_35_genes_goes_through_the_chapters_that_look_inside(stem, tmp_path, data_folder, monkeypatch):
    monkeypatch.setenv("TXT_DATA", str(data_folder))
    parameters = tmp_path / "panel.yaml"
    seeds = {"model_seeds": 1 if stem < "12" else 2, "folder": str(tmp_path / "kept")}
    parameters.write_text(json.dumps(PANEL | INSIDE[stem] | seeds))
    out = tmp_path / "out.ipynb"
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", str(ROOT / f"notebooks/{stem}.ipynb"), str(out)]
    done = subprocess.run([*command, "-f", str(parameters)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    page = out.read_text()
    assert page.count("book-figure") >= 2 and '"name": "stderr"' not in page
    if stem.startswith("11"):  # uniform attention is 1/35: at 0.01 everything is an edge, so it says nothing
        assert "100%" in page
