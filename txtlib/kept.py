"""Finished cells of a long run as the repository keeps them: scores and where they come from, nobody's answer.

A line of JSON for each cell, in one compressed file. From it a run goes on in another checkout or on another machine,
and any table of the run can be made again without a single training.
"""

import json
import lzma
from collections.abc import Iterable
from pathlib import Path

from txtlib.benchmark import same_but_code, shortened

LEFT_OUT = ("traceback",)  # it names files of a machine


def kept_records(path: str | Path) -> list[dict]:
    """Return the records of a file that ``keep`` wrote, none if there is no file; ValueError for a torn one."""
    if not Path(path).is_file():
        return []
    try:
        with lzma.open(path, "rt", encoding="utf-8") as file:
            return [json.loads(line) for line in file]
    except (lzma.LZMAError, EOFError, ValueError) as error:
        raise ValueError(
            f"{path} is torn, or is no file of kept cells ({error}); restore it from the repository, or remove it and "
            "run the cells again."
        ) from error


def keep(records: Iterable[dict], path: str | Path) -> None:
    """Write the records of cells that have a result, sorted by key, so that the same cells are the same bytes.

    A long setting, say gene sets, is kept as a hash; ``alike`` is what it had made of the cell's identity, by which a
    result of other code is found.
    """
    lines = sorted(json.dumps(_slim(record), sort_keys=True) for record in records if not record["error"])
    with lzma.open(path, "wt", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{line}\n" for line in lines)


def alike(record: dict) -> str:
    """Return a hash of all that decides a cell's result except the code."""
    return record.get("alike") or same_but_code(record["identity"])


def _slim(record: dict) -> dict:
    identity, chosen = record["identity"], record.get("chosen", {})
    slim = {key: value for key, value in record.items() if key not in LEFT_OUT}
    return slim | {
        "alike": alike(record),
        "identity": identity | {"settings": shortened(identity["settings"]), "tried": _all(identity["tried"])},
        "chosen": {tasks: shortened(own) for tasks, own in chosen.items()},
    }


def _all(tried: list[dict]) -> list[dict]:
    return [shortened(one) for one in tried]
