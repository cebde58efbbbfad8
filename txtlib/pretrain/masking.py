"""What is shown and what is hidden: sets of genes drawn for a pretraining step, and missing values for a test."""

import math

import numpy as np
import torch
from torch import Tensor

PATTERNS = ("at random", "low values")
STEEP = 2.0  # of "low values": the odds of being hidden fall by a factor e^2 for each SD of expression


def drawn_sets(
    values: Tensor, inputs: tuple[int, int], targets: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw for each patient of values (B, G) gene codes to show (B, K) and other ones to ask for (B, M).

    K is drawn once, from ``inputs`` (least, most) with its logarithm uniform; M is ``targets``, or what is left. Genes
    with a missing value (NaN) come last: they are drawn only where a patient has no others. ValueError where K
    could leave nothing to ask for.
    """
    least, most = inputs
    if not 1 <= least <= most < values.shape[1] or targets < 1:
        raise ValueError(
            f"Of {values.shape[1]} genes, {least} to {most} are to be shown and {targets} asked for: show at least "
            "one, and leave at least one."
        )
    level = torch.rand((), generator=generator).item()
    shown = min(most, int(math.exp(math.log(least) + level * math.log((most + 1) / least))))
    key = torch.rand(values.shape, generator=generator)
    order = (key.to(values.device) + values.isnan()).argsort(1)
    return order[:, :shown], order[:, shown : shown + targets]


def observed_first(x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return of x (B, G), NaN where missing, the genes that are there: codes (B, K), values (B, K), hidden (B, K).

    K is the most that a patient has; a place beyond a patient's own is hidden. hidden is None where all have as many.
    """
    missing = x.isnan()
    codes = missing.to(torch.int8).argsort(dim=1, stable=True)[:, : int((~missing).sum(1).max())]
    hidden = missing.gather(1, codes)
    return codes, x.gather(1, codes).nan_to_num(), hidden if hidden.any() else None


def hide(x: np.ndarray, share: float, pattern: str, seed: int) -> np.ndarray:
    """Return where values of x (n, G), in SDs, are hidden, (n, G) bool: ``share`` of them, at least one is kept a row.

    pattern "at random" hides every value with the same chance; "low values" hides low values first, as a
    measurement does that loses what lies near its floor: the log odds fall by STEEP for each SD. Missing values
    are never hidden. ValueError for another pattern, or a share that is not between 0 and 1.
    """
    if pattern not in PATTERNS or not 0 < share < 1:
        raise ValueError(f"share lies between 0 and 1 and pattern is one of {PATTERNS}, not {share} and {pattern!r}.")
    generator = np.random.default_rng(seed)
    noise = generator.logistic(size=x.shape)  # its order is that of independent chances; with a slope, of log odds
    score = np.where(np.isnan(x), -np.inf, noise - (STEEP * x if pattern == "low values" else 0))
    known = np.isfinite(score).sum()
    cut = (
        np.partition(score[np.isfinite(score)], -round(share * known))[-round(share * known)]
        if share * known >= 0.5
        else np.inf
    )
    hidden = score >= cut
    kept = np.where(np.isfinite(score), score, np.inf).argmin(1)
    hidden[np.arange(len(x)), kept] = False
    return hidden
