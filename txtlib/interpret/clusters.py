"""Two clusters of patients, tested for survival on those who had no part in making or naming them.

The article cuts the LumA patients of its test part in two by k-means on encoder outputs, and a log-rank test on the
same patients tells the clusters apart (bbaf628, Fig. 5A). Which cluster is the worse one was then read off the
outcomes that are tested, and a network's vectors of its own training patients carry the outcomes it was trained on.
Here a clustering is made from the training patients of a fold, its clusters are named by their outcomes, and the test
patients are put into them unseen. Over folds each patient is tested once. A log-rank test of all of them together is
no chi-squared test, since each patient also helped to name the clusters of the other folds, so its p-value comes from
permuting the outcomes (Simon et al. 2011, 10.1093/bib/bbr001).
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
from lifelines import CoxPHFitter, KaplanMeierFitter
from lifelines.exceptions import ConvergenceError, ConvergenceWarning
from scipy import stats
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from txtlib.interpret.maps import checked_vectors, finite_vectors
from txtlib.metrics import Outcome

UNKNOWN, BETTER, WORSE = -1, 0, 1
NAMES = {BETTER: "better", WORSE: "worse"}
Rule = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


class Part(NamedTuple):
    """The rows (positions among n patients) that a clustering is made from, and those that it is tested on."""

    train: np.ndarray
    test: np.ndarray


def fold_parts(folds: Sequence) -> list[Part]:
    """Return a part per fold, in order, from the fold (n,) that tests each patient; ValueError for fewer than two."""
    folds = np.asarray(folds)
    if folds.ndim != 1 or pd.isna(folds).any() or len(np.unique(folds)) < 2:
        raise ValueError("Folds are one label per patient, none missing, and two different ones or more.")
    return [Part(np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)) for fold in np.unique(folds)]


# --- rules: from training and test vectors to two clusters -------------------------------------------------------


def two_means(train: np.ndarray, test: np.ndarray, seed: int = 0, count: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Cluster training vectors (m, p) by k-means, k = 2, and put test vectors (t, p) to the nearer mean: (m,), (t,).

    Values are standardised and cut to the first ``count`` principal components, both fitted on the training vectors.
    """
    count = min(count, len(train) - 1, train.shape[1])
    means = KMeans(2, n_init=20, random_state=seed)
    fitted = make_pipeline(StandardScaler(), PCA(count, random_state=seed), means).fit(train.astype(float))
    return fitted[-1].labels_, fitted.predict(test.astype(float))


