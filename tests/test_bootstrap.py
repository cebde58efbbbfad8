import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from txtlib import metrics as m
from txtlib.bootstrap import MEASURES, patient_counts, score_draws
from txtlib.calibration import d_calibration
from txtlib.cohort import load_cohort, split
from txtlib.peers.floors import ClinicalCox, Trivial
from txtlib.predictions import Predictions

HORIZON = 1825.0
RANKING = ["Harrell's C", "Uno's C", "AUC at horizon", "time-dependent AUC"]
CURVES = ["integrated Brier score", "Brier skill", "log score", "D-calibration p"]


@pytest.fixture(scope="module")
def parts():
    return split(load_cohort("gse7390"), seed=0)


@pytest.fixture(scope="module")
def answers(parts):
    cox = ClinicalCox("Age", "Size", "Grade").fit(parts.train).predict(parts.test)
    return {"trivial": Trivial().fit(parts.train).predict(parts.test), "cox": cox}


@pytest.fixture(scope="module")
def draws(parts, answers):
    return score_draws(answers, parts.train, parts.test, HORIZON, resamples=60, seed=1)


def test_row_zero_holds_the_scores_of_the_test_part(parts, answers, draws):
    train, test, cox = parts.train.outcome(), parts.test.outcome(), answers["cox"]
    first, risk, curves = draws.iloc[0]["cox"]["DM"], cox.risk(HORIZON), (cox.survival, cox.edges, HORIZON)
    over_time = 1 - np.stack([np.interp(m.cut_times(train, HORIZON), cox.edges, row) for row in cox.survival])
    expected = {
        "Harrell's C": m.harrell_c(test, risk),
        "Uno's C": m.uno_c(train, test, risk, HORIZON),
        "AUC at horizon": m.auc_at(train, test, risk, HORIZON),
        "time-dependent AUC": m.time_dependent_auc(train, test, over_time, HORIZON),
        "integrated Brier score": m.integrated_brier(train, test, *curves),
        "Brier skill": m.brier_skill(train, test, *curves),
        "log score": m.log_score(train, test, *curves),
        "D-calibration p": d_calibration(test, *curves).p,
    }
    assert first.to_dict() == pytest.approx(expected)
    assert len(draws) == 61


def test_every_task_has_its_measures(draws):
    measures = {task: list(draws["trivial"][task].columns) for task in ("Age", "Grade", "DM")}
    assert measures["Age"] == ["mean absolute error", "root mean squared error", "Pearson", "Spearman"]
    assert measures["Grade"] == ["accuracy", "balanced accuracy", "macro precision", "macro F1", "macro AUROC"]
    assert measures["DM"] == RANKING + CURVES
    assert {*draws.columns.get_level_values("measure")} == {*MEASURES}


def test_floors_score_what_floors_must(draws):
    first = draws.iloc[0]["trivial"]
    assert (first["DM"][RANKING] == 0.5).all() and first["ER", "macro AUROC"] == 0.5
    assert (draws["trivial"]["Age"][["Pearson", "Spearman"]] == 0).all(axis=None)
    assert (draws["trivial"]["DM"]["Brier skill"] == 0).all()


def test_a_p_value_has_no_resamples(draws):
    assert draws["cox", "DM", "D-calibration p"].notna().tolist() == [True] + [False] * 60


def test_each_resample_is_the_score_of_its_patients(parts, answers, draws):
    counts = patient_counts(parts.test, 60, seed=1)
    (time, event), risk = parts.test.outcome(), answers["cox"].risk(HORIZON)
    grade, shares = parts.test.clinical["Grade"].to_numpy(), answers["trivial"].probabilities["Grade"]
    for row in (1, 30, 60):
        rows = np.repeat(np.arange(len(time)), counts[row - 1].astype(int))
        harrell = m.harrell_c((time[rows], event[rows]), risk[rows])
        assert draws.iloc[row]["cox", "DM", "Harrell's C"] == pytest.approx(harrell)
        rows = rows[~pd.isna(grade[rows])]
        assert draws.iloc[row]["trivial", "Grade", "accuracy"] == pytest.approx(
            m.accuracy(grade[rows], shares.iloc[rows])
        )


def test_patients_without_a_label_are_left_out_of_that_task(parts, answers):
    # one test grade is unknown in the data
    known = parts.test.clinical["Grade"].notna()
    assert not known.all()
    draws = score_draws(answers, parts.train, parts.test, HORIZON, 2)
    expected = m.accuracy(
        parts.test.clinical["Grade"][known].to_numpy(), answers["trivial"].probabilities["Grade"][known]
    )
    assert draws.iloc[0]["trivial", "Grade", "accuracy"] == pytest.approx(expected)


def test_a_label_or_an_outcome_that_nobody_has_gives_no_score(parts, answers):
    clinical = parts.test.clinical.assign(Age=np.nan, Grade=None, DM_event=np.nan)
    draws = score_draws(answers, parts.train, replace(parts.test, clinical=clinical), HORIZON, 3)
    assert draws["trivial"][["Age", "Grade", "DM"]].isna().all(axis=None)
    assert draws["trivial", "ER", "accuracy"].notna().all()


def test_unknown_outcomes_change_no_score_of_the_others(parts, answers):
    lost = parts.test.samples[::4]
    clinical = parts.test.clinical.copy()
    clinical.loc[lost, "DM_event"] = np.nan
    hidden = score_draws(answers, parts.train, replace(parts.test, clinical=clinical), HORIZON, 0)
    rows = ~parts.test.samples.isin(lost)
    fewer = parts.test.take(parts.test.samples[rows])
    cox = answers["cox"]
    answer = {"cox": Predictions(fewer.samples, cox.edges, cox.survival[rows])}
    assert hidden["cox"]["DM"].iloc[0].to_dict() == pytest.approx(
        score_draws(answer, parts.train, fewer, HORIZON, 0)["cox"]["DM"].iloc[0].to_dict()
    )


def test_a_method_that_only_ranks_gets_ranking_measures_only(parts):
    size = parts.test.clinical["Size"].to_numpy()
    ranks = Predictions(parts.test.samples, score=size)
    draws = score_draws({"size": ranks}, parts.train, parts.test.with_tasks("DM"), HORIZON, 2)
    assert [measure for _, _, measure in draws.columns] == RANKING
    over_time = m.time_dependent_auc(parts.train.outcome(), parts.test.outcome(), size, HORIZON)
    assert draws.iloc[0]["size", "DM", "time-dependent AUC"] == pytest.approx(over_time)


def test_all_samples_of_a_patient_are_drawn_together(parts):
    clinical = parts.test.clinical.assign(Patient=[f"P{row // 3}" for row in range(len(parts.test))])
    cohort = replace(parts.test, clinical=clinical)
    counts = pd.DataFrame(patient_counts(cohort, 20, seed=0).T, clinical["Patient"])
    assert (counts.groupby(level=0).nunique() == 1).all(axis=None)
    patients = counts.groupby(level=0).first()
    assert (patients.sum() == len(patients)).all() and patients.max(axis=None) > 1


def test_draws_are_decided_by_the_seed(parts):
    same, other = (patient_counts(parts.test, 5, seed) for seed in (1, 2))
    np.testing.assert_array_equal(same, patient_counts(parts.test, 5, 1))
    assert (same != other).any()


def test_ten_methods_take_seconds(answers, parts):
    # about a second; a loop over the samples takes about half a minute
    start = time.perf_counter()
    score_draws({f"{k}": answers["cox"] for k in range(10)}, parts.train, parts.test.with_tasks("DM"), HORIZON, 500)
    assert time.perf_counter() - start < 15
