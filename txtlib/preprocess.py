"""Everything that is fitted on the training part before a model sees a number, and applied unchanged elsewhere."""

from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd

from txtlib.cohort import Cohort, CohortError, Task, cells

MISSING = -1  # the code of a missing class or time cell
SCALERS = ("minmax", "standard", "rank")
GRIDS = ("even", "quantile")
AT_RISK = 10  # an even time grid ends where fewer training patients than this are still followed


@dataclass(frozen=True)
class Encoded:
    """Arrays for a network: x (n, G) float32, and per task a tuple of arrays (n,).

    regression: (target scaled on the training part, NaN where missing,); classification: (class code, -1 where
    missing,); survival: (time cell, -1 where missing; event).
    """

    x: np.ndarray
    labels: dict[str, tuple[np.ndarray, ...]]


@dataclass(frozen=True)
class Preprocessor:
    """The genes, scales, class codes and time grid of one training part; see ``fit_preprocessor``.

    genes (G,); fill (G,) replaces a missing value; table (2, G) holds a shift and a range per gene, or (Q, G)
    quantiles for the rank scaler; scales {regression task: (mean, SD)}; classes {classification task: labels in
    code order}; edges (K,) are the ends of the time cells, in the cohort's unit, before the open one.
    """

    genes: tuple[str, ...]
    scaler: str
    fill: np.ndarray
    table: np.ndarray
    tasks: tuple[Task, ...]
    scales: dict[str, tuple[float, float]]
    classes: dict[str, tuple[str, ...]]
    edges: np.ndarray

    @property
    def outputs(self) -> dict[str, int]:
        """Outputs that a network needs per task: 1, the number of classes, or the number of edges."""
        sizes = {"regression": lambda name: 1, "classification": lambda name: len(self.classes[name])}
        return {task.name: sizes.get(task.kind, lambda name: len(self.edges))(task.name) for task in self.tasks}

    def with_tasks(self, *names: str) -> "Preprocessor":
        """Return the same fitted numbers for only the named tasks; KeyError for one that was not fitted."""
        found = {task.name: task for task in self.tasks}
        return replace(self, tasks=tuple(found[name] for name in names))

    def missing_genes(self, cohort: Cohort) -> list[str]:
        """Return the chosen genes that a cohort does not have; each is filled with its training median."""
        return [gene for gene in self.genes if gene not in cohort.expression.columns]

    def expression(self, cohort: Cohort) -> np.ndarray:
        """Return the chosen genes, filled and scaled, (n, G) float32; CohortError if the cohort has none of them."""
        if len(self.missing_genes(cohort)) == len(self.genes):
            raise CohortError(
                f"{cohort.name} has none of the {len(self.genes)} genes of this model (first: {self.genes[0]}); "
                "bring its gene names to those of the training cohort."
            )
        values = cohort.expression.reindex(columns=list(self.genes)).to_numpy(float)
        values = np.where(np.isnan(values), self.fill, values)
        return scale_genes(values, self.scaler, self.table).astype(np.float32)

    def encode(self, cohort: Cohort) -> Encoded:
        """Return a cohort's arrays for a network; a label of an undeclared class counts as missing."""
        return Encoded(self.expression(cohort), {task.name: self._label(task, cohort) for task in self.tasks})

    def _label(self, task: Task, cohort: Cohort) -> tuple[np.ndarray, ...]:
        if task.kind == "survival":
            time, event = (cohort.clinical[column].to_numpy(float) for column in task.columns)
            seen = ~np.isnan(time + event)
            return np.where(seen, time_cell(np.nan_to_num(time), self.edges), MISSING), np.nan_to_num(event) == 1
        labels = cohort.clinical[task.name]
        if task.kind == "classification":
            return (pd.Categorical(labels, categories=self.classes[task.name]).codes.astype(np.int64),)
        mean, spread = self.scales[task.name]
        return (((labels.to_numpy(float) - mean) / spread).astype(np.float32),)

    def state(self) -> tuple[dict[str, np.ndarray], dict]:
        """Return (arrays, plain values), enough to build the same Preprocessor again without pickle."""
        fields = {**asdict(self), "tasks": [asdict(task) for task in self.tasks]}
        arrays = {key: fields.pop(key) for key in ("fill", "table", "edges")}
        return arrays, fields

    @classmethod
    def from_state(cls, arrays: dict[str, np.ndarray], fields: dict) -> "Preprocessor":
        """Build a Preprocessor from what ``state`` returned, also after a trip through JSON."""
        tasks = tuple(Task(task["name"], task["kind"], tuple(task["columns"])) for task in fields["tasks"])
        tuples = {key: {name: tuple(pair) for name, pair in fields[key].items()} for key in ("scales", "classes")}
        return cls(**{**fields, **arrays, **tuples, "genes": tuple(fields["genes"]), "tasks": tasks})


def fit_preprocessor(
    train: Cohort, n_genes: int = 1000, scaler: str = "minmax", gene_list=None, n_times: int = 64, grid: str = "even"
) -> Preprocessor:
    """Fit on the training part: the most variable genes, their scaler, target scales, class codes, time grid.

    ``gene_list`` restricts the choice of genes (the article: Hallmark genes). ``grid`` is "even" (equal widths up
    to the last time with 10 patients at risk) or "quantile" (equal numbers of events). The class vocabulary is the
    cohort's declared one, else the labels of the training part. Raises CohortError.
    """
    if scaler not in SCALERS:
        raise ValueError(f"scaler is one of {', '.join(SCALERS)}, not {scaler!r}.")
    if min(n_genes, n_times) < 1:
        raise ValueError(f"n_genes and n_times are 1 or more, not {n_genes} and {n_times}.")
    genes = variable_genes(train.expression, n_genes, gene_list)
    values = _values(train.expression[genes])
    fill = np.nanmedian(values, 0)
    return Preprocessor(
        genes=tuple(genes),
        scaler=scaler,
        fill=fill,
        table=gene_table(np.where(np.isnan(values), fill, values), scaler),
        tasks=train.tasks,
        scales={task.name: _target_scale(train, task) for task in train.tasks if task.kind == "regression"},
        classes={task.name: _vocabulary(train, task) for task in train.tasks if task.kind == "classification"},
        edges=time_edges(*train.outcome(), n_times, grid) if train.survival_task else np.array([]),
    )


