"""``pacs echo``, ``send``, ``find``, ``get`` and ``move`` against our own archive, DCMTK and Orthanc."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, RLELossless

from pacs.cli.main import run
from tests import forked
from tests.archive import (
    REPOSITORY,
    START_TIMEOUT_S,
    TOOL_TIMEOUT_S,
    Archive,
    data_set_of,
    free_port,
    serving,
    storescp,
)

Tool = Callable[[str], str]
CT = "1.2.840.10008.5.1.4.1.1.2"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
STUDY = "1.2.826.0.1.3680043.10.998.1"
NAME = "Müller^Jörg"


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        """What ``--json`` printed."""
        listed: list[dict[str, Any]] = json.loads(self.out)
        return listed

    @property
    def lines(self) -> list[list[str]]:
        """What a pipe gets."""
        return [line.split("\t") for line in self.out.splitlines()]


def pacs(home: Path, *arguments: str) -> Ended:
    named = {**os.environ, "PACS_HOME": str(home), "PYTHONPATH": str(REPOSITORY)}
    done = forked.run_first_fresh(arguments, named, timeout_s=TOOL_TIMEOUT_S)
    return Ended(code=done.returncode, out=done.stdout, err=done.stderr)


def instance(study: str, number: int, sop_class: str = CT) -> Dataset:
    one = Dataset()
    one.SpecificCharacterSet = "ISO_IR 192"
    one.SOPClassUID = UID(sop_class)
    one.SOPInstanceUID = f"{study}.2.{number}"
    one.StudyInstanceUID = study
    one.SeriesInstanceUID = f"{study}.2"
    one.PatientID = "P998"
    one.PatientName = NAME
    one.StudyDate = "20240102"
    one.StudyTime = "101500"
    one.StudyID = "S1"
    one.AccessionNumber = "A1"
    one.Modality = "CT"
    one.SeriesNumber = 1
    one.InstanceNumber = number
    one.Rows = one.Columns = 8
    one.SamplesPerPixel = 1
    one.PhotometricInterpretation = "MONOCHROME2"
    one.BitsAllocated = one.BitsStored = 16
    one.HighBit = 15
    one.PixelRepresentation = 0
    one.PixelData = bytes(range(128))
    one["PixelData"].VR = "OW"
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID
    one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
    return one


def written(folder: Path, count: int = 3, study: str = STUDY) -> Path:
    """Write a small study: CT, the last instance a Secondary Capture in RLE."""
    folder.mkdir()
    for number in range(1, count):
        instance(study, number).save_as(folder / f"{number}", enforce_file_format=True)
    compressed = instance(study, count, SECONDARY_CAPTURE)
    compressed.compress(RLELossless, generate_instance_uid=False)
    compressed.save_as(folder / f"{count}", enforce_file_format=True)
    return folder


def data_sets(folder: Path) -> dict[str, bytes]:
    """Map SOP Instance UID to the Data Set's bytes of every file."""
    return {
        str(dcmread(one, stop_before_pixels=True).SOPInstanceUID): data_set_of(one)
        for one in sorted(folder.iterdir())
    }


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    """Our archive, holding one study."""
    base = tmp_path_factory.mktemp("cli")
    with serving(base / "home") as running:
        sent = pacs(base / "home", "send", at(running.port), str(written(base / "study")))
        assert sent.code == 0, sent.err
        yield running


def at(port: int, ae_title: str = "PACS") -> str:
    return f"{ae_title}@127.0.0.1:{port}"


