"""METABRIC, from the files of cBioPortal's study brca_metabric."""

import tarfile
import tempfile
from pathlib import Path, PurePosixPath

import pandas as pd

from txtlib.cohort import Cohort, CohortError, make_cohort
from txtlib.sources.matrices import REPEATS, by_symbol, read_matrix
from txtlib.sources.tables import (
    BREAST,
    BREAST_ABOUT,
    GRADE_CODES,
    OS,
    PAM50_CODES,
    labels,
    numbers,
    read_tsv,
    reading,
    shared_notes,
    sizes,
)

DAYS_PER_MONTH = 30.4375  # 365.25 / 12
PATIENTS, SAMPLES = "data_clinical_patient.txt", "data_clinical_sample.txt"
EXPRESSION = {  # the first that the study holds is read
    "data_mrna_illumina_microarray.txt": "log2 intensity",
    "data_expression_median.txt": "log2 intensity",
    "data_mrna_illumina_microarray_zscores_ref_diploid_samples.txt": "z-score of log2 intensity",
}


def metabric(files: dict[str, Path]) -> Cohort:
    """Return the patients with a microarray (Curtis et al. 2012, Pereira et al. 2016), with OS."""
    with tempfile.TemporaryDirectory(prefix="metabric-") as folder:  # the folder of downloads may be read-only
        unpack(files["study"], Path(folder), {PATIENTS, SAMPLES, *EXPRESSION})
        try:
            return from_folder(Path(folder))
        except CohortError as error:  # the folder is gone when the sentence is read
            raise CohortError(str(error).replace(folder, str(files["study"]))) from error


def from_folder(folder: Path) -> Cohort:
    """Return METABRIC from the unpacked files of the study, whatever its age; CohortError if one is missing."""
    unlabelled = []
    found = [name for name in EXPRESSION if (folder / name).is_file()]
    absent = [name for name in (PATIENTS, SAMPLES) if not (folder / name).is_file()] + (
        [] if found else [*EXPRESSION][:1]
    )
    if absent:
        raise CohortError(
            f"The study brca_metabric lacks {', '.join(absent)}; the source has changed, or was cut short."
        )
    clinical = _labels(folder / PATIENTS, folder / SAMPLES, unlabelled)
    matrix = read_matrix(folder / found[0], ("Hugo_Symbol",), keep=lambda name: name != "Entrez_Gene_Id")
    about = {
        "name": "METABRIC",
        "expression": f"{EXPRESSION[found[0]]}, gene symbols",
        **BREAST_ABOUT,
        "licence": "ODbL (cBioPortal datahub, study brca_metabric)",
        "citation": ["10.1038/nature10983", "10.1038/ncomms11479"],
        "notes": shared_notes(f"OS_duration is months x {DAYS_PER_MONTH}; {REPEATS}", unlabelled),
    }
    return make_cohort(by_symbol(matrix, matrix.names).frame(), clinical, (*BREAST, OS), about, where=folder / PATIENTS)


def _labels(patients: Path, samples: Path, unlabelled: list[str]) -> pd.DataFrame:
    """Join the two clinical tables; the old coding of OS_STATUS (LIVING) and today's (0:LIVING) read the same."""
    columns = ("PATIENT_ID", "OS_MONTHS", "OS_STATUS", "AGE_AT_DIAGNOSIS", "CLAUDIN_SUBTYPE")
    people = read_tsv(patients, columns, comment="#").set_index("PATIENT_ID")
    tumours = read_tsv(samples, ("SAMPLE_ID", "PATIENT_ID", "GRADE", "TUMOR_SIZE"), comment="#").set_index("SAMPLE_ID")
    people = people.reindex(tumours["PATIENT_ID"]).set_axis(tumours.index)
    status = people["OS_STATUS"].str.split(":").str[-1]
    return pd.DataFrame(
        {
            "Patient": tumours["PATIENT_ID"],
            "Age": numbers(people["AGE_AT_DIAGNOSIS"]),
            "Size": sizes(tumours["TUMOR_SIZE"]),
            "NHG": labels(tumours["GRADE"], GRADE_CODES, samples, unlabelled),
            "PAM50": labels(people["CLAUDIN_SUBTYPE"], PAM50_CODES, patients, unlabelled),
            "OS_duration": (numbers(people["OS_MONTHS"]) * DAYS_PER_MONTH).round(2),
            "OS_event": numbers(labels(status, {"LIVING": "0", "DECEASED": "1"}, patients, unlabelled)),
        }
    )


def unpack(archive: Path, folder: Path, wanted: set[str]) -> None:
    """Write the wanted files of a tar.gz into a folder, by their last names.

    Raises CohortError, before anything is written, if any member would leave the folder or is a link or a device.
    """
    with reading(archive), tarfile.open(archive, "r:gz") as study:
        members = study.getmembers()
        for member in members:
            _check_member(member, archive)
        for member in members:
            name = PurePosixPath(member.name).name
            if member.isfile() and name in wanted:
                _write_member(study, member, folder / name)


def _check_member(member: tarfile.TarInfo, archive: Path) -> None:
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\\" in member.name or not (member.isfile() or member.isdir()):
        raise CohortError(
            f"{archive} holds the member {member.name!r}, which would leave its folder or is no plain file; the "
            "archive is not to be trusted: remove it, and download it from the address in data/sources.yml."
        )


def _write_member(study: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    with study.extractfile(member) as source, open(path, "xb") as target:
        while block := source.read(1 << 20):
            target.write(block)
