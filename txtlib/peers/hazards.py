"""DeepSurv, Nnet-survival and DeepHit: three survival losses on one plain network, as pycox (BSD-2) has them.

A perceptron on the chosen genes (128 and 64 units, each with ReLU, batch norm and dropout) is trained by Adam in
mini-batches until the loss on the validation part has stopped falling; the weights of its best epoch count. What is
ours is only the housekeeping around it: genes, missing outcomes, seeds, and batches that the libraries cannot take.
"""

import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch

from txtlib.cohort import Cohort, CohortError
from txtlib.peers.breslow import breslow_curves
from txtlib.predictions import Predictions
from txtlib.preprocess import fit_preprocessor

WIDTHS = [128, 64]
SPACE_DEEP_SURV = {
    "learning_rate": [3e-3, 1e-3, 1e-2],
    "dropout": [0.5, 0.7, 0.3, 0.1],
    "batch_size": [64, 256, 128, 32],
}
SPACE_LOGISTIC_HAZARD = {**SPACE_DEEP_SURV, "n_times": [20, 10, 40]}
SPACE_DEEP_HIT = {"alpha": [0.2, 0.8, 0.5, 0.1], **SPACE_LOGISTIC_HAZARD, "sigma": [0.1, 0.3, 1.0]}


class PycoxMethod:
    """One of pycox's survival networks; ``head`` has its loss, its labels and its way to survival curves.

    n_genes, scaler and gene_sets {name: genes} choose the genes as in every method. ``epochs`` is the most there can
    be, ``patience`` how many may pass without a better validation loss, ``batch_size`` that of a step. It grows
    where it would leave a single patient over, which batch norm cannot take.
    """

    def __init__(
        self,
        head,
        seed=0,
        n_genes=1000,
        scaler="standard",
        gene_sets=None,
        learning_rate=3e-3,
        dropout=0.5,
        epochs=200,
        patience=20,
        batch_size=64,
    ):
        if min(epochs, patience) < 1 or batch_size < 2:
            raise ValueError(
                "epochs and patience are 1 or more and batch_size is 2 or more (batch norm needs two patients), not "
                f"{epochs}, {patience} and {batch_size}."
            )
        self.head, self.seed, self.gene_sets = head, seed, gene_sets or {}
        self.preprocessing = {"n_genes": n_genes, "scaler": scaler}
        self.learning_rate, self.dropout = learning_rate, dropout
        self.epochs, self.patience, self.batch_size = epochs, patience, batch_size

    def fit(self, train: Cohort, validation: Cohort) -> "PycoxMethod":
        """Fit genes, scales, labels and weights on the training part; the validation part chooses the epoch.

        Raises CohortError where the cohort has no survival task, or a part no event that the loss could see.
        """
        listed = set().union(*self.gene_sets.values()) or None
        end = np.nan_to_num(train.outcome()[0]).max()
        known, held_out = _with_outcome(train, "training", end), _with_outcome(validation, "validation", end)
        train = train.with_tasks(train.survival_task.name)  # no other task may stop this one
        self.preprocessor = fit_preprocessor(train, gene_list=listed, **self.preprocessing)
        labels = self.head.fit_labels(*known.outcome())
        held_out = self.preprocessor.expression(held_out), self.head.labels(*held_out.outcome())
        with torch.random.fork_rng():  # network, batches and dropout draw from torch's global generator
            torch.manual_seed(self.seed)
            self._train(self.preprocessor.expression(known), labels, held_out)
        return self

    def _train(self, x: np.ndarray, labels: tuple, held_out: tuple) -> None:
        import torchtuples  # slow to import, and needed here only

        network = torchtuples.practical.MLPVanilla(
            x.shape[1], WIDTHS, self.head.outputs, dropout=self.dropout, output_bias=self.head.bias
        )
        self.model = self.head.model(network, torchtuples.optim.Adam(self.learning_rate))
        # torchtuples keeps the best weights in a file, by default in the folder that one works in
        with tempfile.TemporaryDirectory() as folder:
            best = Path(folder, "best.pt")
            stop = torchtuples.callbacks.EarlyStopping(patience=self.patience, file_path=best)
            size = batch_of(len(x), self.batch_size)
            self.model.fit(x, labels, size, self.epochs, [stop], verbose=False, val_data=held_out)

    def predict(self, cohort: Cohort) -> Predictions:
        """Return the network's survival curves."""
        with torch.random.fork_rng():  # the library's loader draws a number even where nothing is random
            edges, curves = self.head.curves(self.model, self.preprocessor.expression(cohort))
        return Predictions(cohort.samples, edges, curves)


def _with_outcome(part: Cohort, name: str, end: float) -> Cohort:
    """Return the patients whose outcome is known; CohortError if no event among them falls into (0, end]."""
    time, event = part.outcome()
    if not ((event == 1) & (time > 0) & (time <= end)).any():
        raise CohortError(
            f"{part.name}: the {name} part ({len(part)} samples) has no event of {part.survival_task.name!r} between 0 "
            f"and the end of the training part's follow-up ({end:g}), so there is no loss to train on or to stop by; "
            "use another split or a larger cohort."
        )
    return part.take(part.samples[~np.isnan(event)])


