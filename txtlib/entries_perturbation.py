"""What pruned heads, other gene vectors and moved genes say of C14, C15 and C16: tables and entries of the ledger.

All three claims are about a network that has learned its tasks. What a network says that is not shown to be better
than a constant is put down, and decides nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from txtlib import ledger
from txtlib.benchmark import training_horizon
from txtlib.bootstrap import score_draws
from txtlib.cohort import Cohort, Split, split
from txtlib.comparisons import paired_difference, paired_over_splits
from txtlib.entries import CONSTANT, MAIN, Tested
from txtlib.interpret.perturbation import Perturbed
from txtlib.interpret.pruning import ALL, FULL, name_of, pruned_answers
from txtlib.ledger import Entry
from txtlib.network import degrees, restrict, rewire
from txtlib.peers.floors import trivial
from txtlib.peers.txt import txt
from txtlib.training import Trained
from txtlib.trainings import trained_seeds

WALKED, RANDOM, REWIRED = "protein network", "random vectors", "rewired network"
ANY, RECURRENCE = (), ("DRFi", "DM")  # DM: distant metastasis


class Wanted(NamedTuple):
    """What the article says of a gene: moved up or down (``way``), the risk rises or falls (``sign``), where."""

    way: int
    sign: int
    endpoints: tuple[str, ...]


WANTED = {"CCL19": Wanted(1, -1, ANY), "SERPINB5": Wanted(-1, 1, RECURRENCE), "FABP4": Wanted(-1, 1, RECURRENCE)}
RARE = 0.05  # a gene stands out if no larger share of all genes, itself included, goes as far its way


# --- what has been learned ----------------------------------------------------------------------------------------


def measures_of(patients: Cohort) -> dict[str, str]:
    """Return {task: the measure it is judged by}, as in the benchmark."""
    return {task.name: MAIN[task.kind] for task in patients.tasks}


def horizon_of(train: Cohort) -> float | None:
    """Return the training part's horizon, in its unit of time; None without survival."""
    return training_horizon(train) if train.survival_task else None


def learned(draws: Sequence[pd.DataFrame], measures: Mapping[str, str], level: float = 0.95) -> pd.DataFrame:
    """Say by how much the mean score of S networks is above a constant's: rows tasks, columns mean, low, high.

    ``draws`` are those of ``head_draws``, with the same test patients and seed; the interval is over these patients,
    the networks being given. Low above 0 is learned.
    """
    names = [(task, measure) for task, measure in measures.items() if (FULL, task, measure) in draws[0]]
    gains = [each[FULL][names] - each[CONSTANT][names] for each in draws]
    gains = sum(gains) / len(gains)
    tails = gains.iloc[1:].quantile([(1 - level) / 2, (1 + level) / 2])
    found = {"mean": gains.iloc[0], "low": tails.iloc[0], "high": tails.iloc[1]}
    return pd.DataFrame(found).droplevel("measure").rename_axis("task")


# --- C14: one head off --------------------------------------------------------------------------------------------


def head_draws(
    trained: Trained, train: Cohort, test: Cohort, horizon: float | None, resamples: int = 500, seed: int = 0
) -> pd.DataFrame:
    """Return ``score_draws`` of a network with each head off and with each layer's heads off, and of a constant.

    Methods are "full", "constant", "layer 0, head 0" and so on, and "layer 0, head all". Resamples are the same for all
    of them, and for all networks that are given the same test part and seed. Raises ValueError as ``heads_off``.
    """
    answers = {FULL: trained.predict(test), CONSTANT: trivial().fit(train).predict(test)}
    answers |= {name_of(*which): answer for which, answer in pruned_answers(trained, test).items()}
    return score_draws(answers, train, test, horizon, resamples, seed)


