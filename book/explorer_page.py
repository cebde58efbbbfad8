"""The explorer's page: radio buttons over a precomputed grid, and the whole grid as a table for who has no script."""

import html
import json
from pathlib import Path

from explorer import CHOICES, SPLITS, YEARS, read

LABELS = {
    "tasks": "Tasks learned",
    "genes": "Genes",
    "layers": "Layers",
    "years": "Risk within (years)",
}


def explorer_files(root: Path) -> dict[str, str]:
    """Return {name: Markdown} of what the page includes; a sentence where nothing was trained yet."""
    done = read(root)
    if not done:
        return {"explorer.md": "The grid was not trained yet: `make explorer`.\n"}
    rows = [row(cell, years) for cell in done.values() for years in YEARS]
    return {"explorer.md": f"```{{raw}} html\n{form(rows)}\n{table(rows)}\n```\n"}


def row(cell: dict, years: int) -> dict:
    """Return what the page knows of one choice."""
    scores = cell["scores"][str(years)]
    facts = {name: cell[name] for name in CHOICES if name in cell} | {"years": years}
    return facts | scores | {"parameters": cell["parameters"], "patients": cell["patients"]}


def form(rows: list[dict]) -> str:
    """Return the radio buttons, the place for the picture, and the grid as JSON; hidden until the script serves it."""
    groups = "".join(_group(name, list(dict.fromkeys(row[name] for row in rows))) for name in CHOICES)
    data = json.dumps(rows).replace("</", "<\\/")
    return (
        f'<form class="book-explorer" hidden data-interactive>{groups}</form>'
        '<figure class="book-figure book-explorer-figure" hidden><div class="book-explorer-picture"></div>'
        '<figcaption aria-live="polite"></figcaption></figure>'
        f'<script type="application/json" class="book-explorer-data">{data}</script>'
    )


def _group(name: str, values: list) -> str:
    buttons = "".join(
        f'<label><input type="radio" name="{name}" value="{html.escape(str(value))}"'
        f"{' checked' if not place else ''}> {html.escape(str(value))}</label>"
        for place, value in enumerate(values)
    )
    return f"<fieldset><legend>{LABELS[name]}</legend>{buttons}</fieldset>"


def table(rows: list[dict]) -> str:
    """Return the whole grid as a folded table."""
    head = [LABELS[name] for name in CHOICES] + ["Uno's C", "age alone", "parameters"]
    body = "".join(
        "<tr>"
        + "".join(f"<td>{html.escape(str(row[name]))}</td>" for name in CHOICES)
        + f"<td>{row['c']:.2f}</td><td>{row['age']:.2f}</td><td>{row['parameters']:,}</td></tr>"
        for row in rows
    )
    heads = "".join(f'<th scope="col">{html.escape(one)}</th>' for one in head)
    return (
        f'<details class="book-explorer-all" open><summary>The whole grid ({len(rows)} rows)</summary>'
        '<div class="book-scroll" tabindex="0" role="region" aria-label="The whole grid">'
        f'<table class="book-table"><caption>Mean over {SPLITS} random splits; one training a split.</caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div></details>"
    )
