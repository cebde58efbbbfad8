"""Enrichment against a stated background, with oracles of scipy and a slow twin of the running sum."""

import logging
from fractions import Fraction
from math import comb

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from txtlib.interpret.enrichment import over_representation, prerank

GENES = [f"GENE{number:03d}" for number in range(120)]
SETS = {"first": GENES[:20], "spread": GENES[::6], "last": [*GENES[100:], "ELSEWHERE"], "tiny": GENES[:3]}


def test_over_representation_is_the_hypergeometric_tail():
    called = GENES[:15] + GENES[60:65]
    table = over_representation(called, SETS, GENES).set_index("set")
    assert table.index[0] == "first" and set(table.index) == {"first", "spread", "last"}
    for name, row in table.iterrows():
        members = set(SETS[name]) & set(GENES)
        x = len(members & set(called))
        assert (row["overlap"], row["size"]) == (x, 20) and row["expected"] == pytest.approx(20 * 20 / 120)
        assert row["p"] == pytest.approx(stats.hypergeom.sf(x - 1, 120, 20, 20))
        cells = np.array([[x, 20 - x], [20 - x, 120 - 40 + x]])
        assert row["p"] == pytest.approx(stats.fisher_exact(cells, "greater").pvalue)
        odds = (cells[0, 0] + 0.5) * (cells[1, 1] + 0.5) / ((cells[0, 1] + 0.5) * (cells[1, 0] + 0.5))
        assert row["odds_ratio"] == pytest.approx(odds)
        assert row["genes"] == ", ".join(sorted(members & set(called)))


@settings(max_examples=15, deadline=None)
@given(st.sets(st.sampled_from(GENES), min_size=1), st.sets(st.sampled_from(GENES), min_size=5))
def test_p_counts_the_ways_to_draw(called, members):
    row = over_representation(called, {"any": members}, GENES).iloc[0]
    n, size, x = len(called), len(members), len(called & members)
    ways = sum(comb(size, k) * comb(120 - size, n - k) for k in range(x, min(n, size) + 1))
    assert row["p"] == pytest.approx(float(Fraction(ways, comb(120, n))))


def test_a_set_without_overlap_is_a_test_too():
    table = over_representation(GENES[:10], SETS, GENES).set_index("set")
    assert table.loc["last", ["overlap", "p", "genes"]].tolist() == [0, 1.0, ""]
    p = table["p"]
    assert table.loc["first", "fdr"] == pytest.approx(p["first"] * 3) and len(p) == 3
    none = over_representation(["GENE050"], {"a": GENES[:20], "b": GENES[20:40]}, GENES)
    assert (none["p"] == 1).all() and (none["fdr"] == 1).all() and list(none["set"]) == ["a", "b"]


def test_the_background_decides():
    """All genes come from two sets: against them alone nothing is enriched, against a genome both are."""
    chosen, sets = GENES[:40], {"a": GENES[:20], "b": GENES[20:40]}
    assert (over_representation(chosen, sets, chosen)["p"] == 1).all()
    assert (over_representation(chosen, sets, GENES)["p"] < 1e-6).all()


def test_no_gene_and_no_table_is_no_error():
    table = over_representation([], SETS, GENES)
    full = over_representation(GENES[:10], SETS, GENES)
    assert table.empty and list(table.columns) == list(full.columns)


@pytest.mark.parametrize("renamed", ["{}", "gene {}", " {} "])
def test_names_are_only_names(renamed):
    """gseapy takes numbers for Entrez ids, strips spaces and puts names in capitals: here nothing changes."""
    names = {gene: renamed.format(number) for number, gene in enumerate(GENES)}
    sets = {key: [names.get(gene, gene) for gene in genes] for key, genes in SETS.items()}
    found = over_representation([names[gene] for gene in GENES[:12]], sets, list(names.values()))
    expected = over_representation(GENES[:12], SETS, GENES)
    pd.testing.assert_frame_equal(found.drop(columns="genes"), expected.drop(columns="genes"))
    scores = pd.Series(np.random.default_rng(0).normal(size=120), GENES)
    one, other = prerank(scores, SETS), prerank(scores.rename(names), sets)
    np.testing.assert_allclose(one["es"], other["es"])


def test_capital_and_small_letters_are_different_genes():
    table = over_representation(["a", "B", "c", "d", "e"], {"small": list("abcde"), "big": list("ABCDE")}, "abcdeABCDE")
    assert table.set_index("set")["overlap"].to_dict() == {"small": 4, "big": 1}


def test_what_cannot_be_tested():
    with pytest.raises(ValueError, match="'ELSEWHERE' is not in the background of 120 genes"):
        over_representation(["ELSEWHERE"], SETS, GENES)
    with pytest.raises(ValueError, match="None of the 1 gene sets has 5 of the 120 genes or more"):
        over_representation(GENES[:5], {"other names": ["ENSG1", "ENSG2"] * 5}, GENES)
    with pytest.raises(ValueError, match="None of the 4 gene sets has 30"):
        prerank(pd.Series(range(120), GENES), SETS, min_size=30)
    assert "tiny" in set(over_representation(GENES[:5], SETS, GENES, min_size=3)["set"])