def losses_of(draws: pd.DataFrame, measures: Mapping[str, str], level: float = 0.95) -> pd.DataFrame:
    """Return what each head, or layer, is worth: rows (off, task), columns mean, low, high of whole minus pruned.

    Above 0 the network is worse without it. The interval is over the n test patients, paired, for this one network.
    A score that is undefined has no row.
    """
    off = [name for name in draws.columns.unique("method") if name not in (FULL, CONSTANT)]
    pairs = list(measures.items())
    found = {name: paired_difference(draws, FULL, name, level) for name in off}
    found = {name: rows.loc[[pair for pair in pairs if pair in rows.index]] for name, rows in found.items()}
    rows = pd.concat(found, names=["off"]).rename(columns={"score": "mean"}).droplevel("measure")
    return rows.dropna()


def largest_loss(draws: pd.DataFrame, measures: Mapping[str, str], level: float = 0.95) -> pd.DataFrame:
    """Return mean, low and high of each head's largest loss over the T tasks: rows heads, and layers.

    The article's claim: without a head, at least one task is worse. The intervals of the tasks hold together (each of
    them is 1 - (1 - level) / T wide, Bonferroni), so the largest loss lies between the largest of their lower ends and
    the largest of their upper ends.
    """
    rows = losses_of(draws, measures, 1 - (1 - level) / max(1, len(measures)))
    return rows.groupby(level="off", sort=False).max()


def pruning_entry(
    patients: Cohort, networks: Mapping[str, pd.DataFrame], note: str = "", id: str = "C14", level: float = 0.95
) -> Entry:
    """Enter that each head matters: ``networks`` {name: ``head_draws``}, one training each.

    A comparison is one head of one network: its largest loss over the tasks that this network has learned. Where it
    has learned none, all tasks count, and the comparison decides nothing. It fails by intervals that are widened for
    the number of heads (Bonferroni).
    """
    cases = [_heads_of(name, draws, measures_of(patients), level) for name, draws in networks.items()]
    heads = pd.concat([case[0] for case in cases])
    wide = 1 - (1 - level) / max(1, len(heads))
    wider = pd.concat(
        [_heads_of(name, draws, measures_of(patients), level, wide)[0] for name, draws in networks.items()]
    )
    dull = [name for _, names in cases for name in names]
    words = [f"undecided where the network has learned no task: {len(dull)} of {len(heads)} heads"] if dull else []
    words += [f"fails only by intervals of {100 * wide:.4g} %", note]
    return ledger.claim(
        id,
        {name: tuple(row) for name, row in heads.iterrows()},
        widened={name: tuple(row[["low", "high"]]) for name, row in wider.iterrows()},
        undecided=dull,
        note="; ".join(filter(None, words)),
        splits=1,
        **sizes_of(patients),
    )


def _heads_of(name: str, draws: pd.DataFrame, measures: dict, level: float, wide: float | None = None):
    """Return each head's largest loss, and which of them decide nothing."""
    rows = learned([draws], measures, 1 - (1 - level) / max(1, len(measures)))  # all tasks are looked at
    kept = {task: measures[task] for task in rows.index[rows["low"] > 0]}
    found = largest_loss(draws, kept or measures, wide or level)
    found = found[[not off.endswith(ALL) for off in found.index]].rename(index=lambda off: f"{name}, {off}")
    return found, [] if kept else list(found.index)


def sizes_of(patients: Cohort) -> dict:
    """Return what an entry says of a cohort."""
    tested = Tested.of(patients)
    return dict(cohort=tested.cohort, patients=tested.patients, events=tested.events)


def between_trainings(draws: Sequence[pd.DataFrame], measures: Mapping[str, str]) -> pd.Series:
    """Return by how much two trainings that differ in their seed differ in a score, by task: mean over pairs, above 0.

    What a head's loss has to be held against. Raises ValueError for fewer than two trainings.
    """
    if len(draws) < 2:
        raise ValueError(f"{len(draws)} training(s) do not differ from each other; give two or more.")
    names = [(task, measure) for task, measure in measures.items() if (FULL, task, measure) in draws[0]]
    scores = np.array([each[FULL][names].iloc[0] for each in draws], float)
    first, second = np.triu_indices(len(scores), 1)
    return pd.Series(np.abs(scores[first] - scores[second]).mean(0), [task for task, _ in names])


