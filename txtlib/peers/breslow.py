"""From a score that only ranks patients to survival curves."""

import numpy as np
from sksurv.linear_model.coxph import BreslowEstimator


def breslow_curves(fitted: np.ndarray, time: np.ndarray, event: np.ndarray, score: np.ndarray):
    """Return edges (K,) and curves (n, K) for log hazards (n,), with Breslow's baseline hazard of others.

    fitted (m,), time and event are those of the patients that the baseline is taken from: the training part.
    """
    centre = fitted.mean()  # the baseline takes up any constant; without it a large one overflows
    model = BreslowEstimator().fit(fitted - centre, event == 1, time)
    edges = np.unique(time[time > 0])
    return edges, np.stack([curve(edges) for curve in model.get_survival_function(score - centre)])
