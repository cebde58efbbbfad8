"""Cohorts that come with an installed package, so that the book runs without any download."""

import pandas as pd
from sksurv.datasets import load_breast_cancer

from txtlib.cohort import Cohort, Task, make_cohort
from txtlib.planted import planted, second_site

TRANSBIG = {
    "name": "TRANSBIG (GSE7390)",
    "expression": "log2 intensity of 76 Affymetrix probes (the Veridex signature)",
    "units": {"Age": "years", "Size": "mm", "DM_duration": "days"},
    "classes": {"Grade": ["G1", "G2", "G3"], "ER": ["negative", "positive"]},
    "licence": "public GEO record; this copy ships with scikit-survival",
    "citation": ["10.1158/1078-0432.CCR-06-2765"],
    "notes": "node-negative breast cancer, no systemic treatment; endpoint is distant metastasis (DM)",
}
GRADES = {"well differentiated": "G1", "intermediate": "G2", "poorly differentiated": "G3"}


def gse7390() -> Cohort:
    """Return TRANSBIG: 198 patients, 76 probes, age, size, grade, ER and time to distant metastasis.

    Desmedt et al. 2007, as shipped by scikit-survival. The source spells two unknown grades "unkown"; they are
    missing here. Sizes are in cm there and in mm here.
    """
    table, outcome = load_breast_cancer()
    samples = pd.Index([f"TRANSBIG-{row:03d}" for row in range(1, len(table) + 1)], name="Sample")
    table = table.set_index(samples)
    clinical = pd.DataFrame(
        {
            "Age": table["age"],
            "Size": table["size"] * 10,
            "Grade": table["grade"].astype(str).map(GRADES),
            "ER": table["er"].astype(str),
            "DM_duration": outcome["t.tdm"],
            "DM_event": outcome["e.tdm"].astype(float),
        }
    )
    probes = table.drop(columns=["age", "size", "grade", "er"]).astype("float32")
    probes.columns = probes.columns.str.removeprefix("X")
    tasks = (
        Task("Age", "regression", ("Age",)),
        Task("Size", "regression", ("Size",)),
        Task("Grade", "classification", ("Grade",)),
        Task("ER", "classification", ("ER",)),
        Task("DM", "survival", ("DM_duration", "DM_event")),
    )
    return make_cohort(probes, clinical, tasks, TRANSBIG, where="gse7390")


EMBEDDED = {
    "gse7390": gse7390,
    "planted": lambda: planted().cohort,
    "planted_site2": lambda: second_site(planted()).cohort,
}
