"""Training of one network on one or many tasks: the loop, its choice of epoch, and how it ends."""

import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from txtlib.balance import surgery
from txtlib.batchnorm import renew
from txtlib.checkpoint import Checkpoint, owner, parts, read, write
from txtlib.cohort import Cohort
from txtlib.gradients import PRECISIONS, Labels, in_pieces, set_shared, task_gradients
from txtlib.losses import task_loss
from txtlib.parallel import agree, join, of_the_first, place
from txtlib.pcgrad import gradient_cosines
from txtlib.predictions import Predictions
from txtlib.preprocess import Encoded, Preprocessor
from txtlib.survival import survival_curves
from txtlib.variants import variant

NETWORK = "trained network"  # the kind of file that Trained.save writes
DIGITS = 5  # of a logit, or of a number in SDs of the training part
GENES_AT_ONCE = 64_000  # genes x patients per forward pass where no gradient is needed


@dataclass
class Trained:
    """A network with the preprocessor it was trained behind; ``predict`` takes any cohort.

    history: a row per epoch, part (train, validation) and task, with its loss and the epoch's seconds. conflicts:
    a row per epoch and pair of tasks with the mean cosine of their gradients. best_epoch is the one kept.
    interrupted says that Ctrl-C ended the training.
    """

    network: torch.nn.Module
    preprocessor: Preprocessor
    history: pd.DataFrame
    conflicts: pd.DataFrame
    best_epoch: int
    interrupted: bool = False

    def predict(self, cohort: Cohort) -> Predictions:
        """Answer every task for the patients of a cohort, which needs no labels."""
        device = next(self.network.parameters()).device
        outputs = _forward(self.network, torch.from_numpy(self.preprocessor.expression(cohort)).to(device))
        return decode({task: output.cpu().numpy() for task, output in outputs.items()}, cohort, self.preprocessor)

    def save(self, path: str | Path) -> None:
        """Write network and preprocessor to one safetensors file, whole or not at all; OSError if it cannot be.

        Under ``torchrun`` the first process writes it.
        """
        if place()[0]:
            return
        arrays, fields = self.preprocessor.state()
        tensors = {f"network.{key}": value for key, value in self.network.state_dict().items()}
        tensors |= {f"preprocessor.{key}": torch.from_numpy(value) for key, value in arrays.items()}
        about = {"best_epoch": self.best_epoch, "interrupted": self.interrupted}
        tables = {"history": self.history.to_dict("list"), "conflicts": self.conflicts.to_dict("list")}
        write(path, NETWORK, tensors, {**about, **tables, "settings": self.network.settings, "preprocessor": fields})


def load_trained(path: str | Path) -> Trained:
    """Read back a TxT, or a variant of it, that ``Trained.save`` wrote; ValueError for any other file."""
    tensors, about = read(path, NETWORK)
    found = parts(tensors)
    network = variant(**{"variant": "product", **about["settings"]})
    network.load_state_dict(found["network"])
    network.eval()
    arrays = {name: value.numpy() for name, value in found["preprocessor"].items()}
    tables = (pd.DataFrame(about[name]) for name in ("history", "conflicts"))
    ended = {name: about[name] for name in ("best_epoch", "interrupted")}
    return Trained(network, Preprocessor.from_state(arrays, about["preprocessor"]), *tables, **ended)


