import numpy as np
import pytest
from lifelines import KaplanMeierFitter

from txtlib.cohort import load_cohort, split
from txtlib.decisions import net_benefit
from txtlib.peers.floors import ClinicalCox

HORIZON = 1825.0
THRESHOLDS = [0.05, 0.1, 0.2, 0.3]


@pytest.fixture(scope="module")
def test_part():
    parts = split(load_cohort("gse7390"), seed=0)
    return parts.test, ClinicalCox("Size", "Grade").fit(parts.train).predict(parts.test).risk(HORIZON)


def by_hand(outcome, treated, threshold):
    """Cases and others among the treated by their own Kaplan-Meier curve, as shares of all patients."""
    if not treated.any():
        return 0.0
    time, event = (part[treated] for part in outcome)
    cases = 1 - KaplanMeierFitter().fit(time, event).predict(HORIZON)
    return treated.mean() * (cases - (1 - cases) * threshold / (1 - threshold))


def test_net_benefit_by_hand(test_part):
    cohort, risk = test_part
    found = net_benefit(cohort.outcome(), {"Cox": risk, "all": np.full(len(risk), 0.15)}, HORIZON, THRESHOLDS)
    assert list(found.columns) == ["model", "threshold", "net benefit"]
    assert found["model"].unique().tolist() == ["Cox", "all", "treat all", "treat none"]
    table = found.pivot(index="threshold", columns="model", values="net benefit")
    everybody = np.ones(len(risk), bool)
    for threshold in THRESHOLDS:
        row = table.loc[threshold]
        assert row["Cox"] == pytest.approx(by_hand(cohort.outcome(), risk >= threshold, threshold))
        assert row["treat all"] == pytest.approx(by_hand(cohort.outcome(), everybody, threshold))
        assert row["all"] == pytest.approx(row["treat all"] if threshold < 0.15 else 0) and row["treat none"] == 0


def test_one_risk_needs_no_name_and_the_unknown_do_not_count(test_part):
    cohort, risk = test_part
    time, event = cohort.outcome()
    lost = np.arange(len(risk)) % 5 == 0
    hidden = net_benefit((np.where(lost, np.nan, time), np.where(lost, np.nan, event)), risk, HORIZON, THRESHOLDS)
    fewer = net_benefit((time[~lost], event[~lost]), risk[~lost], HORIZON, THRESHOLDS)
    assert hidden.equals(fewer) and hidden["model"].iloc[0] == "model"


def test_the_best_risk_finds_all_cases_and_harms_nobody():
    time = np.r_[np.full(30, 100.0), np.full(70, 3000.0)]
    event = np.r_[np.ones(30), np.zeros(70)]
    risk = np.where(event == 1, 0.9, 0.1)
    risk[70:] = 0.9  # some are treated in vain, and followed, so that the treated have a curve
    found = net_benefit((time, event), risk, HORIZON, [0.5]).set_index("model")["net benefit"]
    assert found["model"] == pytest.approx(0.3 - 0.3) and found["treat all"] == pytest.approx(0.3 - 0.7)


def test_where_no_treated_patient_is_followed_there_is_no_number():
    time, event = np.array([100.0, 200.0, 3000.0, 3000.0]), np.array([1.0, 0.0, 0.0, 0.0])
    risk = np.array([0.9, 0.8, 0.1, 0.1])
    found = net_benefit((time, event), {"early": risk, "nobody": risk * 0}, HORIZON, [0.05, 0.5])
    assert found.set_index("model")["net benefit"]["early"].isna().tolist() == [False, True]
    assert found.set_index("model")["net benefit"]["nobody"].tolist() == [0, 0]


@pytest.mark.parametrize(
    "change, words",
    [
        ({"risk": {"ranks": np.array([0.2, 3.0])}}, "The risk of 'ranks' is no probability"),
        ({"risk": np.array([0.2, np.nan])}, "The risk of 'model' is no probability"),
        ({"thresholds": [0.1, 1.0]}, "above 0 and below 1"),
        ({"thresholds": []}, "at least one"),
        ({"horizon": 5000.0}, "No patient is followed to the horizon 5000"),
    ],
)
def test_bad_input_is_named(change, words):
    good = {"outcome": (np.array([100.0, 3000.0]), np.array([1.0, 0.0])), "risk": np.array([0.2, 0.1])}
    good |= {"horizon": HORIZON, "thresholds": [0.1]}
    assert len(net_benefit(**good)) == 3
    with pytest.raises(ValueError, match=words):
        net_benefit(**{**good, **change})
