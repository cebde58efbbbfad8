"""Which chapters can be asked of a cohort, and which values of their parameters follow from it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from report_case import Case, clinical_columns, has_age

from txtlib.cohort import Cohort, split  # what is slow to import comes later

ON_AGE = ("age alone", "ridge age, then Cox")
ON_CLINIC = ("clinical Cox", "clinical and genes", "TxT beside the clinic")


def _cohorts(case: Case) -> dict[str, Any]:
    return {
        "cohort": case.place,
        "other_cohorts": [*filter(None, [case.other_place]), "planted"],
        "n_genes": case.genes(1000),
        "clinical": clinical_columns(case.cohort),
    }


def _training(case: Case) -> dict[str, Any]:
    from txtlib.benchmark import training_horizon

    horizon = training_horizon(split(case.cohort, 0).train)
    return {
        "cohort": case.place,
        "n_genes": case.genes(case.size.genes),
        "epochs": 2 * case.training["epochs"],
        "patience": case.training["patience"],
        "clinical": clinical_columns(case.cohort),
        "horizon": min(1825.0, float(horizon)),
        "resamples": case.size.draws,
    }


def _benchmark(case: Case) -> dict[str, Any]:
    from txtlib.catalogue import ABOUT, NEED_PATHWAYS

    clinical = clinical_columns(case.cohort)
    absent = (() if has_age(case.cohort) else ON_AGE) + (() if clinical else ON_CLINIC)
    there = {*case.size.methods}.difference(absent)
    unknown = {*NEED_PATHWAYS, "TxT, random vectors"}  # without gene sets and a network they cannot be named
    return {
        "cohort": case.place,
        "tasks": case.tasks(case.cohort),
        "second_cohort": case.other_place,
        "second_tasks": case.tasks(case.shared) if case.other_place else [],
        "second_methods": ["age alone", "elastic net Cox", "ridge", "TxT, one task"],
        "without": [name for name in ABOUT if name not in there | unknown],
        "clinical": clinical,
        "n_genes": case.genes(case.size.few_genes),
        "training": {**case.training, "batch_size": 32},
        "changes": {"DeepSurv": {"epochs": 60}, "TxT": case.training},
        "trials": case.size.trials,
        "splits": case.size.splits,
        "frozen_runs": [f"data/results/{case.name}.yml"],
        "folder": case.folder,
    }


def _frozen(case: Case) -> dict[str, Any]:
    return {
        "cohort": case.place,
        "other_cohorts": [case.other_place],
        "tasks": case.tasks(case.shared),
        "clinical": clinical_columns(case.cohort),
        "n_genes": case.genes(case.size.few_genes),
        "training": {**case.training, "batch_size": 32},
        "changes": {"TxT": case.training},
        "resamples": case.size.draws,
        "frozen_run": f"data/results/{case.name}.yml",
        "frozen_move": f"data/results/{case.name}_{Path(case.other_place).name}.yml",
        "folder": case.folder,
    }


def _looking(case: Case) -> dict[str, Any]:
    """Return what chapters 10 to 13 share, so that each finds the others' trainings."""
    genes = {"gene_sets": "", "n_genes": case.genes(case.size.genes)}
    return {"cohort": case.place, **genes, "training": case.training, "folder": case.folder}


def _maps(case: Case) -> dict[str, Any]:
    draws = {"resamples": case.size.draws, "permutations": case.size.draws}
    return _looking(case) | draws | {"model_seeds": case.size.seeds}


def _clusters(case: Case) -> dict[str, Any]:
    second = case.other_place if case.other_place and case.other.survival_task else ""
    return _looking(case) | {
        "second_cohort": second,
        "group": _calm(case.cohort),
        "fold_genes": case.genes(case.size.genes),
        "fold_training": {"epochs": case.training["epochs"], "combine": "sum"},
        "model_seeds": case.size.seeds,
        "permutations": case.size.draws,
    }


def _calm(cohort: Cohort) -> dict[str, str]:
    """Return the group that the chapter is about where it has events enough, else none: then all are looked at."""
    if "PAM50" not in cohort.clinical:
        return {}
    inside = (cohort.clinical["PAM50"] == "LumA").to_numpy()
    return {"PAM50": "LumA"} if (cohort.outcome()[1][inside] == 1).sum() >= 20 else {}


def _clinical_tasks(case: Case) -> dict[str, Any]:
    second = {"variant": "value token", "epochs": max(4, case.training["epochs"] // 3)} if case.size.all_tasks else {}
    return _looking(case) | {"second": second, "model_seeds": max(4, case.size.seeds)}


def _perturbation(case: Case) -> dict[str, Any]:
    return _looking(case) | {
        "second": {"variant": "value token", "epochs": max(4, case.training["epochs"] // 3)},
        "model_seeds": case.size.seeds,
        "arm_network": "",
        "moved_patients": 20,
        "null_models": 1 if case.size.seeds < 3 else 2,
        "resamples": case.size.draws,
    }


CHAPTERS: dict[str, Callable[[Case], dict[str, Any]]] = {
    "04": _cohorts,
    "06": _training,
    "07": _benchmark,
    "09": _frozen,
    "10": _maps,
    "11": _clusters,
    "12": _clinical_tasks,
    "13": _perturbation,
}


def why_not(case: Case) -> dict[str, str]:
    """Return {number of a chapter: why it cannot be asked of this cohort}."""
    survival, several = case.cohort.survival_task is not None, len(case.cohort.tasks) > 1
    no_survival = "it needs a survival task, and tasks.csv names none"
    no_age = "its floor is the patients' age, and clinical.csv has no column Age with numbers for half of them"
    rules = [
        ("04", survival, no_survival),
        ("06", survival, no_survival),
        ("11", survival, no_survival),
        ("04", has_age(case.cohort), no_age),
        ("06", has_age(case.cohort), no_age),
        ("06", several, "it trains on several tasks, and tasks.csv names one"),
        ("12", several, "it compares one task with several, and tasks.csv names one"),
        ("09", bool(case.other_place), _no_other(case)),
    ]
    return {number: reason for number, good, reason in reversed(rules) if not good}


def _no_other(case: Case) -> str:
    if case.other is None:
        return "it takes models to a second cohort, and none was named (OTHER=path)"
    return f"it takes models to a second cohort, and {case.other.name} has no task in common with this one"
