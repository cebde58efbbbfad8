"""A chapter's longer run: what it found with more seeds and repeats, kept in data/results and shown beside this one.

`make keep PROFILE=paper` takes the chapters that were executed with a profile and keeps what they glued and entered in
the ledger: text and numbers, no table and no row of a patient. A page then shows its takeaways once more, with the
numbers of the longer run.
"""

import argparse
import json
import re
import sys
from pathlib import Path

from glue import ROLE, glued_values
from nbformat import NotebookNode
from passport import used
from reading import BuildError, read_notebook, told

PROFILE = "paper"
KEPT = Path("data") / "results" / f"chapters_{PROFILE}.json"
HEADING = "## What to take away"
ANCHOR = "longer-run"


def kept(root: Path) -> dict[str, dict]:
    """Return {stem: what its longer run found}; nothing where none is kept."""
    path = root / KEPT
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def found_in(stem: str, node: NotebookNode) -> dict:
    """Return what is kept of an executed notebook: values, ledger entries, parameters and provenance."""
    outputs = [output for cell in node.cells for output in cell.get("outputs", [])]
    run = node.metadata.run
    return {
        "values": glued_values(node),
        "entries": [entry for output in outputs for entry in output.get("metadata", {}).get("ledger", [])],
        "parameters": used(stem, node),
        "profile": run.profile,
        "inputs": dict(run.get("inputs", {})),
        "versions": dict(run.get("versions", {})),
        "seconds": run.seconds,
        "day": str(node.metadata.get("papermill", {}).get("start_time") or "")[:10],
    }


def keep(root: Path, profile: str) -> list[str]:
    """Keep every chapter that was executed with the profile, beside those that are kept already; return their stems."""
    copies = sorted((root / "_build" / "executed" / profile).glob("*.ipynb"))
    if not copies:
        raise BuildError(f"no chapter was executed with the profile {profile!r} yet: make book PROFILE={profile}", 2)
    found = kept(root) | {copy.stem: found_in(copy.stem, read_notebook(copy)) for copy in copies}
    text = json.dumps(dict(sorted(found.items())), indent=1, ensure_ascii=False, default=str)
    (root / KEPT).write_text(text + "\n", encoding="utf-8")
    return [copy.stem for copy in copies]


def longer_box(stem: str, node: NotebookNode, run: dict) -> str:
    """Return a box with the page's takeaways in the numbers of the longer run; "" where it lacks one of them."""
    text = next((cell.source for cell in node.cells if cell.cell_type == "markdown" and HEADING in cell.source), "")
    points = text.partition(HEADING)[2].split("\n## ")[0].split("\n```")[0].strip()
    keys = {match["text"].partition(":")[0] for match in ROLE.finditer(points) if "::" not in match["text"]}
    if not keys or not keys <= run["values"].keys():
        return ""
    told = ROLE.sub(lambda match: _value(match, run["values"]), re.sub(r'<a href="#cell-.*?</a>', "", points))
    return "\n".join(
        [
            f'<span id="{ANCHOR}"></span>',
            "",
            "```{admonition} The same, in a longer run",
            ":class: dropdown book-longer",
            f"Kept from a run of this notebook on {run['day']} ({run['seconds'] / 60:.0f} minutes, profile "
            f"`{run['profile']}`): {_changed(node, run)}. To repeat it: `make book PROFILE={run['profile']} "
            f"ONLY={stem.split('_')[0]}`, then `make keep`.",
            "",
            told,
            "```",
        ]
    )


def _value(match: re.Match, values: dict[str, str]) -> str:
    return match[0] if "::" in match["text"] else values[match["text"].partition(":")[0]]


def _changed(node: NotebookNode, run: dict) -> str:
    """Name the parameters of the longer run that differ from those of the page."""
    here = used("page", node)
    other = {name: value for name, value in run["parameters"].items() if here.get(name) != value and name != "folder"}
    return ", ".join(f"`{name}` {json.dumps(value)}" for name, value in other.items()) or "with the same parameters"


def kept_entries(root: Path) -> list[dict]:
    """Return the ledger entries of longer runs, each named as such and with the address of its page."""
    return [
        entry | {"cohort": f"{entry['cohort']}, longer run", "stem": stem, "page": f"notebooks/{stem}.html#{ANCHOR}"}
        for stem, run in kept(root).items()
        for entry in run["entries"]
        if entry["lines"]
    ]


def main() -> None:
    """Keep what was executed."""
    from build import ROOT  # which imports this file, by way of the pages

    parser = argparse.ArgumentParser(prog="make keep", description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default=PROFILE)
    stems = keep(ROOT, parser.parse_args().profile)
    print(f"{KEPT}: {', '.join(stems)}")


if __name__ == "__main__":
    sys.exit(told("make keep", main))
