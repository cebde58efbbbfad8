"""Does a way of ranking genes, or pairs of genes, find what was planted? Only a simulated cohort can say.

A score is worth what it finds: the area under the ROC curve of planted against decoy genes is the chance that a
planted gene scores higher than a decoy, 0.5 for a ranking that knows nothing. Worlds are what an interval is over:
two trainings in one world share its genes and patients, and are no two witnesses.

Also here: pairs, by mutual attention, by Cox regression with a product, and by what a network answers if two genes
move together; and how many dimensions attention has to say anything in.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pandas as pd
import torch
from scipy import stats

from txtlib.cohort import Cohort, CohortError, Split
from txtlib.interpret.attention import chosen_layers, on_device, pieces, received_table, without_dropout
from txtlib.interpret.attribution import gradient_times_input, integrated_gradients, permutation_importance
from txtlib.interpret.graphs import attention_graphs, cut, degrees
from txtlib.interpret.perturbation import answers, columns_of, perturb
from txtlib.interpret.plain import correlations, group_tests, undefined_is_nan, univariate_cox
from txtlib.model import TxT
from txtlib.training import Trained

NEWTON_STEPS = 30
CONVERGED = 1e-8  # the last step, in log hazard per SD
LEAST_GROUP = 2  # patients on each side of a comparison
MOVES = (-0.25, 0.25)  # of scaled expression, by which a gene is moved
STEPS = 10  # of integrated gradients
DIGITS = 1e-9  # a risk nearer to 0 or 1 than this is taken as this


# --- how well a ranking does --------------------------------------------------------------------------------------


def recovery(scores: pd.Series, planted: Iterable, decoys: Iterable) -> float:
    """Return the chance that a planted name scores higher than a decoy, ties counting half: the area under the ROC.

    ``scores`` (G,) is by name, higher for what counts more; names of neither list play no part. Raises ValueError for
    an empty list, one name in both, and a name without a finite score.
    """
    planted, decoys = list(planted), list(decoys)
    both = set(planted) & set(decoys)
    if not planted or not decoys or both:
        raise ValueError(f"Give planted and decoy names, apart: {len(planted)}, {len(decoys)}, in both {sorted(both)}.")
    values = scores.reindex([*planted, *decoys]).to_numpy(float)
    if not np.isfinite(values).all():
        first = [*planted, *decoys][int(np.flatnonzero(~np.isfinite(values))[0])]
        raise ValueError(f"{first!r} has no finite score.")
    inside, outside = values[: len(planted)], values[len(planted) :]
    return float(stats.mannwhitneyu(inside, outside).statistic / (len(inside) * len(outside)))


def over_worlds(
    table: pd.DataFrame,
    by: Sequence[str],
    value: str = "auroc",
    level: float = 0.95,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> pd.DataFrame:
    """Return mean, low, high and worlds of a value for each group of ``by``: a t interval over worlds.

    ``table`` has a column world; rows of one world and group (model seeds) count once, by their mean. An interval is
    cut at the ``bounds`` of the value, 0 and 1 for a share. One world, or worlds that all agree, have no spread: low
    and high are NaN. Rows are sorted by their names.
    """
    means = table.groupby([*by, "world"])[value].mean()
    groups = means.groupby(level=list(by))
    mean, sd, n = groups.mean(), groups.std(ddof=1), groups.size()
    with undefined_is_nan():
        reach = stats.t.ppf(0.5 + level / 2, n - 1) * (sd / np.sqrt(n)).where(sd > 0)
    low, high = ((mean + side * reach).clip(*bounds) for side in (-1, 1))
    return pd.DataFrame({"mean": mean, "low": low, "high": high, "worlds": n})


def against_half(low: float, high: float) -> str:
    """Say how an interval of a share lies to 0.5: above chance, below chance, or not to be told from chance.

    Of an undefined one nothing can be said: without an interval.
    """
    if np.isnan(low + high):
        return "without an interval"
    if low > 0.5:
        return "above chance"
    return "below chance" if high < 0.5 else "not to be told from chance"


def nested_parts(cohort: Cohort, n: int, validation: int, tested: int) -> Split:
    """Cut a planted cohort into parts in its own order: first the tested, then validation, then n to train on.

    Patients of a planted cohort are in no order, so that these are random parts; those of a smaller n are among those
    of a larger, and are tested on the same patients. Raises CohortError if there are not enough.
    """
    if min(n, validation, tested) < 1 or n + validation + tested > len(cohort):
        raise CohortError(
            f"{cohort.name}: {len(cohort)} patients do not make parts of {n}, {validation} and {tested}, each one or "
            "more."
        )
    ends = np.cumsum([tested, validation, n])
    test, held, train = (cohort.take(part) for part in np.split(cohort.samples, ends)[:3])
    return Split(train, held, test)


# --- genes --------------------------------------------------------------------------------------------------------


def attention_scores(
    trained: Trained, cohort: Cohort, group: pd.Series | None = None, times_uniform: float = 2.0, drawn: int = 60
) -> pd.DataFrame:
    """Score the G genes by what attention alone says of them: a row per way, a column per gene.

    attention received: the mean over patients. attention varies: its SD over patients, as a share of the mean.
    out-degree: edges above ``times_uniform`` / G in the first ``drawn`` patients. attention, by outcome: the |t| of
    Welch's test between the patients in ``group`` (True or False by sample) and the others; left out without a group,
    or with one that is nearly all or nobody.
    """
    table = received_table(trained, cohort)
    some = cohort.take(cohort.samples[:drawn])
    genes, x = list(table.columns), trained.preprocessor.expression(some)
    graphs = attention_graphs(
        trained.network, x, some.samples, genes, cut(len(genes), times_uniform=min(times_uniform, len(genes) / 2))
    )
    rows = {"attention received": table.mean(), "attention varies": table.std(ddof=0) / table.mean()}
    rows["out-degree"] = degrees(graphs).out.mean()
    if group is not None and min(group.sum(), (~group).sum()) >= LEAST_GROUP:
        rows["attention, by outcome"] = group_tests(table, group)["t"].abs().fillna(0.0)
    return pd.DataFrame(rows).T


def answer_scores(
    trained: Trained, cohort: Cohort, baseline: np.ndarray, task: str, horizon: float | None = None, seed: int = 0
) -> pd.DataFrame:
    """Score the G genes by what they do to one task's answers, summed over its classes: a row per way.

    Rows: integrated gradients, gradient x input, permutation importance (mean |share| or |change| over patients), and
    moved genes (the mean over patients of the change, sign aside, summed over moves up and down).
    """
    outputs = trained.preprocessor.classes.get(task, [None])
    looks = {
        "integrated gradients": lambda output: integrated_gradients(
            trained, cohort, baseline, task, output, horizon, STEPS
        ).ranking(),
        "gradient x input": lambda output: gradient_times_input(
            trained, cohort, baseline, task, output, horizon
        ).ranking(),
        "permutation importance": lambda output: permutation_importance(
            trained, cohort, task, output, horizon, repeats=1, seed=seed
        ),
    }
    rows = {name: _summed(look, outputs) for name, look in looks.items()}
    moved = perturb(trained, cohort, MOVES, horizon).table()
    moved = moved[moved["task"] == task]
    rows["moved genes"] = moved["mean"].abs().groupby(moved["gene"]).sum()
    return pd.DataFrame(rows).T[list(trained.preprocessor.genes)]


def _summed(look: Callable, outputs: Iterable) -> pd.Series:
    return sum(look(output).set_index("gene")["importance"] for output in outputs)


def plain_scores(cohort: Cohort, genes: Sequence[str], task: str, horizon: float | None = None) -> pd.DataFrame:
    """Score the genes by tests of one gene at a time, without any network: a row per test, a column per gene.

    Survival: |z| of univariate Cox regression, and |rho| with the event by the ``horizon``. Regression: |rho|.
    Classification: the statistic of Kruskal and Wallis. A gene without a statistic scores 0.
    """
    values, kind = cohort.expression[list(genes)], cohort.task(task).kind
    if kind == "survival":
        found = {"univariate Cox": univariate_cox(values, *cohort.outcome())["z"].abs()}
        known = by_horizon(cohort, horizon)
        if known.nunique() == 2 and len(known) > 2:
            found["correlation with the label"] = correlations(values, known.astype(float))["rho"].abs()
    elif kind == "regression":
        found = {"correlation with the label": correlations(values, cohort.clinical[task])["rho"].abs()}
    else:
        labels = cohort.clinical[task]
        parts = [values[labels == label].to_numpy(float) for label in labels.dropna().unique()]
        with undefined_is_nan():
            found = {"Kruskal-Wallis": pd.Series(stats.kruskal(*parts).statistic, values.columns)}
    return pd.DataFrame(found).T.fillna(0.0)


def by_horizon(cohort: Cohort, horizon: float) -> pd.Series:
    """Return by sample whether the event came by the horizon; those censored before it, or unknown, are left out."""
    time, event = cohort.outcome()
    died, outlived = (time <= horizon) & (event == 1), time > horizon
    return pd.Series(died, cohort.samples)[died | outlived]


# --- pairs --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def mutual_attention(network: TxT, x, layers: Iterable[int] | None = None) -> np.ndarray:
    """Return how much two genes look at each other, (G, G) symmetric: the mean of both directions.

    It is the mean over the patients of x (n, G), heads and the chosen layers (all by default), without dropout.
    Raises ValueError for a layer that is not there, and a network whose genes attend in sets.
    """
    layers, x = chosen_layers(network, layers), on_device(network, x)
    with without_dropout(network):
        sums = [network.attention(some, layer).mean(1).sum(0) for some in pieces(x) for layer in layers]
    mean = torch.stack(sums).sum(0).double().cpu().numpy() / (len(x) * len(layers))
    return (mean + mean.T) / 2


def pair_differences(
    trained: Trained, cohort: Cohort, pairs: Sequence[tuple[str, str]], horizon: float | None
) -> pd.Series:
    """Return by how much two genes together move a survival answer more than each alone, sign aside, by pair.

    Each gene is set to its lower and to its upper quartile in all n patients; the answer is log(-log S(horizon)), the
    log hazard up to a constant where hazards are proportional, so that effects which merely multiply hazards give 0.
    The score is |mean over patients of f(high, high) - f(high, low) - f(low, high) + f(low, low)|; 4 n forward passes
    a pair. Raises ValueError for a gene that the network does not see, and a network without a survival task.
    """
    task = next((task.name for task in trained.preprocessor.tasks if task.kind == "survival"), None)
    if task is None:
        raise ValueError("Pairs are asked of a survival task, and the network has none.")
    x = trained.preprocessor.expression(cohort)
    low, high = np.quantile(x, [0.25, 0.75], axis=0)
    found = {}
    for a, b in pairs:
        i, j = columns_of(trained.preprocessor, [a, b])
        corners = []
        for first, second in ((high, high), (high, low), (low, high), (low, low)):
            moved = x.copy()
            moved[:, i], moved[:, j] = first[i], second[j]
            corners.append(moved)
        risk = answers(trained, np.concatenate(corners), horizon)[task, "risk"].clip(DIGITS, 1 - DIGITS)
        value = np.log(-np.log1p(-risk)).reshape(4, -1).mean(1)
        found[a, b] = abs(value @ [1, -1, -1, 1])
    return _by_pair(found)


def interaction_cox(
    values: pd.DataFrame, pairs: Sequence[tuple[str, str]], time: np.ndarray, event: np.ndarray
) -> pd.DataFrame:
    """Fit a Cox regression of two genes and their product for each pair, ties as Breslow's.

    Genes of ``values`` (n, G) are put to mean 0 and SD 1 before they are multiplied. time and event (n,) are as from
    ``Cohort.outcome``; patients without them are left out. Returns by pair the product's log hazard ratio
    (coefficient), z and p: Wald's two-sided test that it is 0, n = patients. NaN where a fit does not converge.
    Raises ValueError without any event.
    """
    known = ~np.isnan(time + event)
    time, event = time[known], event[known] == 1
    if not event.any():
        raise ValueError(f"None of the {len(time)} patients with an outcome has an event; Cox regression needs events.")
    order = np.argsort(time, kind="stable")
    rows = np.flatnonzero(event[order])
    first = np.searchsorted(time[order], time[order][rows])
    with undefined_is_nan():
        z = pd.DataFrame(stats.zscore(values.to_numpy(float)[known][order], axis=0), columns=values.columns)
        fits = {(a, b): _product_of(z[a].to_numpy(), z[b].to_numpy(), rows, first) for a, b in pairs}
    found = pd.DataFrame(
        {name: _by_pair({pair: fit[at] for pair, fit in fits.items()}) for at, name in enumerate("bz")}
    )
    found.columns = ["coefficient", "z"]
    return found.assign(p=2 * stats.norm.sf(found["z"].abs()))


def _product_of(a: np.ndarray, b: np.ndarray, rows: np.ndarray, first: np.ndarray) -> tuple[float, float]:
    """Return coefficient and z of a b beside a and b, each (n,) in order of time, by Newton's steps."""
    x, beta = np.column_stack([a, b, a * b]), np.zeros(3)
    for _ in range(NEWTON_STEPS):
        score, information = _derivatives(x, beta, rows, first)
        if not np.isfinite(information).all() or np.linalg.cond(information) > 1e12:
            return np.nan, np.nan
        step = np.linalg.solve(information, score)
        beta = beta + np.clip(step, -1, 1)
        if np.abs(step).max() < CONVERGED:
            return beta[2], beta[2] / np.sqrt(np.linalg.inv(_derivatives(x, beta, rows, first)[1])[2, 2])
    return np.nan, np.nan


