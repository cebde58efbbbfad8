"""The runner, on a tiny book in a folder whose name holds a space."""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

RUNNER = Path(__file__).resolve().parents[1] / "book"
sys.path.insert(0, str(RUNNER))

import build  # noqa: E402
import glue  # noqa: E402
import ledger  # noqa: E402
import ledger_page  # noqa: E402
import rendering  # noqa: E402
import running  # noqa: E402
from fingerprint import fingerprints, in_order, named_files  # noqa: E402
from reading import BuildError, declared, fits, read_notebook, title, toc_pages  # noqa: E402

CONFIG = """
title: Tiny
only_build_toc_files: true
execute: {execute_notebooks: "off"}
sphinx: {config: {html_theme: sphinx_book_theme, nb_ipywidgets_js: {}}}
"""
TOC = """
format: jb-book
root: book/index
chapters:
  - file: book/cost
  - file: notebooks/01_alpha
  - file: notebooks/02_beta
"""
INDEX = """# Tiny

Alpha has {glue:text}`../notebooks/01_alpha.ipynb::alpha_size:d` lines, see {ref}`alpha-end`.

```{glue} beta_value
:doc: ../notebooks/02_beta.ipynb
```

```{literalinclude} ../txtlib/alpha.py
```
"""
ALPHA = """from myst_nb import glue
from txtlib.alpha import lines
glue("alpha_size", lines(size), display=False)"""


