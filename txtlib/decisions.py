"""Would acting on a predicted risk do more good than harm? Decision curves."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from dcurves import dca

TREAT = {"all": "treat all", "none": "treat none"}


def net_benefit(
    outcome: tuple[np.ndarray, np.ndarray],
    risk: np.ndarray | dict[str, np.ndarray],
    horizon: float,
    thresholds: Iterable[float],
) -> pd.DataFrame:
    """Return the net benefit of treating those at or above each threshold: model, threshold, net benefit.

    Who treats from a risk of t on holds one case found for worth (1 - t) / t treated in vain; the net benefit is the
    share of all patients that are found cases, less the share treated in vain at that price (Vickers and Elkin
    2006, 10.1177/0272989X06295361; cases by Kaplan-Meier, Vickers et al. 2008, 10.1186/1472-6947-8-53; by dcurves).
    outcome is time (n,) and event (n,), who has none (NaN) being left out; risk, of the event by the horizon, is
    (n,), called "model", or one for each name. "treat all" and "treat none" come last. NaN where nobody at or above
    the threshold is followed to the horizon. Raises ValueError for what is no probability, or no one to judge by.
    """
    risks = risk if isinstance(risk, dict) else {"model": risk}
    thresholds = [float(threshold) for threshold in thresholds]
    time, event = outcome
    known = ~np.isnan(event)
    _check(risks, thresholds, time[known], horizon)
    columns = {f"risk of {name}": np.asarray(values, float)[known] for name, values in risks.items()}
    table = pd.DataFrame({"time": time[known], "event": event[known] == 1, **columns})
    # at a threshold of 0 all are treated, so each model has a number and dcurves can multiply the missing ones
    curves = dca(table, "event", list(columns), [0.0, *thresholds], time=horizon, time_to_outcome_col="time")
    names = dict(zip(columns, risks, strict=True)) | TREAT
    found = curves[curves["threshold"] > 0].assign(model=lambda rows: rows["model"].map(names))
    return (
        found[["model", "threshold", "net_benefit"]]
        .rename(columns={"net_benefit": "net benefit"})
        .reset_index(drop=True)
    )


def _check(risks: dict[str, np.ndarray], thresholds: list[float], time: np.ndarray, horizon: float) -> None:
    wrong = [
        name for name, values in risks.items() if not ((np.asarray(values) >= 0) & (np.asarray(values) <= 1)).all()
    ]
    if wrong:
        raise ValueError(
            f"The risk of {wrong[0]!r} is no probability: give 1 - S(horizon), not a score that only ranks."
        )
    if not thresholds or not all(0 < threshold < 1 for threshold in thresholds):
        raise ValueError(f"thresholds are probabilities above 0 and below 1, at least one, not {thresholds}.")
    if not (time >= horizon).any():
        raise ValueError(f"No patient is followed to the horizon {horizon:g}: choose an earlier one.")
