"""How long a planted world takes, and how it looks beside the real SCAN-B: python tests/bench/bench_planted.py.

Prints a table and a line of JSON. It states times and never fails on them.
"""

import json
import time

import pandas as pd

from txtlib.cohort import CohortError, load_cohort
from txtlib.planted import marginals, planted, second_site

SIZES = ((600, 300), (4000, 300), (2000, 1000), (10_000, 1000), (1000, 10_000))


def seconds(call, *arguments, repeats=3, **options) -> float:
    """The fastest of a few runs."""
    spent = []
    for _ in range(repeats):
        start = time.perf_counter()
        call(*arguments, **options)
        spent.append(time.perf_counter() - start)
    return min(spent)


def timings() -> pd.DataFrame:
    rows = []
    for n, n_genes in SIZES:
        world = planted(n, n_genes)
        rows.append((n, n_genes, seconds(planted, n, n_genes), seconds(second_site, world, n)))
    return pd.DataFrame(rows, columns=["patients", "genes", "planted_s", "second_site_s"])


def side_by_side() -> pd.DataFrame:
    """Marginals of the planted sites, and of the real cohorts that are at hand."""
    columns = {"planted": planted().cohort, "planted_large": planted(n=4000).cohort}
    columns["planted_site2"] = second_site(planted()).cohort
    for name in ("scanb", "metabric"):
        try:
            columns[name] = load_cohort(name)
        except CohortError:
            print(f"{name}: not found; set TXT_DATA to the folder that holds it")
    return pd.DataFrame({name: marginals(cohort) for name, cohort in columns.items()})


def main() -> None:
    spent, looks = timings(), side_by_side()
    print(spent.round(3).to_string(index=False), looks.round(3).to_string(), sep="\n\n")
    print(json.dumps({"seconds": spent.round(4).to_dict("records"), "marginals": json.loads(looks.to_json())}))


if __name__ == "__main__":
    main()
