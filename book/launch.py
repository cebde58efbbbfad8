"""Where the book can be opened elsewhere: launch buttons, once _config.yml names a repository, and the first cell.

No address is invented: without one there are no buttons, and the first cell of a notebook says how to set a machine up.
`python book/launch.py` writes the address of _config.yml into the first code cell of every notebook.
"""

import sys
from pathlib import Path

import nbformat
import yaml
from nbformat import NotebookNode

BUTTONS = {
    "notebook_interface": "jupyterlab",
    "binderhub_url": "https://mybinder.org",
    "colab_url": "https://colab.research.google.com",
}
SETUP = """# Sets up a machine that lacks the library, as Colab does; elsewhere it does nothing.
import importlib.util
import os
import subprocess
import sys

REPOSITORY = "{address}"  # written by book/launch.py from _config.yml
if importlib.util.find_spec("txtlib") is None:
    if not REPOSITORY:
        raise ModuleNotFoundError("txtlib is not installed: run `pip install -e .` in the book's folder, and try again")
    subprocess.run(["git", "clone", "--depth", "1", REPOSITORY, "txt-book"], check=True)
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "-e", "txt-book"], check=True)
    os.chdir("txt-book")
    sys.path.insert(0, os.getcwd())"""
TAG = "setup"


def address(root: Path) -> str:
    """Return the repository's address that _config.yml names, "" for none."""
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8")) or {}
    return str((config.get("repository") or {}).get("url") or "").rstrip("/")


def with_buttons(text: str) -> str:
    """Return the text of a _config.yml with launch and repository buttons, if it names a repository."""
    config = yaml.safe_load(text) or {}
    if not (config.get("repository") or {}).get("url"):
        config.pop("repository", None)
    else:
        config["launch_buttons"] = BUTTONS | (config.get("launch_buttons") or {})
        config.setdefault("html", {}).update(use_repository_button=True, use_issues_button=True)
    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True)


def with_setup(node: NotebookNode, where: str) -> NotebookNode:
    """Give a notebook the first cell of SETUP, with an address, right after its title; the notebook is changed."""
    cell = next((cell for cell in node.cells if TAG in cell.metadata.get("tags", [])), None)
    if cell is None:
        cell = nbformat.v4.new_code_cell(metadata={"tags": ["remove-cell", TAG]})
        node.cells.insert(1, cell)
    cell.source = SETUP.format(address=where)
    return node


def main() -> int:
    """Write the first cells; return the exit code."""
    root = Path(__file__).resolve().parents[1]
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        node = with_setup(nbformat.read(path, as_version=4), address(root))
        nbformat.write(node, path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