def decode(outputs: dict[str, np.ndarray], cohort: Cohort, preprocessor: Preprocessor) -> Predictions:
    """Turn raw outputs {task: (n, size)} into Predictions in the units of the labels.

    Outputs are rounded to DIGITS: patients who differ by float32's rounding alone must tie, or they would be ranked.
    """
    curves, values, probabilities = None, {}, {}
    for task in preprocessor.tasks:
        output = outputs[task.name].astype(float).round(DIGITS)
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
    weight_decay: float = 0.0,
    select: str | None = None,
    combine=surgery,
    seed: int = 0,
    device: str = "auto",
    precision: str = "float32",
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> Trained:
    """Train with Adam (AdamW, given a weight decay) and keep the epoch with the lowest validation loss of ``select``.

    ``select`` is a task, or "all" for the mean over tasks; by default the survival task (its loss is the survival
    log score), or "all" without one. Training ends after ``epochs``, or ``patience`` epochs without a better
    score. ``combine`` joins the tasks' gradients on the shared parameters (txtlib/balance.py); each head follows its
    own task. All randomness (order, dropout, combine) comes from ``seed``. precision "bfloat16" computes the encoder
    in half the bits. Under ``torchrun`` all processes share the work of each batch (txtlib/parallel.py).

    ``checkpoint`` names a file that is rewritten after each epoch: a run that was killed and is started again with
    the same arguments goes on from it, on a CPU to the same numbers; ``epochs``, ``patience``, ``device`` and
    ``progress`` may differ. Ctrl-C ends training with a line of text and the best epoch so far, marked as
    ``interrupted`` so that a loop over many fits can stop there too; before the first epoch it is raised.

    Raises ValueError for an unknown ``select`` or precision, a validation part without a label of it, fewer than one
    epoch, fewer than two training patients, in all or in a batch, a network whose batches cannot be shared, or a
    checkpoint that is torn or of another run; OSError if the checkpoint cannot be written; FloatingPointError, with
    epoch and task, if a loss is no longer finite.
    """
    device = device_named(device)
    join(device)
    select = select or next((task.name for task in preprocessor.tasks if task.kind == "survival"), "all")
    _check_shared(network)
    _check(select, preprocessor, train, validation, batch_size, epochs)
    data = {
        name: _tensors(preprocessor.encode(part), device)
        for name, part in (("training", train), ("validation", validation))
    }
    kinds = {task.name: task.kind for task in preprocessor.tasks}
    # dropout knows only the global generator; and a Ctrl-C at the door of a no_grad can leave gradients switched off
    with torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(seed)
        arguments = dict(learning_rate=learning_rate, weight_decay=weight_decay, precision=precision)
        run = Run(
            network.to(device), kinds, combine=combine, generator=torch.Generator().manual_seed(seed), **arguments
        )
        arguments |= dict(batch_size=batch_size, select=select, seed=seed)
        file = _resumed(checkpoint, run, data, arguments)
        one_epoch = partial(run.one_epoch, *data["training"], *data["validation"], batch_size, select)
        interrupted = train_epochs(run, one_epoch, epochs, patience, file, progress)
    return run.trained(preprocessor, interrupted)


def _resumed(path: str | Path | None, run: "Run", data: dict, arguments: dict) -> Checkpoint | None:
    """Bring a run to where its checkpoint ends, if there is to be one."""
    if path is None and place()[1] == 1:
        return None
    whose = owner(run, data, **arguments)
    agree(whose)
    if path is None:
        return None
    file = Checkpoint(path, whose)
    file.resume(run)
    return file


def train_epochs(
    run: "Run", one_epoch: Callable, epochs: int, patience: int, file: Checkpoint | None, progress: bool
) -> bool:
    """Train to the end; return whether Ctrl-C was the end."""
    quiet = {} if progress and not place()[0] else {"disable": True}  # said only then, so that TQDM_DISABLE works too
    with tqdm(total=epochs, initial=run.done.epoch, desc="epochs", unit="epoch", **quiet) as bar:
        try:
            while run.done.epoch < epochs and run.done.epoch - run.done.best_epoch < patience:
                one_epoch()
                if file and not place()[0]:
                    file.save(run)
                bar.update()
                bar.set_postfix(best=f"{run.done.best_score:.4f}", epoch=run.done.best_epoch)
            return False
        except FloatingPointError as error:
            raise FloatingPointError(f"{error} {_what_is_left(run.done, file)}") from error
        except KeyboardInterrupt:
            if not run.done.epoch:
                raise
            going_on = f" The same call goes on from {file.path}." if file else ""
            tqdm.write(f"Interrupted: epoch {run.done.best_epoch} is the best of {run.done.epoch}.{going_on}")
            return True


def _what_is_left(done: "Done", file: Checkpoint | None) -> str:
    if not done.epoch:
        return "No epoch was good before it: look for such values in the data, or lower the learning rate."
    kept = f"The last good checkpoint is {file.path}, of epoch {done.epoch}" if file else "There is no checkpoint"
    return (
        f"{kept}; the best epoch is {done.best_epoch}: the same call with a new network and epochs={done.epoch} "
        "returns it; a lower learning rate may lead further."
    )


