"""The gradients of a training step against the slow obvious twin, in one process and in two."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from bench.twin import plain_features, plain_gradients
from safetensors import safe_open

from txtlib import gradients, products
from txtlib.gradients import task_gradients
from txtlib.hierarchical import sets_for
from txtlib.variants import VARIANTS, variant

KINDS = {"Age": "regression", "PAM50": "classification", "OS": "survival"}


def batch(n=8, genes=12, seed=0, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    age = torch.randn(n, generator=draw, dtype=dtype)
    age[0] = torch.nan
    subtype = torch.randint(-1, 3, (n,), generator=draw)
    cell, event = torch.randint(-1, 5, (n,), generator=draw), torch.rand(n, generator=draw) > 0.5
    return torch.rand(n, genes, generator=draw, dtype=dtype), {"Age": (age,), "PAM50": (subtype,), "OS": (cell, event)}


def network(name="product", dtype=torch.float64, genes=12, **options):
    outputs = {"Age": 1, "PAM50": 3, "OS": 4}
    options = {"width": 8, "layers": 2, "heads": 2, "dropout": 0.0, **options}
    return variant(name, n_genes=genes, outputs=outputs, **options).to(dtype).train()


def heads_gradients(net):
    return [parameter.grad for head in net.heads.values() for parameter in head.parameters()]


@pytest.mark.parametrize("readout", ["flatten", "mean"])
@pytest.mark.parametrize("tokens", [1, 40, 4000])
def test_a_step_equals_its_slow_twin(readout, tokens, monkeypatch):
    monkeypatch.setattr(gradients, "TOKENS", tokens)  # one patient at a time, three, all
    x, labels = batch()
    ours, twin = network(readout=readout), network(readout=readout)
    torch.testing.assert_close(ours.features(x), plain_features(twin, x))
    losses, jacobian = task_gradients(ours, x, labels, KINDS)
    plain_losses, plain_jacobian = plain_gradients(twin, x, labels, KINDS)
    torch.testing.assert_close(losses, plain_losses)
    torch.testing.assert_close(jacobian, plain_jacobian, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(heads_gradients(ours), heads_gradients(twin), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("entries", [1, 250_000])  # one head at a time, by oneDNN; some patients together
def test_a_step_in_float32_equals_its_slow_twin(entries, monkeypatch):
    monkeypatch.setattr(products, "ENTRIES", entries)
    x, labels = batch(4, 130, dtype=torch.float32)
    ours, twin = (network(dtype=torch.float32, genes=130, width=32) for _ in range(2))
    for net in (ours, twin):
        torch.nn.init.normal_(net.position.query, generator=torch.Generator().manual_seed(0))
        net.heads.eval()  # batch norm enlarges every rounding error
    losses, jacobian = task_gradients(ours, x, labels, KINDS)
    plain_losses, plain_jacobian = plain_gradients(twin, x, labels, KINDS)
    torch.testing.assert_close(losses, plain_losses, rtol=1e-5, atol=1e-5)
    assert (jacobian - plain_jacobian).abs().max() < 1e-4 * plain_jacobian.abs().max()


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("sets", [None, [[0, 1, 2, 3, 4], [3, 5, 6], [7, 8, 9, 10, 11]]])
def test_every_variant_gets_the_gradients_of_ordinary_backward_passes(name, sets):
    x, labels = batch()
    net = network(name, **({"sets": sets} if sets else {}))
    losses, jacobian = task_gradients(net, x, labels, KINDS)
    answers = net(x)
    for task, kind, row, loss in zip(KINDS, KINDS.values(), jacobian, losses, strict=True):
        expected = gradients.task_loss(kind, answers[task], labels[task])
        ordinary = torch.autograd.grad(expected, net.shared_parameters(), retain_graph=True)
        torch.testing.assert_close(loss, expected.detach())
        torch.testing.assert_close(row, torch.cat([each.flatten() for each in ordinary]), rtol=1e-6, atol=1e-9)


def test_a_task_without_a_label_in_the_batch_has_gradient_zero():
    x, labels = batch()
    labels["Age"] = (torch.full_like(labels["Age"][0], torch.nan),)
    losses, jacobian = task_gradients(network(), x, labels, KINDS)
    assert losses[0] == 0 and not jacobian[0].any() and jacobian[1:].any()


def test_bfloat16_gives_nearly_the_same_and_leaves_float32_weights():
    x, labels = batch(dtype=torch.float32)
    net = network(dtype=torch.float32, readout="mean")
    torch.nn.init.normal_(net.position.query, generator=torch.Generator().manual_seed(0))
    net.heads.eval()  # batch norm enlarges every difference between patients, and every rounding error with it
    losses, jacobian = task_gradients(net, x, labels, KINDS)
    low_losses, low_jacobian = task_gradients(net, x, labels, KINDS, precision="bfloat16")
    assert low_jacobian.dtype == torch.float32
    torch.testing.assert_close(low_losses, losses, rtol=0.1, atol=0.1)
    assert torch.nn.functional.cosine_similarity(low_jacobian, jacobian)[1:].min() > 0.98  # Age's nearly cancels
    assert not torch.equal(low_jacobian, jacobian)


def test_sets_of_real_size_run_through_a_step():
    genes = [f"G{i}" for i in range(40)]
    sets = sets_for(genes, {"A": genes[:15], "B": genes[10:22]}, rest=8)
    x, labels = batch(genes=40)
    losses, jacobian = task_gradients(network(genes=40, sets=sets, readout="mean"), x, labels, KINDS)
    assert losses.isfinite().all() and jacobian.isfinite().all()


STEPS = """
import sys, torch
from safetensors.torch import save_file
sys.path.insert(0, "tests")
from test_gradients import KINDS, batch, network
from txtlib import parallel
from txtlib.balance import surgery
from txtlib.training import Run

