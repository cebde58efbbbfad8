"""The fingerprint of a notebook: everything that its execution depends on, as one hash of contents.

Not seen: a module whose name is put together while the code runs, and a file whose path is.
"""

import ast
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path

from IPython.core.inputtransformer2 import TransformerManager
from nbformat import NotebookNode
from reading import BuildError, declared, needs, tags

LIBRARY = "txtlib"
TIMED = re.compile(r"^(%%(time|timeit|capture)\b.*|%time[ \t]+)", flags=re.MULTILINE)  # what follows is code
FindInput = Callable[[str, str], Path | None]  # a parameter's name and value -> the file or folder behind it


def fingerprints(
    notebooks: dict[str, NotebookNode], values: dict[str, dict], root: Path, find_input: FindInput
) -> dict[str, str]:
    """Return the fingerprint of every notebook: stem -> hex digest.

    `values` are the parameters that the profile sets; `find_input` finds what a parameter names: a cohort, a network.
    """
    hashed = cache(content)  # of one build: a cohort that six notebooks read is hashed once
    found = {}
    for stem in in_order(notebooks):
        node = notebooks[stem]
        inputs = [hashed(path) for path in inputs_of(stem, node, values[stem], root, find_input)]
        before = [found[name] for name in needs(node)]
        given = json.dumps(values[stem], sort_keys=True, default=str)  # YAML also knows dates
        found[stem] = digest(source(node), given, *before, *inputs)
    return found


def inputs_of(stem: str, node: NotebookNode, values: dict, root: Path, find_input: FindInput) -> list[Path]:
    """Return the files and folders that a notebook reads, as far as its code and parameters tell."""
    code = code_of(stem, node)
    library = library_files([code], root)
    named = named_files([code, *map(_text, library)], root)
    defaults = {name: value for name, (_, value) in declared(stem, node).items()}
    versions = filter(Path.is_file, [root / "constraints.txt"])
    return [*library, *named, *parameter_files(defaults | values, root, find_input), *versions]


def in_order(notebooks: dict[str, NotebookNode]) -> list[str]:
    """Return the stems, every notebook after those it needs; raise BuildError for a circle."""
    try:
        return list(TopologicalSorter({stem: needs(node) for stem, node in notebooks.items()}).static_order())
    except CycleError as error:
        raise BuildError(f"these notebooks need each other: {' -> '.join(error.args[1])}") from error


def digest(*parts: str) -> str:
    """Return one hash of several texts; the lengths keep ("ab", "c") and ("a", "bc") apart."""
    return hashlib.sha256("".join(f"{len(part)}:{part}" for part in parts).encode()).hexdigest()


@cache
def hashed(path: Path) -> str:
    """Return the hash of a content, read once: inputs do not change while a book is built."""
    return content(path)


def content(path: Path) -> str:
    """Return the hash of a file's content, or of the names and contents of all files in a folder."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return digest(*(f"{file.relative_to(path).as_posix()} {content(file)}" for file in files))
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def source(node: NotebookNode) -> str:
    """Return what counts of a notebook: cell types, sources, tags, figure settings, `txt` metadata."""
    cells = [[cell.cell_type, cell.source, tags(cell), cell.metadata.get("mystnb")] for cell in node.cells]
    return json.dumps([cells, node.metadata.get("txt")], sort_keys=True)


def code_of(stem: str, node: NotebookNode) -> str:
    """Return the code cells as one Python text, magics translated; raise BuildError for no Python."""
    texts = []
    for number, cell in enumerate(node.cells, start=1):
        if cell.cell_type != "code":
            continue
        text = TransformerManager().transform_cell(TIMED.sub("", cell.source))
        _parse(text, f"cell {number} of notebook {stem}")
        texts.append(text)
    return "\n".join(texts)


def _parse(text: str, place: str) -> ast.Module:
    try:
        return ast.parse(text)
    except SyntaxError as error:
        raise BuildError(f"{place} is not Python: {error.msg}, line {error.lineno}") from error


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def library_files(texts: Iterable[str], root: Path) -> list[Path]:
    """Return the library files that some code imports, directly or through other library files, sorted."""
    found, queue = set(), [(text, "") for text in texts]
    while queue:
        text, package = queue.pop()
        for name in imports(text, package):
            new = set(_module_files(name, root)) - found
            found |= new
            queue += [_library_text(file.relative_to(root), root) for file in new]
    return sorted(found)


def _library_text(file: Path, root: Path) -> tuple[str, str]:
    """Return the text of a library file and the package that it is in."""
    text = _text(root / file)
    _parse(text, file.as_posix())
    return text, ".".join(file.parent.parts)


@cache
def imports(text: str, package: str) -> frozenset[str]:
    """Return the library modules (or names in them) that a text in `package` imports or names."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        found |= set(_imported(node, package))
    return frozenset(name for name in found if name.split(".")[0] == LIBRARY)


def _imported(node: ast.AST, package: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = _absolute("." * node.level + (node.module or ""), package)
        yield from (f"{base}.{alias.name}" for alias in node.names)
    elif _is_text(node) and re.fullmatch(rf"{LIBRARY}(\.\w+)+", node.value):
        yield node.value


def _absolute(name: str, package: str) -> str:
    try:
        return resolve_name(name, package)
    except ImportError:  # a relative import that leads nowhere: running it will say so
        return ""


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _module_files(name: str, root: Path) -> Iterator[Path]:
    """Yield the file of a module and those of the packages around it."""
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        stem = root.joinpath(*parts[:depth])
        yield from (file for file in (stem.with_suffix(".py"), stem / "__init__.py") if file.is_file())


def named_files(texts: Iterable[str], root: Path) -> list[Path]:
    """Return the files that strings in some code name by a path from the root, sorted.

    A path that starts elsewhere is none of ours: /proc/self/status has no lasting content.
    """
    names = {name for text in texts for name in _strings(text) if "/" in name and not os.path.isabs(name)}
    return sorted(root / name for name in names if os.path.isfile(root / name))


@cache
def _strings(text: str) -> frozenset[str]:
    return frozenset(node.value for node in ast.walk(ast.parse(text)) if _is_text(node))


def parameter_files(values: dict[str, object], root: Path, find_input: FindInput) -> list[Path]:
    """Return the files and folders behind text parameters: paths, and names that `find_input` knows.

    What lies in `_build` was made by notebooks: where one keeps its trainings is none of its inputs.
    """
    around = {root, *root.parents}
    found = []
    for name, value in values.items():
        for text in value if isinstance(value, list) else [value]:
            path = _input(name, text, root, find_input) if isinstance(text, str) and text else None
            made = path and path.resolve().is_relative_to(root.resolve() / "_build")
            found += [path] if path and not made and path.resolve() not in around else []
    return found


def named_inputs(stem: str, node: NotebookNode, values: dict, root: Path, find_input: FindInput) -> dict[str, str]:
    """Return what a notebook's parameters name, {name: the first digits of its content's hash, "" for no file}."""
    used = {name: value for name, (_, value) in declared(stem, node).items()} | values
    found = {}
    for name, value in used.items():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and text and re.search(r"(cohorts?|network|gene_sets)$", name):
                path = _input(name, text, root, find_input)
                found[Path(text).name] = hashed(path)[:12] if path else ""
    return found


def _input(name: str, text: str, root: Path, find_input: FindInput) -> Path | None:
    if os.path.exists(root / text):
        return root / text
    try:
        return find_input(name, text)
    except (ImportError, ValueError):  # the notebook itself says what is wrong with it
        return None