# --- C15: where gene vectors come from ----------------------------------------------------------------------------


def networks_of(edges: pd.DataFrame, genes: Sequence[str], seed: int) -> dict[str, list | None]:
    """Return TxT's setting ``network`` of each arm: the edges between the genes, none, and the same edges rewired.

    Every gene keeps its number of edges among these genes. Raises CohortError where there is no edge, or none that can
    be swapped.
    """
    inside = restrict(edges, genes)
    swapped = rewire(inside, seed)
    if not degrees(swapped, genes).equals(degrees(inside, genes)):
        raise AssertionError("Rewiring changed a gene's number of edges.")
    return {WALKED: inside.to_numpy().tolist(), RANDOM: None, REWIRED: swapped.to_numpy().tolist()}


def arm_scores(
    patients: Cohort, edges: pd.DataFrame, splits: Iterable[int], seeds: Iterable[int], folder, **settings
) -> pd.DataFrame:
    """Train TxT on each arm's vectors, and score it: a tidy table as ``benchmark.run`` makes, with a constant beside.

    Columns: method, data_seed, model_seed, task, measure, score, n_train, n_test. Genes come from each training part;
    a split has one rewired network, another split another. ``settings`` are those of ``trained_seeds``, which keeps
    the trainings in ``folder``.
    """
    seeds, rows = list(seeds), []
    for data_seed in splits:
        parts = split(patients, data_seed)
        genes = txt(**settings).preprocessor(parts.train).genes
        for arm, network in networks_of(edges, genes, data_seed).items():
            given = settings | ({} if network is None else {"network": network})
            rows += _arm_rows(
                arm, data_seed, parts, trained_seeds(parts.train, parts.validation, seeds, folder, **given)
            )
        rows += _constant_rows(data_seed, parts, seeds)
    return pd.DataFrame(rows)


def _arm_rows(arm: str, data_seed: int, parts: Split, trained: Mapping[int, Trained]) -> list[dict]:
    answers = {seed: each.predict(parts.test) for seed, each in trained.items()}
    return _tidy(arm, data_seed, parts, answers)


def _constant_rows(data_seed: int, parts: Split, seeds: list[int]) -> list[dict]:
    answer = trivial().fit(parts.train).predict(parts.test)
    return _tidy(CONSTANT, data_seed, parts, dict.fromkeys(seeds, answer))


def _tidy(method: str, data_seed: int, parts: Split, answers: Mapping) -> list[dict]:
    names = {str(seed): answer for seed, answer in answers.items()}
    scores = score_draws(names, parts.train, parts.test, horizon_of(parts.train), resamples=0).iloc[0]
    about = {"method": method, "data_seed": data_seed, "n_train": len(parts.train), "n_test": len(parts.test)}
    return [
        about | {"model_seed": int(seed), "task": task, "measure": measure, "score": score}
        for (seed, task, measure), score in scores.items()
    ]


def arm_gains(table: pd.DataFrame, measures: Mapping[str, str], level: float = 0.95) -> pd.DataFrame:
    """Return by how much the protein network's vectors are better: rows (rival, task), columns of the comparison."""
    pairs = list(measures.items())
    found = {rival: paired_over_splits(table, WALKED, rival, level) for rival in (RANDOM, REWIRED)}
    found = {rival: rows.loc[[pair for pair in pairs if pair in rows.index]] for rival, rows in found.items()}
    return pd.concat(found, names=["rival"]).droplevel("measure")


