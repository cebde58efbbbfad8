"""AutoSurv-like: a variational autoencoder whose hidden units are pathways, then a small Cox network on its code.

After Jiang et al. (npj Precision Oncology 2024), from a description, not from their code. What differs: genes only,
no miRNA; clinical columns beside the code only where they are asked for, since they answer a different question, and
for survival only, or a task could be told its own label; the epoch is chosen by the validation loss, where the original
took the best C-index of the test part; tied times by Efron's method; a regression form with a bias and a z-scored
target, and a classification form, which the original has not. Pathways are the gene sets given (Hallmark in the book,
Reactome there). Everything is full batch.

The shapes: n patients, G genes, P pathways, z numbers in the code.
"""

import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from txtlib.cohort import Cohort, CohortError, Task
from txtlib.peers.breslow import breslow_curves
from txtlib.peers.clinical import Design
from txtlib.predictions import Predictions
from txtlib.preprocess import Preprocessor, fit_preprocessor

SPACE = {
    "latent": [16, 32, 8, 64],
    "vae_learning_rate": [0.005, 0.001, 0.05],
    "learning_rate": [0.005, 0.001, 0.05],
    "weight_decay": [0.005, 0.05, 0.0005],
    "dropout": [0.3, 0.5, 0.1],
    "hidden": [16, 8, 32],
}
START = 0.001  # the last layer's weights are drawn between this and its negative
LEAST = {"training": 2, "validation": 1}  # patients with a label; batch norm cannot learn from one


