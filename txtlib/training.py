"""Training of one network on one or many tasks: the loop, its choice of epoch, and what is kept on disk."""

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from txtlib.balance import surgery
from txtlib.cohort import Cohort
from txtlib.losses import task_loss
from txtlib.pcgrad import gradient_cosines
from txtlib.predictions import Predictions
from txtlib.preprocess import Encoded, Preprocessor
from txtlib.survival import survival_curves
from txtlib.variants import variant

Labels = dict[str, tuple[Tensor, ...]]
ROWS_AT_ONCE = 256  # patients per forward pass where no gradient is needed


@dataclass
class Trained:
    """A network with the preprocessor it was trained behind; ``predict`` takes any cohort.

    history: a row per epoch, part (train, validation) and task, with its loss and the epoch's seconds. conflicts:
    a row per epoch and pair of tasks with the mean cosine of their gradients. best_epoch is the one kept.
    """

    network: torch.nn.Module
    preprocessor: Preprocessor
    history: pd.DataFrame
    conflicts: pd.DataFrame
    best_epoch: int

    def predict(self, cohort: Cohort) -> Predictions:
        """Answer every task for the patients of a cohort, which needs no labels."""
        device = next(self.network.parameters()).device
        outputs = _forward(self.network, torch.from_numpy(self.preprocessor.expression(cohort)).to(device))
        return decode({task: output.cpu().numpy() for task, output in outputs.items()}, cohort, self.preprocessor)

    def save(self, path: str | Path) -> None:
        """Write network and preprocessor to one safetensors file, whole or not at all; never pickle."""
        arrays, fields = self.preprocessor.state()
        tensors = {f"network.{key}": value.contiguous() for key, value in self.network.state_dict().items()}
        tensors |= {f"preprocessor.{key}": torch.from_numpy(value) for key, value in arrays.items()}
        about = {"settings": self.network.settings, "preprocessor": fields, "best_epoch": self.best_epoch}
        tables = {"history": self.history.to_dict("list"), "conflicts": self.conflicts.to_dict("list")}
        _write(tensors, {**about, **tables}, path)


def load_trained(path: str | Path) -> Trained:
    """Read back a TxT, or a variant of it, that ``Trained.save`` wrote."""
    tensors, about = _read(path)
    parts = {"network": {}, "preprocessor": {}}
    for key, value in tensors.items():
        part, name = key.split(".", 1)
        parts[part][name] = value
    network = variant(**{"variant": "product", **about["settings"]})
    network.load_state_dict(parts["network"])
    network.eval()
    arrays = {name: value.numpy() for name, value in parts["preprocessor"].items()}
    tables = (pd.DataFrame(about[name]) for name in ("history", "conflicts"))
    return Trained(network, Preprocessor.from_state(arrays, about["preprocessor"]), *tables, about["best_epoch"])


def decode(outputs: dict[str, np.ndarray], cohort: Cohort, preprocessor: Preprocessor) -> Predictions:
    """Turn raw outputs {task: (n, size)} into Predictions in the units of the labels."""
    curves, values, probabilities = None, {}, {}
    for task in preprocessor.tasks:
        output = outputs[task.name].astype(float)
        if task.kind == "survival":
            curves = survival_curves(output)
        elif task.kind == "regression":
            mean, spread = preprocessor.scales[task.name]
            values[task.name] = output[:, 0] * spread + mean
        else:
            shares = torch.from_numpy(output).softmax(1).numpy()
            probabilities[task.name] = pd.DataFrame(shares, cohort.samples, preprocessor.classes[task.name])
    return Predictions(cohort.samples, preprocessor.edges, curves, values, probabilities)


