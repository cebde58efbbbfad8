"""From the registry of public sources, ``data/sources.yml``, to the tables of the page on data sources."""

from pathlib import Path
from urllib.parse import unquote

import yaml

DOI = "https://doi.org/"


def sources_tables(path: Path) -> str:
    """Return the registry in Markdown, for a page of `book/` to include: a table of sources, and one of their files."""
    registry = yaml.safe_load(path.read_text(encoding="utf-8"))
    sources = [_source_row(key, entry) for key, entry in registry.items()]
    files = [_file_row(key, file) for key, entry in registry.items() for file in entry["files"].values()]
    return "\n".join(
        [
            _row("Data", "What you get", "Licence", "Citation", "How to get it"),
            _row(*[":--"] * 5),
            *sources,
            "",
            "## The files",
            "",
            _row("For", "File", "Format", "Address"),
            _row(*[":--"] * 4),
            *files,
            "",
        ]
    )


def _source_row(key: str, entry: dict) -> str:
    files = entry["files"].values()
    licences = dict.fromkeys(file["licence"] for file in files)
    citations = dict.fromkeys(doi for file in files for doi in file["citation"])
    what = "; ".join(filter(None, [entry["what"], entry["notes"]]))
    links = ", ".join(f"[{doi}]({DOI}{doi})" for doi in citations)
    return _row(entry["name"], what, "; ".join(licences), links, f"`make data COHORT={key}`")


def _file_row(key: str, file: dict) -> str:
    size = f" ({file['bytes']:,} bytes)" if file["bytes"] else ""
    hosts = ", or ".join(f"[{url.split('/')[2]}]({url})" for url in file["urls"])
    notes = f"; {file['notes']}" if file.get("notes") else ""
    names = " or ".join(f"`{name}`" for name in dict.fromkeys(_name(file, url) for url in file["urls"]))
    return _row(f"`{key}`", f"{names}: {file['what']}", file["format"] + size, hosts + notes)


def _name(file: dict, url: str) -> str:
    return file.get("file") or unquote(url).rsplit("/", 1)[-1]  # as txtlib/sources/registry.py names it on disk


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"
