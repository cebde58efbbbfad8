"""Patients of whom only a few genes are known: random panels, prognostic anchors told from them, and what survives.

The second experiment of GexBERT (Jiang and Hassanpour 2025): a panel of random genes is measured; genes that foretell
survival, the anchors, are not, and are restored from the panel. Anchors are chosen on the training part. Survival is
ranked within groups of patients, such as cancer types: a risk that only tells the groups apart earns nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.util import Surv

from txtlib.cohort import Cohort, CohortError
from txtlib.interpret.plain import univariate_cox
from txtlib.metrics import Outcome, accuracy
from txtlib.predictions import Predictions
from txtlib.pretrain.imputers import Impute
from txtlib.resampled import accuracy as accuracy_draws

PENALTIES = (1.0, 10.0, 100.0, 1000.0)  # of Cox regression, against the log likelihood, per coefficient squared / 2
FREE = 1e-3  # the penalty of a group's own level: next to none


def random_panel(genes: Sequence[str], size: int, seed: int) -> list[str]:
    """Draw genes without replacement, at most all of them; a larger panel of the same seed holds the smaller one."""
    order = np.random.default_rng(seed).permutation(len(genes))
    return [genes[place] for place in order[:size]]


def without_gaps(cohort: Cohort) -> Cohort:
    """Return the cohort with the genes that all its samples have; CohortError if there are fewer than two.

    Where some kinds of tumour lack genes that others have, a missing value would tell the kind.
    """
    table = cohort.expression.dropna(axis="columns")
    if table.shape[1] < 2:
        raise CohortError(
            f"{cohort.name}: {table.shape[1]} of {cohort.expression.shape[1]} genes have a value in every sample; "
            "leave out the samples that lack most, or fill them in."
        )
    return replace(cohort, expression=table)


def having(cohort: Cohort, kept: Mapping[str, str]) -> Cohort:
    """Return the samples with these values, {clinical column: value}; CohortError if the column or any is not there."""
    for column, value in kept.items():
        if column not in cohort.clinical or not (mine := cohort.clinical[column].astype(str) == str(value)).any():
            raise CohortError(f"{cohort.name}: no sample has {value!r} in the clinical column {column!r}; keep others.")
        cohort = cohort.take(cohort.samples[mine])
    return cohort


def groups_of(cohort: Cohort, column: str = "") -> np.ndarray:
    """Return the group of each patient (n,), as text: a clinical column, or one for all; CohortError if absent."""
    if column and column not in cohort.clinical:
        raise CohortError(f"{cohort.name} has no clinical column {column!r} to group patients by; it has others.")
    return cohort.clinical[column].astype(str).to_numpy() if column else np.full(len(cohort), "all")


def only(cohort: Cohort, genes: Sequence[str]) -> Cohort:
    """Return the cohort as a laboratory sees it that measures these genes, in this order."""
    return replace(cohort, expression=cohort.expression[list(genes)])


def anchors(x: pd.DataFrame, outcome: Outcome, count: int) -> list[str]:
    """Return the genes of training values x (n, G) that foretell survival most surely, each alone: by |z| of Cox's."""
    found = univariate_cox(x.fillna(0.0), *outcome)
    return list(found["rank"].dropna().sort_values(kind="stable").index[:count])


# --- classes from few genes -----------------------------------------------------------------------------------

Fit = Callable[[Cohort], Callable[[Cohort], Predictions]]


def panel_accuracy(
    methods: Mapping[str, Fit], train: Cohort, test: Cohort, panels: Sequence[Sequence[str]], counts: np.ndarray
) -> pd.DataFrame:
    """Return each method's accuracy on its first classification task, averaged over panels, (1 + R, methods).

    A method is fitted to a training part with the genes of one panel, and answers a test part with the same genes. Row
    0 is that of the test patients as they are, the others of samples of them, ``counts`` (R, n).
    """
    (task, *_) = (task.name for task in test.tasks if task.kind == "classification")
    truth = test.clinical[task].to_numpy()
    known = ~pd.isna(truth)
    found = {}
    for name, fit in methods.items():
        answers = [fit(only(train, panel))(only(test, panel)).probabilities[task][known] for panel in panels]
        scores = [_with_draws(truth[known], shares, counts[:, known]) for shares in answers]
        found[name] = np.mean(scores, 0)
    return pd.DataFrame(found)


def _with_draws(truth: np.ndarray, shares: pd.DataFrame, counts: np.ndarray) -> np.ndarray:
    return np.r_[accuracy(truth, shares), accuracy_draws(truth, shares, counts)]


# --- anchors told from a panel --------------------------------------------------------------------------------


