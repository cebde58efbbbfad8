"""What maps of patients say of claim C8, and the numbers beside a map that the claim does not need but a reader does.

Every rule here was fixed before any of its numbers were seen.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from txtlib import ledger
from txtlib.cohort import Cohort, Task
from txtlib.entries import noted
from txtlib.interpret.maps import nearest_neighbours, questions
from txtlib.ledger import Entry
from txtlib.predictions import Predictions
from txtlib.survival import survival_at

CLAIMED = ("Age", "NHG", "PAM50")  # of which C8 speaks, beside the predicted risk
LEAST = 1e-6  # the lowest probability of survival that an error is reckoned from: none is infinite
GAINED = ["mean", "low", "high", "least", "most", "seeds"]
Spaces = Mapping[str, np.ndarray]


# --- rows ---------------------------------------------------------------------------------------------------------


def gains(
    networks: Sequence[Spaces],
    cohort: Cohort,
    space: str,
    reference: str,
    k: int = 10,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> pd.DataFrame:
    """Return by how much neighbours in a space tell labels better than in the reference, over S trained networks.

    networks: for each model seed the spaces {name: (n, any)} of the same patients, ``space`` and ``reference`` among
    them. A row per task: mean over the networks, low and high, least and most (single networks), seeds (S). Each draw
    of the interval takes patients and networks with replacement (the pigeonhole bootstrap, Owen 2007,
    10.1214/07-AOAS122), so both how few patients and how few trainings there are make it wide; with one network it is
    over patients alone. NaN where the measure of ``neighbour_scores`` is undefined. Raises what that raises.
    """
    asked = [_drawn(_two(each, space, reference), cohort, k, resamples, seed) for each in networks]
    rows = {task: _over_both([one[task] for one in asked], seed, level) for task in (asked[0] if asked else {})}
    return pd.DataFrame(rows, GAINED).T.rename_axis("task")


def _two(found: Spaces, space: str, reference: str) -> Spaces:
    return {"space": found[space], "reference": found[reference]}


def _drawn(two: Spaces, cohort: Cohort, k: int, resamples: int, seed: int) -> dict[str, np.ndarray]:
    """Return {task: difference, first of all patients and then of each resample (1 + R,)}."""
    found = {}
    for one in questions(two, cohort, k, resamples, 1, seed):
        said = [one.measure.said(one.labels, one.nearest[name]) for name in two]
        value, floor = (one.measure.score(one.labels, side) for side in said)
        drawn, below = (one.measure.on_samples(one.labels, side, one.counts) for side in said)
        found[one.task.name] = np.append(value - floor, drawn - below)
    return found


def _over_both(differences: list[np.ndarray], seed: int, level: float) -> list[float]:
    table = np.stack(differences)  # (S, 1 + R)
    values, draws, seeds = table[:, 0], table[:, 1:], len(table)
    chosen = np.random.default_rng(seed).integers(0, seeds, (draws.shape[1], seeds))
    means = draws.T[np.arange(len(chosen))[:, None], chosen].mean(1)
    known = means[~np.isnan(means)]
    ends = np.quantile(known, [(1 - level) / 2, (1 + level) / 2]) if len(known) else [np.nan, np.nan]
    return [values.mean(), *ends, values.min(), values.max(), seeds]


def learned(draws: pd.DataFrame, networks: Sequence[str], constant: str, main: Mapping[str, str]) -> list[str]:
    """Return the tasks in which the networks are, on average, better than a constant.

    draws (1 + R, columns (method, task, measure)) are those of ``main_draws`` for the test patients, main {task: its
    measure, higher is better}. Better: the 95 % interval over patients of the mean difference lies above 0.
    """
    found = []
    for task, measure in main.items():
        methods = [name for name in (*networks, constant) if (name, task, measure) in draws.columns]
        if len(methods) == len(networks) + 1:
            mean = draws[[(name, task, measure) for name in networks]].mean(axis=1)
            gain = (mean - draws[constant, task, measure]).iloc[1:]
            found += [task] if gain.quantile(0.025) > 0 else []
    return found


def maps_entry(
    found: pd.DataFrame, widened: pd.DataFrame, tasks: Sequence[Task], told: Sequence[str], **about
) -> Entry:
    """C8: in the encoder's output neighbours tell each label better than in the components of expression.

    ``found`` is the table of ``gains``, and ``widened`` the same at the level of ``bonferroni``; ``told`` are the
    tasks of ``learned``: the others decide nothing. Without one of CLAIMED, or without survival, the claim is never
    reproduced. ``about`` as ``ledger.claim``'s.
    """
    rows = found[found[["mean", "low", "high"]].notna().all(axis=1)]
    if rows.empty:
        why = "no label of the test patients lets neighbours be compared"
        return ledger.not_attempted("C8", cohort=about["cohort"], why=why)
    measured = {name: f"{name}, TxT's vectors against components of expression" for name in rows.index}
    dull = [name for name in rows.index if name not in told]
    absent = _absent(rows.index, tasks)
    about["note"] = noted(absent, dull, bonferroni(len(found)), about.get("note", ""))
    return ledger.claim(
        "C8",
        {measured[name]: row[["mean", "low", "high"]].to_numpy(float) for name, row in rows.iterrows()},
        widened={measured[name]: widened.loc[name, ["low", "high"]].to_numpy(float) for name in rows.index},
        undecided=[measured[name] for name in dull],
        partial=bool(absent),
        **about,
    )


def bonferroni(comparisons: int) -> float:
    """Return the level of intervals that hold together at 95 %."""
    return 1 - 0.05 / max(1, comparisons)


def _absent(found: Sequence[str], tasks: Sequence[Task]) -> list[str]:
    survival = {task.name for task in tasks if task.kind == "survival"}
    missing = [name for name in CLAIMED if name not in found]
    return missing if survival & set(found) else [*missing, "survival"]


# --- beside the picture -------------------------------------------------------------------------------------------


def patient_errors(answer: Predictions, cohort: Cohort) -> pd.DataFrame:
    """Return how wrong an answer is for each patient and task, (n, tasks): 0 is right; NaN without a label.

    Numbers: the absolute error, in the label's unit. Classes: 1 less the probability given to the true class; 1 for a
    class that the method does not know. Survival: the absolute deviance residual (Therneau et al. 1990,
    10.1093/biomet/77.1.147) of the patient's own curve at the end of the follow-up, or of the curve if that ends
    first: near 0 where as much hazard was foretold as came true.
    """
    return pd.DataFrame({task.name: _errors(task, answer, cohort) for task in cohort.tasks}, cohort.samples)


def _errors(task: Task, answer: Predictions, cohort: Cohort) -> np.ndarray:
    if task.kind == "survival":
        return np.abs(_deviance(answer, *cohort.outcome()))
    labels = cohort.clinical[task.name]
    if task.kind == "regression":
        return np.abs(answer.values[task.name] - labels.to_numpy(float))
    shares = answer.probabilities[task.name]
    right = shares.to_numpy()[np.arange(len(labels)), shares.columns.get_indexer(labels)]
    right = np.where(labels.isin(shares.columns), right, 0.0)
    return np.where(labels.isna(), np.nan, 1 - right)


def _deviance(answer: Predictions, time: np.ndarray, event: np.ndarray) -> np.ndarray:
    ends = np.minimum(np.nan_to_num(time), answer.edges[-1])
    curves = zip(answer.survival, ends, strict=True)
    lasting = np.array([survival_at(curve[None], answer.edges, end)[0, 0] for curve, end in curves])
    hazard = -np.log(np.clip(lasting, LEAST, 1))
    logs = np.where(event == 1, np.log(np.maximum(hazard, LEAST)), 0.0)  # event x log(event - residual)
    return np.sign(event - hazard) * np.sqrt(np.maximum(-2 * (event - hazard + logs), 0))


def other_labels(cohort: Cohort, task: str) -> np.ndarray:
    """Return the labels of all tasks but one, and but survival, as vectors (n, p): what these tell of that one.

    Numbers in SDs, an indicator for each class; a missing label is the mean, or no class. (n, 0) where no label is
    left.
    """
    plain = [one for one in cohort.tasks if one.kind != "survival" and one.name != task]
    columns = [_as_numbers(one, cohort.clinical[one.name]) for one in plain]
    return np.concatenate([np.empty((len(cohort), 0)), *columns], axis=1)


def _as_numbers(task: Task, labels: pd.Series) -> np.ndarray:
    if task.kind == "classification":
        return pd.get_dummies(labels).to_numpy(float)
    spread = labels.std()
    return ((labels - labels.mean()) / (spread if spread > 0 else 1)).fillna(0).to_numpy(float)[:, None]


def shared_neighbours(one: np.ndarray, other: np.ndarray, k: int = 10) -> float:
    """Return the share of a patient's k nearest in one space (n, any) that are so in the other, mean over patients.

    1 if both have the same neighbours; by luck k / (n - 1). Raises ValueError for different numbers of patients.
    """
    if len(one) != len(other):
        raise ValueError(f"Two spaces of the same patients are compared, not of {len(one)} and {len(other)}.")
    pairs = zip(nearest_neighbours(one, k), nearest_neighbours(other, k), strict=True)
    return float(np.mean([len(np.intersect1d(*pair)) / k for pair in pairs]))


def group_shapes(space: np.ndarray, labels: pd.Series) -> pd.DataFrame:
    """Return how groups lie in a space (n, any), in its own unit: size, width, and gap to the nearest other group.

    A row per class with two patients or more, in the order of first appearance; patients without a label are left
    out. width is the root mean squared distance from the group's centre, gap that of its centre to the nearest other
    centre; both are divided by the root mean squared distance of all from theirs. gap is NaN for a single group.
    """
    groups = {name: space[(labels == name).to_numpy()] for name in labels.dropna().unique()}
    groups = {name: rows for name, rows in groups.items() if len(rows) > 1}
    unit = _width(space[labels.notna().to_numpy()])
    centres = {name: rows.mean(0) for name, rows in groups.items()}
    rows = {name: [len(rows), _width(rows) / unit, _gap(name, centres) / unit] for name, rows in groups.items()}
    return pd.DataFrame(rows, ["size", "width", "gap"]).T


def _width(rows: np.ndarray) -> float:
    return float(np.sqrt(((rows - rows.mean(0)) ** 2).sum(1).mean()))


def _gap(name: str, centres: dict[str, np.ndarray]) -> float:
    others = [centres[other] for other in centres if other != name]
    return min((float(np.linalg.norm(centres[name] - other)) for other in others), default=np.nan)
