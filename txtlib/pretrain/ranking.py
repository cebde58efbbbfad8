"""The genes of a sample in the order of a score: the sentences that a model of ranked genes reads.

TF-IDF takes a sample for a document and a gene for a word. The term's frequency is the gene's share of the sample's
expression, which the sample's sum does not reorder; so a gene's score is its value times a weight that is fitted on the
training part. The text of TifBERT (Hosseini and Sharma 2026) asks for document counts, its code is reported to divide
by the gene's norm, and bulk data, where most genes are found in all samples, call for a weight that does not vanish.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd

from txtlib.cohort import Cohort, CohortError
from txtlib.preprocess import variable_genes

# --- weights --------------------------------------------------------------------------------------------------


def document_weights(values: np.ndarray) -> np.ndarray:
    """Return log(N / d) for values (N, G), d the samples with a value above 0: 0 for a gene that all of them have."""
    return np.log(len(values) / np.maximum((values > 0).sum(0), 1))


def entropy_weights(values: np.ndarray) -> np.ndarray:
    """Return log N - H for values (N, G), H the entropy of a gene's shares over the samples.

    From 0 for a gene that all samples have alike to log N for a gene that only one has; 0 for one that none has.
    A weight of term by document matrices since Dumais 1991 (10.3758/BF03203370), there divided by log N.
    """
    total = values.sum(0)
    share = values / np.where(total > 0, total, 1)
    logs = np.log(share, out=np.zeros_like(share), where=share > 0)
    weight = np.log(len(values)) + (share * logs).sum(0)
    return np.where(total > 0, np.maximum(weight, 0), 0.0)


def norm_weights(values: np.ndarray) -> np.ndarray:
    """Return 1 / |gene| for values (N, G), the length over the samples: what the released code is reported to do."""
    length = np.linalg.norm(values, axis=0)
    return np.divide(1.0, length, out=np.zeros_like(length), where=length > 0)


def no_weights(values: np.ndarray) -> np.ndarray:
    """Return 1 for each gene of (N, G): the order of expression itself."""
    return np.ones(values.shape[1])


WEIGHTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "entropy": entropy_weights,
    "counts": document_weights,
    "norm": norm_weights,
    "plain": no_weights,
    "random": no_weights,
}
ORDERS = tuple(WEIGHTS)
FROM_ZERO = ("entropy", "counts")  # shares and counts of values below 0 mean nothing


# --- sentences ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ranking:
    """How the genes (G,) of a sample are ordered: by value times weight (G,), both in the unit of the training part.

    ``levels`` (G,) are where a gene lies among the others in the median training sample, from 0 to 1: a missing value
    is taken for the sample's own value at that level, which needs no unit. order "random" ranks by chance, drawn from
    ``seed`` and the sample's name.
    """

    genes: tuple[str, ...]
    order: str
    weights: np.ndarray
    levels: np.ndarray
    seed: int = 0

    def scores(self, cohort: Cohort) -> np.ndarray:
        """Return the scores (n, G) by which genes are ordered; CohortError if a sample has none of the genes."""
        if self.order == "random":
            return np.stack([_chance(self.seed, sample, len(self.genes)) for sample in cohort.samples])
        return self.filled(cohort) * self.weights

    def sentences(self, cohort: Cohort) -> np.ndarray:
        """Return gene codes 0 .. G - 1 in falling order of score, (n, G) int64; ties in the order of the genes."""
        return np.argsort(-self.scores(cohort), axis=1, kind="stable")

    def filled(self, cohort: Cohort) -> np.ndarray:
        """Return the values (n, G), missing genes and values filled; CohortError if a sample has none of the genes."""
        found = cohort.expression.reindex(columns=list(self.genes)).to_numpy(float)
        values = np.ascontiguousarray(found)  # the last bit of a sum depends on the memory order
        missing = np.isnan(values)
        empty = cohort.samples[missing.all(1)]
        if len(empty):
            raise CohortError(
                f"{cohort.name}: sample {str(empty[0])!r} has none of the {len(self.genes)} genes of this model "
                f"(first: {self.genes[0]}); bring its gene names to those of the training cohort, or leave it out."
            )
        for row in np.flatnonzero(missing.any(1)):
            values[row, missing[row]] = np.nanquantile(values[row], self.levels[missing[row]])
        return values

    def reweighted(self, train: Cohort) -> "Ranking":
        """Return the same genes and order with weights of the training part in another unit."""
        return replace(self, weights=_weights(train, self.filled(train), self.order))

    def state(self) -> tuple[dict[str, np.ndarray], dict]:
        """Return (arrays, plain values), enough to build the same Ranking again without pickle."""
        fields = asdict(self)
        return {key: fields.pop(key) for key in ("weights", "levels")}, fields

    @classmethod
    def from_state(cls, arrays: dict[str, np.ndarray], fields: dict) -> "Ranking":
        """Build a Ranking from what ``state`` returned, also after a trip through JSON."""
        return cls(**{**fields, **arrays, "genes": tuple(fields["genes"])})


def fit_ranking(train: Cohort, genes: Sequence[str], order: str = "entropy", seed: int = 0) -> Ranking:
    """Fit weights and levels of these genes on the training part; see ``WEIGHTS`` for the orders.

    ValueError for an unknown order, CohortError for values below 0 where shares or counts of them are needed.
    """
    if order not in ORDERS:
        raise ValueError(f"order is one of {', '.join(ORDERS)}, not {order!r}.")
    ranks = train.expression.reindex(columns=list(genes)).rank(axis=1)
    shares = (ranks.sub(1)).div((ranks.count(axis=1) - 1).clip(lower=1), axis=0)
    first = Ranking(tuple(genes), order, np.ones(len(genes)), shares.median().fillna(0).to_numpy(), seed)
    return first.reweighted(train)


def complete_genes(train: Cohort, n_genes: int, gene_list=None) -> list[str]:
    """Return the names of the n most variable genes among those without a missing value in the training part.

    Where a gene is missing for some patients only, its absence could tell them apart.
    """
    return variable_genes(train.expression.dropna(axis=1), n_genes, gene_list)


def likeness(sentences: np.ndarray) -> float:
    """Return the mean Spearman correlation of the gene orders of two samples, over all pairs of sentences (n, G).

    1: all samples read the same; 0: as in orders by chance. ValueError for fewer than two.
    """
    n, length = sentences.shape
    if min(n, length) < 2:
        raise ValueError(f"{n} sentence(s) of {length} gene(s) cannot be compared; give two or more of each.")
    places = np.argsort(sentences, axis=1) - (length - 1) / 2
    within = n * np.square(np.arange(length) - (length - 1) / 2).sum()
    return float((np.square(places.sum(0)).sum() - within) / (within * (n - 1)))


def kept(first: np.ndarray, second: np.ndarray) -> float:
    """Return the mean Spearman correlation of two orders of the same sample, over samples, for sentences (n, G) each.

    1: each sample reads the same in both units. ValueError for other shapes, or a single gene.
    """
    if first.shape != second.shape or first.shape[1] < 2:
        raise ValueError(f"Sentences of shapes {first.shape} and {second.shape} are not of the same samples and genes.")
    length = first.shape[1]
    moved = np.square(np.argsort(first, axis=1) - np.argsort(second, axis=1)).sum(1)
    return float(np.mean(1 - 6 * moved / (length * (length**2 - 1))))


def _weights(train: Cohort, values: np.ndarray, order: str) -> np.ndarray:
    if order in FROM_ZERO and values.min() < 0:
        raise CohortError(
            f"{train.name}: the order {order!r} weighs genes by shares of their expression, and the lowest value "
            f"here is {values.min():.3g}; give values of 0 or more (no z-scores), or take order 'plain'."
        )
    return WEIGHTS[order](values)


def _chance(seed: int, sample, n_genes: int) -> np.ndarray:
    return np.random.default_rng([seed, zlib.crc32(str(sample).encode())]).random(n_genes)


def weight_table(train: Cohort, genes: Sequence[str]) -> pd.DataFrame:
    """Return each order's weights of these genes on the training part, (G, orders); NaN where it has none."""
    values = fit_ranking(train, genes, "plain").filled(train)
    fits = {order: order not in FROM_ZERO or values.min() >= 0 for order in ORDERS if order != "random"}
    empty = np.full(len(genes), np.nan)
    return pd.DataFrame({o: WEIGHTS[o](values) if fit else empty for o, fit in fits.items()}, list(genes))
