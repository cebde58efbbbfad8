"""`python book/ledger_difference.py OLD.csv NEW.csv`: what changed between two ledgers, as Markdown for a release."""

import csv
import sys
from pathlib import Path

KEY = ("kind", "id", "cohort")
SEEN = ("verdict", "mean", "low", "high")


def read(path: str | Path) -> dict[tuple, list[dict]]:
    """Return {(kind, id, cohort): its lines} of a ledger.csv; ValueError for a file that is none."""
    with open(path, encoding="utf-8", newline="") as stream:
        lines = list(csv.DictReader(stream))
    if not lines or not {*KEY, *SEEN} <= lines[0].keys():
        raise ValueError(f"{path} is no ledger.csv of this book: it lacks the columns {', '.join((*KEY, *SEEN))}.")
    found: dict[tuple, list[dict]] = {}
    for line in lines:
        found.setdefault(tuple(line[name] for name in KEY), []).append(line)
    return found


def difference(old: dict[tuple, list[dict]], new: dict[tuple, list[dict]]) -> str:
    """Return the rows that came, went, or have another verdict, and how many moved in their numbers only."""
    came, went = sorted(new.keys() - old.keys()), sorted(old.keys() - new.keys())
    both = sorted(new.keys() & old.keys())
    turned = [key for key in both if old[key][0]["verdict"] != new[key][0]["verdict"]]
    moved = [key for key in both if key not in turned and _numbers(old[key]) != _numbers(new[key])]
    same = len(both) - len(turned) - len(moved)
    parts = [
        *_section(
            "Another verdict", [f"{_name(key)}: {_verdict(old, key)}, now {_verdict(new, key)}" for key in turned]
        ),
        *_section("New rows", [f"{_name(key)}: {_verdict(new, key)}" for key in came]),
        *_section("Rows that are gone", [f"{_name(key)}: {_verdict(old, key)}" for key in went]),
        f"{len(moved)} rows have other numbers and the same verdict; {same} are as before.",
    ]
    return "\n\n".join(parts) + "\n"


def _section(title: str, lines: list[str]) -> list[str]:
    return [f"## {title}", "\n".join(f"- {line}" for line in lines)] if lines else []


def _name(key: tuple) -> str:
    kind, id, cohort = key
    return f"{kind} {id}" + (f" on {cohort}" if cohort else "")


def _verdict(found: dict, key: tuple) -> str:
    return found[key][0]["verdict"]


def _numbers(lines: list[dict]) -> list[tuple]:
    return [tuple(line[name] for name in SEEN) for line in lines]


def main(argv: list[str]) -> int:
    """Print the difference of two ledgers; return the exit code."""
    if len(argv) != 2:
        print("ledger_difference: give two files, OLD.csv and NEW.csv", file=sys.stderr)
        return 2
    try:
        print(difference(*map(read, argv)), end="")
    except (OSError, ValueError) as error:
        print(f"ledger_difference: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
