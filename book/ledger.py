"""The results ledger: what the notebooks have entered, joined with everything that was published.

A notebook enters through txtlib/ledger.py, which also gives the verdict. Here entries are collected and checked; what
nothing was entered for keeps a row that says why. book/ledger_page.py lays the rows out.
"""

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml
from nbformat import NotebookNode
from reading import BuildError, tags

NOT_YET, NOT_ATTEMPTED, IMPOSSIBLE = "not yet", "not attempted", "cannot be attempted here"
RULES = ("better", "as well", "equal")
ABOUT_CLAIM = {"claim", "where", "test", "rule", "chapter"}
UNSEEN = {"remove-output", "remove-cell"}
NUMBER = ("source", "item", "setting", "method", "task", "metric")
FOUND = ("cohort", "patients", "events", "splits", "verdict", "note", "page")
COLUMNS = (
    *("kind", "id", "claim", "words", *NUMBER, "published_cohort", "published", "rule"),
    *("compared", "mean", "low", "high", "margin", "line_verdict", *FOUND),
)


@dataclass(frozen=True)
class Known:
    """What stands in data/: claims, measures and tasks by name, and a row for each published number."""

    claims: dict[str, dict]
    measures: dict[str, dict]
    tasks: dict[str, str]
    numbers: list[dict[str, str]]


@dataclass(frozen=True)
class Row:
    """A claim or a published number, and its entry for one cohort (or one that says why there is none)."""

    id: str
    about: dict
    entry: dict


# --- what is known beforehand ---------------------------------------------------------------------------------


def read_known(data: Path) -> Known | None:
    """Read data/claims.yml and data/published.csv; None where a book has no ledger.

    Raises BuildError for a published number without a claim, which would have no row, and for a faulty claim.
    """
    if not (data / "published.csv").is_file():
        return None
    about = yaml.safe_load((data / "claims.yml").read_text(encoding="utf-8"))
    with (data / "published.csv").open(encoding="utf-8", newline="") as stream:
        numbers = list(csv.DictReader(stream))
    known = Known(about["claims"], about["measures"], about["tasks"], numbers)
    for name, claim in known.claims.items():
        _check_claim(name, claim)
    _check_numbers(known)
    return known


def _check_claim(name: str, claim: dict) -> None:
    if missing := ABOUT_CLAIM - claim.keys():
        raise BuildError(f"claim {name} of data/claims.yml does not say: {', '.join(sorted(missing))}")
    if not re.match(r"\d\d \S", claim["chapter"]):
        raise BuildError(
            f"claim {name} of data/claims.yml: a chapter is a number and a title, not {claim['chapter']!r}"
        )
    if claim["rule"] not in RULES:
        raise BuildError(
            f"claim {name} of data/claims.yml has the rule {claim['rule']!r}; write one of {', '.join(RULES)}"
        )
    if claim.get("state", NOT_ATTEMPTED) not in (NOT_ATTEMPTED, IMPOSSIBLE) or ("state" in claim) != ("why" in claim):
        raise BuildError(
            f"claim {name} of data/claims.yml: a state is {NOT_ATTEMPTED!r} or {IMPOSSIBLE!r}, and `why` says why"
        )


def _check_numbers(known: Known) -> None:
    taken = set(known.claims)
    for line, number in enumerate(known.numbers, start=2):
        place = f"line {line} of data/published.csv ({number['id']})"
        if not number["id"] or number["id"] in taken:
            raise BuildError(f"{place} has no id, or one that is taken; give it its own")
        if number["claim"] not in known.claims:
            raise BuildError(f"{place} belongs to no claim of data/claims.yml, so it would have no row; name one")
        if number["metric"] not in known.measures:
            raise BuildError(f"{place} has a metric that data/claims.yml does not list under `measures`")
        taken.add(number["id"])


# --- what was entered -----------------------------------------------------------------------------------------


def entries(known: Known, executed: dict[str, NotebookNode]) -> list[dict]:
    """Return the entries of executed notebooks, each with its notebook and its address on the site.

    Raises BuildError for an unknown id, an entry that the page does not show, and one made twice for a cohort.
    """
    found = [entry for stem, node in executed.items() for entry in _entered(stem, node)]
    ids = known.claims.keys() | {number["id"] for number in known.numbers}
    owner = {}
    for entry in found:
        what, stem = (entry["id"], entry["cohort"]), entry["stem"]
        if entry["id"] not in ids:
            raise BuildError(f"notebook {stem} enters {entry['id']!r} in the ledger, but data/ has no such id")
        if what in owner:
            raise BuildError(f"{what[0]} is entered twice for the cohort {what[1]!r}: in {owner[what]} and in {stem}")
        owner[what] = stem
    return found


def _entered(stem: str, node: NotebookNode) -> Iterator[dict]:
    for cell in node.cells:
        kept = [entry for output in cell.get("outputs", []) for entry in output.get("metadata", {}).get("ledger", [])]
        if kept and UNSEEN & set(tags(cell)):
            raise BuildError(f"notebook {stem} enters {kept[0]['id']} in a cell whose output its page does not show")
        for entry in kept:
            yield {**entry, "stem": stem, "page": f"notebooks/{stem}.html#{entry['anchor']}"}


# --- joined ---------------------------------------------------------------------------------------------------


def claim_rows(known: Known, found: list[dict]) -> list[Row]:
    """Return a row for each claim and each cohort that it was tested on, or one that says why there is none."""
    return [
        Row(id, claim, entry)
        for id, claim in known.claims.items()
        for entry in _of(id, found) or [_no_entry(*_standing(claim))]
    ]


def number_rows(known: Known, found: list[dict]) -> list[Row]:
    """Return a row for each published number and each cohort, or one that says why there is none."""
    claim_of = {number["id"]: number["claim"] for number in known.numbers}
    rows = []
    for number in known.numbers:
        state = _standing(known.claims[number["claim"]])
        if stems := {entry["stem"]: None for entry in found if claim_of.get(entry["id"]) == number["claim"]}:
            state = NOT_ATTEMPTED, f"not among the numbers that {', '.join(stems)} measured"
        rows += [Row(number["id"], number, entry) for entry in _of(number["id"], found) or [_no_entry(*state)]]
    return rows


def _of(id: str, found: list[dict]) -> list[dict]:
    return [entry for entry in found if entry["id"] == id]


def _standing(claim: dict) -> tuple[str, str]:
    return (claim["state"], claim["why"]) if "state" in claim else (NOT_YET, f"chapter {claim['chapter']}")


def _no_entry(verdict: str, note: str) -> dict:
    return dict.fromkeys(FOUND, "") | {"verdict": verdict, "note": note, "lines": []}


# --- to download ----------------------------------------------------------------------------------------------


def ledger_csv(claims: list[Row], numbers: list[Row]) -> str:
    """Return all rows as CSV, a line for each comparison of a claim; `page` is an address from the site's root."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in claims:
        about = {"kind": "claim", "claim": row.id, "words": row.about["claim"], "item": row.about["where"]}
        writer.writerows(_records(row, {**about, "rule": row.about["rule"]}))
    for row in numbers:
        about = {"kind": "number", "published_cohort": row.about["cohort"], "published": row.about["value"]}
        writer.writerows(_records(row, {**row.about, **about, "rule": "equal"}))
    return text.getvalue()


def _records(row: Row, about: dict) -> Iterator[dict]:
    kept = {name: row.entry[name] for name in FOUND}
    for line in row.entry["lines"] or [{}]:
        yield {**about, **line, "line_verdict": line.get("verdict", ""), **kept, "id": row.id}
