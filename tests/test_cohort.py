import gzip
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from txtlib import cohort as module
from txtlib.cohort import (
    EXPRESSION_FILES,
    Cohort,
    CohortError,
    Task,
    load_cohort,
    make_cohort,
    read_expression,
    read_tasks,
    split,
    write_cohort,
)

EXPRESSION = "Sample,TP53,ESR1\nS1,1.5,2\nS2,2.5,4\nS3,0.1,8\nS4,-1,16\n"
CLINICAL = "Sample,Age,Grade,OS_duration,OS_event\nS1,50,G1,100,1\nS2,51,G2,200,0\nS3,,G1,300,1\nS4,53,G2,400,\n"
TASKS = "name,task\nAge,regression\nGrade,classification\nOS_duration,survival_time\nOS_event,survival_event\n"
GOOD = {"expression.csv": EXPRESSION, "clinical.csv": CLINICAL, "tasks.csv": TASKS}


def write_files(folder: Path, **changes) -> Path:
    """Write a good cohort folder with some files changed; None leaves a file out."""
    folder.mkdir(exist_ok=True)
    for name, content in {**GOOD, **changes}.items():
        if content is not None:
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def complaint(call, *arguments, **named) -> str:
    with pytest.raises(CohortError) as caught:
        call(*arguments, **named)
    sentence = str(caught.value)
    assert sentence.splitlines() == [sentence] and sentence.endswith("."), sentence
    return sentence


def contents(folder: Path) -> dict:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def parquet(text: str, **columns) -> bytes:
    buffer = io.BytesIO()
    pd.read_csv(io.StringIO(text)).assign(**columns).to_parquet(buffer, index=False)
    return buffer.getvalue()


def equal(first: Cohort, second: Cohort) -> bool:
    tables = first.expression.equals(second.expression) and first.clinical.equals(second.clinical)
    return tables and first.tasks == second.tasks and first.samples.equals(second.samples)


# --- bad input ------------------------------------------------------------------------------------------------

