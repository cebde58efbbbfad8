"""Seconds and memory of attention graphs: python tests/bench/bench_attention.py [genes patients].

400 patients, 1,000 genes, an untrained TxT of 2 layers and width 16. Prints a table, with the peak memory of the
process up to each step: once at the article's cut, once at one so low that the graphs are complete, each in a
process of its own. It never fails on a clock; it does where the peak is above LIMIT.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch

from txtlib.interpret.export import edge_table, write_graphml
from txtlib.interpret.graphs import attention_graphs, attractors, cut, degrees, edges_within, hubs, reciprocity
from txtlib.interpret.groups import compare_groups
from txtlib.interpret.nulls import permuted_labels, rewired
from txtlib.measure import GB, machine, peak_bytes
from txtlib.model import TxT

LIMIT = 2.0  # GB
CUTS = {"0.01": dict(weight=0.01), "half of uniform": dict(times_uniform=0.5)}


def steps(which: str, n_genes: int, n: int) -> list[dict]:
    """Take every step at one of the cuts; return a row for each."""
    rows = []

    def timed(step: str, call, *arguments):
        start = time.perf_counter()
        found = call(*arguments)
        rows.append(dict(cut=which, step=step, seconds=time.perf_counter() - start, peak_gb=peak_bytes() / GB))
        return found

    samples, genes = [f"S{row}" for row in range(n)], [f"G{gene}" for gene in range(n_genes)]
    x = torch.rand(n, n_genes, generator=torch.Generator().manual_seed(0)).numpy()
    network = TxT(n_genes, {"OS": 64}, width=16, layers=2, readout="mean")
    threshold = cut(n_genes, **CUTS[which])
    timed("torch and txtlib imported", lambda: None)
    graphs = timed("graphs", attention_graphs, network, x, samples, genes, threshold)
    found = timed("degrees", degrees, graphs)
    rows[-1]["density"] = found.out.to_numpy().mean() / (n_genes - 1)
    marks = timed("hubs and attractors", lambda: (hubs(found), attractors(found)))[0]
    groups = samples[: n // 3], samples[n // 3 :]
    timed("hubs of two groups", compare_groups, marks, *groups)
    timed("1,000 permuted labels", permuted_labels, marks, *groups)
    timed("reciprocity", reciprocity, graphs)
    sets = {f"set {start}": genes[start : start + 40] for start in range(0, n_genes, 20)}
    timed("edges within 50 sets", edges_within, graphs, sets)
    timed("all graphs rewired once", rewired, graphs, 0)
    table = timed("edges of more than half", edge_table, graphs)
    with tempfile.TemporaryDirectory() as folder:
        timed(f"GraphML, first {len(table[:50_000])} edges", write_graphml, table[:50_000], Path(folder) / "g.graphml")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sizes", nargs="*", type=int, default=[1000, 400])
    parser.add_argument("--cut", choices=CUTS)
    given = parser.parse_args()
    if given.cut:
        print(json.dumps(steps(given.cut, *given.sizes)))
        return
    rows = []
    for which in CUTS:
        command = [sys.executable, __file__, *map(str, given.sizes), "--cut", which]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        rows += json.loads(done.stdout.splitlines()[-1])
    table = pd.DataFrame(rows)
    print(table.round(3).to_string(index=False, na_rep=""), machine(), sep="\n")
    peak = table["peak_gb"].max()
    if peak > LIMIT:
        sys.exit(f"The peak of {peak:.2f} GB is above the limit of {LIMIT:g} GB.")


if __name__ == "__main__":
    main()
