"""Entries of the results ledger: what a notebook found about a claim or a number of an article, and the verdict.

Verdicts come from the functions below, never from a typed word. ``enter`` shows the entries and keeps them, as JSON, in
the metadata of the cell's output; ``book/ledger.py`` collects them from the executed notebooks for the page.
"""

import csv
import html
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from functools import cache
from numbers import Integral
from pathlib import Path

import yaml
from IPython.display import display

from txtlib.comparisons import verdict

ROOT = Path(__file__).parents[1]
PUBLISHED, CLAIMS = "data/published.csv", "data/claims.yml"  # as paths, so that the book sees them as inputs
MARGIN = 0.02  # of C-index, accuracy, Spearman: a difference within it is none
FULL = 0.9  # labels are missing for some patients: this share of the article's cohort is still its size
REPRODUCED, NOT_REPRODUCED, TOO_SMALL = "reproduced", "not reproduced", "too small to tell"
NOT_COMPARABLE, NOT_ATTEMPTED = "not comparable", "not attempted"


# what txtlib.comparisons.verdict says -> what that makes of a claim to be better
BETTER = {
    "better than": REPRODUCED,
    "worse than": NOT_REPRODUCED,
    "as good as": NOT_REPRODUCED,
    "not to be told apart from": TOO_SMALL,
}


# --- the rule -------------------------------------------------------------------------------------------------


def better(low: float, high: float, margin: float = MARGIN) -> str:
    """Return the verdict on "is better" for the interval of a paired difference, positive where the claim holds.

    Reproduced: it lies above 0; not reproduced: it lies below 0, or reaches 0 and stays within +-margin.
    """
    return BETTER[verdict(low, high, margin)]


def equal(low: float, high: float, margin: float = MARGIN) -> str:
    """Return the verdict on "is the same": reproduced within +-margin, else not reproduced where 0 is left out."""
    if -margin <= low and high <= margin:
        return REPRODUCED
    return TOO_SMALL if low <= 0 <= high else NOT_REPRODUCED


def as_well(low: float, high: float, margin: float = MARGIN) -> str:
    """Return the verdict on "does as well as": reproduced above -margin, not reproduced else, where it lies below 0."""
    if low >= -margin:
        return REPRODUCED
    return NOT_REPRODUCED if high < 0 else TOO_SMALL


def together(verdicts: Iterable[str]) -> str:
    """Return the verdict on a claim of several comparisons: it holds if all do, and fails if one does."""
    found = set(verdicts)
    if NOT_REPRODUCED in found:
        return NOT_REPRODUCED
    return TOO_SMALL if TOO_SMALL in found else REPRODUCED


def value_verdict(published: float, low: float, high: float, margin: float, own: bool) -> str:
    """Return the verdict on a published value; ``own``: measured on the article's own cohort at its size."""
    if not own:
        return NOT_COMPARABLE
    return equal(*(round(end - published, 9) for end in (low, high)), margin)  # 0.72 - 0.70 is above 0.02 in floats


def direction(published: float, low: float, high: float) -> str:
    """Say where an interval lies, seen from a published value."""
    if low > published:
        return "higher than published"
    return "lower than published" if high < published else "interval holds the published value"


RULES = {"better": better, "as well": as_well, "equal": equal}


# --- entries --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """One interval: what was compared or measured, mean, low, high, the margin of the rule, and its verdict."""

    compared: str
    mean: float
    low: float
    high: float
    margin: float
    verdict: str


@dataclass(frozen=True)
class Entry:
    """What is known of one claim or published value on one cohort; ``note`` goes with the verdict."""

    id: str
    cohort: str
    verdict: str
    note: str
    patients: int | None = None
    events: int | None = None
    splits: int | None = None
    lines: tuple[Line, ...] = ()

    @property
    def words(self) -> str:
        """The verdict with its note, for prose: ``too small to tell (51 events)``."""
        return f"{self.verdict} ({self.note})" if self.note else self.verdict

    @property
    def anchor(self) -> str:
        """The id that the entry has on the page that shows it."""
        return "ledger-" + re.sub(r"[^A-Za-z0-9]+", "-", f"{self.id} {self.cohort}").strip("-")


