"""What a benchmark's table says of the article's claims and published numbers: entries of the results ledger."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from txtlib import ledger
from txtlib.catalogue import PUBLISHED, TXT, published_numbers
from txtlib.cohort import Cohort
from txtlib.comparisons import over_splits, paired_over_splits
from txtlib.frozen import Frozen
from txtlib.ledger import Entry

# what a kind of task is judged by, fixed before any run
MAIN = {"survival": "Uno's C", "classification": "accuracy", "regression": "Spearman"}
MANY, CONSTANT = "TxT, all tasks", "constant"
SCANB = "SCAN-B OS"  # what data/published.csv calls the cohort of Table 1
RIVALS = [name for name, (_, setting) in PUBLISHED.items() if setting == "STL" and name != TXT]
ENDPOINTS = {"OS": "C2", "DRFi": "C3", "DM": "C3"}  # DM: distant metastasis of GSE7390
CLAIMED = ("C1", "C2", "C3", "C4", "C5", "C6", "C7")  # claims that a kept run can speak of
BRCA, AML = "TCGA-BRCA", "TARGET-AML"  # how the names of C5's and C4's cohorts begin
FEW = "there are not two splits in which both methods have a score, so no difference has an interval"


@dataclass(frozen=True)
class Tested:
    """What an entry says of a cohort: its name, how many patients and events, the kind of each task, its endpoint."""

    cohort: str
    patients: int
    events: int | None
    kinds: dict[str, str]

    @classmethod
    def of(cls, patients: Cohort) -> "Tested":
        """Return it for a cohort at hand."""
        events = int(np.nansum(patients.outcome()[1])) if patients.survival_task else None
        return cls(patients.name, len(patients), events, {task.name: task.kind for task in patients.tasks})

    @property
    def endpoint(self) -> str:
        """The survival task, or none."""
        return next((name for name, kind in self.kinds.items() if kind == "survival"), "none")

    def measures(self, main: Mapping[str, str]) -> dict[str, str]:
        """Return {task: the measure it is judged by}."""
        return {name: main[kind] for name, kind in self.kinds.items()}

    def about(self, table: pd.DataFrame, note: str) -> dict:
        """Return what every entry of a table carries."""
        sizes = dict(cohort=self.cohort, patients=self.patients, events=self.events)
        return sizes | {"splits": int(table["data_seed"].nunique()), "note": note}


def benchmark_entries(patients: Cohort, table: pd.DataFrame, main: Mapping[str, str], note: str = "") -> list[Entry]:
    """Return the entries of one cohort: claims C1 to C3, or C5 on TCGA-BRCA, and the numbers of tasks that it has.

    ``main`` {kind of task: measure} is what a claim is judged by. Methods and tasks that the table lacks, and numbers
    of fewer than two splits, or with the same score in all, are left out; a claim that the table cannot speak to is
    entered as not attempted, with the reason.
    """
    return _entries(Tested.of(patients), table, main, note)


def cluster_entry(patients: Cohort, table: pd.DataFrame, main: Mapping[str, str], note: str = "") -> Entry:
    """Return the entry of C6: what C1 says, by a table whose test parts are whole clusters of patients."""
    return _clusters(Tested.of(patients), table, main, note)


def kept_entries(kept: Frozen, main: Mapping[str, str]) -> list[Entry]:
    """Return what a frozen run (txtlib/frozen.py) says of the claims; nothing of it needs the cohort to be at hand.

    A run with clusters as test parts speaks of C6, one that is tested on another cohort of C7, any other of what
    ``benchmark_entries`` does. The cohort's name says that the run is kept, so that a page can enter its own beside it;
    numbers of the article are left out there.
    """
    what = (_tested(kept), kept.cells, main, _kept_note(kept))
    declared = kept.about["declared"]
    if declared.get("elsewhere"):
        found = [_moved(*what)]
    elif declared["scheme"]["name"] == "clusters":
        found = [_clusters(*what)]
    else:
        found = _entries(*what)
    spoken = [entry for entry in found if entry.id in CLAIMED and entry.lines]
    return [replace(entry, cohort=f"{entry.cohort}, kept run") for entry in spoken]


def _tested(kept: Frozen) -> Tested:
    """Return what is said of a kept run's cohort; of one that is tested elsewhere, patients and events there."""
    about = kept.about["cohort"]
    sizes = about["patients"], about["events"]
    if kept.about["declared"].get("elsewhere"):
        counted = kept.cells[["n_test", "events_test"]].dropna()
        sizes = tuple(int(n) for n in counted.iloc[0])
    return Tested(about["name"], *sizes, about["tasks"])


