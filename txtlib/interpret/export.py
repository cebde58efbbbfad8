"""Graphs of attention for other programs: a table of edges, networkx, GraphML and CSV (Cytoscape reads both)."""

from collections.abc import Iterable
from pathlib import Path

import networkx as nx
import numpy as np
import pandas as pd

from txtlib.interpret.graphs import Graphs
from txtlib.interpret.groups import two_groups


def edge_shares(graphs: Graphs, samples: Iterable | None = None) -> np.ndarray:
    """Return the share of patients that have each edge, (G, G) [key, query]: of some samples, or of all."""
    chosen = graphs if samples is None else graphs.take(samples)
    counts = np.zeros((len(graphs.genes), len(graphs.genes)), np.int32)
    for matrix in chosen:
        counts += matrix
    return counts / len(chosen)


def edge_table(graphs: Graphs, samples: Iterable | None = None, above: float = 0.5) -> pd.DataFrame:
    """Return the edges that more than the share ``above`` of the patients have, the most frequent first.

    source is the key gene, target the query gene, share that of the patients: of some samples (for one patient's
    graph, that one), or of all. Raises ValueError for a share not in 0 <= above < 1, or a sample that is not there.
    """
    shares = edge_shares(graphs, samples)
    table = _ends(graphs, shares > _checked(above))
    table["share"] = shares[shares > above]
    return table.sort_values("share", ascending=False, kind="stable", ignore_index=True)


def difference_table(graphs: Graphs, a: Iterable, b: Iterable, above: float = 0.25) -> pd.DataFrame:
    """Return the edges whose shares in two groups of samples differ by more than ``above``, the largest first.

    source is the key gene, target the query gene, share_a and share_b those of the groups' patients, difference the
    first less the second. It describes, and tests nothing. Raises ValueError for an empty group, a sample in both,
    twice or not there, and an ``above`` not in 0 <= above < 1.
    """
    a, b = (graphs.samples[rows] for rows in two_groups(graphs.samples, a, b))
    shares = edge_shares(graphs, a), edge_shares(graphs, b)
    difference = shares[0] - shares[1]
    chosen = np.abs(difference) > _checked(above)
    columns = dict(share_a=shares[0], share_b=shares[1], difference=difference)
    table = _ends(graphs, chosen).assign(**{name: values[chosen] for name, values in columns.items()})
    order = table["difference"].abs().sort_values(ascending=False, kind="stable").index
    return table.loc[order].reset_index(drop=True)


def to_networkx(table: pd.DataFrame) -> nx.DiGraph:
    """Return a table of edges as a graph of its genes, with the table's other columns on the edges, and ``weight``.

    The weight is the share of ``edge_table``, and the size of the difference of ``difference_table``: layouts want
    none below 0. Genes without an edge in the table are not in the graph. Raises ValueError for any other table.
    """
    strength = next((name for name in ("share", "difference") if name in table), None)
    if strength is None or not {"source", "target"} <= set(table):
        raise ValueError(
            f"The table has the columns {', '.join(map(str, table))}; it needs source, target, share or difference: "
            "take it from edge_table or difference_table."
        )
    weighted = table.assign(weight=table[strength].abs())
    return nx.from_pandas_edgelist(weighted, edge_attr=True, create_using=nx.DiGraph)


def write_graphml(table: pd.DataFrame, path: str | Path) -> None:
    """Write ``to_networkx(table)`` as GraphML; OSError if it cannot be."""
    nx.write_graphml(to_networkx(table), path)


def write_edges_csv(table: pd.DataFrame, path: str | Path) -> None:
    """Write a table of edges as CSV: source, target and its other columns; OSError if it cannot be."""
    table.to_csv(path, index=False)


def _ends(graphs: Graphs, chosen: np.ndarray) -> pd.DataFrame:
    keys, queries = chosen.nonzero()
    return pd.DataFrame({"source": graphs.genes[keys], "target": graphs.genes[queries]})


def _checked(above: float) -> float:
    if not 0 <= above < 1:
        raise ValueError(f"above is {above}; an edge must be in more than a share of 0 or more, and below 1.")
    return above