def notebook(*code: str, text: str = "# A page", parameters: str | None = "size: int = 3  # how many", **txt):
    """A notebook: its text, its `parameters` cell (none for None), its code cells, its `txt` metadata."""
    node = new_notebook(metadata={"txt": txt} if txt else {})
    node.cells = [new_markdown_cell(text)]
    if parameters is not None:
        node.cells.append(new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    node.cells += [new_code_cell(cell) for cell in code]
    return node


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def put(root: Path, stem: str, node) -> None:
    (root / "notebooks").mkdir(exist_ok=True)
    nbformat.write(node, root / "notebooks" / f"{stem}.ipynb")


def tiny_book(root: Path) -> Path:
    """Two independent notebooks, a library of four files, three pages that ask for glue."""
    write(root / "_config.yml", CONFIG)
    write(root / "constraints.txt", "numpy==2.0\n")
    write(root / "book/_toc.yml", TOC)
    write(root / "book/index.md", INDEX)
    write(root / "book/cost.md", "# Cost\n\n```{include} _generated/cost.md\n```\n")
    write(root / "data/input.txt", "one\n")
    write(root / "notebooks/profiles/quick.yaml", "# the notebooks' own defaults\n")
    write(root / "notebooks/profiles/real.yaml", "01_alpha: {size: 5}\n02_beta:\n")
    write(root / "txtlib/__init__.py", "")
    write(root / "txtlib/alpha.py", "def lines(size):\n    from .shared import one\n    return size * one()\n")
    write(root / "txtlib/shared.py", "def one():\n    return 1\n")
    write(root / "txtlib/unrelated.py", "")
    beta = 'from myst_nb import glue\nglue("beta_value", open(path).read(), display=False)'
    end = "(alpha-end)=\n## The end\n\nThat was {glue:text}`alpha_size:.1f`."
    alpha = notebook(ALPHA, text="# Alpha | one")
    alpha.cells.append(new_markdown_cell(end))
    put(root, "01_alpha", alpha)
    put(root, "02_beta", notebook(beta, text="# Beta", parameters='path: str = "data/input.txt"'))
    return root


def no_inputs(name: str, text: str) -> None:
    """A resolver that knows no cohort and no other name."""
    if "cohort" in name:
        raise ValueError(text)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tiny_book(tmp_path / "a book")


def fault(root: Path, profile: str = "quick") -> BuildError:
    """The one sentence with which the checks before the first execution end."""
    with pytest.raises(BuildError) as caught:
        build.read_book(root, profile, no_inputs)
    assert "\n" not in str(caught.value)
    return caught.value


def make(root: Path, *options: str) -> int:
    return build.main(list(options), root, no_inputs)


# --- strictness, without executing anything ---


def test_a_good_book_passes(root):
    book = build.read_book(root, "real", no_inputs)
    assert list(book.notebooks) == ["01_alpha", "02_beta"]
    assert book.parameters == {"01_alpha": {"size": 5}, "02_beta": {}}


def test_no_parameters_cell(root):
    put(root, "01_alpha", notebook(ALPHA, parameters=None))
    assert "notebook 01_alpha has no cell with the tag `parameters`" in str(fault(root))


def test_undeclared_parameter(root):
    write(root / "notebooks/profiles/real.yaml", "01_alpha: {sise: 5}")
    assert "sets sise for notebook 01_alpha" in str(fault(root, "real"))
    assert "it declares: size" in str(fault(root, "real"))


def test_entry_for_a_notebook_that_is_not_there(root):
    write(root / "notebooks/profiles/real.yaml", "03_gamma: {size: 5}")
    assert "entry for notebook 03_gamma, which is not there" in str(fault(root, "real"))


def test_a_profile_may_extend_another(root):
    write(root / "notebooks/profiles/paper.yaml", "extends: real\n02_beta:\n")
    assert build.read_book(root, "paper", no_inputs).parameters["01_alpha"] == {"size": 5}
    write(root / "notebooks/profiles/paper.yaml", "extends: real\n01_alpha: {size: 9}")
    assert build.read_book(root, "paper", no_inputs).parameters["01_alpha"] == {"size": 9}
    write(root / "notebooks/profiles/paper.yaml", "extends: nothing")
    assert "no profile 'nothing'" in str(fault(root, "paper"))


def test_a_page_that_nobody_finds_is_named(root):
    write(root / "book/lost.md", "# Lost")
    assert "book/lost.md is not in book/_toc.yml" in str(fault(root))


def test_a_book_that_teaches_keeps_the_plan_of_a_chapter(root):
    write(root / "data/courses.yml", "[]")
    assert "notebook 01_alpha has no '## What to take away'" in str(fault(root))


@pytest.mark.parametrize(("text", "said"), [("- 1", "must read"), ("a: 1", "must read"), ("a: [", "not YAML")])
def test_profile_of_another_shape(root, text, said):
    write(root / "notebooks/profiles/real.yaml", text)
    assert said in str(fault(root, "real"))


def test_value_of_another_type(root):
    write(root / "notebooks/profiles/real.yaml", "01_alpha: {size: five}")
    assert "sets size of notebook 01_alpha to 'five', which is no int" in str(fault(root, "real"))


@pytest.mark.parametrize(
    ("value", "annotation", "fitting"),
    [(1, "int", True), (1, "float", True), (1.5, "int", False), (True, "int", False), (True, "bool", True),
     ("1e-3", "float", False), (["a"], "list[str]", True), ("a", "list[str]", False), (1, "None", True)],
)  # fmt: skip
def test_fits(value, annotation, fitting):
    assert fits(value, annotation) is fitting


@pytest.mark.parametrize("line", ["cohort: str | None = None", "sizes = dict(a=1)", "a = b = 1"])
def test_parameter_that_papermill_cannot_read(line):
    with pytest.raises(BuildError, match="papermill cannot read the parameter"):
        declared("01_alpha", notebook(parameters=line))


def test_declared_parameters():
    found = declared("x", notebook(parameters='# all\nsize: int = 3  # how many\ncohorts: list = ["a", "b"]\n'))
    assert found == {"size": ("int", 3), "cohorts": ("list", ["a", "b"])}


def test_notebook_not_in_the_table_of_contents(root):
    put(root, "03_gamma", notebook())
    assert "notebook 03_gamma is not in book/_toc.yml" in str(fault(root))


def test_page_of_the_table_of_contents_not_there(root):
    (root / "notebooks/02_beta.ipynb").unlink()
    assert "names notebooks/02_beta, but there is no" in str(fault(root))


def test_toc_pages(root):
    write(root / "toc.yml", "root: a/i\nparts:\n- chapters: [{file: a/b.md, sections: [{file: n/c.ipynb}]}]\n")
    assert toc_pages(root / "toc.yml") == ["a/i", "a/b", "n/c"]


def test_committed_output(root):
    node = notebook(ALPHA, "1")
    node.cells[3].outputs = [new_output("stream", text="1")]
    put(root, "01_alpha", node)
    assert "notebook 01_alpha holds output in cell 4" in str(fault(root))
    node.cells[3].update(outputs=[], execution_count=7)
    put(root, "01_alpha", node)
    assert "notebook 01_alpha holds output in cell 4" in str(fault(root))


def test_unreadable_notebook(root):
    write(root / "notebooks/01_alpha.ipynb", "<<<<<<< HEAD\n{}")
    assert "01_alpha.ipynb is not a readable notebook" in str(fault(root))


def test_cell_and_library_file_that_are_no_python(root):
    put(root, "02_beta", notebook("%matplotlib inline\n!ls\nx = (", parameters=""))
    assert "cell 3 of notebook 02_beta is not Python" in str(fault(root))
    tiny_book(root)
    write(root / "txtlib/shared.py", "def one(:\n")
    assert "txtlib/shared.py is not Python" in str(fault(root))


def test_needs(root):
    put(root, "02_beta", notebook(needs=["03_gamma"]))
    assert "notebook 02_beta needs '03_gamma'" in str(fault(root))
    put(root, "02_beta", notebook(needs=["01_alpha"]))
    assert in_order(build.read_book(root, "quick", no_inputs).notebooks) == ["01_alpha", "02_beta"]
    put(root, "01_alpha", notebook(needs=["02_beta"]))
    assert "need each other" in str(fault(root))


def test_unknown_profile_and_number_are_faults_of_the_call(root, capsys):
    assert make(root, "--profile", "quik") == 2
    assert "make book: there is no profile 'quik'; choose one of: quick, real" in capsys.readouterr().err
    assert make(root, "--only", "7") == 2
    assert "no notebook has the number '7'; choose one of: 01, 02" in capsys.readouterr().err
    assert not (root / "_build/html").exists()


def test_wanted_notebooks():
    notebooks = {"05_a": notebook(), "06_b": notebook(needs=["05_a"]), "07_c": notebook(needs=["06_b"])}
    assert build.wanted_notebooks(notebooks, "") == {"05_a", "06_b", "07_c"}
    assert build.wanted_notebooks(notebooks, "6") == build.wanted_notebooks(notebooks, "06_b") == {"05_a", "06_b"}


def test_title():
    assert title(notebook(text="intro\n\n# The page \n\n# Second"), "x") == "The page"
    assert title(notebook(text="none"), "x") == "x"


# --- glue ---


def test_uses():
    text = """{glue:text}`a:.3f`, {glue}`b`, {glue:text}`../notebooks/01_alpha.ipynb::c:d`
```{glue:figure} d
:name: fig
A caption
```
:::{glue} e
:doc: ../notebooks/02_beta.ipynb
:::"""
    found = {(use.notebook, use.key) for use in glue.uses("notebooks/06_own", text)}
    own = "06_own"
    assert found == {(own, "a"), (own, "b"), ("01_alpha", "c"), (own, "d"), ("02_beta", "e")}


def asking(text: str, keys: dict[str, list[str]], page: str = "book/index") -> None:
    glue.check(glue.uses(page, text), keys, ["01_alpha", "02_beta"])


@pytest.mark.parametrize(
    ("text", "keys", "said"),
    [
        ("", {"01_alpha": ["a", "a"]}, "'a' is used twice: in 01_alpha and in 01_alpha"),
        ("", {"01_alpha": ["a"], "02_beta": ["a"]}, "'a' is used twice: in 01_alpha and in 02_beta"),
        (
            "{glue}`../notebooks/01_alpha.ipynb::b`",
            {"01_alpha": ["a"]},
            "book/index asks for the glue key 'b'",
        ),
        ("{glue}`../notebooks/09_x.ipynb::b`", {"01_alpha": ["a"]}, "notebook 09_x, which is not there"),
        ("{glue}`a`", {"01_alpha": ["a"]}, "without a notebook"),
        ("{glue:text}`../notebooks/01_alpha.ipynb::a`", {"01_alpha": ["a"]}, "without a format"),
    ],
)
def test_glue_faults(text, keys, said):
    with pytest.raises(BuildError, match=said):
        asking(text, keys)


def test_a_key_of_another_notebook_is_not_local():
    with pytest.raises(BuildError, match="notebooks/02_beta asks for the glue key 'a'"):
        asking("{glue}`a`", {"01_alpha": ["a"], "02_beta": []}, page="notebooks/02_beta")


def test_what_a_notebook_never_executed_glues_is_not_known():
    asking("{glue}`../notebooks/02_beta.ipynb::b`", {"01_alpha": ["a"]})


# --- fingerprints ---


def prints(root: Path, profile: str = "quick", find_input=no_inputs) -> dict[str, str]:
    book = build.read_book(root, profile, find_input)
    return fingerprints(book.notebooks, book.parameters, root, find_input)


def changed(root: Path, before: dict[str, str]) -> list[str]:
    return [stem for stem, value in prints(root).items() if value != before[stem]]


def edit(root: Path, stem: str, change) -> None:
    node = read_notebook(root / f"notebooks/{stem}.ipynb")
    change(node)
    put(root, stem, node)


@pytest.mark.parametrize(
    ("file", "stems"),
    [
        ("txtlib/alpha.py", ["01_alpha"]),
        ("txtlib/shared.py", ["01_alpha"]),  # imported inside a function of an imported file
        ("txtlib/__init__.py", ["01_alpha"]),
        ("txtlib/unrelated.py", []),
        ("data/input.txt", ["02_beta"]),
        ("constraints.txt", ["01_alpha", "02_beta"]),
        ("README.md", []),
        ("book/index.md", []),
    ],
)
def test_what_a_changed_file_touches(root, file, stems):
    before = prints(root)
    write(root / file, "# changed\n" + ((root / file).read_text() if file.startswith("txtlib") else ""))
    assert changed(root, before) == stems


def test_what_counts_of_a_notebook(root):
    before = prints(root)
    edit(root, "01_alpha", lambda node: node.metadata.update(kernelspec={"name": "other"}))
    edit(root, "01_alpha", lambda node: node.cells[0].metadata.update(collapsed=True))
    os.utime(root / "txtlib/alpha.py", (0, 0))
    assert changed(root, before) == []
    edit(root, "01_alpha", lambda node: node.cells[2].metadata.update(tags=["hide-input"]))
    edit(root, "02_beta", lambda node: node.cells[0].update(source="# Beta!"))
    assert changed(root, before) == ["01_alpha", "02_beta"]


def test_a_parameter_counts(root):
    quick, real = prints(root), prints(root, "real")
    assert quick["01_alpha"] != real["01_alpha"]
    assert quick["02_beta"] == real["02_beta"]


def test_a_needed_notebook_counts(root):
    edit(root, "02_beta", lambda node: node.metadata.update(txt={"needs": ["01_alpha"]}))
    before = prints(root)
    edit(root, "01_alpha", lambda node: node.cells[0].update(source="# Other"))
    assert changed(root, before) == ["01_alpha", "02_beta"]


@pytest.mark.parametrize(
    "code",
    ["import txtlib.unrelated", "from txtlib import unrelated as u", "def f():\n    import txtlib.unrelated",
     'importlib.import_module("txtlib.unrelated")', "%time from txtlib.unrelated import *"],
)  # fmt: skip
def test_every_way_to_import(root, code):
    put(root, "02_beta", notebook(code))
    before = prints(root)
    write(root / "txtlib/unrelated.py", "x = 1")
    assert changed(root, before) == ["02_beta"]


def test_a_path_outside_the_repository_is_no_input(root):
    outside = root.parent / "outside.txt"
    write(outside, "1")
    assert named_files([f'open("{outside.as_posix()}")'], root) == []


def test_a_file_named_in_the_code_counts(root):
    put(root, "02_beta", notebook('open("data/other.csv")'))
    write(root / "data/other.csv", "1")
    before = prints(root)
    write(root / "data/other.csv", "2")
    assert changed(root, before) == ["02_beta"]


@pytest.mark.parametrize("line", ['cohort = "mine"', 'train_cohorts = ["else", "mine"]', 'folder = "data/mine"'])
def test_the_files_of_a_cohort_count(root, line):
    def find_input(name: str, text: str) -> Path | None:
        return root / "data/mine" if "cohort" in name and text == "mine" else None

    write(root / "data/mine/clinical.csv", "1")
    put(root, "02_beta", notebook(parameters=line))
    before = prints(root, find_input=find_input)
    write(root / "data/mine/clinical.csv", "2")
    assert prints(root, find_input=find_input)["02_beta"] != before["02_beta"]


def test_the_library_finds_cohorts_networks_and_gene_sets_by_the_parameters_name(tmp_path, monkeypatch):
    for place in ("cohorts/mine/clinical.csv", "networks/mine.csv", "genesets/mine.gmt"):
        write(tmp_path / place, "1")
    monkeypatch.setenv("TXT_DATA", str(tmp_path / "cohorts"))
    found = {name: build.library_input(name, "mine") for name in ("cohort", "other_cohorts", "network", "gene_sets")}
    folder = tmp_path / "cohorts/mine"
    assert found["cohort"] == found["other_cohorts"] == folder
    assert found["network"] == tmp_path / "networks/mine.csv" and found["gene_sets"] == tmp_path / "genesets/mine.gmt"
    assert build.library_input("group", "mine") is None and build.library_input("cohort", "gse7390") is None


def test_an_unknown_cohort_is_left_to_the_notebook(root):
    put(root, "02_beta", notebook(parameters='cohort = "nobody"'))
    assert prints(root)["02_beta"]


# --- execution ---


def test_stderr_is_a_fault_unless_removed():
    node = notebook("warn()")
    node.cells[2].outputs = [new_output("stream", name="stderr", text="Warning: old\nmore")]
    assert running.leaked(node)[0] == "cell 3 of 3, which wrote to stderr: Warning: old"
    node.cells[2].metadata.tags = ["remove-stderr"]
    assert running.leaked(node) == ("", "")


def test_stderr_ends_the_build(root, monkeypatch):
    node = notebook("warn()")
    node.cells[2].outputs = [new_output("stream", name="stderr", text="Warning: old")]
    monkeypatch.setattr(running, "_papermill", lambda *_: node)
    monkeypatch.chdir(root)
    job = running.Job(root, "01_alpha", {}, root / "target.ipynb", {}, 1)
    assert "Warning: old" in running._execute(job, root / "work.ipynb").failure


def test_the_environment_of_a_kernel(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    found = running.kernel_environment(tmp_path, 3)
    assert found["PYTHONPATH"] == f"{tmp_path}{os.pathsep}elsewhere"
    assert (found["OMP_NUM_THREADS"], found["PYTHONHASHSEED"]) == ("3", "0")
    assert "inline" in found["MPLBACKEND"]


def test_a_running_notebook_says_so(capsys, monkeypatch):
    monkeypatch.setattr(running, "HEARTBEAT", 0.01)
    with running.heartbeat(lambda: "06_training  cell 14 of 32  45 s"):
        time.sleep(0.1)
    assert "06_training  cell 14 of 32  45 s\n" in capsys.readouterr().out


def start(root: Path, *options: str) -> subprocess.Popen:
    """The runner in a process of its own, called from another folder."""
    code = """import build, pathlib, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits it as ignored
build.cpu_count = lambda: 2
sys.exit(build.main(sys.argv[2:], pathlib.Path(sys.argv[1]), None))"""
    return subprocess.Popen(
        [sys.executable, "-c", code, root, *options],
        cwd=root.parent,
        env=os.environ | {"PYTHONPATH": str(RUNNER)},
        stderr=subprocess.PIPE,
        text=True,
    )


def meet(mine: str, other: str) -> str:
    """The code of a cell that ends only when that of another notebook runs at the same time."""
    return f"""import pathlib, time
pathlib.Path("{mine}").touch()
end = time.monotonic() + 30
while not pathlib.Path("{other}").exists():
    assert time.monotonic() < end, "alone"
    time.sleep(0.05)"""


@pytest.fixture(scope="module")
def broken(tmp_path_factory) -> tuple[Path, int, str]:
    """A book whose first notebook fails, and what `make book PROFILE=real` said: root, exit code, stderr."""
    root = tiny_book(tmp_path_factory.mktemp("fails") / "a book")
    put(
        root,
        "01_alpha",
        notebook("x = size", meet("one", "two"), "raise ValueError(f'size is {x}')", "z = 1"),
    )
    put(root, "02_beta", notebook(meet("two", "one")))
    put(root, "03_gamma", notebook(needs=["01_alpha"]))
    write(root / "book/_toc.yml", f"{TOC}  - file: notebooks/03_gamma\n")
    write(root / "notebooks/profiles/real.yaml", "01_alpha: {size: 5}\n02_beta: {size: 5}")
    process = start(root, "--profile", "real")
    said = process.communicate(timeout=60)[1]
    return root, process.returncode, said


@pytest.mark.slow
def test_a_failing_cell_is_named(broken):
    root, code, said = broken
    assert code == 1
    assert "make book: notebook 01_alpha failed in cell 5 of 6: ValueError: size is 5" in said
    assert "raise ValueError(f'size is {x}')" in said
    assert "\x1b" not in said
    assert said.splitlines()[-1] == "No site was built."
    assert (root / "_build/failed/01_alpha.ipynb").is_file()


@pytest.mark.slow
def test_a_failure_leaves_nothing_that_is_taken_for_good(broken):
    root = broken[0]
    kept = [path.name for path in (root / "_build/executed/real").iterdir()]
    assert kept == ["02_beta.ipynb"]  # it ran beside; 03_gamma needs the one that failed
    assert not (root / "_build/html").exists()


@pytest.mark.slow
def test_an_executed_copy(broken):
    copy = broken[0] / "_build/executed/real/02_beta.ipynb"
    assert str(broken[0]) not in copy.read_text()
    node = read_notebook(copy)
    assert node.cells[2].source == "# Parameters\nsize = 5\n"
    assert node.cells[2].metadata.tags == ["injected-parameters", "hide-input"]
    assert node.metadata.run.profile == "real"
    assert 0 < node.metadata.run.seconds < 60
    assert 20 < node.metadata.run.peak_mb < 2000


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_the_end_of_a_build_is_the_end_of_its_kernels(root, sent):
    put(root, "01_alpha", notebook("import os, time\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(60)"))
    process = start(root, "--only", "1")
    pid = int(_wait_for(lambda: (root / "pid").exists() and (root / "pid").read_text()))
    process.send_signal(sent)
    said = process.communicate(timeout=20)[1]
    _wait_for(lambda: not alive(pid))
    assert not (root / "_build/executed/quick/01_alpha.ipynb").exists()
    if sent == signal.SIGINT:
        assert process.returncode == 130
        assert said.splitlines() == ["make book: interrupted", "No site was built."]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _wait_for(condition, seconds: float = 30):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("waited in vain")


# --- the ledger ---

REPOSITORY = RUNNER.parent
ENTER = """from txtlib.ledger import claim, enter, not_attempted, value
on = dict(cohort="Cohort <1>", patients=198, events=51, splits=10)
enter(
    claim("C1", {"against SVM": (0.03, 0.01, 0.05), "against RF": (0.0, -0.1, 0.1)}, **on),
    claim("C2", {"many tasks": (0.03, 0.01, 0.05)}, **on),
    claim("C2", {"many tasks": (0.03, -0.01, 0.05)}, **(on | {"cohort": "Cohort 2"})),
    value("T1-STL-SVM-OS-c_index", (0.66, 0.55, 0.76), **on),
    value("T1-STL-RF-OS-c_index", (0.5, 0.4, 0.6), **on),
    value("T1-STL-RF-OS-c_index", (0.7, 0.65, 0.75), **(on | {"cohort": "Cohort 2"})),
    not_attempted("C5", cohort="Cohort 2", why="no PAM50\\n\\nlabels"),
)"""


def entered(code: str = ENTER) -> dict[str, nbformat.NotebookNode]:
    """An executed notebook that enters what the library makes of the code, as JSON would keep it."""
    from txtlib import ledger as library

    kept = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "display", lambda data, raw, metadata: kept.append((data, metadata)))
        exec(code, {})
    node = notebook(code, text="# Alpha", parameters=None)
    node.cells[1].outputs = [
        new_output("display_data", data, metadata=json.loads(json.dumps(metadata))) for data, metadata in kept
    ]
    node.metadata["run"] = {"fingerprint": "x", "profile": "quick", "seconds": 1.0, "peak_mb": 1}
    return {"07_alpha": node}


def with_ledger(root: Path) -> Path:
    """Give a tiny book the ledger of the real one."""
    for name in ("published.csv", "claims.yml"):
        shutil.copyfile(REPOSITORY / "data" / name, root / "data" / name)
    page = "# Ledger\n\n{download}`ledger.csv <_generated/ledger.csv>`\n\n```{include} _generated/ledger.md\n```\n"
    write(root / "book/ledger.md", page)
    write(root / "book/_toc.yml", TOC.replace("  - file: book/cost\n", "  - file: book/cost\n  - file: book/ledger\n"))
    return root


def known() -> ledger.Known:
    return ledger.read_known(REPOSITORY / "data")


def tables(html: str) -> list[tuple[str, list[list[str]]]]:
    """The tables of a page, caption and rows; every merged cell stands in each of its rows."""
    found = []
    for table in BeautifulSoup(html, "html.parser").find_all("table"):
        rows, below = [], {}
        for row in table.tbody.find_all("tr"):
            cells, texts = iter(row.find_all("td")), []
            for column in range(len(table.thead.find_all("th"))):
                text, left = below.get(column) or (None, 0)
                if not left:
                    cell = next(cells)
                    text, left = cell.get_text(" ", strip=True), int(cell.get("rowspan", 1))
                below[column] = (text, left - 1)
                texts.append(text)
            assert next(cells, None) is None
            rows.append(texts)
        found.append((table.caption.get_text(), rows))
    return found


def test_a_book_without_a_ledger_has_none(root):
    assert ledger.read_known(root / "data") is None
    assert ledger_page.ledger_files(root / "data", {}, {}) == {}


def test_before_anything_is_entered_every_claim_and_number_has_one_row():
    claims, numbers = ledger.claim_rows(known(), []), ledger.number_rows(known(), [])
    assert [row.id for row in claims] == [*(f"C{n}" for n in range(1, 19)), "L1"]
    assert [row.id for row in numbers] == [number["id"] for number in known().numbers]
    said = {row.id: (row.entry["verdict"], row.entry["note"]) for row in (*claims, *numbers)}
    assert said["C4"] == said["S8-MTL-TxT-OS-c_index"] and said["C4"][0] == "cannot be attempted here"
    assert "TARGET-AML" in said["C4"][1]
    assert said["C17"] == ("not yet", "chapter 15 Restoring expression")
    assert said["T1-MTL-TxT-OS-c_index"] == said["C2"] == ("not yet", "chapter 07 Benchmark against baselines")
    assert {verdict for verdict, _ in said.values()} == {"not yet", "cannot be attempted here"}


def test_entries_take_the_place_of_the_rows_that_wait():
    found = ledger.entries(known(), entered())
    assert found[0]["page"] == "notebooks/07_alpha.html#ledger-C1-Cohort-1"
    claims = {(row.id, row.entry["cohort"]): row.entry["verdict"] for row in ledger.claim_rows(known(), found)}
    assert claims["C1", "Cohort <1>"] == "too small to tell" and ("C1", "") not in claims
    assert (claims["C2", "Cohort <1>"], claims["C2", "Cohort 2"]) == ("reproduced", "too small to tell")
    assert claims["C5", "Cohort 2"] == "not attempted" and claims["C3", ""] == "not yet"
    numbers = ledger.number_rows(known(), found)
    said = {row.id: (row.entry["verdict"], row.entry["note"]) for row in numbers}
    assert len(numbers) == len(known().numbers) + 1
    assert said["T1-STL-SVM-OS-c_index"][0] == "not comparable"
    assert said["T1-STL-MLP-OS-c_index"] == ("not attempted", "not among the numbers that 07_alpha measured")
    assert said["T1-MTL-TxT-OS-c_index"][0] == "not yet"  # of another claim, whose numbers nobody measured


def test_the_page_of_the_ledger():
    nodes = entered()
    page = ledger_page.ledger_files(REPOSITORY / "data", nodes, nodes)["ledger.md"]
    found = tables(page)
    numbers = known().numbers
    by_number = [row for caption, rows in found if ": " in caption for row in rows]
    assert len(by_number) == len(numbers) + 1  # one is measured on two cohorts
    captions = [caption for caption, _ in found if ": " in caption]
    assert captions[:3] == [
        "Overall survival: C-index.",
        "Overall survival: integrated Brier score.",
        "PAM50 subtype: accuracy.",
    ]
    assert {row[1] for row in by_number} == {number["value"] for number in numbers}
    c_index = next(rows for caption, rows in found if caption == "Overall survival: C-index.")
    assert c_index[1][:2] == c_index[2][:2] == ["RF, STL", "0.639"]
    assert c_index[0][2:] == [
        "0.660 (0.550 to 0.760) Cohort <1>: 198 patients, 51 events, 10 splits",
        "not comparable interval holds the published value",
    ]
    assert c_index[3][2:] == ["", "not attempted not among the numbers that 07_alpha measured"]
    counts = {row[0]: [int(count) for count in row[1:]] for row in found[0][1]}
    assert counts["all"] == [20, 116] and counts["not comparable"] == [0, 3] and counts["too small to tell"] == [2, 0]
    for column in (0, 1):
        assert sum(row[column] for name, row in counts.items() if name != "all") == counts["all"][column]
    assert 'rowspan="2" id="C2"' in page and 'chapter <a href="../notebooks/07_alpha.html">Alpha</a>' in page
    assert "C1 on Cohort &lt;1&gt;: its 2 comparisons" in page and len(dict(found)["C1."]) == 2
    assert "no PAM50 labels" in page
    assert all(line.endswith("</div>") for line in page.splitlines() if line.startswith("<div"))


def test_the_ledger_to_download():
    nodes = entered()
    text = ledger_page.ledger_files(REPOSITORY / "data", nodes, nodes)["ledger.csv"]
    rows = list(csv.DictReader(io.StringIO(text)))
    assert tuple(rows[0]) == ledger.COLUMNS
    assert len(rows) == 19 + 1 + 1 + 115 + 1  # C1 has two comparisons; C2 and a number two cohorts
    first, last = rows[0], rows[-1]
    assert (first["id"], first["compared"], first["mean"], first["events"]) == ("C1", "against SVM", "0.03", "51")
    assert (first["line_verdict"], first["verdict"], first["rule"]) == ("reproduced", "too small to tell", "better")
    assert (last["published"], last["verdict"], last["mean"]) == ("0.762", "not yet", "")


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("published.csv", "OS-c_index,C1,", "OS-c_index,,", "line 2 of data/published.csv (T1-STL-SVM-OS-c_index)"),
        ("published.csv", "OS-c_index,C1,", "OS-c_index,C99,", "belongs to no claim of data/claims.yml"),
        ("published.csv", "T1-STL-RF-OS-c_index", "T1-STL-SVM-OS-c_index", "has no id, or one that is taken"),
        ("published.csv", "T1-STL-RF-OS-c_index", "C1", "has no id, or one that is taken"),
        ("published.csv", "T1-STL-SVM-OS-c_index", "", "has no id"),
        ("published.csv", ",OS,c_index,", ",OS,cindex,", "does not list under `measures`"),
        ("claims.yml", "    rule: better\n", "", "claim C1 of data/claims.yml does not say: rule"),
        ("claims.yml", "rule: better", "rule: best", "claim C1 of data/claims.yml has the rule 'best'"),
        ("claims.yml", "chapter: 07 ", "chapter: ", "a chapter is a number and a title"),
        ("claims.yml", "state: cannot be", "state: could not be", "claim C4 of data/claims.yml: a state is"),
        ("claims.yml", "    state: cannot be attempted here\n", "", "claim C4 of data/claims.yml: a state is"),
    ],
)
def test_a_faulty_ledger_ends_the_build_before_any_cell_runs(root, file, old, new, said):
    path = with_ledger(root) / "data" / file
    build.read_book(root, "quick", no_inputs)
    head, found, tail = path.read_text().rpartition("\nclaims:\n")  # not in the comment on top
    write(path, head + found + tail.replace(old, new, 1))
    assert said in str(fault(root))


