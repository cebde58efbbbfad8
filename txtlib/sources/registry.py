"""The registry of public source files, ``data/sources.yml``, as values."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml

REGISTRY = Path(__file__).parents[2] / "data" / "sources.yml"


@dataclass(frozen=True)
class Source:
    """One source file; ``size`` in bytes and ``sha256`` are None where nobody has recorded them yet."""

    urls: tuple[str, ...]
    licence: str
    citation: tuple[str, ...]
    file: str | None = None
    size: int | None = None
    sha256: str | None = None

    def names(self) -> dict[str, str]:
        """Return the name on disk of the file behind each address, {url: name}."""
        return {url: self.file or unquote(urlsplit(url).path).rsplit("/", 1)[-1] for url in self.urls}


def read_registry(path: Path | None = None) -> dict[str, dict]:
    """Return the registry as it is written, {cohort: {name, what, notes, files}}."""
    return yaml.safe_load((path or REGISTRY).read_text(encoding="utf-8"))


def sources_of(name: str) -> dict[str, Source]:
    """Return the source files of a cohort, network or gene set by their keys in the registry."""
    return {key: _source(entry) for key, entry in read_registry()[name]["files"].items()}


def _source(entry: dict) -> Source:
    values = {key: entry.get(key) for key in ("licence", "file", "sha256")}
    return Source(urls=tuple(entry["urls"]), citation=tuple(entry["citation"]), size=entry.get("bytes"), **values)
