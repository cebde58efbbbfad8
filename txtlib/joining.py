"""What two cohorts have in common, and both as one cohort, to learn from the one and be tested on the other.

What is in common is settled from names and units alone: tasks, clinical columns, lists of genes.
"""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pandas as pd

from txtlib.cohort import Cohort, CohortError, Task
from txtlib.transfer import fit_mapping

DAYS = {"day": 1.0, "week": 7.0, "month": 365.25 / 12, "year": 365.25}
SITE = "Site"  # the clinical column of a joined cohort that says whose patient it is: one of HOME and AWAY
HOME, AWAY = "home", "away"


def joined(home: Cohort, away: Cohort, mapping: str = "quantile") -> Cohort:
    """Return the patients of both, with the tasks, numbers and genes that both have; a column SITE tells them apart.

    Expression of the second is brought to the scale of the first by ``transfer.fit_mapping``, from the expression of
    all patients of both and from no label. Raises CohortError where nothing is in common, or a sample is in both.
    """
    away = in_common(home, away)
    names = [task.name for task in away.tasks]
    twice = home.samples.intersection(away.samples)
    if len(twice):
        raise CohortError(f"{len(twice)} samples are in both {home.name} and {away.name}, the first {str(twice[0])!r}.")
    mapped = fit_mapping(home, away, mapping).apply(away)
    genes = common_genes([home, mapped])
    labels = dict.fromkeys(column for task in away.tasks for column in task.columns)
    columns = list(labels | dict.fromkeys(common_columns([home, away], home.clinical.columns.difference(list(labels)))))
    parts = {HOME: home, AWAY: mapped}
    clinical = pd.concat([one.clinical[columns].assign(**{SITE: site}) for site, one in parts.items()])
    expression = pd.concat([one.expression[genes] for one in parts.values()])
    about = home.about | {"name": f"{home.name}, then {away.name}"}
    return replace(home.with_tasks(*names), expression=expression, clinical=clinical, about=about)


def in_common(train: Cohort, cohort: Cohort) -> Cohort:
    """Return a cohort with those of its tasks that the training cohort has too, its survival times in that one's unit.

    A task is the same if name and kind are; a number must have the same unit in both ``cohort.yml``, where both say
    one. Times in days, weeks, months or years are converted. Raises CohortError where no task is in common, or times
    cannot be converted.
    """
    known = {(task.name, task.kind): task for task in train.tasks}
    pairs = [(task, known[task.name, task.kind]) for task in cohort.tasks if (task.name, task.kind) in known]
    pairs = [(task, theirs) for task, theirs in pairs if task.kind != "regression" or _agree(train, cohort, task.name)]
    if not pairs:
        raise CohortError(
            f"{cohort.name} has no task in common with {train.name}, whose tasks are "
            f"{', '.join(task.name for task in train.tasks)}; a task needs the same name, kind and unit in both."
        )
    clinical = cohort.clinical.copy()
    for task, theirs in pairs:
        if task.kind == "survival":
            clinical[task.columns[0]] *= _factor(train, cohort, theirs, task)
    return replace(cohort, clinical=clinical, tasks=tuple(task for task, _ in pairs))


def common_columns(cohorts: Iterable[Cohort], columns: Iterable[str]) -> list[str]:
    """Return the clinical columns that all cohorts have, as numbers in all or in none, and in units that agree."""
    first, *others = cohorts
    return [name for name in columns if name in first.clinical and all(_alike(first, one, name) for one in others)]


def common_genes(cohorts: Iterable[Cohort]) -> list[str]:
    """Return the genes that all cohorts list, in the order of the first."""
    first, *others = cohorts
    genes = first.expression.columns
    return list(genes[np.all([genes.isin(one.expression.columns) for one in others], axis=0)])


def _unit(cohort: Cohort, column: str) -> str:
    return str((cohort.about.get("units") or {}).get(column, "")).strip().lower().removesuffix("s")


def _agree(train: Cohort, cohort: Cohort, column: str) -> bool:
    units = {_unit(train, column), _unit(cohort, column)} - {""}
    return len(units) < 2


def _alike(train: Cohort, cohort: Cohort, column: str) -> bool:
    if column not in cohort.clinical or not _agree(train, cohort, column):
        return False
    return len({pd.api.types.is_numeric_dtype(one.clinical[column]) for one in (train, cohort)}) == 1


def _factor(train: Cohort, cohort: Cohort, theirs: Task, task: Task) -> float:
    """Return what a time of the cohort is multiplied by; 1 where one of the two does not say its unit."""
    units = _unit(train, theirs.columns[0]), _unit(cohort, task.columns[0])
    if "" in units or units[0] == units[1]:
        return 1.0
    if not set(units) <= set(DAYS):
        raise CohortError(
            f"{cohort.name}: {task.columns[0]!r} is in {units[1]}s and that of {train.name} in {units[0]}s; times are "
            "converted between days, weeks, months and years: say one of them in both cohort.yml."
        )
    return DAYS[units[1]] / DAYS[units[0]]
