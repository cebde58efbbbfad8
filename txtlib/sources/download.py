"""Source files on disk: found in a folder of downloads, or downloaded, resumed, retried and verified.

Settings: ``TXT_DOWNLOADS``, a folder of files that are there already (and where new ones go); ``TXT_MIRROR``, an
address that takes the place of scheme and host of every source (``https://mirror.example/data`` or ``file:///folder``);
the usual ``http_proxy``, ``https_proxy`` and ``no_proxy``.
"""

import os
import shutil
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pooch
import requests
import urllib3
import yaml
from tqdm import tqdm

from txtlib.cohort import CohortError
from txtlib.sources.registry import Source

ATTEMPTS = 4
TIMEOUT = 60  # seconds without a byte
BLOCK = 1 << 18
ABSENT = (403, 404, 410)
PASSING = (408, 429, 500, 502, 503, 504)
BROKEN = (requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError)


class Fetched(NamedTuple):
    """A verified file: ``date`` is the day (UTC) on which it was put there, ``bytes`` its size."""

    path: Path
    url: str
    date: str
    bytes: int
    sha256: str


class _PassingError(OSError):
    """The server could not answer this time."""


def downloads(where: Path) -> Path:
    """Return the folder of downloaded files: ``$TXT_DOWNLOADS``, or ``downloads`` in ``where``."""
    return Path(os.environ.get("TXT_DOWNLOADS") or where / "downloads")


def fetch(source: Source, where: Path) -> Fetched:
    """Return a source file, from the folder of downloads or from the first address that has it.

    Raises CohortError: no network, a wrong checksum, a full disk. A partial file stays for the next run.
    """
    folder, known = downloads(where), recorded(where)
    for url, name in source.names().items():
        if (folder / name).is_file():
            return _verified(folder / name, url, source, known.get(name))
    for url, name in source.names().items():
        if _download(url, folder / name, source, known.get(name)):
            return _verified(folder / name, url, source, known.get(name))
    raise CohortError(
        f"{', '.join(map(mirrored, source.urls))}: the server does not give this file (it answers 403 or 404); look "
        f"for its new address and correct data/sources.yml, or put the file into {folder}."
    )


def recorded(where: Path) -> dict[str, dict]:
    """Return what the first use of each file has recorded, {file name: {sha256, bytes, url, date}}."""
    path = where / "checksums.yml"
    return (yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if path.is_file() else {}


def record(fetched: list[Fetched], where: Path) -> None:
    """Add files to ``checksums.yml``, which later files of the same names must match."""
    new = {file.path.name: {key: getattr(file, key) for key in ("sha256", "bytes", "url", "date")} for file in fetched}
    draft = where / ".checksums.yml"
    draft.write_text(yaml.safe_dump(recorded(where) | new, sort_keys=False), encoding="utf-8")
    draft.replace(where / "checksums.yml")


def mirrored(url: str) -> str:
    """Return an address with ``$TXT_MIRROR``, if set, in the place of its scheme and host."""
    mirror = os.environ.get("TXT_MIRROR")
    return mirror.rstrip("/") + urlsplit(url).path if mirror else url


def _verified(path: Path, url: str, source: Source, known: dict | None) -> Fetched:
    found = pooch.file_hash(str(path))
    for wanted, place in ((source.sha256, "data/sources.yml"), ((known or {}).get("sha256"), "checksums.yml")):
        if wanted is not None and found != wanted:
            raise CohortError(
                f"{path} has the sha256 {found}, but {place} says {wanted}; remove the file, and it is downloaded "
                f"again, or, if you trust the new file, correct {place}."
            )
    date = datetime.fromtimestamp(path.stat().st_mtime, UTC).date().isoformat()
    return Fetched(path, url, date, path.stat().st_size, found)


def _download(url: str, path: Path, source: Source, known: dict | None) -> bool:
    """Download a file with pooch, which checks it and moves it into place; return False if there is no such file."""
    expected = (known or {}).get("sha256") or source.sha256
    pooch.get_logger().setLevel("WARNING")
    try:
        arguments = {"fname": path.name, "path": path.parent, "downloader": partial(_persist, path=path)}
        pooch.retrieve(mirrored(url), known_hash=expected, **arguments)
    except FileNotFoundError:
        return False
    except (OSError, urllib3.exceptions.HTTPError) as error:
        raise CohortError(f"{mirrored(url)} could not be downloaded ({_reason(error)}); {_remedy(path)}") from error
    except ValueError as error:  # pooch has removed the file
        raise CohortError(
            f"{mirrored(url)} does not have the sha256 {expected} that is recorded; the download was removed: try "
            "again, or, if the source has published a new file, correct data/sources.yml or checksums.yml."
        ) from error
    return True


def _remedy(path: Path) -> str:
    part = _part(path)
    size = part.stat().st_size if part.is_file() else 0
    return (
        "check the network, the free disk space and https_proxy, set TXT_MIRROR, or put the file into "
        f"{path.parent}" + (f"; {part} keeps the {size} bytes so far, and the next run goes on there." if size else ".")
    )


def _reason(error: Exception) -> str:
    if isinstance(error, _PassingError):
        return str(error)
    if isinstance(error, requests.Timeout):
        return f"no answer within {TIMEOUT} seconds"
    if isinstance(error, requests.HTTPError):
        return f"the server answers {error.response.status_code}"
    return "no connection" if isinstance(error, requests.ConnectionError) else str(error)


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _persist(url: str, output: str, _pooch, path: Path) -> None:
    """Bring a file to ``output`` by way of ``path.part``, with retries that go on where the last one stopped."""
    part = _part(path)
    for attempt in range(ATTEMPTS):
        try:
            _copy(url, part) if urlsplit(url).scheme == "file" else _resume(url, part)
            break
        except (*BROKEN, _PassingError):
            if attempt == ATTEMPTS - 1:
                raise
            time.sleep(2**attempt)
    shutil.move(part, output)


def _copy(url: str, part: Path) -> None:
    shutil.copyfile(url2pathname(urlsplit(url).path), part)


def _resume(url: str, part: Path) -> None:
    """Append to ``part`` what it lacks; a server without ranges sends everything again."""
    have = part.stat().st_size if part.is_file() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        if answer.status_code == 416 and answer.headers.get("Content-Range") == f"bytes */{have}":
            return  # it was whole already
        if answer.status_code == 416:
            part.unlink()
            raise _PassingError("the server refuses to resume")
        if answer.status_code in ABSENT:
            raise FileNotFoundError(url)
        if answer.status_code in PASSING:
            raise _PassingError(f"the server answers {answer.status_code}")
        answer.raise_for_status()
        _save(answer, part, have if answer.status_code == 206 else 0)


def _save(answer: requests.Response, part: Path, have: int) -> None:
    length = answer.headers.get("Content-Length")
    total = have + int(length) if length else None
    with (
        open(part, "ab" if have else "wb") as file,
        tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=part.stem, leave=False) as bar,
    ):
        for block in answer.raw.stream(BLOCK, decode_content=False):  # as it is stored, or the length would not fit
            file.write(block)
            bar.update(len(block))
    size = part.stat().st_size
    if total is not None and size != total:
        raise _PassingError(f"the connection ended after {size} of {total} bytes")
