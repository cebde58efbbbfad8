"""Missing values told from the others: what restoration by a network has to be shown beside.

All numbers are in SDs of the training part (n, G), NaN where missing. An imputer is fitted on the training part, which
may itself miss values, and maps a table with missing values to one without: what is there stays as it is. What has to
be chosen is chosen on the validation part, on values hidden as those of the test will be.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer
from sklearn.linear_model import Ridge

from txtlib.pretrain.masking import hide

PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)  # of ridge, beside correlations: times n it is scikit-learn's alpha
RANKS = (5, 10, 20, 40, 80)  # of the low-rank imputer
NEIGHBOURS = 10
ROUNDS, NEAREST = 5, 30  # of the iterative imputer, and how many genes it tells a gene from

Impute = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Pattern:
    """Which share of the values is missing and how (txtlib/pretrain/masking.py); ``seed`` draws which."""

    share: float
    how: str = "at random"
    seed: int = 0

    def hide(self, x: np.ndarray) -> np.ndarray:
        """Return where values of x (n, G) are hidden, (n, G) bool."""
        return hide(x, self.share, self.how, self.seed)


@dataclass(frozen=True)
class Panel:
    """A pattern in which the genes at these places are measured and no others."""

    places: tuple[int, ...]

    def hide(self, x: np.ndarray) -> np.ndarray:
        """Return where values of x (n, G) are hidden, (n, G) bool."""
        hidden = ~np.isnan(x)
        hidden[:, list(self.places)] = False
        return hidden


def mean_imputer(train: np.ndarray, validation: np.ndarray, pattern: Pattern) -> Impute:
    """Fill with the training mean, which is 0 here."""
    return lambda x: np.nan_to_num(x)


def neighbours_imputer(train: np.ndarray, validation: np.ndarray, pattern: Pattern) -> Impute:
    """Fill with the mean of the nearest training patients, by the genes that are there."""
    return KNNImputer(n_neighbors=NEIGHBOURS, keep_empty_features=True).fit(train).transform


def ridge_imputer(train: np.ndarray, validation: np.ndarray, pattern: Pattern) -> Impute:
    """Tell each missing gene from all genes that the patient has, by ridge regression on the training part.

    One regression per pattern of missing values and gene, which all follow from the training covariance.
    """
    covariance = covariance_of(train)
    penalty = _chosen(PENALTIES, lambda c: lambda x: told_linearly(x, covariance, c), validation, pattern)
    return lambda x: told_linearly(x, covariance, penalty)


def low_rank_imputer(train: np.ndarray, validation: np.ndarray, pattern: Pattern) -> Impute:
    """Tell missing genes from the patient's place on the first principal components (Tipping and Bishop 1999)."""
    filled = np.nan_to_num(train)
    ranks = [rank for rank in RANKS if rank < min(filled.shape)] or [1]
    covariances = {rank: PCA(rank, svd_solver="full").fit(filled).get_covariance() for rank in ranks}
    rank = _chosen(ranks, lambda c: lambda x: told_linearly(x, covariances[c], 0.0), validation, pattern)
    return lambda x: told_linearly(x, covariances[rank], 0.0)


def iterative_imputer(train: np.ndarray, validation: np.ndarray, pattern: Pattern) -> Impute:
    """Fill by scikit-learn's rounds of ridge regressions; it learns from a training part with as much missing."""
    holed = np.where(pattern.hide(train), np.nan, train)
    model = IterativeImputer(
        Ridge(len(train) * 0.1), max_iter=ROUNDS, n_nearest_features=NEAREST, random_state=0, keep_empty_features=True
    )
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):  # that rounds are few is our choice
        model.fit(holed)
    return model.transform


IMPUTERS = {
    "mean": mean_imputer,
    "nearest patients": neighbours_imputer,
    "ridge": ridge_imputer,
    "iterative ridge": iterative_imputer,
    "low rank (PCA)": low_rank_imputer,
}


def covariance_of(train: np.ndarray) -> np.ndarray:
    """Return the covariance (G, G) about 0 of training values in SDs, missing ones taken for the mean."""
    filled = np.nan_to_num(train).astype(float)
    return filled.T @ filled / len(filled)


def told_linearly(x: np.ndarray, covariance: np.ndarray, penalty: float) -> np.ndarray:
    """Return x (n, G) with missing values told from the others: S_mo (S_oo + penalty I)^-1 x_o for each patient.

    With the training covariance S that is ridge regression of the missing genes on the observed ones.
    """
    filled, missing = np.nan_to_num(x).astype(float), np.isnan(x)
    patterns, rows = np.unique(missing, axis=0, return_inverse=True)
    for number, gone in enumerate(patterns):
        if gone.any() and not gone.all():
            block = covariance[np.ix_(~gone, ~gone)] + penalty * np.eye((~gone).sum())
            mine = rows.ravel() == number
            filled[np.ix_(mine, gone)] = filled[np.ix_(mine, ~gone)] @ np.linalg.solve(
                block, covariance[~gone][:, gone]
            )
    return filled


def _chosen(choices, imputer: Callable, validation: np.ndarray, pattern: Pattern):
    """Return the choice whose imputer errs least on hidden values of the validation part."""
    hidden = pattern.hide(validation)
    holed = np.where(hidden, np.nan, validation)
    errors = [np.nanmean((imputer(choice)(holed) - validation)[hidden] ** 2) for choice in choices]
    return choices[int(np.argmin(errors))]


# --- errors ---------------------------------------------------------------------------------------------------


def error_draws(told: dict[str, np.ndarray], x: np.ndarray, hidden: np.ndarray, counts: np.ndarray) -> pd.DataFrame:
    """Return the root mean squared error, in SDs, of what was told (n, G) for the hidden values of x (n, G).

    A column per method; row 0 holds the errors, the others those of samples of the patients, ``counts`` (R, n): how
    often each was drawn.
    """
    weights = np.vstack([np.ones(len(x)), counts])
    size = weights @ hidden.sum(1)
    return pd.DataFrame(
        {
            name: np.sqrt(weights @ np.square(np.where(hidden, answer - x, 0.0)).sum(1) / size)
            for name, answer in told.items()
        }
    )
