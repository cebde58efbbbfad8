"""The recipes, each on a small copy of its source's files in their true format."""

import ast
import csv
import gzip
import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from openpyxl import Workbook
from rdata.conversion.to_r import ConverterFromPythonToR, build_r_object
from rdata.parser import RObjectType
from rdata.unparser import unparse_file

from txtlib.cohort import CohortError, load_cohort
from txtlib.sources import RECIPES, make
from txtlib.sources import scanb as scanb_module
from txtlib.sources import xena as xena_module
from txtlib.sources.matrices import Matrix, by_symbol, read_matrix, symbols_of, without_version
from txtlib.sources.metabric import from_folder
from txtlib.sources.registry import read_registry, sources_of

REPOSITORY = Path(__file__).parents[1]
CANONICAL = REPOSITORY.parent / "shared" / "data" / "canonical" / "brca_metabric"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder for downloads that nothing may leave: an address without a server behind it stands for the network."""
    (tmp_path / "dl").mkdir()
    monkeypatch.setenv("TXT_DOWNLOADS", str(tmp_path / "dl"))
    monkeypatch.setenv("TXT_MIRROR", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("txtlib.sources.download.time.sleep", lambda seconds: None)
    return tmp_path


def complaint(call, *arguments, **named) -> str:
    with pytest.raises(CohortError) as caught:
        call(*arguments, **named)
    sentence = str(caught.value)
    assert sentence.splitlines() == [sentence] and sentence.endswith("."), sentence
    return sentence


def packed(text: str) -> bytes:
    return gzip.compress(text.encode())


def put(place: Path, files: dict) -> None:
    for name, content in files.items():
        (place / "dl" / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def values(column: pd.Series) -> list:
    return [None if pd.isna(value) else value for value in column]


def lines(*rows, sep="\t") -> str:
    return "".join(sep.join(map(str, row)) + "\n" for row in rows)


def xlsx(rows, sheet="Sheet1") -> bytes:
    book, buffer = Workbook(), io.BytesIO()
    book.active.title = sheet
    for row in rows:
        book.active.append(list(row))
    book.save(buffer)
    return buffer.getvalue()


class WithMatrix(ConverterFromPythonToR):
    """rdata's writer, which knows no matrix with names; R keeps those as the attributes dim and dimnames."""

    def convert_to_r_object(self, data):
        if not isinstance(data, pd.DataFrame) or "Gene.ID" in data:
            return super().convert_to_r_object(data)
        names = [data.index.to_numpy(object), data.columns.to_numpy(object)]
        attributes = {"dim": np.array(data.shape, np.int32), "dimnames": names}
        flat = data.to_numpy(float).ravel(order="F")
        return build_r_object(RObjectType.REAL, value=flat, attributes=self.convert_to_r_attributes(attributes))


def rdata_file(path: Path, **objects) -> bytes:
    unparse_file(path, WithMatrix().convert_to_r_data(objects, file_type="rda"), file_type="rda")
    return path.read_bytes()


# --- SCAN-B ---------------------------------------------------------------------------------------------------

AGE = "Age (5-year range, e.g., 35(31-35), 40(36-40), 45(41-45) etc.)"
SCANB_HEADER = ["Patient", "GEX.assay", "Follow.up.cohort", AGE, "Size.mm", "NHG", "NCN.PAM50"]
SCANB_HEADER += ["OS_days", "OS_event", "DRFi_days", "DRFi_event"]
SCANB_ROWS = [
    ["P1", "S1.l.r", True, 35, 12, "G1", "LumA", 100, 0, 90, 1],
    ["P2", "S2.l.r", True, 60, 0, "G3", "Basal", 200, 1, 200, 0],
    ["P2", "S9.l.r", False, 60, 9, "G3", "Basal", 200, 1, 200, 0],
    ["P3", "S3.l.r", True, 75, None, "G3", "unclassified", 300, 0, "NA", None],
    ["P4", "S4.l.r", True, 45, 33, "G1", "LumA", 400, 1, 10, 1],
    ["P5", "S5.l.r", True, "NA", 21, "NA", "Basal", 500, 0, 500, 0],
]
FPKM = pd.DataFrame(
    [[0, 1, 3, 7, 15, 31], [1, 1, 1, 1, 1, 1], [3, 3, 3, 3, 3, 3], [9, 9, 9, 9, 9, 9]],
    ["ENSG01.1", "ENSG02.1", "ENSG03.1", "ENSG04.1"],
    ["S4.l.r", "S1.l.r", "S9.l.r", "S2.l.r", "S3.l.r", "S5.l.r"],
    dtype=float,
)
ANNOTATION = pd.DataFrame({"Gene.ID": ["ENSG03.1", "ENSG01.1", "ENSG02.1"], "Gene.Name": ["TP53", "ESR1", "TP53"]})


