"""What a training step costs, by formula: parameters, floating-point operations, bytes.

The formulas follow the code (txtlib/model.py, products.py, gradients.py) product by product; those for bytes leave out
Python, PyTorch and the copy of the best weights. tests/test_cost.py counts parameters and operations of real steps,
chapter 17 sets measurements beside time and memory.
"""

from txtlib.gradients import TOKENS
from txtlib.hierarchical import score_entries
from txtlib.products import ENTRIES

FLOAT = 4  # bytes


def parameters(settings: dict) -> dict[str, int]:
    """Count the numbers that a TxT of these ``settings`` learns, by part: gene vectors, encoder, heads."""
    genes, width = settings["n_genes"], settings["width"]
    blocks = settings["layers"] * (12 * width**2 + 4 * width)
    if "sets" in settings:  # a token each, and a block between sets in all layers but the last
        blocks += len(settings["sets"]) * width + (settings["layers"] - 1) * (12 * width**2 + 4 * width)
    heads = sum(_head(features(settings), outputs) for outputs in settings["outputs"].values())
    return {"gene vectors": genes * width, "encoder": blocks + 2 * width + 2 * width, "heads": heads}


def features(settings: dict) -> int:
    """Return how many numbers of a patient each head reads."""
    return settings["width"] * (settings["n_genes"] if settings["readout"] == "flatten" else 1)


def _head(inputs: int, outputs: int) -> int:
    return inputs * 128 + 3 * 128 + 128 * 64 + 3 * 64 + 64 * outputs + outputs


def step_flops(settings: dict, batch: int) -> dict[str, float]:
    """Count the operations of one training step on ``batch`` patients, by part; a multiply and an add are two.

    Only matrix products count. Backwards the attention weights are made once for all tasks.
    """
    tasks, per_head = len(settings["outputs"]), settings["width"] // settings["heads"]
    rows, scores = (batch * settings["layers"] * each for each in _rows_and_scores(settings))
    linear, q, v = 2 * rows * 12 * settings["width"] ** 2, per_head + 1, per_head
    scores *= 2 * settings["heads"]
    return {
        "projections": linear * (1 + 2 * tasks),
        "attention forward": scores * (q + v),
        "attention backward": scores * (q + 2 * tasks * (q + v)),
        "heads": 3 * 2 * batch * sum(_head(features(settings), size) for size in settings["outputs"].values()),
    }


def plain_step_flops(settings: dict, batch: int) -> float:
    """Count those of the slow obvious twin: attention weights are kept, so none are made again."""
    parts, tasks = step_flops(settings, batch), len(settings["outputs"])
    return sum(parts.values()) - parts["attention backward"] + 2 * tasks * parts["attention forward"]


def step_bytes(settings: dict, batch: int) -> dict[str, float]:
    """Estimate the memory of one training step, by part: at rest (weights, gradients, Adam), kept for the way back,
    passing (gradients on their way through one layer, for all tasks and some patients)."""
    tasks, width = len(settings["outputs"]), settings["width"]
    rows, _ = _rows_and_scores(settings)
    at_once = min(batch, max(1, TOKENS // settings["n_genes"])) * rows
    # per gene, patient and layer: two inputs and two outputs of norms, q, k, v, what attention gives (twice) and what
    # it is projected to make 9.5 widths with two dropout masks, the wide layer 4; and a position column for q and k
    kept = 13.5 * width + 2 * settings["heads"]
    passing = tasks * at_once * 12 * width + tasks * ENTRIES + 2 * tasks * batch * features(settings)
    return {
        "at rest": 4 * FLOAT * sum(parameters(settings).values()),
        "kept": FLOAT * batch * rows * settings["layers"] * kept,
        "passing": FLOAT * passing,
    }


def _rows_and_scores(settings: dict) -> tuple[int, int]:
    """Return the vectors that a layer works on and the scores that each head makes, for one patient."""
    genes = settings["n_genes"]
    if "sets" not in settings:
        return genes, genes**2
    sets = settings["sets"]
    return sum(len(members) + 1 for members in sets) + len(sets), score_entries(sets)


def training_seconds(settings: dict, batch: int, patients: int, epochs: int, rate: float) -> float:
    """Estimate the time of a training from the operations per second that a step reaches on a machine."""
    steps = -(-patients // batch) * epochs
    return steps * sum(step_flops(settings, batch).values()) / rate
