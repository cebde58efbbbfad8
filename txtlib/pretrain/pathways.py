"""How active a pathway is in a sample, and how well a representation tells it.

Activity is the mean z-score of a pathway's genes, moments from the training part: simple, declared, and linear in
expression. A linear comparator that reads expression has it easy therefore, and must stand beside any model's number.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from txtlib.cohort import Cohort, CohortError
from txtlib.resampled import pearson

LEAST = 5  # measured genes of a pathway
ALPHAS = tuple(np.logspace(0, 5, 11))  # of ridge, chosen by leave-one-out


def activity(cohort: Cohort, train: Cohort, gene_sets: Mapping[str, list[str]], least: int = LEAST) -> pd.DataFrame:
    """Return the activity (n, P) of each gene set with ``least`` measured genes or more, in SDs of the training part.

    Missing values do not count. CohortError if no set has so many.
    """
    varying = train.expression.columns[train.expression.max() > train.expression.min()]
    own = {name: varying.intersection(list(genes)) for name, genes in gene_sets.items()}
    own = {name: genes for name, genes in own.items() if len(genes) >= least}
    if not own:
        raise CohortError(
            f"{train.name}: none of the {len(gene_sets)} gene sets has {least} measured genes; give sets with the same "
            "kind of gene names."
        )
    raw, fitted = (_mean_z(part, train, own) for part in (cohort, train))
    return (raw - fitted.mean()) / fitted.std(ddof=0)


def _mean_z(cohort: Cohort, train: Cohort, gene_sets: Mapping[str, pd.Index]) -> pd.DataFrame:
    known = train.expression.astype(float)
    z = (cohort.expression.reindex(columns=known.columns) - known.mean()) / known.std(ddof=0).replace(0, np.nan)
    return pd.DataFrame({name: z[genes].mean(axis=1) for name, genes in gene_sets.items()})


def told_by(train: pd.DataFrame, target: pd.DataFrame, *others: pd.DataFrame) -> list[pd.DataFrame]:
    """Return what ridge regression from vectors (n, D) to targets (n, P), fitted on the first, says of the others."""
    model = make_pipeline(StandardScaler(), RidgeCV(ALPHAS)).fit(train.to_numpy(), target.to_numpy())
    return [pd.DataFrame(model.predict(other.to_numpy()), other.index, target.columns) for other in others]


def agreement(truth: pd.DataFrame, told: pd.DataFrame, counts: np.ndarray) -> dict[str, np.ndarray]:
    """Return the mean Pearson correlation of two tables (n, P) over samples and over pathways.

    {"by sample": ..., "by pathway": ...}: (1 + R,) each, first of the samples themselves, then of each of R resamples,
    whose rows in ``counts`` (R, n) say how often each sample was drawn.
    """
    x, y = truth.to_numpy(float), told.to_numpy(float)
    counts = np.vstack([np.ones(len(x)), counts])
    rows = np.array([pearson(*pair, np.ones((1, x.shape[1])))[0] for pair in zip(x, y, strict=True)])
    columns = np.stack([pearson(*pair, counts) for pair in zip(x.T, y.T, strict=True)])
    return {"by sample": counts @ rows / counts.sum(1), "by pathway": columns.mean(0)}
