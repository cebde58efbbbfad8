"""Figures that a page of `book/` borrows from a notebook: it includes `_generated/figure_07_CELLID.md`."""

import re
from copy import deepcopy
from pathlib import Path

from bs4 import BeautifulSoup
from nbformat import NotebookNode
from passport import with_passports
from reading import BuildError

ASKED = re.compile(r"_generated/(figure_(\d\d)_([\w-]+)\.md)")
ABSENT = "*(The figure that stands here was not executed in this build.)*\n"


def borrowed_figures(root: Path, notebooks: dict[str, NotebookNode], executed: dict[str, NotebookNode]) -> dict:
    """Return {name of the file: the figure as raw HTML}; raise BuildError for a cell that is absent or draws none."""
    found = {}
    for page in sorted((root / "book").glob("*.md")):
        for name, number, cell in ASKED.findall(page.read_text(encoding="utf-8")):
            stem = next((stem for stem in notebooks if stem.split("_")[0] == number), "")
            if not any(one.id == cell for one in notebooks.get(stem, NotebookNode(cells=[])).cells):
                raise BuildError(f"book/{page.name} borrows the figure of cell {cell} of notebook {number}: not there")
            found[name] = _figure(stem, executed[stem], cell) if stem in executed else ABSENT
    return found


def _figure(stem: str, node: NotebookNode, cell: str) -> str:
    one = next(each for each in with_passports(stem, deepcopy(node)).cells if each.id == cell)
    texts = [output.get("data", {}).get("text/html", "") for output in one.outputs]
    figures = BeautifulSoup("".join(texts), "html.parser").select("figure.book-figure")
    if not figures:
        raise BuildError(f"cell {cell} of notebook {stem}, whose figure another page borrows, draws none")
    return f"```{{raw}} html\n{' '.join(str(figures[0]).split())}\n```\n"