def fit(
    network: torch.nn.Module,
    train: Cohort,
    validation: Cohort,
    preprocessor: Preprocessor,
    epochs: int = 1000,
    patience: int = 30,
    batch_size: int = 64,
    learning_rate: float = 1e-4,
    select: str | None = None,
    combine=surgery,
    seed: int = 0,
    device: str = "auto",
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> Trained:
    """Train with Adam and keep the epoch with the lowest validation loss of ``select``.

    ``select`` is a task, or "all" for the mean over tasks; by default the survival task (its loss is the survival
    log score), or "all" without one. Training ends after ``epochs``, or ``patience`` epochs without a better
    score; a score that is not finite is never better. ``combine`` joins the tasks' gradients on the
    shared parameters (txtlib/balance.py); each head follows its own task. All randomness (order, dropout,
    combine) comes from ``seed``. ``checkpoint`` names a file that is rewritten after each epoch: a run that was
    killed and is started again with the same arguments goes on from it, on a CPU to the same numbers.

    Raises ValueError for an unknown ``select``, a validation part without a label of it, or fewer than two training
    patients, in all or in a batch; FloatingPointError if no epoch ever had a finite score.
    """
    device = _device(device)
    select = select or next((task.name for task in preprocessor.tasks if task.kind == "survival"), "all")
    _check(select, preprocessor, train, validation, batch_size)
    parts = {
        name: _tensors(preprocessor.encode(part), device) for name, part in (("train", train), ("val", validation))
    }
    kinds = {task.name: task.kind for task in preprocessor.tasks}
    with torch.random.fork_rng():  # dropout knows only the global generator
        torch.manual_seed(seed)
        run = Run(network.to(device), kinds, learning_rate, combine, torch.Generator().manual_seed(seed))
        run.resume(checkpoint)
        quiet = {} if progress else {"disable": True}  # said only then, so that TQDM_DISABLE works too
        bar = tqdm(total=epochs, initial=run.epoch, desc="epochs", unit="epoch", **quiet)
        while run.epoch < epochs and run.epoch - run.best_epoch < patience:
            run.one_epoch(*parts["train"], *parts["val"], batch_size, select)
            run.save(checkpoint)
            bar.update()
            bar.set_postfix(best=f"{run.best_score:.4f}", epoch=run.best_epoch)
        bar.close()
    return run.trained(preprocessor)


@dataclass
class Run:
    """The state of a training run between two epochs."""

    network: torch.nn.Module
    kinds: dict[str, str]
    learning_rate: float
    combine: Callable[[Tensor, Tensor, torch.Generator], Tensor]
    generator: torch.Generator
    epoch: int = 0
    best_score: float = math.inf
    best_epoch: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict] = field(default_factory=list)
    conflicts: list[dict] = field(default_factory=list)

    def __post_init__(self):
        self.optimizer = torch.optim.Adam(self.network.parameters(), self.learning_rate)

    def one_epoch(self, x, labels, val_x, val_labels, batch_size, select) -> None:
        """Train on every patient once, validate, and keep the weights if they are the best so far."""
        start = time.perf_counter()
        self.epoch += 1
        self.network.train()
        batches = shuffled_batches(len(x), batch_size, self.generator)
        steps = [self._step(x[rows], _take(labels, rows)) for rows in batches]
        losses = {"train": torch.stack([loss for loss, _ in steps]).mean(0).tolist()}
        losses["validation"] = torch.stack(self.losses(_forward(self.network, val_x), val_labels)).tolist()
        self._record(losses, torch.stack([cosine for _, cosine in steps]).mean(0), time.perf_counter() - start)
        score = selection_score(dict(zip(self.kinds, losses["validation"], strict=True)), select)
        if improves(score, self.best_score):
            self.best_score, self.best_epoch = score, self.epoch
            self.best = {key: value.detach().cpu().clone() for key, value in self.network.state_dict().items()}

    def losses(self, outputs: dict[str, Tensor], labels: Labels) -> list[Tensor]:
        """Return each task's mean loss, in the order of ``kinds``."""
        return [task_loss(kind, outputs[task], labels[task]) for task, kind in self.kinds.items()]

    def _step(self, x: Tensor, labels: Labels) -> tuple[Tensor, Tensor]:
        """Make one optimiser step; return losses (T,) and gradient cosines (T, T)."""
        losses = self.losses(self.network(x), labels)
        shared = self.network.shared_parameters()
        jacobian = torch.stack(
            [self._gradient(task, loss, shared) for task, loss in zip(self.kinds, losses, strict=True)]
        )
        losses = torch.stack(losses).detach()
        combined = self.combine(jacobian, losses, self.generator).split([parameter.numel() for parameter in shared])
        for parameter, gradient in zip(shared, combined, strict=True):
            parameter.grad = gradient.view_as(parameter)
        self.optimizer.step()
        return losses.cpu(), gradient_cosines(jacobian).cpu()

    def _gradient(self, task: str, loss: Tensor, shared: list[Tensor]) -> Tensor:
        """Give the task's head its gradient; return that of the shared parameters, flat (P,)."""
        own = list(self.network.head(task).parameters())
        gradients = torch.autograd.grad(loss, [*shared, *own], retain_graph=True)
        for parameter, gradient in zip(own, gradients[len(shared) :], strict=True):
            parameter.grad = gradient
        return torch.cat([gradient.flatten() for gradient in gradients[: len(shared)]])

    def _record(self, losses: dict[str, list[float]], cosines: Tensor, seconds: float) -> None:
        tasks = list(self.kinds)
        for part, values in losses.items():
            rows = zip(tasks, values, strict=True)
            self.history += [
                dict(epoch=self.epoch, part=part, task=task, loss=loss, seconds=seconds) for task, loss in rows
            ]
        for i, j in zip(*np.triu_indices(len(tasks), 1), strict=True):
            pair = f"{tasks[i]} and {tasks[j]}"
            self.conflicts.append(dict(epoch=self.epoch, pair=pair, cosine=cosines[i, j].item()))

    def save(self, path: str | Path | None) -> None:
        """Write the whole state to ``path``, if there is one."""
        if path is None:
            return
        slots = self.optimizer.state_dict()["state"]
        tensors = {f"network.{key}": value for key, value in self.network.state_dict().items()}
        tensors |= {f"best.{key}": value for key, value in self.best.items()}
        tensors |= {f"adam.{row}.{key}": value for row, slot in slots.items() for key, value in slot.items()}
        tensors |= {f"combine.{key}": value for key, value in _tensors_of(self.combine).items()}
        tensors |= {"random.order": self.generator.get_state(), "random.dropout": torch.get_rng_state()}
        scores = {key: getattr(self, key) for key in ("epoch", "best_score", "best_epoch", "history", "conflicts")}
        _write(tensors, {**scores, "settings": self.network.settings}, path)

    def resume(self, path: str | Path | None) -> None:
        """Take up the state that ``save`` wrote, if there is one; ValueError if it is of another network."""
        if path is None or not Path(path).exists():
            return
        tensors, about = _read(path)
        if about.pop("settings") != json.loads(json.dumps(self.network.settings)):
            raise ValueError(f"{path} holds the state of another network: remove it, or name another checkpoint.")
        named = {part: {} for part in ("network", "best", "adam", "combine", "random")}
        for key, value in tensors.items():
            part, name = key.split(".", 1)
            named[part][name] = value
        self.network.load_state_dict(named["network"])
        self.best = named["best"]
        self._restore_adam(named["adam"])
        for name, value in named["combine"].items():
            setattr(self.combine, name, value)
        self.generator.set_state(named["random"]["order"])
        torch.set_rng_state(named["random"]["dropout"])
        for key, value in about.items():
            setattr(self, key, value)

    def _restore_adam(self, named: dict[str, Tensor]) -> None:
        slots: dict[int, dict] = {}
        for key, value in named.items():
            row, name = key.split(".")
            slots.setdefault(int(row), {})[name] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": slots})

    def trained(self, preprocessor: Preprocessor) -> Trained:
        """Return the best epoch's network; FloatingPointError if there is none."""
        if not self.best:
            raise FloatingPointError(
                f"No epoch of {self.epoch} had a finite validation score: lower the learning rate, and look at the "
                "training losses for the task that diverges."
            )
        self.network.load_state_dict(self.best)
        self.network.eval()
        tables = (pd.DataFrame(rows) for rows in (self.history, self.conflicts))
        return Trained(self.network, preprocessor, *tables, self.best_epoch)


