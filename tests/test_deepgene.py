"""DeepGene-like: its gene orders and its layers. As a method it is tested beside others, in test_network_methods.py."""

import numpy as np
import pytest
import torch
from helpers import draw
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from txtlib.cohort import load_cohort, split
from txtlib.peers.deepgene import ORDERS, DeepGene, deepgene

SMALL = {"n_genes": 12, "n_times": 5, "grid": "quantile", "epochs": 1}


def body_of(order, **settings):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return DeepGene(np.asarray(order), **settings)


# --- the order of genes -----------------------------------------------------------------------------------------


@given(st.integers(1, 30), st.integers(0, 9), st.sampled_from(sorted(ORDERS)))
def test_an_order_names_each_gene_once(genes, seed, order):
    found = ORDERS[order](draw(6, genes, seed=seed), seed)
    assert sorted(found) == list(range(genes))


def test_the_three_orders():
    x = draw(8, 40)
    np.testing.assert_array_equal(ORDERS["given"](x, 3), range(40))
    np.testing.assert_array_equal(ORDERS["shuffled"](x, 3), ORDERS["shuffled"](draw(8, 40, seed=5), 3))
    assert not np.array_equal(ORDERS["shuffled"](x, 3), ORDERS["shuffled"](x, 4))
    np.testing.assert_array_equal(ORDERS["clustered"](x, 3), ORDERS["clustered"](x, 4))


def test_an_order_is_that_of_the_signal():
    order, x = np.random.default_rng(0).permutation(70), torch.from_numpy(draw(5, 70))
    ordered, plain = body_of(order).eval(), body_of(range(70)).eval()
    torch.testing.assert_close(ordered(x), plain(x[:, torch.from_numpy(order)]))
    assert not torch.allclose(ordered(x), plain(x))


@pytest.fixture(scope="module")
def parts():
    return split(load_cohort("gse7390"), seed=0)


@pytest.mark.parametrize("order", sorted(ORDERS))
def test_the_order_is_fitted_on_the_training_part_and_kept_with_the_network(parts, order):
    trained = deepgene(seed=5, order=order, **SMALL).fit(parts.train, parts.validation).trained
    expected = ORDERS[order](trained.preprocessor.expression(parts.train), 5)
    np.testing.assert_array_equal(trained.network.state_dict()["body.order"], expected)


def test_an_unknown_order_is_refused(parts):
    with pytest.raises(ValueError, match="order is one of given, clustered, shuffled, not 'alphabetical'"):
        deepgene(order="alphabetical", **SMALL).fit(parts.train, parts.validation)


# --- the network ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("genes, positions", [(1, 1), (16, 1), (17, 2), (30, 2), (200, 13), (1000, 63)])
def test_any_number_of_genes_will_do(genes, positions):
    body, x = body_of(range(genes)), torch.from_numpy(draw(2, genes))
    assert body.stem(x[:, None]).shape == (2, 64, positions)
    body.train()(x).sum().backward()
    assert all(each.grad.isfinite().all() for each in body.parameters())


def test_a_convolution_reads_seven_genes_around_every_fourth():
    convolution, x = body_of(range(30)).stem[0], torch.from_numpy(draw(2, 30))
    padded = F.pad(x, (3, 3))
    expected = [padded[:, 4 * at : 4 * at + 7] @ convolution.weight[:, 0].T + convolution.bias for at in range(8)]
    torch.testing.assert_close(convolution(x[:, None]), torch.stack(expected, 2))


def test_blocks_normalise_after_each_half_and_positions_are_averaged():
    body = body_of(range(100)).eval()
    x = torch.from_numpy(draw(3, 100))
    hidden = body.stem(x[:, None]).mT  # (B, L, 64)
    for block in body.blocks:
        attention = block.self_attn
        q, k, v = (hidden @ attention.in_proj_weight.T + attention.in_proj_bias).chunk(3, -1)
        heads = []
        for head in range(8):
            columns = slice(8 * head, 8 * head + 8)
            weights = (q[..., columns] @ k[..., columns].mT / 8**0.5).softmax(-1)
            heads.append(weights @ v[..., columns])
        hidden = block.norm1(hidden + attention.out_proj(torch.cat(heads, -1)))
        hidden = block.norm2(hidden + block.linear2(F.relu(block.linear1(hidden))))
        assert block.linear1.out_features == 128
    assert len(body.blocks) == 2
    torch.testing.assert_close(body(x), F.relu(body.dense[0](hidden.mean(1))), rtol=1e-4, atol=1e-5)
