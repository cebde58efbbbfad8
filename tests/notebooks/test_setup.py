"""The first code cell of every notebook sets a bare machine up, with the address that _config.yml names."""

import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "book"))

from launch import SETUP, TAG, address  # noqa: E402  (the runner is no package)

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_first_code_cell_sets_a_machine_up(path):
    first = next(cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")
    assert TAG in first.metadata.tags and "remove-cell" in first.metadata.tags
    assert first.source == SETUP.format(address=address(ROOT))
