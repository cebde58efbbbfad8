"""A torch network behind the two calls that every method answers to: preprocessing, network and training in one."""

from collections.abc import Callable, Mapping
from inspect import signature

import torch
from torch import Tensor, nn

from txtlib.balance import plain_sum, surgery
from txtlib.cohort import Cohort
from txtlib.model import head
from txtlib.predictions import Predictions
from txtlib.preprocess import Preprocessor, fit_preprocessor
from txtlib.training import fit

PREPROCESSING = ("n_genes", "scaler", "n_times", "grid")
TRAINING = ("epochs", "patience", "batch_size", "learning_rate", "weight_decay", "select", "precision")
EPOCHS = signature(fit).parameters["epochs"].default
COMBINE = {"pcgrad": surgery, "sum": plain_sum}

GeneSets = Mapping[str, list[str]]


class NetworkMethod:
    """A network on ``tasks`` (all of the cohort's, if none is named), from expression to answers.

    ``build(x, preprocessor, gene_sets, seed, **settings)`` returns the network: x (n, G) is the scaled expression of
    the training part. Of ``settings``, those named in PREPROCESSING go to ``fit_preprocessor``, those in TRAINING to
    ``fit``, the others to ``build``. If there are gene_sets {name: genes}, genes are chosen from them. ``combine``
    is how the tasks' gradients are joined: "pcgrad" or "sum".
    """

    def __init__(
        self, build: Callable, seed: int = 0, gene_sets: GeneSets | None = None, tasks=(), combine="pcgrad", **settings
    ):
        self.build, self.seed, self.gene_sets, self.tasks = build, seed, gene_sets or {}, tasks
        self.preprocessing = {name: settings.pop(name) for name in PREPROCESSING if name in settings}
        self.training = {name: settings.pop(name) for name in TRAINING if name in settings}
        self.training["combine"] = COMBINE[combine]
        self.settings = settings

    def fit(self, train: Cohort, validation: Cohort) -> "NetworkMethod":
        """Fit everything on the training part; the validation part chooses the epoch. Ctrl-C ends it at once."""
        preprocessor = self.preprocessor(train)
        return self.learn(self.network(train, preprocessor), train, validation, preprocessor)

    def preprocessor(self, train: Cohort) -> Preprocessor:
        """Return the genes, scales, class codes and time grid of the training part, for the tasks of this method."""
        listed = set().union(*self.gene_sets.values()) or None
        preprocessor = fit_preprocessor(train, gene_list=listed, **self.preprocessing)
        return preprocessor.with_tasks(*self.tasks) if self.tasks else preprocessor

    def network(self, train: Cohort, preprocessor: Preprocessor) -> nn.Module:
        """Return the network before any training."""
        x = preprocessor.expression(train)
        return self.build(x, preprocessor, self.gene_sets, self.seed, **self.settings)

    def learn(
        self, network: nn.Module, train: Cohort, validation: Cohort, preprocessor: Preprocessor, **others
    ) -> "NetworkMethod":
        """Train a network; ``others`` take the place of this method's own arguments of ``txtlib.training.fit``.

        ``trained`` is the result; ``capped`` says whether it ended because its epochs were used up.
        """
        parts, arguments = (train, validation, preprocessor), self.training | others
        self.trained = fit(network, *parts, **arguments, seed=self.seed, progress=False)
        if self.trained.interrupted:
            raise KeyboardInterrupt  # half a training is no answer of this method
        self.capped = int(self.trained.history["epoch"].max()) >= arguments.get("epochs", EPOCHS)
        return self

    def predict(self, cohort: Cohort) -> Predictions:
        """Answer the tasks for each patient."""
        return self.trained.predict(cohort)


def txt_head(features: int, size: int) -> nn.Module:
    """Return TxT's own head for one task."""
    return head(features, size, dropout=0.1)


class Shared(nn.Module):
    """A body that all tasks share, (B, G) -> (B, features), and a head for each task on what it makes of a patient.

    ``outputs`` maps a task to its number of outputs. The heads are TxT's own, unless ``head`` (features, outputs)
    -> module builds others. All initial numbers come from ``seed``, the body's too, which is why it is given as a
    function that builds it.
    """

    def __init__(
        self,
        body: Callable[[], nn.Module],
        features: int,
        outputs: dict[str, int],
        head: Callable[[int, int], nn.Module] = txt_head,
        seed: int = 0,
    ):
        super().__init__()
        with torch.random.fork_rng():  # torch's layers draw from the global generator: leave it as it was
            torch.manual_seed(seed)
            self.body = body()
            self.heads = nn.ModuleList(head(features, size) for size in outputs.values())
        self.names = list(outputs)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map expression x (B, G) to {task: (B, outputs)}."""
        features = self.features(x)
        return {task: self.head(task)(features) for task in self.names}

    def features(self, x: Tensor) -> Tensor:
        """Map expression x (B, G) to what the heads read, (B, features)."""
        return self.body(x)

    def head(self, task: str) -> nn.Module:
        """Return the layers of one task."""
        return self.heads[self.names.index(task)]

    def shared_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that all tasks share: the body's."""
        return list(self.body.parameters())
