import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from txtlib.pretrain.loop import PretrainingRun, pretrain, schedule

X = {
    part: torch.from_numpy(np.random.default_rng(seed).normal(size=(n, 6)).astype(np.float32))
    for part, n, seed in (("train", 23, 0), ("validation", 9, 1))
}
SMALL = dict(epochs=4, batch_size=5, learning_rate=1e-2, device="cpu", progress=False)


class Network(nn.Module):
    def __init__(self, seed=0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.layers = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 6))
        self.settings = {}

    def forward(self, x):
        return self.layers(x)


def restoration(network, part, rows, generator):
    """The mean squared error of what a mask hides."""
    x = X[part][rows]
    hidden = torch.rand(x.shape, generator=generator) < 0.5
    return ((network(x.masked_fill(hidden, 0)) - x) ** 2)[hidden].mean()


def train(network=None, loss=restoration, **options):
    network = network or Network()
    return network, pretrain(network, loss, len(X["train"]), len(X["validation"]), **SMALL | options)


def assert_same(one, other):
    (a, first), (b, second) = one, other
    assert all(torch.equal(value, b.state_dict()[name]) for name, value in a.state_dict().items())
    assert first.best_epoch == second.best_epoch and first.best_loss == second.best_loss
    assert first.history.drop(columns="seconds").equals(second.history.drop(columns="seconds"))


def test_two_runs_agree_bit_for_bit_and_another_seed_does_not():
    first, second, other = train(), train(), train(seed=1)
    assert_same(first, second)
    assert not first[1].history["loss"].equals(other[1].history["loss"])


def test_the_global_random_state_is_left_alone():
    before = torch.get_rng_state()
    train(Network(), epochs=1)
    assert torch.equal(before, torch.get_rng_state())


def test_training_masks_are_fresh_and_validation_masks_the_same():
    seen = {"train": [], "validation": []}

    def spy(network, part, rows, generator):
        mask = torch.rand(len(rows), 6, generator=generator)
        seen[part].append((rows, mask))
        return ((network(X[part][rows] * (mask < 0.5)) - X[part][rows]) ** 2).mean()

    train(loss=spy)
    steps, epochs = len(seen["train"]) // 4, np.array_split(np.arange(len(seen["validation"])), 4)
    for first in range(0, len(seen["train"]), steps):  # each epoch sees each patient once
        rows = torch.cat([rows for rows, _ in seen["train"][first : first + steps]])
        assert sorted(rows.tolist()) == list(range(23))
    drawn = [mask[0, 0].item() for _, mask in seen["train"]]
    assert len(set(drawn)) == len(drawn)
    values = [torch.cat([seen["validation"][k][1] for k in epoch]) for epoch in epochs]
    assert all(torch.equal(values[0], other) for other in values[1:])


def test_the_network_holds_the_best_epoch():
    network, done = train(epochs=8)
    table = done.history.query("part == 'validation'").set_index("epoch")["loss"]
    assert table.idxmin() == done.best_epoch and table.min() == done.best_loss
    again = PretrainingRun(network, restoration, 0.01, 0.0, 0.0, 1).validation_loss(9, 5)
    assert again == done.best_loss and not network.training


def test_patience_ends_it():
    rising = iter(range(1000))

    def worse(network, part, rows, generator):
        return network(X[part][rows]).square().mean() * 0 + (next(rising) if part == "validation" else 0)

    assert train(loss=worse, epochs=50, patience=3)[1].history["epoch"].max() == 4


@given(st.integers(1, 400), st.floats(0, 0.9))
@settings(max_examples=50, deadline=None)
def test_the_schedule_rises_and_falls(steps, warmup):
    rates = np.array([schedule(step, steps, warmup) for step in range(steps)])
    top = rates.argmax()
    assert (rates > 0).all() and rates.max() <= 1
    assert (np.diff(rates[: top + 1]) > 0).all() and (np.diff(rates[top:]) <= 0).all()


def test_the_schedule_is_that_of_torch():
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], 1.0)
    torchs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 40)
    for step in range(40):
        assert schedule(step, 40, 0.0) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        torchs.step()
    assert [schedule(step, 40, 0.1) for step in range(5)] == pytest.approx([0.25, 0.5, 0.75, 1, 1], abs=1e-12)