def scanb_files(folder: Path) -> dict:
    return {
        "SCANB.9206.genematrix_noNeg.Rdata": rdata_file(folder / "a", **{"SCANB.9206.genematrix_noNeg": FPKM}),
        "Gene.ID.ann.Rdata": rdata_file(folder / "b", **{"Gene.ID.ann": ANNOTATION}),
        "41523_2022_465_MOESM2_ESM.xlsx": xlsx([SCANB_HEADER, *SCANB_ROWS], "SCANB.9206"),
    }


def test_scanb_is_the_follow_up_cohort_of_the_release_with_two_endpoints(place):
    put(place, scanb_files(place / "dl"))
    folder = make("scanb", place)
    os_cohort, drfi = load_cohort(folder), load_cohort(folder, tasks="tasks_DRFi.csv")
    assert list(os_cohort.samples) == ["S4.l.r", "S1.l.r", "S2.l.r", "S3.l.r", "S5.l.r"]
    assert os_cohort.expression.to_dict("list") == {"ESR1": [0, 1, 3, 4, 5], "TP53": [2, 2, 2, 2, 2]}
    assert os_cohort.expression.dtypes.unique() == [np.float32]
    clinical = os_cohort.clinical
    assert values(clinical["Age"]) == [43, 33, 58, 73, None]
    assert values(clinical["Size"]) == [33, 12, None, None, 21]
    assert values(clinical["NHG"]) == ["G1", "G1", "G3", "G3", None]
    assert values(clinical["PAM50"]) == ["LumA", "LumA", "Basal", None, "Basal"]
    assert os_cohort.survival_task.columns == ("OS_duration", "OS_event")
    assert drfi.survival_task.columns == ("DRFi_duration", "DRFi_event")
    assert values(clinical["OS_duration"]) == [400, 100, 200, 300, 500]
    assert values(clinical["OS_event"]) == [1, 0, 1, 0, 0]
    assert values(pd.Series(drfi.outcome()[0])) == [10, 90, 200, None, 500]
    assert values(pd.Series(drfi.outcome()[1])) == [1, 1, 0, None, 0]
    assert list(os_cohort.patients()) == ["P4", "P1", "P2", "P3", "P5"]
    assert "NCN.PAM50 unclassified (1)" in os_cohort.about["notes"] and "5-year" in os_cohort.about["notes"]


@pytest.mark.parametrize(
    ("given", "years"),
    [
        ([35, 40], [33, 38]),
        (["35", None], [33, None]),
        (["35(31-35)", "40(36-40)"], [33, 38]),
        (["50-54", "85-89"], [52, 87]),
        ([51, 60], [51, 60]),
    ],
)
def test_an_age_range_becomes_its_middle(given, years):
    assert values(scanb_module.middle_age(pd.Series(given, dtype=object))) == years


def test_a_release_whose_assays_are_named_otherwise_is_refused(place):
    other = {"SCANB.9206.genematrix_noNeg.Rdata": rdata_file(place / "dl" / "c", m=FPKM.add_prefix("X"))}
    put(place, scanb_files(place / "dl") | other)
    assert "none of its 6 columns is an assay" in complaint(make, "scanb", place)


def test_a_release_without_a_matrix_is_refused(place):
    files = scanb_files(place / "dl")
    put(place, {**files, "SCANB.9206.genematrix_noNeg.Rdata": files["Gene.ID.ann.Rdata"]})
    assert "0 objects of the kind DataArray" in complaint(make, "scanb", place)


# --- GSE96058 -------------------------------------------------------------------------------------------------

SERIES = {
    "F1": ("43", "9", "G1", "LumA", "2367", "0"),
    "F2": ("48", "14", "G3", "Basal", "2367", "1"),
    "F3": ("69", "NA", "NA", "LumA", "2168", "0"),
    "F4": ("39", "51", "G1", "Basal", "2416", "0"),
    "F5": ("80", "20", "G3", "NA", "12", "1"),
}
SERIES["F2repl"] = SERIES["F2"]
KEYS = ("age at diagnosis", "tumor size", "nhg", "pam50 subtype", "overall survival days", "overall survival event")


