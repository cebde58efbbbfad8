"""How long networks and gene vectors take, and how good they are: python tests/bench/bench_network.py.

Prints a table and a line of JSON. It states times and never fails on them. With STRING beside the $TXT_DATA folder
it takes the whole of it, otherwise a random network of that size.
"""

import json
import time

import numpy as np
import pandas as pd

from txtlib.cohort import CohortError
from txtlib.network import link_auroc, make_network, node2vec, random_vectors, read_network, rewire, split_links

GENES, EDGES = 17_288, 174_962  # as in STRING v12, cut as described in the data folder


def whole_network() -> tuple[str, pd.DataFrame]:
    try:
        return "string_v12", read_network("string_v12")
    except CohortError:
        generator = np.random.default_rng(0)
        ends = np.char.add("G", generator.integers(0, GENES, (EDGES, 2)).astype(str))
        return "random", make_network(pd.DataFrame(ends).assign(score=generator.integers(400, 1000, EDGES)))


def timed(call, *arguments, **options):
    start = time.perf_counter()
    made = call(*arguments, **options)
    return made, time.perf_counter() - start


def spent(edges: pd.DataFrame) -> pd.DataFrame:
    """Seconds of each step on the whole network; the first embedding includes the compilation."""
    genes = sorted(set(edges["gene1"]) | set(edges["gene2"]))
    steps = {
        "node2vec, first call": (node2vec, edges, genes, {}),
        "node2vec": (node2vec, edges, genes, {}),
        "node2vec+, p = q = 1": (node2vec, edges, genes, {"weighted": True}),
        "node2vec+, q = 0.5": (node2vec, edges, genes, {"weighted": True, "q": 0.5}),
        "rewire, 10 swaps an edge": (rewire, edges, 0, {}),
    }
    rows = {name: timed(call, *arguments, **options)[1] for name, (call, *arguments, options) in steps.items()}
    return pd.Series(rows, name="seconds").to_frame()


def hidden_edges(edges: pd.DataFrame) -> dict[str, float]:
    """AUROC for hidden edges on the whole network, one hold-out."""
    links = split_links(edges, 0)
    genes = sorted(set(edges["gene1"]) | set(edges["gene2"]))
    made = node2vec(links.kept, genes)
    arms = {"node2vec": made, "rewired": node2vec(rewire(links.kept, 0), genes), "random": random_vectors(made, 0)}
    return {name: round(link_auroc(vectors, links), 4) for name, vectors in arms.items()}


def main() -> None:
    name, edges = whole_network()
    seconds, auroc = spent(edges), hidden_edges(edges)
    print(f"{name}: {len(edges):,} edges", seconds.round(2).to_string(), sep="\n")
    print("hidden edges, AUROC:", auroc)
    print(json.dumps({"network": name, "seconds": seconds["seconds"].round(3).to_dict(), "auroc": auroc}))


if __name__ == "__main__":
    main()
