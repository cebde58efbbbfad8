import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from txtlib.batchnorm import renew
from txtlib.cohort import split
from txtlib.model import TxT
from txtlib.planted import planted
from txtlib.preprocess import fit_preprocessor
from txtlib.training import fit, random_pieces


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(0.5), nn.Linear(4, 3), nn.BatchNorm1d(3, momentum=0.3)
    )


def numbers(seed=1, n=40):
    return torch.randn(n, 5, generator=torch.Generator().manual_seed(seed)) * 3 + 2


def test_in_one_piece_every_norm_holds_the_mean_and_variance_of_what_it_reads():
    found, x = network(), numbers()
    renew(found, [x])
    hidden = found[0](x).detach().numpy()
    np.testing.assert_allclose(found[1].running_mean, hidden.mean(0), rtol=1e-5)
    np.testing.assert_allclose(found[1].running_var, hidden.var(0, ddof=1), rtol=1e-5)
    scaled = (hidden - hidden.mean(0)) / np.sqrt(hidden.var(0) + found[1].eps)  # the second norm reads this, no dropout
    second = np.maximum(scaled, 0) @ found[4].weight.detach().numpy().T + found[4].bias.detach().numpy()
    np.testing.assert_allclose(found[5].running_mean, second.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[5].running_var, second.var(0, ddof=1), rtol=1e-4)


def test_the_weights_the_momenta_and_the_random_state_stay_and_dropout_is_off():
    found, state = network(), torch.get_rng_state()
    before = {name: value.clone() for name, value in found.named_parameters()}
    renew(found.train(), numbers().split(20))
    assert all(torch.equal(value, before[name]) for name, value in found.named_parameters())
    assert [found[1].momentum, found[5].momentum] == [0.1, 0.3] and torch.equal(state, torch.get_rng_state())
    assert not any(module.training for module in found.modules())


def test_pieces_weigh_the_same_and_what_was_there_before_counts_for_nothing():
    found, pieces = network(), [numbers(1), numbers(2) + 5]
    found.train()(numbers(3) * 100)
    renew(found, pieces)
    means = torch.stack([found[0](piece).mean(0) for piece in pieces])
    torch.testing.assert_close(found[1].running_mean, means.mean(0).detach())


def test_a_network_without_norms_is_not_run_at_all():
    class Deaf(nn.Module):
        def forward(self, x):
            raise AssertionError("called")

    renew(Deaf(), [numbers()])


@settings(deadline=None)
@given(st.integers(2, 200), st.integers(1, 250), st.integers(0, 3))
def test_random_pieces_are_all_rows_once_in_sizes_that_differ_little(n, size, seed):
    x = torch.arange(n)
    pieces = list(random_pieces(x, size, torch.Generator().manual_seed(seed)))
    assert torch.equal(torch.cat(pieces).sort().values, x)
    sizes = [len(piece) for piece in pieces]
    assert min(sizes) >= 2 and max(sizes) <= max(size, 3) and max(sizes) - min(sizes) <= 1


def test_training_answers_validation_patients_as_it_answers_training_patients():
    """A network that has learned its 60 patients by heart must show their loss on them when they are validated."""
    cohort = planted(n=60, n_genes=40, event_rate=0.5).cohort.with_tasks("PAM50")
    preprocessor = fit_preprocessor(cohort, n_genes=20, n_times=5)
    net = TxT(20, preprocessor.outputs, width=8, layers=1, heads=2, dropout=0.0)
    fitted = fit(net, cohort, cohort, preprocessor, epochs=30, batch_size=60, learning_rate=0.01, progress=False)
    losses = fitted.history.pivot_table(index="epoch", columns="part", values="loss")
    # with one batch an epoch and no dropout, validation sees the weights that the next epoch starts from
    np.testing.assert_allclose(losses["validation"][:-1], losses["train"][1:], rtol=0.02, atol=0.01)


def test_parts_share_no_patient_with_what_renews_them():
    """The validation part changes no number of the network: another one gives the same weights after an epoch."""
    cohort = planted(n=90, n_genes=40, event_rate=0.5).cohort
    parts = split(cohort, seed=0)
    preprocessor = fit_preprocessor(parts.train, n_genes=20, n_times=5)
    settings = dict(epochs=1, batch_size=16, progress=False)
    one, other = (
        fit(TxT(20, preprocessor.outputs, width=8, layers=1, heads=2), parts.train, held, preprocessor, **settings)
        for held in (parts.validation, parts.test)
    )
    states = one.network.state_dict(), other.network.state_dict()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.parametrize("tasks", [["OS"], ["Age", "OS"], ["OS", "PAM50", "Age", "Size"]])
def test_the_encoder_of_a_seed_starts_the_same_with_any_tasks(tasks):
    def shared(names):
        outputs = {name: 3 for name in names}
        return TxT(20, outputs, width=8, layers=2, heads=2, seed=4).shared_parameters()

    assert all(torch.equal(a, b) for a, b in zip(shared(tasks), shared(["Grade"]), strict=True))
