"""Which gene sets hold more of some genes than chance would put there: two tests by gseapy, offline.

The background is the genes that the model could have chosen from. Against the whole genome every Hallmark set is
enriched by construction, for all genes of the article's model are Hallmark genes. Both tests permute genes, and
co-expressed genes do not come independently: a p here is a guide for reading, not an error rate over patients.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import pandas as pd

from txtlib.interpret.plain import fdr

SETS = Mapping[str, Iterable[str]]
OVERLAPS = ["set", "overlap", "size", "expected", "odds_ratio", "p", "fdr", "genes"]
SCORES = ["set", "size", "es", "nes", "p", "fdr", "leading"]


def over_representation(
    genes: Iterable[str], gene_sets: SETS, background: Iterable[str], min_size: int = 5
) -> pd.DataFrame:
    """Ask for each gene set whether some genes, drawn from a background, hold more of it than chance would.

    Sets are cut down to the background and left out below ``min_size`` genes. Returns a row per set, lowest p first:
    set, overlap, size, expected (overlap by chance), odds_ratio (1/2 added to each of the four counts), p, fdr
    (Benjamini-Hochberg over all sets, those without an overlap too) and genes (the overlap, by name). p is
    hypergeometric, one-sided: the chance of this overlap or a larger one if the genes were drawn from the background
    at random, n = genes of the background. Without genes the table is empty. Nothing is drawn, so there is no seed.
    Raises ValueError for a gene that is not in the background, and where no set is left.
    """
    background = sorted(set(background))
    genes, sets = set(genes), _members(gene_sets, background, min_size)
    outside = sorted(genes.difference(background))
    if outside:
        raise ValueError(f"Gene {outside[0]!r} is not in the background of {len(background)} genes; give all of them.")
    if not genes:
        return pd.DataFrame(columns=OVERLAPS)
    shared = {name: [gene for gene in members if gene in genes] for name, members in sets.items()}
    found = pd.DataFrame({"set": list(sets), "overlap": map(len, shared.values()), "size": map(len, sets.values())})
    found["expected"] = found["size"] * len(genes) / len(background)
    found["odds_ratio"] = _odds(found["overlap"], found["size"], len(genes), len(background))
    found["p"] = found["set"].map(_hypergeometric(genes, sets, background)).fillna(1.0)  # no overlap has no row there
    found = found.assign(fdr=fdr(found["p"]), genes=[", ".join(names) for names in shared.values()])
    return found.sort_values(["p", "set"], ignore_index=True)


def prerank(
    scores: pd.Series, gene_sets: SETS, seed: int = 0, min_size: int = 5, permutations: int = 1000
) -> pd.DataFrame:
    """Run a gene set enrichment analysis (GSEA, Subramanian et al. 2005, 10.1073/pnas.0506580102) on a ranking.

    ``scores`` holds a number per gene, of the genes that the model could have chosen from; the highest come first, and
    equal ones in an order that ``seed`` draws. A gene of a set counts by its score. Sets are as in
    ``over_representation``. Returns a row per set, lowest p first: set, size, es (enrichment score: above 0 where a
    set sits at the top), nes (divided by the mean of the permuted ones of its sign), p, fdr (Benjamini-Hochberg over
    sets, not GSEA's own) and leading (the genes that make the score). p compares es with those of the same sign among
    ``permutations`` random gene sets of the same size, n = genes ranked; one is added to the count and to the
    permutations, so p is never 0. Raises ValueError for scores that are missing, infinite or all equal, a gene that
    is there twice, and where no set is left.
    """
    _check_scores(scores)
    sets = _members(gene_sets, scores.index, min_size)
    order = scores.sort_index().sample(frac=1, random_state=np.random.default_rng(seed))
    order = order.sort_values(ascending=False, kind="stable").astype(float)
    coded = _codes(order.index)
    with _silence() as gseapy:
        found = gseapy.prerank(
            order.rename(index=coded).rename("score").rename_axis("gene"),
            _coded(sets, coded),
            min_size=1,
            max_size=len(order),
            permutation_num=permutations,
            ascending=None,  # it is sorted, with ties in an order of ours
            seed=seed,
            threads=1,
            no_plot=True,
        ).res2d
    return _ranked(found, sets, dict(zip(coded.values(), coded, strict=True)), permutations)


def _ranked(found: pd.DataFrame, sets: dict, names: dict[str, str], permutations: int) -> pd.DataFrame:
    """Return gseapy's table with our columns, sets and genes named as before."""
    found = found.set_index(found["Term"].astype(int)).sort_index()
    listed = list(sets)
    table = pd.DataFrame({"set": [listed[term] for term in found.index]})
    table["size"] = [len(sets[name]) for name in table["set"]]
    for ours, theirs in (("es", "ES"), ("nes", "NES"), ("p", "NOM p-val")):
        table[ours] = found[theirs].to_numpy(float)
    table["p"] = (table["p"] * permutations + 1) / (permutations + 1)
    table["fdr"] = fdr(table["p"])
    table["leading"] = [", ".join(names[code] for code in codes.split(";")) for codes in found["Lead_genes"]]
    return table.sort_values(["p", "set"], ignore_index=True)[SCORES]


def _hypergeometric(genes: set[str], sets: dict[str, list[str]], background: list[str]) -> dict[str, float]:
    """Return gseapy's p of each set that shares a gene."""
    if genes.isdisjoint(set().union(*sets.values())):  # gseapy would have no table to return
        return {}
    coded, listed = _codes(background), list(sets)
    with _silence() as gseapy:
        query = [coded[gene] for gene in sorted(genes)]
        found = gseapy.enrich(query, _coded(sets, coded), background=list(coded.values()), no_plot=True).results
    return {listed[int(term)]: p for term, p in zip(found["Term"], found["P-value"], strict=True)}


def _odds(overlap: pd.Series, size: pd.Series, genes: int, background: int) -> pd.Series:
    only_set, only_genes = size - overlap, genes - overlap
    neither = background - overlap - only_set - only_genes
    return (overlap + 0.5) * (neither + 0.5) / ((only_set + 0.5) * (only_genes + 0.5))


def _members(gene_sets: SETS, background: Iterable[str], min_size: int) -> dict[str, list[str]]:
    there = set(background)
    sets = {name: sorted(there.intersection(members)) for name, members in gene_sets.items()}
    kept = {name: members for name, members in sets.items() if len(members) >= min_size}
    if not kept:
        raise ValueError(
            f"None of the {len(sets)} gene sets has {min_size} of the {len(there)} genes or more; use sets with the "
            "same kind of gene names, or a lower min_size."
        )
    return kept


def _codes(genes: Iterable[str]) -> dict[str, str]:
    """Return a name for each gene that gseapy leaves as it is: some it would take for numbers or put in capitals."""
    return {gene: f"G{number}" for number, gene in enumerate(genes)}


def _coded(sets: dict[str, list[str]], coded: dict[str, str]) -> dict[str, list[str]]:
    return {str(number): [coded[gene] for gene in members] for number, members in enumerate(sets.values())}


def _check_scores(scores: pd.Series) -> None:
    if not scores.index.is_unique:
        raise ValueError(f"Gene {scores.index[scores.index.duplicated()][0]!r} has two scores; give each gene one.")
    bad = scores.index[~np.isfinite(scores.to_numpy(float))]
    if len(bad) or scores.nunique() < 2:
        what = f"gene {bad[0]!r} has no finite score" if len(bad) else f"all {len(scores)} scores are equal"
        raise ValueError(f"These scores make no ranking: {what}; leave such genes out, or rank by something else.")


@contextmanager
def _silence() -> Iterator:
    """Give gseapy with its log switched off: it warns of ties, which we have put in order."""
    import gseapy  # slow to import, and needed here only

    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield gseapy
    finally:
        logging.disable(before)
