"""Speed and memory of TxT on this machine, each figure beside the slow obvious twin's: make bench.

Prints a table and writes _build/bench/speed.json. Every case runs in a process of its own, so that its peak memory is
its own. It states what was reached and never fails on a clock. One case alone: python tests/bench/bench_speed.py
--case "step, float32".
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import date
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from twin import plain_gradients

from txtlib.cost import plain_step_flops
from txtlib.gradients import task_gradients
from txtlib.measure import GB, machine, matrix_rate, peak_bytes, random_batch, take_steps
from txtlib.model import TxT
from txtlib.training import _forward

ROOT = Path(__file__).parents[2]
OUT = ROOT / "_build" / "bench" / "speed.json"
KINDS = {
    "Age": "regression",
    "Size": "regression",
    "NHG": "classification",
    "PAM50": "classification",
    "OS": "survival",
}
OUTPUTS = {"Age": 1, "Size": 1, "NHG": 3, "PAM50": 5, "OS": 8}
RELEASED = "19.3 s, 8.4 GB"  # the authors' released code, once, on another machine of 2 cores


def network(genes: int, layers: int = 8, device: str = "cpu") -> TxT:
    return TxT(genes, OUTPUTS, layers=layers).to(device).train()


def batch(patients: int, genes: int, device: str = "cpu") -> tuple:
    x, labels = random_batch(KINDS, OUTPUTS, patients, genes)
    return x.to(device), {task: tuple(each.to(device) for each in label) for task, label in labels.items()}


def steps(gradients, patients: int, genes: int, repeats: int, device: str = "cpu") -> dict:
    return take_steps(network(genes, device=device), gradients, *batch(patients, genes, device), repeats)


fast = {name: partial(task_gradients, kinds=KINDS, precision=name) for name in ("float32", "bfloat16")}
plain = partial(plain_gradients, kinds=KINDS)


def predict(patients: int, genes: int) -> dict:
    net, (x, _) = network(genes), batch(patients, genes)
    start = time.perf_counter()
    _forward(net, x)
    return dict(seconds=time.perf_counter() - start, peak_gb=peak_bytes() / GB)


def look(patients: int, genes: int) -> dict:
    """The attention of one patient on request, then a cohort's as a stream."""
    net, (x, _) = network(genes).eval(), batch(patients, genes)
    with torch.no_grad():
        start = time.perf_counter()
        next(net.attentions(x, 7))
        one = time.perf_counter() - start
        start = time.perf_counter()
        total = sum(each.mean() for each in net.attentions(x, 7))
        spent = time.perf_counter() - start
    assert abs(total / patients - 1 / genes) < 1e-5
    return dict(seconds=spent, one_s=one, peak_gb=peak_bytes() / GB)


def notebook_06() -> dict:
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        command = [sys.executable, "-m", "papermill", "--no-progress-bar", "notebooks/06_training.ipynb"]
        subprocess.run(
            [*command, f"{folder}/06.ipynb", "--cwd", str(ROOT)],
            cwd=ROOT,
            check=True,
            capture_output=True,
            env={**os.environ, "TQDM_DISABLE": "1"},
        )
        return dict(seconds=time.perf_counter() - start)


CASES = {
    "matrix rate, float32": lambda: dict(gflops=matrix_rate(torch.float32) / 1e9),
    "matrix rate, bfloat16": lambda: dict(gflops=matrix_rate(torch.bfloat16) / 1e9),
    "step, twin": lambda: steps(plain, 8, 1000, 5),
    "step, float32": lambda: steps(fast["float32"], 8, 1000, 5),
    "step, bfloat16": lambda: steps(fast["bfloat16"], 8, 1000, 5),
    "batch 64, float32": lambda: steps(fast["float32"], 64, 1000, 2),
    **{f"{genes} genes": partial(steps, fast["float32"], 4, genes, 2) for genes in (1000, 2000, 5000)},
    "10000 genes": lambda: steps(fast["float32"], 4, 10_000, 1),
    "predict 10000 patients": lambda: predict(10_000, 1000),
    "attention of 100 patients": lambda: look(100, 1000),
    "notebook 06, quick": notebook_06,
}
GPU_CASES = {
    "gpu matrix rate, bfloat16": lambda: dict(gflops=matrix_rate(torch.bfloat16, "cuda", 8192) / 1e9),
    "gpu step": lambda: steps(fast["bfloat16"], 64, 1000, 30, "cuda"),
    "gpu 10000 genes": lambda: steps(fast["bfloat16"], 8, 10_000, 3, "cuda"),
}


def measured(case: str) -> dict:
    """Run a case in a process of its own."""
    done = subprocess.run([sys.executable, __file__, "--case", case], capture_output=True, text=True)
    if done.returncode:
        words = (done.stderr.strip().splitlines() or ["killed, probably for want of memory"])[-1]
        return {"failed": f"did not end: {words}"}
    return json.loads(done.stdout.splitlines()[-1])


