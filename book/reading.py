"""What notebooks, profile and table of contents say, and whether it fits together; no cell runs here."""

import ast
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import nbformat
import yaml
from nbformat import NotebookNode
from papermill import inspect_notebook

KINDS = {"int": int, "float": (int, float), "str": str, "bool": bool, "list": list, "dict": dict}


class BuildError(Exception):
    """One sentence for the person at the terminal: what, where, what to do. `code` is the exit code."""

    def __init__(self, sentence: str, code: int = 1):
        """Take the sentence and the exit code."""
        super().__init__(sentence)
        self.code = code


def told(command: str, work: Callable[[], None]) -> int:
    """Do the work of a command and return its exit code; a BuildError is said on stderr, in the command's name."""
    try:
        work()
    except BuildError as error:
        print(f"{command}: {error}", file=sys.stderr)
        return error.code
    return 0


def read_notebooks(folder: Path) -> dict[str, NotebookNode]:
    """Read every notebook of a folder: stem -> notebook, in the order of the names."""
    return {path.stem: read_notebook(path) for path in sorted(folder.glob("*.ipynb"))}


def read_notebook(path: Path) -> NotebookNode:
    """Read one notebook; raise BuildError where the file is none (say, after a merge conflict)."""
    try:
        return nbformat.read(path, as_version=4)
    except (ValueError, KeyError, AttributeError) as error:
        raise BuildError(f"{path.name} is not a readable notebook; restore or repair the file") from error


def tags(cell: NotebookNode) -> list[str]:
    """Return the tags of a cell."""
    return cell.metadata.get("tags", [])


def prose(node: NotebookNode) -> str:
    """Return the text of all markdown cells."""
    return "\n\n".join(cell.source for cell in node.cells if cell.cell_type == "markdown")


def title(node: NotebookNode, stem: str) -> str:
    """Return the first H1 of a notebook, or its stem where it has none."""
    heading = re.search(r"^# +(.+?) *$", prose(node), flags=re.MULTILINE)
    return heading[1] if heading else stem


def needs(node: NotebookNode) -> list[str]:
    """Return the stems of the notebooks that have to be executed before this one."""
    return list(node.metadata.get("txt", {}).get("needs", []))


def check_committed(stem: str, node: NotebookNode) -> None:
    """Raise BuildError where a committed notebook holds output."""
    for number, cell in enumerate(node.cells, start=1):
        if cell.get("outputs") or cell.get("execution_count") is not None:
            raise BuildError(
                f"notebook {stem} holds output in cell {number}; "
                f"strip it with: nbstripout --keep-id notebooks/{stem}.ipynb"
            )


def declared(stem: str, node: NotebookNode) -> dict[str, tuple[str, object]]:
    """Return the declared parameters: name -> (annotation, default; None where that is no literal).

    Raises BuildError where no cell has the tag `parameters`, and where papermill would overlook a line of it.
    """
    cell = next((cell for cell in node.cells if "parameters" in tags(cell)), None)
    if cell is None:
        raise BuildError(f"notebook {stem} has no cell with the tag `parameters`; add one, it may be empty")
    seen = inspect_notebook(_with_kernel(node))
    values = _assignments(stem, cell.source)
    for name in values.keys() - seen.keys():
        raise BuildError(
            f"papermill cannot read the parameter {name} of notebook {stem}; "
            "write it on one line as `name: type = value`, without another = or a |"
        )
    return {name: (seen[name]["inferred_type_name"], value) for name, value in values.items()}


def _with_kernel(node: NotebookNode) -> NotebookNode:
    """Papermill refuses to look into a notebook that names no language."""
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    return NotebookNode(node, metadata=NotebookNode(kernelspec=NotebookNode(kernel)))


def _assignments(stem: str, source: str) -> dict[str, object]:
    try:
        statements = ast.parse(source).body
    except SyntaxError as error:
        raise BuildError(f"the `parameters` cell of notebook {stem} is not Python: {error}") from error
    found = {}
    for statement in statements:
        for target in getattr(statement, "targets", None) or [getattr(statement, "target", None)]:
            if isinstance(target, ast.Name) and statement.value is not None:
                found[target.id] = _literal(statement.value)
    return found


def _literal(value: ast.expr) -> object:
    try:
        return ast.literal_eval(value)
    except ValueError:
        return None