class AutoSurv:
    """The two stages behind ``fit`` and ``predict``, on all tasks of the training part.

    Stage 1, which all tasks share, is a pathway autoencoder (``PathwayVAE``) with a code of ``latent`` numbers:
    ``vae_epochs`` in which the weight of the divergence rises ``cycles`` times, each time over a share ``ratio`` of
    the cycle. Stage 2 is a network of ``hidden`` units for each task on the mean of the code, for ``epochs`` at
    most and until the validation loss has not fallen for ``patience``; that of survival reads the ``clinical`` columns
    as well, if there are any (``txtlib.peers.clinical.Design``). ``gene_sets`` {name: genes} are the pathways;
    one with fewer than ``smallest`` of the n_genes chosen genes is left out. Raises ValueError without gene sets, for
    numbers out of range, and for a scaler that leaves [0, 1], where the autoencoder lives.
    """

    def __init__(
        self,
        seed=0,
        n_genes=1000,
        scaler="minmax",
        gene_sets=None,
        clinical=(),
        smallest=5,
        latent=16,
        vae_epochs=300,
        cycles=4,
        ratio=0.5,
        vae_learning_rate=0.005,
        vae_weight_decay=0.0005,
        hidden=16,
        dropout=0.3,
        epochs=500,
        patience=100,
        learning_rate=0.005,
        weight_decay=0.005,
    ):
        _check_input(gene_sets, scaler, ratio)
        _check_counts(smallest=smallest, latent=latent, vae_epochs=vae_epochs, cycles=cycles)
        _check_counts(hidden=hidden, epochs=epochs, patience=patience)
        self.seed, self.gene_sets, self.clinical, self.smallest = seed, gene_sets, clinical, smallest
        self.preprocessing = {"n_genes": n_genes, "scaler": scaler}
        self.latent, self.hidden, self.dropout = latent, hidden, dropout
        self.vae_optimizer = {"lr": vae_learning_rate, "weight_decay": vae_weight_decay}
        self.betas = [beta(epoch, vae_epochs, cycles, ratio) for epoch in range(vae_epochs)]
        self.optimizer = {"lr": learning_rate, "weight_decay": weight_decay}
        self.epochs, self.patience = epochs, patience

    def fit(self, train: Cohort, validation: Cohort) -> "AutoSurv":
        """Fit genes, scales, autoencoder and heads on the training part; validation chooses each head's epoch.

        Raises CohortError where no gene set is left, where a part has too few labels of a task, and for a clinical
        column that is missing or empty.
        """
        self.design = Design(train, self.clinical)
        fitted = fit_preprocessor(train, gene_list=set().union(*self.gene_sets.values()), **self.preprocessing)
        self.preprocessor, mask = pathways(fitted, self.gene_sets, self.smallest)
        targets = {task.name: self._targets(task, train, validation) for task in train.tasks}
        with torch.random.fork_rng():  # layers, codes and dropout draw from torch's global generator
            torch.manual_seed(self.seed)
            self.vae = PathwayVAE(mask, self.latent)
            fit_vae(self.vae, self._expression(train), self.betas, **self.vae_optimizer)
            parts = [(part, self._code(part)) for part in (train, validation)]
            self.heads = {task.name: self._fit_head(task, parts, targets[task.name]) for task in train.tasks}
        if train.survival_task is not None:
            self._keep_baseline(train)
        return self

    def predict(self, cohort: Cohort) -> Predictions:
        """Return survival curves (Breslow's, of the network's own log hazard), values in the label's unit, shares."""
        code, classes, edges, curves = self._code(cohort), self.preprocessor.classes, None, None
        answers = {kind: self._answers(kind, cohort, code) for kind in LOSSES}
        values = {name: self._unscaled(name, out[:, 0]) for name, out in answers["regression"].items()}
        shares = {
            name: pd.DataFrame(out.softmax(1).numpy(), cohort.samples, list(classes[name]))
            for name, out in answers["classification"].items()
        }
        for out in answers["survival"].values():
            edges, curves = breslow_curves(*self.baseline, out[:, 0].numpy())
        return Predictions(cohort.samples, edges, curves, values, shares)

    def _expression(self, cohort: Cohort) -> Tensor:
        return torch.from_numpy(self.preprocessor.expression(cohort))

    def _code(self, cohort: Cohort) -> Tensor:
        with torch.no_grad():
            return self.vae.eval().encode(self._expression(cohort))

    def _read(self, kind: str, cohort: Cohort, code: Tensor) -> Tensor:
        """Return what a task's network reads: the code (n, z), in survival with the clinical columns after it."""
        return torch.cat([code, torch.from_numpy(self.design.table(cohort))], 1) if kind == "survival" else code

    def _targets(self, task: Task, train: Cohort, validation: Cohort) -> list[tuple[Tensor, ...]]:
        """Return for each part the rows with a label, and their labels."""
        found = []
        for name, part in {"training": train, "validation": validation}.items():
            labels = part.outcome() if task.kind == "survival" else self.preprocessor.encode(part).labels[task.name]
            rows = _labelled(task, labels)
            _check_labels(part, name, task, labels, rows)
            found.append((torch.from_numpy(rows), *(torch.from_numpy(label[rows]) for label in labels)))
        return found

    def _fit_head(self, task: Task, parts: list[tuple[Cohort, Tensor]], targets: list) -> nn.Module:
        torch.manual_seed(self.seed)  # so that a task's answer is the same alone as among others
        if task.kind == "survival":
            network = head(self.latent, self.hidden, 1, self.dropout, bias=False, clinical=self.design.width)
        else:
            network = head(self.latent, self.hidden, self.preprocessor.outputs[task.name], self.dropout, bias=True)
        read = [self._read(task.kind, *part) for part in parts]
        known = [(x[rows], *labels) for x, (rows, *labels) in zip(read, targets, strict=True)]
        fit_head(network, LOSSES[task.kind], *known, self.epochs, self.patience, **self.optimizer)
        return network

    def _answers(self, kind: str, cohort: Cohort, code: Tensor) -> dict[str, Tensor]:
        """Return the outputs (n, any) of each task of a kind, by its name."""
        names = [task.name for task in self.preprocessor.tasks if task.kind == kind]
        with torch.no_grad():
            return {name: self.heads[name].eval()(self._read(kind, cohort, code)).double() for name in names}

    def _keep_baseline(self, train: Cohort) -> None:
        time, event = train.outcome()
        seen = ~np.isnan(event)
        for out in self._answers("survival", train, self._code(train)).values():
            self.baseline = out[:, 0].numpy()[seen], time[seen], event[seen]

    def _unscaled(self, name: str, values: Tensor) -> np.ndarray:
        mean, spread = self.preprocessor.scales[name]
        return (mean + spread * values).numpy()


