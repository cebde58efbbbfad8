"""What a release says of the ledger."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "book"))

import ledger_difference as ld

HEAD = "kind,id,cohort,verdict,mean,low,high\n"


@pytest.fixture
def ledger(tmp_path):
    def write(name, *rows):
        path = tmp_path / name
        path.write_text(HEAD + "".join(f"{row}\n" for row in rows))
        return str(path)

    return write


def test_a_difference_names_verdicts_that_turned_and_counts_the_rest(ledger, capsys):
    old = ledger(
        "old.csv", "claim,C1,A,too small to tell,0.1,0,1", "claim,C2,A,reproduced,1,1,1", "number,N1,,not yet,,,"
    )
    new = ledger(
        "new.csv",
        "claim,C1,A,not reproduced,0.1,0,1",
        "claim,C2,A,reproduced,2,1,1",
        "claim,C3,B,reproduced,1,1,1",
        "claim,C3,B,reproduced,3,1,1",
    )
    assert ld.main([old, new]) == 0
    said = capsys.readouterr().out
    assert "- claim C1 on A: too small to tell, now not reproduced" in said
    assert "## New rows\n\n- claim C3 on B: reproduced" in said
    assert "## Rows that are gone\n\n- number N1: not yet" in said
    assert "1 rows have other numbers and the same verdict; 0 are as before." in said


def test_equal_ledgers_differ_in_nothing(ledger, capsys):
    path = ledger("a.csv", "claim,C1,A,reproduced,1,1,1")
    assert ld.main([path, path]) == 0
    assert capsys.readouterr().out == "0 rows have other numbers and the same verdict; 1 are as before.\n"


@pytest.mark.parametrize("text, code", [("a,b\n1,2\n", 1), (None, 1)])
def test_a_file_that_is_no_ledger_is_named(tmp_path, capsys, text, code):
    path = tmp_path / "x.csv"
    if text:
        path.write_text(text)
    assert ld.main([str(path), str(path)]) == code and "x.csv" in capsys.readouterr().err
    assert ld.main([]) == 2
