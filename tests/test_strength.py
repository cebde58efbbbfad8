from types import SimpleNamespace

import numpy as np
import pytest
import torch

from txtlib.interpret.strength import strengthened, variation
from txtlib.model import TxT


def network(seed=0):
    return TxT(7, {"OS": 3}, width=8, layers=2, heads=2, seed=seed).eval()


def test_strength_is_set_signs_and_the_trained_network_stay():
    trained = SimpleNamespace(network=network())
    before = trained.network.position.strength().detach().clone()
    changed = strengthened(trained, 3.0)
    after = changed.network.position.strength()
    torch.testing.assert_close(after.abs(), torch.full_like(after, 3.0))
    assert torch.equal(after.sign(), before.sign())
    assert torch.equal(trained.network.position.strength(), before)
    others = dict(changed.network.named_parameters())
    for name, own in trained.network.named_parameters():
        assert name == "position.query" or torch.equal(own, others[name])


def test_a_head_without_a_sign_stays():
    trained = SimpleNamespace(network=network())
    with torch.no_grad():
        trained.network.position.query[:4] = 0
    assert strengthened(trained, 2.0).network.position.strength().abs().tolist() == pytest.approx([0, 2])


def test_variation_is_that_of_the_weights_and_grows_with_strength():
    trained = SimpleNamespace(network=network())
    x = np.random.default_rng(0).random((9, 7)).astype(np.float32)
    table = variation(trained.network, x)
    with torch.no_grad():
        weights = trained.network.attention(torch.from_numpy(x), 1).numpy()
    expected = np.median(weights.std(0, ddof=1) / weights.mean(0), axis=(1, 2))
    np.testing.assert_allclose(table.loc[table["layer"] == 1, "cv"], expected, rtol=1e-4)
    strong = variation(strengthened(trained, 20.0).network, x)
    assert strong["cv"].min() > table["cv"].max()


def test_patients_who_are_all_alike_do_not_vary():
    assert variation(network(), np.full((4, 7), 0.3, np.float32))["cv"].max() < 1e-5


def test_what_cannot_be_is_a_sentence():
    with pytest.raises(ValueError, match="above 0"):
        strengthened(SimpleNamespace(network=network()), 0)
    with pytest.raises(ValueError, match="no product"):
        strengthened(SimpleNamespace(network=torch.nn.Linear(2, 2)), 1.0)
    with pytest.raises(ValueError, match="two or more"):
        variation(network(), np.zeros((1, 7), np.float32))
