"""Clinical columns as numbers that a network can read."""

import numpy as np
import pandas as pd

from txtlib.cohort import Cohort, CohortError


def columns_of(cohort: Cohort, columns) -> pd.DataFrame:
    """Return clinical columns by name, (n, columns); CohortError names the first that is missing."""
    missing = [name for name in columns if name not in cohort.clinical]
    if missing:
        raise CohortError(f"{cohort.name}: the clinical table has no column {missing[0]!r}; choose other columns.")
    return cohort.clinical[list(columns)]


class Design:
    """Clinical columns of a training part: numbers in SDs from their mean, a 0/1 column for each class it has.

    A missing number becomes the mean. A missing class, and one that the training part does not have, is 0 in all of
    its columns. ``width`` is the number of columns, C. Raises CohortError if a column is missing, or holds no value.
    """

    def __init__(self, train: Cohort, columns):
        self.columns, chosen = tuple(columns), columns_of(train, columns)
        empty = [name for name in self.columns if chosen[name].isna().all()]
        if empty:
            raise CohortError(f"{train.name}: no training patient has a value of {empty[0]!r}; choose other columns.")
        numeric = chosen.select_dtypes("number")
        self.numbers = {name: _scale(column) for name, column in numeric.items()}
        self.levels = {name: sorted(chosen[name].dropna().unique()) for name in chosen if name not in numeric}
        self.width = len(self.numbers) + sum(map(len, self.levels.values()))

    def table(self, cohort: Cohort) -> np.ndarray:
        """Return the numbers of a cohort's patients, (n, C) float32: the numbers first, then the classes."""
        chosen = columns_of(cohort, self.columns)
        found = [(_numbers(cohort, name) - mean) / spread for name, (mean, spread) in self.numbers.items()]
        found += [chosen[name] == level for name, levels in self.levels.items() for level in levels]
        table = np.zeros((len(cohort), self.width), np.float32)
        for place, column in enumerate(found):
            table[:, place] = column.astype(float).fillna(0)
        return table


def _scale(column: pd.Series) -> tuple[float, float]:
    return column.mean(), column.std(ddof=0) if column.nunique() > 1 else 1.0


def _numbers(cohort: Cohort, name: str) -> pd.Series:
    try:
        return pd.to_numeric(cohort.clinical[name])
    except (ValueError, TypeError) as error:
        raise CohortError(
            f"{cohort.name}: column {name!r} holds numbers in the training part and not here ({error}); correct it."
        ) from error