def stopping_after(calls, error=KeyboardInterrupt):
    counted = iter(range(calls))

    def loss(*arguments):
        if next(counted, None) is None:
            raise error
        return restoration(*arguments)

    return loss


class Killed(Exception):
    """What ends a run without a word of farewell."""


def test_a_killed_run_goes_on_to_the_same_numbers(tmp_path):
    whole, file = train(), tmp_path / "run.safetensors"
    for calls in (0, 9, 17):  # in the first epoch, and in later ones; seven calls are an epoch
        with pytest.raises(Killed):
            train(loss=stopping_after(calls, Killed), checkpoint=file)
    assert_same(whole, train(checkpoint=file))
    assert_same(whole, train(checkpoint=file))  # a finished run is read back
    assert os.listdir(tmp_path) == [file.name]


def test_ctrl_c_keeps_the_best_epoch_and_the_same_call_goes_on(tmp_path, capsys):
    file = tmp_path / "run.safetensors"
    network, stopped = train(loss=stopping_after(16), checkpoint=file)
    assert stopped.interrupted and stopped.history["epoch"].max() == 2
    assert f"Interrupted: epoch {stopped.best_epoch} is the best of 2" in capsys.readouterr().out
    assert_same(train(), train(network, checkpoint=file))


def test_ctrl_c_before_the_first_epoch_is_raised():
    with pytest.raises(KeyboardInterrupt):
        train(loss=stopping_after(3))


@pytest.mark.parametrize("other", [{"epochs": 5}, {"learning_rate": 0.1}, {"about": {"data": 2}}, {"seed": 1}])
def test_another_run_is_refused(tmp_path, other):
    file = tmp_path / "run.safetensors"
    train(checkpoint=file, **{"about": {"data": 1}, "epochs": 2})
    with pytest.raises(ValueError, match="belongs to another run"):
        train(checkpoint=file, **{"about": {"data": 1}, "epochs": 2} | other)


def test_tensors_in_about_are_told_apart_by_their_numbers(tmp_path):
    file = tmp_path / "run.safetensors"
    train(checkpoint=file, about={"data": X["train"]})
    train(checkpoint=file, about={"data": X["train"].clone()})
    with pytest.raises(ValueError, match="other data"):
        train(checkpoint=file, about={"data": X["train"] + 1})


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"warmup": 1.0}, "warmup is 1.0"),
        ({"precision": "float16"}, "precision is one of"),
    ],
)
def test_what_cannot_be_is_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        train(**wrong)


def test_empty_parts_are_refused():
    with pytest.raises(ValueError, match="n_validation is 0"):
        pretrain(Network(), restoration, 5, 0, **SMALL)


@pytest.mark.parametrize("part", ["train", "validation"])
def test_a_loss_that_is_not_finite_stops_it(part):
    def broken(network, where, rows, generator):
        loss = restoration(network, where, rows, generator)
        return loss / 0 if where == part else loss

    with pytest.raises(FloatingPointError, match=f"Epoch 1: the {part} loss became (inf|nan). Lower"):
        train(loss=broken)


def test_bfloat16_learns_about_the_same():
    full, half = train(epochs=10)[1], train(epochs=10, precision="bfloat16")[1]
    assert half.best_loss == pytest.approx(full.best_loss, rel=0.05)
    assert half.best_loss != full.best_loss


def test_the_progress_bar_is_shown_on_demand(capsys):
    train(epochs=1)
    assert capsys.readouterr() == ("", "")
    train(epochs=1, progress=True)
    assert "epochs" in capsys.readouterr().err


def test_a_weight_that_is_not_finite_stops_it():
    def unseen(network, part, rows, generator):
        if part == "train":
            with torch.no_grad():
                network.unused.fill_(torch.nan)
        return restoration(network, part, rows, generator)

    network = Network()
    network.unused = nn.Parameter(torch.zeros(1))
    with pytest.raises(FloatingPointError, match="unused"):
        train(network, unseen)


def test_validation_weighs_patients_alike():
    def number(network, part, rows, generator):
        return rows.float().mean() + 0 * network(X[part][rows]).sum()

    assert train(loss=number, epochs=1)[1].best_loss == pytest.approx(np.arange(9).mean())
