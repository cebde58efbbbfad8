"""`make again`: execute some chapters a second time and compare every number and figure with the first, bit for bit.

Also compared, with a tolerance, are the numbers that another machine found (data/results/glued_quick.json): another
processor adds in another order. `--freeze` writes that file from what stands here.
"""

import argparse
import json
import math
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from build import ROOT, Book, job_of, library_input, raise_failures, read_book, shares
from glue import glued_values
from nbformat import NotebookNode
from reading import BuildError, read_notebook
from running import run_all, say

CHAPTERS = ("01_survival", "04_cohorts", "06_training")
KEPT = Path("data") / "results" / "glued_quick.json"
RELATIVE, ABSOLUTE = 0.05, 0.05  # how far a number may lie from that of another machine: both together
TIMED = re.compile(r"second|minute|_mb$|memory")  # glue keys whose values are measured by a clock
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
MACHINE = re.compile(r"0x[0-9a-f]{6,}")  # an address in the text of an object


def outputs(node: NotebookNode) -> Iterator[tuple[str, dict]]:
    """Yield a name and the data of each output: the glue key, or the cell and the output's place in it."""
    for cell in node.cells:
        for place, output in enumerate(cell.get("outputs", [])):
            key = output.get("metadata", {}).get("scrapbook", {}).get("name")
            data = output.get("data") or {"text": output.get("text", "")}
            yield (f"glue {key}" if key else f"cell {cell.id}, output {place + 1}"), data


def drift(first: NotebookNode, second: NotebookNode) -> list[str]:
    """Return the names of the outputs that differ, those that a clock measures left out."""
    one, other = dict(outputs(first)), dict(outputs(second))
    names = [name for name in one if not TIMED.search(name)]
    found = [name for name in names if _plain(one[name]) != _plain(other.get(name))]
    return found + [name for name in other if name not in one]


def _plain(data: dict | None) -> str:
    return MACHINE.sub("", json.dumps(data, sort_keys=True))


def glued(node: NotebookNode) -> dict[str, str]:
    """Return {key: text} of what a notebook glues, what a clock measured left out."""
    return {key: text for key, text in glued_values(node).items() if not TIMED.search(key)}


def beyond(kept: dict[str, str], now: dict[str, str]) -> list[str]:
    """Return what differs from another machine's values by more than the tolerance, a sentence each.

    Numbers within a text are compared one by one; words follow from numbers, and are not compared.
    """
    found = [f"{key} is gone" for key in kept if key not in now]
    for key in kept.keys() & now.keys():
        theirs, ours = ([_number(text) for text in NUMBER.findall(one)] for one in (kept[key], now[key]))
        same = len(theirs) == len(ours) and all(map(_near, theirs, ours))
        if not same:
            found.append(f"{key} was {kept[key]!r} and is {now[key]!r}")
    return sorted(found)


def _number(text: str) -> float:
    return float(text.replace(",", ""))


def _near(theirs: float, ours: float) -> bool:
    return math.isclose(theirs, ours, rel_tol=RELATIVE, abs_tol=ABSOLUTE)


def again(book: Book) -> dict[str, tuple[NotebookNode, NotebookNode]]:
    """Execute the chapters once more, and return each one's first and second copy."""
    missing = [stem for stem in CHAPTERS if not book.copy(stem).is_file()]
    if missing:
        raise BuildError(f"{', '.join(missing)} was not executed yet, so there is nothing to compare with: make book")
    folder, (workers, threads) = book.root / "_build" / "again", shares(book)
    jobs = {stem: replace(job_of(book, stem, threads), target=folder / f"{stem}.ipynb") for stem in CHAPTERS}
    firsts = {stem: read_notebook(book.copy(stem)) for stem in CHAPTERS}
    raise_failures(run_all(jobs, {stem: [] for stem in CHAPTERS}, workers))
    return {stem: (firsts[stem], read_notebook(jobs[stem].target)) for stem in CHAPTERS}


def compare(root: Path, pairs: dict[str, tuple[NotebookNode, NotebookNode]]) -> list[str]:
    """Return a sentence for each chapter that drifts, on this machine or from the kept one."""
    found = [f"{stem}: {', '.join(names)}" for stem, pair in pairs.items() if (names := drift(*pair))]
    found = [f"not the same twice on this machine: {sentence}" for sentence in found]
    path = root / KEPT
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for stem, (first, _) in pairs.items():
        far = beyond(kept[stem], glued(first)) if stem in kept else []
        found += [f"not within the tolerance of the kept numbers ({KEPT}): {stem}: {'; '.join(far)}"] if far else []
    return found


def main(argv: list[str]) -> int:
    """Compare, or freeze; return the exit code."""
    parser = argparse.ArgumentParser(prog="make again", description=__doc__.splitlines()[0])
    parser.add_argument("--freeze", action="store_true", help="run nothing: keep the glued values of this machine")
    options = parser.parse_args(argv)
    try:
        book = read_book(ROOT, "quick", library_input)
        if options.freeze:
            kept = {stem: glued(read_notebook(book.copy(stem))) for stem in CHAPTERS}
            (ROOT / KEPT).write_text(json.dumps(kept, indent=1, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")
            say(KEPT)
            return 0
        pairs = again(book)
        faults = compare(ROOT, pairs)
    except BuildError as error:
        print(f"make again: {error}", file=sys.stderr)
        return error.code
    for fault in faults:
        print(f"make again: {fault}", file=sys.stderr)
    counted = sum(len(dict(outputs(first))) for first, _ in pairs.values())
    say(f"{len(pairs)} chapters, {counted} outputs compared, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
