"""What the book adds to a notebook on its way to a page: anchors, stubs of exercises, passports, what it costs."""

import re
from copy import deepcopy

from exercises import EVIDENCE, TAKEAWAYS, exercises, shown
from longer import longer_box
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell
from passport import with_passports
from reading import prose, tags

WORDS, LINES, EXERCISE = 180, 8, 15  # words and lines of code in a minute, minutes for an exercise
FOLDED = {"hide-input", "hide-cell", "remove-cell", "remove-input", "solution"}


def dressed(stem: str, node: NotebookNode, cost: dict[str, dict], longer: dict | None = None) -> NotebookNode:
    """Return a notebook as it goes into the book; ``cost`` {profile: what its run took} is what was measured.

    ``longer`` is what a longer run of it found (book/longer.py).
    """
    box = new_markdown_cell(cost_box(stem, node, cost), id="cost-of-page")
    node = anchored(shown(with_longer(stem, deepcopy(node), longer or {})))
    if "run" in node.metadata:
        node = with_passports(stem, node)
    node.cells[1:1] = [box]
    return node


def with_longer(stem: str, node: NotebookNode, run: dict) -> NotebookNode:
    """Put the takeaways of a longer run after those of this one; the notebook is changed."""
    text = longer_box(stem, node, run) if run and run["profile"] != node.metadata.get("run", {}).get("profile") else ""
    at = next((place for place, cell in enumerate(node.cells) if TAKEAWAYS in cell.source), None)
    if text and at is not None:
        node.cells.insert(at + 1, new_markdown_cell(text, id="longer-run"))
    return node


def anchored(node: NotebookNode) -> NotebookNode:
    """Put an anchor `cell-ID` before each code cell that the text links to, so that a claim leads to its evidence."""
    wanted, cells = set(EVIDENCE.findall(prose(node))), []
    for cell in node.cells:
        if cell.cell_type == "code" and cell.id in wanted:
            cells.append(new_markdown_cell(f'<span id="cell-{cell.id}"></span>', id=f"at-{cell.id}"))
        cells.append(cell)
    node.cells = cells
    return node


def minutes(stem: str, node: NotebookNode) -> dict[str, int]:
    """Return the minutes that a page asks of a reader: for its text and visible code, and for its exercises.

    A rough formula that is the same for all pages: WORDS words or LINES lines of code a minute, EXERCISE minutes an
    exercise.
    """
    words = len(re.sub(r"```.*?```", "", prose(node), flags=re.S).split())
    return {
        "reading": round(words / WORDS + visible_lines(node) / LINES),
        "exercises": EXERCISE * len(exercises(stem, node)),
    }


def visible_lines(node: NotebookNode) -> int:
    """Return the lines of code that a page shows unfolded."""
    code = [cell for cell in node.cells if cell.cell_type == "code" and not FOLDED & set(tags(cell))]
    return sum(len(cell.source.splitlines()) for cell in code)


def cost_box(stem: str, node: NotebookNode, cost: dict[str, dict]) -> str:
    """Return the box under a page's title that says what it takes to read and to run it."""
    asked = minutes(stem, node)
    runs = [_run(profile, one) for profile, one in cost.items()]
    return "\n".join(
        [
            "```{admonition} What this page takes",
            ":class: note book-cost",
            f"**To read:** about {asked['reading']} minutes, and {asked['exercises']} for the exercises.",
            f"**To run:** {'; '.join(runs) or 'not measured yet'}. Nothing is downloaded; `real` reads cohorts "
            "on disk.",
            "```",
        ]
    )


def _run(profile: str, one: dict) -> str:
    return f"`{profile}` {one['seconds']:.0f} s and {one['peak_mb']:,} MB"
