"""What every method of the book returns: one answer per patient and task, whatever the method is."""

from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from txtlib import survival


@dataclass(frozen=True)
class Predictions:
    """Answers for n patients.

    survival: curves (n, K) on the edges (K,), in the cohort's time unit; values {regression task: (n,)} in the
    task's own unit; probabilities {classification task: (n, C), a column per class, rows sum to 1}. What a
    method does not predict is None or absent. ``score`` (n,), higher is worse, is what a method ranks patients by,
    where that is not its curves.
    ``calibrated`` says that the curves are not the method's own: they were made from its score, on the training part.
    """

    samples: pd.Index
    edges: np.ndarray | None = None
    survival: np.ndarray | None = None
    values: dict[str, np.ndarray] = field(default_factory=dict)
    probabilities: dict[str, pd.DataFrame] = field(default_factory=dict)
    score: np.ndarray | None = None
    calibrated: bool = False

    def risk(self, horizon: float) -> np.ndarray:
        """Return the score (n,) of a method that has one, else 1 - S(horizon): higher is worse, always."""
        return survival.risk(self.survival, self.edges, horizon) if self.score is None else self.score


def joined(answers: list[Predictions]) -> Predictions:
    """Return one answer from several for the same patients, each to other tasks."""
    first, *others = answers
    for other in others:
        curves = other if other.survival is not None or other.score is not None else first
        first = replace(
            first,
            **{name: getattr(curves, name) for name in ("edges", "survival", "score", "calibrated")},
            values=first.values | other.values,
            probabilities=first.probabilities | other.probabilities,
        )
    return first
