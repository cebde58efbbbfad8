"""Trainings that are kept: made once, read back the next time, and made anew when anything they rest on changes."""

import pytest

from txtlib import trainings
from txtlib.cohort import split
from txtlib.planted import planted
from txtlib.trainings import trained_seeds

SETTINGS = {"n_genes": 8, "n_times": 4, "width": 4, "layers": 1, "heads": 2, "epochs": 2, "batch_size": 32}


@pytest.fixture(scope="module")
def parts():
    return split(planted(n=120, n_genes=100).cohort.with_tasks("PAM50", "OS"), 0)


@pytest.fixture
def fits(monkeypatch):
    """Return the seeds of the trainings that were made."""
    made, method = [], trainings.txt

    def counted(seed, **settings):
        made.append(seed)
        return method(seed=seed, **settings)

    monkeypatch.setattr(trainings, "txt", counted)
    monkeypatch.setattr(trainings, "code_hash", lambda factory: "this code")
    return made


def test_a_training_is_made_once_and_answers_the_same_when_read_back(parts, fits, tmp_path):
    first = trained_seeds(parts.train, parts.validation, [0, 1], tmp_path, **SETTINGS)
    second = trained_seeds(parts.train, parts.validation, [1, 2], tmp_path, **SETTINGS)
    assert fits == [0, 1, 2]
    before, after = (found[1].predict(parts.test).survival for found in (first, second))
    assert (before == after).all()
    assert (before != first[0].predict(parts.test).survival).any()


def test_other_settings_patients_or_code_are_another_training(parts, fits, tmp_path, monkeypatch):
    trained_seeds(parts.train, parts.validation, [0], tmp_path, **SETTINGS)
    alone = trained_seeds(parts.train, parts.validation, [0], tmp_path, **SETTINGS, tasks=["OS"])
    assert list(alone[0].network.settings["outputs"]) == ["OS"]
    fewer = parts.train.take(parts.train.samples[:-1])
    trained_seeds(fewer, parts.validation, [0], tmp_path, **SETTINGS)
    monkeypatch.setattr(trainings, "code_hash", lambda factory: "other code")
    trained_seeds(parts.train, parts.validation, [0], tmp_path, **SETTINGS)
    assert fits == [0] * 4 and len(list(tmp_path.iterdir())) == 4


def test_a_torn_file_is_made_anew(parts, fits, tmp_path):
    trained_seeds(parts.train, parts.validation, [0], tmp_path, **SETTINGS)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:500])
    trained_seeds(parts.train, parts.validation, [0], tmp_path, **SETTINGS)
    assert fits == [0, 0]


def test_a_seed_given_twice_is_refused(parts, tmp_path):
    with pytest.raises(ValueError, match="hold one twice"):
        trained_seeds(parts.train, parts.validation, [0, 0], tmp_path, **SETTINGS)