def _kept_note(kept: Frozen) -> str:
    """Say which run it is, how much of it is done, and how large its TxT was."""
    plan, done = kept.about["declared"], kept.about["cells"]
    ours = {**plan["shape"], **plan["training"], **plan["changes"].get("TxT", {})}
    return (
        f"kept run {kept.about['plan']}, {done['done']:,} of {done['planned']:,} cells; TxT of {ours['layers']} "
        f"layer(s), width {ours['width']}, {plan['n_genes']} genes, at most {ours['epochs']} epochs"
    )


def _entries(tested: Tested, table: pd.DataFrame, main: Mapping[str, str], note: str) -> list[Entry]:
    about, pairs = tested.about(table, note), tested.measures(main)
    if tested.cohort.startswith(BRCA):
        return [_best(table, pairs, about)]
    return [_beats("C1", table, pairs, about), *_jump(tested, table, about), *_numbers(table, pairs, about)]


def _clusters(tested: Tested, table: pd.DataFrame, main: Mapping[str, str], note: str) -> Entry:
    return _beats("C6", table, tested.measures(main), tested.about(table, note))


def _moved(tested: Tested, table: pd.DataFrame, main: Mapping[str, str], note: str) -> Entry:
    """C7: as good as each of the article's rivals, moved to another cohort (the ledger's own rule of this claim)."""
    pairs = tested.measures(main)
    spoken = [(rival, task) for rival in RIVALS for task in pairs]
    note = f"{note}; intervals over training parts, the tested patients are the same in all"
    why = "TxT and the article's baselines have no task in common here"
    return _better_than("C7", table, RIVALS, pairs, spoken, tested.about(table, note), why)


def _beats(id: str, table: pd.DataFrame, pairs: Mapping[str, str], about: dict) -> Entry:
    """C1 and C6: better than each of the article's rivals on every task."""
    why = "TxT and the article's baselines have no task in common here"
    numbers = published_numbers()
    numbers = numbers[(numbers["claim"] == "C1") & numbers["method"].isin(RIVALS)]
    spoken = list(dict.fromkeys(zip(numbers["method"], numbers["task"], strict=True)))
    return _better_than(id, table, RIVALS, pairs, spoken, about, why)


def _best(table: pd.DataFrame, pairs: Mapping[str, str], about: dict) -> Entry:
    """C5: best of all at PAM50."""
    ran = [name for name in table["method"].unique() if not _is_ours(name)]
    pam50 = {task: measure for task, measure in pairs.items() if task == "PAM50"}
    rivals = list(dict.fromkeys([*RIVALS, *ran]))
    spoken = [(name, "PAM50") for name in rivals]
    why = "TxT and another method have no PAM50 in common here"
    return _better_than("C5", table, rivals, pam50, spoken, about, why)


def _is_ours(name: str) -> bool:
    """Tell whether a method is a form of TxT or a control: C5 is about other methods."""
    return name.startswith("TxT") or "permuted" in name or "shuffled" in name