@contextmanager
def listening(command: list[str], port: int) -> Iterator[None]:
    """Run a foreign server until the block ends."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        limit_s = time.monotonic() + START_TIMEOUT_S
        while True:
            assert process.poll() is None, f"{command[0]} ended at once"
            assert time.monotonic() < limit_s, f"{command[0]} does not listen"
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait()


# --- who is called ---------------------------------------------------------------------


def test_a_peer_is_called_without_any_archive(archive: Archive, tmp_path: Path) -> None:
    said = pacs(tmp_path / "none", "echo", at(archive.port))
    assert (said.code, said.out) == (0, f"PACS at 127.0.0.1:{archive.port} answered\n")
    assert not (tmp_path / "none").exists()


def test_a_name_needs_an_archive_and_says_so_in_one_line(tmp_path: Path) -> None:
    said = pacs(tmp_path / "none", "echo", "SOMEBODY")
    assert said.code == 1
    assert "AE@host:port" in said.err
    assert said.err.count("\n") == 1


def test_a_peer_is_called_by_the_name_it_was_added_under(archive: Archive) -> None:
    archive.pacs("peer", "add", "SELF", "127.0.0.1", str(archive.port))
    assert pacs(archive.home, "echo", "SELF").code == 0
    unknown = pacs(archive.home, "echo", "NOBODY")
    assert unknown.code == 1
    assert "pacs peer add" in unknown.err


@pytest.mark.parametrize("named", ["PACS@127.0.0.1", "@127.0.0.1:104", "PACS@h:0", "A\\B@h:104"])
def test_what_is_no_address_is_wrong_usage(named: str, tmp_path: Path) -> None:
    assert pacs(tmp_path, "echo", named).code == 2


@pytest.mark.parametrize("command", ["echo", "find", "send", "get", "move"])
def test_a_peer_that_is_not_there_is_unreachable(command: str, tmp_path: Path) -> None:
    file = tmp_path / "one.dcm"
    instance(STUDY, 1).save_as(file, enforce_file_format=True)
    rest = {
        "send": [str(file)],
        "get": ["--to", str(tmp_path / "got"), f"StudyInstanceUID={STUDY}"],
        "move": ["--to", "DEST", f"StudyInstanceUID={STUDY}"],
    }
    said = pacs(tmp_path, command, at(free_port()), *rest.get(command, []))
    assert said.code == 5
    assert "no connection could be made" in said.err
    assert "Traceback" not in said.err
    if command == "send":
        assert said.lines == [[str(file), "not sent", ""]]


def test_a_rejection_is_told_from_silence(tmp_path: Path) -> None:
    with serving(tmp_path / "home", settings={"dicom.any_called_ae_title": "false"}) as strict:
        said = pacs(tmp_path, "echo", at(strict.port, "OTHER"))
        assert pacs(tmp_path, "echo", at(strict.port)).code == 0
    assert said.code == 4
    assert "called AE title not recognized" in said.err


# --- send ------------------------------------------------------------------------------


def test_every_file_gets_its_line(archive: Archive, tmp_path: Path) -> None:
    folder = written(tmp_path / "study", study=f"{STUDY}.7")
    said = pacs(archive.home, "send", at(archive.port), str(folder))
    assert said.code == 0
    expected = [[str(one), "sent", "0x0000 Success"] for one in sorted(folder.iterdir())]
    assert sorted(said.lines) == expected


def test_what_cannot_be_read_fails_but_stops_nothing(archive: Archive, tmp_path: Path) -> None:
    folder = written(tmp_path / "study", study=f"{STUDY}.8")
    (folder / "note.txt").write_text("no instance")
    missing = tmp_path / "missing"
    said = pacs(archive.home, "send", at(archive.port), str(folder), str(missing), "--json")
    outcome = {Path(row["path"]).name: row["outcome"] for row in said.rows}
    assert said.code == 1
    assert outcome.pop("note.txt") == "not a DICOM Part 10 file"
    assert outcome.pop("missing") == "No such file or directory"
    assert set(outcome.values()) == {"sent"}
    assert len(outcome) == 3


def test_a_refusal_shows_its_status_and_meaning(tmp_path: Path) -> None:
    folder = written(tmp_path / "study")
    with serving(tmp_path / "home", settings={"storage.max_instance_bytes": "200"}) as narrow:
        said = pacs(tmp_path, "send", at(narrow.port), str(folder))
    assert said.code == 4
    assert {tuple(line[1:]) for line in said.lines} == {
        ("refused by the peer", "0xA701 Refused: out of resources")
    }


def test_what_the_peer_does_not_take_is_converted(peer_tool: Tool, tmp_path: Path) -> None:
    folder = written(tmp_path / "study")
    with storescp(peer_tool, tmp_path / "received", "+xi") as receiver:
        said = pacs(tmp_path, "send", at(receiver.port), str(folder))
        arrived = [dcmread(one) for one in receiver.taken()]
    assert said.code == 0, said.out
    assert {str(one.file_meta.TransferSyntaxUID) for one in arrived} == {"1.2.840.10008.1.2"}
    assert [one.PixelData for one in arrived] == [bytes(range(128))] * 3


# --- find ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "keys", "count"),
    [
        ("patient", ["PatientID=P998"], 1),
        ("study", [f"StudyInstanceUID={STUDY}"], 1),
        ("series", [f"StudyInstanceUID={STUDY}"], 1),
        ("image", [f"StudyInstanceUID={STUDY}", f"SeriesInstanceUID={STUDY}.2"], 3),
    ],
)
def test_every_level_is_asked(archive: Archive, level: str, keys: list[str], count: int) -> None:
    said = pacs(archive.home, "find", at(archive.port), "--level", level, *keys, "--json")
    assert said.code == 0, said.err
    assert [row["QueryRetrieveLevel"] for row in said.rows] == [level.upper()] * count


def test_values_are_text_whatever_their_character_set(archive: Archive) -> None:
    keys = ["PatientName=Müller*", f"StudyInstanceUID={STUDY}", "ProcedureCodeSequence"]
    said = pacs(archive.home, "find", at(archive.port), *keys, "--json")
    (row,) = said.rows
    assert row["PatientName"] == NAME
    assert row["NumberOfStudyRelatedInstances"] == "3"
    assert row["ProcedureCodeSequence"] == []


def test_a_pipe_gets_the_columns_in_order(archive: Archive) -> None:
    said = pacs(archive.home, "find", at(archive.port), f"StudyInstanceUID={STUDY}", "StudyID")
    assert said.lines == [[STUDY, "P998", NAME, "20240102", "A1", "CT", "1", "3", "S1"]]


def test_a_limit_cancels_the_query(archive: Archive) -> None:
    keys = [f"StudyInstanceUID={STUDY}", f"SeriesInstanceUID={STUDY}.2"]
    said = pacs(archive.home, "find", at(archive.port), "--level", "IMAGE", "--limit", "2", *keys)
    assert said.code == 0
    assert len(said.lines) == 2


def test_a_refused_query_says_why(archive: Archive) -> None:
    said = pacs(archive.home, "find", at(archive.port), "--level", "SERIES")
    assert (said.code, said.out) == (4, "")
    assert "0xA900 Error: Identifier does not match SOP Class" in said.err


@pytest.mark.parametrize(
    "wrong",
    [
        ["NoSuchKeyword=1"],
        ["Rows=many"],
        ["RequestAttributesSequence=1"],
        ["--level", "PATIENT", "--model", "study"],
        ["--level", "FRAME"],
    ],
)
def test_a_question_that_cannot_be_asked_is_wrong_usage(wrong: list[str], tmp_path: Path) -> None:
    assert run(["--home", str(tmp_path), "find", "PACS@127.0.0.1:1", *wrong]) == 2


# --- get and move ----------------------------------------------------------------------


@pytest.mark.parametrize("level", ["PATIENT", "STUDY", "IMAGE"])
def test_what_is_fetched_is_what_was_sent(archive: Archive, tmp_path: Path, level: str) -> None:
    sent = data_sets(written(tmp_path / "study", study=f"{STUDY}.9"))
    assert pacs(archive.home, "send", at(archive.port), str(tmp_path / "study")).code == 0
    series = [f"SeriesInstanceUID={STUDY}.9.2", "SOPInstanceUID=" + "\\".join(sent)]
    keys = {
        "PATIENT": ["PatientID=P998"],
        "STUDY": [f"StudyInstanceUID={STUDY}.9"],
        "IMAGE": [f"StudyInstanceUID={STUDY}.9", *series],
    }
    folder = tmp_path / "made" / "got"
    said = pacs(
        archive.home, "get", at(archive.port), "--level", level, "--to", str(folder), *keys[level]
    )
    assert said.code == 0, said.err
    assert sent.items() <= data_sets(folder).items()
    assert {one.name for one in folder.iterdir()} == {f"{uid}.dcm" for uid in data_sets(folder)}
    assert len(said.lines) == len(list(folder.iterdir()))


def test_nothing_found_is_nothing_fetched(archive: Archive, tmp_path: Path) -> None:
    said = pacs(
        archive.home, "get", at(archive.port), "--to", str(tmp_path), "StudyInstanceUID=1.2.3.4"
    )
    assert (said.code, said.out, list(tmp_path.iterdir())) == (0, "", [])


def test_a_refused_retrieve_says_why(archive: Archive, tmp_path: Path) -> None:
    got = pacs(archive.home, "get", at(archive.port), "--to", str(tmp_path), "--level", "SERIES")
    assert got.code == 4
    assert "0xA900" in got.err
    moved = pacs(
        archive.home, "move", at(archive.port), "--to", "NOWHERE", f"StudyInstanceUID={STUDY}"
    )
    assert moved.code == 4
    assert "0xA801 Refused: Move Destination unknown" in moved.err


def test_a_move_that_fails_names_what_is_missing(archive: Archive) -> None:
    archive.add_peer("DEAD", free_port())
    said = pacs(archive.home, "move", at(archive.port), "--to", "DEAD", f"StudyInstanceUID={STUDY}")
    assert said.code == 4
    assert "0xA702" in said.err
    assert sorted(said.lines) == [[f"{STUDY}.2.{number}"] for number in (1, 2, 3)]


def test_a_move_reaches_its_destination(archive: Archive, peer_tool: Tool, tmp_path: Path) -> None:
    with storescp(peer_tool, tmp_path / "received", "+xa") as receiver:
        archive.add_peer("DEST", receiver.port)
        said = pacs(
            archive.home, "move", at(archive.port), "--to", "DEST", f"StudyInstanceUID={STUDY}"
        )
        arrived = receiver.taken()
    assert (said.code, said.out) == (0, "")
    assert "3 done, 0 failed" in said.err
    assert len(arrived) == 3


# --- dcmqrscp --------------------------------------------------------------------------


def test_a_peer_that_names_no_classes_is_offered_the_common_ones(
    peer_tool: Tool, tmp_path: Path
) -> None:
    """DCMTK's archive knows no SOP Classes in Study and chooses one syntax per context."""
    study = written(tmp_path / "study")
    (study / "3").unlink()  # what is left is uncompressed: nothing has to be converted
    (tmp_path / "dcmqrscp").mkdir()
    port, key = free_port(), f"StudyInstanceUID={STUDY}"
    settings = tmp_path / "dcmqrscp.cfg"
    settings.write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 8\n"
        "HostTable BEGIN\nHostTable END\nVendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\nQR {tmp_path / 'dcmqrscp'} RW (20, 1024mb) ANY\nAETable END\n"
    )
    with listening([peer_tool("dcmqrscp"), "-c", str(settings)], port):
        assert pacs(tmp_path, "send", at(port, "QR"), str(study)).code == 0
        (found,) = pacs(tmp_path, "find", at(port, "QR"), key).lines
        got = pacs(tmp_path, "get", at(port, "QR"), "--to", str(tmp_path / "got"), key)
    assert found[0] == STUDY
    assert got.code == 0, got.err
    assert data_sets(tmp_path / "got") == data_sets(study)