def vectors_entry(
    patients: Cohort, table: pd.DataFrame, note: str = "", own_form: bool = True, level: float = 0.95
) -> Entry:
    """Enter C15: the protein network's vectors against each rival on each task, paired over splits.

    A task on which the network with them is not shown to be better than a constant decides nothing; nor does any,
    where the form of TxT is not the article's (``own_form``). It fails by intervals widened for the number of
    comparisons. Not attempted with fewer than two splits.
    """
    measures = measures_of(patients)
    gains = arm_gains(table, measures, level)[["mean", "low", "high"]].dropna()
    if gains.empty:
        why = "fewer than two splits have scores of both arms, so no difference has an interval"
        return ledger.not_attempted("C15", cohort=patients.name, why=why)
    wide = 1 - (1 - level) / len(gains)
    wider = arm_gains(table, measures, wide)
    dull = [task for task, measure in measures.items() if not arm_learned(table, task, measure)]
    words = [f"undecided where TxT is not shown to be better than a constant: {', '.join(dull)}"] if dull else []
    words += [] if own_form else ["undecided, since the form that is trained here is not the article's"]
    words += [f"fails only by intervals of {100 * wide:.4g} %", note]
    return ledger.claim(
        "C15",
        {_against(name): tuple(row) for name, row in gains.iterrows()},
        widened={_against(name): tuple(wider.loc[name, ["low", "high"]]) for name in gains.index},
        undecided=[_against(name) for name in gains.index if name[1] in dull or not own_form],
        note="; ".join(filter(None, words)),
        splits=int(table["data_seed"].nunique()),
        **sizes_of(patients),
    )


def arm_learned(table: pd.DataFrame, task: str, measure: str) -> bool:
    """Tell whether TxT on the protein network's vectors is better than a constant, by its interval over splits."""
    rows = table[(table["task"] == task) & (table["measure"] == measure)]
    return bool(paired_over_splits(rows, WALKED, CONSTANT)["low"].iloc[0] > 0)


def _against(name: tuple[str, str]) -> str:
    rival, task = name
    return f"{WALKED} against {rival}, {task}"


# --- C16: genes moved ---------------------------------------------------------------------------------------------


def mean_changes(networks: Mapping[int, Perturbed], answer: tuple[str, str], amount: float) -> pd.DataFrame:
    """Return the mean change over patients of one answer, (S, G): a row per training, a column per gene."""
    rows = {seed: found.change[answer][_place(found, amount)].mean(1) for seed, found in networks.items()}
    genes = next(iter(networks.values())).genes
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(genes)).rename_axis("seed")


def _place(found: Perturbed, amount: float) -> int:
    places = np.flatnonzero(np.isclose(found.amounts, amount))
    if not len(places):
        raise ValueError(f"The genes were not moved by {amount:g}; they were by {', '.join(map(str, found.amounts))}.")
    return int(places[0])


def over_seeds(changes: np.ndarray, level: float = 0.95) -> tuple[float, float, float]:
    """Return mean, low and high of changes (S, n) in S trainings and n patients, both drawn from many.

    Trainings are the replicates: the variance of the mean is that between trainings over S plus that between patients
    over n (of the mean over trainings), and t has S - 1 degrees of freedom. Somewhat wide, since each of the two holds
    a little of the other. Raises ValueError for fewer than two of either.
    """
    changes = np.asarray(changes, float)
    if min(changes.shape) < 2:
        raise ValueError(f"{changes.shape[0]} training(s) of {changes.shape[1]} patient(s) have no spread; give two.")
    between = changes.mean(1).var(ddof=1) / len(changes) + changes.mean(0).var(ddof=1) / changes.shape[1]
    reach = stats.t.ppf(0.5 + level / 2, len(changes) - 1) * np.sqrt(between)
    return float(changes.mean()), float(changes.mean() - reach), float(changes.mean() + reach)


