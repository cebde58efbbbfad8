"""OmiEmbed-like: a variational autoencoder of the transcriptome, and a network per task that reads its latent mean.

After Zhang et al. 2021 (OmiEmbed, 10.3390/cancers13123047), for gene expression alone, in our own words and code.
Training has three phases: the autoencoder alone; the tasks' networks alone, the autoencoder's weights held; all
together. It differs from the original in what follows. Genes, targets, classes and time grid are fitted on the
training part. The epoch is chosen by validation, where the original takes the last. Times fall into right-open cells.
The logarithms of GradNorm's weights are learned, so no weight can turn negative, and only in the third phase, since
in the second nothing shared is trained that they could balance.
"""

import math
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from txtlib.balance import GradNorm
from txtlib.cohort import Cohort, CohortError
from txtlib.gradients import Labels
from txtlib.losses import task_loss
from txtlib.model import head
from txtlib.predictions import Predictions
from txtlib.preprocess import fit_preprocessor
from txtlib.training import decode, selection_score, shuffled_batches

SPACE = {  # what may be tuned, the default first
    "learning_rate": [1e-4, 1e-3, 3e-4],
    "hidden": [[1024, 1024, 512], [512, 256], [256]],
    "latent": [128, 64, 32],
    "batch_size": [32, 16, 64],
    "phases": [[50, 50, 100], [20, 20, 100], [100, 50, 100]],
}
SCALERS = ("minmax", "rank")  # those that bring a gene to 0..1, as its reconstruction by cross-entropy needs
WEIGHTINGS = ("fixed", "gradnorm")
KL_SHARE = 0.01  # of the divergence, in the autoencoder's loss
AUTOENCODER_SHARE = 0.001  # of the autoencoder's loss, when all is trained together
HEAD_DROPOUT = {"regression": 0.01, "classification": 0.2}
GRADNORM = {"learning_rate": 1e-3, "alpha": 1.5}
ADAM = {"betas": (0.5, 0.999), "weight_decay": 1e-4}