def share(found: dict, case: str, rate: str) -> str:
    reached = found[case]["gflop"] / found[case]["seconds"]
    return f"{reached:.0f} GFLOP/s, {reached / found[rate]['gflops']:.0%} of one large product's"


def table(found: dict[str, dict]) -> list[tuple[str, str, str, str]]:
    """Rows of (what, reach, reached, verdict); a case that was not run, or did not end, says so."""
    failed = [(case, "", result["failed"], "gap: not reached") for case, result in found.items() if "failed" in result]
    rows = []
    for make in (step_rows, memory_rows, inference_rows, gpu_rows):
        try:
            rows += make(found)
        except KeyError:
            continue  # it wants a number of a case that did not end, which has its own row
    return rows + failed


def step_rows(found: dict):
    twin = found["step, twin"]
    plain_gflop = plain_step_flops(network(1000).settings, 8) / 1e9
    text = f"{twin['seconds']:.2f} s, {twin['peak_gb']:.2f} GB, {plain_gflop / twin['seconds']:.0f} GFLOP/s"
    yield "slow obvious twin of the step", "", f"{text} (released code, elsewhere: {RELEASED})", ""
    for name, reach, aim in (("float32", 6, 8), ("bfloat16", 8, 15)):
        step = found[f"step, {name}"]
        times = twin["seconds"] / step["seconds"]
        text = f"{step['seconds']:.2f} s, {times:.1f} x; {share(found, f'step, {name}', f'matrix rate, {name}')}"
        yield f"step, {name}", f">= {reach} x, aim {aim} x", text, verdict(times, reach)
    step = found["step, float32"]
    whole, own = step["peak_gb"] / twin["peak_gb"], step["step_gb"] / twin["step_gb"]  # both hold the same heads
    text = f"process {step['peak_gb']:.2f} GB = {whole:.2f} of the twin's; beyond weights and Adam {own:.2f} of it"
    yield "step, float32, peak memory", "<= 1/6 of the twin's", text, verdict(1 / whole, 6)


def memory_rows(found: dict):
    large = found["batch 64, float32"]
    text = f"{large['peak_gb']:.2f} GB, {large['seconds']:.1f} s"
    yield "batch 64, 1,000 genes, 8 layers", "6 GB", text, verdict(6, large["peak_gb"])
    sizes = [1000, 2000, 5000, 10_000]
    steps = [found[f"{genes} genes"] for genes in sizes]
    text = "; ".join(
        f"{genes:,}: {step['seconds']:.1f} s, {step['peak_gb']:.2f} GB"
        for genes, step in zip(sizes, steps, strict=True)
    )
    yield "one step by genes, batch 4", "< 16 GB at 10,000", text, verdict(16, steps[-1]["peak_gb"])


def inference_rows(found: dict):
    case = found["predict 10000 patients"]
    yield (
        "predict 10,000 patients, 1,000 genes",
        "no attention kept",
        f"{case['seconds']:.0f} s, {case['peak_gb']:.2f} GB",
        "",
    )
    case = found["attention of 100 patients"]
    text = f"one patient {case['one_s']:.2f} s; 100 as a stream {case['seconds']:.1f} s, {case['peak_gb']:.2f} GB"
    yield "attention, 1,000 genes, layer 8", "one in memory", text, ""
    case = found["notebook 06, quick"]
    yield "notebook 06, quick", "60 s", f"{case['seconds']:.0f} s", verdict(60, case["seconds"])


def gpu_rows(found: dict):
    case = found.get("gpu step")
    if case is None:
        yield "one GPU: batch 64, 1,000 genes, bfloat16", ">= 20 steps/s", "not run: this machine has no GPU", "not run"
        return
    text = f"{1 / case['seconds']:.1f} steps/s; {share(found, 'gpu step', 'gpu matrix rate, bfloat16')}"
    yield "one GPU: batch 64, 1,000 genes, bfloat16", ">= 20 steps/s", text, verdict(1 / case["seconds"], 20)
    case = found["gpu 10000 genes"]
    yield "one GPU: 10,000 genes, batch 8", "trains", f"{case['seconds']:.2f} s, {case['peak_gb']:.1f} GB", ""


def verdict(value: float, reach: float) -> str:
    """Both given so that more is better: met, or how much of it was reached."""
    return "met" if value >= reach else f"gap: {value / reach:.0%} of it"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", choices=[*CASES, *GPU_CASES])
    case = parser.parse_args().case
    if case:
        print(json.dumps({**CASES, **GPU_CASES}[case]()))
        return
    found = {}
    for case in [*CASES, *(GPU_CASES if torch.cuda.is_available() else [])]:
        found[case] = measured(case)
        print(f"{case}: {found[case]}", file=sys.stderr, flush=True)
    rows = pd.DataFrame(table(found), columns=["what", "reach", "reached", "verdict"])
    about = {**machine(), "date": date.today().isoformat()}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps({"machine": about, "rows": rows.to_dict("records"), "cases": found}, indent=1) + "\n")
    print(rows.to_string(index=False), f"\n{about}\nwritten to {OUT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
