"""The parameter explorer: a small grid of trainings, run once (`make explorer`), to click through without a kernel.

`python book/explorer.py` trains what data/results/explorer.json does not hold yet, a cell at a time; the page is made
from that file when the book is built. Aggregates only: scores, and risks of thirds of the patients.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

KEPT = Path("data") / "results" / "explorer.json"
COHORT = "scanb"
GENES, LAYERS, YEARS = (20, 60, 120), (1, 2, 4), (2, 4)
TASKS = {"survival alone": ["OS"], "all five tasks": ["Age", "Size", "NHG", "PAM50", "OS"]}
SPLITS, SEED, RESAMPLES = 3, 0, 500
TRAINING = dict(epochs=60, patience=25, batch_size=32, learning_rate=3e-3, weight_decay=0.0)
SHAPE = dict(width=16, heads=4)
DAYS = 365.25
CHOICES = ("tasks", "genes", "layers", "years")  # of the page, in this order


def cells() -> Iterator[dict]:
    """Yield every training of the grid."""
    for tasks, genes, layers in product(TASKS, GENES, LAYERS):
        yield {"tasks": tasks, "genes": genes, "layers": layers}


def name_of(cell: dict) -> str:
    """Return the key of a cell in the file."""
    return ", ".join(str(cell[name]) for name in CHOICES if name in cell)


def trained(cell: dict) -> dict:
    """Train one cell of the grid on each split, and return its scores and risks by horizon, averaged over splits."""
    import numpy as np
    import torch

    from txtlib.cohort import load_cohort, split
    from txtlib.external import calibration_groups, event_risk
    from txtlib.metrics import uno_c
    from txtlib.peers.floors import ClinicalCox
    from txtlib.peers.txt import txt
    from txtlib.preprocess import relog

    torch.set_num_threads(1)
    cohort = load_cohort(COHORT).with_tasks(*TASKS["all five tasks"])
    cohort = replace(cohort, expression=relog(cohort.expression, 0.1))
    found = {years: [] for years in YEARS}
    for seed in range(SPLITS):
        parts = split(cohort, seed)
        options = dict(n_genes=cell["genes"], n_times=10, grid="quantile", layers=cell["layers"], **SHAPE, **TRAINING)
        select = "OS" if len(TASKS[cell["tasks"]]) == 1 else "all"
        method = txt(seed=SEED, tasks=TASKS[cell["tasks"]], select=select, **options).fit(parts.train, parts.validation)
        answer, age = method.predict(parts.test), ClinicalCox("Age").fit(parts.train).predict(parts.test)
        known, outcome = parts.train.outcome(), parts.test.outcome()
        for years in YEARS:
            at = years * DAYS
            risk = event_risk(answer, at)
            groups = calibration_groups(outcome, risk, at, 3)
            found[years].append(
                {
                    "c": uno_c(known, outcome, risk, at),
                    "age": uno_c(known, outcome, age.risk(at), at),
                    "events": int(((outcome[1] == 1) & (outcome[0] <= at)).sum()),
                    "predicted": groups["predicted"].tolist(),
                    "observed": groups["observed"].tolist(),
                }
            )
    size = sum(parameter.numel() for parameter in method.trained.network.parameters())
    epochs = int(method.trained.history["epoch"].max())
    scores = {str(years): _averaged(rows, np) for years, rows in found.items()}
    return {"parameters": size, "epochs": epochs, "patients": len(parts.test), "scores": scores}


def _averaged(rows: list[dict], np) -> dict:
    spread = np.std([row["c"] for row in rows], ddof=1) if len(rows) > 1 else float("nan")
    means = {name: np.nanmean([row[name] for row in rows], axis=0).round(4).tolist() for name in rows[0]}
    return means | {"c_sd": round(float(spread), 4)}


def main() -> int:
    """Train what is missing; each finished cell is written at once. Return the exit code."""
    from build import ROOT

    from txtlib.cohort import CohortError

    path, done = ROOT / KEPT, read(ROOT)
    todo = [cell for cell in cells() if name_of(cell) not in done]
    for number, cell in enumerate(todo, start=1):
        try:
            done[name_of(cell)] = cell | trained(cell)
        except CohortError as error:
            print(f"make explorer: {error}", file=sys.stderr)
            return 1
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps(done, indent=1) + "\n", encoding="utf-8")
        draft.replace(path)
        print(f"{number} of {len(todo)}: {name_of(cell)}", flush=True)
    return 0


def read(root: Path) -> dict[str, dict]:
    """Return the cells that are done, by name."""
    path = root / KEPT
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


if __name__ == "__main__":
    sys.exit(main())
