"""What is kept on disk: files that are written whole or not at all, and the one that a killed run goes on from."""

import glob
import json
import os
import secrets
import shutil
import zlib
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

Tensors = dict[str, Tensor]
RUN = "training run"


def write(path: str | Path, kind: str, tensors: Tensors, about: dict) -> None:
    """Write tensors and plain values to a safetensors file, whole or not at all; never pickle.

    kind says what the file is, for ``read``. Raises OSError, e.g. for a full disk: what the file held before is then
    untouched. What a killed process left half-written beside it goes with the next write.
    """
    path = Path(path)
    drafts = path.with_name(f"{path.name}.{os.getpid()}.draft")  # a folder: safetensors makes drafts of its own
    tensors = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    text = json.dumps(about, default=np.generic.item)
    try:
        _sweep(path)
        drafts.mkdir(parents=True, exist_ok=True)
        draft = drafts / secrets.token_hex(4)
        save_file(tensors, draft, {"txtlib": kind, "about": text, "checksum": checksum(tensors, text)})
        _to_disk(draft)
        draft.chmod(drafts.stat().st_mode & 0o666)  # safetensors lets nobody else read it
        os.replace(draft, path)
    except (OSError, SafetensorError) as error:
        raise OSError(
            f"{path} could not be written ({error}); what it held before is untouched: make room, or name another "
            "place, and start again."
        ) from error
    finally:
        shutil.rmtree(drafts, ignore_errors=True)


