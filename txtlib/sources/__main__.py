"""``make data COHORT=metabric``: one line on what was made, or on what went wrong; the exit code says which."""

import argparse
import signal
import sys

from txtlib.cohort import CohortError
from txtlib.sources.registry import sources_of
from txtlib.sources.workshop import RECIPES, make


def main(argv: list[str]) -> int:
    """Make what was asked for; return 0, 1 (failed), 2 (no such name) or 130 (interrupted)."""
    parser = argparse.ArgumentParser(prog="make data", description=__doc__)
    parser.add_argument("name", help=f"{', '.join(RECIPES)} or all")
    parser.add_argument("--score", type=int, help="least score of STRING's edges, 0 to 1000")
    options = parser.parse_args(argv)
    if options.name not in (*RECIPES, "all"):
        print(f"make data: no recipe {options.name!r}; COHORT is one of {', '.join(RECIPES)}, all", file=sys.stderr)
        return 2
    names = list(RECIPES) if options.name == "all" else [options.name]
    try:
        return max([_made(name, options.score) for name in names])
    except KeyboardInterrupt:
        print("make data: interrupted; a partial download is kept, and the next run goes on there", file=sys.stderr)
        return 130


def _made(name: str, score: int | None) -> int:
    try:
        licences = sorted({source.licence for source in sources_of(name).values()})
        path = make(name, **({"score": score} if name == "string" and score is not None else {}))
        print(f"{name}: {path} ({'; '.join(licences)})", flush=True)
        return 0
    except CohortError as error:
        print(f"make data: {name}: {error}", file=sys.stderr, flush=True)
        return 1


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a cancelled job leaves no draft either
    sys.exit(main(sys.argv[1:]))