def _check_input(gene_sets, scaler: str, ratio: float) -> None:
    if not gene_sets:
        raise ValueError("AutoSurv's hidden units are pathways: give gene_sets, a table {name: [genes]}.")
    if scaler == "standard":
        raise ValueError("AutoSurv's autoencoder returns values within [0, 1]: scaler is minmax or rank, not standard.")
    if not 0 < ratio <= 1:
        raise ValueError(f"ratio is {ratio}; give a share of a cycle, above 0 and up to 1.")


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} is {count}; give 1 or more.")


def _check_labels(part: Cohort, name: str, task: Task, labels: tuple, rows: np.ndarray) -> None:
    enough = rows.sum() >= LEAST[name]
    if task.kind == "survival":
        enough = enough and (labels[1][rows] == 1).any()
    if not enough:
        raise CohortError(
            f"{part.name}: the {name} part ({len(part)} samples) has too few labels or no event of {task.name!r} to "
            "train on or to stop by; use another split or a larger cohort, or leave the task out."
        )


def _labelled(task: Task, labels: tuple[np.ndarray, ...]) -> np.ndarray:
    return labels[0] >= 0 if task.kind == "classification" else ~np.isnan(labels[-1])


def pathways(fitted: Preprocessor, gene_sets: dict[str, list[str]], smallest: int) -> tuple[Preprocessor, Tensor]:
    """Return the preprocessor cut down to genes of a set, and which gene is in which set, (P, G) of 0 and 1.

    A set counts with ``smallest`` of the preprocessor's genes or more; CohortError if none does.
    """
    member = np.stack([np.isin(fitted.genes, list(genes)) for genes in gene_sets.values()])
    member = member[member.sum(1) >= smallest]
    if not len(member):
        raise CohortError(
            f"None of the {len(gene_sets)} gene sets has {smallest} or more of the {len(fitted.genes)} chosen genes; "
            "choose more genes, or a smaller `smallest`."
        )
    used = member.any(0)
    genes = tuple(np.array(fitted.genes)[used].tolist())
    cut = replace(fitted, genes=genes, fill=fitted.fill[used], table=fitted.table[:, used])
    return cut, torch.from_numpy(member[:, used].astype(np.float32))


# --- stage 1: the pathway autoencoder -----------------------------------------------------------------------------


class MaskedLinear(nn.Module):
    """A linear layer whose weights are 0, and stay 0, outside of a mask (outputs, inputs) of 0 and 1."""

    def __init__(self, mask: Tensor):
        super().__init__()
        self.linear = nn.Linear(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask)
        with torch.no_grad():
            self.linear.weight.mul_(mask)  # 0 from the start: then neither momentum nor weight decay moves them

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, inputs) to (n, outputs)."""
        return F.linear(x, self.linear.weight * self.mask, self.linear.bias)


class PathwayVAE(nn.Module):
    """KL-PMVAE for genes: G genes -> P pathways -> a code of z numbers -> P -> G, linked by ``mask`` (P, G).

    Batch norm follows every linear layer, those of the code's mean and log variance too.
    """

    def __init__(self, mask: Tensor, latent: int):
        super().__init__()
        n_pathways, n_genes = mask.shape
        self.pathways = nn.Sequential(MaskedLinear(mask), nn.BatchNorm1d(n_pathways), nn.ReLU())
        self.mean = nn.Sequential(nn.Linear(n_pathways, latent), nn.BatchNorm1d(latent))
        self.log_variance = nn.Sequential(nn.Linear(n_pathways, latent), nn.BatchNorm1d(latent))
        back = nn.Linear(latent, n_pathways), nn.BatchNorm1d(n_pathways)
        self.decoder = nn.Sequential(*back, MaskedLinear(mask.T), nn.BatchNorm1d(n_genes))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return for x (n, G) the logits of its reconstruction (n, G), and mean and log variance of the code (n, z)."""
        hidden = self.pathways(x)
        mean, log_variance = self.mean(hidden), self.log_variance(hidden)
        code = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        return self.decoder(code), mean, log_variance

    def encode(self, x: Tensor) -> Tensor:
        """Return the mean of the code, (n, z)."""
        return self.mean(self.pathways(x))


