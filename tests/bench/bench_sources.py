"""How long a matrix of GSE96058's size takes, in and out: python tests/bench/bench_sources.py [genes samples].

Generates the source's files (30,865 genes x 3,409 libraries, up to 17 digits a value, 0.9 GB of csv.gz) in a temporary
folder, makes the cohort folder in a process of its own, and loads it in others, the time to import what loading needs
included. Prints a table and a line of JSON: seconds, and peak resident memory. It states both and never fails on them.
"""

import gzip
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import csv

GENES, SAMPLES, REPLICATES = 30_865, 3_409, 136
MATRIX = "GSE96058_gene_expression_3273_samples_and_136_replicates_transformed.csv.gz"
SERIES = ("GSE96058-GPL11154_series_matrix.txt.gz", "GSE96058-GPL18573_series_matrix.txt.gz")
KEYS = ("age at diagnosis", "tumor size", "nhg", "pam50 subtype", "overall survival days", "overall survival event")
MEASURED = """
import json, resource, sys, time
from txtlib.cohort import load_cohort
from txtlib.sources import make
start = time.perf_counter()
{call}
seconds = time.perf_counter() - start
print(json.dumps({{"seconds": seconds, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}}))
"""


def write_matrix(path: Path, genes: int, names: list[str]) -> None:
    """Write log2(FPKM + 0.1): a tenth of the values is log2(0.1), the others have 15 to 17 digits."""
    generator = np.random.default_rng(0)
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(('"",' + ",".join(f'"{name}"' for name in names) + "\n").encode())
        for start in range(0, genes, 1000):
            rows = range(start, min(start + 1000, genes))
            values = generator.normal(0, 3, (len(rows), len(names)))
            values[generator.random(values.shape) < 0.1] = np.log2(0.1)
            columns = [pa.array([f"GENE{row}" for row in rows]), *map(pa.array, values.T.copy())]
            table = pa.Table.from_arrays(columns, ["gene", *names])
            csv.write_csv(table, file, csv.WriteOptions(include_header=False))


def write_series(path: Path, names: list[str]) -> None:
    labels = ([50, 60], [20, 10], ["G1", "G2"], ["LumA", "Basal"], [1000, 2000], [0, 1])
    rows = [["!Sample_title", *names]]
    rows += [
        ["!Sample_characteristics_ch1", *(f"{key}: {values[n % 2]}" for n, _ in enumerate(names))]
        for key, values in zip(KEYS, labels, strict=True)
    ]
    path.write_bytes(gzip.compress("".join("\t".join(row) + "\n" for row in rows).encode()))


def measured(call: str, *arguments, **settings) -> dict[str, float]:
    command = [sys.executable, "-c", MEASURED.format(call=call), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **settings}, check=False)
    print(done.stderr, end="", file=sys.stderr)
    return json.loads(done.stdout) if done.returncode == 0 else {"seconds": float("nan"), "peak_mb": float("nan")}


def main(genes: int = GENES, samples: int = SAMPLES) -> None:
    replicates = min(REPLICATES, samples // 3)
    names = [f"F{n}" for n in range(1, samples - replicates + 1)] + [f"F{n}repl" for n in range(1, replicates + 1)]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "dl").mkdir()
        write_matrix(place / "dl" / MATRIX, genes, names)
        for number, name in enumerate(SERIES):
            write_series(place / "dl" / name, names[number::2])
        size = (place / "dl" / MATRIX).stat().st_size / 2**20
        rows = {
            "csv.gz to cohort folder": measured("make('gse96058', sys.argv[1])", place, TXT_DOWNLOADS=str(place / "dl"))
        }
        for run in ("first", "second", "third"):
            rows[f"load, {run} time"] = measured("load_cohort(sys.argv[1])", place / "gse96058")
        parquet = place / "gse96058" / "expression.parquet"
        stored = parquet.stat().st_size / 2**20 if parquet.is_file() else float("nan")
    table = pd.DataFrame(rows).T
    print(f"{genes:,} genes x {samples:,} libraries; csv.gz {size:.0f} MB, Parquet {stored:.0f} MB")
    print(f"{os.cpu_count()} cores", table.round(1).to_string(), sep="\n")
    print(
        json.dumps({"genes": genes, "samples": samples, "csv_gz_mb": size, "parquet_mb": stored, **table.T.to_dict()})
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