def moved_gene(
    networks: Mapping[int, Perturbed], endpoint: str, gene: str, wanted: Wanted, level: float = 0.95
) -> pd.Series:
    """Say what one gene, moved the way that the article names, does to the risk: mean, low, high, place, median, up.

    The numbers are positive where the risk goes as the article says. The smallest amount of that way counts. place is
    the share of all G genes, this one included, whose mean over trainings is as far in that direction, opposite as far
    in the other; median that of all genes' sizes: what moving a gene does as a rule. Interval: ``over_seeds``.
    """
    found = next(iter(networks.values()))
    amount = min((amount for amount in found.amounts if amount * wanted.way > 0), key=abs)
    column, key = found.genes.index(gene), (endpoint, "risk")
    row = np.stack([each.change[key][_place(each, amount), column] for each in networks.values()])
    everyone = wanted.sign * mean_changes(networks, key, amount).mean()
    mean, low, high = over_seeds(wanted.sign * row, level)
    place = {"place": (everyone >= everyone[gene]).mean(), "opposite": (everyone <= everyone[gene]).mean()}
    return pd.Series({"mean": mean, "low": low, "high": high, **place, "median": everyone.abs().median(), "by": amount})


def risk_entry(
    patients: Cohort,
    networks: Mapping[int, Perturbed],
    is_learned: bool,
    note: str = "",
    wanted: Mapping[str, Wanted] = WANTED,
) -> Entry:
    """Enter C16: each named gene, moved in every patient, shifts the mean risk the way that the article says.

    A row is a gene; the margin is what moving a gene does as a rule (the median size over all genes). An interval that
    leaves out 0 decides only if the gene stands out among all genes that were moved (``RARE``), and nothing decides
    unless survival has been learned. Not attempted where no named gene is among the network's, or for no survival.
    """
    about, endpoint = sizes_of(patients), patients.survival_task
    if endpoint is None or not networks:
        why = "the cohort has no survival task" if endpoint is None else "no network was asked"
        return ledger.not_attempted("C16", cohort=patients.name, why=why)
    spoken = {gene: one for gene, one in wanted.items() if not one.endpoints or endpoint.name in one.endpoints}
    genes = set(next(iter(networks.values())).genes)
    there = [gene for gene in spoken if gene in genes]
    if not there:
        return ledger.not_attempted("C16", cohort=patients.name, why=_no_gene(spoken, endpoint.name))
    rows = {gene: moved_gene(networks, endpoint.name, gene, wanted[gene]) for gene in there}
    absent = [gene for gene in wanted if gene not in there]
    words = [f"without {', '.join(absent)}, not among the genes or claimed for another endpoint"] if absent else []
    words += [] if is_learned else [f"undecided, since {endpoint.name} is not shown to be learned"]
    return ledger.claim(
        "C16",
        {named(gene, wanted[gene]): (*row[["mean", "low", "high"]], row["median"]) for gene, row in rows.items()},
        undecided=[named(gene, wanted[gene]) for gene, row in rows.items() if not (is_learned and stands_out(row))],
        partial=bool(absent),
        note="; ".join(filter(None, [*words, f"over {len(networks)} trainings, which are the replicates", note])),
        splits=1,
        **about,
    )


def stands_out(row: pd.Series) -> bool:
    """Tell whether a row of ``moved_gene`` may decide: beyond other genes, or within what any gene does."""
    if row["low"] > 0:
        return bool(row["place"] <= RARE)
    return bool(row["opposite"] <= RARE) if row["high"] < 0 else True


def named(gene: str, wanted: Wanted) -> str:
    """Write what is claimed of a gene."""
    ways = {1: "up", -1: "down"}, {1: "raises", -1: "lowers"}
    return f"{gene} {ways[0][wanted.way]} {ways[1][wanted.sign]} the risk"


def _no_gene(spoken: Iterable[str], endpoint: str) -> str:
    names = ", ".join(spoken)
    return f"none of the genes that the claim names for {endpoint} ({names}) is among those of the network"
