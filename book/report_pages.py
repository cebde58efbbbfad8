"""The pages of a report: chapters as executed, without exercises and without links to what a report does not hold."""

import posixpath
import re
import shutil
from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path

import glue
import nbformat
import yaml
from dressing import anchored
from nbformat import NotebookNode
from reading import prose, tags
from rendering import write
from report_case import Report
from report_cover import NO_CLINICAL_USE, cover, plain_text

STAGED = ("book/references.bib", "book/_static/**/*", "txtlib/**/*.py")
BACK = ("book/glossary", "book/references")  # pages of the book that chapters lean on
LINK = re.compile(r"(?<!!)\[([^\[\]]+)\]\((?!https?:|mailto:|#)([^)#\s]+)(?:#[^)\s]*)?\)")


def stage(found: Report, executed: dict[str, NotebookNode]) -> Path:
    """Write what jupyter-book reads into a fresh folder, and return it."""
    folder = found.place / "src"
    shutil.rmtree(folder, ignore_errors=True)
    for file in (file for pattern in STAGED for file in found.root.glob(pattern) if file.is_file()):
        target = folder / file.relative_to(found.root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    missing = {path.stem for path in (found.root / "notebooks").glob("*.ipynb")} - executed.keys()
    pages = pages_of(found, executed)
    nodes = {stem: as_page(found, stem, node, pages, missing) for stem, node in executed.items()}
    asked = [use for stem, node in nodes.items() for use in glue.uses(f"notebooks/{stem}", prose(node))]
    glue.check(asked, {stem: glue.glued(node) for stem, node in executed.items()}, executed)
    for stem, node in nodes.items():
        write(folder / "notebooks" / f"{stem}.ipynb", nbformat.writes(node) + "\n")
    for page in set(BACK).intersection(pages):
        text = (found.root / f"{page}.md").read_text(encoding="utf-8")
        write(folder / f"{page}.md", without_links(glue.without_roles(page, text, missing), pages))
    config = yaml.safe_load((found.root / "_config.yml").read_text(encoding="utf-8"))
    toc = {"format": "jb-book", "root": pages[0], "chapters": [{"file": page} for page in pages[1:]]}
    write(folder / "_config.yml", yaml.safe_dump(config | {"title": f"{found.case.cohort.name}: a report"}))
    write(folder / "book" / "_toc.yml", yaml.safe_dump(toc))
    write(folder / "book" / "index.md", cover(found, executed))
    return folder


def pages_of(found: Report, executed: Iterable[str]) -> list[str]:
    """Return the pages of a report in their order, as jupyter-book names them."""
    back = [page for page in BACK if (found.root / f"{page}.md").is_file()]
    return ["book/index", *(f"notebooks/{stem}" for stem in executed), *back]


def as_page(found: Report, stem: str, node: NotebookNode, pages: list[str], missing: set[str]) -> NotebookNode:
    """Return an executed chapter as a page: a note under its title, links and glue that stay within the report.

    Exercises are left out, and so is what a cell wrote to stderr; the cover names it.
    """
    node = anchored(without_exercises(node))
    for cell in node.cells:
        if cell.cell_type == "markdown":
            cell.source = without_links(glue.without_roles(f"notebooks/{stem}", cell.source, missing), pages)
        else:
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            cell.metadata["tags"] = _folded(tags(cell))
    said = f"This is a chapter of the book, made on {plain_text(found.case.cohort.name)}."
    top = f"# {found.headings[stem]}\n\n{NO_CLINICAL_USE.replace('WHAT', said)}"
    node.cells[0].source = re.sub(r"^# .+$", lambda _: top, node.cells[0].source, count=1, flags=re.M)
    return node


def _folded(found: list[str]) -> list[str]:
    """Show the values that a chapter ran with, and fold its own defaults, which would be taken for them."""
    if "injected-parameters" in found:
        return [tag for tag in found if tag != "hide-input"]
    return [*found, "hide-input"] if "parameters" in found else found


def without_exercises(node: NotebookNode) -> NotebookNode:
    """Return a notebook as far as its exercises, which are the end of a chapter."""
    node = deepcopy(node)
    for place, cell in enumerate(node.cells):
        text, found, _ = cell.source.partition("## Exercises")
        if cell.cell_type == "markdown" and found:
            cell.source = text.rstrip()
            return NotebookNode(node, cells=node.cells[: place + 1])
    return node


def without_links(text: str, pages: list[str]) -> str:
    """Replace links to what a report does not hold by their words; pages lie in book/ and notebooks/, side by side."""

    def words(match: re.Match) -> str:
        page = posixpath.normpath(posixpath.join("notebooks", match[2]))
        return match[0] if re.sub(r"\.(md|ipynb)$", "", page) in pages else match[1]

    return LINK.sub(words, text)
