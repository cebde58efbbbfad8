"""The example of the page on a method of one's own: it is a method, and the page shows how to run it."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from txtlib.cohort import load_cohort, split

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "book" / "examples"


@pytest.fixture
def nearest(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    from nearest_patients import NearestPatients

    return NearestPatients


def test_with_all_patients_as_neighbours_everybody_has_the_same_curve(nearest):
    parts = split(load_cohort("gse7390"), seed=0)
    method = nearest(neighbours=10_000).fit(parts.train, parts.validation)
    curves = method.predict(parts.test).survival
    assert (curves == curves[0]).all()
    few = nearest(neighbours=10).fit(parts.train, parts.validation).predict(parts.test)
    assert len(np.unique(few.risk(1825))) > 5 and (np.diff(few.survival, axis=1) <= 0).all()


def test_the_program_of_the_page_runs(tmp_path):
    page = (ROOT / "book" / "your_method.md").read_text()
    (program,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    (tmp_path / "compare.py").write_text(program)
    (tmp_path / "nearest_patients.py").write_text((EXAMPLES / "nearest_patients.py").read_text())
    done = subprocess.run([sys.executable, "compare.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "nearest patients" in done.stdout and "age alone" in done.stdout