def beta(epoch: int, epochs: int, cycles: int, ratio: float) -> float:
    """Return the weight of the divergence: 0.1 where a cycle begins, rising to 1 by a share ``ratio`` of it."""
    position = epoch * cycles % epochs / epochs
    return min(1.0, 0.1 + 0.9 * position / ratio)


def vae_loss(x: Tensor, logits: Tensor, mean: Tensor, log_variance: Tensor, weight: float) -> Tensor:
    """Return binary cross-entropy plus ``weight`` times the divergence from N(0, 1), summed, per patient."""
    reconstruction = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
    divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum() / 2
    return (reconstruction + weight * divergence) / len(x)


def fit_vae(vae: PathwayVAE, x: Tensor, betas: list[float], **optimizer) -> None:
    """Train in place on x (n, G), a step of Adam on all patients for each beta."""
    steps = torch.optim.Adam(vae.parameters(), **optimizer)
    vae.train()
    for weight in betas:
        steps.zero_grad()
        vae_loss(x, *vae(x), weight).backward()
        steps.step()


# --- stage 2: a head for each task --------------------------------------------------------------------------------


class Beside(nn.Module):
    """Batch norm of a code of z numbers, and the clinical columns after it as they are."""

    def __init__(self, latent: int):
        super().__init__()
        self.norm = nn.BatchNorm1d(latent)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, z + C) to the same."""
        latent = self.norm.num_features
        return torch.cat([self.norm(x[:, :latent]), x[:, latent:]], 1)


def head(latent: int, hidden: int, outputs: int, dropout: float, bias: bool, clinical: int = 0) -> nn.Module:
    """Return the network of one task, (n, z + clinical) -> (n, outputs); a log hazard needs no bias."""
    last = nn.Linear(hidden, outputs, bias=bias)
    nn.init.uniform_(last.weight, -START, START)
    first = Beside(latent), nn.Linear(latent + clinical, hidden), nn.Tanh()
    return nn.Sequential(*first, nn.Dropout(dropout), nn.BatchNorm1d(hidden), last)


def fit_head(
    network: nn.Module, loss: Callable, known: tuple, held_out: tuple, epochs: int, patience: int, **optimizer
) -> None:
    """Train in place on (codes, labels...), a step of Adam on all patients for each epoch; keep the best epoch.

    ``held_out`` holds the same of the validation part, where ``loss(outputs, labels...)`` judges.
    """
    steps = torch.optim.Adam(network.parameters(), **optimizer)
    lowest, waited, best = np.inf, 0, {}
    for _ in range(epochs):
        network.train()
        steps.zero_grad()
        loss(network(known[0]), *known[1:]).backward()
        steps.step()
        with torch.no_grad():
            now = loss(network.eval()(held_out[0]), *held_out[1:]).item()
        waited += 1
        if now < lowest:
            lowest, waited, best = now, 0, {name: value.clone() for name, value in network.state_dict().items()}
        if waited >= patience:
            break
    network.load_state_dict(best)


def squared_error(outputs: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared error of outputs (n, 1) against targets (n,)."""
    return F.mse_loss(outputs[:, 0], target)


def cox_loss(outputs: Tensor, time: Tensor, event: Tensor) -> Tensor:
    """Return the negative log partial likelihood per event of log hazards (n, 1), ties by Efron, from torchsurv."""
    log_hazard = outputs[:, 0] - outputs.max().detach()  # no constant matters, and torchsurv takes plain exponentials
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", DeprecationWarning)  # when it is imported
        warnings.filterwarnings("ignore", "Ties in `time` detected", UserWarning)  # which it handles as asked
        from torchsurv.loss.cox import neg_partial_log_likelihood

        total = neg_partial_log_likelihood(log_hazard, event == 1, time, "efron", reduction="sum")
    return total / event.sum()


LOSSES = {"regression": squared_error, "classification": F.cross_entropy, "survival": cox_loss}