@dataclass(eq=False)
class OmiEmbed:
    """OmiEmbed-like on all tasks of the training part, one or many.

    latent is the size of the latent mean; hidden holds the encoder's layers from the genes inwards, the decoder has
    them backwards; phases the epochs of the three phases, of which the third ends early after ``patience`` epochs
    without a better validation loss (mean over tasks; its best epoch is kept). The learning rate is constant, then
    falls linearly over the second half of the third phase. weighting is "fixed" (each task counts 1) or "gradnorm".
    n_genes, scaler, n_times and grid are those of ``fit_preprocessor``; if there are gene_sets {name: genes}, genes
    are chosen from them. Raises ValueError for a setting that cannot be.

    Regression targets are standardised on the training part and learned by absolute error; the original divides
    them by the largest target of all parts.
    """

    seed: int = 0
    n_genes: int = 1000
    scaler: str = "minmax"
    gene_sets: dict[str, list[str]] | None = None
    n_times: int = 64
    grid: str = "quantile"
    latent: int = 128
    hidden: tuple[int, ...] = (1024, 1024, 512)
    phases: tuple[int, int, int] = (50, 50, 100)
    patience: int = 30
    batch_size: int = 32
    learning_rate: float = 1e-4
    weighting: str = "fixed"

    def __post_init__(self):
        rules = {
            f"scaler is one of {', '.join(SCALERS)}, not {self.scaler!r}": self.scaler in SCALERS,
            f"weighting is one of {', '.join(WEIGHTINGS)}, not {self.weighting!r}": self.weighting in WEIGHTINGS,
            f"phases are the epochs of three phases, at least 0, 0 and 1, not {self.phases}": _are_phases(self.phases),
            f"hidden is a list of layer sizes, at least one, not {self.hidden}": min(self.hidden, default=0) >= 1,
            f"latent and patience are 1 or more, not {self.latent} and {self.patience}": self.latent >= 1
            and self.patience >= 1,
            f"batch_size is 2 or more (batch normalisation), not {self.batch_size}": self.batch_size >= 2,
            f"learning_rate is above 0, not {self.learning_rate}": self.learning_rate > 0,
        }
        for rule, kept in rules.items():
            if not kept:
                raise ValueError(f"OmiEmbed: {rule}.")

    def fit(self, train: Cohort, validation: Cohort) -> "OmiEmbed":
        """Train the three phases; the validation part chooses the epoch of the third.

        Leaves ``history``: a row per phase, epoch, part (training, validation) and task (None: the autoencoder) with
        its loss and the task's weight; and ``best_epoch``. Raises CohortError for a task without a label in one of
        the parts, and FloatingPointError, with phase and epoch, if a loss is no longer finite.
        """
        listed = set().union(*(self.gene_sets or {}).values()) or None
        self.preprocessor = fit_preprocessor(train, self.n_genes, self.scaler, listed, self.n_times, self.grid)
        _check_labels(train, validation)
        with torch.random.fork_rng(), torch.enable_grad():  # dropout knows only the global generator
            torch.manual_seed(self.seed)
            run = self._run()
            run.train(self.phases, self.patience, self.batch_size, self._tensors(train), self._tensors(validation))
        self.network, self.history, self.best_epoch = run.network, pd.DataFrame(run.history), run.best_epoch
        return self

    def predict(self, cohort: Cohort) -> Predictions:
        """Answer the tasks for each patient, in the labels' units."""
        device = next(self.network.parameters()).device
        self.network.eval()
        with torch.no_grad():
            outputs = self.network(torch.from_numpy(self.preprocessor.expression(cohort)).to(device))
        return decode({task: output.cpu().numpy() for task, output in outputs.items()}, cohort, self.preprocessor)

    def _run(self) -> "_Run":
        kinds = {task.name: task.kind for task in self.preprocessor.tasks}
        genes, outputs = len(self.preprocessor.genes), self.preprocessor.outputs
        network = Network(genes, list(self.hidden), self.latent, kinds, outputs).to(_device())
        optimizer = torch.optim.Adam(network.parameters(), self.learning_rate, **ADAM, fused=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(rate_share, self.phases))
        balance = GradNorm(len(kinds), **GRADNORM) if self.weighting == "gradnorm" else None
        return _Run(network, kinds, optimizer, schedule, balance, torch.Generator().manual_seed(self.seed))

    def _tensors(self, cohort: Cohort) -> tuple[Tensor, Labels]:
        encoded, device = self.preprocessor.encode(cohort), _device()
        labels = {task: tuple(torch.from_numpy(a).to(device) for a in some) for task, some in encoded.labels.items()}
        return torch.from_numpy(encoded.x).to(device), labels


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _are_phases(phases) -> bool:
    return len(phases) == 3 and min(phases) >= 0 and phases[2] >= 1


def _check_labels(train: Cohort, validation: Cohort) -> None:
    for part, cohort in (("training", train), ("validation", validation)):
        for task in train.tasks:
            if not cohort.clinical[list(task.columns)].notna().all(axis=1).any():
                raise CohortError(
                    f"{cohort.name}: no {part} patient has a label of {task.name!r}; leave the task out, or split "
                    "otherwise."
                )


def rate_share(phases: tuple[int, int, int], epoch: int) -> float:
    """Return the share of the learning rate at an epoch, counted from 0 through all phases: 1, then falling to 0."""
    falling = phases[2] // 2
    return min(1.0, (sum(phases) - epoch) / (falling + 1))


# --- the network ----------------------------------------------------------------------------------------------


