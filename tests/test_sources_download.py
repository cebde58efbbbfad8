"""Downloads that are resumed, retried, refused and verified; every failure is one sentence, and leaves no cohort."""

import errno
import gzip
import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pytest
import yaml
from test_sources import (
    GMT,
    brca_files,
    complaint,
    geo_files,
    geo_matrix,
    packed,
    put,
    scanb_files,
    string_files,
    study,
    tar,
)

from txtlib.cohort import CohortError, load_cohort
from txtlib.sources import download, make
from txtlib.sources.__main__ import main
from txtlib.sources.registry import Source

REPOSITORY = Path(__file__).parents[1]
CONTENT = bytes(range(256)) * 4096
MATRIX = "GSE96058_gene_expression_3273_samples_and_136_replicates_transformed.csv.gz"
ADDRESS = "https://source.example/folder/file.bin"


class Handler(BaseHTTPRequestHandler):
    """Serves ``server.content`` at every path; the lists of the server say what goes wrong, request by request."""

    def do_GET(self):
        server, start = self.server, 0
        server.asked.append((self.path, self.headers.get("Range")))
        status = server.statuses.pop(0) if server.statuses else 200
        content = server.files.get(self.path.rsplit("/", 1)[-1], server.content)
        if status != 200:
            self.send_error(status)
            return
        if server.ranges and self.headers.get("Range"):
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
            status = 206 if start < len(content) else 416
        self.send_response(status)
        if status == 416:
            self.send_header("Content-Range", f"bytes */{len(content)}")
        self.send_header("Content-Length", str(max(0, len(content) - start)))
        self.end_headers()
        end = server.cuts.pop(0) if server.cuts else len(content)
        self.wfile.write(content[start:end])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.content, server.files, server.ranges = CONTENT, {}, True
        server.asked, server.statuses, server.cuts = [], [], []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def place(tmp_path, monkeypatch, server):
    """A folder for downloads, and a mirror in the place of the network."""
    monkeypatch.setenv("TXT_DOWNLOADS", str(tmp_path / "dl"))
    monkeypatch.setenv("TXT_MIRROR", f"http://127.0.0.1:{server.server_port}/mirror/")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
    (tmp_path / "dl").mkdir()
    return tmp_path


def source(*urls, **named) -> Source:
    return Source(urls=urls or (ADDRESS,), licence="CC0", citation=("10.1/x",), **named)


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def left(place: Path) -> list[str]:
    return sorted(os.listdir(place / "dl"))


# --- downloading ----------------------------------------------------------------------------------------------


def test_a_file_comes_from_the_mirror_with_the_path_of_its_address(place, server):
    found = download.fetch(source(), place)
    assert found.path == place / "dl" / "file.bin" and found.path.read_bytes() == CONTENT
    assert found[1:] == (ADDRESS, found.date, len(CONTENT), sha(CONTENT))
    assert server.asked == [("/mirror/folder/file.bin", None)] and left(place) == ["file.bin"]


def test_a_mirror_may_be_a_folder(place, server, monkeypatch):
    (place / "a mirror" / "folder").mkdir(parents=True)
    (place / "a mirror" / "folder" / "file.bin").write_bytes(b"here")
    monkeypatch.setenv("TXT_MIRROR", (place / "a mirror").as_uri())
    assert download.fetch(source(), place).path.read_bytes() == b"here" and not server.asked


def test_a_mirror_folder_without_the_file_is_named(place, monkeypatch):
    monkeypatch.setenv("TXT_MIRROR", place.as_uri())
    sentence = complaint(download.fetch, source(), place)
    assert f"{place.as_uri()}/folder/file.bin" in sentence and "does not give this file" in sentence
    assert left(place) == []


def test_a_proxy_is_asked_in_the_place_of_the_source(place, server, monkeypatch):
    monkeypatch.setenv("TXT_MIRROR", "http://source.example")
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
    assert download.fetch(source(), place).path.read_bytes() == CONTENT
    assert server.asked == [("http://source.example/folder/file.bin", None)]


def test_a_read_only_folder_of_downloads_will_do(place):
    put(place, {"brca_metabric.tar.gz": STUDY})
    (place / "dl").chmod(0o555)
    assert len(load_cohort(make("metabric", place))) == 5
    (place / "dl").chmod(0o755)


