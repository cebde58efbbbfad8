"""What the chapter on ranked genes enters in the results ledger: C18, that normalisation does not matter."""

from collections.abc import Iterable

import pandas as pd

from txtlib import ledger
from txtlib.comparisons import paired_difference
from txtlib.entries import noted
from txtlib.ledger import REPRODUCED, Entry
from txtlib.pretrain.probe import FIXED, TOLD

CLAIM, MEASURE, CONSTANT = "C18", "accuracy", "constant"
HOME = f"log, {FIXED}"  # the version that the probe was fitted in
NAMED = ("linear", "rank", "quantile")  # versions of the claim; linear values stand for TPM


def moved(draws: pd.DataFrame, task: str, names: Iterable[str], level: float = 0.95) -> pd.DataFrame:
    """Return by how much the answers of these names are better than at home, paired over patients: mean, low, high."""
    rows = {name: paired_difference(draws, name, HOME, level).loc[(task, MEASURE)] for name in names}
    return pd.DataFrame(rows).T.set_axis(["mean", "low", "high"], axis=1)


def mean_draws(many: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Return the mean of draws of the same resamples, one of each model seed."""
    many = list(many)
    return sum(many[1:], many[0]) / len(many)


def versions_entry(
    draws: pd.DataFrame,
    task: str,
    *,
    cohort: str,
    patients: int,
    note: str = "",
    partial: bool = False,
    informed: bool = True,
) -> Entry:
    """Return the entry of C18 on ``probe_draws`` of one model's answers, and of a constant, in every version.

    The reading that gives the model most decides: network and probe are frozen, and the weights are those of the
    unlabelled training part in the new unit. Where the probe at home is not better than a constant, sameness decides
    nothing, since who tells nothing tells it in every unit; a difference still does. A network that is not
    ``informed``, whose loss is not below that of guesses, speaks for no other network: then nothing decides.
    """
    compared = {version: f"{version}, {TOLD}" for version in NAMED}
    level = 1 - 0.05 / len(compared)
    near, wide = (moved(draws, task, compared.values(), given) for given in (0.95, level))
    rows = {f"{task}, {MEASURE}, {version} against log": near.loc[name] for version, name in compared.items()}
    learned = paired_difference(draws, HOME, CONSTANT).loc[(task, MEASURE), "low"] > 0
    same = [name for name, row in rows.items() if ledger.equal(row["low"], row["high"]) == REPRODUCED]
    undecided = list(rows) if not informed else [] if learned else same
    doubts = {
        "nothing decides, since the network names hidden genes no better than a guess": not informed,
        f"sameness decides nothing where the probe is not shown to be better than a constant: {task}": not learned,
    }
    return ledger.claim(
        CLAIM,
        rows,
        widened=dict(zip(rows, wide[["low", "high"]].to_numpy(), strict=True)),
        undecided=undecided,
        partial=partial,
        note="; ".join(filter(None, [noted([], [], level, ""), *(doubt for doubt, so in doubts.items() if so), note])),
        cohort=cohort,
        patients=patients,
        splits=1,
    )
