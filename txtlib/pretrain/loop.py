"""The pretraining loop: no labels, a loss that hides part of what it is given, a warm-up and a cosine.

What is the same thing as in ``txtlib/training.py`` is taken from there: the order of the patients, how an epoch's
result replaces the last one, the file that a killed run goes on from, what Ctrl-C leaves.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from txtlib.checkpoint import Checkpoint, checksum
from txtlib.gradients import PRECISIONS
from txtlib.training import Done, device_named, shuffled_batches, train_epochs

SAME_MASKS = 20250413  # the validation part is always judged on what this seed hides

Loss = Callable[[torch.nn.Module, str, Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class Pretrained:
    """What a pretraining run has to show: the network itself holds the weights of the best epoch.

    history: a row per epoch and part (train, validation) with its loss and the epoch's seconds and learning rate at its
    end. interrupted says that Ctrl-C ended it.
    """

    history: pd.DataFrame
    best_epoch: int
    best_loss: float
    interrupted: bool = False


def pretrain(
    network: torch.nn.Module,
    loss: Loss,
    n_train: int,
    n_validation: int,
    *,
    epochs: int,
    batch_size: int = 64,
    learning_rate: float = 1e-4,
    weight_decay: float = 0.01,
    warmup: float = 0.05,
    patience: int | None = None,
    precision: str = "float32",
    seed: int = 0,
    device: str = "auto",
    checkpoint: str | Path | None = None,
    about: dict | None = None,
    progress: bool = True,
) -> Pretrained:
    """Train with AdamW, a linear warm-up over a share of all steps and a cosine to 0; keep the best validation epoch.

    ``loss(network, part, rows, generator)`` returns the mean loss, a scalar, of rows (B,) of the part "train" or
    "validation" on the network's device; whatever it hides it draws from ``generator``, a CPU one. In training that
    generator runs on, so masks are fresh at each step; for the validation part it starts from the same seed in each
    epoch, so that epochs are compared on the same masks. Order, masks and dropout come from ``seed``. ``patience``
    ends training after that many epochs without a better validation loss; the schedule is that of ``epochs``.

    ``checkpoint`` is a file rewritten after each epoch, from which the same call goes on, on a CPU to the same
    numbers; ``about`` are plain values or tensors that tell this run from others, such as a checksum of the data
    (txtlib/checkpoint.py), since the loop does not see them. Ctrl-C keeps the best epoch so far, or is raised before
    the first. The network is left on the device, with dropout off.

    Raises ValueError for sizes or a precision that cannot be, or a checkpoint of another run; OSError if it cannot be
    written; FloatingPointError, with the epoch, once a loss or a weight is not finite.
    """
    _check(n_train, n_validation, epochs, batch_size, warmup)
    network.to(device_named(device))
    with torch.random.fork_rng(), torch.enable_grad():  # dropout knows only the global generator
        torch.manual_seed(seed)
        steps = epochs * len(shuffled_batches(n_train, batch_size, torch.Generator()))
        run = PretrainingRun(network, loss, learning_rate, weight_decay, warmup, steps, precision)
        run.generator.manual_seed(seed)
        whose = dict(n_train=n_train, n_validation=n_validation, epochs=epochs, batch_size=batch_size, seed=seed)
        file = _resumed(checkpoint, run, whose | (about or {}))
        one_epoch = partial(run.one_epoch, n_train, n_validation, batch_size)
        interrupted = _to_the_end(run, one_epoch, epochs, patience or math.inf, file, progress)
    return run.ended(interrupted)


def schedule(step: int, steps: int, warmup: float) -> float:
    """Return the share of the learning rate at step 0 <= step < steps: up to 1 over the warm-up, then a cosine to 0."""
    rising = math.ceil(warmup * steps)
    if step < rising:
        return (step + 1) / rising
    return (1 + math.cos(math.pi * (step - rising) / (steps - rising))) / 2


def _check(n_train: int, n_validation: int, epochs: int, batch_size: int, warmup: float) -> None:
    sizes = dict(n_train=n_train, n_validation=n_validation, epochs=epochs, batch_size=batch_size)
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} is {size}; pretraining needs one or more.")
    if not 0 <= warmup < 1:
        raise ValueError(f"warmup is {warmup}; it is a share of all steps, from 0 to below 1.")


def _resumed(path: str | Path | None, run: "PretrainingRun", whose: dict) -> Checkpoint | None:
    if path is None:
        return None
    plain = {key: checksum({"": value}) if isinstance(value, Tensor) else value for key, value in whose.items()}
    file = Checkpoint(path, plain | run.owner())
    file.resume(run)
    return file


def _to_the_end(run: "PretrainingRun", one_epoch, epochs: int, patience: float, file, progress: bool) -> bool:
    """Train to the end; return whether Ctrl-C was the end."""
    try:
        return train_epochs(run, one_epoch, epochs, patience, file, progress)
    except FloatingPointError as error:
        said = f"{error.__cause__} Lower the learning rate, or look for such values in the data."
        raise FloatingPointError(said) from error


@dataclass
class PretrainingRun:
    """The state of a pretraining run between two epochs; Checkpoint (txtlib/checkpoint.py) keeps it."""

    network: torch.nn.Module
    loss: Loss
    learning_rate: float
    weight_decay: float
    warmup: float
    steps: int
    precision: str = "float32"
    generator: torch.Generator = field(default_factory=torch.Generator)
    done: Done = field(default_factory=Done)

    def __post_init__(self):
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision is one of {', '.join(PRECISIONS)}, not {self.precision!r}.")
        self.device = next(self.network.parameters()).device
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), self.learning_rate, weight_decay=self.weight_decay, fused=True
        )
        self.combine = _Nothing()

    def owner(self) -> dict:
        """Return what of this run tells it from others."""
        names = ("learning_rate", "weight_decay", "warmup", "precision")
        settings = {f"network.{key}": value for key, value in getattr(self.network, "settings", {}).items()}
        weights = {"first weights": checksum(self.network.state_dict())}
        return {name: getattr(self, name) for name in names} | settings | weights

    def one_epoch(self, n_train: int, n_validation: int, batch_size: int) -> None:
        """Train on every patient once, validate, keep the weights if they are the best so far.

        Raises FloatingPointError once a loss or a weight is not finite; what is ``done`` then stays as it was.
        """
        start = time.perf_counter()
        self.network.train()
        batches = shuffled_batches(n_train, batch_size, self.generator)
        first = self.done.epoch * len(batches)
        losses = {"train": _mean([self._step(first + number, rows) for number, rows in enumerate(batches)])}
        losses["validation"] = self.validation_loss(n_validation, batch_size)
        self._check(losses)
        self.done = self._after(losses, time.perf_counter() - start)

    def _step(self, step: int, rows: Tensor) -> tuple[Tensor, int]:
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * schedule(step, self.steps, self.warmup)
        self.optimizer.zero_grad()
        loss = self._loss("train", rows, self.generator)
        loss.backward()
        self.optimizer.step()
        return loss.detach(), len(rows)

    @torch.no_grad()
    def validation_loss(self, n: int, batch_size: int) -> float:
        """Return the mean loss of the validation part, dropout off, on masks that are the same in every epoch."""
        self.network.eval()
        generator = torch.Generator().manual_seed(SAME_MASKS)
        return _mean(
            [(self._loss("validation", rows, generator), len(rows)) for rows in torch.arange(n).split(batch_size)]
        )

    def _loss(self, part: str, rows: Tensor, generator: torch.Generator) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            return self.loss(self.network, part, rows.to(self.device), generator).float()

    def _check(self, losses: dict[str, float]) -> None:
        epoch = f"Epoch {self.done.epoch + 1}"
        for part, value in losses.items():
            if not math.isfinite(value):
                raise FloatingPointError(f"{epoch}: the {part} loss became {value}.")
        for name, value in self.network.state_dict().items():
            if not value.sum().isfinite():
                raise FloatingPointError(f"{epoch}: the weights {name!r} are no longer finite.")

    def _after(self, losses: dict[str, float], seconds: float) -> Done:
        """Return what is done after one more epoch."""
        done, epoch, rate = self.done, self.done.epoch + 1, self.optimizer.param_groups[0]["lr"]
        best = dict(best_epoch=done.best_epoch, best_score=done.best_score, best=done.best)
        if losses["validation"] < done.best_score:
            weights = {key: value.detach().cpu().clone() for key, value in self.network.state_dict().items()}
            best = dict(best_epoch=epoch, best_score=losses["validation"], best=weights)
        shared = {"seconds": seconds, "learning_rate": rate}
        rows = [{"epoch": epoch, "part": part, "loss": loss, **shared} for part, loss in losses.items()]
        return Done(epoch, history=done.history + rows, **best)

    def ended(self, interrupted: bool) -> Pretrained:
        """Give the network its best weights; return what the run has to show."""
        self.network.load_state_dict(self.done.best)
        self.network.eval()
        return Pretrained(pd.DataFrame(self.done.history), self.done.best_epoch, self.done.best_score, interrupted)


class _Nothing:
    """What stands where a training run keeps the state of joining its tasks' gradients."""


def _mean(losses: list[tuple[Tensor, int]]) -> float:
    """Return the mean over patients of batch means (scalar, patients in the batch)."""
    values = torch.stack([loss for loss, _ in losses]).cpu()
    sizes = torch.tensor([size for _, size in losses], dtype=values.dtype)
    return ((values * sizes).sum() / sizes.sum()).item()