def median_split(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut one variable, (m, 1) and (t, 1), above its median over the training patients: the comparator (say, age)."""
    if train.shape[1] != 1:
        raise ValueError(f"A median cuts one variable, not {train.shape[1]}; give a single column.")
    middle = np.median(train)
    return tuple((side[:, 0] > middle).astype(int) for side in (train, test))


# --- cross-fitted clusters ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Clusters:
    """Clusters of n patients from F fits: ``labels`` (F, n) are 1 worse, 0 better, -1 where a fit saw no vector.

    "worse" is the cluster with more events than expected among the fit's own training patients (log-rank).
    """

    outcome: Outcome
    parts: tuple[Part, ...]
    labels: np.ndarray

    def tested(self) -> np.ndarray:
        """Return each patient's label (n,) by the fit that tests it; ValueError unless that is exactly one."""
        times = np.bincount(np.concatenate([part.test for part in self.parts]), minlength=self.labels.shape[1])
        odd = np.flatnonzero(times != 1)
        if len(odd):
            raise ValueError(
                f"Patient {odd[0]} is in {times[odd[0]]} test parts, but a test over all patients needs each in one: "
                "give folds, or look at the splits one by one (split_tests)."
            )
        labels = np.empty(len(times), int)
        for own, part in zip(self.labels, self.parts, strict=True):
            labels[part.test] = own[part.test]
        return labels


def cross_fit(
    vectors: Callable[[int], tuple[np.ndarray, np.ndarray]] | Sequence[np.ndarray],
    outcome: Outcome,
    parts: Sequence[Part],
    rule: Rule = two_means,
) -> Clusters:
    """Make two clusters from each part's training patients and put its test patients into them.

    vectors: a function of the number of the part that returns vectors of its training and of its test patients, in
    the order of the part's rows (each fold has a network of its own), or a table (n, any) per part. outcome: time (n,)
    and event (n,), 0 or 1, of the patients of one class. A rule returns labels 0 and 1 of both and sees no outcome;
    the names better and worse come from training outcomes alone. Raises ValueError for a missing or impossible
    outcome, parts whose rows are out of range or shared between training and test, training without an event, and
    vectors that do not fit the parts or do not differ.
    """
    outcome = _checked_outcome(outcome)
    parts = tuple(_checked_part(part, number, outcome) for number, part in enumerate(parts))
    shared = [number for number, part in enumerate(parts) if np.isin(part.test, part.train).any()]
    if shared or not parts:
        where = f"part {shared[0]} has a patient in both" if shared else "there is no part"
        raise ValueError(f"A cross-fitted clustering needs test patients that it was not made from: {where}.")
    return _fitted(vectors, outcome, parts, rule)


def naive_fit(vectors: np.ndarray, outcome: Outcome, rule: Rule = two_means) -> Clusters:
    """Make clusters from patients (n, p), name them by their outcomes, test them on the very same: not to be trusted.

    Here to show what cross-fitting changes. Its permutation test knows of the naming, so it is fair where vectors owe
    nothing to these outcomes; those of patients that a network was trained on do. Errors are those of ``cross_fit``.
    """
    outcome = _checked_outcome(outcome)
    everybody = np.arange(len(outcome[0]))
    part = _checked_part(Part(everybody, everybody), 0, outcome)
    return _fitted([vectors], outcome, (part,), rule)


def _fitted(vectors, outcome: Outcome, parts: tuple[Part, ...], rule: Rule) -> Clusters:
    if not callable(vectors) and len(vectors) != len(parts):
        raise ValueError(f"There are {len(vectors)} tables of vectors for {len(parts)} parts: give one for each.")
    labels = np.stack([_labelled(vectors, outcome, part, number, rule) for number, part in enumerate(parts)])
    return Clusters(outcome, parts, labels)


def _labelled(vectors, outcome: Outcome, part: Part, number: int, rule: Rule) -> np.ndarray:
    """Return the labels (n,) of one fit, named by its training outcomes."""
    sides = _vectors(vectors, outcome, part, number)
    found = [np.asarray(labels) for labels in rule(*sides)]
    for labels, rows in zip(found, part, strict=True):
        if labels.shape != rows.shape or not np.isin(labels, (BETTER, WORSE)).all():
            raise ValueError(f"Part {number}: a rule returns a label 0 or 1 for each of {len(rows)} patients.")
    labels = np.full(len(outcome[0]), UNKNOWN)
    for own, rows in zip(found, part, strict=True):
        labels[rows] = own
    surplus, _ = log_rank(*_rows(outcome, part.train), found[0] == WORSE)
    return labels if surplus >= 0 else np.where(labels == UNKNOWN, UNKNOWN, 1 - labels)


def _vectors(vectors, outcome: Outcome, part: Part, number: int) -> list[np.ndarray]:
    if callable(vectors):
        sides = list(map(np.asarray, vectors(number)))
    else:
        table = np.asarray(vectors[number])
        if len(table) != len(outcome[0]):
            raise ValueError(f"Part {number} has {len(table)} rows of vectors for {len(outcome[0])} outcomes.")
        sides = [table[rows] for rows in part]
    checked_vectors(sides[0], f"training vectors of part {number}")
    finite_vectors(sides[1], f"test vectors of part {number}")
    width = sides[0].shape[1]
    if [side.shape for side in sides] != [(len(rows), width) for rows in part]:
        raise ValueError(
            f"Part {number} has {len(part.train)} training and {len(part.test)} test patients, but vectors of the "
            f"shapes {sides[0].shape} and {sides[1].shape}: give one per patient, in the order of the rows."
        )
    return sides


# --- tests --------------------------------------------------------------------------------------------------------

COUNTED = ["n", "events", "n_worse", "events_worse"]
TESTED = [*COUNTED, "hazard_ratio", "low", "high", "z", "log_rank_p"]
PERMUTED = ["permutation_p", "null_mean", "null_sd", "permutations"]


def split_tests(found: Clusters, level: float = 0.95) -> pd.DataFrame:
    """Test the two clusters on each part's own test patients: a row per part.

    Columns: part, n and events (test patients), n_worse and events_worse (of them, in the worse cluster),
    hazard_ratio of worse to better with its interval low, high (Cox regression, Wald, by lifelines), z (log-rank,
    above 0 if the worse cluster of the training patients is the worse one here), log_rank_p (two-sided, chi-squared:
    that survival of the n test patients does not differ between the clusters). NaN where a cluster has no test
    patient, or for the ratio no event. Parts share training patients: these p-values are not independent.
    """
    rows = [
        [number, *_tested(_rows(found.outcome, part.test), labels[part.test] == WORSE, level)]
        for number, (labels, part) in enumerate(zip(found.labels, found.parts, strict=True))
    ]
    return pd.DataFrame(rows, columns=["part", *TESTED])


def pooled_tests(
    found: Mapping[str, Clusters], permutations: int = 1000, seed: int = 0, level: float = 0.95
) -> pd.DataFrame:
    """Test clusterings on all patients at once, each by the fit that did not see it: a row per clustering.

    Columns: clusters (the name), those of ``split_tests`` over all n patients, and permutation_p, the share of
    permutations, and the observed outcomes with them, whose z is as high or higher. Permuted are the outcomes (time
    and event together) over all n patients; clusters are then named anew by training outcomes and patients tested,
    as before; no k-means needs a rerun, since none sees an outcome. One-sided: worse in training means worse in test.
    Networks are not trained again, so it is a test of these vectors; one number per training seed is what can be
    compared between ways to train. null_mean and null_sd of z over permutations would be 0 and 1 for independent
    patients: they are why log_rank_p, and the interval of the ratio, are for comparison with the literature only. NaN
    as in ``split_tests``; the permutations say nothing where z is NaN. Raises ValueError if a patient is not in exactly
    one test part, and for fewer than one permutation.
    """
    if permutations < 1:
        raise ValueError(f"permutations is {permutations}; a permutation test needs one or more.")
    rows = [[name, *_pooled(one, permutations, seed, level)] for name, one in found.items()]
    return pd.DataFrame(rows, columns=["clusters", *TESTED, *PERMUTED])


def _pooled(found: Clusters, permutations: int, seed: int, level: float) -> list[float]:
    row = _tested(found.outcome, found.tested() == WORSE, level)
    z = row[TESTED.index("z")]
    if np.isnan(z):
        return [*row, np.nan, np.nan, np.nan, permutations]
    null = permuted_z(found, permutations, seed)
    return [*row, (1 + (null >= z - 1e-9).sum()) / (1 + permutations), null.mean(), null.std(), permutations]


def permuted_z(found: Clusters, permutations: int, seed: int) -> np.ndarray:
    """Return the pooled z (permutations,) of outcomes permuted over all patients, clusters named anew each time.

    0 where all patients happen to be named alike.
    """
    order = np.argsort(found.outcome[0], kind="stable")
    ordered = _rows(found.outcome, order)
    generator = np.random.default_rng(seed)
    holder = generator.permuted(np.tile(np.arange(len(order)), (permutations, 1)), axis=1)  # of each outcome in order
    worse = np.empty(holder.shape, bool)
    for labels, part in zip(found.labels, found.parts, strict=True):
        member = np.isin(np.arange(len(order)), part.train)[holder]
        surplus, _ = log_rank(*ordered, (labels == WORSE)[holder], member)
        worse[:, part.test] = (labels[part.test] == WORSE) ^ (surplus < 0)[:, None]
    return np.nan_to_num(_z(*log_rank(*ordered, np.take_along_axis(worse, holder, 1))))


def log_rank(time: np.ndarray, event: np.ndarray, group: np.ndarray, member=True) -> tuple[np.ndarray, np.ndarray]:
    """Return events in a group less those expected, and the variance of that, (...,), for groups (..., n) at once.

    The log-rank test (Mantel 1966): z is their ratio to the root. time (n,) and event (n,) are shared by all groups;
    ``member`` (..., n) says who takes part.
    """
    order = np.argsort(time, kind="stable")
    dying = np.flatnonzero(event[order] == 1)
    member = np.broadcast_to(member, group.shape)[..., order]
    group = group[..., order] & member
    moments, first = np.unique(time[order][dying], return_index=True)
    start = np.searchsorted(time[order], moments)
    everybody, own = (_followed(side)[..., start] for side in (member, group))
    deaths, own_deaths = (np.add.reduceat(side[..., dying].astype(int), first, axis=-1) for side in (member, group))
    share = own / np.maximum(everybody, 1)
    spread = deaths * share * (1 - share) * (everybody - deaths) / np.maximum(everybody - 1, 1)
    return (own_deaths - deaths * share).sum(-1), spread.sum(-1)


def _followed(side: np.ndarray) -> np.ndarray:
    """Count those who are followed up to each place of the order, or longer."""
    return np.cumsum(side[..., ::-1], axis=-1, dtype=np.int32)[..., ::-1]


def _z(surplus: np.ndarray, variance: np.ndarray) -> np.ndarray:
    root = np.sqrt(variance)
    return np.divide(surplus, root, out=np.full_like(root, np.nan), where=root > 0)


def _tested(outcome: Outcome, worse: np.ndarray, level: float) -> list[float]:
    """Return what TESTED names."""
    event = outcome[1] == 1
    counts = [len(worse), int(event.sum()), int(worse.sum()), int((event & worse).sum())]
    z = float(_z(*log_rank(*outcome, worse)))
    return [*counts, *hazard_ratio(outcome, worse, level), z, float(stats.chi2.sf(z * z, 1))]


def hazard_ratio(outcome: Outcome, worse: np.ndarray, level: float = 0.95) -> tuple[float, float, float]:
    """Return the hazard ratio of the worse (n,) to the others with its Wald interval, by Cox regression (Efron ties).

    NaN where the likelihood has no maximum: a cluster has no event while somebody of the other is followed.
    """
    if not (_events_beside(outcome, worse) and _events_beside(outcome, ~worse)):
        return np.nan, np.nan, np.nan
    table = pd.DataFrame({"time": outcome[0], "event": outcome[1], "worse": worse.astype(float)})
    with warnings.catch_warnings():  # few events in a cluster are no failure to converge, which would be an error
        warnings.filterwarnings("ignore", "Column worse", ConvergenceWarning)
        model = CoxPHFitter(alpha=1 - level).fit(table, "time", "event")
    low, high = np.exp(model.confidence_intervals_.loc["worse"])
    return float(model.hazard_ratios_["worse"]), float(low), float(high)


def adjusted_hazard_ratio(
    outcome: Outcome, worse: np.ndarray, covariates: pd.DataFrame, level: float = 0.95
) -> dict[str, float]:
    """Return ``hazard_ratio`` with other numbers per patient, say age, held equal: ratio, low, high, n, events.

    worse (n,) and covariates (n, m) are in the order of the outcome; patients with a missing covariate are left out, so
    n and events are those of the rest. Covariates enter as they are, linearly in the log hazard (Cox, Efron ties); one
    that does not vary is left out. NaN where ``hazard_ratio`` is, and where events are too few for the covariates.
    Raises ValueError for another number of rows.
    """
    outcome, worse = _checked_outcome(outcome), np.asarray(worse, bool)
    if len(covariates) != len(outcome[0]):
        raise ValueError(
            f"There are {len(covariates)} rows of covariates for {len(outcome[0])} outcomes: give one each."
        )
    whole = covariates.notna().all(axis=1).to_numpy()
    outcome, worse = _rows(outcome, whole), worse[whole]
    ratios = (np.nan,) * 3
    if _events_beside(outcome, worse) and _events_beside(outcome, ~worse):
        ratios = _adjusted(outcome, worse, covariates[whole].astype(float), level)
    return dict(zip(("ratio", "low", "high"), ratios, strict=True)) | {"n": len(worse), "events": int(outcome[1].sum())}


def _adjusted(outcome: Outcome, worse: np.ndarray, covariates: pd.DataFrame, level: float) -> tuple[float, ...]:
    covariates = covariates.loc[:, covariates.nunique() > 1]
    scaled = ((covariates - covariates.mean()) / covariates.std()).add_prefix("covariate ").reset_index(drop=True)
    table = scaled.assign(time=outcome[0], event=outcome[1], worse=worse.astype(float))
    with warnings.catch_warnings():  # as in hazard_ratio
        warnings.simplefilter("ignore", ConvergenceWarning)
        try:
            model = CoxPHFitter(alpha=1 - level).fit(table, "time", "event")
        except ConvergenceError:
            return (np.nan,) * 3
    low, high = np.exp(model.confidence_intervals_.loc["worse"])
    return float(model.hazard_ratios_["worse"]), float(low), float(high)


def _events_beside(outcome: Outcome, group: np.ndarray) -> bool:
    """Say whether the group has an event while one of the others is followed."""
    return bool((group & (outcome[1] == 1) & (outcome[0] <= outcome[0][~group].max(initial=-np.inf))).any())


# --- curves, and how stable clusters are --------------------------------------------------------------------------


def survival_table(outcome: Outcome, worse: np.ndarray, times: Sequence[float]) -> pd.DataFrame:
    """Return Kaplan-Meier curves of the two clusters: columns cluster, time, at_risk, survival, low, high.

    A row per cluster (better, worse) and time, in the unit of the outcome; worse (n,) is 1 or True for the worse.
    at_risk counts those followed to that time or longer; low and high are 95 % (log-log, by lifelines). NaN after the
    longest follow-up of a cluster; a cluster without patients has no row. Raises ValueError for an outcome as
    ``cross_fit`` does, for other labels, and for a time below 0.
    """
    outcome, worse = _checked_outcome(outcome), np.asarray(worse)
    if worse.shape != outcome[0].shape or not np.isin(worse, (BETTER, WORSE)).all():
        raise ValueError(f"The clusters are one label, 0 or 1, for each of {len(outcome[0])} outcomes.")
    if np.min(times) < 0:
        raise ValueError(f"A survival curve starts at time 0, not at {np.min(times):g}.")
    groups = [(label, _rows(outcome, worse == label)) for label in NAMES if (worse == label).any()]
    return pd.concat([_curve(*own, times).assign(cluster=NAMES[label]) for label, own in groups], ignore_index=True)


def _curve(time: np.ndarray, event: np.ndarray, times: Sequence[float]) -> pd.DataFrame:
    times = np.asarray(times, float)
    fitted = KaplanMeierFitter().fit(time, event)
    steps = fitted.survival_function_.join(fitted.confidence_interval_)
    at = steps.iloc[np.searchsorted(steps.index, times, side="right") - 1].to_numpy()
    at = np.where((times <= time.max())[:, None], at, np.nan)
    at_risk = (time[:, None] >= times).sum(0)
    columns = {"cluster": "", "time": times, "at_risk": at_risk}
    return pd.DataFrame(columns | dict(zip(("survival", "low", "high"), at.T, strict=True)))


def stability(labels: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Return how far clusterings of the same patients agree, pair by pair: columns first, second, n, adjusted_rand.

    labels {name: (n,)}: the rows of ``Clusters.labels`` (folds), or ``Clusters.tested()`` of several training seeds;
    patients that one of a pair does not label (-1) are left out of it. The adjusted Rand index (Hubert and Arabie
    1985, scikit-learn) is 1 for the same clusters, whatever their names, and 0 on average by chance; NaN for n < 2.
    Raises ValueError for fewer than two clusterings, or of different lengths.
    """
    arrays = {name: np.asarray(one) for name, one in labels.items()}
    if len(arrays) < 2 or len({one.shape for one in arrays.values()}) > 1:
        raise ValueError("Agreement needs two clusterings or more, with a label for each of the same patients.")
    rows = [[*names, *_agreement(*(arrays[name] for name in names))] for names in combinations(arrays, 2)]
    return pd.DataFrame(rows, columns=["first", "second", "n", "adjusted_rand"])


def _agreement(first: np.ndarray, second: np.ndarray) -> tuple[int, float]:
    both = (first != UNKNOWN) & (second != UNKNOWN)
    n = int(both.sum())
    return n, adjusted_rand_score(first[both], second[both]) if n > 1 else np.nan


# --- what can be wrong ----------------------------------------------------------------------------------------------


def _rows(outcome: Outcome, rows: np.ndarray) -> Outcome:
    return outcome[0][rows], outcome[1][rows]


def _checked_outcome(outcome: Outcome) -> Outcome:
    time, event = (np.asarray(side, float) for side in outcome)
    if time.ndim != 1 or time.shape != event.shape:
        raise ValueError(f"An outcome is a time and an event per patient, not {time.shape} and {event.shape}.")
    bad = np.flatnonzero(~np.isfinite(time) | (time < 0) | ~np.isin(event, (0, 1)))
    if len(bad):
        raise ValueError(
            f"Patient {bad[0]} has time {time[bad[0]]} and event {event[bad[0]]}; leave out those without an outcome, "
            "times are 0 or more, events 0 or 1."
        )
    return time, event


def _checked_part(part: Part, number: int, outcome: Outcome) -> Part:
    train, test = (np.asarray(rows) for rows in part)
    n = len(outcome[0])
    for rows in (train, test):
        whole = rows.ndim == 1 and rows.dtype.kind in "iu"
        if not whole or len(np.unique(rows)) != len(rows) or not np.isin(rows, np.arange(n)).all():
            raise ValueError(f"Part {number}: rows are different whole numbers from 0 to {n - 1}, one per patient.")
    if len(train) < 2 or not len(test) or not outcome[1][train].any():
        raise ValueError(
            f"Part {number} has {len(train)} training patients with {outcome[1][train].sum():.0f} events and "
            f"{len(test)} test patients; clusters need two, an event to be named by, and one to be tested."
        )
    return Part(train, test)
