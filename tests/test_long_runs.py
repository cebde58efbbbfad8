"""Long runs survive: kill -9, Ctrl-C, a full disk, torn and foreign files, losses that are no numbers."""

import errno
import multiprocessing
import os
import re
import resource
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from txtlib import checkpoint, losses, training
from txtlib.balance import GradNorm, UncertaintyWeights, plain_sum, surgery
from txtlib.cohort import load_cohort, split
from txtlib.model import TxT
from txtlib.preprocess import fit_preprocessor
from txtlib.training import fit, load_trained

EPOCHS = 8
CHILDREN = multiprocessing.get_context("forkserver")  # imports once, and each child is a process of its own
CHILDREN.set_forkserver_preload(["txtlib.training", "sksurv.datasets", "torch._dynamo", "pytest", "hypothesis"])


@cache
def data():
    parts = split(load_cohort("gse7390"), seed=0)
    return parts, fit_preprocessor(parts.train, n_genes=12, n_times=5, grid="quantile")


def network(preprocessor=None, width=8, seed=0):
    outputs = (preprocessor or data()[1]).outputs
    return TxT(12, outputs, width=width, layers=1, heads=2, readout="mean", seed=seed)


def train(state=None, net=None, parts=None, preprocessor=None, **options):
    parts, preprocessor = parts or data()[0], preprocessor or data()[1]
    options = {"epochs": EPOCHS, "patience": EPOCHS, "batch_size": 32, "learning_rate": 1e-3, **options}
    net = net or network(preprocessor)
    return fit(net, parts.train, parts.validation, preprocessor, checkpoint=state, progress=False, **options)


def timeless(history):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in history]


def assert_same_run(a, b):
    """Weights, best weights, Adam's moments, random states and history of two checkpoints are equal, bit for bit."""
    (tensors, about), (others, other) = (checkpoint.read(path, checkpoint.RUN) for path in (a, b))
    assert tensors.keys() == others.keys() and {"random.order", "random.dropout", "adam.0.exp_avg"} <= tensors.keys()
    assert all(torch.equal(value, others[key]) for key, value in tensors.items())
    histories = (timeless(each["done"].pop("history")) for each in (about, other))
    assert next(histories) == next(histories) and about == other


def assert_same_answer(a, b):
    assert all(torch.equal(value, b.network.state_dict()[key]) for key, value in a.network.state_dict().items())
    assert a.best_epoch == b.best_epoch
    assert a.history.drop(columns="seconds").equals(b.history.drop(columns="seconds"))


