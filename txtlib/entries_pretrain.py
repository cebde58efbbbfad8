"""What the chapter on restored expression says of C17: an entry of the results ledger, from resampled scores."""

from collections.abc import Collection, Mapping

import pandas as pd

from txtlib import ledger
from txtlib.comparisons import summary
from txtlib.ledger import Entry

LEVEL = 0.95


def gains(scores: pd.DataFrame, method: str, reference: str, lower_is_better: bool = False) -> pd.Series:
    """Return by how much a method is better than a reference, (1 + R,), from scores (1 + R, methods).

    Row 0 of the scores is that of the patients as they are, the others of samples of them, the same for all methods.
    """
    difference = scores[method] - scores[reference]
    return -difference if lower_is_better else difference


def restoring_entry(
    compared: Mapping[str, pd.Series],
    *,
    cohort: str,
    patients: int,
    events: int | None,
    note: str,
    partial: bool,
    undecided: Collection[str] = (),
) -> Entry:
    """Return the entry of C17 from {what was compared: ``gains`` (1 + R,)}, all on one test part of one split.

    Each is shown to hold by its own interval; to fail it, an interval widened for their number (Bonferroni) has to
    fail too. ``partial``: one of the three uses that the claim speaks of was not tested here. ``undecided`` names
    comparisons of a model that has not learned its lesson, see ``unlearned``.
    """
    draws = pd.DataFrame(dict(compared))
    found, wide = summary(draws, LEVEL), summary(draws, 1 - (1 - LEVEL) / draws.shape[1])
    rows = {name: tuple(row) for name, row in found.iterrows()}
    widened = {name: (row["low"], row["high"]) for name, row in wide.iterrows()}
    about = dict(cohort=cohort, patients=patients, splits=1, events=events, note=note)
    return ledger.claim("C17", rows, **about, widened=widened, partial=partial, undecided=undecided)


def unlearned(errors: Mapping[str, pd.DataFrame], method: str, floor: str = "mean") -> list[str]:
    """Return where a method's error, of (1 + R, methods), is not shown to be below the floor's: it has learned nothing.

    The rule: the interval of its gain over the floor does not lie above 0.
    """
    found = {name: summary(gains(scores, method, floor, True).to_frame()).iloc[0] for name, scores in errors.items()}
    return [name for name, row in found.items() if not row["low"] > 0]