def _better_than(
    id: str,
    table: pd.DataFrame,
    rivals: list[str],
    pairs: Mapping[str, str],
    spoken: list[tuple[str, str]],
    about: dict,
    why: str,
) -> Entry:
    """Enter that TxT beats each rival on each task, where both have scores of two splits.

    ``spoken`` are the rivals and tasks, in pairs, that the claim is about. It fails by intervals that are widened for
    the number of comparisons (Bonferroni). Where TxT has not learned a task, its comparisons decide nothing.
    """
    wanted = [(rival, *pair) for rival in rivals for pair in pairs.items() if _scored(table, *pair) >= {TXT, rival}]
    level = 1 - 0.05 / max(1, len(wanted))
    found = {one: _difference(table, TXT, *one) for one in wanted}
    found = {one: row for one, row in found.items() if row.notna().all()}
    if not found:
        return ledger.not_attempted(id, cohort=about["cohort"], why=FEW if wanted else why)
    dull = [task for task, measure in pairs.items() if not _learned(table, TXT, task, measure)]
    absent = _absent(spoken, [one[:2] for one in found])
    return ledger.claim(
        id,
        {", ".join(one): row for one, row in found.items()},
        widened={", ".join(one): _difference(table, TXT, *one, level)[["low", "high"]] for one in found},
        undecided=[", ".join(one) for one in found if one[1] in dull],
        partial=bool(absent),
        **about | {"note": noted(absent, dull, level, about["note"])},
    )


def _learned(table: pd.DataFrame, method: str, task: str, measure: str) -> bool:
    """Tell whether a method is better than a constant, or there is none to tell by.

    A transformer that has not left the plateau it starts on, for want of epochs or patients, says nothing of one that
    has: neither that it is worse than a rival, nor that many tasks do not help it.
    """
    if not _scored(table, task, measure) >= {CONSTANT, method}:
        return True
    return bool(_difference(table, method, CONSTANT, task, measure)["low"] > 0)


def _absent(spoken: list[tuple[str, str]], found: list[tuple[str, str]]) -> list[str]:
    """Return what a claim speaks of and nothing was found of: rivals, tasks, and single pairs of the others."""
    rivals, tasks = ({one[place] for one in found} for place in (0, 1))
    pairs = [one for one in spoken if one not in found]
    names = [rival for rival, _ in pairs if rival not in rivals] + [task for _, task in pairs if task not in tasks]
    names += [f"{rival} on {task}" for rival, task in pairs if rival in rivals and task in tasks]
    return list(dict.fromkeys(names))


def noted(absent: list[str], dull: list[str], level: float, note: str) -> str:
    """Say what of a claim is missing, what decides nothing, and by which intervals it would fail, before a note."""
    without = f"without {', '.join(absent)}" if absent else ""
    undecided = f"undecided where TxT is not shown to be better than a constant: {', '.join(dull)}" if dull else ""
    widened = f"fails only by intervals of {100 * level:.4g} %" if level > 0.95 else ""
    return "; ".join(filter(None, [without, undecided, widened, note]))


def _jump(tested: Tested, table: pd.DataFrame, about: dict) -> list[Entry]:
    """C2, C3 and C4: many tasks raise the C-index of survival."""
    endpoint, n_tasks = tested.endpoint, len(tested.kinds)
    if tested.cohort.startswith(AML):
        return [_raised("C4", table, endpoint, n_tasks, about)]
    claim = ENDPOINTS.get(endpoint)
    why = f"this cohort's endpoint is {endpoint}, and the claim's is overall survival"
    entries = [] if claim == "C2" else [ledger.not_attempted("C2", cohort=tested.cohort, why=why)]
    return [*entries, _raised(claim, table, endpoint, n_tasks, about)] if claim else entries


def _raised(claim: str, table: pd.DataFrame, endpoint: str, n_tasks: int, about: dict) -> Entry:
    pair = endpoint, "Harrell's C"
    if n_tasks < 2 or not _scored(table, *pair) >= {MANY, TXT}:
        why = f"TxT did not learn {endpoint} both alone and among other tasks here"
        return ledger.not_attempted(claim, cohort=about["cohort"], why=why)
    row = _difference(table, MANY, TXT, *pair)
    if row.isna().any():
        return ledger.not_attempted(claim, cohort=about["cohort"], why=FEW)
    compared = f"TxT on all tasks against one, {endpoint}, Harrell's C"
    dull = [] if any(_learned(table, arm, *pair) for arm in (MANY, TXT)) else [endpoint]
    about = about | {"note": noted([], dull, 0.95, about["note"])}
    return ledger.claim(claim, {compared: row}, undecided=[compared] if dull else [], **about)


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
            row = over_splits(scores.to_numpy(), *sizes)
            entries += [ledger.value(number.id, row, **about)] if row.notna().all() else []
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
