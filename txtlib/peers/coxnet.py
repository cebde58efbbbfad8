"""Cox regression with an elastic net penalty, its strength chosen by cross-validation within the training part.

Simon et al. 2011 (10.18637/jss.v039.i05) as in scikit-survival; the cross-validated partial likelihood of Verweij and
van Houwelingen 1993 (10.1002/sim.4780122407).
"""

import warnings
from dataclasses import dataclass

import numpy as np
from sksurv.linear_model import CoxnetSurvivalAnalysis
from sksurv.util import Surv

from txtlib.peers.tabular import PerTask, event_folds

SPACE = {"l1_ratio": [0.5, 0.1, 0.9]}
N_ALPHAS = 30
TOLERANCE = 1e-5  # of the models that are compared; the chosen one is fitted to scikit-survival's 1e-7


def coxnet(
    seed: int = 0, n_genes: int = 1000, scaler: str = "standard", gene_sets=None, l1_ratio: float = 0.5
) -> PerTask:
    """Return elastic net Cox regression, for survival only; ``l1_ratio`` is 1 for lasso and near 0 for ridge."""
    return PerTask({"survival": CrossValidatedCoxnet(l1_ratio, seed)}, n_genes, scaler, gene_sets, seed)


@dataclass
class CrossValidatedCoxnet:
    """Elastic net Cox regression; the last ``free`` columns are not penalised.

    The penalty is the one whose models are most likely for left-out patients (5 folds with equal shares of the events),
    of 30 along ``span``, in units of the smallest penalty that leaves no gene: by default down to glmnet's 0.05 where
    there are more genes than patients. No gene may be the best: such a model ranks nobody. After ``fit``, ``model``
    is scikit-survival's at the chosen ``alpha``, and ``gain`` (A,) what each of ``alphas`` was judged by.
    """

    l1_ratio: float
    seed: int
    free: int = 0
    span: tuple[float, float] = (1.0, 0.05)

    def fit(self, x: np.ndarray, y: np.ndarray, patients: np.ndarray | None = None) -> "CrossValidatedCoxnet":
        """Fit on (n, G), scikit-survival's structured array, and whose samples they are (n,), if any repeat."""
        event, time = (y[name] for name in y.dtype.names)
        fold = event_folds(event, self.seed, patients)
        largest = self._fitted(x, y, n_alphas=2, alpha_min_ratio=0.9).alphas_[0]  # of a path of one it is 1e35
        self.alphas = largest * np.geomspace(*self.span, N_ALPHAS)
        self.gain = sum(self._gain(x, time, event, fold == k) for k in range(fold.max() + 1))
        self.alpha = self.alphas[np.argmax(self.gain)]
        self.model = self._fitted(x, y, alphas=[self.alpha], fit_baseline_model=True)
        return self

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return log hazard ratios (n,)."""
        return self.model.predict(x)

    def predict_survival_function(self, x: np.ndarray) -> np.ndarray:
        """Return n step functions."""
        return self.model.predict_survival_function(x)

    def _fitted(self, x: np.ndarray, y: np.ndarray, **settings) -> CoxnetSurvivalAnalysis:
        weight = np.where(np.arange(x.shape[1]) < x.shape[1] - self.free, 1.0, 0.0)
        with warnings.catch_warnings():
            # No gene is a model too, and one that has not quite converged is judged by left-out patients like all.
            warnings.simplefilter("ignore")
            return CoxnetSurvivalAnalysis(l1_ratio=self.l1_ratio, penalty_factor=weight, **settings).fit(x, y)

    def _gain(self, x: np.ndarray, time: np.ndarray, event: np.ndarray, out: np.ndarray) -> np.ndarray:
        """Return what the patients left out add to the log likelihood (A,), by models that have not seen them."""
        y = Surv.from_arrays(event[~out], time[~out])
        try:
            score = x @ self._fitted(x[~out], y, alphas=self.alphas, tol=TOLERANCE).coef_
        except ArithmeticError:  # scikit-survival's own: a coefficient ran off; such a fold says nothing
            return np.zeros(len(self.alphas))
        rest = partial_log_likelihood(score[~out], time[~out], event[~out])
        gain = partial_log_likelihood(score, time, event) - rest
        return np.pad(gain, (0, len(self.alphas) - len(gain)), mode="edge")  # the path ends where the fit is perfect


def partial_log_likelihood(score: np.ndarray, time: np.ndarray, event: np.ndarray) -> np.ndarray:
    """Return Cox's log partial likelihood (A,) of log hazards (n, A), ties as Breslow has them."""
    order = np.argsort(-time)
    score, late, event = score[order], -time[order], event[order]
    at_risk = np.logaddexp.accumulate(score, axis=0)[np.searchsorted(late, late, side="right") - 1]
    return (score - at_risk)[event].sum(0)