WHOLE = gzip.compress((EXPRESSION + "".join(f"T{row},{row * 7919 % 1013},{row}\n" for row in range(5000))).encode())
HALF = WHOLE[: len(WHOLE) // 2]
DAMAGED, OTHER = bytearray(WHOLE), bytearray(WHOLE)
DAMAGED[100:164], OTHER[-8:-4] = bytes(64), bytes(4)  # no longer deflate; not the checksum of the content

# What is wrong with the folder, the changed files, and what the sentence must name: file, column, rows, what to do.
BAD = {
    "no expression": ({"expression.csv": None}, ["/expression.csv is missing", "add it"]),
    "no clinical table": ({"clinical.csv": None}, ["/clinical.csv is missing", "add it"]),
    "no task file": ({"tasks.csv": None}, ["/tasks.csv is missing", "add it"]),
    "two expression tables": (
        {"expression.csv.gz": gzip.compress(EXPRESSION.encode())},
        ["expression.csv.gz and expression.csv", "keep one"],
    ),
    "expression of no bytes": ({"expression.csv": ""}, ["/expression.csv cannot be read", "give a whole"]),
    "expression without rows": (
        {"expression.csv": "Sample,TP53\n"},
        ["/expression.csv", "is empty (0 rows", "needs a row"],
    ),
    "expression without genes": (
        {"expression.csv": "Sample\nS1\n"},
        ["/expression.csv", "is empty", "1 columns", "needs"],
    ),
    "semicolons": ({"expression.csv": EXPRESSION.replace(",", ";")}, ["/expression.csv", "1 columns", "commas"]),
    "clinical table of no bytes": ({"clinical.csv": ""}, ["/clinical.csv cannot be read", "give a whole"]),
    "clinical table without rows": ({"clinical.csv": "Sample,Age\n"}, ["/clinical.csv", "is empty", "needs a row"]),
    "task file of no bytes": ({"tasks.csv": ""}, ["/tasks.csv cannot be read", "give a whole"]),
    "task file without rows": ({"tasks.csv": "name,task\n"}, ["/tasks.csv", "at least one row"]),
    "task file with other columns": ({"tasks.csv": "task,name\n"}, ["/tasks.csv", "name,task", "['task', 'name']"]),
    "no column Sample": (
        {"expression.csv": EXPRESSION.replace("Sample", "Patient")},
        ["/expression.csv", "'Patient'", "must be Sample"],
    ),
    "text in the expression": (
        {"expression.csv": EXPRESSION.replace("0.1", "low")},
        ["/expression.csv", "'TP53'", "S3: low", "must be numeric"],
    ),
    "numbers kept as text in parquet": (
        {"expression.csv": None, "expression.parquet": parquet(EXPRESSION, ESR1=["1", "2", "3", "4"])},
        ["/expression.parquet", "'ESR1'", "S1: 1", "must be numeric"],
    ),
    "infinite expression": (
        {"expression.csv": EXPRESSION.replace("0.1", "inf").replace("-1", "-inf")},
        ["/expression.csv", "'TP53'", "S3: inf, S4: -inf", "replace"],
    ),
    "expression beyond single precision": (
        {"expression.csv": EXPRESSION.replace("0.1", "1e39")},
        ["/expression.csv", "'TP53'", "S3: 1e+39", "replace"],
    ),
    "repeated sample in the expression": (
        {"expression.csv": EXPRESSION + "S2,0,0\n"},
        ["/expression.csv", "sample 'S2'", "more than once", "keep one"],
    ),
    "repeated sample in the clinical table": (
        {"clinical.csv": CLINICAL + "S2,0,G1,0,0\n"},
        ["/clinical.csv", "sample 'S2'", "more than once", "keep one"],
    ),
    "repeated gene": (
        {"expression.csv": EXPRESSION.replace("ESR1", "TP53")},
        ["/expression.csv", "gene 'TP53'", "more than once", "keep one"],
    ),
    "repeated gene with text": (
        {"expression.csv": EXPRESSION.replace("ESR1", "TP53").replace("0.1", "low")},
        ["/expression.csv", "gene 'TP53'", "more than once", "keep one"],
    ),
    "repeated clinical column": (
        {"clinical.csv": CLINICAL.replace("Grade", "Age")},
        ["/clinical.csv", "column 'Age'", "more than once", "keep one"],
    ),
    "sample without a name": (
        {"expression.csv": EXPRESSION.replace("S3", "")},
        ["/expression.csv", "1 of the sample names", "name every sample"],
    ),
    "gene without a name": (
        {"expression.csv": EXPRESSION.replace("ESR1", "")},
        ["/expression.csv", "1 of the gene names", "name every gene"],
    ),
    "no sample in common": (
        {"clinical.csv": CLINICAL.replace("S", "P").replace("Pample", "Sample").replace("OP", "OS")},
        ["/clinical.csv", "no sample in common", "'S1', 'S2', 'S3' against 'P1', 'P2', 'P3'", "give both the same"],
    ),
    "task that is not in the clinical table": (
        {"tasks.csv": TASKS + "PAM50,classification\n"},
        ["/clinical.csv", "'PAM50'", "it has Age, Grade, OS_duration, OS_event", "add the column"],
    ),
    "event that is not in the clinical table": (
        {"clinical.csv": CLINICAL.replace("OS_event", "status")},
        ["/clinical.csv", "'OS_event'", "status", "add the column"],
    ),
    "unknown kind of task": (
        {"tasks.csv": "name,task\nAge,regresion\n"},
        ["/tasks.csv", "'regresion'", "one of regression, classification, survival_time, survival_event"],
    ),
    "repeated task": (
        {"tasks.csv": TASKS + "Age,classification\n"},
        ["/tasks.csv", "task 'Age'", "more than once", "keep one"],
    ),
    "task without a name": (
        {"tasks.csv": TASKS + ",regression\n"},
        ["/tasks.csv", "1 of the task names", "name every task"],
    ),
    "survival time without its event": (
        {"tasks.csv": TASKS.replace("OS_event,survival_event\n", "")},
        ["/tasks.csv", "'OS_duration'", "no event column", "add a row NAME,survival_event"],
    ),
    "event without its survival time": (
        {"tasks.csv": TASKS.replace("OS_duration,survival_time\n", "")},
        ["/tasks.csv", "times [] and events ['OS_event']", "name one of each"],
    ),
    "two survival endpoints": (
        {"tasks.csv": TASKS + "DM_duration,survival_time\nDM_event,survival_event\n"},
        ["/tasks.csv", "['OS_duration', 'DM_duration']", "one endpoint", "a task file of its own"],
    ),
    "negative time": (
        {"clinical.csv": CLINICAL.replace("200", "-200")},
        ["/clinical.csv", "'OS_duration' is negative", "S2: -200", "correct or empty it"],
    ),
    "event that is not 0 or 1": (
        {"clinical.csv": CLINICAL.replace("300,1", "300,2")},
        ["/clinical.csv", "'OS_event' must be 0 (censored) or 1", "S3: 2"],
    ),
    "event as text": (
        {"clinical.csv": CLINICAL.replace("300,1", "300,DECEASED")},
        ["/clinical.csv", "'OS_event'", "S3: DECEASED", "correct them"],
    ),
    "text in a regression label": (
        {"clinical.csv": CLINICAL.replace("51", "old").replace("53", "young")},
        ["/clinical.csv", "'Age'", "S2: old, S4: young", "leave them empty"],
    ),
    "infinite label": (
        {"clinical.csv": CLINICAL.replace("51", "inf")},
        ["/clinical.csv", "'Age'", "no finite numbers", "S2: inf"],
    ),
    "text of two lines in a label": (
        {"clinical.csv": CLINICAL.replace("51", '"o\nld"')},
        ["/clinical.csv", "'Age'", "S2: o ld"],
    ),
    "class seen once": (
        {"clinical.csv": CLINICAL.replace("53,G2", "53,G3")},
        ["/clinical.csv", "'G2', 'G3'", "'Grade' is seen once", "S2: G2, S4: G3", "merge it"],
    ),
    "truncated gz": (
        {"expression.csv": None, "expression.csv.gz": HALF},
        ["/expression.csv.gz cannot be read", "whole"],
    ),
    "damaged gz": (
        {"expression.csv": None, "expression.csv.gz": bytes(DAMAGED)},
        ["/expression.csv.gz cannot be read", "give a whole"],
    ),
    "gz of another checksum": (
        {"expression.csv": None, "expression.csv.gz": bytes(OTHER)},
        ["/expression.csv.gz cannot be read", "give a whole"],
    ),
    "gz that is none": (
        {"expression.csv": None, "expression.csv.gz": EXPRESSION},
        ["/expression.csv.gz cannot be read", "give a whole"],
    ),
    "garbage parquet": (
        {"expression.csv": None, "expression.parquet": b"PAR1 no parquet"},
        ["/expression.parquet cannot be read", "give a whole"],
    ),
    "bytes that are no text": ({"clinical.csv": b"Sample,Age\nS1,\xff\xfe\n"}, ["/clinical.csv cannot be read"]),
    "row with more cells than the others": (
        {"expression.csv": EXPRESSION.replace("0.1", "0.1,7")},
        ["/expression.csv cannot be read", "line 4", "give a whole"],
    ),
    "rows with more cells than the header": (
        {"expression.csv": "Sample,TP53\nS1,1,2\nS2,3,4\n"},
        ["/expression.csv cannot be read", "more cells than the 2 of its header"],
    ),
    "broken cohort.yml": ({"cohort.yml": "name: [a\nb: c"}, ["/cohort.yml cannot be read", "key: value"]),
    "cohort.yml without keys": ({"cohort.yml": "- a\n- b"}, ["/cohort.yml cannot be read", "key: value"]),
}


@pytest.mark.parametrize(("changes", "named"), BAD.values(), ids=BAD)
def test_bad_input_gets_one_sentence_with_place_and_remedy(tmp_path, changes, named):
    folder = write_files(tmp_path / "mine", **changes)
    sentence = complaint(load_cohort, folder)
    assert str(folder) in sentence
    assert [part for part in named if part not in sentence] == []


@pytest.mark.parametrize("changes", [changes for changes, _ in BAD.values()], ids=BAD)
def test_reading_bad_input_writes_nothing(tmp_path, changes):
    before = contents(write_files(tmp_path / "mine", **changes))
    complaint(load_cohort, tmp_path / "mine")
    assert contents(tmp_path / "mine") == before
    assert os.listdir(tmp_path) == ["mine"]


def test_a_script_that_loads_a_bad_cohort_fails_and_leaves_the_folder_as_it_was(tmp_path):
    folder = write_files(tmp_path / "mine", **BAD["negative time"][0])
    before = contents(tmp_path)
    script = "import sys; from txtlib.cohort import *; write_cohort(load_cohort(sys.argv[1]), sys.argv[2])"
    command = [sys.executable, "-c", script, str(folder), str(tmp_path / "copy")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode != 0
    assert "CohortError" in done.stderr.splitlines()[-1] and "is negative, S2: -200" in done.stderr.splitlines()[-1]
    assert contents(tmp_path) == before


def test_the_good_folder_that_the_bad_ones_are_made_from_loads(tmp_path):
    assert len(load_cohort(write_files(tmp_path))) == 4


def test_a_sentence_shows_at_most_three_rows(tmp_path):
    clinical = (
        CLINICAL.replace(",100,", ",-1,").replace(",200,", ",-2,").replace(",300,", ",-3,").replace(",400,", ",-4,")
    )
    sentence = complaint(load_cohort, write_files(tmp_path, **{"clinical.csv": clinical}))
    assert "S1: -1.0, S2: -2.0, S3: -3.0;" in sentence


def test_tables_that_were_never_files_are_checked_too():
    expression = pd.DataFrame({"TP53": ["a", "b"]}, ["S1", "S2"])
    sentence = complaint(make_cohort, expression, pd.DataFrame({"Age": [1, 2]}, ["S1", "S2"]), (), {}, where="my table")
    assert "my table" in sentence and "'TP53'" in sentence and "S1: a, S2: b" in sentence


def test_an_empty_table_that_was_never_a_file_is_refused():
    assert "empty" in complaint(make_cohort, pd.DataFrame(), pd.DataFrame({"Age": [1]}, ["S1"]), (), {})


# --- finding a cohort -----------------------------------------------------------------------------------------


@pytest.fixture
def places(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TXT_DATA", raising=False)
    monkeypatch.setattr(module, "RAW", tmp_path / "raw")
    return tmp_path


def test_a_cohort_is_found_by_its_path(places):
    assert load_cohort(write_files(places / "mine")).name == "mine"


def test_a_cohort_is_found_by_name_under_txt_data(places, monkeypatch):
    (places / "data").mkdir()
    write_files(places / "data" / "mine")
    monkeypatch.setenv("TXT_DATA", str(places / "data"))
    assert len(load_cohort("mine")) == 4


def test_a_cohort_is_found_by_name_under_data_raw(places):
    (places / "raw").mkdir()
    write_files(places / "raw" / "mine")
    assert len(load_cohort("mine")) == 4


def test_txt_data_goes_before_data_raw(places, monkeypatch):
    for parent in ("data", "raw"):
        (places / parent).mkdir()
        write_files(places / parent / "mine", **{"cohort.yml": f"name: from {parent}"})
    monkeypatch.setenv("TXT_DATA", str(places / "data"))
    assert load_cohort("mine").name == "from data"


def test_an_unknown_name_lists_the_embedded_cohorts_and_says_that_txt_data_is_not_set(places):
    sentence = complaint(load_cohort, "nobody")
    assert "'nobody'" in sentence and "gse7390" in sentence and str(places / "raw" / "nobody") in sentence
    assert "TXT_DATA is not set" in sentence and "give the path" in sentence


def test_an_unknown_name_lists_the_place_under_txt_data(places, monkeypatch):
    monkeypatch.setenv("TXT_DATA", str(places / "data"))
    sentence = complaint(load_cohort, "nobody")
    assert str(places / "data" / "nobody") in sentence and "not set" not in sentence


def test_another_task_file_gives_another_endpoint(tmp_path):
    clinical = CLINICAL.replace("OS_duration,OS_event", "DM.time,DM.event")
    other = "name,task\nDM.time,survival_time\nDM.event,survival_event\n"
    folder = write_files(tmp_path, **{"clinical.csv": clinical, "dm.csv": other})
    assert load_cohort(folder, tasks="dm.csv").tasks == (Task("DM", "survival", ("DM.time", "DM.event")),)


def test_a_missing_other_task_file_is_named(tmp_path):
    assert "/dm.csv is missing" in complaint(load_cohort, write_files(tmp_path), tasks="dm.csv")


# --- reading --------------------------------------------------------------------------------------------------


def test_samples_are_matched_by_name_when_the_clinical_rows_are_shuffled(tmp_path):
    header, *rows = CLINICAL.splitlines()
    shuffled = "\n".join([header, *rows[::-1]])
    first = load_cohort(write_files(tmp_path / "a"))
    second = load_cohort(write_files(tmp_path / "b", **{"clinical.csv": shuffled}))
    assert equal(first, second)


@given(order=st.permutations(range(60)))
@settings(deadline=None, max_examples=20)
def test_shuffling_the_clinical_rows_changes_nothing(build, order):
    cohort = build()
    again = make_cohort(cohort.expression, cohort.clinical.iloc[order], cohort.tasks, cohort.about)
    assert equal(cohort, again)


def test_samples_of_only_one_table_are_left_out_and_counted(tmp_path):
    clinical = CLINICAL.replace("S4", "S9") + "S10,60,G2,1,0\nS11,60,G2,1,0\n"
    cohort = (
        load_cohort(write_files(tmp_path, **{"clinical.csv": clinical}).resolve(), tasks="tasks.csv") if 0 else None
    )
    folder = write_files(tmp_path, **{"clinical.csv": clinical, "tasks.csv": "name,task\nAge,regression\n"})
    cohort = load_cohort(folder)
    assert list(cohort.samples) == ["S1", "S2", "S3"]
    assert cohort.about["unmatched"] == {"expression": 1, "clinical": 3}


def test_sample_names_stay_text(tmp_path):
    files = {name: text.replace("\nS", "\n00") for name, text in GOOD.items()}
    assert list(load_cohort(write_files(tmp_path, **files)).samples) == ["001", "002", "003", "004"]


def test_a_sample_may_be_named_like_a_missing_value(tmp_path):
    files = {name: text.replace("S3", "NA") for name, text in GOOD.items()}
    assert "NA" in load_cohort(write_files(tmp_path, **files)).samples


def test_a_gene_may_be_named_like_a_missing_value(tmp_path):
    folder = write_files(tmp_path, **{"expression.csv": EXPRESSION.replace("ESR1", "NA")})
    assert list(load_cohort(folder).expression) == ["TP53", "NA"]


def test_numeric_names_match_between_parquet_and_csv(tmp_path):
    files = {name: text.replace("\nS", "\n") for name, text in GOOD.items()}
    files |= {"expression.parquet": parquet(files["expression.csv"]), "expression.csv": None}
    assert list(load_cohort(write_files(tmp_path, **files)).samples) == ["1", "2", "3", "4"]


def test_names_are_stripped_of_blanks(tmp_path):
    folder = write_files(tmp_path, **{"expression.csv": EXPRESSION.replace("S3", " S3 ").replace("TP53", " TP53")})
    assert load_cohort(folder).expression.loc["S3", "TP53"] == np.float32(0.1)


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path):
    assert len(load_cohort(write_files(tmp_path, **{"expression.csv": b"\xef\xbb\xbf" + EXPRESSION.encode()}))) == 4


@pytest.mark.parametrize("name", EXPRESSION_FILES)
def test_every_expression_format_reads_the_same(tmp_path, name):
    frame = pd.read_csv(io.StringIO(EXPRESSION))
    if name.endswith("parquet"):
        frame.to_parquet(tmp_path / name, index=False)
    else:
        frame.to_csv(tmp_path / name, sep="\t" if ".tsv" in name else ",", index=False)
    expected = pd.DataFrame({"TP53": [1.5, 2.5, 0.1, -1], "ESR1": [2, 4, 8, 16]}, ["S1", "S2", "S3", "S4"])
    assert read_expression(tmp_path / name).equals(expected.astype(np.float32))


def test_empty_cells_of_the_expression_are_missing_values(tmp_path):
    cohort = load_cohort(write_files(tmp_path, **{"expression.csv": EXPRESSION.replace("0.1", "")}))
    assert cohort.expression.isna().to_numpy().sum() == 1 and np.isnan(cohort.expression.loc["S3", "TP53"])


def test_labels_may_be_missing(tmp_path):
    cohort = load_cohort(write_files(tmp_path))
    assert np.isnan(cohort.clinical.loc["S3", "Age"]) and np.isnan(cohort.clinical.loc["S4", "OS_event"])


@pytest.mark.parametrize(
    ("cells", "labels"),
    [
        (["1", "2", "1", "2"], ["1", "2", "1", "2"]),
        (["1", "", "1", ""], ["1", None, "1", None]),
        (["True", "False", "True", "False"], ["True", "False", "True", "False"]),
        (["True", "", "True", ""], ["True", None, "True", None]),
        (["0.5", "1", "0.5", "1"], ["0.5", "1.0", "0.5", "1.0"]),
        ([" a", "a ", "b", "b"], ["a", "a", "b", "b"]),
    ],
)
def test_class_labels_are_text_or_missing(tmp_path, cells, labels):
    rows = "".join(f"S{row},{cell}\n" for row, cell in enumerate(cells, 1))
    files = {"clinical.csv": "Sample,Class\n" + rows, "tasks.csv": "name,task\nClass,classification\n"}
    column = load_cohort(write_files(tmp_path, **files)).clinical["Class"]
    assert [None if pd.isna(label) else label for label in column] == labels


def test_a_task_file_may_have_further_columns(tmp_path):
    (tmp_path / "tasks.csv").write_text("name,task,note\nAge,regression,in years\n")
    assert read_tasks(tmp_path / "tasks.csv") == (Task("Age", "regression", ("Age",)),)


@pytest.mark.parametrize(
    ("time", "event", "name"),
    [
        ("OS_duration", "OS_event", "OS"),
        ("OS.time", "OS.status", "OS"),
        ("days", "dead", "d"),
        ("time", "event", "survival"),
    ],
)
def test_the_survival_task_is_named_by_what_its_columns_share(tmp_path, time, event, name):
    (tmp_path / "tasks.csv").write_text(f"name,task\n{time},survival_time\n{event},survival_event\n")
    assert read_tasks(tmp_path / "tasks.csv") == (Task(name, "survival", (time, event)),)


def test_cohort_yml_describes_the_cohort(tmp_path):
    cohort = load_cohort(write_files(tmp_path, **{"cohort.yml": "name: Mein Kollektiv, größer\nlicence: none\n"}))
    assert cohort.name == "Mein Kollektiv, größer" and cohort.about["licence"] == "none"


@pytest.mark.parametrize("changes", [{}, {"cohort.yml": ""}, {"cohort.yml": "licence: none"}])
def test_a_cohort_without_a_name_is_called_like_its_folder(tmp_path, monkeypatch, changes):
    monkeypatch.chdir(write_files(tmp_path / "mine", **changes))
    assert load_cohort(".").name == load_cohort(tmp_path / "mine").name == "mine"


def test_a_real_cohort_matches_every_sample_and_holds_finite_numbers(real_cohort):
    assert real_cohort.about["unmatched"] == {"expression": 0, "clinical": 0}
    assert real_cohort.samples.equals(real_cohort.clinical.index) and real_cohort.samples.is_unique
    assert not np.isinf(real_cohort.expression.to_numpy()).any()


# --- the cohort itself ----------------------------------------------------------------------------------------


def test_take_keeps_both_tables_in_the_order_asked_for(build):
    part = build().take(["S007", "S003"])
    assert list(part.expression.index) == list(part.clinical.index) == ["S007", "S003"]


def test_a_task_that_is_not_there_is_refused_with_those_that_are(build):
    with pytest.raises(KeyError, match="no task 'PAM50'; it has Age, Grade, OS"):
        build().task("PAM50")


def test_with_tasks_keeps_the_named_tasks_in_the_order_asked_for(build):
    assert [task.name for task in build().with_tasks("OS", "Age").tasks] == ["OS", "Age"]


def test_time_and_event_are_both_missing_where_either_is(build):
    cohort = build()
    time, event = cohort.outcome()
    either = cohort.clinical[["OS_duration", "OS_event"]].isna().any(axis=1)
    assert either.sum() == 2
    assert np.array_equal(np.isnan(time), either) and np.array_equal(np.isnan(event), either)


def test_the_outcome_of_a_cohort_without_survival_says_what_to_add(build):
    assert "add survival_time and survival_event" in complaint(build().with_tasks("Age").outcome)


def tiny(samples, clinical=None, about=None) -> Cohort:
    expression = pd.DataFrame({"TP53": np.arange(len(samples), dtype=np.float32)}, samples)
    table = pd.DataFrame(clinical or {"Age": np.arange(len(samples), dtype=float)}, samples)
    return make_cohort(expression, table, (), about or {})


def test_tcga_samples_are_grouped_by_the_first_twelve_characters():
    cohort = tiny(["TCGA-A7-A0CE-01A-11R-A00Z-07", "TCGA-A7-A0CE-11A-21R-A089-07", "TCGA-3C-AALI"])
    assert list(cohort.patients()) == ["TCGA-A7-A0CE", "TCGA-A7-A0CE", "TCGA-3C-AALI"]


def test_names_that_are_not_all_barcodes_are_one_patient_each():
    samples = ["TCGA-A7-A0CE-01A", "TCGA-A7-A0CE-11A", "MB-0001"]
    assert list(tiny(samples).patients()) == samples


def test_the_patient_column_goes_before_the_barcode():
    cohort = tiny(["TCGA-A7-A0CE-01A", "TCGA-A7-A0CE-11A"], {"Patient": ["p", "q"]})
    assert list(cohort.patients()) == ["p", "q"]


def test_cohort_yml_may_name_the_patient_column():
    assert list(tiny(["a", "b"], {"Who": [7, 7]}, {"patient": "Who"}).patients()) == ["7", "7"]


def test_samples_without_a_patient_are_patients_of_their_own():
    assert list(tiny(["a", "b", "c", "d"], {"Patient": ["p", "p", None, None]}).patients()) == ["p", "p", "c", "d"]


def test_a_declared_patient_column_that_is_missing_is_refused():
    sentence = complaint(tiny(["a", "b"], about={"name": "mine", "patient": "Who"}).patients)
    assert "mine" in sentence and "'Who'" in sentence and "add the column" in sentence


# --- writing --------------------------------------------------------------------------------------------------


def test_a_written_cohort_loads_equal(build, tmp_path):
    cohort = build()
    again = load_cohort(write_cohort(cohort, tmp_path / "deep" / "mine"))
    assert equal(cohort, again) and again.about == cohort.about


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=8)
NUMBER = st.floats(allow_nan=False, allow_infinity=False) | st.just(np.nan)
ROWS = st.fixed_dictionaries(
    {
        "Age": NUMBER,
        "Grade": st.sampled_from(["G1", "größer", "3", "a,b", None]),
        "OS_duration": st.floats(0, 1e6) | st.just(np.nan),
        "OS_event": st.sampled_from([0.0, 1.0, np.nan]),
    }
)
VALUES = st.tuples(*2 * [st.floats(width=32, allow_infinity=False, allow_subnormal=False)])


@given(
    rows=st.dictionaries(TEXT, st.tuples(ROWS, VALUES), min_size=1, max_size=8),
    genes=st.lists(TEXT.filter(lambda gene: gene != "Sample"), min_size=2, max_size=2, unique=True),
    name=TEXT,
)
@settings(deadline=None, max_examples=40)
def test_any_written_cohort_loads_equal(build, tmp_path_factory, rows, genes, name):
    samples = pd.Index(list(rows), name="Sample")
    clinical = pd.DataFrame([labels for labels, _ in rows.values()], samples)
    once = ~clinical["Grade"].duplicated(keep=False)
    clinical["Grade"] = clinical["Grade"].astype(object).mask(once, None)
    expression = pd.DataFrame([values for _, values in rows.values()], samples, genes, np.float32)
    cohort = make_cohort(expression, clinical, build().tasks, {"name": name})
    again = load_cohort(write_cohort(cohort, tmp_path_factory.mktemp("written") / "mine"))
    assert equal(cohort, again) and again.name == name


@pytest.mark.parametrize("name", EXPRESSION_FILES)
def test_a_cohort_survives_the_trip_through_every_expression_format(build, tmp_path, name):
    cohort = build()
    folder = write_cohort(cohort, tmp_path / "mine")
    table = pd.read_parquet(folder / "expression.parquet")
    (folder / "expression.parquet").unlink()
    if name.endswith("parquet"):
        table.to_parquet(folder / name, index=False)
    else:
        table.to_csv(folder / name, sep="\t" if ".tsv" in name else ",", index=False)
    assert equal(cohort, load_cohort(folder))


def test_writing_refuses_a_folder_that_exists_and_leaves_it_alone(build, tmp_path):
    folder = write_files(tmp_path / "mine")
    with pytest.raises(FileExistsError, match=r"mine exists already: give another folder"):
        write_cohort(build(), folder)
    assert contents(folder) == {Path(name): text.encode() for name, text in GOOD.items()}
    assert os.listdir(tmp_path) == ["mine"]


@pytest.mark.parametrize("step", ["to_parquet", "to_csv"])
def test_writing_that_fails_midway_leaves_nothing_behind(build, tmp_path, monkeypatch, step):
    def full(*arguments, **named):
        raise OSError("no space left")

    monkeypatch.setattr(pd.DataFrame, step, full)
    with pytest.raises(OSError, match="no space left"):
        write_cohort(build(), tmp_path / "mine")
    assert os.listdir(tmp_path) == []


def test_writing_what_cohort_yml_cannot_hold_leaves_nothing_behind(tmp_path):
    with pytest.raises(yaml.YAMLError):
        write_cohort(tiny(["a"], about={"notes": object()}), tmp_path / "mine")
    assert os.listdir(tmp_path) == []


def test_the_count_of_unmatched_samples_stays_out_of_cohort_yml(build, tmp_path):
    cohort = build()
    written = yaml.safe_load((write_cohort(cohort, tmp_path / "mine") / "cohort.yml").read_text())
    assert written == {"name": cohort.name, "classes": {"Grade": ["G1", "G2", "G3"]}}


def test_a_written_folder_may_be_read_by_others(build, tmp_path):
    assert write_cohort(build(), tmp_path / "mine").stat().st_mode & 0o777 == 0o755


# --- splits ---------------------------------------------------------------------------------------------------

FRACTIONS = (0.7, 0.1, 0.2)
SURVIVAL = (Task("OS", "survival", ("time", "event")),)
SEEDS = st.integers(0, 2**32 - 1)


@st.composite
def grouped_cohorts(draw) -> Cohort:
    """Draw 10 or more patients with an event, 10 or more without, and up to 5 of unknown outcome, of 1-3 samples."""
    counts = draw(st.tuples(st.integers(10, 40), st.integers(10, 40), st.integers(0, 5)))
    generator = np.random.default_rng(draw(SEEDS))
    events = np.repeat([1.0, 0.0, np.nan], counts)
    owners = np.repeat(np.arange(len(events)), generator.integers(1, 4, len(events)))
    owners = generator.permutation(owners)
    clinical = {"Patient": [f"P{owner}" for owner in owners], "time": 1.0 + owners, "event": events[owners]}
    samples = [f"S{row}" for row in range(len(owners))]
    expression = pd.DataFrame({"TP53": generator.normal(size=len(owners))}, samples)
    return make_cohort(expression, pd.DataFrame(clinical, samples), SURVIVAL, {})


def parts(division) -> list[set]:
    return [set(part.samples) for part in division]


@given(cohort=grouped_cohorts(), seed=SEEDS)
@settings(deadline=None, max_examples=30)
def test_a_split_is_a_partition_and_no_patient_straddles_it(cohort, seed):
    seen = {}
    for k, part in enumerate(split(cohort, seed)):
        for sample in part.samples:
            assert sample not in seen
            seen[sample] = k
    assert set(seen) == set(cohort.samples)
    homes = {(cohort.clinical.loc[sample, "Patient"], k) for sample, k in seen.items()}
    assert len(homes) == cohort.clinical["Patient"].nunique()


@given(cohort=grouped_cohorts(), seed=SEEDS)
@settings(deadline=None, max_examples=30)
def test_a_split_keeps_the_event_rate_up_to_rounding(cohort, seed):
    for event in ("1.0", "0.0", "nan"):
        of_all = set(cohort.clinical.loc[cohort.clinical["event"].astype(str) == event, "Patient"])
        for part, fraction in zip(split(cohort, seed), FRACTIONS, strict=True):
            assert abs(len(of_all & set(part.clinical["Patient"])) - fraction * len(of_all)) <= 1


@given(cohort=grouped_cohorts(), seed=SEEDS, order=st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=30)
def test_the_same_seed_gives_the_same_split_in_any_row_order(cohort, seed, order):
    rows = list(cohort.samples)
    order.shuffle(rows)
    assert parts(split(cohort, seed)) == parts(split(cohort.take(rows), seed))


@given(cohort=grouped_cohorts(), seed=st.integers(0, 2**31))
@settings(deadline=None, max_examples=15)
def test_different_seeds_give_different_splits(cohort, seed):
    assert parts(split(cohort, seed)) != parts(split(cohort, seed + 1))


@given(fractions=st.sampled_from([(0.5, 0.25, 0.25), (0.4, 0.4, 0.2), (0.8, 0.1, 0.1)]), seed=SEEDS)
@settings(deadline=None, max_examples=10)
def test_the_fractions_are_an_argument(build, fractions, seed):
    cohort = build(n=200)
    for part, fraction in zip(split(cohort, seed, fractions), fractions, strict=True):
        assert abs(len(part) - fraction * len(cohort)) <= 3  # three strata: event, none, unknown


def test_a_split_leaves_the_global_random_state_alone(build):
    before = np.random.get_state()[1].tolist()
    split(build(), 3)
    assert np.random.get_state()[1].tolist() == before


def test_every_seed_tests_somebody_else(build):
    cohort = build()
    tested = set().union(*(split(cohort, seed).test.samples for seed in range(40)))
    assert tested >= set(cohort.samples[~np.isnan(cohort.outcome()[0])])


def test_a_split_keeps_the_labels_with_their_samples(build):
    cohort = build()
    for part in split(cohort, 1):
        assert part.clinical.equals(cohort.clinical.loc[part.samples])
        assert part.expression.equals(cohort.expression.loc[part.samples])


def test_missing_outcomes_are_shared_out_too(build):
    cohort = build(n=200)
    cohort.clinical.loc[cohort.samples[:40], "OS_duration"] = np.nan
    assert [int(np.isnan(part.outcome()[0]).sum()) for part in split(cohort, 0)] == [28, 4, 8]


def test_without_survival_the_split_is_stratified_on_the_first_class_labels(build):
    cohort = build(n=90).with_tasks("Age", "Grade")
    for part, size in zip(split(cohort, 0), (21, 3, 6), strict=True):
        assert (part.clinical["Grade"].value_counts() - size).abs().max() <= 1


def test_without_events_and_classes_a_split_is_a_plain_one(build):
    assert [len(part) for part in split(build(n=100).with_tasks("Age"), 0)] == [70, 10, 20]


def test_a_patient_with_an_event_in_any_sample_counts_as_one_with_an_event():
    patients = np.repeat([f"P{row}" for row in range(40)], 2)
    clinical = {"Patient": patients, "time": np.ones(80), "event": np.resize([0.0, 1.0, 0.0, 0.0], 80)}
    samples = [f"S{row}" for row in range(80)]
    expression = pd.DataFrame({"TP53": np.arange(80.0)}, samples)
    division = split(make_cohort(expression, pd.DataFrame(clinical, samples), SURVIVAL, {}), 0)
    assert [int(part.clinical["event"].sum()) for part in division] == [14, 2, 4]


@pytest.mark.parametrize(("events", "name"), [(0, "train"), (1, "validation"), (3, "validation")])
def test_a_part_without_event_is_refused_with_name_and_remedy(build, events, name):
    cohort = build()
    cohort.clinical["OS_event"] = (np.arange(60) >= 60 - events).astype(float)
    sentence = complaint(split, cohort, 0)
    assert f"a small cohort: the {name} part" in sentence and "no event of 'OS'" in sentence
    assert "another seed, other fractions or a larger cohort" in sentence


def test_a_test_part_without_event_is_refused(build):
    cohort = build()
    cohort.clinical["OS_event"] = (np.arange(60) >= 56).astype(float)
    assert "the test part" in complaint(split, cohort, 0, (0.4, 0.5, 0.1))


def test_a_cohort_that_is_too_small_is_refused():
    sentence = complaint(split, tiny(["a", "b"], about={"name": "two"}), 0)
    assert "two: the test part" in sentence and "empty" in sentence and "too small" in sentence


@pytest.mark.parametrize("fractions", [(0.7, 0.1, 0.1), (0.9, 0.3, -0.2)])
def test_fractions_that_do_not_add_up_to_one_are_refused(build, fractions):
    with pytest.raises(ValueError, match="add up to 1"):
        split(build(), 0, fractions)


def test_a_real_cohort_is_split_by_patient(real_cohort):
    division = split(real_cohort, 0)
    assert sum(map(len, division)) == len(real_cohort)
    patients = [{name[:12] if name.startswith("TCGA-") else name for name in part.samples} for part in division]
    assert len(set.union(*patients)) == sum(map(len, patients))