class Network(nn.Module):
    """The autoencoder of G genes and the tasks' networks; kinds and outputs say what each task is and needs."""

    def __init__(self, n_genes: int, hidden: list[int], latent: int, kinds: dict[str, str], outputs: dict[str, int]):
        super().__init__()
        self.encoder = _layers([n_genes, *hidden])
        self.mean, self.log_variance = (nn.Linear(hidden[-1], latent) for _ in range(2))
        self.decoder = nn.Sequential(_layers([latent, *hidden[::-1]]), nn.Linear(hidden[0], n_genes))
        self.heads = nn.ModuleList(_head(kind, latent, outputs[task]) for task, kind in kinds.items())
        self.names = list(kinds)
        self.apply(_initialise)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map expression x (B, G), within 0..1, to {task: (B, outputs)}."""
        return self.answers(self.latent_mean(x))

    def latent_mean(self, x: Tensor) -> Tensor:
        """Map expression x (B, G) to the mean of the latent posterior, (B, latent)."""
        return self.mean(self.encoder(x))

    def answers(self, mean: Tensor) -> dict[str, Tensor]:
        """Map latent means (B, latent) to {task: (B, outputs)}."""
        return {task: layers(mean) for task, layers in zip(self.names, self.heads, strict=True)}

    def autoencode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the latent means (B, latent), and the loss of rebuilding x (B, G) from a draw around them, a scalar.

        The loss is the cross-entropy of each gene's value with its reconstruction, averaged, and a share of the
        divergence from a standard normal.
        """
        hidden = self.encoder(x)
        mean, log_variance = self.mean(hidden), self.log_variance(hidden)
        drawn = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        rebuilt = F.binary_cross_entropy_with_logits(self.decoder(drawn), x)
        return mean, rebuilt + KL_SHARE * divergence(mean, log_variance)


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return the Kullback-Leibler divergence of normals (B, latent) from the standard normal, averaged over all."""
    return (mean.square() + log_variance.exp() - 1 - log_variance).mean() / 2


def _layers(sizes: list[int]) -> nn.Sequential:
    return nn.Sequential(
        *(
            nn.Sequential(nn.Linear(before, after), nn.BatchNorm1d(after), nn.Dropout(0.2), nn.LeakyReLU(0.2))
            for before, after in pairwise(sizes)
        )
    )


def _head(kind: str, latent: int, outputs: int) -> nn.Module:
    """Build a task's network; those of classes and numbers have TxT's layers, with a dropout of their own."""
    if kind != "survival":
        return head(latent, outputs, HEAD_DROPOUT[kind])
    wide, narrow = (
        [nn.Linear(before, after), nn.Dropout(0.5), nn.Tanh()] for before, after in ((latent, 512), (512, 256))
    )
    return nn.Sequential(*wide, *narrow, nn.Linear(256, outputs))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
        nn.init.zeros_(module.bias)


# --- the three phases -----------------------------------------------------------------------------------------


def loss_of(kind: str, output: Tensor, label: tuple[Tensor, ...]) -> Tensor:
    """Return ``task_loss``, but for a regression the mean absolute error over the patients that have a target."""
    if kind != "regression":
        return task_loss(kind, output, label)
    seen = ~label[0].isnan()
    return (output[seen, 0] - label[0][seen]).abs().sum() / max(int(seen.sum()), 1)


Losses = dict[str | None, Tensor]  # of each task, and under None that of the autoencoder


@dataclass
class _Run:
    """A training run; the best epoch is that of the third phase with the lowest validation loss so far."""

    network: Network
    kinds: dict[str, str]
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    balance: GradNorm | None
    generator: torch.Generator
    history: list[dict] = field(default_factory=list)
    best_epoch: int = 0
    best_score: float = math.inf
    best: dict[str, Tensor] = field(default_factory=dict)

    def train(self, phases, patience: int, batch_size: int, training, validation) -> None:
        """Go through the phases and end with the best epoch's weights."""
        for phase, epochs in enumerate(phases, start=1):
            if phase == 2:
                self._set_pace(*training)
            for epoch in range(1, epochs + 1):
                self._epoch(phase, epoch, *training, batch_size)
                if phase == 3:
                    self._judge(epoch, *validation)
                    if epoch - self.best_epoch >= patience:
                        break
        self.network.load_state_dict(self.best)

    def weights(self) -> Tensor:
        """Return the weight of each task's loss, (T,): they sum to T."""
        return torch.ones(len(self.kinds)) if self.balance is None else self.balance.log_weights.exp()

    def _epoch(self, phase: int, epoch: int, x: Tensor, labels: Labels, batch_size: int) -> None:
        self.network.train()
        batches = shuffled_batches(len(x), batch_size, self.generator)
        steps = [self._step(phase, x[rows], _take(labels, rows)) for rows in batches]
        self.schedule.step()
        means = {name: torch.stack([step[name] for step in steps]).mean() for name in steps[0]}
        self._record(phase, epoch, "training", means)

    def _step(self, phase: int, x: Tensor, labels: Labels) -> Losses:
        self.optimizer.zero_grad()  # what has no gradient in a phase is not moved, nor decayed
        objective = (self._autoencoder, self._heads, self._together)[phase - 1]
        total, losses = objective(x, labels)
        total.backward()
        self.optimizer.step()
        return {name: loss.detach() for name, loss in losses.items()}

    def _autoencoder(self, x: Tensor, labels: Labels) -> tuple[Tensor, Losses]:
        _, loss = self.network.autoencode(x)
        return loss, {None: loss}

    def _heads(self, x: Tensor, labels: Labels) -> tuple[Tensor, Losses]:
        with torch.no_grad():
            mean = self.network.latent_mean(x)
        losses = self._losses(mean, labels)
        return self._weighted(losses), losses

    def _together(self, x: Tensor, labels: Labels) -> tuple[Tensor, Losses]:
        mean, loss = self.network.autoencode(x)
        losses = self._losses(mean, labels)
        total = AUTOENCODER_SHARE * loss + self._weighted(losses)
        if self.balance is not None:
            self._rebalance(losses)
        return total, {None: loss, **losses}

    def _losses(self, mean: Tensor, labels: Labels) -> Losses:
        outputs = self.network.answers(mean)
        return {task: loss_of(kind, outputs[task], labels[task]) for task, kind in self.kinds.items()}

    def _weighted(self, losses: Losses) -> Tensor:
        stacked = torch.stack(list(losses.values()))
        return self.weights().to(stacked) @ stacked

    def _rebalance(self, losses: Losses) -> None:
        """Move the tasks' weights one step, by their gradients of the layer that makes the latent mean."""
        layer = self.network.mean.weight
        rows = [torch.autograd.grad(loss, layer, retain_graph=True)[0].flatten() for loss in losses.values()]
        self.balance(torch.stack(rows), torch.stack(list(losses.values())).detach(), self.generator)

    def _set_pace(self, x: Tensor, labels: Labels) -> None:
        """Let GradNorm measure each task's progress from its training loss before its network has learned."""
        if self.balance is not None:
            self.balance.first_losses = torch.stack(list(self._evaluated(x, labels).values())).cpu()

    @torch.no_grad()
    def _evaluated(self, x: Tensor, labels: Labels) -> Losses:
        self.network.eval()
        return self._losses(self.network.latent_mean(x), labels)

    def _judge(self, epoch: int, x: Tensor, labels: Labels) -> None:
        """Keep the weights if they are the best so far."""
        found = self._record(3, epoch, "validation", self._evaluated(x, labels))
        score = selection_score(found, "all")
        if score < self.best_score:
            weights = {key: value.detach().clone() for key, value in self.network.state_dict().items()}
            self.best_epoch, self.best_score, self.best = epoch, score, weights

    def _record(self, phase: int, epoch: int, part: str, losses: Losses) -> dict[str | None, float]:
        weights = dict(zip(self.kinds, self.weights().tolist(), strict=True))
        found = {name: loss.item() for name, loss in losses.items()}
        for name, loss in found.items():
            if not math.isfinite(loss):
                what = "the autoencoder" if name is None else repr(name)
                raise FloatingPointError(
                    f"Phase {phase}, epoch {epoch}: the {part} loss of {what} became {loss}; look for such values in "
                    "the data, or lower the learning rate."
                )
            row = dict(phase=phase, epoch=epoch, part=part, task=name, loss=loss, weight=weights.get(name))
            self.history.append(row)
        return found


def _take(labels: Labels, rows: Tensor) -> Labels:
    return {task: tuple(array[rows] for array in arrays) for task, arrays in labels.items()}