def epoch_of(state):
    return checkpoint.read(state, checkpoint.RUN)[1]["done"]["epoch"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that nothing disturbs: what it returns, and its checkpoint."""
    state = tmp_path_factory.mktemp("whole") / "run.safetensors"
    return train(state), state


# kill -9


def child(state, started, prepare=None, *args):
    if prepare:
        prepare(*args)
    data()
    started.set()
    train(state)


def start(*args):
    started = CHILDREN.Event()
    process = CHILDREN.Process(target=child, args=(args[0], started, *args[1:]))
    process.start()
    assert started.wait(60)
    return process


def written(state):
    return state.exists() and state.stat().st_mtime_ns


def slowly(function):
    def slow(*args):
        time.sleep(0.01)
        return function(*args)

    return slow


def slow_down():
    """Make an epoch last 0.06 s or more on any machine, a sixth of it in writing the file."""
    training.Run._step, checkpoint._to_disk = slowly(training.Run._step), slowly(checkpoint._to_disk)


def test_killed_at_random_moments_it_ends_as_if_nothing_had_been(whole, tmp_path):
    state, killed = tmp_path / "run.safetensors", 0
    for delay in np.random.default_rng(0).uniform(0, 0.06, 4):
        process, before = start(state, slow_down), written(state)
        while process.is_alive() and written(state) == before:  # each gets one epoch further
            time.sleep(0.001)
        time.sleep(delay)
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
    resumed = train(state)
    assert killed >= 3
    assert_same_run(state, whole[1])
    assert_same_answer(resumed, whole[0])
    assert os.listdir(tmp_path) == [state.name]


def after(count, last, normal=None):
    """Return a function that becomes ``last`` from a call on, and is ``normal`` before it."""
    calls = iter(range(count))
    return lambda *args: (last if next(calls, None) is None else normal)(*args)


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def write_half(tensors, path, labels):
    Path(path).write_bytes(save(tensors, labels)[:9000])


def die_when(moment):
    def half_then_die(*args):
        write_half(*args)
        die()

    def replace_then_die(*args, replace=os.replace):
        replace(*args)
        die()

    if moment == "in a step":
        training.Run._step = after(12, die, training.Run._step)
    if moment == "in a draft":
        checkpoint.save_file = after(2, half_then_die, save_file)
    if moment == "before the flush":
        checkpoint._to_disk = after(2, die, checkpoint._to_disk)
    if moment == "before the rename":
        checkpoint.os.replace = after(2, die, os.replace)
    if moment == "after the rename":
        checkpoint.os.replace = after(2, replace_then_die, os.replace)


@pytest.mark.parametrize(
    "moment, kept",
    {"in a step": 2, "in a draft": 2, "before the flush": 2, "before the rename": 2, "after the rename": 3}.items(),
)
def test_killed_while_it_writes_it_keeps_the_file_before_and_leaves_nothing_behind(whole, tmp_path, moment, kept):
    state = tmp_path / "run.safetensors"
    process = start(state, die_when, moment)
    process.join()
    assert process.exitcode == -signal.SIGKILL and epoch_of(state) == kept
    train(state)
    assert_same_run(state, whole[1])
    assert os.listdir(tmp_path) == [state.name]


@pytest.mark.parametrize("combine", [lambda: surgery, lambda: UncertaintyWeights(5), lambda: GradNorm(5)])
def test_a_run_goes_on_to_the_same_numbers_with_any_combination(tmp_path, combine):
    state = tmp_path / "run.safetensors"
    train(state, combine=combine(), epochs=2)
    assert_same_answer(train(state, combine=combine(), epochs=4), train(combine=combine(), epochs=4))


def test_two_processes_agree_bit_for_bit(whole, tmp_path):
    state = tmp_path / "run.safetensors"
    code = "import sys, test_long_runs; test_long_runs.train(sys.argv[1])"
    settings = {**os.environ, "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", code, state], cwd=Path(__file__).parent, env=settings, check=True)
    assert_same_run(state, whole[1])


def test_a_finished_run_is_not_trained_again(whole, monkeypatch):
    monkeypatch.setattr(training.Run, "_step", None)
    assert_same_answer(train(whole[1]), whole[0])


def test_the_best_weights_come_back_where_the_last_ones_are_worse(tmp_path, monkeypatch):
    scores = iter([3.0, 2.0, 4.0, 4.0, 4.0])
    monkeypatch.setattr(training, "selection_score", lambda *_: next(scores))
    shorter, longer = (train(tmp_path / "run.safetensors", epochs=epochs) for epochs in (4, 5))
    assert shorter.best_epoch == longer.best_epoch == 2
    for name, value in shorter.network.state_dict().items():
        assert torch.equal(value, longer.network.state_dict()[name])


def test_a_longer_run_goes_on_where_the_shorter_one_ended(whole, tmp_path):
    state = tmp_path / "run.safetensors"
    shorter = train(state, epochs=3, patience=1000)
    train(state, net=shorter.network)  # in a notebook the cell runs again with the network that came back
    assert_same_run(state, whole[1])


# Ctrl-C


@contextmanager
def interrupted_after(seconds):
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# where the moment falls into a library's callback on garbage collection, Python drops the interrupt and says so
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_at_random_moments_keeps_whole_epochs_only(whole, tmp_path):
    state, interrupted = tmp_path / "run.safetensors", 0
    for delay in np.random.default_rng(1).uniform(0.02, 0.3, 20):
        if not state.exists():
            train(state, epochs=1)
        try:
            with interrupted_after(delay):
                stopped = train(state)
        except KeyboardInterrupt:
            continue  # before it had read the checkpoint
        interrupted += stopped.interrupted
        epochs = stopped.history["epoch"].max()
        expected = whole[0].history[whole[0].history["epoch"] <= epochs]
        assert stopped.history.drop(columns="seconds").equals(expected.drop(columns="seconds"))
        assert epoch_of(state) in (epochs - 1, epochs)
        if epochs == EPOCHS:
            state.unlink()
    assert interrupted >= 3
    train(state)
    assert_same_run(state, whole[1])
    assert os.listdir(tmp_path) == [state.name]


def interruptible(state, started, result):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background is born deaf to it
    data()
    started.set()
    trained = train(state, epochs=10_000, patience=10_000)
    trained.save(result)


def test_a_real_sigint_ends_cleanly_with_the_best_weights_saved(whole, tmp_path):
    state, result, started = tmp_path / "run.safetensors", tmp_path / "best.safetensors", CHILDREN.Event()
    process = CHILDREN.Process(target=interruptible, args=(state, started, result))
    process.start()
    while process.is_alive() and not state.exists():
        time.sleep(0.01)
    time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    process.join(30)
    best = load_trained(result)
    assert process.exitcode == 0 and best.interrupted
    assert_same_answer(best, train(epochs=epoch_of(state), patience=10_000))


def interrupt(*_):
    raise KeyboardInterrupt


def test_ctrl_c_in_an_epoch_returns_the_best_one_and_says_so(whole, tmp_path, monkeypatch, capsys):
    state = tmp_path / "run.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(training.Run, "_step", after(12, interrupt, training.Run._step))
        stopped = train(state)
    assert stopped.interrupted and not whole[0].interrupted
    said = f"Interrupted: epoch {stopped.best_epoch} is the best of 2. The same call goes on from {state}.\n"
    assert capsys.readouterr() == (said, "")
    assert_same_answer(stopped, train(epochs=2))


def test_ctrl_c_at_the_door_of_a_no_grad_does_not_leave_gradients_off(monkeypatch):
    def off(*_):
        torch.set_grad_enabled(False)
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "_forward", after(2, off, training._forward))
    assert train().interrupted and torch.is_grad_enabled()


def test_ctrl_c_while_saving_waits_until_it_is_saved(tmp_path, monkeypatch):
    state = tmp_path / "run.safetensors"
    moments = iter([save_file, save_file, interrupt])
    monkeypatch.setattr(checkpoint, "save_file", lambda *args: next(moments, save_file)(*args))
    stopped = train(state)
    assert stopped.interrupted and epoch_of(state) == stopped.history["epoch"].max() == 3
    assert os.listdir(tmp_path) == [state.name]


def test_ctrl_c_before_the_first_epoch_is_raised(tmp_path, monkeypatch):
    monkeypatch.setattr(training.Run, "_step", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run.safetensors")
    assert os.listdir(tmp_path) == []


# a full disk


def too_large(*args):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9000, hard))
    try:
        save_file(*args)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def half_then_full(*args):
    write_half(*args)
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("disk", [too_large, half_then_full])
def test_a_full_disk_keeps_the_file_before(whole, tmp_path, monkeypatch, disk):
    state = tmp_path / "run.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", after(3, disk, save_file))
        with pytest.raises(OSError, match=r"run.safetensors could not be written .* is untouched: make room"):
            train(state)
    assert os.listdir(tmp_path) == [state.name] and epoch_of(state) == 3
    train(state)
    assert_same_run(state, whole[1])


def test_a_full_disk_keeps_the_network_saved_before(whole, tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    whole[0].save(path)
    before = path.read_bytes()
    monkeypatch.setattr(checkpoint, "save_file", half_then_full)
    with pytest.raises(OSError, match="No space left"):
        whole[0].save(path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == [path.name]


def test_a_file_may_be_read_by_whom_the_umask_lets(whole, tmp_path):
    (tmp_path / "any").touch()
    whole[0].save(tmp_path / "model.safetensors")
    assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "any").stat().st_mode


# torn and foreign files


@given(share=st.floats(0, 1, exclude_max=True))
@settings(deadline=None, max_examples=60)
def test_a_file_cut_anywhere_is_refused(whole, share):
    content = whole[1].read_bytes()
    torn = whole[1].with_name("torn.safetensors")
    torn.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"torn.safetensors is torn, or no safetensors file .*: move it away"):
        checkpoint.read(torn, checkpoint.RUN)


@given(share=st.floats(0, 1, exclude_max=True), early=st.booleans(), bit=st.integers(0, 7))
@settings(deadline=None, max_examples=100)
def test_a_flipped_bit_is_refused_or_means_nothing(whole, share, early, bit):
    content = bytearray(whole[1].read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    content[int(share * (header if early else len(content)))] ^= 1 << bit
    damaged = whole[1].with_name("damaged.safetensors")
    damaged.write_bytes(content)
    try:
        tensors, about = checkpoint.read(damaged, checkpoint.RUN)
    except ValueError as error:
        assert re.search("is torn|is damaged|not a training run", str(error))
    else:  # the blanks that fill the header up
        expected, as_written = checkpoint.read(whole[1], checkpoint.RUN)
        assert about == as_written and all(torch.equal(value, tensors[key]) for key, value in expected.items())


@pytest.mark.parametrize(
    "make, why",
    {
        "an empty file": (lambda path: path.touch(), "is torn"),
        "text": (lambda path: path.write_text("epoch,loss\n1,0.5\n"), "is torn, or no safetensors file at all"),
        "a folder": (lambda path: path.mkdir(), "is a folder"),
        "a stranger": (lambda path: save_file({"a": torch.ones(2)}, path), "holds something else, not a training run"),
        "a network": (lambda path: train(epochs=1).save(path), "holds a trained network, not a training run"),
    }.values(),
)
def test_a_foreign_checkpoint_is_refused_and_left_alone(tmp_path, make, why):
    path = tmp_path / "run.safetensors"
    make(path)
    before = path.is_dir() or path.read_bytes()
    with pytest.raises(ValueError, match=f"run.safetensors {why}"):
        train(path)
    assert before == (path.is_dir() or path.read_bytes())


def test_a_training_run_is_no_network(whole, tmp_path):
    with pytest.raises(ValueError, match="holds a training run, not a trained network of txtlib: move it away"):
        load_trained(whole[1])
    (tmp_path / "model.safetensors").write_bytes(b"half")
    with pytest.raises(ValueError, match="is torn"):
        load_trained(tmp_path / "model.safetensors")


def other_patients():
    return {"parts": split(load_cohort("gse7390"), seed=1)}


def other_labels():
    parts = data()[0]
    clinical = parts.validation.clinical.assign(Age=50.0)
    return {
        "parts": parts._replace(
            validation=parts.validation.__class__(**{**vars(parts.validation), "clinical": clinical})
        )
    }


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda: {"learning_rate": 1e-4}, "with learning_rate 0.001 and not 0.0001:"),
        (lambda: {"batch_size": np.int64(64)}, "with batch_size 32 and not 64:"),
        (lambda: {"select": "all"}, "with select 'DM' and not 'all':"),
        (lambda: {"seed": 3}, "with seed 0 and not 3:"),
        (lambda: {"combine": plain_sum}, "with combine 'surgery' and not 'plain_sum':"),
        (lambda: {"combine": GradNorm(5)}, "with combine 'surgery' and not 'GradNorm', combine.learning_rate None"),
        (lambda: {"net": network(seed=1)}, "with other first weights:"),
        (lambda: {"net": network(width=16)}, "with network.width 8 and not 16, other first weights:"),
        (lambda: {"preprocessor": data()[1].with_tasks("DM")}, "with tasks .* and not .*, network.outputs"),
        (other_patients, "with other training expression, other training labels, other validation expression"),
        (other_labels, "with other validation labels:"),
    ],
)
def test_the_checkpoint_of_another_run_is_refused(whole, change, said):
    before = whole[1].read_bytes()
    with pytest.raises(ValueError, match=f"run.safetensors belongs to another run, {said}"):
        train(whole[1], **change())
    assert whole[1].read_bytes() == before


# losses that are no numbers


def poison(monkeypatch, calls, value):
    """Make the loss of the survival task ``value`` after a number of calls: 5 steps and a validation are an epoch."""
    loss = losses.mtlr_nll
    monkeypatch.setattr(losses, "mtlr_nll", after(calls, lambda *args: loss(*args) * value, loss))


def test_a_loss_that_becomes_nan_stops_and_names_epoch_task_and_checkpoint(tmp_path, monkeypatch):
    state = tmp_path / "run.safetensors"
    with monkeypatch.context() as patch:
        poison(patch, 14, np.nan)
        with pytest.raises(FloatingPointError) as stop:
            train(state)
    best = train(epochs=2)
    assert str(stop.value) == (
        f"Epoch 3: the training loss of 'DM' became nan. The last good checkpoint is {state}, of epoch 2; the best "
        f"epoch is {best.best_epoch}: the same call with a new network and epochs=2 returns it; a lower learning "
        "rate may lead further."
    )
    assert all(value.isfinite().all() for value in checkpoint.read(state, checkpoint.RUN)[0].values())
    assert_same_answer(train(state, epochs=2), best)


def test_a_validation_loss_that_becomes_infinite_stops_too(monkeypatch):
    poison(monkeypatch, 11, np.inf)
    with pytest.raises(
        FloatingPointError, match=r"Epoch 2: the validation loss of 'DM' became inf\. There is no check"
    ):
        train()


def test_weights_that_overflow_in_the_first_epoch_leave_nothing(tmp_path):
    with pytest.raises(FloatingPointError, match=r"Epoch 1: the .* loss of 'Age' .* No epoch was good before it"):
        train(tmp_path / "run.safetensors", learning_rate=1e30)
    assert os.listdir(tmp_path) == []


def test_weights_that_no_loss_shows_stop_too(monkeypatch):
    step = training.Run._step

    def poisoned(run, *args):
        with torch.no_grad():
            next(run.network.head("ER").parameters())[0] = np.nan
        return step(run, *args)

    monkeypatch.setattr(training.Run, "_check_losses", lambda *args: None)
    monkeypatch.setattr(training.Run, "_step", poisoned)
    with pytest.raises(FloatingPointError, match=r"Epoch 1: the weights '.*' are no longer finite"):
        train()


def test_a_task_without_a_label_in_a_batch_is_no_reason_to_stop():
    parts, preprocessor = data()
    clinical = parts.train.clinical.copy()
    clinical.loc[clinical.index[3:], "ER"] = np.nan
    few = parts._replace(train=type(parts.train)(**{**vars(parts.train), "clinical": clinical}))
    assert np.isfinite(train(parts=few, preprocessor=preprocessor, epochs=2, batch_size=8).history["loss"]).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU on this machine")
def test_a_run_on_a_gpu_goes_on_with_its_random_state(tmp_path):
    state = tmp_path / "run.safetensors"
    train(state, epochs=2, device="cuda")
    assert "random.cuda" in checkpoint.read(state, checkpoint.RUN)[0]
    resumed, unbroken = train(state, epochs=4, device="cuda"), train(epochs=4, device="cuda")
    np.testing.assert_allclose(resumed.history["loss"], unbroken.history["loss"], rtol=1e-3)
    assert train(state, epochs=5, device="cpu").history["epoch"].max() == 5
