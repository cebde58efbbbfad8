"""From N-MTLR logits to survival curves, the risk at a horizon and the expected time up to it.

A curve is known at 0, where it is 1, and at the K edges t_1 < ... < t_K of the time grid; between them it is
a straight line. After t_K the grid says nothing, and asking there is an error.
"""

import numpy as np

DAYS_PER_YEAR = 365.25


def survival_curves(logits: np.ndarray) -> np.ndarray:
    """Map N-MTLR logits (n, K) to S(t_1), ..., S(t_K) as (n, K): never rising, within [0, 1]."""
    logits = np.asarray(logits, float)
    scores = np.pad(np.cumsum(logits[:, ::-1], 1)[:, ::-1], ((0, 0), (0, 1)))  # (n, K + 1)
    mass = np.exp(scores - scores.max(1, keepdims=True))
    mass /= mass.sum(1, keepdims=True)
    return np.minimum(np.cumsum(mass[:, :0:-1], 1)[:, ::-1], 1.0)


def survival_at(curves: np.ndarray, edges: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Read the curves (n, K) on the edges (K,) at times (m,), as (n, m); ValueError beyond the last edge."""
    times = np.atleast_1d(times)
    if times.max() > edges[-1] or times.min() < 0:
        raise ValueError(
            f"The curves are known from time 0 to {edges[-1]:g}, not at {times.max():g}: choose an earlier horizon, or "
            "fit the time grid on a longer follow-up."
        )
    knots = np.concatenate([[0.0], edges])
    starts = np.pad(curves, ((0, 0), (1, 0)), constant_values=1.0)
    return np.stack([np.interp(times, knots, curve) for curve in starts])


def risk(curves: np.ndarray, edges: np.ndarray, horizon: float) -> np.ndarray:
    """Return the probability (n,) of the event by the horizon, 1 - S(horizon)."""
    return 1 - survival_at(curves, edges, horizon)[:, 0]


def rmst(curves: np.ndarray, edges: np.ndarray, horizon: float) -> np.ndarray:
    """Return the restricted mean survival time (n,): the area under the curve up to the horizon."""
    times = np.concatenate([[0.0], edges[edges < horizon], [horizon]])
    return np.trapezoid(survival_at(curves, edges, times), times, axis=1)
