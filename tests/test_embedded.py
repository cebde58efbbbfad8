from importlib.resources import files

import numpy as np
import pytest
from scipy.io import arff

from txtlib.cohort import load_cohort, split
from txtlib.embedded import EMBEDDED, gse7390


@pytest.fixture(scope="module")
def cohort():
    return gse7390()


@pytest.fixture(scope="module")
def source():
    path = files("sksurv.datasets") / "data" / "breast_cancer_GSE7390-metastasis.arff"
    with path.open() as handle:
        return arff.loadarff(handle)[0]


def unquoted(values):
    return np.array([value.decode().strip("'") for value in values])


def test_it_holds_198_patients_and_76_probes(cohort):
    assert cohort.expression.shape == (198, 76)


def test_it_holds_51_events(cohort):
    assert cohort.outcome()[1].sum() == 51


def test_exactly_two_grades_are_unknown_and_no_other_label_is(cohort):
    assert cohort.clinical.isna().sum().to_dict() == dict.fromkeys(cohort.clinical, 0) | {"Grade": 2}


def test_its_tasks_are_age_size_grade_er_and_distant_metastasis(cohort):
    kinds = {task.name: task.kind for task in cohort.tasks}
    assert kinds == {
        "Age": "regression",
        "Size": "regression",
        "Grade": "classification",
        "ER": "classification",
        "DM": "survival",
    }


def test_its_probes_are_those_of_the_source(cohort, source):
    for probe in cohort.expression:
        assert np.array_equal(cohort.expression[probe], source[f"X{probe}"].astype(np.float32))


@pytest.mark.parametrize(("column", "field"), [("Age", "age"), ("DM_duration", "t.tdm")])
def test_its_numbers_are_those_of_the_source(cohort, source, column, field):
    assert np.array_equal(cohort.clinical[column], source[field])


def test_its_sizes_are_in_mm_where_the_source_has_cm(cohort, source):
    assert np.allclose(cohort.clinical["Size"], 10 * source["size"])
    assert cohort.about["units"]["Size"] == "mm"


def test_its_events_are_those_of_the_source(cohort, source):
    assert np.array_equal(cohort.clinical["DM_event"] == 1, unquoted(source["e.tdm"]) == "1")


def test_its_receptor_status_is_that_of_the_source(cohort, source):
    assert np.array_equal(cohort.clinical["ER"], unquoted(source["er"]))


def test_its_grades_are_those_of_the_source_in_short(cohort, source):
    long = {"G1": "well differentiated", "G2": "intermediate", "G3": "poorly differentiated"}
    assert np.array_equal(cohort.clinical["Grade"].map(long).fillna("unkown"), unquoted(source["grade"]))


def test_its_class_vocabularies_are_the_labels_that_occur(cohort):
    for task, classes in cohort.about["classes"].items():
        assert set(classes) == set(cohort.clinical[task].dropna())


def test_it_is_found_by_name(monkeypatch, tmp_path, cohort):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TXT_DATA", raising=False)
    assert load_cohort("gse7390").expression.equals(cohort.expression)


@pytest.mark.parametrize("name", EMBEDDED)
def test_every_embedded_cohort_states_its_origin_and_splits(name):
    cohort = EMBEDDED[name]()
    assert {"name", "licence", "citation", "units"} <= set(cohort.about)
    assert sum(len(part) for part in split(cohort, 0)) == len(cohort)
