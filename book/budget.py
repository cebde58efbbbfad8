"""What each page takes, as measured once on a quiet machine (data/results/cost.json), and what it takes now.

A page may take more by the share OVER; beyond it the build names it. Processor seconds are compared, since wall seconds
depend on what else a machine does. Another machine is another measure: the build only warns, unless TXT_BUDGET=strict.
"""

import json
import os
import sys
from pathlib import Path

from nbformat import NotebookNode
from reading import BuildError, read_notebook

COST = Path("data") / "results" / "cost.json"
OVER = 1.3
SMALL = 10.0  # processor seconds: below, starting a kernel is most of it


def kept(root: Path) -> dict[str, dict[str, dict]]:
    """Return {profile: {stem: seconds, cpu_seconds, peak_mb}}, as it was measured; nothing where it was not."""
    path = root / COST
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def costs(root: Path, stem: str, executed: dict[str, NotebookNode]) -> dict[str, dict]:
    """Return what a page took by profile: in this build, and in other profiles as it was measured once."""
    found = {profile: pages[stem] for profile, pages in kept(root).items() if stem in pages}
    run = executed[stem].metadata.run if stem in executed else None
    return found | ({run.profile: dict(run)} if run else {})


def over_budget(root: Path, executed: dict[str, NotebookNode]) -> list[str]:
    """Return a sentence for each page that took more processor seconds than it may."""
    known, found = kept(root), []
    for stem, node in executed.items():
        run = node.metadata.run
        budget = known.get(run.profile, {}).get(stem, {}).get("cpu_seconds")
        now = run.get("cpu_seconds")
        if budget and now and now > OVER * max(budget, SMALL):
            found.append(f"{stem} took {now:.0f} processor seconds in {run.profile}, and {budget:.0f} are planned")
    return found


def check_budget(root: Path, executed: dict[str, NotebookNode]) -> list[str]:
    """Return what there is to warn of; raise BuildError instead where TXT_BUDGET is strict."""
    found = over_budget(root, executed)
    if found and os.environ.get("TXT_BUDGET") == "strict":
        raise BuildError(f"pages above their budget by more than {OVER - 1:.0%} ({COST}): {'; '.join(found)}")
    return found


def freeze(root: Path, executed: dict[str, NotebookNode]) -> Path:
    """Write what the executed pages took, beside what is kept of other profiles and pages; return the file."""
    known = kept(root)
    for stem, node in executed.items():
        run = node.metadata.run
        one = {"seconds": run.seconds, "cpu_seconds": run.cpu_seconds, "peak_mb": run.peak_mb}
        known.setdefault(run.profile, {})[stem] = one
    known = {profile: dict(sorted(pages.items())) for profile, pages in sorted(known.items())}
    (root / COST).write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    return root / COST


def main(argv: list[str]) -> int:
    """Keep what the pages of a profile took in this folder's last build; return the exit code."""
    profile, root = (argv or ["quick"])[0], Path(__file__).resolve().parents[1]
    copies = sorted((root / "_build" / "executed" / profile).glob("*.ipynb"))
    if not copies:
        print(f"make cost: nothing was executed with the profile {profile!r} yet: make book", file=sys.stderr)
        return 1
    print(freeze(root, {copy.stem: read_notebook(copy) for copy in copies}).relative_to(root))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
