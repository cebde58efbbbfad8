"""From executed notebooks to a site: stage the sources, run jupyter-book on them, swap a good site in."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path

import nbformat
from borrowed import borrowed_figures
from budget import costs
from dressing import dressed
from explorer_page import explorer_files
from fingerprint import content, digest
from glue import Use, without_roles
from joblib import cpu_count
from launch import with_buttons
from ledger_page import ledger_files
from longer import kept, kept_entries
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output
from reading import BuildError, title
from registry import sources_tables
from running import plain
from teaching import teaching_files

SITE = Path("_build") / "html"  # of a book, from its root
# What a page may be, show or include, beside the notebooks.
STAGED = (
    "*.md",
    "LICENSE",
    "CITATION.cff",
    "_config.yml",
    "book/**/*",
    "data/*",
    "notebooks/profiles/*.yaml",
    "txtlib/**/*.py",
)
RUNNER = ("book/*.py", "book/__pycache__/*")
NOT_EXECUTED = "```{note}\nNot executed in this build: the page shows text and code, but no results.\n```"
JUPYTER_BOOK = (sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build")


def stage(root: Path, notebooks: dict[str, NotebookNode], executed: dict[str, NotebookNode], asked: list[Use]) -> Path:
    """Write what jupyter-book reads into a fresh `_build/src`, and return that folder.

    A notebook that was never `executed` is staged bare, with stand-ins for the glue that pages ask it for.
    """
    folder = root / "_build" / "src"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "notebooks").mkdir(parents=True)
    missing, runs = notebooks.keys() - executed.keys(), kept(root)
    for file in _sources(root):
        _copy(root / file, folder / file, missing)
    for stem, node in notebooks.items():
        keys = sorted({use.key for use in asked if use.notebook == stem})
        page = executed.get(stem) or stand_in(node, keys)
        shown = dressed(stem, page, costs(root, stem, executed), runs.get(stem))
        nbformat.write(_without_roles(stem, shown, missing), folder / "notebooks" / f"{stem}.ipynb")
    for name, text in _generated(root, notebooks, executed).items():
        write(folder / "book" / "_generated" / name, text)
    return folder


def _generated(root: Path, notebooks: dict[str, NotebookNode], executed: dict[str, NotebookNode]) -> dict[str, str]:
    """Return {name: text} of what the pages of `book/` include."""
    sources, seconds = root / "data" / "sources.yml", {k: node.metadata.run.seconds for k, node in executed.items()}
    return {
        "cost.md": cost_table({stem: title(node, stem) for stem, node in notebooks.items()}, executed),
        **({"sources.md": sources_tables(sources)} if sources.is_file() else {}),
        **explorer_files(root),
        **borrowed_figures(root, notebooks, executed),
        **teaching_files(root, notebooks, seconds),
        **ledger_files(root / "data", notebooks, executed, kept_entries(root)),
    }


def _sources(root: Path) -> Iterator[Path]:
    for pattern in STAGED:
        for file in root.glob(pattern):
            if file.is_file() and not any(file.match(runner) for runner in RUNNER):
                yield file.relative_to(root)


def write(file: Path, text: str) -> None:
    """Write a text, in a folder that need not be there yet."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def _copy(file: Path, target: Path, missing: set[str]) -> None:
    if file.suffix == ".md":
        write(target, without_roles(file.stem, file.read_text(encoding="utf-8"), missing))
    elif file.name == "_config.yml":
        write(target, with_buttons(file.read_text(encoding="utf-8")))
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)


def _without_roles(stem: str, node: NotebookNode, missing: set[str]) -> NotebookNode:
    node = deepcopy(node)
    for cell in node.cells:
        if cell.cell_type == "markdown":
            cell.source = without_roles(f"notebooks/{stem}", cell.source, missing)
    return node


def stand_in(node: NotebookNode, keys: Iterable[str]) -> NotebookNode:
    """Return a bare notebook with a note under its title, and words for every glue key of `keys`."""
    text = "not executed"
    data = {"text/plain": text, "text/markdown": text, "text/latex": rf"$\text{{{text}}}$"}
    glued = [new_output("display_data", data, metadata={"scrapbook": {"name": key}}) for key in keys]
    hidden = new_code_cell(outputs=glued, metadata={"tags": ["remove-cell"]})
    cells = [*node.cells[:1], new_markdown_cell(NOT_EXECUTED), *node.cells[1:], hidden]
    language = NotebookNode(name="python", pygments_lexer="ipython3")  # papermill writes this when it executes
    return NotebookNode(node, cells=cells, metadata=NotebookNode(language_info=language))