def test_entries_that_do_not_fit_end_the_build():
    nodes = entered()
    entry = nodes["07_alpha"].cells[1].outputs[0].metadata["ledger"][0]
    with pytest.raises(BuildError, match="C1 is entered twice for the cohort 'Cohort <1>': in 07_alpha and in 08_beta"):
        ledger.entries(known(), nodes | {"08_beta": nodes["07_alpha"]})
    entry["id"] = "C99"
    with pytest.raises(BuildError, match="notebook 07_alpha enters 'C99' in the ledger, but data/ has no such id"):
        ledger.entries(known(), nodes)
    nodes["07_alpha"].cells[1].metadata["tags"] = ["remove-cell"]
    with pytest.raises(BuildError, match="in a cell whose output its page does not show"):
        ledger.entries(known(), nodes)


def test_what_a_claim_or_a_published_number_touches(root):
    """A notebook that enters depends on both files; other notebooks and their pages do not."""
    with_ledger(root)
    shutil.copytree(REPOSITORY / "txtlib", root / "txtlib", dirs_exist_ok=True)
    put(root, "02_beta", notebook(ENTER))
    for name in ("published.csv", "claims.yml"):
        before = prints(root)
        write(root / "data" / name, (root / "data" / name).read_text() + "\n")
        assert changed(root, before) == ["02_beta"]


