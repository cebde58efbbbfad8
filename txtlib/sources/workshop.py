"""From the name of a source to a finished folder or file: fetch, read, write whole or not at all, say where from."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import yaml

from txtlib import cohort as cohorts
from txtlib.cohort import Cohort, CohortError, Task, write_cohort
from txtlib.sources.download import Fetched, fetch, record
from txtlib.sources.metabric import metabric
from txtlib.sources.networks import hallmark, string
from txtlib.sources.registry import Source, sources_of
from txtlib.sources.scanb import gse96058, scanb
from txtlib.sources.xena import target_aml, tcga_brca, tcga_target_gtex


class Recipe(NamedTuple):
    """``read`` turns {key: path} into a Cohort or the bytes of a file, for the path ``target`` under data/raw."""

    read: Callable[..., Cohort | bytes]
    target: str


RECIPES = {
    **{r.__name__: Recipe(r, r.__name__) for r in (scanb, gse96058, metabric, tcga_brca, target_aml, tcga_target_gtex)},
    "string": Recipe(string, "networks/string_v12.csv.gz"),
    "hallmark": Recipe(hallmark, "genesets/h.all.v2023.2.Hs.symbols.gmt"),
}


def make(name: str, where: str | Path | None = None, **options) -> Path:
    """Make a cohort folder, network or gene set in ``where`` (default ``data/raw``), and return its path.

    What is there already, made with the same options, stays. Raises CohortError with one sentence on what failed;
    then nothing half-written is left, and a partial download goes on at the next call.
    """
    if name not in RECIPES:
        raise CohortError(f"There is no recipe {name!r}; choose one of {', '.join(RECIPES)}.")
    recipe, where = RECIPES[name], Path(where or cohorts.RAW)
    target, sources = where / recipe.target, sources_of(name)
    if stands(target, options):
        return target
    try:
        where.mkdir(parents=True, exist_ok=True)
        fetched = {key: fetch(source, where) for key, source in sources.items()}
        made = recipe.read({key: file.path for key, file in fetched.items()}, **options)
        _write(made, target, provenance(name, fetched, sources, options))
        record(list(fetched.values()), where)
    except OSError as error:
        raise CohortError(f"{target} was not written ({error}); see to the disk, and run it again.") from error
    return target


def stands(target: Path, options: dict) -> bool:
    """Say whether a target is there, and was made with these options (one without a record of them counts)."""
    record_of = _record_file(target)
    if not target.exists() or not record_of.is_file():
        return target.exists()
    return (yaml.safe_load(record_of.read_text(encoding="utf-8")) or {}).get("options", {}) == options


def _record_file(target: Path) -> Path:
    return target / "provenance.yml" if target.is_dir() else target.with_name(f"{target.name}.provenance.yml")


def provenance(name: str, fetched: dict[str, Fetched], sources: dict[str, Source], options: dict) -> str:
    """Return the provenance record, YAML: of each file its address, date, bytes, sha256, licence and citation."""
    files = [
        {
            "file": file.path.name,
            **{key: getattr(file, key) for key in ("url", "date", "bytes", "sha256")},
            "licence": sources[key].licence,
            "citation": list(sources[key].citation),
        }
        for key, file in fetched.items()
    ]
    made = datetime.now(UTC).isoformat(timespec="seconds")
    text = {"recipe": f"txtlib.sources, {name}", "made": made, "options": options, "files": files}
    return yaml.safe_dump(text, sort_keys=False, allow_unicode=True)


def _write(made: Cohort | bytes, target: Path, record_of: str) -> None:
    if isinstance(made, Cohort):
        main, files = endpoints(made)
        write_cohort(main, target, {**files, "provenance.yml": record_of})
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}-{os.getpid()}")
    try:
        draft.write_bytes(made)
        _record_file(target).write_text(record_of, encoding="utf-8")
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def endpoints(cohort: Cohort) -> tuple[Cohort, dict[str, str]]:
    """Return the cohort with its first endpoint, and a task file for each further one (tasks_DRFi.csv)."""
    survival = [task for task in cohort.tasks if task.kind == "survival"]
    others = [task for task in cohort.tasks if task.kind != "survival"]
    first = cohort.with_tasks(*(task.name for task in (*others, *survival[:1])))
    return first, {f"tasks_{task.name}.csv": task_file([*others, task]) for task in survival[1:]}


def task_file(tasks: list[Task]) -> str:
    """Return the text of a task file."""
    rows = ["name,task"]
    for task in tasks:
        kinds = ("survival_time", "survival_event") if task.kind == "survival" else (task.kind,)
        rows += [f"{column},{kind}" for column, kind in zip(task.columns, kinds, strict=True)]
    return "\n".join(rows) + "\n"
