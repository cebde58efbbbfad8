"""How far attention depends on the patient at all, and what it would look like if it depended on expression more."""

from copy import deepcopy

import numpy as np
import pandas as pd
import torch

from txtlib.interpret.attention import chosen_layers, on_device, without_dropout
from txtlib.training import Trained


def strengthened(trained: Trained, strength: float) -> Trained:
    """Return a copy whose heads all have |c_h| = ``strength``, their signs kept: a positive control, not a training.

    The score of genes i and j holds c_h x_i x_j; nothing else is changed, and the trained network stays as it is. A
    head whose c_h is 0 has no sign and stays at 0. Raises ValueError for a strength not above 0, and a network in
    which expression acts otherwise.
    """
    if not strength > 0:
        raise ValueError(f"strength is {strength}; a control needs a number above 0.")
    changed = deepcopy(trained)
    position = getattr(changed.network, "position", None)
    if position is None or not hasattr(position, "strength"):
        raise ValueError("Expression is no product in this network, so there is no strength to set.")
    with torch.no_grad():
        own = position.strength()
        factors = torch.where(own == 0, torch.zeros_like(own), strength / own.abs())
        position.query.view(len(own), -1).mul_(factors[:, None])
    return changed


@torch.no_grad()
def variation(network: torch.nn.Module, x: np.ndarray) -> pd.DataFrame:
    """Return how much attention differs between patients: a row per layer and head, columns layer, head, strength, cv.

    x (n, G) is scaled expression. cv is the SD over the n patients of a weight as a share of its mean, the median over
    all G x G pairs of genes; 0 says that every patient has the same attention. strength is c_h, NaN in a network that
    has none. Raises ValueError for fewer than two patients or another number of genes.
    """
    x = on_device(network, x)
    if len(x) < 2:
        raise ValueError(f"{len(x)} patient(s) do not differ from each other; give two or more.")
    position = getattr(network, "position", None)
    strengths = position.strength().tolist() if hasattr(position, "strength") else None
    rows = []
    with without_dropout(network):
        for layer in chosen_layers(network, None):
            weights = network.attention(x, layer)  # (n, H, G, G)
            shares = weights.std(0) / weights.mean(0).clamp_min(torch.finfo(weights.dtype).tiny)
            found = shares.flatten(1).median(1).values.tolist()
            rows += [(layer, head, (strengths or [np.nan] * len(found))[head], cv) for head, cv in enumerate(found)]
    return pd.DataFrame(rows, columns=["layer", "head", "strength", "cv"])