def _sweep(path: Path) -> None:
    """Remove the drafts of processes that are no more."""
    for folder in path.parent.glob(f"{glob.escape(path.name)}.*.draft"):
        number = folder.name.split(".")[-2]
        if number.isdigit() and not _alive(int(number)):
            shutil.rmtree(folder, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def read(path: str | Path, kind: str) -> tuple[Tensors, dict]:
    """Return what ``write`` wrote, on the CPU. ValueError for a file that is torn, foreign or of another kind."""
    if Path(path).is_dir():
        raise _refused(path, f"is a folder, not the file of a {kind}")
    try:
        with safe_open(path, "pt") as file:
            labels = file.metadata() or {}
            if labels.get("txtlib") != kind:
                raise _refused(path, f"holds {_named(labels)}, not a {kind} of txtlib")
            # cloned, because safetensors hands out the file's own pages, and the file will be replaced
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise _refused(path, f"is torn, or no safetensors file at all ({error})") from error
    if labels.get("checksum") != checksum(tensors, labels.get("about", "")):
        raise _refused(path, "is damaged: its numbers are not those that were written")
    return tensors, json.loads(labels["about"])


def checksum(tensors: Tensors, text: str = "") -> str:
    """Return a CRC-32 of tensors, with their names, types and shapes, and a text: quick beside writing them."""
    value = zlib.crc32(text.encode())
    for key, tensor in sorted(tensors.items()):
        value = zlib.crc32(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode(), value)
        flat = tensor.detach().cpu().contiguous().flatten()
        value = zlib.crc32(flat.view(torch.uint8).numpy(), value) if len(flat) else value  # nothing has no other view
    return f"crc32 {value:08x}"


def parts(tensors: Tensors) -> dict[str, Tensors]:
    """Sort tensors by the first word of their name: {"a.b": x} becomes {"a": {"b": x}}."""
    found: dict[str, Tensors] = {}
    for key, value in tensors.items():
        part, name = key.split(".", 1)
        found.setdefault(part, {})[name] = value
    return found


class Checkpoint:
    """The file that a run (txtlib/training.py) goes on from; ``owner`` are the values that tell it from other runs."""

    def __init__(self, path: str | Path, owner: dict):
        self.path, self.owner = Path(path), json.loads(json.dumps(owner, default=np.generic.item))

    def save(self, run) -> None:
        """Write the state of a run after an epoch. Ctrl-C waits for it."""
        try:
            self._write(run)
        except KeyboardInterrupt:
            self._write(run)
            raise

    def _write(self, run) -> None:
        write(self.path, RUN, _state(run), {"owner": self.owner, "done": run.done.plain()})

    def resume(self, run) -> None:
        """Bring a run to the state in the file, if there is one; ValueError if it is not this run's."""
        if not self.path.exists():
            return
        tensors, about = read(self.path, RUN)
        state = parts(tensors)
        best = state.get("best", state["network"])
        self._claim(about["owner"], checksum(best))
        _restore(run, state)
        run.done = type(run.done)(best=best, **about["done"])

    def _claim(self, owner: dict, best: str) -> None:
        """Refuse another owner's run. A network that comes back with the best weights of this run is its own."""
        if self.owner["first weights"] == best:
            self.owner["first weights"] = owner["first weights"]
        if self.owner != owner:
            raise ValueError(
                f"{self.path} belongs to another run, with {_differences(owner, self.owner)}: start the run as it was, "
                "with a network built anew, or move the file away, or name another checkpoint."
            )


def owner(run, data: dict[str, tuple[Tensor, dict]], **arguments) -> dict:
    """Return what tells a run from others: arguments, tasks, combination, network, and checksums of the data.

    data holds (x, labels) of the training and the validation part under their names.
    """
    about = {**arguments, "tasks": [list(pair) for pair in run.kinds.items()]}
    about["combine"] = getattr(run.combine, "__qualname__", type(run.combine).__qualname__)
    about |= {
        f"combine.{key}": value for key, value in vars(run.combine).items() if isinstance(value, int | float | str)
    }
    about |= {f"network.{key}": value for key, value in run.network.settings.items()}
    about["first weights"] = checksum(run.network.state_dict())
    for name, (x, labels) in data.items():
        arrays = {f"{task}.{row}": array for task, found in labels.items() for row, array in enumerate(found)}
        about |= {f"{name} expression": checksum({"x": x}), f"{name} labels": checksum(arrays)}
    return about


def _state(run) -> Tensors:
    slots = run.optimizer.state_dict()["state"]
    named = {
        "network": run.network.state_dict(),
        "best": run.done.best if run.done.best_epoch < run.done.epoch else {},  # else the same once more
        "adam": {f"{row}.{key}": value for row, slot in slots.items() for key, value in slot.items()},
        "combine": {key: value for key, value in vars(run.combine).items() if isinstance(value, Tensor)},
        "random": {"order": run.generator.get_state(), **_dropout(run)},
    }
    return {f"{part}.{key}": value for part, tensors in named.items() for key, value in tensors.items()}


def _restore(run, state: dict[str, Tensors]) -> None:
    run.network.load_state_dict(state["network"])
    slots = {int(row): slot for row, slot in parts(state["adam"]).items()}
    run.optimizer.load_state_dict({**run.optimizer.state_dict(), "state": slots})
    for name, value in state.get("combine", {}).items():
        setattr(run.combine, name, value)
    run.generator.set_state(state["random"]["order"])
    torch.set_rng_state(state["random"]["dropout"])
    if "cuda" in state["random"] and _device(run).type == "cuda":
        torch.cuda.set_rng_state(state["random"]["cuda"], _device(run))


def _dropout(run) -> Tensors:
    on_gpu = {"cuda": torch.cuda.get_rng_state(_device(run))} if _device(run).type == "cuda" else {}
    return {"dropout": torch.get_rng_state(), **on_gpu}


def _device(run) -> torch.device:
    return next(run.network.parameters()).device


def _differences(then: dict, now: dict) -> str:
    keys = [key for key in {**then, **now} if then.get(key) != now.get(key)]
    return ", ".join(_difference(key, then.get(key), now.get(key)) for key in keys)


def _difference(key: str, then, now) -> str:
    return f"other {key}" if str(then).startswith("crc32 ") else f"{key} {then!r} and not {now!r}"


def _named(labels: dict) -> str:
    return f"a {labels['txtlib']}" if "txtlib" in labels else "something else"


def _to_disk(path: Path) -> None:
    with path.open("rb+") as file:  # else a power cut could leave the new name without its content
        os.fsync(file.fileno())


def _refused(path: str | Path, why: str) -> ValueError:
    return ValueError(f"{path} {why}: move it away, or name another file.")
