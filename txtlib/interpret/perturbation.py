"""What each gene's expression does to a trained network's answers: change one gene, keep the others, and ask again.

The amounts are in units of the scaled expression, as the network sees it: shares of the gene's range in the training
part (scaler "minmax"), of its quantiles ("rank"), or SDs ("standard"). No training cohort is needed for them, so a
frozen network can be asked on patients from elsewhere. Where the scaler keeps to 0 and 1, so does the changed value:
a gene that is at 0 in a patient cannot go down there, and the table says how far each gene was moved.

This is what the network answers, not what would happen to a patient: one gene moved alone makes profiles that no
tumour need have, and the changes in n patients of one network are one training's, not n witnesses.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from txtlib.cohort import Cohort
from txtlib.interpret.attention import without_dropout
from txtlib.interpret.plain import fdr
from txtlib.losses import mtlr_scores
from txtlib.preprocess import Preprocessor
from txtlib.training import DIGITS, Trained

BOUNDED = ("minmax", "rank")  # scalers that keep to 0 and 1
TOKENS = 16_000  # genes x patients per forward pass: more is no quicker on a CPU
ANSWER = ["task", "output"]  # the name of an answer: output is "risk", "value" or a class
ROW = ["gene", "amount", *ANSWER]  # what a row of the table of effects is named by

Answers = dict[tuple[str, str], np.ndarray]


# --- answers ------------------------------------------------------------------------------------------------------


def decoded(outputs: dict[str, Tensor], preprocessor: Preprocessor, horizon: float | None = None) -> dict:
    """Turn raw outputs {task: (B, size)} into answers {(task, output): (B,)}, with gradients, in double precision.

    output is "risk" for survival, the probability of the event by the ``horizon`` (in the cohort's time unit); "value"
    for a regression, in the label's unit; and each class of a classification, its probability. They are those of
    ``Trained.predict`` without its rounding. Raises ValueError for a survival task without a horizon within its grid.
    """
    found = {}
    for task in preprocessor.tasks:
        output = outputs[task.name].double()
        if task.kind == "survival":
            share = torch.from_numpy(_share_by(horizon, preprocessor.edges)).to(output.device)  # (K + 1,)
            found[task.name, "risk"] = mtlr_scores(output).softmax(1) @ share
        elif task.kind == "regression":
            mean, spread = preprocessor.scales[task.name]
            found[task.name, "value"] = output[:, 0] * spread + mean
        else:
            classes = preprocessor.classes[task.name]
            found |= {(task.name, name): share for name, share in zip(classes, output.softmax(1).T, strict=True)}
    return found


def _share_by(horizon: float | None, edges: np.ndarray) -> np.ndarray:
    """Return how much of each time cell is over by the horizon, (K + 1,): curves are straight within a cell."""
    if horizon is None or not 0 < horizon <= edges[-1]:
        raise ValueError(
            f"The risk needs a horizon above 0 and up to {edges[-1]:g}, where the time grid ends, not {horizon}; give "
            "one in the cohort's time unit."
        )
    starts = np.append(0.0, edges[:-1])
    return np.append(((horizon - starts) / (edges - starts)).clip(0, 1), 0.0)


@torch.inference_mode()
def answers(trained: Trained, x: np.ndarray, horizon: float | None = None) -> Answers:
    """Return the answers {(task, output): (n,)} of ``decoded`` for scaled expression (n, G), in small pieces."""
    parts = torch.from_numpy(x).split(at_once(x.shape[1]))
    with without_dropout(trained.network) as device:
        pieces = [decoded(trained.network(some.to(device)), trained.preprocessor, horizon) for some in parts]
    return {key: torch.cat([piece[key] for piece in pieces]).cpu().numpy() for key in pieces[0]}


def at_once(n_genes: int) -> int:
    """Return how many patients of that many genes go through the network together."""
    return max(1, TOKENS // n_genes)


def scaled(trained: Trained, cohort: Cohort) -> np.ndarray:
    """Return a cohort's expression as the network sees it, (n, G) float32; ValueError if the cohort has no patient."""
    if not len(cohort):
        raise ValueError(f"{cohort.name} has no patient; give one or more.")
    return trained.preprocessor.expression(cohort)


def columns_of(preprocessor: Preprocessor, genes: Sequence[str] | None) -> np.ndarray:
    """Return the columns (G',) of these genes, of all where None; ValueError for one that is not there, or twice."""
    if genes is None:
        return np.arange(len(preprocessor.genes))
    column = {gene: number for number, gene in enumerate(preprocessor.genes)}
    absent = [gene for gene in genes if gene not in column]
    if absent or not len(genes) or len(set(genes)) < len(genes):
        what = f"does not see {absent[0]!r}" if absent else "cannot be asked for no gene, or for one gene twice"
        raise ValueError(f"The network {what}; give genes of its preprocessor, each once, or None for all.")
    return np.array([column[gene] for gene in genes])


# --- one gene at a time -------------------------------------------------------------------------------------------


def changes(
    trained: Trained, x: np.ndarray, columns: np.ndarray, values: np.ndarray, horizon: float | None = None
) -> tuple[Answers, Answers]:
    """Return the answers (n,) for x (n, G), and by how much they change, (R, G', n), with other values in one gene.

    ``values`` (R, G', n) is what the gene of each of the ``columns`` (G',) has instead, in each of R rounds. Where
    that is what it has already, the change is exactly 0, at no cost.
    """
    before = answers(trained, x, horizon)
    moved = np.flatnonzero(values != x[:, columns].T)
    found = {key: np.zeros(values.shape) for key in before}
    for start in range(0, len(moved), at_once(x.shape[1])):
        some = moved[start : start + at_once(x.shape[1])]
        _, gene, patient = np.unravel_index(some, values.shape)
        batch = x[patient]
        batch[np.arange(len(some)), columns[gene]] = values.flat[some]
        for key, after in answers(trained, batch, horizon).items():
            found[key].flat[some] = after - before[key][patient]
    return before, found


@dataclass(frozen=True)
class Perturbed:
    """What G' genes, moved by A amounts one at a time, do to the answers for n patients.

    before {(task, output): (n,)} are the answers without any change, change {(task, output): (A, G', n)} by how much
    they change; the names are those of ``decoded``. moved (A, G', n) is how far the gene went, in scaled units.
    ``rounding`` {(task, output): number} is what counts as no change.
    """

    genes: tuple[str, ...]
    amounts: tuple[float, ...]
    samples: pd.Index
    before: Answers
    change: Answers
    moved: np.ndarray
    rounding: dict[tuple[str, str], float]

    def table(self) -> pd.DataFrame:
        """Return a row per answer, amount and gene: task, output, gene, amount, moved, mean, sd, rises, falls, n.

        moved is the mean way the gene went over the n patients, in scaled units; mean and sd are those of the answer's
        change over patients; rises and falls the shares of patients in which it goes up and down by more than rounding.
        """
        return pd.concat([self._rows(key) for key in self.change], ignore_index=True)

    def _rows(self, key: tuple[str, str]) -> pd.DataFrame:
        change, rounding = self.change[key], self.rounding[key]
        n = len(self.samples)
        spread = change.std(2, ddof=1) if n > 1 else np.full(change.shape[:2], np.nan)
        columns = {
            "gene": np.tile(self.genes, len(self.amounts)),
            "amount": np.repeat(self.amounts, len(self.genes)),
            "moved": self.moved.mean(2).ravel(),
            "mean": change.mean(2).ravel(),
            "sd": spread.ravel(),
            "rises": (change > rounding).mean(2).ravel(),
            "falls": (change < -rounding).mean(2).ravel(),
        }
        return pd.DataFrame({"task": key[0], "output": key[1], **columns, "n": n})


def perturb(
    trained: Trained,
    cohort: Cohort,
    amounts: Sequence[float] = (-0.5, 0.5),
    horizon: float | None = None,
    genes: Sequence[str] | None = None,
) -> Perturbed:
    """Move each gene (all, if none is named) of each patient by each amount, the others kept, and ask all tasks.

    Amounts are in units of the scaled expression (see the module), ``horizon`` is that of the survival risk, in the
    cohort's time unit. A x G' x n forward passes: 300 genes up and down in 80 patients take about two minutes on 2
    CPU cores with 2 layers. Raises ValueError for amounts that are not finite, 0, twice or none, for a gene that the
    network does not see, and for a missing horizon.
    """
    _check_amounts(amounts)
    preprocessor = trained.preprocessor
    x, columns = scaled(trained, cohort), columns_of(preprocessor, genes)
    old = x[:, columns].T  # (G', n)
    new = old + np.asarray(amounts, np.float32)[:, None, None]
    new = new.clip(0, 1) if preprocessor.scaler in BOUNDED else new
    before, change = changes(trained, x, columns, new, horizon)
    names = tuple(preprocessor.genes[column] for column in columns)
    rounding = {key: _rounding(preprocessor, *key) for key in change}
    return Perturbed(names, tuple(map(float, amounts)), cohort.samples, before, change, new - old, rounding)


def _check_amounts(amounts: Sequence[float]) -> None:
    values = np.asarray(amounts, float)
    if values.ndim != 1 or not values.size or not (np.isfinite(values) & (values != 0)).all():
        raise ValueError(f"amounts is a list of finite numbers other than 0, not {amounts}.")
    if len(np.unique(values)) < len(values):
        raise ValueError(f"amounts holds a number twice: {amounts}; give each once.")


def _rounding(preprocessor: Preprocessor, task: str, output: str) -> float:
    return 10.0**-DIGITS * (preprocessor.scales[task][1] if output == "value" else 1.0)


# --- which genes stand out ----------------------------------------------------------------------------------------


def ranked_genes(table: pd.DataFrame, task: str, amount: float, output: str = "risk") -> pd.DataFrame:
    """Rank the G' genes of ``Perturbed.table`` by the mean change of one answer, highest first, by one amount.

    Columns: rank (1 is highest), gene, moved, mean, sd, rises, falls, p_higher, p_lower. p_higher is the share of the
    G' genes, this one included, whose mean change is as high or higher, p_lower as low or lower: a gene's place
    among all genes put to the same test. That is no test of patients: nothing is permuted, n is G', the lowest p there
    is is 1 / G', and some gene always has it. So a p counts for a gene named beforehand, and an FDR over all genes
    would mean nothing. Raises ValueError for an answer or amount that the table does not have.
    """
    rows = table[(table["task"] == task) & (table["output"] == output) & np.isclose(table["amount"], amount)]
    if rows.empty:
        there = [f"{' '.join(key)}" for key in table[ANSWER].drop_duplicates().itertuples(index=False)]
        raise ValueError(
            f"The table has no {task} {output} by {amount:g}; it has {', '.join(there)}, by "
            f"{', '.join(f'{value:g}' for value in table['amount'].unique())}."
        )
    rows = rows.sort_values(["mean", "gene"], ascending=[False, True]).reset_index(drop=True)
    place = rows["mean"].rank(method="max", ascending=False), rows["mean"].rank(method="max")
    found = rows[["gene", "moved", "mean", "sd", "rises", "falls"]]
    found = found.assign(p_higher=place[0] / len(rows), p_lower=place[1] / len(rows))
    found.insert(0, "rank", rows["mean"].rank(method="min", ascending=False).astype(int))
    return found


def against_null_models(
    trained: Trained,
    nulls: Sequence[Trained],
    cohort: Cohort,
    amounts: Sequence[float] = (-0.5, 0.5),
    horizon: float | None = None,
    genes: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Return ``against_nulls`` of a network and of null networks, asked by ``perturb`` on the same patients."""
    tables = [perturb(each, cohort, amounts, horizon, genes).table() for each in (trained, *nulls)]
    return against_nulls(tables[0], tables[1:])


def against_nulls(table: pd.DataFrame, nulls: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Hold each gene's mean change beside that in m null networks, trained on permuted labels for instance.

    ``table`` and ``nulls`` are ``Perturbed.table`` of the same patients and amounts. Columns: task, output, gene,
    amount, mean, null_mean, null_sd, p_higher, p_lower, p, q, n_nulls. p_higher is (1 + the number of nulls whose
    mean change is as high or higher) / (1 + m), p_lower as low or lower, and p, twice the smaller one, is two-sided.
    What is permuted is what the caller permuted before training; n is m: one network is one witness, whatever the
    number of patients, and p cannot be below 2 / (1 + m). q is p with the false discovery rate of Benjamini and
    Hochberg over the genes of one answer and amount. Raises ValueError without nulls, or for a row that one lacks.
    """
    if not nulls:
        raise ValueError("There is no null network to compare with; give one or more.")
    real = table.set_index(ROW)["mean"]
    drawn = np.stack([_means_at(null, real.index) for null in nulls])  # (m, rows)
    found = pd.DataFrame({"mean": real, "null_mean": drawn.mean(0)})
    found["null_sd"] = drawn.std(0, ddof=1) if len(nulls) > 1 else np.nan
    for name, beyond in (("p_higher", drawn >= real.to_numpy()), ("p_lower", drawn <= real.to_numpy())):
        found[name] = (1 + beyond.sum(0)) / (1 + len(nulls))
    found["p"] = (2 * found[["p_higher", "p_lower"]].min(axis=1)).clip(upper=1)
    found["q"] = found.groupby(["amount", *ANSWER])["p"].transform(fdr)
    return found.assign(n_nulls=len(nulls)).reset_index()


def _means_at(null: pd.DataFrame, rows: pd.MultiIndex) -> np.ndarray:
    means = null.set_index(ROW)["mean"]
    absent = rows.difference(means.index)
    if len(absent):
        gene, amount, task, output = absent[0]
        raise ValueError(
            f"A null network has no answer {task} {output} for gene {gene!r} by {amount:g}; train it on the same genes "
            "and tasks, and ask it by the same amounts."
        )
    return means[rows].to_numpy()