def test_without_settings_downloads_go_beside_the_cohorts(place, monkeypatch):
    monkeypatch.delenv("TXT_DOWNLOADS")
    assert download.fetch(source(), place).path == place / "downloads" / "file.bin"


def test_a_file_in_the_folder_of_downloads_needs_no_network(place, server):
    put(place, {"file.bin": b"mine"})
    assert download.fetch(source(), place).sha256 == sha(b"mine") and not server.asked


def test_a_partial_file_is_resumed(place, server):
    put(place, {"file.bin.part": CONTENT[:1000]})
    assert download.fetch(source(), place).path.read_bytes() == CONTENT
    assert [ask[1] for ask in server.asked] == ["bytes=1000-"] and left(place) == ["file.bin"]


def test_a_server_that_knows_no_ranges_sends_everything_again(place, server):
    server.ranges = False
    put(place, {"file.bin.part": b"something else"})
    assert download.fetch(source(), place).path.read_bytes() == CONTENT


def test_a_partial_file_that_is_whole_is_taken(place, server):
    put(place, {"file.bin.part": CONTENT})
    assert download.fetch(source(), place).path.read_bytes() == CONTENT and len(server.asked) == 1


def test_a_partial_file_that_is_too_long_is_started_again(place, server):
    put(place, {"file.bin.part": CONTENT + b"x"})
    assert download.fetch(source(), place).path.read_bytes() == CONTENT
    assert [ask[1] for ask in server.asked] == [f"bytes={len(CONTENT) + 1}-", None]


def test_a_cut_connection_goes_on_where_it_ended(place, server):
    server.cuts = [5000, 90000]
    assert download.fetch(source(), place).path.read_bytes() == CONTENT
    assert [ask[1] for ask in server.asked] == [None, "bytes=5000-", "bytes=90000-"]


@pytest.mark.parametrize("status", [503, 429, 500])
def test_a_server_that_is_busy_is_asked_again(place, server, status):
    server.statuses = [status, status]
    assert download.fetch(source(), place).path.read_bytes() == CONTENT and len(server.asked) == 3


def test_the_waits_grow(place, server, monkeypatch):
    waits = []
    monkeypatch.setattr(download.time, "sleep", waits.append)
    server.statuses = [503] * 3
    download.fetch(source(), place)
    assert waits == [1, 2, 4]


@pytest.mark.parametrize("status", [403, 404])
def test_a_file_that_is_gone_is_looked_for_at_the_next_address(place, server, status):
    server.statuses = [status]
    found = download.fetch(source("https://a.example/new.gz", "https://a.example/old.gz"), place)
    assert found.path.name == "old.gz" and found.url == "https://a.example/old.gz"


# --- failing --------------------------------------------------------------------------------------------------


def test_a_server_that_stays_busy_is_named(place, server):
    server.statuses = [503] * 9
    sentence = complaint(download.fetch, source(), place)
    assert "folder/file.bin could not be downloaded (the server answers 503)" in sentence
    assert len(server.asked) == download.ATTEMPTS and left(place) == []


def test_a_server_that_refuses_is_named(place, server):
    server.statuses = [401]
    assert "the server answers 401" in complaint(download.fetch, source(), place)


def test_a_file_that_no_address_has_is_named(place, server):
    server.statuses = [404]
    assert "/mirror/folder/file.bin: the server does not give this file" in complaint(download.fetch, source(), place)


def test_no_network_is_one_sentence(place, monkeypatch):
    monkeypatch.setenv("TXT_MIRROR", "http://127.0.0.1:9")
    sentence = complaint(download.fetch, source(), place)
    assert "http://127.0.0.1:9/folder/file.bin could not be downloaded (no connection)" in sentence
    assert "check the network" in sentence and f"put the file into {place / 'dl'}" in sentence and left(place) == []


def test_a_connection_that_keeps_breaking_keeps_the_part_for_the_next_run(place, server):
    server.cuts = [1000, 2000, 3000, 4000]
    sentence = complaint(download.fetch, source(), place)
    assert "file.bin.part keeps the 4000 bytes so far" in sentence and left(place) == ["file.bin.part"]
    assert download.fetch(source(), place).path.read_bytes() == CONTENT


def test_a_mirror_that_is_no_address_is_one_sentence(place, monkeypatch):
    monkeypatch.setenv("TXT_MIRROR", "mirror.example")
    assert "could not be downloaded" in complaint(download.fetch, source(), place)