def anchor_designs(
    x: Mapping[str, np.ndarray], panel: Sequence[int], wanted: Sequence[int], told: Mapping[str, Impute]
) -> dict[str, dict[str, np.ndarray]]:
    """Return what a Cox regression reads in each arm, {arm: {part: (n, F)}}, from x {part: (n, G)} in SDs.

    The panel's genes alone; with the wanted genes, the anchors, as each of ``told`` restores them from the panel's
    alone; and with the anchors as measured, which nobody has who needs to restore them. Missing values are the mean.
    """
    parts = {part: np.full_like(values, np.nan) for part, values in x.items()}
    for part, values in parts.items():
        values[:, panel] = x[part][:, panel]
    own = {part: np.nan_to_num(values[:, panel]) for part, values in x.items()}
    arms = {"panel alone": own}
    for name, impute in told.items():
        arms[name] = {part: np.column_stack([own[part], impute(parts[part])[:, wanted]]) for part in x}
    measured = {part: np.column_stack([own[part], np.nan_to_num(x[part][:, wanted])]) for part in x}
    return arms | {"anchors measured": measured}


def in_sds(x: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return x {part: (n, F)} with mean 0 and SD 1 on the training part; a constant column becomes 0 there."""
    mean, spread = x["train"].mean(0), x["train"].std(0)
    return {part: (values - mean) / np.where(spread > 0, spread, 1.0) for part, values in x.items()}


def on_axes(x: Mapping[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
    """Return x {part: (n, F)} on the first ``count`` principal axes of the training part, in SDs of it."""
    axes = np.linalg.svd(x["train"] - x["train"].mean(0), full_matrices=False)[2][:count]
    return in_sds({part: values @ axes.T for part, values in x.items()})


# --- survival within groups -----------------------------------------------------------------------------------


class GroupedCox:
    """Cox regression with a ridge penalty and a level of its own for each group of patients.

    The penalty, of PENALTIES, is the one that ranks the validation part best within its groups.
    """

    def fit(self, x: dict[str, np.ndarray], outcomes: dict[str, Outcome], groups: dict[str, np.ndarray]):
        """Fit on x {part: (n, F)}, outcomes and groups (n,) of the parts "train" and "validation"; return itself."""
        self.levels = np.unique(groups["train"])[1:]
        models = [self._fitted(penalty, x["train"], outcomes["train"], groups["train"]) for penalty in PENALTIES]
        seen = (outcomes["validation"], groups["validation"])
        scores = [within_c(seen[0], self._risk(model, x["validation"], seen[1]), seen[1]) for model in models]
        self.model = models[int(np.argmax(np.nan_to_num(scores)))]
        return self

    def predict(self, x: np.ndarray, group: np.ndarray) -> np.ndarray:
        """Return log hazard ratios (n,) for x (n, F)."""
        return self._risk(self.model, x, group)

    def _fitted(self, penalty: float, x: np.ndarray, outcome: Outcome, group: np.ndarray) -> CoxPHSurvivalAnalysis:
        known = ~np.isnan(outcome[0] + outcome[1])
        penalties = np.r_[np.full(x.shape[1], penalty), np.full(len(self.levels), FREE)]
        y = Surv.from_arrays(outcome[1][known] == 1, outcome[0][known])
        return CoxPHSurvivalAnalysis(penalties).fit(self._with_levels(x, group)[known], y)

    def _risk(self, model: CoxPHSurvivalAnalysis, x: np.ndarray, group: np.ndarray) -> np.ndarray:
        return model.predict(self._with_levels(x, group))

    def _with_levels(self, x: np.ndarray, group: np.ndarray) -> np.ndarray:
        return np.column_stack([x, group[:, None] == self.levels]).astype(float)


def within_c(outcome: Outcome, risk: np.ndarray, group: np.ndarray) -> float:
    """Return Harrell's C over the comparable pairs of patients of one group (n,); NaN where there is none."""
    return float(within_c_draws(outcome, risk, group, np.ones((1, len(risk))))[0])


def within_c_draws(outcome: Outcome, risk: np.ndarray, group: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return ``within_c`` of samples of the patients, (R,), ``counts`` (R, n) saying how often each was drawn.

    The share, over all groups together, of comparable pairs in which the earlier event has the higher risk; ties count
    half. Patients without an outcome are in no pair.
    """
    right, all_pairs = np.zeros(len(counts)), np.zeros(len(counts))
    for name in np.unique(group):
        mine = np.flatnonzero(group == name)
        time, event, score = outcome[0][mine], outcome[1][mine] == 1, risk[mine]
        pairs = event[:, None] & ((time[:, None] < time) | ((time[:, None] == time) & ~event)) & ~np.isnan(time)
        order = (score[:, None] > score) + 0.5 * (score[:, None] == score)
        drawn = counts[:, mine]
        right += ((drawn @ (pairs * order)) * drawn).sum(1)
        all_pairs += ((drawn @ pairs.astype(float)) * drawn).sum(1)
    return np.divide(right, all_pairs, out=np.full(len(counts), np.nan), where=all_pairs > 0)
