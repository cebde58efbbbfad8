"""How long looking inside takes: python tests/bench/bench_perturbation.py.

Every gene up and down in every patient, beside the slow obvious twin (one gene of one patient at a time, measured on a
few and counted up); then integrated gradients, and one patient's at 1,000 genes. Each case runs in a process of its
own, so that its peak memory is its own. It states times and never fails on them; the aim is 5 minutes for 300 genes
and 80 patients on 2 cores. cpu_s is the time of all cores together: it shows where other work held up the clock.
"""

import argparse
import json
import subprocess
import sys
import time

import numpy as np
import pandas as pd

from txtlib.cohort import Cohort
from txtlib.interpret.attribution import integrated_gradients
from txtlib.interpret.perturbation import answers, perturb
from txtlib.interpret.pruning import prune_heads
from txtlib.measure import GB, machine, peak_bytes
from txtlib.planted import planted
from txtlib.preprocess import fit_preprocessor
from txtlib.training import Trained
from txtlib.variants import variant

HORIZON = 1500.0
TWIN = 60  # single answers that are timed


def case(genes: int, patients: int, layers: int, readout: str) -> tuple[Trained, Cohort]:
    """A network as it starts, which is as fast as a trained one, and patients."""
    cohort = planted(n=500, n_genes=genes, event_rate=0.5).cohort
    preprocessor = fit_preprocessor(cohort, n_genes=genes)
    network = variant("value token", n_genes=genes, outputs=preprocessor.outputs, layers=layers, readout=readout)
    trained = Trained(network, preprocessor, pd.DataFrame(), pd.DataFrame(), 0)
    return trained, cohort.take(cohort.samples[:patients])


def timed(call) -> dict:
    clock, cpu = time.perf_counter(), time.process_time()
    call()
    return dict(seconds=time.perf_counter() - clock, cpu_s=time.process_time() - cpu, peak_gb=peak_bytes() / GB)


def up_and_down(genes: int, patients: int, layers: int, readout: str) -> dict:
    trained, cohort = case(genes, patients, layers, readout)
    x = trained.preprocessor.expression(cohort)
    answers(trained, x, HORIZON)  # warm
    spent = timed(lambda: perturb(trained, cohort, (-0.5, 0.5), HORIZON).table())
    one = timed(lambda: [answers(trained, x[:1], HORIZON) for _ in range(TWIN)])["seconds"] / TWIN
    return {**spent, "twin_s": one * 2 * genes * patients}


def shares(genes: int, patients: int, layers: int, readout: str) -> dict:
    trained, cohort = case(genes, patients, layers, readout)
    return timed(lambda: integrated_gradients(trained, cohort, np.zeros(genes), "OS", horizon=HORIZON))


def heads(genes: int, patients: int, layers: int, readout: str) -> dict:
    trained, cohort = case(genes, patients, layers, readout)
    return timed(lambda: prune_heads(trained, cohort, cohort, HORIZON))


LOOKS = {"up and down": up_and_down, "integrated gradients, 50 steps": shares, "each head off, 500 resamples": heads}
CASES = (
    ("up and down", 300, 80, 2, "mean"),
    ("up and down", 300, 80, 8, "mean"),
    ("up and down", 1000, 1, 8, "mean"),
    ("integrated gradients, 50 steps", 300, 80, 2, "mean"),
    ("integrated gradients, 50 steps", 1000, 4, 8, "mean"),
    ("each head off, 500 resamples", 300, 80, 2, "mean"),
    ("each head off, 500 resamples", 1000, 400, 2, "flatten"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", type=int)
    number = parser.parse_args().case
    if number is not None:
        look, *size = CASES[number]
        print(json.dumps(LOOKS[look](*size)))
        return
    rows = []
    for number, each in enumerate(CASES):
        command = [sys.executable, __file__, "--case", str(number)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        named = dict(zip(("look", "genes", "patients", "layers", "readout"), each, strict=True))
        rows.append({**named, **json.loads(done.stdout.splitlines()[-1])})
        print(rows[-1], file=sys.stderr, flush=True)
    print(pd.DataFrame(rows).round(2).to_string(index=False), machine(), sep="\n\n")


if __name__ == "__main__":
    main()