def test_a_download_with_another_checksum_is_removed(place):
    sentence = complaint(download.fetch, source(sha256=sha(b"other")), place)
    assert f"does not have the sha256 {sha(b'other')}" in sentence and "download was removed" in sentence
    assert left(place) == []


def test_a_file_on_disk_with_another_checksum_is_kept_and_named(place, server):
    put(place, {"file.bin": b"mine"})
    sentence = complaint(download.fetch, source(sha256=sha(b"other")), place)
    assert str(place / "dl" / "file.bin") in sentence and "data/sources.yml" in sentence and sha(b"mine") in sentence
    assert left(place) == ["file.bin"] and not server.asked


def test_a_full_disk_keeps_the_part(place, monkeypatch):
    def full(answer, part, have):
        part.write_bytes(CONTENT[:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(download, "_save", full)
    sentence = complaint(download.fetch, source(), place)
    assert "No space left on device" in sentence and "keeps the 10 bytes" in sentence
    assert left(place) == ["file.bin.part"]


def test_a_folder_that_cannot_be_made_is_one_sentence(place, monkeypatch):
    (place / "file").touch()
    monkeypatch.setenv("TXT_DOWNLOADS", str(place / "file" / "dl"))
    assert "could not be downloaded" in complaint(download.fetch, source(), place)


# --- checksums ------------------------------------------------------------------------------------------------


def test_the_first_use_records_the_checksum_and_later_files_must_match(place, server):
    server.content = GMT.encode()
    path = make("hallmark", place)
    record = yaml.safe_load((place / "checksums.yml").read_text())
    name = "h.all.v2023.2.Hs.symbols.gmt"
    assert record[name] == {
        "sha256": sha(GMT.encode()),
        "bytes": len(GMT),
        "url": "https://data.broadinstitute.org/gsea-msigdb/msigdb/release/2023.2.Hs/" + name,
        "date": record[name]["date"],
    }
    path.unlink()
    (place / "dl" / name).unlink()
    server.content = GMT.replace("TP53", "EGFR").encode()
    assert "does not have the sha256" in complaint(make, "hallmark", place)
    put(place, {name: server.content})
    assert "checksums.yml says" in complaint(make, "hallmark", place)
    assert not path.exists()


def test_a_file_that_could_not_be_read_is_not_recorded(place):
    put(place, {"h.all.v2023.2.Hs.symbols.gmt": GMT[:100]})
    complaint(make, "hallmark", place)
    assert not (place / "checksums.yml").exists()


# --- bad content: one sentence, and no cohort -----------------------------------------------------------------


def hostile(name: str, kind: bytes = tarfile.REGTYPE) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for path, text in study().items():
            member = tarfile.TarInfo(f"brca_metabric/{path}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
        member = tarfile.TarInfo(name)
        member.type, member.linkname, member.size = kind, "/etc/passwd", 0
        archive.addfile(member, io.BytesIO())
    return buffer.getvalue()


def changed(files: dict, name: str, **replaced) -> dict:
    """Return the files with words of one of them replaced."""
    content = files[name]
    text = gzip.decompress(content).decode() if name.endswith("gz") else content
    for old, new in replaced.items():
        assert old in text
        text = text.replace(old, new)
    return {**files, name: packed(text) if name.endswith("gz") else text}


GEO, STRING, BRCA = geo_files(), string_files(), brca_files()
SERIES, LINKS = "GSE96058-GPL11154_series_matrix.txt.gz", "9606.protein.links.v12.0.txt.gz"
STUDY_FILES = study()
STUDY = tar(STUDY_FILES)
BAD = {
    "truncated csv.gz": ("gse96058", {**GEO, MATRIX: GEO[MATRIX][:-20]}, "transformed.csv.gz cannot be read"),
    "matrix that is no gz": ("gse96058", {**GEO, MATRIX: b"<html>busy</html>"}, "header starts with ['<html>busy"),
    "empty matrix": ("gse96058", {**GEO, MATRIX: b""}, "transformed.csv.gz"),
    "matrix without rows": ("gse96058", {**GEO, MATRIX: packed(',"F1","F2"\n')}, "transformed.csv.gz"),
    "text in the matrix": ("gse96058", {**GEO, MATRIX: packed(',"F1"\n"A",low\n')}, "cannot be read (ArrowInvalid"),
    "ragged matrix": ("gse96058", {**GEO, MATRIX: packed(',"F1","F2"\n"A",1\n')}, "cannot be read (ArrowInvalid"),
    "matrix with another header": ("gse96058", {**GEO, MATRIX: geo_matrix(("id", *"abcdef"))}, "header starts with"),
    "matrix with a repeated sample": ("gse96058", {**GEO, MATRIX: geo_matrix(("", *"abcdee"))}, "none twice"),
    "truncated series matrix": ("gse96058", {**GEO, SERIES: GEO[SERIES][:60]}, "series_matrix.txt.gz cannot be read"),
    "series matrix with another key": (
        "gse96058",
        {key: changed(GEO, key, nhg="grade")[key] if "series" in key else GEO[key] for key in GEO},
        "has no column 'nhg'",
    ),
    "series matrix without samples": ("gse96058", {**GEO, SERIES: packed("!Series_title\tx\n")}, "names no sample"),
    "truncated tar.gz": ("metabric", {"brca_metabric.tar.gz": STUDY[: len(STUDY) // 2]}, "tar.gz cannot be read"),
    "tar.gz that is none": ("metabric", {"brca_metabric.tar.gz": b"busy"}, "tar.gz cannot be read"),
    "member above the folder": (
        "metabric",
        {"brca_metabric.tar.gz": hostile("../evil")},
        "'../evil', which would leave",
    ),
    "member with a full path": ("metabric", {"brca_metabric.tar.gz": hostile("/evil")}, "'/evil', which would leave"),
    "member that hides its way": ("metabric", {"brca_metabric.tar.gz": hostile("a/../../evil")}, "which would leave"),
    "link": ("metabric", {"brca_metabric.tar.gz": hostile("evil", tarfile.SYMTYPE)}, "'evil', which would leave"),
    "hard link": ("metabric", {"brca_metabric.tar.gz": hostile("evil", tarfile.LNKTYPE)}, "'evil', which would leave"),
    "device": ("metabric", {"brca_metabric.tar.gz": hostile("evil", tarfile.CHRTYPE)}, "'evil', which would leave"),
    "archive of something else": (
        "metabric",
        {"brca_metabric.tar.gz": tar({"readme.txt": "x"})},
        "lacks data_clinical",
    ),
    "pointer instead of a file": (
        "metabric",
        {"brca_metabric.tar.gz": tar({**study(), "data_clinical_patient.txt": "version https://git-lfs\noid x\n"})},
        "brca_metabric.tar.gz/data_clinical_patient.txt has no column 'PATIENT_ID'",
    ),
    "status of a third coding": (
        "metabric",
        {
            "brca_metabric.tar.gz": tar(
                {k: v.replace("LIVING", "a").replace("DECEASED", "b") for k, v in study().items()}
            )
        },
        "'OS_STATUS' holds a, b, and none of the codes LIVING, DECEASED",
    ),
    "xlsx that is none": (
        "tcga_brca",
        {**BRCA, "TCGA-CDR-SupplementalTableS1.xlsx": b"busy"},
        "TCGA-CDR-SupplementalTableS1.xlsx cannot be read",
    ),
    "clinical table with another header": (
        "tcga_brca",
        changed(BRCA, "BRCA_clinicalMatrix", PAM50Call_RNAseq="PAM50"),
        "BRCA_clinicalMatrix has no column 'PAM50Call_RNAseq'",
    ),
    "truncated links": ("string", {**STRING, LINKS: STRING[LINKS][:40]}, "links.v12.0.txt.gz cannot be read"),
    "links with another header": (
        "string",
        changed(STRING, LINKS, combined_score="score"),
        "no column 'combined_score'",
    ),
}


@pytest.mark.parametrize(("name", "files", "named"), BAD.values(), ids=BAD)
def test_bad_content_is_one_sentence_and_leaves_no_cohort(place, name, files, named):
    put(place, files)
    sentence = complaint(make, name, place)
    assert (named in sentence and str(place / "dl") in sentence) or "lacks data_clinical" in sentence, sentence
    assert os.listdir(place) == ["dl"] and left(place) == sorted(files)
    assert not (place.parent / "evil").exists()


def test_an_r_file_that_is_cut_short_is_one_sentence(place):
    name, files = "SCANB.9206.genematrix_noNeg.Rdata", scanb_files(place / "dl")
    put(place, {**files, name: files[name][:-30]})
    assert f"{name} cannot be read" in complaint(make, "scanb", place)
    put(place, {name: b"busy"})
    assert f"{name} cannot be read" in complaint(make, "scanb", place)
    assert not (place / "scanb").exists()


# --- writing --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["to_parquet", "to_csv"])
def test_a_full_disk_while_writing_leaves_no_cohort(place, monkeypatch, step):
    def full(*arguments, **named):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    put(place, GEO)
    monkeypatch.setattr(pd.DataFrame, step, full)
    sentence = complaint(make, "gse96058", place)
    assert f"{place / 'gse96058'} was not written" in sentence and "No space left" in sentence
    assert os.listdir(place) == ["dl"]


def test_a_full_disk_while_unpacking_is_said_as_such(place, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    put(place, {"brca_metabric.tar.gz": STUDY})
    monkeypatch.setattr("txtlib.sources.metabric._write_member", full)
    assert "metabric was not written ([Errno 28] No space left" in complaint(make, "metabric", place)
    assert os.listdir(place) == ["dl"] and left(place) == ["brca_metabric.tar.gz"]


def test_a_full_disk_while_writing_a_network_leaves_none(place, monkeypatch):
    def full(path, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    put(place, STRING)
    monkeypatch.setattr(Path, "write_bytes", full)
    assert "No space left" in complaint(make, "string", place)
    assert os.listdir(place / "networks") == []


def test_what_is_there_stays_and_needs_no_network(place, server):
    put(place, GEO)
    folder = make("gse96058", place)
    before = (folder / "provenance.yml").stat().st_mtime_ns
    for name in GEO:
        (place / "dl" / name).unlink()
    assert make("gse96058", place) == folder and not server.asked
    assert (folder / "provenance.yml").stat().st_mtime_ns == before


SLOW = """
import sys, time
import pandas as pd
from txtlib.sources import make
to_csv = pd.DataFrame.to_csv
def slow(self, *arguments, **named):
    print("writing", flush=True)
    time.sleep(60)
pd.DataFrame.to_csv = slow
make("gse96058", sys.argv[1])
"""


def test_a_recipe_that_is_killed_half_way_leaves_no_cohort_and_the_next_run_makes_it(place):
    put(place, GEO)
    process = subprocess.Popen([sys.executable, "-c", SLOW, str(place)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "writing\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not (place / "gse96058").exists()
    with pytest.raises(CohortError):
        load_cohort(place / "gse96058")
    assert len(load_cohort(make("gse96058", place))) == 5


# --- the command ----------------------------------------------------------------------------------------------


@pytest.fixture
def raw(place, monkeypatch):
    monkeypatch.setattr("txtlib.cohort.RAW", place)
    return place


def test_the_command_says_where_the_cohort_is_and_under_which_licence(raw, capsys):
    put(raw, GEO)
    assert main(["gse96058"]) == 0
    assert capsys.readouterr().out == f"gse96058: {raw / 'gse96058'} (public GEO record, no explicit licence)\n"
    assert len(load_cohort("gse96058")) == 5


def test_the_command_takes_a_score(raw):
    put(raw, STRING)
    assert main(["string", "--score", "700"]) == 0
    assert len(pd.read_csv(raw / "networks" / "string_v12.csv.gz")) == 1


def test_a_failure_is_one_line_and_exit_code_1(raw, server, capsys):
    server.statuses = [404] * 9
    assert main(["hallmark"]) == 1
    said = capsys.readouterr()
    assert said.err.startswith("make data: hallmark: http") and said.err.count("\n") == 1 and said.out == ""


def test_an_unknown_name_lists_the_recipes(capsys):
    assert main(["scan-b"]) == 2
    assert "'scan-b'" in capsys.readouterr().err
    assert "no recipe 'x'; choose one of scanb, gse96058, metabric" in complaint(make, "x")


def test_all_goes_on_after_a_failure(raw, server, capsys):
    server.statuses = [404] * 999
    put(raw, {"h.all.v2023.2.Hs.symbols.gmt": GMT})
    assert main(["all"]) == 1
    said = capsys.readouterr()
    assert said.err.count("\n") == 7 and said.out.startswith("hallmark: ")


def test_an_interruption_is_one_line(raw, monkeypatch, capsys):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("txtlib.sources.workshop.fetch", stop)
    assert main(["hallmark"]) == 130 and "interrupted" in capsys.readouterr().err


def test_the_module_runs_as_a_program(tmp_path):
    command = [sys.executable, "-m", "txtlib.sources", "nobody"]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and time.perf_counter() - start < 60