def _derivatives(x: np.ndarray, beta: np.ndarray, rows: np.ndarray, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first and minus the second derivative of the log partial likelihood, (3,) and (3, 3)."""
    hazard = np.exp(x @ beta)
    columns = np.column_stack([np.ones(len(x)), x, (x[:, :, None] * x[:, None, :]).reshape(len(x), -1)])
    at_risk = np.cumsum((hazard[:, None] * columns)[::-1], 0)[::-1][first]  # (events, 1 + 3 + 9)
    mean, square = at_risk[:, 1:4] / at_risk[:, :1], at_risk[:, 4:] / at_risk[:, :1]
    information = square.sum(0).reshape(3, 3) - mean.T @ mean
    return (x[rows] - mean).sum(0), information


def _by_pair(found: dict) -> pd.Series:
    return pd.Series(list(found.values()), [f"{a} x {b}" for a, b in found], dtype=float)


# --- what attention has room to say -------------------------------------------------------------------------------


def effective_rank(matrix: np.ndarray) -> float:
    """Return how many dimensions a matrix fills: exp of the entropy of its squared singular values' shares.

    1 for a matrix of rank one, m for m equal singular values (Roy and Vetterli 2007, with squares). 0 for a matrix of
    zeros.
    """
    power = np.linalg.svd(np.asarray(matrix, float), compute_uv=False) ** 2
    share = power[power > 0] / max(power.sum(), np.finfo(float).tiny)
    return float(np.exp(-(share * np.log(share)).sum())) if len(share) else 0.0


@torch.no_grad()
def score_changes(network: TxT, x, layer: int = 0) -> np.ndarray:
    """Return what expression adds to a layer's scores, (n, H, G, G): log attention less that of a profile of zeros.

    Each row is also put to mean 0 over keys, a shift that a softmax does not see. x (n, G) is scaled expression.
    Memory is n H G G: a few patients. Raises ValueError for a layer that is not there.
    """
    (layer,) = chosen_layers(network, [layer])
    x = on_device(network, x)
    with without_dropout(network):
        seen, still = (network.attention(rows, layer).double().log().cpu().numpy() for rows in (x, 0 * x[:1]))
    change = seen - still
    return change - change.mean(3, keepdims=True)


def room(network: TxT, x, layer: int = 0) -> dict[str, float]:
    """Return in how many dimensions expression can change attention, two effective ranks, means over the n patients.

    "genes": of the (G, G) change of scores in one head, the mean over heads too; "heads": of the H changes of one
    patient. In the first layer a head adds c_h x_i x_j, so both are 1: an outer product, times a number a head.
    """
    change = score_changes(network, x, layer)
    genes = np.mean([effective_rank(head) for patient in change for head in patient])
    heads = np.mean([effective_rank(patient.reshape(len(patient), -1)) for patient in change])
    return {"genes": float(genes), "heads": float(heads)}


def flipped(network: TxT, x, layer: int = 0) -> float:
    """Return how far attention moves if every sign of x (n, G) is turned, the largest change of a weight."""
    x = on_device(network, x)
    with torch.no_grad(), without_dropout(network):
        before, after = (network.attention(rows, layer) for rows in (x, -x))
    return float((before - after).abs().max())


def static_share(received: pd.DataFrame) -> float:
    """Return which share of the variance of attention received, (n, G), is between genes, the same for all patients.

    The rest is between the patients of a gene. NaN where all numbers are the same.
    """
    values = received.to_numpy(float)
    whole = values.var()
    return float(values.mean(0).var() / whole) if np.ptp(values) > 0 else np.nan
