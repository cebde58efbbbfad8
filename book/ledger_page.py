"""The results ledger as a page: Markdown with tables in HTML, because Markdown's own span no rows and no columns."""

from collections.abc import Iterable, Iterator
from html import escape
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from ledger import (
    IMPOSSIBLE,
    NOT_ATTEMPTED,
    NOT_YET,
    Known,
    Row,
    claim_rows,
    entries,
    ledger_csv,
    number_rows,
    read_known,
)
from nbformat import NotebookNode
from reading import title

DOI = "https://doi.org/"
VERDICTS = ("reproduced", "not reproduced", "too small to tell", "not comparable", NOT_ATTEMPTED, IMPOSSIBLE, NOT_YET)
Notebooks = dict[str, NotebookNode]  # by stem


class Cell(NamedTuple):
    """A cell of a table, as markup; one that has the key of the cell above is part of it."""

    markup: str
    key: object = None
    id: str = ""


def ledger_files(data: Path, notebooks: Notebooks, executed: Notebooks, longer: Iterable[dict] = ()) -> dict[str, str]:
    """Return name -> text: the generated part of the page, and the table to download; {} for a book without a ledger.

    ``longer`` are entries that longer runs made (book/longer.py), beside those of this build. Raises BuildError for
    what `read_known` and `entries` refuse.
    """
    known = read_known(data)
    if known is None:
        return {}
    found = [*entries(known, executed), *longer]
    claims, numbers = claim_rows(known, found), number_rows(known, found)
    page = [
        "## Where it stands",
        _state(notebooks, executed, len(found)),
        _counts(claims, numbers),
        filters(),
        "## The claims",
        _claims_table(claims, notebooks),
        *_all_comparisons(claims),
        "## The published numbers",
        _margins(known),
        *_number_tables(known, numbers, notebooks),
    ]
    return {"ledger.md": "\n\n".join(page) + "\n", "ledger.csv": ledger_csv(claims, numbers)}


def _state(notebooks: Notebooks, executed: Notebooks, made: int) -> str:
    profiles = sorted({f"`{node.metadata.run.profile}`" for node in executed.values()})
    under = f" under the profile {' and '.join(profiles)}" if profiles else ""
    return (
        f"In this site {len(executed)} of {len(notebooks)} notebooks are executed{under}; "
        f"they made {made or 'no'} {'entry' if made == 1 else 'entries'}."
    )


def _counts(claims: list[Row], numbers: list[Row]) -> str:
    def count(verdicts: Iterable[str]) -> list[Cell]:
        return [Cell(str(sum(row.entry["verdict"] in verdicts for row in kind))) for kind in (claims, numbers)]

    rows = [[Cell(verdict), *count([verdict])] for verdict in VERDICTS]
    caption = "Rows of the tables below; what was measured on two cohorts has two."
    return table(["verdict", "claims", "published numbers"], [*rows, [Cell("all"), *count(VERDICTS)]], caption)


def filters() -> str:
    """Return the form by which a reader narrows the tables down; hidden until the script serves it (ledger.js)."""
    options = "".join(f"<option>{verdict}</option>" for verdict in VERDICTS)
    return (
        '<form class="ledger-filter" hidden><label>Show rows with the word <input name="word" type="search"></label> '
        f'<label>and the verdict <select name="verdict"><option value="">any</option>{options}</select></label> '
        '<button type="reset">Show all</button> <output></output></form>'
    )


def _margins(known: Known) -> str:
    by_margin = {}
    for measure in known.measures.values():
        by_margin.setdefault(measure["margin"], []).append(measure["name"])
    margins = "; ".join(f"{margin:g} ({', '.join(names)})" for margin, names in by_margin.items())
    return f"A value counts as the published one if its whole interval lies within a margin of it: {margins}."


# --- tables ---------------------------------------------------------------------------------------------------