def cost_table(titles: dict[str, str], executed: dict[str, NotebookNode]) -> str:
    """Return the cost table in Markdown, for a page of `book/` to include; both dictionaries go by notebook stem."""
    rows = [_cost_row(stem, name, executed.get(stem)) for stem, name in titles.items()]
    runs = [node.metadata.run for node in executed.values()]
    seconds, peak = sum(run.seconds for run in runs), max((run.peak_mb for run in runs), default=0)
    python = ".".join(map(str, sys.version_info[:3]))
    return "\n".join(
        [
            "| page | seconds | peak memory (MB) | profile |",
            "|:--|--:|--:|:--|",
            *rows,
            f"| all (sum, maximum) | {seconds:.1f} | {peak} | |",
            "",
            f"Machine: {cpu_count()} cores, Python {python}.",
            "",
        ]
    )


def _cost_row(stem: str, name: str, executed: NotebookNode | None) -> str:
    link = f"[{name}](../notebooks/{stem}.ipynb)".replace("|", r"\|")
    if executed is None:
        return f"| {link} | not executed | | |"
    run = executed.metadata.run
    return f"| {link} | {run.seconds} | {run.peak_mb} | {run.profile} |"


def site_fingerprint(source: Path, root: Path, profile: str) -> str:
    """Return the fingerprint of a site: everything staged, the versions, and the profile."""
    versions = root / "constraints.txt"
    return digest(content(source), content(versions) if versions.is_file() else "", sys.version, profile)


def standing(root: Path, site: Path | None = None) -> dict:
    """Return the marker of the good site in `site` (None: `_build/html`), {} where there is none.

    A build that was killed between two renames has left the good site aside: it comes back first.
    """
    site = site or root / SITE
    aside = _aside(site)
    if aside.is_dir() and not site.is_dir():
        os.replace(aside, site)
    marker = site / ".complete.json"
    return json.loads(marker.read_text(encoding="utf-8")) if marker.is_file() else {}


def render(
    root: Path,
    source: Path,
    pages: list[str],
    marker: dict,
    site: Path | None = None,
    check: Callable[[Path], None] | None = None,
) -> None:
    """Render the staged sources into `site` (None: `_build/html`); a site that is not good never gets there.

    Raises BuildError for a warning of jupyter-book, for a page that it left out, and for what `check`, given the
    folder of the fresh site, finds wrong. The log lies beside the site.
    """
    site = site or root / SITE
    output, log = site.with_name("rendering"), site.with_name("render.log")
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    jupyter_book(source, output, log, root=root)
    fresh = output / "_build" / "html"
    for page in pages:
        if not (fresh / f"{page}.html").is_file():
            raise BuildError(f"jupyter-book made no page of {page}; its log is {log.relative_to(root).as_posix()}")
    marker = {**marker, "pages": pages, "built_at": datetime.now(UTC).isoformat(timespec="seconds")}
    write(fresh / ".complete.json", json.dumps(marker, indent=1))
    if check:
        check(fresh)
    _swap(fresh, site)
    shutil.rmtree(output)


def jupyter_book(source: Path, output: Path, log: Path, builder: str = "html", root: Path | None = None) -> None:
    """Run jupyter-book on a staged folder; raise BuildError for any warning, with the complaints on stderr.

    The message names the log as seen from `root` (None: the folder that holds the log's own, `_build`).
    """
    config, toc = source / "_config.yml", source / "book" / "_toc.yml"
    paths = [source, "--config", config, "--toc", toc, "--path-output", output, "--builder", builder]
    command = [*JUPYTER_BOOK, *map(str, paths), "-W", "-n", "--keep-going"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    said = plain(done.stdout)  # jupyter-book colours even a pipe
    write(log, said)
    if done.returncode:
        print("\n".join(complaints(said, source)), file=sys.stderr)
        seen = log.relative_to(root or log.parents[1]).as_posix()
        raise BuildError(f"jupyter-book rejects the book for the reasons above; its log is {seen}")


def complaints(log: str, source: Path) -> list[str]:
    """Return the warnings and errors in a log of jupyter-book, paths from the root; else its last lines."""
    lines = [line for line in log.replace(f"{source}{os.sep}", "").splitlines() if line.strip()]
    found = [line for line in lines if any(word in line for word in ("WARNING:", "ERROR:", "CRITICAL:"))]
    return found or lines[-15:]


def _aside(site: Path) -> Path:
    return site.with_name(f"{site.name}.old")


def _swap(new: Path, site: Path) -> None:
    """Put a folder in the place of another; `standing` repairs what a kill in between leaves."""
    aside = _aside(site)
    shutil.rmtree(aside, ignore_errors=True)
    if site.exists():
        os.replace(site, aside)
    os.replace(new, site)
    shutil.rmtree(aside, ignore_errors=True)