torch.set_num_threads(1)
parallel.join(torch.device("cpu"))
net = network(dropout=float(sys.argv[2]))
torch.nn.init.normal_(net.position.query, generator=torch.Generator().manual_seed(1))
torch.manual_seed(0)
run = Run(net, KINDS, 1e-3, surgery, torch.Generator().manual_seed(0))
for step in range(10):
    x, labels = batch(n=9, seed=step)
    run._step(x, labels)
rank, world = parallel.place()
drawn = {"drawn": torch.rand(3), "drawn by surgery": torch.rand(3, generator=run.generator)}
save_file({**net.state_dict(), **drawn}, f"{sys.argv[1]}.{rank}of{world}")
"""


def run_script(text, folder, *launcher, argument):
    script = folder / "script.py"
    script.write_text(text)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": "tests", "TQDM_DISABLE": "1"}
    command = [sys.executable, *launcher, str(script), str(folder / "weights"), argument]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def weights(path):
    from safetensors.torch import load_file

    return load_file(path)


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(tmp_path):
    # in float64: where a gradient is zero but for rounding, Adam makes a whole step of the rounding
    run_script(STEPS, tmp_path, argument="0")
    run_script(STEPS, tmp_path, *TWO, argument="0")
    one, first, second = (weights(tmp_path / f"weights.{which}") for which in ("0of1", "0of2", "1of2"))
    assert set(one) == set(first)
    for name in set(one) - {"drawn"}:
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], one[name], atol=1e-5, rtol=0, msg=name)


@pytest.mark.slow
def test_more_processes_than_patients_are_no_harm(tmp_path):
    run_script(FEW, tmp_path, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3", argument="0")
    alone, last = weights(tmp_path / "one"), weights(tmp_path / "weights.2of3")
    torch.testing.assert_close(last["jacobian"], alone["jacobian"], rtol=1e-3, atol=1e-5)


FEW = """
import sys, torch
from pathlib import Path
from safetensors.torch import save_file
sys.path.insert(0, "tests")
from test_gradients import KINDS, batch, network
from txtlib import parallel
from txtlib.gradients import task_gradients

torch.set_num_threads(1)
x, labels = batch(n=2, dtype=torch.float32)

def jacobian():
    net = network(dtype=torch.float32, sets=[[0, 1, 2, 3, 4, 5], [5, 6, 7, 8, 9, 10, 11]])
    net.heads.eval()
    return task_gradients(net, x, labels, KINDS)[1]

alone = jacobian()
parallel.join(torch.device("cpu"))
together, (rank, world) = jacobian(), parallel.place()
save_file({"jacobian": together}, f"{sys.argv[1]}.{rank}of{world}")
if not rank:
    save_file({"jacobian": alone}, Path(sys.argv[1]).parent / "one")
"""


@pytest.mark.slow
def test_two_processes_stay_together_with_dropout(tmp_path):
    run_script(STEPS, tmp_path, *TWO, argument="0.3")
    first, second = (weights(tmp_path / f"weights.{rank}of2") for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)


FIT = """
import sys
from pathlib import Path
from safetensors.torch import save_file
from txtlib.cohort import load_cohort, split
from txtlib.model import TxT
from txtlib.parallel import place
from txtlib.preprocess import fit_preprocessor
from txtlib.training import fit

folder, epochs = Path(sys.argv[1]).parent, int(sys.argv[2])
parts = split(load_cohort("gse7390"), seed=0)
preprocessor = fit_preprocessor(parts.train, n_genes=12, n_times=5, grid="quantile")
network = TxT(12, preprocessor.outputs, width=8, layers=1, heads=2, readout="mean")
options = dict(epochs=epochs, batch_size=32, device="cpu", checkpoint=folder / "run.safetensors")
trained = fit(network, parts.train, parts.validation, preprocessor, **options)
rank, world = place()
save_file(trained.network.state_dict(), folder / f"trained{epochs}.{rank}of{world}")
"""


@pytest.mark.slow
def test_fit_on_two_processes_keeps_one_checkpoint_and_goes_on_from_it(tmp_path):
    for epochs in (1, 2):
        run_script(FIT, tmp_path, *TWO, argument=str(epochs))
        first, second = (weights(tmp_path / f"trained{epochs}.{rank}of2") for rank in (0, 1))
        assert all(torch.equal(first[name], second[name]) for name in first)
    with safe_open(tmp_path / "run.safetensors", "pt") as file:
        assert json.loads(file.metadata()["about"])["done"]["epoch"] == 2
    assert [path.name for path in tmp_path.glob("*draft*")] == []
