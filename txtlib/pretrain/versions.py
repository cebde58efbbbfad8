"""The same samples in several units: what a model meets that was trained on one of them.

All but the z-score map the values of a sample by one rising function, so they keep the order of its genes.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from txtlib.cohort import Cohort, CohortError

VERSIONS = ("linear", "log", "rank", "quantile", "zscore")
LEVELS = 1001  # of the reference distribution of quantile normalisation


@dataclass(frozen=True)
class Versions:
    """What versions need to know of a training part in log2(x + 1).

    ``reference`` (LEVELS,) is the mean distribution of a training sample; ``mean`` and ``spread`` are by gene.
    """

    reference: np.ndarray
    mean: pd.Series
    spread: pd.Series

    def apply(self, cohort: Cohort, name: str) -> Cohort:
        """Return the same samples in a version; ValueError for a name that is none of VERSIONS.

        linear: x, where the values are log2(x + 1). log: as they are. rank: the share of the sample's genes that are
        not above it, from above 0 to 1, ties share their mean. quantile: the training part's mean value at that rank.
        zscore: in SDs from the gene's training mean. Missing values stay missing.
        """
        if name not in VERSIONS:
            raise ValueError(f"A version is one of {', '.join(VERSIONS)}, not {name!r}.")
        return replace(cohort, expression=getattr(self, f"_{name}")(cohort.expression.astype(float)))

    def _linear(self, values: pd.DataFrame) -> pd.DataFrame:
        return np.exp2(values) - 1

    def _log(self, values: pd.DataFrame) -> pd.DataFrame:
        return values

    def _rank(self, values: pd.DataFrame) -> pd.DataFrame:
        return values.rank(axis=1, pct=True)

    def _quantile(self, values: pd.DataFrame) -> pd.DataFrame:
        ranks, counts = values.rank(axis=1).to_numpy(), values.count(axis=1).to_numpy()[:, None]
        levels = (ranks - 1) / np.maximum(counts - 1, 1)
        found = np.interp(levels, np.linspace(0, 1, len(self.reference)), self.reference)
        return pd.DataFrame(np.where(np.isnan(levels), np.nan, found), values.index, values.columns)

    def _zscore(self, values: pd.DataFrame) -> pd.DataFrame:
        return (values - self.mean.reindex(values.columns)) / self.spread.reindex(values.columns)


def fit_versions(train: Cohort) -> Versions:
    """Fit on the training part: log2(x + 1), 0 or more; CohortError for values below 0, which no such unit has."""
    values = train.expression.astype(float)
    if values.min().min() < 0:
        raise CohortError(
            f"{train.name}: the lowest value is {values.min().min():.3g}, so these are no values of log2(x + 1), and "
            "no other unit can be computed from them; give expression of 0 or more, or name its log_offset."
        )
    spread = values.std(ddof=0)
    reference = np.nanquantile(values, np.linspace(0, 1, LEVELS), axis=1).mean(1)
    return Versions(reference, values.mean(), spread.where(spread > 0, 1.0))