def series(*names, ragged=False) -> bytes:
    rows = [[f"{key}: {SERIES[name][row]}" for name in names] for row, key in enumerate(KEYS)]
    if ragged:  # GEO gives a sample's second line a row of its own kind
        rows[1][0], rows[2][0] = rows[2][0], rows[1][0]
    table = io.StringIO()
    writer = csv.writer(table, delimiter="\t", quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerow(["!Sample_title", *names])
    writer.writerow(["!Sample_geo_accession", *(f"GSM{number}" for number, _ in enumerate(names))])
    for row in rows:
        writer.writerow(["!Sample_characteristics_ch1", *row])
    text = table.getvalue().replace('"!', "!").replace('"\t', '"\t')
    text = "\n".join(line.replace('"', "", 1) if line.startswith("!") else line for line in text.splitlines())
    end = '\n!series_matrix_table_begin\n"ID_REF"\t"GSM0"\n!series_matrix_table_end\n'
    return packed('!Series_title\t"Gene expression"\n' + text + end)


def geo_matrix(header=("", "F1", "F2", "F3", "F4", "F5", "F2repl")) -> bytes:
    columns = {"5S_rRNA": [0, 1, 3, 7, 15, 99], "ESR1": [3, 3, 3, 3, 3, 3], "A1BG": [0, 0.1, 1, 1, 1, 1]}
    rows = [[gene, *(float(np.log2(fpkm + 0.1)) for fpkm in row)] for gene, row in columns.items()]
    rows.append(["ESR1", *[-3.4] * 6])  # the same symbol, lower; and below log2(0.1)
    table = io.StringIO()
    csv.writer(table, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n").writerows([header, *rows])
    return packed(table.getvalue())


def geo_files() -> dict:
    return {
        "GSE96058_gene_expression_3273_samples_and_136_replicates_transformed.csv.gz": geo_matrix(),
        "GSE96058-GPL11154_series_matrix.txt.gz": series("F1", "F2", "F2repl", ragged=True),
        "GSE96058-GPL18573_series_matrix.txt.gz": series("F3", "F4", "F5"),
    }


def test_gse96058_drops_replicates_and_changes_the_scale(place):
    put(place, geo_files())
    cohort = load_cohort(make("gse96058", place))
    assert list(cohort.samples) == ["F1", "F2", "F3", "F4", "F5"]
    assert list(cohort.expression) == ["5S_rRNA", "ESR1", "A1BG"]
    np.testing.assert_allclose(cohort.expression["5S_rRNA"], [0, 1, 2, 3, 4], atol=1e-6)
    np.testing.assert_allclose(cohort.expression["ESR1"], [2] * 5, atol=1e-6)
    np.testing.assert_allclose(cohort.expression["A1BG"], [0, np.log2(1.1), 1, 1, 1], atol=1e-6)
    clinical = cohort.clinical
    assert values(clinical["Age"]) == [43, 48, 69, 39, 80] and values(clinical["Size"]) == [9, 14, None, 51, 20]
    assert values(clinical["NHG"]) == ["G1", "G3", None, "G1", "G3"]
    assert values(clinical["PAM50"]) == ["LumA", "Basal", "LumA", "Basal", None]
    assert values(clinical["OS_duration"]) == [2367, 2367, 2168, 2416, 12]
    assert values(clinical["OS_event"]) == [0, 1, 0, 0, 1]
    assert not (place / "gse96058" / "tasks_DRFi.csv").exists()


def test_rounding_below_zero_is_clipped():
    assert scanb_module.from_tenth(np.float32([-3.4, -9])).tolist() == [0, 0]


# --- METABRIC -------------------------------------------------------------------------------------------------

PEOPLE = [
    ["#Patient Identifier", "Overall Survival (Months)", "Overall Survival Status", "Age at Diagnosis", "Pam50"],
    ["#Identifier", '"months, since diagnosis"', "Status", "Age", "Pam50"],
    ["#STRING", "NUMBER", "STRING", "NUMBER", "STRING"],
    ["#1"] * 5,
    ["PATIENT_ID", "OS_MONTHS", "OS_STATUS", "AGE_AT_DIAGNOSIS", "CLAUDIN_SUBTYPE"],
    ["MB-1", 100, "LIVING", 50.5, "LumA"],
    ["MB-2", 10, "DECEASED", 60, "claudin-low"],
    ["MB-3", 0, "LIVING", 70, "LumA"],
    ["MB-4", "", "", "", "Basal"],
    ["MB-5", 1, "DECEASED", 40, "Basal"],
    ["MB-6", 2, "LIVING", 41, "NC"],
]
TUMOURS = [
    *(["#a", "b", "c", "d"] for _ in range(4)),
    ["SAMPLE_ID", "PATIENT_ID", "GRADE", "TUMOR_SIZE"],
    ["MB-6", "MB-6", "2", "1.5"],
    *([f"MB-{n}", f"MB-{n}", grade, size] for n, grade, size in ((1, 3, 22), (2, 3, 10), (3, "null", 0), (4, 2, ""))),
    ["MB-5", "MB-5", 2, 30],
]
ARRAY = [
    ["Hugo_Symbol", "Entrez_Gene_Id", "MB-5", "MB-4", "MB-3", "MB-2", "MB-1"],
    ["ESR1", 2099, 1, 2, 3, 4, 5],
    ["TP53", 7157, 9, 9, 9, 9, ""],
    ["ESR1", 2099, 2, 3, 4, 5, "NA"],
    ["", 1, 7, 7, 7, 7, 7],
]


def study(coded=False, newline="\n", array=ARRAY, name="data_mrna_illumina_microarray.txt") -> dict:
    people = lines(*PEOPLE).replace("\n", newline)
    if coded:
        people = people.replace("LIVING", "0:LIVING").replace("DECEASED", "1:DECEASED")
    return {
        "data_clinical_patient.txt": people,
        "data_clinical_sample.txt": lines(*TUMOURS),
        name: lines(*array),
        "meta_study.txt": "cancer_study_identifier: brca_metabric\n",
    }


def tar(files: dict, folder="brca_metabric/") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(folder + name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


@pytest.mark.parametrize("coded", [False, True], ids=["LIVING", "0:LIVING"])
@pytest.mark.parametrize("newline", ["\n", "\r", "\r\n"], ids=["LF", "CR", "CRLF"])
def test_metabric_reads_old_and_new_files(place, coded, newline):
    put(place, {"brca_metabric.tar.gz": tar(study(coded, newline))})
    cohort = load_cohort(make("metabric", place))
    assert list(cohort.samples) == ["MB-5", "MB-4", "MB-3", "MB-2", "MB-1"]
    assert list(cohort.expression) == ["TP53", "ESR1"]  # the second ESR1 has the higher mean
    assert values(cohort.expression["ESR1"]) == [2, 3, 4, 5, None]
    assert values(cohort.expression["TP53"]) == [9, 9, 9, 9, None]
    clinical = cohort.clinical
    assert values(clinical["OS_duration"]) == [30.44, None, 0, 304.38, 3043.75]
    assert values(clinical["OS_event"]) == [1, None, 0, 1, 0]
    assert values(clinical["Age"]) == [40, None, 70, 60, 50.5]
    assert values(clinical["Size"]) == [30, None, None, 10, 22]
    assert values(clinical["PAM50"]) == ["Basal", "Basal", "LumA", None, "LumA"]
    assert values(clinical["NHG"]) == ["G2", "G2", None, "G3", "G3"]
    assert "CLAUDIN_SUBTYPE claudin-low (1)" in cohort.about["notes"]
    assert "30.4375" in cohort.about["notes"] and "highest mean" in cohort.about["notes"]
    assert sorted(os.listdir(place / "dl")) == ["brca_metabric.tar.gz"]


@pytest.mark.skipif(not CANONICAL.is_dir(), reason="no ../shared/data/canonical/brca_metabric")
def test_metabric_on_the_real_files(place, data_folder):
    with tarfile.open(place / "dl" / "brca_metabric.tar.gz", "w:gz") as archive:
        archive.add(CANONICAL, "brca_metabric")
    cohort, other = load_cohort(make("metabric", place)), load_cohort(data_folder / "metabric")
    assert cohort.expression.shape == (237, 489) and set(cohort.samples) == set(other.samples)
    cohort = cohort.take(other.samples)
    for column in ("Age", "Size", "NHG", "PAM50", "OS_event"):
        assert values(cohort.clinical[column]) == values(other.clinical[column]), column
    apart = (cohort.clinical["OS_duration"] - other.clinical["OS_duration"]).abs()
    assert (apart < 0.06).sum() == 229  # the other copy is younger: cBioPortal has followed up 8 patients since
    assert np.allclose(cohort.expression[other.expression.columns], other.expression, atol=6e-4, equal_nan=True)
    assert "no label, in the whole clinical table: CLAUDIN_SUBTYPE claudin-low (218)" in cohort.about["notes"]


def test_a_study_without_expression_is_refused(tmp_path):
    for name, text in study(name="other.txt").items():
        (tmp_path / name).write_text(text)
    assert "lacks data_mrna_illumina_microarray.txt" in complaint(from_folder, tmp_path)


# --- TCGA and TARGET ------------------------------------------------------------------------------------------

CDR = [
    ["", "bcr_patient_barcode", "type", "age_at_initial_pathologic_diagnosis", "OS", "OS.time", "Redaction"],
    [1, "TCGA-AA-0001", "BRCA", 50, 1, 1000, "#N/A"],
    [2, "TCGA-AA-0002", "BRCA", 61, 0, 2000, "#N/A"],
    [3, "TCGA-AA-0003", "BRCA", "#N/A", "#N/A", "#N/A", "#N/A"],
    [4, "TCGA-AA-0004", "BRCA", 70, 0, 5, "Redacted"],
    [5, "TCGA-AA-0005", "OV", 70, 0, 5, "#N/A"],
    [6, "TCGA-AA-0006", "BRCA", 44, 0, 6, "#N/A"],
]
BRCA = [
    "TCGA-AA-0001-01",
    "TCGA-AA-0001-11",
    "TCGA-AA-0002-01",
    "TCGA-AA-0003-01",
    "TCGA-AA-0004-01",
    "TCGA-AA-0006-01",
]


def brca_files() -> dict:
    labels = [[name, pam50, stage] for name, pam50, stage in zip(BRCA, PAM50S, STAGES, strict=True)]
    return {
        "HiSeqV2.gz": packed(
            lines(["sample", *BRCA], ["ESR1", 1, 2, 3, 4, 5, 6], ["?", 1, 1, 1, 1, 1, 1], ["TP53", 6, 5, 4, 3, 2, 1])
        ),
        "BRCA_clinicalMatrix": lines(["sampleID", "PAM50Call_RNAseq", "pathologic_T"], *labels),
        "TCGA-CDR-SupplementalTableS1.xlsx": xlsx(CDR, "TCGA-CDR"),
    }


PAM50S = ("LumA", "Normal", "LumA", "", "Basal", "")
STAGES = ("T1c", "T1c", "T2", "T2a", "T1", "T1")


def test_tcga_brca_has_primary_tumours_with_curated_outcomes(place):
    put(place, brca_files())
    cohort = load_cohort(make("tcga_brca", place))
    assert list(cohort.samples) == ["TCGA-AA-0001-01", "TCGA-AA-0002-01", "TCGA-AA-0003-01", "TCGA-AA-0006-01"]
    assert cohort.expression.to_dict("list") == {"ESR1": [1, 3, 4, 6], "TP53": [6, 4, 3, 1]}
    clinical = cohort.clinical
    assert values(clinical["Age"]) == [50, 61, None, 44]
    assert values(clinical["TStage"]) == ["T1", "T2", "T2", "T1"]
    assert values(clinical["PAM50"]) == ["LumA", "LumA", None, None]
    assert values(clinical["OS_duration"]) == [1000, 2000, None, 6] and values(clinical["OS_event"]) == [1, 0, None, 0]
    assert list(cohort.patients()) == [name[:12] for name in cohort.samples]


AML = [
    "TARGET-20-PAAAAA-03A",
    "TARGET-20-PAAAAA-09A",
    "TARGET-20-PABBBB-03A",
    "TARGET-20-PABBBB-04A",
    "TARGET-20-PACCCC-14A",
]
AML_AGES = {"age_at_diagnosis.diagnoses": [3652.5, 3652.5, "", 1, 1], "age_at_index.demographic": [10, 10, 7, 1, 1]}


def aml_files(old: bool) -> dict:
    matrix = lines(
        ["Ensembl_ID", *AML],
        ["ENSG00000000003.13", 1, 2, 3, 4, 5],
        ["ENSG00000000005.5", 0, 0, 1, 0, 0],
        ["ENSG00000000419.11", 9, 9, 9, 9, 9],
    )
    genes = lines(
        ["id", "gene", "chrom"],
        ["ENSG00000000003.15", "TSPAN6", "chrX"],
        ["ENSG00000000005.6", "TNMD", "chrX"],
    )
    head = "submitter_id.samples" if old else "sample"
    clinical = lines([head, *AML_AGES], *zip(AML, *AML_AGES.values(), strict=True))
    survival = lines(
        ["sample", "OS", "_PATIENT", "OS.time"], [AML[0], 1, AML[0][:16], 500], [AML[2], 0, AML[2][:16], 600]
    )
    names = (
        ("TARGET-AML.htseq_fpkm.tsv.gz", "gencode.v22.annotation.gene.probeMap", "TARGET-AML.GDC_phenotype.tsv.gz")
        if old
        else ("TARGET-AML.star_fpkm.tsv.gz", "gencode.v36.annotation.gtf.gene.probemap", "TARGET-AML.clinical.tsv.gz")
    )
    last = "TARGET-AML.survival.tsv" + ("" if old else ".gz")
    contents = (packed(matrix), genes, packed(clinical), survival if old else packed(survival))
    return dict(zip((*names, last), contents, strict=True))


@pytest.mark.parametrize("old", [False, True], ids=["star", "htseq"])
def test_target_aml_has_symbols_and_one_sample_per_patient(place, old):
    put(place, aml_files(old))
    cohort = load_cohort(make("target_aml", place))
    assert list(cohort.samples) == ["TARGET-20-PAAAAA-09A", "TARGET-20-PABBBB-03A"]
    assert cohort.expression.to_dict("list") == {"TSPAN6": [2, 3], "TNMD": [0, 1]}
    assert values(cohort.clinical["Age"]) == [10, 7]
    assert [list(part) for part in cohort.outcome()] == [[500, 600], [1, 0]]
    assert list(cohort.patients()) == ["TARGET-20-PAAAAA", "TARGET-20-PABBBB"]


TOIL = [
    "GTEX-1117F-0226-SM-1",
    "TCGA-AA-0001-01",
    "TCGA-AA-0001-11",
    "TCGA-AA-0002-01",
    "K-562-SM-1",
    "TARGET-20-PAAAAA-03",
]
TOIL_LABELS = [
    ["Lung", "Lung", "Normal Tissue", "GTEX"],
    ["Lung Adenocarcinoma", "Lung", "Primary Tumor", "TCGA"],
    ["Lung Adenocarcinoma", "Lung", "Solid Tissue Normal", "TCGA"],
    ["Lung Adenocarcinoma", "Lung", "Primary Tumor", "TCGA"],
    ["Leukemia", "Blood", "Cell Line", "GTEX"],
    ["Sjögren", "White blood cell", "Primary Blood Derived Cancer - Peripheral Blood", "TARGET"],
]


def test_toil_joins_tumours_and_healthy_tissue(place):
    head = [
        "sample",
        "detailed_category",
        "primary disease or tissue",
        "_primary_site",
        "_sample_type",
        "_gender",
        "_study",
    ]
    rows = [[name, "x", *row[:3], "Female", row[3]] for name, row in zip(TOIL, TOIL_LABELS, strict=True)]
    tpm = [[0, 1, 3, 7, 15, 31], [1] * 6]
    matrix = [[f"ENSG0{row}.1", *np.log2(np.array(cells) + 0.001)] for row, cells in enumerate(tpm)]
    files = {
        "TcgaTargetGtex_rsem_gene_tpm.gz": packed(lines(["sample", *TOIL], *matrix)),
        "gencode.v23.annotation.gene.probemap": lines(["id", "gene"], ["ENSG00.1", "ESR1"], ["ENSG01.1", "TP53"]),
        "TcgaTargetGTEX_phenotype.txt.gz": gzip.compress(lines(head, *rows).encode("latin-1")),
    }
    put(place, files)
    cohort = load_cohort(make("tcga_target_gtex", place))
    assert list(cohort.samples) == [*TOIL[:4], TOIL[5]]
    np.testing.assert_allclose(cohort.expression["ESR1"], [0, 1, 2, 3, 5], atol=1e-5)
    disease = "Lung Adenocarcinoma"
    assert values(cohort.clinical["CancerType"]) == [None, disease, None, disease, None]
    assert values(cohort.clinical["Tissue"]) == ["Lung"] * 4 + [None]  # labels that one sample has are no classes
    assert list(cohort.patients()) == ["GTEX-1117F", "TCGA-AA-0001", "TCGA-AA-0001", "TCGA-AA-0002", "TARGET-20-PAAAAA"]
    assert cohort.survival_task is None


def test_barcodes():
    assert [xena_module.is_primary(name) for name in ("TCGA-A-B-01", "TCGA-A-B-01A", "TCGA-A-B-11", "odd")] == [
        True,
        True,
        False,
        False,
    ]
    assert xena_module.one_per_patient(["TARGET-20-A-09B", "TARGET-20-A-09A", "TARGET-20-B-40A", "odd"]) == [
        "TARGET-20-A-09A"
    ]


# --- networks and gene sets -----------------------------------------------------------------------------------

INFO = lines(
    ["#string_protein_id", "preferred_name", "protein_size", "annotation"],
    ["9606.P1", "TP53", 393, 'Acts as a "tumor" suppressor'],
    ["9606.P2", "ESR1", 595, "-"],
    ["9606.P3", "BRCA1", 1863, "-"],
    ["9606.P4", "TP53", 10, "-"],
)
LINKS = [
    ["P1", "P2", 900],
    ["P1", "P3", 400],
    ["P2", "P3", 399],
    ["P4", "P2", 950],
    ["P1", "P4", 999],
    ["P9", "P1", 999],
]
BOTH_WAYS = [[f"9606.{a}", f"9606.{b}", s] for one, two, s in LINKS for a, b in ((one, two), (two, one))]


def string_files() -> dict:
    return {
        "9606.protein.links.v12.0.txt.gz": packed(
            lines(["protein1", "protein2", "combined_score"], *BOTH_WAYS, sep=" ")
        ),
        "9606.protein.info.v12.0.txt.gz": packed(INFO),
    }


@pytest.mark.parametrize(
    ("options", "edges"),
    [
        ({}, [["BRCA1", "TP53", 400], ["ESR1", "TP53", 950]]),
        ({"score": 700}, [["ESR1", "TP53", 950]]),
        ({"score": 0}, [["BRCA1", "ESR1", 399], ["BRCA1", "TP53", 400], ["ESR1", "TP53", 950]]),
    ],
)
def test_string_is_an_edge_list_of_symbols(place, options, edges):
    put(place, string_files())
    path = make("string", place, **options)
    assert path == place / "networks" / "string_v12.csv.gz"
    table = pd.read_csv(path)
    assert list(table) == ["protein1", "protein2", "combined_score"] and table.to_numpy().tolist() == edges
    assert yaml.safe_load(path.with_name(path.name + ".provenance.yml").read_text())["options"] == options


def test_another_score_makes_the_network_again(place):
    put(place, string_files())
    assert len(pd.read_csv(make("string", place, score=700))) == 1
    first = make("string", place, score=700).stat().st_mtime_ns
    assert make("string", place, score=700).stat().st_mtime_ns == first
    assert len(pd.read_csv(make("string", place, score=0))) == 3


def test_a_score_that_no_edge_has_is_refused(place):
    put(place, string_files())
    assert "no edge of at least 1000" in complaint(make, "string", place, score=1000)
    assert not (place / "networks").exists()


GMT = "".join(f"HALLMARK_{n}\thttps://example.org/{n}\tTP53\tESR1\n" for n in range(50))


def test_hallmark_is_kept_as_it_is(place):
    put(place, {"h.all.v2023.2.Hs.symbols.gmt": GMT})
    path = make("hallmark", place)
    assert path == place / "genesets" / "h.all.v2023.2.Hs.symbols.gmt" and path.read_text() == GMT
    assert sorted(os.listdir(path.parent)) == [path.name, f"{path.name}.provenance.yml"]


@pytest.mark.parametrize("text", [GMT[: len(GMT) // 2], "<html>not found</html>", GMT.replace("HALLMARK_3\t", "x")])
def test_what_is_no_hallmark_is_refused(place, text):
    put(place, {"h.all.v2023.2.Hs.symbols.gmt": text})
    assert "Hallmark" in complaint(make, "hallmark", place)
    assert not (place / "genesets").exists()


# --- shared rules ---------------------------------------------------------------------------------------------


def matrix(*rows) -> Matrix:
    return Matrix([str(n) for n, _ in enumerate(rows)], ["a", "b"], np.float32(rows))


def test_repeated_symbols_keep_the_highest_mean_and_the_order_of_the_file():
    found = by_symbol(
        matrix([1, 1], [5, 5], [2, 2], [0, np.nan], [3, 3], [np.nan, np.nan]), ["A", "B", "A", "B", None, "C"]
    )
    assert found.names == ["B", "A", "C"] and found.values[:2].tolist() == [[5, 5], [2, 2]]


def test_of_equal_rows_the_first_stays_and_blank_symbols_go():
    found = by_symbol(matrix([1, 3], [2, 2], [9, 9], [8, 8]), ["A", " A ", "", "?"])
    assert found.names == ["A"] and found.values.tolist() == [[1, 3]]


def test_ensembl_versions_do_not_matter_but_the_second_copy_on_chromosome_y_does():
    assert without_version(["ENSG1.4", "ENSG1.4_PAR_Y", "ENSG2"]) == ["ENSG1", "ENSG1.4_PAR_Y", "ENSG2"]
    table = pd.DataFrame({"id": ["ENSG1.9"], "gene": ["A"]})
    assert symbols_of(["ENSG1.4", "ENSG1.4_PAR_Y", "ENSG2"], table, "id", "gene") == ["A", None, None]


def test_a_matrix_larger_than_a_block_reads_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("txtlib.sources.matrices.BLOCK", 4096)
    expected = np.random.default_rng(0).normal(size=(300, 20)).astype(np.float32)
    samples = [f"S{n}" for n in range(20)]
    path = tmp_path / "m.csv.gz"
    pd.DataFrame(expected, [f"G{n}" for n in range(300)], samples).to_csv(path)
    found = read_matrix(path, ("",), keep=lambda name: name != "S3")
    assert found.samples == [name for name in samples if name != "S3"]
    np.testing.assert_allclose(found.values, np.delete(expected, 3, axis=1), rtol=1e-6)


# --- the registry ---------------------------------------------------------------------------------------------


def test_every_recipe_is_registered_and_every_entry_is_whole():
    registry = read_registry()
    assert registry.keys() == RECIPES.keys()
    for entry in registry.values():
        assert {"name", "what", "notes", "files"} == entry.keys()
        for file in entry["files"].values():
            assert {"what", "format", "urls", "licence", "citation", "bytes", "sha256"} <= file.keys()
            assert all(url.startswith("https://") for url in file["urls"]) and file["citation"] and file["licence"]


def test_file_names_are_one_for_each_address():
    names = [name for key in RECIPES for source in sources_of(key).values() for name in source.names().values()]
    assert len(set(names)) == len(names) == 24 and "41523_2022_465_MOESM2_ESM.xlsx" in names


def test_the_provenance_record_names_every_file(place):
    put(place, geo_files())
    record = yaml.safe_load((make("gse96058", place) / "provenance.yml").read_text())
    assert len(record["files"]) == 3
    for file in record["files"]:
        path = place / "dl" / file["file"]
        assert file["bytes"] == path.stat().st_size and len(file["sha256"]) == 64 and file["date"]


def test_the_page_on_sources_lists_every_recipe(monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "book"))
    from registry import sources_tables

    text = sources_tables(REPOSITORY / "data" / "sources.yml")
    assert all(f"`make data COHORT={name}`" in text for name in RECIPES)
    assert "[10.1093/nar/gkac1000](https://doi.org/10.1093/nar/gkac1000)" in text and "83,164,437 bytes" in text
    names = [name for key in RECIPES for source in sources_of(key).values() for name in source.names().values()]
    assert [name for name in names if f"`{name}`" not in text] == []
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {row.count(" | ") for row in rows} == {3, 4}


def test_recipes_need_the_cohort_and_nothing_else_of_the_library():
    for path in (REPOSITORY / "txtlib" / "sources").glob("*.py"):
        tree = ast.parse(path.read_text())
        names = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        inside = {name.split(".")[1] for name in names if name.startswith("txtlib.")}
        assert inside <= {"cohort", "sources"}, path


def test_no_reader_under_the_agpl():
    assert "pyreadr" not in "".join(path.read_text() for path in (REPOSITORY / "txtlib").rglob("*.py"))
