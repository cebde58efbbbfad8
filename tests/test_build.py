"""The runner, on a tiny book in a folder whose name holds a space."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

RUNNER = Path(__file__).resolve().parents[1] / "book"
sys.path.insert(0, str(RUNNER))

import build  # noqa: E402
import glue  # noqa: E402
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
    found = {name: build._library_input(name, "mine") for name in ("cohort", "other_cohorts", "network", "gene_sets")}
    folder = tmp_path / "cohorts/mine"
    assert found["cohort"] == found["other_cohorts"] == folder
    assert found["network"] == tmp_path / "networks/mine.csv" and found["gene_sets"] == tmp_path / "genesets/mine.gmt"
    assert build._library_input("group", "mine") is None and build._library_input("cohort", "gse7390") is None


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


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A tiny book, built in full: the only fixture that renders all pages."""
    root = tiny_book(tmp_path_factory.mktemp("built") / "a book")
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
    assert marker["pages"] == ["book/index", "book/cost", "notebooks/01_alpha", "notebooks/02_beta"]
    cost = (built / "_build/html/book/cost.html").read_text()
    assert "Alpha | one" in cost and "quick" in cost and "Machine:" in cost


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