def test_a_changed_claim_renders_the_site_again(root):
    with_ledger(root)
    nodes = entered()
    before = rendering.site_fingerprint(rendering.stage(root, nodes, nodes, []), root, "quick")
    assert rendering.site_fingerprint(rendering.stage(root, nodes, nodes, []), root, "quick") == before
    claims = root / "data/claims.yml"
    claims.write_text(claims.read_text().replace("Every attention head matters", "Each head matters"))
    after = rendering.stage(root, nodes, nodes, [])
    assert rendering.site_fingerprint(after, root, "quick") != before
    assert "Each head matters" in (after / "book/_generated/ledger.md").read_text()


# --- the site ---


def executed_copy(root: Path, stem: str, *keys: str) -> None:
    """What an execution would have left: a current copy that glues some keys."""
    book = build.read_book(root, "quick", no_inputs)
    node = book.notebooks[stem]
    node.cells[2].outputs = [
        new_output("display_data", {"text/plain": "1"}, metadata={"scrapbook": {"name": key}}) for key in keys
    ]
    node.metadata["run"] = {
        "fingerprint": book.prints[stem],
        "profile": "quick",
        "seconds": 1.0,
        "peak_mb": 1,
    }
    book.copy(stem).parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(node, book.copy(stem))


@pytest.mark.parametrize(
    ("alpha", "beta", "said"),
    [
        (["alpha_size"], ["alpha_size", "beta_value"], "'alpha_size' is used twice"),
        (["alpha_size"], [], "book/index asks for the glue key 'beta_value'"),
    ],
)
def test_glue_faults_end_the_build(root, capsys, alpha, beta, said):
    executed_copy(root, "01_alpha", *alpha)
    executed_copy(root, "02_beta", *beta)
    assert make(root) == 1
    assert said in capsys.readouterr().err