def table(head: list[str], rows: list[list[Cell]], caption: str) -> str:
    """Return an HTML table in one block, cells of one column that share a key merged."""
    heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join(f"<tr>{_row(rows[number:], rows[:number])}</tr>" for number in range(len(rows)))
    markup = (
        f'<div class="ledger"><table class="book-table"><caption>{escape(caption)}</caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )
    return " ".join(markup.split())  # to Markdown an empty line would end the block


def _row(rows: list[list[Cell]], above: list[list[Cell]]) -> str:
    """Return the cells of the first row, without those that belong to the row above."""
    markup = ""
    for column, cell in enumerate(rows[0]):
        if cell.key is not None and above and above[-1][column].key == cell.key:
            continue
        same = takewhile(lambda row, key=cell.key, column=column: row[column].key == key, rows)
        span = 1 if cell.key is None else len(list(same))
        name = f' id="{escape(cell.id)}"' if cell.id else ""
        markup += f'<td rowspan="{span}"{name}>{cell.markup}</td>'
    return markup


def _small(text: str) -> str:
    return f"<br><small>{text}</small>" if text else ""


def _link(entry: dict, words: str) -> str:
    return f'<a href="../{escape(entry["page"])}">{escape(words)}</a>'


def _verdict(entry: dict, notebooks: Notebooks) -> str:
    note = _chapter(entry["note"], notebooks) if entry["verdict"] == NOT_YET else escape(entry["note"])
    return f'<span class="verdict {entry["verdict"].replace(" ", "-")}">{entry["verdict"]}</span>{_small(note)}'


def _chapter(words: str, notebooks: Notebooks) -> str:
    """Return "chapter 07 Benchmark" as it is, or as a link with the chapter's own title once there is one."""
    number = words.split()[1]
    for stem, node in notebooks.items():
        if stem.split("_")[0] == number:
            return f'chapter <a href="../notebooks/{stem}.html">{escape(title(node, stem))}</a>'
    return escape(words)


def _interval(line: dict, sign: str = "") -> str:
    return f"{line['mean']:{sign}.3f} ({line['low']:{sign}.3f} to {line['high']:{sign}.3f})"


def _on(entry: dict) -> str:
    """Say on what a result stands: cohort, patients, events, splits."""
    events = "" if entry["events"] is None else f", {entry['events']:,} events"
    splits = "one split" if entry["splits"] == 1 else f"{entry['splits']} splits"
    return escape(f"{entry['cohort']}: {entry['patients']:,} patients{events}, {splits}")


def _result(entry: dict, words: str) -> str:
    """Return the result as a link to its cell, with what it stands on; without one, the cohort that was left out."""
    if not words:
        return _link(entry, entry["cohort"]) if entry["page"] else ""
    return _link(entry, words) + _small(_on(entry))


# --- claims ---------------------------------------------------------------------------------------------------


def _claims_table(rows: list[Row], notebooks: Notebooks) -> str:
    body = []
    for row in rows:
        claimed = f"<strong>{row.id}</strong> {escape(row.about['claim'])} ({escape(row.about['where'])})"
        test = _small(f"Tested by: {escape(row.about['test'])}. Rule: <em>{row.about['rule']}</em>.")
        told = Cell(claimed + test, row.id, row.id)
        result = _result(row.entry, _differences(row.entry["lines"]))
        body.append([told, Cell(result), Cell(_verdict(row.entry, notebooks))])
    caption = "Differences are positive where they favour the claim, with their intervals; each links to its cell."
    return table(["claim", "result here", "verdict"], body, caption)


def _differences(lines: list[dict]) -> str:
    if len(lines) > 1:
        return f"{len(lines)} comparisons"
    return "".join(f"{line['compared']}: {_interval(line, '+')}, margin {line['margin']:g}" for line in lines)


def _all_comparisons(rows: list[Row]) -> Iterator[str]:
    """Yield a folded table for each row of the claims that sums up several comparisons."""
    for row in rows:
        if len(row.entry["lines"]) > 1:
            cells = [[Cell(escape(text)) for text in _compared(line)] for line in row.entry["lines"]]
            head = ["compared", "margin", "difference (interval)", "verdict"]
            summary = escape(f"{row.id} on {row.entry['cohort']}: its {len(cells)} comparisons")
            yield f"<details><summary>{summary}</summary>{table(head, cells, f'{row.id}.')}</details>"


def _compared(line: dict) -> tuple[str, ...]:
    return line["compared"], f"{line['margin']:g}", _interval(line, "+"), line["verdict"]


# --- published numbers ----------------------------------------------------------------------------------------


def _number_tables(known: Known, rows: list[Row], notebooks: Notebooks) -> Iterator[str]:
    """Yield a heading for every table that the numbers come from, and a table for each of its tasks and measures."""
    for (source, item, cohort), part in _groups(rows, "source", "item", "cohort").items():
        yield f"### {_capital(item)}: {cohort}"
        yield f"Published in [{source}]({DOI}{source})." if source.startswith("10.") else f"Source: {source}."
        for of_task in _groups(part, "task").values():
            yield from (_number_table(known, alike, notebooks) for alike in _groups(of_task, "metric").values())


def _number_table(known: Known, rows: list[Row], notebooks: Notebooks) -> str:
    task, measure = rows[0].about["task"], known.measures[rows[0].about["metric"]]["name"]
    body = [_number_cells(row, notebooks) for row in rows]
    caption = f"{_capital(known.tasks.get(task, task))}: {measure}."
    return table(["method", "published", "here (95 % interval)", "verdict"], body, caption)


def _groups(rows: Iterable[Row], *names: str) -> dict[tuple, list[Row]]:
    found = {}
    for row in rows:
        found.setdefault(tuple(row.about[name] for name in names), []).append(row)
    return found


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _number_cells(row: Row, notebooks: Notebooks) -> list[Cell]:
    about, entry = row.about, row.entry
    method = about["method"] if about["setting"] == "-" else f"{about['method']}, {about['setting']}"
    cells = [Cell(escape(method), row.id), Cell(about["value"], row.id)]
    here, verdict = _result(entry, "".join(map(_interval, entry["lines"]))), _verdict(entry, notebooks)
    words = None if entry["page"] else verdict  # neighbours that nothing was entered for share their words
    return [*cells, Cell(here, words), Cell(verdict, words)]
