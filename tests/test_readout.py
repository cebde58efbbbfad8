import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from txtlib.pretrain.gexbert import GexBert, Restoring
from txtlib.pretrain.readout import asking_matrices, pair_auc, same_set

GENES = [f"g{gene}" for gene in range(8)]


@pytest.fixture
def model():
    network = Restoring(8, width=8, layers=1, heads=2, seed=0).eval()
    return GexBert(network, tuple(GENES), np.zeros(8), np.ones(8), pd.DataFrame())


def test_one_halving_is_the_decoders_attention(model):
    x = np.random.default_rng(0).normal(size=(3, 8))
    found = asking_matrices(model, x, halvings=1, seed=0)
    order = np.random.default_rng(0).permutation(8)
    shown, asked = order[:4], order[4:]
    codes, wanted = (torch.as_tensor(some).expand(3, -1) for some in (shown, asked))
    with torch.no_grad():
        memory = model.network.encode(codes, torch.from_numpy(x[:, shown].astype(np.float32)))
        weights = model.network.asking(wanted, memory).mean(1)
    np.testing.assert_allclose(found[:, shown][..., asked], 5 * weights[..., 1:].mT, rtol=1e-5)
    assert (found[:, shown][..., shown] == 0).all()


def test_many_halvings_reach_all_pairs_but_no_gene_itself(model):
    found = asking_matrices(model, np.zeros((2, 8)), halvings=20)
    assert ((found > 0) == ~np.eye(8, dtype=bool)).all()


def test_pairs_share_a_set():
    pairs = same_set(["a", "b", "c", "d"], {"one": ["a", "b"], "two": ["b", "d", "z"]})
    assert sorted(zip(*pairs.nonzero(), strict=True)) == [(0, 1), (1, 0), (1, 3), (3, 1)]


def test_auc_is_scikit_learns_and_p_tells_sets_from_chance():
    drawn, off = np.random.default_rng(0), ~np.eye(12, dtype=bool)
    pairs = same_set([str(gene) for gene in range(12)], {"s": list("0123")})
    weights = drawn.normal(size=(12, 12)).round(1) + 3 * pairs
    auc, p = pair_auc(weights, pairs)
    assert auc == pytest.approx(roc_auc_score(pairs[off], weights[off])) and p < 0.02
    assert pair_auc(drawn.normal(size=(12, 12)), pairs)[1] > 0.02
    assert np.isnan(pair_auc(weights, np.zeros_like(pairs))[0])
