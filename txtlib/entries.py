"""What a benchmark's table says of the article's claims and published numbers: entries of the results ledger."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from txtlib import ledger
from txtlib.catalogue import PUBLISHED, TXT, published_numbers
from txtlib.cohort import Cohort
from txtlib.comparisons import over_splits, paired_over_splits
from txtlib.ledger import Entry

MANY = "TxT, all tasks"
RIVALS = [name for name, (_, setting) in PUBLISHED.items() if setting == "STL" and name != TXT]
ENDPOINTS = {"OS": "C2", "DRFi": "C3", "DM": "C3"}  # DM: distant metastasis of GSE7390
BRCA = "TCGA-BRCA"  # how the name of C5's cohort begins


def benchmark_entries(patients: Cohort, table: pd.DataFrame, main: Mapping[str, str]) -> list[Entry]:
    """Return the entries of one cohort: claims C1 to C3, or C5 on TCGA-BRCA, and the numbers of tasks that it has.

    ``main`` {kind of task: measure} is what a claim is judged by. Methods and tasks that the table lacks are left
    out; a claim that the cohort cannot speak to is entered as not attempted, with the reason.
    """
    about = _about(patients, table)
    pairs = {task.name: main[task.kind] for task in patients.tasks}
    if patients.name.startswith(BRCA):
        return [_best(patients, table, pairs, about)]
    return [_beats(table, pairs, about), *_jump(patients, table, about), *_numbers(table, pairs, about)]


def _about(patients: Cohort, table: pd.DataFrame) -> dict:
    events = int(np.nansum(patients.outcome()[1])) if patients.survival_task else None
    return dict(cohort=patients.name, patients=len(patients), events=events, splits=int(table["data_seed"].nunique()))


def _beats(table: pd.DataFrame, pairs: Mapping[str, str], about: dict) -> Entry:
    """C1: better than each of the article's rivals on every task."""
    wanted = [(rival, task) for rival in RIVALS for task in pairs if _has(table, rival, task)]
    found = _differences(table, TXT, wanted, pairs)
    if not found:
        return ledger.not_attempted("C1", cohort=about["cohort"], why="none of the article's baselines ran here")
    return ledger.claim("C1", found, **about)


def _best(patients: Cohort, table: pd.DataFrame, pairs: Mapping[str, str], about: dict) -> Entry:
    """C5: best of all at PAM50."""
    others = [name for name in table["method"].unique() if name != TXT and not _is_ours(name)]
    wanted = [(name, "PAM50") for name in others if "PAM50" in pairs and _has(table, name, "PAM50")]
    if not wanted:
        return ledger.not_attempted("C5", cohort=patients.name, why="PAM50 was not among the tasks")
    return ledger.claim("C5", _differences(table, TXT, wanted, pairs), **about)


def _is_ours(name: str) -> bool:
    """Tell whether a method is a form of TxT or a control: C5 is about other methods."""
    return name.startswith("TxT") or "permuted" in name or "shuffled" in name


def _jump(patients: Cohort, table: pd.DataFrame, about: dict) -> list[Entry]:
    """C2 and C3: many tasks raise the C-index of survival."""
    endpoint = patients.survival_task.name if patients.survival_task else ""
    claim = ENDPOINTS.get(endpoint)
    why = f"this cohort's endpoint is {endpoint or 'none'}, and the claim's is overall survival"
    entries = [] if claim == "C2" else [ledger.not_attempted("C2", cohort=patients.name, why=why)]
    if claim and len(patients.tasks) > 1:
        row = paired_over_splits(table, MANY, TXT).loc[(endpoint, "Harrell's C")]
        what = f"TxT on all tasks against one, {endpoint}, Harrell's C"
        entries.append(ledger.claim(claim, {what: row[["mean", "low", "high"]]}, **about))
    return entries


def _numbers(table: pd.DataFrame, pairs: Mapping[str, str], about: dict) -> list[Entry]:
    """Return an entry for each published number of a task and method that ran here."""
    sizes = table[["n_train", "n_test"]].astype(float).mean()
    entries = []
    for number in published_numbers().itertuples():
        same = (table["method"] == number.method) & (table["task"] == number.task)
        scores = table[same & (table["measure"] == number.measure)].groupby("data_seed")["score"].mean().dropna()
        if number.task in pairs and len(scores) > 1:
            entries.append(ledger.value(number.id, over_splits(scores.to_numpy(), *sizes), **about))
    return entries


def _has(table: pd.DataFrame, method: str, task: str) -> bool:
    return bool(((table["method"] == method) & (table["task"] == task)).any())


def _differences(table: pd.DataFrame, method: str, wanted: list, pairs: Mapping[str, str]) -> dict:
    """Return {comparison: (mean, low, high)}, the intervals widened for the number of comparisons (Bonferroni)."""
    level = 1 - 0.05 / max(1, len(wanted))
    rows = {rival: paired_over_splits(table, method, rival, level) for rival in dict.fromkeys(r for r, _ in wanted)}
    found = {f"{rival}, {task}, {pairs[task]}": rows[rival].loc[(task, pairs[task])] for rival, task in wanted}
    return {what: row[["mean", "low", "high"]] for what, row in found.items() if row.notna().all()}