def constant_losses(train: Cohort, validation: Cohort, preprocessor: Preprocessor) -> dict[str, float]:
    """Return each task's validation loss under the best constant of the training part: what a model must get below."""
    fitted, judged = (_tensors(preprocessor.encode(part), torch.device("cpu"))[1] for part in (train, validation))
    return {
        task.name: _constant_loss(task.kind, preprocessor.outputs[task.name], fitted[task.name], judged[task.name])
        for task in preprocessor.tasks
    }


def _constant_loss(kind: str, size: int, fitted: tuple[Tensor, ...], judged: tuple[Tensor, ...]) -> float:
    constant = torch.zeros(1, size, requires_grad=True)
    optimizer = torch.optim.LBFGS([constant], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = task_loss(kind, constant.expand(len(fitted[0]), -1), fitted)
        loss.backward()
        return loss

    optimizer.step(closure)
    return task_loss(kind, constant.detach().expand(len(judged[0]), -1), judged).item()


def improves(score: float, best: float) -> bool:
    """Say whether a validation score is finite and lower than the best one so far."""
    return math.isfinite(score) and score < best


def selection_score(losses: dict[str, float], select: str) -> float:
    """Return the loss of the selected task, or the mean over tasks for "all"."""
    return sum(losses.values()) / len(losses) if select == "all" else losses[select]


def shuffled_batches(n: int, batch_size: int, generator: torch.Generator) -> list[Tensor]:
    """Return the rows 0..n-1 in random order, in batches; a last batch of one joins the one before (batch norm)."""
    batches = list(torch.randperm(n, generator=generator).split(batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def _check(select: str, preprocessor: Preprocessor, train: Cohort, validation: Cohort, batch_size: int) -> None:
    names = [task.name for task in preprocessor.tasks]
    if select not in (*names, "all"):
        raise ValueError(f"select is one of the tasks {', '.join(names)}, or 'all', not {select!r}.")
    if batch_size < 2:
        raise ValueError(f"batch_size is {batch_size}; batch normalisation needs two patients or more in a batch.")
    unseen = [name for name in names if select in (name, "all") and not _has_label(validation, preprocessor, name)]
    if unseen:
        raise ValueError(
            f"{validation.name}: no validation patient has a label of {unseen[0]!r}, so it cannot help to choose the "
            "epoch; select another task, or split otherwise."
        )
    if len(train) < 2:
        raise ValueError(f"{train.name}: {len(train)} training patient(s); batch normalisation needs two or more.")


def _has_label(cohort: Cohort, preprocessor: Preprocessor, name: str) -> bool:
    (task,) = preprocessor.with_tasks(name).tasks
    return bool(cohort.clinical[list(task.columns)].notna().all(axis=1).any())


def _device(name: str) -> torch.device:
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def _tensors_of(combine) -> dict[str, Tensor]:
    return {name: value for name, value in vars(combine).items() if isinstance(value, Tensor)}


def _tensors(encoded: Encoded, device: torch.device) -> tuple[Tensor, Labels]:
    labels = {task: tuple(torch.from_numpy(a).to(device) for a in arrays) for task, arrays in encoded.labels.items()}
    return torch.from_numpy(encoded.x).to(device), labels


def _take(labels: Labels, rows: Tensor) -> Labels:
    return {task: tuple(array[rows] for array in arrays) for task, arrays in labels.items()}


@torch.no_grad()
def _forward(network: torch.nn.Module, x: Tensor) -> dict[str, Tensor]:
    network.eval()
    pieces = [network(rows) for rows in x.split(ROWS_AT_ONCE)]
    return {task: torch.cat([piece[task] for piece in pieces]) for task in pieces[0]}


def _write(tensors: dict[str, Tensor], about: dict, path: str | Path) -> None:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}.draft")
    save_file({key: value.cpu().clone() for key, value in tensors.items()}, draft, {"about": json.dumps(about)})
    os.replace(draft, path)


def _read(path: str | Path) -> tuple[dict[str, Tensor], dict]:
    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, json.loads(file.metadata()["about"])  # noqa: SIM118