def claim(
    id: str,
    differences: Mapping,
    *,
    cohort: str,
    patients: int,
    splits: int,
    events: int | None = None,
    note: str = "",
    widened: Mapping | None = None,
    undecided: Collection[str] = (),
    partial: bool = False,
) -> Entry:
    """Return the entry of a claim, tested on a cohort of so many patients and events, all parts together.

    ``differences`` holds for every comparison, by what was compared, (mean, low, high) of the paired difference with
    its 95 % interval, positive where the claim holds; a fourth number is the margin in its unit, else 0.02. ``note``
    follows the verdict: say how large the model was where it was not of the article's size.

    A claim of several comparisons holds if all do, so each is shown to hold by its plain interval; it fails if one
    does, so luck has many tries: ``widened`` {compared: (low, high)} are the intervals that must fail too, where
    there are several. ``undecided`` names comparisons that decide nothing, whatever their interval, and ``partial``
    says that some that the claim speaks of are missing: it is then never reproduced. The note says why.
    ValueError for an unknown claim, and for numbers that are none.
    """
    rule = RULES[_known("claim", id, _claims()["claims"])["rule"]]
    sizes = _sizes(id, cohort, patients, splits, events)
    if not differences:
        raise ValueError(f"{id} was given no comparison; say what was compared, or enter not_attempted({id!r}, ...).")
    wide = widened or {}
    lines = tuple(_line(id, name, given, rule, wide.get(name)) for name, given in differences.items())
    lines = tuple(replace(line, verdict=TOO_SMALL) if line.compared in undecided else line for line in lines)
    found = together(line.verdict for line in lines)
    found = TOO_SMALL if partial and found == REPRODUCED else found
    notes = [_size(patients, events)] if found == TOO_SMALL else []
    notes += [_tally(lines)] if len(lines) > 1 else []
    notes += [note] if note else []
    return Entry(id, cohort, found, "; ".join(notes), *sizes, lines)


def value(
    id: str, score: Iterable, *, cohort: str, patients: int, splits: int, events: int | None = None, note: str = ""
) -> Entry:
    """Return the entry of a published value: ``score`` is our (mean, low, high) on a cohort, its size as in ``claim``.

    The value is compared only where the cohort is the article's own (``cohorts`` in data/claims.yml) at its size.
    ValueError for an unknown id, and for numbers that are none.
    """
    number = _known("published value", id, published_rows())
    sizes = _sizes(id, cohort, patients, splits, events)
    published, margin = float(number["value"]), float(_claims()["measures"][number["metric"]]["margin"])
    mean, low, high = _interval(id, "the score", score)
    found = value_verdict(published, low, high, margin, _is_own(number["cohort"], cohort, patients))
    notes = [_size(patients, events)] if found == TOO_SMALL else []
    notes += [direction(published, low, high), *([note] if note else [])]
    line = Line(f"published {number['value']}", mean, low, high, margin, found)
    return Entry(id, cohort, found, "; ".join(notes), *sizes, (line,))


def not_attempted(id: str, *, cohort: str, why: str) -> Entry:
    """Return the entry of a claim or a published value that a notebook leaves out, and why; ValueError without."""
    _known("claim or published value", id, _claims()["claims"] | published_rows())
    if not why.strip() or not cohort.strip():
        raise ValueError(f"{id}: a row that is not attempted says why, and on which cohort.")
    return Entry(id, cohort, NOT_ATTEMPTED, why)


def enter(*entries: Entry) -> None:
    """Show the entries, and keep them for the ledger in the metadata of this output."""
    if not entries:
        raise ValueError("There is nothing to enter: give what claim(), value() or not_attempted() return.")
    kept = [{**asdict(entry), "anchor": entry.anchor} for entry in entries]
    text = "\n".join(f"{entry.id} on {entry.cohort}: {entry.words}" for entry in entries)
    display({"text/html": _table(entries), "text/plain": text}, raw=True, metadata={"ledger": kept})


# --- what the ledger knows beforehand -------------------------------------------------------------------------


def _claims() -> dict:
    return _parsed(_text(CLAIMS))


_parsed = cache(yaml.safe_load)  # by text: a notebook may make a hundred entries


def published_rows() -> dict[str, dict]:
    """Return the rows of data/published.csv by id, all values as text."""
    return {row["id"]: row for row in csv.DictReader(_text(PUBLISHED).splitlines())}