@dataclass(frozen=True)
class Done:
    """What a run has to show for its whole epochs: replaced as one, so that Ctrl-C finds nothing half done."""

    epoch: int = 0
    best_epoch: int = 0
    best_score: float = math.inf
    best: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict] = field(default_factory=list)
    conflicts: list[dict] = field(default_factory=list)

    def plain(self) -> dict:
        """Return all but the weights."""
        return {key: value for key, value in vars(self).items() if key != "best"}


@dataclass
class Run:
    """The state of a training run between two epochs."""

    network: torch.nn.Module
    kinds: dict[str, str]
    learning_rate: float
    combine: Callable[[Tensor, Tensor, torch.Generator], Tensor]
    generator: torch.Generator
    precision: str = "float32"
    weight_decay: float = 0.0
    done: Done = field(default_factory=Done)

    def __post_init__(self):
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision is one of {', '.join(PRECISIONS)}, not {self.precision!r}.")
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), self.learning_rate, weight_decay=self.weight_decay, fused=True
        )

    def one_epoch(self, x, labels, val_x, val_labels, batch_size, select) -> None:
        """Train on every patient once, validate, and keep the weights if they are the best so far.

        Batch norms learn the training part anew before that (txtlib/batchnorm.py).

        Raises FloatingPointError once a loss or a weight is not finite; what is ``done`` then stays as it was.
        """
        start = time.perf_counter()
        self.network.train()
        batches = shuffled_batches(len(x), batch_size, self.generator)
        steps = [self._step(x[rows], _take(labels, rows)) for rows in batches]
        train, cosines = (torch.stack(part) for part in zip(*steps, strict=True))  # a row per batch
        self._check_losses("training", train)
        renew(self.network, random_pieces(x, _at_once(x), self.generator))
        validation = of_the_first(torch.stack(self.losses(_forward(self.network, val_x), val_labels)))
        self._check_losses("validation", validation[None])
        self._check_weights()
        losses = {"train": train.mean(0).tolist(), "validation": validation.tolist()}
        self.done = self._after(losses, cosines.mean(0), time.perf_counter() - start, select)

    def losses(self, outputs: dict[str, Tensor], labels: Labels) -> list[Tensor]:
        """Return each task's mean loss, in the order of ``kinds``."""
        return [task_loss(kind, outputs[task], labels[task]) for task, kind in self.kinds.items()]

    def _step(self, x: Tensor, labels: Labels) -> tuple[Tensor, Tensor]:
        """Make one optimiser step; return losses (T,) and gradient cosines (T, T)."""
        losses, jacobian = task_gradients(self.network, x, labels, self.kinds, self.precision)
        set_shared(self.network, self.combine(jacobian, losses, self.generator))
        self.optimizer.step()
        return losses.cpu(), gradient_cosines(jacobian).cpu()

    def _check_losses(self, part: str, losses: Tensor) -> None:
        """Stop if one of the losses (B, T) is not finite; the first such batch says which task it was."""
        bad = losses[~losses.isfinite().all(1)]
        if len(bad):
            tasks = [task for task, loss in zip(self.kinds, bad[0].tolist(), strict=True) if not math.isfinite(loss)]
            values = sorted({str(loss) for loss in bad[0][~bad[0].isfinite()].tolist()})
            where = f"Epoch {self.done.epoch + 1}: the {part} loss of {' and '.join(map(repr, tasks))}"
            raise FloatingPointError(f"{where} became {' and '.join(values)}.")

    def _check_weights(self) -> None:
        """Stop if a weight is not finite, which a task without a validation label does not show."""
        for name, value in self.network.state_dict().items():
            if not value.sum().isfinite():  # a sum costs far less than a look at each number
                raise FloatingPointError(f"Epoch {self.done.epoch + 1}: the weights {name!r} are no longer finite.")

    def _after(self, losses: dict[str, list[float]], cosines: Tensor, seconds: float, select: str) -> Done:
        """Return what is done after one more epoch."""
        done, epoch = self.done, self.done.epoch + 1
        score = selection_score(dict(zip(self.kinds, losses["validation"], strict=True)), select)
        best = dict(best_epoch=done.best_epoch, best_score=done.best_score, best=done.best)
        if score < done.best_score:
            weights = {key: value.detach().cpu().clone() for key, value in self.network.state_dict().items()}
            best = dict(best_epoch=epoch, best_score=score, best=weights)
        history = [{"epoch": epoch, **row, "seconds": seconds} for row in self._loss_rows(losses)]
        conflicts = [{"epoch": epoch, **row} for row in self._conflict_rows(cosines)]
        return Done(epoch, history=done.history + history, conflicts=done.conflicts + conflicts, **best)

    def _loss_rows(self, losses: dict[str, list[float]]) -> list[dict]:
        return [
            dict(part=part, task=task, loss=loss)
            for part, values in losses.items()
            for task, loss in zip(self.kinds, values, strict=True)
        ]

    def _conflict_rows(self, cosines: Tensor) -> list[dict]:
        pairs = combinations(enumerate(self.kinds), 2)
        return [dict(pair=f"{a} and {b}", cosine=cosines[i, j].item()) for (i, a), (j, b) in pairs]

    def trained(self, preprocessor: Preprocessor, interrupted: bool = False) -> Trained:
        """Return the best epoch's network."""
        self.network.load_state_dict(self.done.best)
        self.network.eval()
        tables = (pd.DataFrame(rows) for rows in (self.done.history, self.done.conflicts))
        return Trained(self.network, preprocessor, *tables, self.done.best_epoch, interrupted)


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


