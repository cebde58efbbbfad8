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
SCANB = "SCAN-B OS"  # what data/published.csv calls the cohort of Table 1
RIVALS = [name for name, (_, setting) in PUBLISHED.items() if setting == "STL" and name != TXT]
ENDPOINTS = {"OS": "C2", "DRFi": "C3", "DM": "C3"}  # DM: distant metastasis of GSE7390
BRCA, AML = "TCGA-BRCA", "TARGET-AML"  # how the names of C5's and C4's cohorts begin
FEW = "there are not two splits in which both methods have a score, so no difference has an interval"


def benchmark_entries(patients: Cohort, table: pd.DataFrame, main: Mapping[str, str], note: str = "") -> list[Entry]:
    """Return the entries of one cohort: claims C1 to C3, or C5 on TCGA-BRCA, and the numbers of tasks that it has.

    ``main`` {kind of task: measure} is what a claim is judged by. Methods and tasks that the table lacks, and numbers
    of fewer than two splits, are left out; a claim that the table cannot speak to is entered as not attempted, with
    the reason.
    """
    about = _about(patients, table) | {"note": note}
    pairs = {task.name: main[task.kind] for task in patients.tasks}
    if patients.name.startswith(BRCA):
        return [_best(table, pairs, about)]
    return [_beats(table, pairs, about), *_jump(patients, table, about), *_numbers(table, pairs, about)]


def _about(patients: Cohort, table: pd.DataFrame) -> dict:
    events = int(np.nansum(patients.outcome()[1])) if patients.survival_task else None
    return dict(cohort=patients.name, patients=len(patients), events=events, splits=int(table["data_seed"].nunique()))


def _beats(table: pd.DataFrame, pairs: Mapping[str, str], about: dict) -> Entry:
    """C1: better than each of the article's rivals on every task."""
    why = "TxT and the article's baselines have no task in common here"
    absent = [name for name in RIVALS if name not in set(table["method"])]
    left = [f"without {', '.join(absent)}"] if absent else []
    about = about | {"note": "; ".join([*left, *filter(None, [about["note"]])])}
    return _better_than("C1", table, RIVALS, pairs, about, why)


def _best(table: pd.DataFrame, pairs: Mapping[str, str], about: dict) -> Entry:
    """C5: best of all at PAM50."""
    others = [name for name in table["method"].unique() if not _is_ours(name)]
    pam50 = {task: measure for task, measure in pairs.items() if task == "PAM50"}
    return _better_than("C5", table, others, pam50, about, "TxT and another method have no PAM50 in common here")


def _is_ours(name: str) -> bool:
    """Tell whether a method is a form of TxT or a control: C5 is about other methods."""
    return name.startswith("TxT") or "permuted" in name or "shuffled" in name


def _better_than(
    id: str, table: pd.DataFrame, rivals: list[str], pairs: Mapping[str, str], about: dict, why: str
) -> Entry:
    """Enter that TxT beats each rival on each task: intervals widened for the number of comparisons (Bonferroni)."""
    wanted = [(rival, *pair) for rival in rivals for pair in pairs.items() if _scored(table, *pair) >= {TXT, rival}]
    level = 1 - 0.05 / max(1, len(wanted))
    found = {", ".join(one): _difference(table, TXT, *one, level) for one in wanted}
    found = {what: row for what, row in found.items() if row.notna().all()}
    if not found:
        return ledger.not_attempted(id, cohort=about["cohort"], why=FEW if wanted else why)
    return ledger.claim(id, found, **about)


def _jump(patients: Cohort, table: pd.DataFrame, about: dict) -> list[Entry]:
    """C2, C3 and C4: many tasks raise the C-index of survival."""
    endpoint = patients.survival_task.name if patients.survival_task else "none"
    if patients.name.startswith(AML):
        return [_raised("C4", table, endpoint, len(patients.tasks), about)]
    claim = ENDPOINTS.get(endpoint)
    why = f"this cohort's endpoint is {endpoint}, and the claim's is overall survival"
    entries = [] if claim == "C2" else [ledger.not_attempted("C2", cohort=patients.name, why=why)]
    return [*entries, _raised(claim, table, endpoint, len(patients.tasks), about)] if claim else entries


def _raised(claim: str, table: pd.DataFrame, endpoint: str, n_tasks: int, about: dict) -> Entry:
    pair = endpoint, "Harrell's C"
    if n_tasks < 2 or not _scored(table, *pair) >= {MANY, TXT}:
        why = f"TxT did not learn {endpoint} both alone and among other tasks here"
        return ledger.not_attempted(claim, cohort=about["cohort"], why=why)
    row = _difference(table, MANY, TXT, *pair)
    if row.isna().any():
        return ledger.not_attempted(claim, cohort=about["cohort"], why=FEW)
    return ledger.claim(claim, {f"TxT on all tasks against one, {endpoint}, Harrell's C": row}, **about)


def _numbers(table: pd.DataFrame, pairs: Mapping[str, str], about: dict) -> list[Entry]:
    """Return an entry for each published number of a task and method that ran here."""
    sizes = table[["n_train", "n_test"]].astype(float).mean()
    entries = []
    theirs = AML if about["cohort"].startswith(AML) else SCANB
    numbers = published_numbers()
    for number in numbers[numbers["cohort"] == theirs].itertuples():
        same = (table["method"] == number.method) & (table["task"] == number.task)
        scores = table[same & (table["measure"] == number.measure)].groupby("data_seed")["score"].mean().dropna()
        if number.task in pairs and len(scores) > 1:
            entries.append(ledger.value(number.id, over_splits(scores.to_numpy(), *sizes), **about))
    return entries


def _scored(table: pd.DataFrame, task: str, measure: str) -> set[str]:
    """Return the methods that have rows of this measure."""
    return set(table.loc[(table["task"] == task) & (table["measure"] == measure), "method"])


def _difference(
    table: pd.DataFrame, method: str, reference: str, task: str, measure: str, level: float = 0.95
) -> pd.Series:
    """Return mean, low and high by which ``method`` is better than ``reference``; NaN without two splits of both."""
    rows = table[(table["task"] == task) & (table["measure"] == measure)]
    return paired_over_splits(rows, method, reference, level).iloc[0][["mean", "low", "high"]]