def _text(name: str) -> str:
    try:
        return (ROOT / name).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ValueError(f"The ledger needs {name} in {ROOT}: install txtlib from a clone, pip install -e.") from error


def _known(what: str, id: str, among: dict) -> dict:
    if id not in among:
        near = ", ".join(get_close_matches(id, among, cutoff=0)) or "none"
        raise ValueError(f"The ledger has no {what} {id!r}; the nearest in data/: {near}.")
    return among[id]


def _is_own(published: str, cohort: str, patients: int) -> bool:
    own = _claims()["cohorts"].get(published)
    return own is not None and cohort == own["name"] and patients >= FULL * own["patients"]


# --- numbers --------------------------------------------------------------------------------------------------


def _line(id: str, name: str, given: Iterable, rule: Callable, wide: Iterable | None = None) -> Line:
    numbers = _floats(id, name, given, (3, 4))
    margin = numbers[3] if len(numbers) == 4 else MARGIN
    if not 0 <= margin < math.inf:
        raise ValueError(f"{id}, {name}: the margin is a number from 0 on, not {margin:g}.")
    mean, low, high = _interval(id, name, numbers[:3])
    found = rule(low, high, margin)
    if found == NOT_REPRODUCED and wide is not None:
        found = NOT_REPRODUCED if rule(*_floats(id, name, wide, (2,)), margin) == NOT_REPRODUCED else TOO_SMALL
    return Line(name, mean, low, high, margin, found)


def _interval(id: str, name: str, given: Iterable) -> list[float]:
    mean, low, high = numbers = _floats(id, name, given, (3,))
    if not all(map(math.isfinite, numbers)) or low > high:
        raise ValueError(
            f"{id}, {name}: {mean:g} ({low:g} to {high:g}) is no interval; where a measure is undefined, "
            "enter not_attempted() and say why."
        )
    return numbers


def _floats(id: str, name: str, given: Iterable, counts: tuple[int, ...]) -> list[float]:
    try:
        numbers = [float(number) for number in given]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) not in counts:
        raise ValueError(
            f"{id}, {name}: give mean, low and high (in a comparison also the margin, where it is not 0.02), "
            f"not {' '.join(repr(given).split())}."
        )
    return numbers


def _sizes(id: str, cohort: str, patients: int, splits: int, events: int | None) -> tuple[int, int | None, int]:
    """Return patients, events and splits as JSON knows them."""
    whole = all(isinstance(n, Integral) for n in (patients, splits, events or 0))
    if not cohort.strip() or not whole or patients < 1 or splits < 1 or not 0 <= (events or 0) <= patients:
        raise ValueError(
            f"{id}: give the cohort's name and whole numbers of patients, splits and events (no more than patients), "
            f"not {cohort!r}, {patients!r}, {splits!r} and {events!r}."
        )
    return int(patients), None if events is None else int(events), int(splits)


def _size(patients: int, events: int | None) -> str:
    return f"{patients:,} patients" if events is None else f"{events:,} events"


def _tally(lines: tuple[Line, ...]) -> str:
    found = [line.verdict for line in lines]
    counts = ", ".join(f"{found.count(name)} {name}" for name in dict.fromkeys(found))
    return f"of {len(lines)} comparisons: {counts}"


# --- shown ----------------------------------------------------------------------------------------------------


def _table(entries: tuple[Entry, ...]) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name in ("entry", "compared", "mean (interval)", "verdict"))
    body = "".join(f'<tbody id="{entry.anchor}">{_rows(entry)}</tbody>' for entry in entries)
    caption = "<caption>Entered in the results ledger.</caption>"
    return f'<div class="ledger"><table class="book-table">{caption}<thead><tr>{head}</tr></thead>{body}</table></div>'


def _rows(entry: Entry) -> str:
    lines = [(x.compared, f"{x.mean:.3f} ({x.low:.3f} to {x.high:.3f})", x.verdict) for x in entry.lines]
    rows = [(entry.id, entry.cohort, "", entry.words), *(("", *line) for line in lines)]
    if len(lines) == 1:
        rows = [(entry.id, f"{entry.cohort}: {lines[0][0]}", lines[0][1], entry.words)]
    return "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