def test_complaints_are_few():
    log = "reading\n/b/_build/src/book/index.md:3: WARNING: bad\ncopying\n"
    assert rendering.complaints(log, Path("/b/_build/src")) == ["book/index.md:3: WARNING: bad"]
    assert rendering.complaints("Traceback\nboom\n", Path("/b")) == ["Traceback", "boom"]


def test_a_kill_between_the_two_renames_is_repaired(tmp_path):
    write(tmp_path / "_build/html.old/.complete.json", '{"profile": "quick"}')
    assert rendering.standing(tmp_path) == {"profile": "quick"}
    assert (tmp_path / "_build/html").is_dir()


def test_a_site_without_its_marker_is_none(tmp_path):
    write(tmp_path / "_build/html/index.html", "half")
    assert rendering.standing(tmp_path) == {}


@pytest.mark.parametrize("folder", ["_build", "_build/report/mine"])
def test_the_log_lies_beside_the_site_and_is_named(tmp_path, monkeypatch, capfd, folder):
    monkeypatch.setattr(rendering, "JUPYTER_BOOK", (sys.executable, "-c", "print('boom'); raise SystemExit(1)"))
    site = None if folder == "_build" else tmp_path / folder / "html"
    with pytest.raises(BuildError, match=f"its log is {folder}/render.log$"):
        rendering.render(tmp_path, tmp_path / "src", [], {}, site)
    monkeypatch.setattr(rendering, "JUPYTER_BOOK", (sys.executable, "-c", ""))
    with pytest.raises(BuildError, match=f"no page of book/a; its log is {folder}/render.log$"):
        rendering.render(tmp_path, tmp_path / "src", ["book/a"], {}, site)
    assert (tmp_path / folder / "render.log").is_file() and capfd.readouterr().err == "boom\n"