def read_profile(folder: Path, name: str, notebooks: dict[str, NotebookNode]) -> dict[str, dict]:
    """Return the parameters that a profile sets: stem -> {parameter: value}, an entry for every notebook.

    A profile may extend another (`extends: real`): it then says only what differs from that. Raises BuildError for a
    profile that is not there (exit code 2), an entry for a notebook that is not there, an undeclared parameter, and a
    value that contradicts the annotation in the notebook.
    """
    entries = _extended(folder, name)
    for stem in entries.keys() - notebooks.keys():
        raise BuildError(
            f"profile {name} has an entry for notebook {stem}, which is not there; "
            f"the notebooks are: {', '.join(notebooks)}"
        )
    values = {stem: dict(entries.get(stem) or {}) for stem in notebooks}
    for stem, node in notebooks.items():
        check_values(f"profile {name}", stem, values[stem], declared(stem, node))
    return values


def _extended(folder: Path, name: str) -> dict:
    entries = _load_profile(folder, name)
    base = entries.pop("extends", None)
    if base is None:
        return entries
    below = _load_profile(folder, base)
    return below | {stem: (below.get(stem) or {}) | (own or {}) for stem, own in entries.items()}


def _load_profile(folder: Path, name: str) -> dict:
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.yaml")))
        raise BuildError(f"there is no profile {name!r}; choose one of: {known} (PROFILE=...)", code=2)
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise BuildError(f"profile {name} is not YAML: {' '.join(str(error).split())}") from error
    chapters = [value for key, value in entries.items() if key != "extends"] if isinstance(entries, dict) else [entries]
    if not all(isinstance(value, dict | None) for value in chapters):
        raise BuildError(f"profile {name} must read `notebook: {{parameter: value}}` in every entry")
    return entries


def check_values(giver: str, stem: str, values: dict, parameters: dict[str, tuple[str, object]]) -> None:
    """Raise BuildError where a giver of values (`profile real`) sets what a notebook does not declare, or not so."""
    for name, value in values.items():
        if name not in parameters:
            raise BuildError(
                f"{giver} sets {name} for notebook {stem}, whose `parameters` cell does not "
                f"declare it; it declares: {', '.join(parameters) or 'nothing'}"
            )
        annotation = parameters[name][0]
        if not fits(value, annotation):
            raise BuildError(f"{giver} sets {name} of notebook {stem} to {value!r}, which is no {annotation}")


def fits(value: object, annotation: str) -> bool:
    """Say whether a value may stand where a plain annotation (int, str, ...) is; others take anything."""
    kind = KINDS.get(annotation.split("[")[0])
    if kind is None:
        return True
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def toc_pages(path: Path) -> list[str]:
    """Return the pages of a table of contents, `folder/name` without suffix, in its order."""
    return list(_pages(yaml.safe_load(path.read_text(encoding="utf-8"))))


def _pages(item: object) -> Iterator[str]:
    pairs = item.items() if isinstance(item, dict) else enumerate(item) if isinstance(item, list) else ()
    for key, value in pairs:
        if key in ("root", "file"):
            yield re.sub(r"\.(md|ipynb)$", "", value)
        else:
            yield from _pages(value)


def check_contents(root: Path, pages: list[str], notebooks: dict[str, NotebookNode]) -> None:
    """Raise BuildError where a notebook or page is missing in the table of contents, or a page of it on disk."""
    for stem in notebooks:
        if f"notebooks/{stem}" not in pages:
            raise BuildError(f"notebook {stem} is not in book/_toc.yml; add `- file: notebooks/{stem}`")
    for orphan in sorted({f"book/{path.stem}" for path in (root / "book").glob("*.md")} - set(pages)):
        raise BuildError(f"{orphan}.md is not in book/_toc.yml, so nobody finds it; add `- file: {orphan}`")
    for page in pages:
        if page_file(root, page) is None:
            raise BuildError(f"book/_toc.yml names {page}, but there is no {page}.md and no {page}.ipynb")


def page_file(root: Path, page: str) -> Path | None:
    """Return the file of a page, or None."""
    files = (root / f"{page}{suffix}" for suffix in (".ipynb", ".md"))
    return next((file for file in files if file.is_file()), None)


def check_needs(notebooks: dict[str, NotebookNode]) -> None:
    """Raise BuildError where a notebook needs one that is not there."""
    for stem, node in notebooks.items():
        for name in needs(node):
            if name not in notebooks:
                raise BuildError(f"notebook {stem} needs {name!r} (metadata txt.needs), which is not there")


def stem_of(page: str) -> str:
    """Return the stem of a page or of the path in a cross reference."""
    return PurePosixPath(page).name.removesuffix(".ipynb")