def selection_score(losses: dict[str, float], select: str) -> float:
    """Return the loss of the selected task, or the mean over tasks for "all"."""
    return sum(losses.values()) / len(losses) if select == "all" else losses[select]


def shuffled_batches(n: int, batch_size: int, generator: torch.Generator) -> list[Tensor]:
    """Return the rows 0..n-1 in random order, in batches; a last batch of one joins the one before (batch norm)."""
    batches = list(torch.randperm(n, generator=generator).split(batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def random_pieces(x: Tensor, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield the rows of x in random order, in pieces that are about equal, of ``size`` at most but two at least."""
    pieces = min(math.ceil(len(x) / size), len(x) // 2)
    return (x[rows] for rows in torch.randperm(len(x), generator=generator).tensor_split(pieces))


def _check_shared(network: torch.nn.Module) -> None:
    if place()[1] > 1 and not in_pieces(network):
        raise ValueError(
            f"{type(network).__name__} sees each batch whole, so several processes cannot share the work: start one."
        )


def _check(
    select: str, preprocessor: Preprocessor, train: Cohort, validation: Cohort, batch_size: int, epochs: int
) -> None:
    names = [task.name for task in preprocessor.tasks]
    if select not in (*names, "all"):
        raise ValueError(f"select is one of the tasks {', '.join(names)}, or 'all', not {select!r}.")
    if epochs < 1:
        raise ValueError(f"epochs is {epochs}; training needs one or more.")
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


def device_named(name: str) -> torch.device:
    """Return the device of a name: "auto" is a GPU where there is one, and each process of a machine has its own."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":  # torchrun numbers the processes of a machine
        name = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    return torch.device(name)


def _tensors(encoded: Encoded, device: torch.device) -> tuple[Tensor, Labels]:
    labels = {task: tuple(torch.from_numpy(a).to(device) for a in arrays) for task, arrays in encoded.labels.items()}
    return torch.from_numpy(encoded.x).to(device), labels


def _take(labels: Labels, rows: Tensor) -> Labels:
    return {task: tuple(array[rows] for array in arrays) for task, arrays in labels.items()}


@torch.no_grad()
def _forward(network: torch.nn.Module, x: Tensor) -> dict[str, Tensor]:
    network.eval()
    pieces = [network(rows) for rows in x.split(_at_once(x))]
    return {task: torch.cat([piece[task] for piece in pieces]) for task in pieces[0]}


def _at_once(x: Tensor) -> int:
    return max(1, GENES_AT_ONCE // x.shape[1])
