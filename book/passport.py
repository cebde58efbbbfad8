"""The passport of a figure: folded under it, where it comes from and the one command that draws it again."""

import html
import json
import re

from nbformat import NotebookNode
from reading import declared

FIGURE_END = "</figure>"
FIGURE = '<figure class="book-figure">'
LONG = 120  # characters of one parameter, above which its end is left out
TIMES = ("seconds", "started")


def with_passports(stem: str, node: NotebookNode) -> NotebookNode:
    """Return an executed notebook whose figures carry their passports; the notebook itself is changed."""
    for cell in node.cells:
        for output in cell.get("outputs", []):
            text = output.get("data", {}).get("text/html", "")
            if FIGURE in text:
                body, end = text.rsplit(FIGURE_END, 1)
                output["data"]["text/html"] = body + passport(stem, node, cell) + FIGURE_END + end
    return node


def passport(stem: str, node: NotebookNode, cell: NotebookNode) -> str:
    """Return the passport of a figure of a cell as HTML that stays folded until it is asked for."""
    rows = "".join(f"<dt>{html.escape(name)}</dt><dd>{value}</dd>" for name, value in facts(stem, node, cell).items())
    return f'<details class="book-passport"><summary>Where this figure comes from</summary><dl>{rows}</dl></details>'


def facts(stem: str, node: NotebookNode, cell: NotebookNode) -> dict[str, str]:
    """Return what a passport says, {name: HTML}."""
    run, values = node.metadata.run, used(stem, node)
    seeds = {name: value for name, value in values.items() if "seed" in name}
    return {
        "Notebook and cell": f"<code>notebooks/{stem}.ipynb</code>, cell <code>{cell.id}</code>",
        "Data": _listed(run.get("inputs", {}), "drawn by the book's own code") or "none but what the code makes",
        "Seeds": _listed({name: json.dumps(value) for name, value in seeds.items()}) or "fixed in the code",
        "Parameters": _listed({name: _short(value) for name, value in values.items() if name not in seeds}),
        "Versions": ", ".join(f"{name} {version}" for name, version in run.get("versions", {}).items()),
        "Made": _made(run, cell),
        "Draw it again": f"<code>{html.escape(command(stem, cell, run.profile))}</code>",
    }


def command(stem: str, cell: NotebookNode, profile: str) -> str:
    """Return the command that draws the figures of one cell."""
    named = "" if profile == "quick" else f" PROFILE={profile}"
    return f"make figure N={stem.split('_')[0]} CELL={cell.id}{named}"


def used(stem: str, node: NotebookNode) -> dict[str, object]:
    """Return the parameters of a run: the declared values, with those that the profile set."""
    defaults = {name: value for name, (_, value) in declared(stem, node).items()}
    return defaults | dict(node.metadata.get("papermill", {}).get("parameters", {}))


def _made(run: NotebookNode, cell: NotebookNode) -> str:
    about = cell.metadata.get("papermill", {})
    seconds = about.get("duration")
    took = f"this cell {seconds:.1f} s, " if seconds is not None else ""
    day = str(about.get("start_time") or "")[:10]
    return f"{day + ', ' if day else ''}profile {run.profile}, {took}the page {run.seconds:.1f} s and {run.peak_mb} MB"


def _listed(found: dict[str, str], empty: str = "") -> str:
    words = (f"<code>{html.escape(name)}</code> {html.escape(value or empty)}" for name, value in found.items())
    return ", ".join(words)


def _short(value: object) -> str:
    text = re.sub(r"\s+", " ", json.dumps(value, default=str))
    return text if len(text) <= LONG else f"{text[:LONG]} ..."
