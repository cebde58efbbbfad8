"""What every method of the book returns: one answer per patient and task, whatever the method is."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from txtlib import survival


@dataclass(frozen=True)
class Predictions:
    """Answers for n patients.

    survival: curves (n, K) on the edges (K,), in the cohort's time unit; values {regression task: (n,)} in the
    task's own unit; probabilities {classification task: (n, C), a column per class, rows sum to 1}. What a
    method does not predict is None or absent. ``score`` (n,), higher is worse, is for methods that only rank.
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
        """Return 1 - S(horizon), (n,), or the score of a method that only ranks: higher is worse, always."""
        return self.score if self.survival is None else survival.risk(self.survival, self.edges, horizon)