# --- Orthanc ---------------------------------------------------------------------------


@contextmanager
def orthanc(tool: Tool, folder: Path, modalities: dict[str, int]) -> Iterator[int]:
    """Run Orthanc without its web server; yield its DICOM port."""
    folder.mkdir()
    port = free_port()
    settings = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [],
        "HttpServerEnabled": False,
        "DicomAet": "ORTHANC",
        "DicomPort": port,
        "DicomAlwaysAllowEcho": True,
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowGet": True,
        "DicomAlwaysAllowMove": True,
        "DicomModalities": {
            name: [name, "127.0.0.1", number] for name, number in modalities.items()
        },
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with listening([tool("Orthanc"), str(folder / "orthanc.json")], port):
        yield port


def test_orthanc_both_ways(archive: Archive, peer_tool: Tool, tmp_path: Path) -> None:
    study = f"{STUDY}.11"
    sent = data_sets(written(tmp_path / "study", study=study))
    key = f"StudyInstanceUID={study}"
    with orthanc(peer_tool, tmp_path / "orthanc", {"PACS": archive.port}) as port:
        theirs, ours = at(port, "ORTHANC"), at(archive.port)
        assert pacs(archive.home, "echo", theirs).code == 0
        assert pacs(archive.home, "send", theirs, str(tmp_path / "study")).code == 0
        (found,) = pacs(archive.home, "find", theirs, key, "--json").rows
        assert (found["PatientName"], found["NumberOfStudyRelatedInstances"]) == (NAME, "3")

        got = pacs(archive.home, "get", theirs, "--to", str(tmp_path / "got"), key)
        assert got.code == 0, got.err
        assert pixels(tmp_path / "got") == pixels(tmp_path / "study")

        moved = pacs(archive.home, "move", theirs, "--to", "PACS", key)
        assert moved.code == 0, moved.err
        (held,) = pacs(archive.home, "find", ours, key, "--json").rows
        assert held["NumberOfStudyRelatedInstances"] == str(len(sent))


def test_orthanc_is_a_destination(archive: Archive, peer_tool: Tool, tmp_path: Path) -> None:
    key = f"StudyInstanceUID={STUDY}"
    with orthanc(peer_tool, tmp_path / "orthanc", {}) as port:
        archive.add_peer("ORTHANC", port)
        moved = pacs(archive.home, "move", at(archive.port), "--to", "ORTHANC", key)
        assert moved.code == 0, moved.err
        rows = pacs(
            archive.home,
            "find",
            "ORTHANC",
            "--level",
            "IMAGE",
            key,
            f"SeriesInstanceUID={STUDY}.2",
            "--json",
        ).rows
    assert {row["SOPInstanceUID"] for row in rows} == {f"{STUDY}.2.{one}" for one in (1, 2, 3)}


def pixels(folder: Path) -> dict[str, bytes]:
    """Map SOP Instance UID to the decoded pixels of every file."""
    read = [dcmread(one) for one in folder.iterdir()]
    return {str(one.SOPInstanceUID): one.pixel_array.tobytes() for one in read}