def test_a_site_that_its_check_refuses_leaves_the_last_one(tmp_path, monkeypatch):
    def refuse(site):
        raise BuildError(f"no {(site / 'index.html').read_text()}")

    write(tmp_path / "mine/html/index.html", "the last one")
    monkeypatch.setattr(
        rendering, "jupyter_book", lambda source, output, log, root: write(output / "_build/html/index.html", "good")
    )
    with pytest.raises(BuildError, match="no good"):
        rendering.render(tmp_path, tmp_path / "src", ["index"], {}, tmp_path / "mine/html", refuse)
    assert (tmp_path / "mine/html/index.html").read_text() == "the last one"
    rendering.render(tmp_path, tmp_path / "src", ["index"], {"profile": "quick"}, tmp_path / "mine/html")
    assert rendering.standing(tmp_path, tmp_path / "mine/html")["profile"] == "quick"
    assert (tmp_path / "mine/html/index.html").read_text() == "good" and not rendering.standing(tmp_path)


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A tiny book, built in full: the only fixture that renders all pages."""
    root = with_ledger(tiny_book(tmp_path_factory.mktemp("built") / "a book"))
    shutil.copytree(REPOSITORY / "txtlib", root / "txtlib", dirs_exist_ok=True)
    edit(root, "02_beta", lambda node: node.cells.append(new_code_cell(ENTER)))
    assert make(root, "--only", "02") == 0
    html = (root / "_build/html/notebooks/01_alpha.html").read_text()
    assert "Not executed in this build" in html
    assert "not executed" in (root / "_build/html/book/index.html").read_text()
    assert json.loads((root / "_build/html/.complete.json").read_text())["executed"] == ["02_beta"]
    assert make(root) == 0
    return root


@pytest.mark.slow
def test_the_site_holds_what_was_executed(built):
    index = (built / "_build/html/book/index.html").read_text()
    assert "Alpha has" in index
    assert '<span class="pasted-text">3</span>' in index
    assert "return size * one()" in " ".join(index.replace("<", " <").replace(">", "> ").split()) or "one" in index
    marker = json.loads((built / "_build/html/.complete.json").read_text())
    assert marker["executed"] == ["01_alpha", "02_beta"]
    assert marker["pages"] == ["book/index", "book/cost", "book/ledger", "notebooks/01_alpha", "notebooks/02_beta"]
    cost = (built / "_build/html/book/cost.html").read_text()
    assert "Alpha | one" in cost and "quick" in cost and "Machine:" in cost


@pytest.mark.slow
def test_the_ledger_links_to_the_cells_that_entered_and_to_the_table(built):
    site = built / "_build/html"
    page = BeautifulSoup((site / "book/ledger.html").read_text(), "html.parser").article
    links = [link["href"] for link in page.find_all("a") if "#ledger-" in link.get("href", "")]
    assert len(links) == 7
    for link in links:
        file, anchor = link.split("#")
        there = BeautifulSoup((site / "book" / file).read_text(), "html.parser")
        assert len(there.find_all(id=anchor)) == 1
    verdicts = [row[-1] for _, rows in tables("".join(map(str, page.find_all(class_="ledger")))) for row in rows]
    assert sum(verdict.startswith("not comparable") for verdict in verdicts) == 3
    download = page.find("a", class_="download")["href"]
    assert (site / "book" / download).read_text().startswith("kind,id,claim,")
    assert "The claims" in [heading.get_text().rstrip("#") for heading in page.find_all("h2")]


@pytest.mark.slow
def test_a_second_build_does_nothing_and_a_changed_file_only_its_own(built, capfd):
    start = time.monotonic()
    assert make(built) == 0
    assert time.monotonic() - start < 5
    said = capfd.readouterr().out
    assert said.count("unchanged") == 3  # two notebooks and the site
    assert "starts" not in said
    assert said.splitlines()[-1] == f"The book: {built / '_build/html/index.html'}"
    write(built / "txtlib/shared.py", "def one():\n    return 2\n")
    assert make(built) == 0
    said = capfd.readouterr().out
    assert "01_alpha  starts" in said and "02_beta  starts" not in said
    assert '<span class="pasted-text">6</span>' in (built / "_build/html/book/index.html").read_text()


@pytest.mark.slow
def test_a_page_that_sphinx_rejects_leaves_the_good_site(built, capfd):
    index = (built / "book/index.md").read_text()
    write(built / "book/index.md", f"{index}\n[](nowhere.md)\n")
    before = (built / "_build/html/.complete.json").read_text()
    assert make(built) == 1
    said = capfd.readouterr().err
    write(built / "book/index.md", index)
    assert "book/index.md:12: WARNING:" in said and str(built) not in said and "\x1b" not in said
    assert "The site in _build/html is from the last good build (quick," in said.splitlines()[-1]
    assert (built / "_build/html/.complete.json").read_text() == before