def test_nothing_is_written_logged_or_drawn_from_the_global_generator(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    before = np.random.get_state()[1].copy()
    over_representation(["GENE050"], SETS, GENES)
    over_representation(["GENE050"], {"a": GENES[:20]}, GENES)
    prerank(pd.Series(np.resize([1.0, 2.0], 120), GENES), SETS)  # many ties
    assert capfd.readouterr() == ("", "") and not list(tmp_path.iterdir())
    assert logging.root.manager.disable == 0
    np.testing.assert_array_equal(np.random.get_state()[1], before)


# --- a whole ranking ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scores():
    values = np.random.default_rng(1).normal(size=120)
    values[:20] += 1.5
    values[100:] -= 1.5
    return pd.Series(values, GENES)


def running_sum(scores, members):
    """The enrichment score, as Subramanian et al. describe it, and the genes up to its peak."""
    order = scores.sort_values(ascending=False)
    hits = sum(abs(value) for gene, value in order.items() if gene in members)
    total, best, place = 0.0, 0.0, 0
    for number, (gene, value) in enumerate(order.items()):
        total += abs(value) / hits if gene in members else -1 / (len(order) - len(members))
        if abs(total) > abs(best):
            best, place = total, number
    leading = order.index[: place + 1] if best > 0 else order.index[place:]
    return best, {gene for gene in leading if gene in members}


def test_prerank_scores_are_the_running_sum(scores):
    table = prerank(scores, SETS, seed=1).set_index("set")
    assert set(table.index) == {"first", "spread", "last"} and (table["size"] == 20).all()
    for name, row in table.iterrows():
        es, leading = running_sum(scores, set(SETS[name]) & set(GENES))
        assert row["es"] == pytest.approx(es) and set(row["leading"].split(", ")) == leading


def test_prerank_finds_what_was_planted(scores):
    table = prerank(scores, SETS).set_index("set")
    assert table.loc["first", "es"] > 0.4 and table.loc["last", "es"] < -0.4
    assert (table.loc[["first", "last"], "fdr"] < 0.01).all() and table.loc["spread", "fdr"] > 0.05
    turned = prerank(-scores, SETS).set_index("set")
    np.testing.assert_allclose(turned.loc[table.index, "es"], -table["es"], atol=1e-12)
    assert table["p"].min() == pytest.approx(1 / 1001)
    assert prerank(scores, SETS, permutations=99)["p"].min() == pytest.approx(1 / 100)


def test_the_p_of_prerank_is_that_of_random_sets(scores):
    rng, es = np.random.default_rng(0), running_sum(scores, set(SETS["spread"]))[0]
    null = np.array([running_sum(scores, set(rng.choice(GENES, 20, replace=False)))[0] for _ in range(400)])
    share = (null[np.sign(null) == np.sign(es)] / es >= 1).mean()
    found = prerank(scores, SETS).set_index("set").loc["spread", "p"]
    assert found == pytest.approx(share, abs=0.1)


def test_prerank_repeats_itself_whatever_the_order_of_the_genes(scores):
    tied = scores.round(0)
    first = prerank(tied, SETS, seed=4)
    pd.testing.assert_frame_equal(prerank(tied.sample(frac=1, random_state=0), SETS, seed=4), first)
    assert not np.array_equal(prerank(tied, SETS, seed=5)["p"], first["p"])
    assert not np.array_equal(prerank(tied, SETS, seed=5)["es"], first["es"])  # ties are drawn anew
    assert not first.empty and first["p"].is_monotonic_increasing


def test_p_of_a_random_ranking_is_even():
    rng = np.random.default_rng(2)
    sets = {f"set {number}": rng.choice(GENES, 15, replace=False) for number in range(60)}
    p = pd.concat([prerank(pd.Series(rng.normal(size=120), GENES), sets, permutations=200)["p"] for _ in range(4)])
    assert p.mean() == pytest.approx(0.5, abs=0.1) and (p < 0.05).mean() < 0.12


@pytest.mark.parametrize("value, sentence", [(np.nan, "'GENE007' has no finite score"), (np.inf, "'GENE007'")])
def test_scores_must_rank(value, sentence, scores):
    with pytest.raises(ValueError, match=sentence):
        prerank(scores.where(scores.index != "GENE007", value), SETS)
    with pytest.raises(ValueError, match="all 120 scores are equal"):
        prerank(scores * 0, SETS)
    with pytest.raises(ValueError, match="'GENE000' has two scores"):
        prerank(pd.concat([scores, scores[:1]]), SETS)