def batch_of(n: int, size: int) -> int:
    """Return the smallest batch size from ``size`` on (n, if that is less) that leaves no batch of one among n."""
    return next(batch for batch in range(min(size, n), n + 1) if n % batch != 1)


# --- what the three differ in -----------------------------------------------------------------------------------


class Proportional:
    """DeepSurv (Katzman et al. 2018, 10.1186/s12874-018-0482-1): one log hazard, Cox's partial likelihood.

    pycox takes ties in the order of the batch and the risk set within the batch. Curves by Breslow's baseline hazard
    of the training part.
    """

    outputs, bias = 1, False

    def fit_labels(self, time: np.ndarray, event: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Keep the outcomes for the baseline hazard, and return what ``labels`` returns."""
        self.outcome = time, event
        return self.labels(time, event)

    def labels(self, time: np.ndarray, event: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return time and event, (n,) float32 each."""
        return time.astype(np.float32), event.astype(np.float32)

    def model(self, network, optimizer):
        """Return pycox's model."""
        from pycox.models import CoxPH

        return CoxPH(network, optimizer, "cpu", loss=_cox_loss)

    def curves(self, model, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return edges (K,) and curves (n, K) of expression (n, G)."""
        fitted, _ = model.training_data
        return breslow_curves(self._log_hazard(model, fitted), *self.outcome, self._log_hazard(model, x))

    def _log_hazard(self, model, x: np.ndarray) -> np.ndarray:
        return model.predict(x)[:, 0].astype(float)


def _cox_loss(log_hazard, time, event):
    """Return pycox's loss; 0 for a batch without events, whose loss there is 0 / 0 and spoils all weights."""
    from pycox.models.loss import cox_ph_loss

    return cox_ph_loss(log_hazard, time, event) if event.any() else 0 * log_hazard.sum()


class Discrete:
    """A network with one output per cut of time: pycox's model of that name, with ``settings`` of its own.

    At most n_times cuts at the quantiles of the Kaplan-Meier curve of the training part, 0 and its last time among
    them; between cuts a curve is a straight line, which pycox calls constant density.
    """

    bias = True

    def __init__(self, name: str, n_times: int, **settings):
        if n_times < 2:
            raise ValueError(f"n_times is {n_times}; a time grid has 2 cuts or more, the first one at 0.")
        self.name, self.n_times, self.settings = name, n_times, settings

    def fit_labels(self, time: np.ndarray, event: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Fit the cuts and return what ``labels`` returns for the patients that they are fitted on."""
        from pycox.preprocessing.label_transforms import LabTransDiscreteTime

        self.transform = LabTransDiscreteTime(self.n_times, scheme="quantiles")
        with warnings.catch_warnings():  # two quantiles may fall on one time: then there are fewer cuts
            warnings.filterwarnings("ignore", "cuts are not unique", UserWarning)
            self.transform.fit(time, event)
        self.outputs = self.transform.out_features
        return self.labels(time, event)

    def labels(self, time: np.ndarray, event: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return cut (n,), an event's from above and a censored time's from below, and event (n,) float32."""
        return self.transform.transform(time, event)

    def model(self, network, optimizer):
        """Return pycox's model."""
        from pycox import models

        cuts = self.transform.cuts
        return getattr(models, self.name)(network, optimizer, "cpu", duration_index=cuts, **self.settings)

    def curves(self, model, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return edges (K,), the cuts after 0, and curves (n, K) of expression (n, G)."""
        curves = model.predict_surv(x)[:, 1:].astype(float)
        curves = np.minimum.accumulate(curves.clip(0, 1), 1)  # float32 and an epsilon in a logarithm: 1e-7 too much
        return self.transform.cuts[1:], curves


# --- as methods of the benchmark ----------------------------------------------------------------------------------


def deep_surv(seed: int = 0, **settings) -> PycoxMethod:
    """Return DeepSurv; ``settings`` as in PycoxMethod."""
    return PycoxMethod(Proportional(), seed, **settings)


def logistic_hazard(seed: int = 0, n_times: int = 20, **settings) -> PycoxMethod:
    """Return Nnet-survival (Gensheimer and Narasimhan 2019, 10.7717/peerj.6257): a hazard for each cut of time."""
    return PycoxMethod(Discrete("LogisticHazard", n_times), seed, **settings)


def deep_hit(seed: int = 0, n_times: int = 20, alpha: float = 0.2, sigma: float = 0.1, **settings) -> PycoxMethod:
    """Return DeepHit (Lee et al. 2018, AAAI) for one kind of event: a probability for each cut of time.

    The loss is pycox's: ``alpha`` times the likelihood and 1 - alpha times a ranking loss of width ``sigma``.
    """
    return PycoxMethod(Discrete("DeepHitSingle", n_times, alpha=alpha, sigma=sigma), seed, **settings)
