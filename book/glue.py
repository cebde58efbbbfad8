"""Glue: which numbers and figures the executed notebooks hand out, and which of them the pages ask for."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from nbformat import NotebookNode
from reading import BuildError, stem_of

ROLE = re.compile(r"\{glue(?P<kind>:\w*)?\}`(?P<text>[^`]+)`")
DIRECTIVE = re.compile(
    r"^[ \t>]*(?:`{3,}|:{3,})\{glue(?::\w*)?\}[ \t]+(?P<key>[^\n]+?)[ \t]*$(?P<options>(?:\n[ \t]*:\w+:.*)*)",
    flags=re.MULTILINE,
)


@dataclass(frozen=True)
class Use:
    """A page asks a notebook for a key; `notebook` is "" where a page that is no notebook names none."""

    page: str
    notebook: str
    key: str


def glued(node: NotebookNode) -> list[str]:
    """Return the keys that an executed notebook hands out, with repetitions."""
    outputs = (output for cell in node.cells for output in cell.get("outputs", []))
    found = (output.get("metadata", {}).get("scrapbook") for output in outputs)
    return [entry["name"] for entry in found if entry]


def glued_values(node: NotebookNode) -> dict[str, str]:
    """Return {key: text} of what an executed notebook hands out; figures and tables without a text are left out."""
    found = {}
    for cell in node.cells:
        for output in cell.get("outputs", []):
            entry, data = output.get("metadata", {}).get("scrapbook"), output.get("data", {})
            text = data.get(f"{entry.get('mime_prefix', '')}text/plain") if entry else None
            if text is not None:
                found[entry["name"]] = text.strip("'\"")
    return found


def uses(page: str, text: str) -> Iterator[Use]:
    """Yield what the text of a page asks for, by role or by directive."""
    for match in ROLE.finditer(text):
        yield _role_use(page, match)
    for match in DIRECTIVE.finditer(text):
        doc = re.search(r":doc:\s*(\S+)", match["options"])
        yield Use(page, stem_of(doc[1]) if doc else _own(page), match["key"])


def _role_use(page: str, match: re.Match) -> Use:
    text = match["text"]
    if match["kind"] in (":text", ":md") and ":" in text:
        text = text.rsplit(":", 1)[0]  # MyST-NB takes whatever follows the last colon for the format
    doc, found, key = text.rpartition("::")
    return Use(page, stem_of(doc) if found else _own(page), key)


def _own(page: str) -> str:
    return stem_of(page) if page.startswith("notebooks/") else ""


def check(asked: Iterable[Use], keys: dict[str, list[str]], notebooks: Iterable[str]) -> None:
    """Raise BuildError for a key glued twice, or asked for and not glued.

    `keys` holds the executed notebooks only; what a page asks of another one cannot be checked yet.
    """
    _check_unique(keys)
    for use in asked:
        if not use.notebook or use.key.endswith(":"):
            raise BuildError(
                f"{use.page} asks for the glue key {use.key!r} without a notebook or without a format; "
                "write it as ../notebooks/NN_topic.ipynb::key:s"
            )
        if use.notebook not in notebooks:
            raise BuildError(f"{use.page} asks for {use.key!r} of notebook {use.notebook}, which is not there")
        if use.key not in keys.get(use.notebook, [use.key]):
            raise BuildError(
                f"{use.page} asks for the glue key {use.key!r}, which notebook {use.notebook} does not glue"
            )


def _check_unique(keys: dict[str, list[str]]) -> None:
    owner = {}
    for stem, names in keys.items():
        for name in names:
            if name in owner:
                raise BuildError(f"the glue key {name!r} is used twice: in {owner[name]} and in {stem}")
            owner[name] = stem


def without_roles(page: str, text: str, missing: set[str]) -> str:
    """Replace roles that ask a notebook of `missing` by words: no stand-in would fit every format."""

    def words(match: re.Match) -> str:
        return "(not executed)" if _role_use(page, match).notebook in missing else match[0]

    return ROLE.sub(words, text)
