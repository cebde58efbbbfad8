"""What a training step really costs on this machine: seconds and peak memory, each in a fresh process."""

import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from txtlib.balance import surgery
from txtlib.cost import step_flops
from txtlib.gradients import Labels, set_shared, task_gradients
from txtlib.products import product
from txtlib.variants import variant

GB = 1e9  # bytes


def measured_step(settings: dict, batch: int, repeats: int = 2) -> dict[str, float]:
    """Take some training steps on the CPU, in a process of its own; return what ``take_steps`` does.

    settings are those of ``variant``. Raises RuntimeError with the last words of a process that did not make it.
    """
    request = json.dumps(dict(settings=settings, batch=batch, repeats=repeats))
    threads = f"import torch; torch.set_num_threads({torch.get_num_threads()}); "
    command = [sys.executable, "-c", f"{threads}from txtlib.measure import main; main()"]
    done = subprocess.run(command, input=request, capture_output=True, text=True)
    if done.returncode:
        words = (done.stderr.strip().splitlines() or ["it was killed, probably for want of memory"])[-1]
        raise RuntimeError(f"A step on {batch} patients and {settings['n_genes']} genes did not end: {words}")
    return json.loads(done.stdout)


def take_steps(network: torch.nn.Module, gradients: Callable, x: Tensor, labels: Labels, repeats: int) -> dict:
    """Take whole training steps: gradients(network, x, labels) of all tasks, PCGrad, Adam.

    Returns seconds (of the fastest step), gflop (by formula), peak_gb (of the process), and step_gb, the peak without
    what the process held before and the two moments of Adam; both in 10^9 bytes.
    """
    held = torch.cuda.memory_allocated() if x.is_cuda else peak_bytes()
    optimizer = torch.optim.Adam(network.parameters(), 1e-4, fused=True)
    generator, spent = torch.Generator().manual_seed(0), []
    for _ in range(repeats):
        start = time.perf_counter()
        losses, jacobian = gradients(network, x, labels)
        set_shared(network, surgery(jacobian, losses, generator))
        optimizer.step()
        _wait(x)
        spent.append(time.perf_counter() - start)
    moments = 8 * sum(parameter.numel() for parameter in network.parameters())
    peak = torch.cuda.max_memory_allocated() if x.is_cuda else peak_bytes()
    gflop = sum(step_flops(network.settings, len(x)).values()) / 1e9
    return dict(seconds=min(spent), gflop=gflop, peak_gb=peak / GB, step_gb=(peak - held - moments) / GB)


def random_batch(kinds: dict[str, str], outputs: dict[str, int], patients: int, genes: int) -> tuple[Tensor, Labels]:
    """Draw expression (B, G) and labels of each kind: enough to measure by, for cost does not depend on values."""
    draw = torch.Generator().manual_seed(0)

    def label(kind: str, size: int) -> tuple[Tensor, ...]:
        if kind == "regression":
            return (torch.randn(patients, generator=draw),)
        codes = torch.randint(0, size + (kind == "survival"), (patients,), generator=draw)
        return (codes,) if kind == "classification" else (codes, torch.rand(patients, generator=draw) > 0.5)

    labels = {task: label(kind, outputs[task]) for task, kind in kinds.items()}
    return torch.rand(patients, genes, generator=draw), labels


def kinds_of(outputs: dict[str, int]) -> dict[str, str]:
    """Return a kind for each task, so that a step can be measured: as many outputs as a regression, or a survival."""
    return {task: "regression" if size == 1 else "survival" for task, size in outputs.items()}


def matrix_rate(dtype: torch.dtype = torch.float32, device: str = "cpu", size: int = 2048) -> float:
    """Return the operations per second of one large matrix product, a mark that no step of ours comes near."""
    a = torch.randn(size, size, device=device).to(dtype)
    spent = []
    for _ in range(10):
        start = time.perf_counter()
        product(a, a)
        _wait(a)
        spent.append(time.perf_counter() - start)
    return 2 * size**3 / min(spent)


def peak_bytes() -> float:
    """Return the most memory that this process has held."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux getrusage would also count the parent's
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)


def machine() -> dict[str, str]:
    """Return processor, cores, graphics card and versions, to stand beside a measurement."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    processor = (names or [platform.processor()])[0]
    return dict(processor=processor, threads=torch.get_num_threads(), gpu=gpu, torch=torch.__version__)


def _wait(x: Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize()


def main() -> None:
    """Measure the step that standard input asks for; print the result."""
    request = json.load(sys.stdin)
    network = variant(**{"variant": "product", **request["settings"]}).train()
    kinds = kinds_of(network.settings["outputs"])
    batch = random_batch(kinds, network.settings["outputs"], request["batch"], network.settings["n_genes"])
    gradients = partial(task_gradients, kinds=kinds)
    print(json.dumps(take_steps(network, gradients, *batch, request["repeats"])))
