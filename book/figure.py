"""`make figure N=06 CELL=5ba24b32`: draw the figures of one cell again, and nothing after it, into `_build/figures`.

`make figures` takes all figures of the executed book from the copies as they are, for slides.
"""

import argparse
import base64
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import papermill
from bs4 import BeautifulSoup
from build import ROOT, library_input, read_book, wanted_notebooks
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError
from reading import BuildError, read_notebook, told
from running import kernel_environment, say


def pictures(node: NotebookNode) -> Iterator[tuple[str, str, bytes, str]]:
    """Yield the id of the cell, the suffix, the bytes and the caption of each figure of an executed notebook."""
    for cell in node.cells:
        for output in cell.get("outputs", []):
            page = BeautifulSoup(output.get("data", {}).get("text/html", ""), "html.parser")
            for figure in page.select("figure.book-figure"):
                caption = figure.figcaption.get_text(" ", strip=True) if figure.figcaption else ""
                yield cell.id, *_picture(figure), caption


def _picture(figure) -> tuple[str, bytes]:
    if figure.img:
        return "png", base64.b64decode(figure.img["src"].split(",", 1)[1])
    return "svg", str(figure.select_one("svg.book-picture")).encode()


def write_pictures(stem: str, node: NotebookNode, folder: Path, cell: str = "") -> list[Path]:
    """Write the figures of a notebook, or of one cell of it, with a list of their captions; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written, captions = [], []
    for number, (where, suffix, data, caption) in enumerate(pictures(node), start=1):
        if cell in ("", where):
            path = folder / f"{stem.split('_')[0]}-{number}.{suffix}"
            path.write_bytes(data)
            written.append(path)
            captions.append(f"{path.name}: {caption}")
    if written:
        (folder / f"{stem.split('_')[0]}-captions.txt").write_text("\n".join(captions) + "\n", encoding="utf-8")
    return written


def up_to(node: NotebookNode, cell: str) -> NotebookNode:
    """Return a notebook that ends with a cell; raise BuildError (exit code 2) if it has no such code cell."""
    ids = [one.id for one in node.cells if one.cell_type == "code"]
    if cell not in ids:
        raise BuildError(f"no code cell has the id {cell!r}; a figure's passport names it", code=2)
    end = next(place for place, one in enumerate(node.cells) if one.id == cell)
    return NotebookNode(node, cells=node.cells[: end + 1])


def draw(root: Path, profile: str, number: str, cell: str) -> list[Path]:
    """Run a notebook as far as a cell and write that cell's figures."""
    book = read_book(root, profile, library_input)
    stem = next(name for name in wanted_notebooks(book.notebooks, number) if name.split("_")[0] == number.zfill(2))
    work = root / "_build" / "figures" / f"{stem}-{cell}.ipynb"
    work.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(up_to(book.notebooks[stem], cell), work)
    os.environ.update(kernel_environment(root, 1))
    os.chdir(root)
    options = dict(kernel_name="python3", language="python", progress_bar=False, log_output=False)
    try:
        node = papermill.execute_notebook(str(work), str(work), parameters=book.parameters[stem], **options)
    except PapermillExecutionError as error:
        raise BuildError(f"notebook {stem} failed before its cell {cell}: {error.ename}: {error.evalue}") from error
    finally:
        work.unlink(missing_ok=True)
    found = write_pictures(stem, node, root / "_build" / "figures", cell)
    if not found:
        raise BuildError(f"cell {cell} of notebook {stem} draws no figure; a figure's passport names its cell", code=2)
    return found


def collect(root: Path, profile: str) -> list[Path]:
    """Write all figures of the notebooks that were executed with a profile."""
    copies = sorted((root / "_build" / "executed" / profile).glob("*.ipynb"))
    if not copies:
        raise BuildError(
            f"no notebook was executed with the profile {profile!r} yet: make book PROFILE={profile}", code=2
        )
    return [
        path for copy in copies for path in write_pictures(copy.stem, read_notebook(copy), root / "_build" / "figures")
    ]


def main() -> None:
    """Draw one figure, or collect all, and say where they are."""
    parser = argparse.ArgumentParser(prog="make figure", description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="quick")
    parser.add_argument("--number", default="", help="the number of a notebook, say 06 (none: all that are executed)")
    parser.add_argument("--cell", default="", help="the id of a cell, as a figure's passport names it")
    options = parser.parse_args()
    asked = bool(options.number and options.cell)
    found = draw(ROOT, options.profile, options.number, options.cell) if asked else collect(ROOT, options.profile)
    for path in found:
        say(path.relative_to(ROOT))


if __name__ == "__main__":
    sys.exit(told("make figure", main))