def relog(expression: pd.DataFrame, offset: float) -> pd.DataFrame:
    """Bring log2(FPKM + offset) to log2(FPKM + 1), (n, G); what was rounded below FPKM 0 becomes 0.

    GSE96058 comes with an offset of 0.1. z-scores cannot be brought back: leave them as they are, the scaler
    copes; log2(FPKM + 1) has an offset of 1 and stays the same.
    """
    return np.log2((np.exp2(expression) - offset).clip(lower=0) + 1)


def variable_genes(expression: pd.DataFrame, n_genes: int, gene_list=None) -> list[str]:
    """Return the names of the n most variable genes of (n, G), within a list if there is one; ties by name."""
    within = expression.columns if gene_list is None else expression.columns.intersection(list(gene_list))
    varying = within[expression[within].max() > expression[within].min()]  # a variance of 0 may come out as 1e-17
    if not len(varying):
        raise CohortError(
            f"No gene varies in the training part among the {len(within)} that may be chosen; give more samples, or a "
            "gene list in the names of the expression table."
        )
    variance = pd.Series(np.nanvar(_values(expression[varying]), axis=0, ddof=1), varying)
    return list(variance.sort_index().sort_values(ascending=False, kind="stable").index[:n_genes])


def _values(expression: pd.DataFrame) -> np.ndarray:
    return np.ascontiguousarray(expression.to_numpy(float))  # the last bit of a sum depends on the memory order


def gene_table(values: np.ndarray, scaler: str) -> np.ndarray:
    """Fit a scaler on training values (n, G): (2, G) shift and range, or (Q, G) quantiles."""
    if scaler == "rank":
        return np.quantile(values, np.linspace(0, 1, min(len(values), 101)), axis=0)
    low, spread = (values.min(0), np.ptp(values, 0)) if scaler == "minmax" else (values.mean(0), values.std(0))
    return np.stack([low, np.where(np.ptp(values, 0) > 0, spread, 1.0)])


def scale_genes(values: np.ndarray, scaler: str, table: np.ndarray) -> np.ndarray:
    """Apply a fitted scaler to (n, G). Min-max and rank stay in [0, 1] for new patients too: beyond is clipped."""
    if scaler == "rank":
        return np.stack([_rank(gene, known) for gene, known in zip(values.T, table.T, strict=True)], 1)
    scaled = (values - table[0]) / table[1]
    return scaled.clip(0, 1) if scaler == "minmax" else scaled


def _rank(gene: np.ndarray, known: np.ndarray) -> np.ndarray:
    first = np.r_[True, np.diff(known) > 0]  # a tie takes its lowest level: a gene that half do not express is 0 there
    return np.interp(gene, known[first], np.linspace(0, 1, len(known))[first])


def time_edges(time: np.ndarray, event: np.ndarray, n_times: int, grid: str = "even") -> np.ndarray:
    """Return the ends of the time cells, at most n_times of them (quantiles may coincide), rising, above 0."""
    if grid not in GRIDS:
        raise ValueError(f"grid is one of {', '.join(GRIDS)}, not {grid!r}.")
    known = ~np.isnan(time)
    time, event = time[known], event[known]
    ends = time[event == 1] if grid == "quantile" else np.sort(time)[-AT_RISK:][:1]
    if not (ends > 0).any():
        raise CohortError(
            f"The training part has {len(time)} survival times and {int(event.sum())} events, too few above 0 for a "
            "time grid; use a larger training part, or leave the survival task out."
        )
    levels = np.linspace(0, 1, n_times + 1)
    edges = np.quantile(ends, levels) if grid == "quantile" else np.linspace(0, ends[0], n_times + 1)
    return np.unique(edges[1:][edges[1:] > 0])


def time_cell(time: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return the right-open cell [t_{k-1}, t_k) that holds each time, counted from 0; len(edges) is the open one."""
    return np.searchsorted(edges, time, side="right").astype(np.int64)


def _target_scale(train: Cohort, task: Task) -> tuple[float, float]:
    values = train.clinical[task.name].dropna().to_numpy(float)
    if not len(values):
        raise CohortError(f"{train.name}: no training patient has a value of {task.name!r}; leave the task out.")
    return float(values.mean()), float(values.std()) if np.ptp(values) > 0 else 1.0


def _vocabulary(train: Cohort, task: Task) -> tuple[str, ...]:
    labels = train.clinical[task.name].dropna()
    declared = (train.about.get("classes") or {}).get(task.name, sorted(labels.unique()))
    declared = tuple(dict.fromkeys(map(str, declared)))
    if len(declared) < 2:
        raise CohortError(
            f"{train.name}: {task.name!r} needs two classes or more in the training part, found {list(declared)}; "
            "leave the task out, or declare its classes in cohort.yml."
        )
    undeclared = labels[~labels.isin(declared)]
    if len(undeclared):
        raise CohortError(
            f"{train.name}: column {task.name!r} has labels that cohort.yml does not declare under `classes`, "
            f"{cells(undeclared)}; declare them there, or correct them in clinical.csv."
        )
    return declared
