"""The same TxT trained from several seeds, each training kept on disk: what chapters look inside, made once."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from txtlib.benchmark import code_hash, content_hash, files_named
from txtlib.cohort import Cohort
from txtlib.peers.txt import txt
from txtlib.training import Trained, load_trained

LOOKED_INTO = {  # how chapters 10 to 13 train the networks that they look into, so that each finds the others'
    "epochs": 16,
    "patience": 8,
    "batch_size": 32,
    "learning_rate": 0.003,
    "readout": "flatten",
    "scaler": "minmax",
}


def trained_seeds(
    train: Cohort, validation: Cohort, seeds: Iterable[int], folder: str | Path, **settings: Any
) -> dict[int, Trained]:
    """Return {model seed: TxT trained from it}; ``settings`` are those of ``txtlib.peers.txt.txt``.

    A training is kept in ``folder`` under a hash of both parts, the settings, the files that they name, the seed and
    the code, and read back from there the next time; a torn file is made anew. ``tasks=["OS"]`` learns that task
    alone, out of those that the cohort has. Raises what ``fit`` raises; ValueError for a seed given twice.
    """
    seeds = list(seeds)
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"Model seeds {seeds} hold one twice: the same training twice says nothing new.")
    files = files_named({"settings": settings, "tried": []})
    about = [content_hash(train), content_hash(validation), _plain(settings), files, code_hash(txt)]
    return {seed: _trained(train, validation, Path(folder) / _name([*about, seed]), seed, settings) for seed in seeds}


def _trained(train: Cohort, validation: Cohort, path: Path, seed: int, settings: Mapping[str, Any]) -> Trained:
    try:
        return load_trained(path)
    except (FileNotFoundError, ValueError):  # not there yet, or torn
        path.parent.mkdir(parents=True, exist_ok=True)
        txt(seed=seed, **settings).fit(train, validation).trained.save(path)
        return load_trained(path)


def _name(about: list) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16] + ".safetensors"


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: dict(value) if isinstance(value, Mapping) else value for name, value in settings.items()}
