"""Do predicted survival curves mean what they say? D-calibration, a test of a whole set of curves."""

from typing import NamedTuple

import numpy as np
from scipy import stats

from txtlib.survival import survival_at


class DCalibration(NamedTuple):
    """p of the chi-square test that all shares are equal, and the shares (bins,), from S near 0 up to S near 1."""

    p: float
    shares: np.ndarray


def d_calibration(
    outcome: tuple[np.ndarray, np.ndarray], curves: np.ndarray, edges: np.ndarray, horizon: float, bins: int = 10
) -> DCalibration:
    """Test whether the curves (n, K), each read at its patient's own event time, are even between 0 and 1.

    If the curves are right, one patient in ten has the event where the own curve is between 0.9 and 1, and so on
    down. A censored patient is spread over the bins that the event may still fall into: the own bin's lower part and
    all below, in proportion to their widths (Haider et al. 2020, https://www.jmlr.org/papers/v21/18-772.html).
    Follow-up beyond the horizon is cut there, as censored. outcome is time (n,) and event (n,). With many censored
    the bins are nearly even whatever the curves say, and with few patients the test sees little: look at the shares,
    and do not take a high p for a proof. Raises ValueError for curves that end before the horizon.
    """
    time, event = outcome
    seen = np.minimum(time, horizon)
    level = np.array([survival_at(curve[None], edges, at)[0, 0] for curve, at in zip(curves, seen, strict=True)])
    parts = np.where(((event == 1) & (time <= horizon))[:, None], *_in_bins(level, bins))
    counts = parts.sum(0)
    return DCalibration(float(stats.chisquare(counts).pvalue), counts / len(level))


def _in_bins(level: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the part of each patient in each bin, (n, bins), if the event was seen at this level, and if not."""
    low = np.arange(bins) / bins
    own = np.minimum((level * bins).astype(int), bins - 1)[:, None] == np.arange(bins)
    below = np.clip(level[:, None] - low, 0, 1 / bins)  # the width of each bin that lies below the level
    even = np.divide(below, level[:, None], out=own.astype(float), where=level[:, None] > 0)
    return own, even
