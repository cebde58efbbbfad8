"""What a report asks of a cohort: which chapters, and with which values."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import build_cohort

RUNNER = Path(__file__).resolve().parents[1] / "book"
sys.path.insert(0, str(RUNNER))

from reading import check_values, declared, read_notebook  # noqa: E402
from report_case import SIZES, Case, clinical_columns  # noqa: E402
from report_parameters import CHAPTERS, why_not  # noqa: E402

from txtlib.cohort import write_cohort  # noqa: E402
from txtlib.plans import Plan, contest  # noqa: E402

REPOSITORY = RUNNER.parent


def case_of(cohort, other=None, size="quick"):
    place = "_build/report/mine"
    other_place = f"{place}/cohorts/theirs" if other else ""
    return Case(cohort, other, "mine", f"{place}/cohorts/mine", other_place, SIZES[size], f"{place}/kept")


def clinic_of():
    """A cohort of 200 patients, in years and days that a clinic would have."""
    cohort = build_cohort(200, 20)
    events = np.resize([1.0, 0.0, 0.0], 200)
    times = np.linspace(30, 3000, 200)
    clinical = cohort.clinical.assign(OS_event=events, OS_duration=times)
    return replace(cohort, expression=cohort.expression / 5, clinical=clinical)


@pytest.fixture(scope="module")
def clinic():
    return clinic_of()


def test_columns_for_cox_are_numbers_or_few_classes_known_for_half(clinic):
    assert clinical_columns(clinic) == ["Age", "Grade"]
    odd = clinic.clinical.assign(
        Size=np.nan,
        ER=np.where(np.arange(200) < 60, "positive", None),
        PAM50=np.resize(list("ABCDE"), 200),
        TStage="T1",
    )
    assert clinical_columns(replace(clinic, clinical=odd)) == ["Age", "Grade"]


def reasons(cohort, other=None):
    return {number: why.split(",")[0] for number, why in why_not(case_of(cohort, other)).items()}


def test_what_cannot_be_asked_is_left_out_with_the_reason(clinic):
    assert reasons(clinic, clinic) == {}
    assert set(reasons(clinic)) == {"09"} and "OTHER=path" in why_not(case_of(clinic))["09"]
    numbers = clinic.with_tasks("Age", "Grade")
    assert set(reasons(numbers, numbers)) == {"04", "06", "11"}
    assert reasons(numbers)["04"] == "it needs a survival task"
    alone = clinic.with_tasks("OS")
    assert set(reasons(alone, alone)) == {"06", "12"}
    ageless = replace(clinic, clinical=clinic.clinical.drop(columns="Age"), tasks=clinic.tasks[1:])
    assert reasons(ageless, ageless) == dict.fromkeys(("04", "06"), "its floor is the patients' age")


@pytest.mark.parametrize("size", list(SIZES))
def test_the_values_fit_the_real_chapters(clinic, size):
    """A chapter whose parameters change must change the report too."""
    stems = {path.stem[:2]: path for path in (REPOSITORY / "notebooks").glob("*.ipynb")}
    for number, values in CHAPTERS.items():
        node = read_notebook(stems[number])
        for case in (case_of(clinic, size=size), case_of(clinic, clinic, size)):
            if number != "09" or case.other:
                check_values("the report", stems[number].stem, values(case), declared(number, node))


@pytest.mark.parametrize("size", list(SIZES))
@pytest.mark.parametrize("columns", [["Age", "Grade"], ["Grade"], []])
def test_the_benchmark_names_methods_that_there_are(clinic, size, columns, tmp_path):
    kept = replace(clinic, clinical=clinic.clinical.drop(columns={"Age", "Grade"}.difference(columns)))
    kept = kept.with_tasks("OS", *columns)
    values = CHAPTERS["07"](case_of(kept, size=size))
    given = {name: values[name] for name in ("tasks", "without", "clinical", "n_genes", "training", "changes")}
    _, groups = contest(Plan("a test", str(write_cohort(kept, tmp_path / "mine")), **given))
    names = [method.name for group in groups.values() for method in group]
    assert {"TxT, one task", "TxT, all tasks", "TxT, ranked expression", "constant"} <= set(names)
    assert ("age alone" in names) is ("Age" in columns) and ("clinical Cox" in names) is bool(columns)
    assert set(names) <= set(SIZES[size].methods)


def test_sizes_follow_the_cohort(clinic):
    few = CHAPTERS["06"](case_of(clinic))
    assert few["n_genes"] == 20 and few["horizon"] == 1825.0
    soon = clinic.clinical.assign(OS_duration=clinic.clinical["OS_duration"] / 10)
    assert CHAPTERS["06"](case_of(replace(clinic, clinical=soon)))["horizon"] < 300
    large = replace(clinic, expression=pd.concat([clinic.expression] * 20))
    assert case_of(large).training["epochs"] == 8 < case_of(clinic).training["epochs"]
    assert case_of(clinic).tasks(clinic) == ["Age", "Grade", "OS"]


def test_a_group_is_looked_at_only_where_it_has_events(clinic):
    kinds = clinic.clinical.assign(PAM50=np.where(np.arange(200) < 100, "LumA", "Basal"))
    assert CHAPTERS["11"](case_of(replace(clinic, clinical=kinds)))["group"] == {"PAM50": "LumA"}
    rare = clinic.clinical.assign(PAM50=np.where(np.arange(200) < 30, "LumA", "Basal"))
    assert CHAPTERS["11"](case_of(replace(clinic, clinical=rare)))["group"] == {}
