"""Routes from the outside: said with ``pacs route``, fed by DCMTK's storescu, seen as jobs of forwarding."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.archive import Archive, Tool, free_port, serving
from tests.crash import ct, write
from tests.forwarding import until
from tests.routing import Here, send
from tests.settled import settled

SETTINGS = {
    "jobs.workers": "1",
    "jobs.poll_s": "0.1",
    "arrival.series_quiet_s": "0.5",
    "arrival.study_quiet_s": "1",
}
Send = Callable[..., None]


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with serving(tmp_path / "home", settings=SETTINGS) as made:
        yield made


@pytest.fixture
def sent(archive: Archive, peer_tool: Tool) -> Send:
    """Send files with DCMTK."""

    def sending(*files: Path, source: str = "CT1") -> None:
        send(peer_tool, archive.port, files, source=source)

    return sending


@pytest.fixture
def here(tmp_path: Path) -> Here:
    shell = Here(tmp_path / "home")
    shell("init")
    shell("peer", "add", "DEST", "127.0.0.1", "11113")
    shell("peer", "add", "SELF", "localhost", "11112")  # the port of the settings
    return shell


def add(archive: Archive, *arguments: str) -> None:
    archive.pacs("route", "add", *arguments)
    settled(archive)


def forwards(archive: Archive) -> list[dict[str, Any]]:
    """What forwarding was asked for, in whatever state its job is."""
    return [
        json.loads(one["payload"])
        for one in archive.listed("job", "list", "--kind", "forward.send")
    ]


def test_arrivals_become_jobs_of_forwarding(archive: Archive, sent: Send, tmp_path: Path) -> None:
    for title in ("NEAR", "FAR"):
        archive.pacs("peer", "add", title, "127.0.0.1", str(free_port()))
    archive.pacs(
        "route", "add", "each", "--to", "NEAR", "--when", "instance", "--match", "Rows=100"
    )
    add(archive, "whole", "--to", "FAR", "--match", "PatientName=crash*", "--calling", "CT?")
    study = ct(size_bytes=20_000)
    more = [ct(study=study.StudyInstanceUID, size_bytes=5_000) for _ in range(2)]
    files = [write(one, tmp_path) for one in (study, *more)]

    (each, whole) = archive.listed("route", "test", str(files[1]), "--calling", "CT1")
    assert (each["fires"], whole["fires"]) == ("no", "yes")
    assert each["conditions"] == [{"condition": "Rows=100", "holds": "no", "seen": "50"}]
    said = archive.pacs("route", "test", str(files[0]), "--calling", "MR1")
    assert "each: fires, instance to NEAR" in said
    assert "  no: calling AE is CT? [MR1]" in said

    sent(*files)
    until(lambda: len(forwards(archive)) >= 2)
    asked = {one["route"]: one for one in forwards(archive)}
    assert set(asked) == {"each", "whole"}
    assert {one["study_instance_uid"] for one in asked.values()} == {study.StudyInstanceUID}
    assert (asked["each"]["destination"], asked["each"]["whole"]) == ("NEAR", False)
    assert (asked["whole"]["destination"], asked["whole"]["whole"]) == ("FAR", True)

    sent(write(ct(), tmp_path), source="MR1")
    sent(write(ct(), tmp_path), source="CT9")
    until(lambda: sum(one["route"] == "whole" for one in forwards(archive)) >= 2)
    studies = {one["study_instance_uid"] for one in forwards(archive) if one["route"] == "whole"}
    assert len(studies) == 2


def test_routes_are_switched_moved_and_removed(here: Here, tmp_path: Path) -> None:
    here("route", "add", "r", "--to", "DEST", "--when", "series", "--hours", "22:00-06:00", "--days", "fri",
        "--unless", "PatientName=TEST*", "--set", "PatientComments=routed", "--map",
        "Modality:CT=OT", "--prefix", "PatientID=X-", "--delete", "OtherPatientIDs",
        "--priors", "2", "--same-modality", "--commitment", "offered", "--in-order")  # fmt: skip
    exported = here("route", "export")
    (listed,) = here.json("route", "list")
    assert {**json.loads(exported)["routes"][0], "waiting": 0} == listed
    file = write(ct(), tmp_path)
    nights = {"2026-01-02T23:00": "yes", "2026-01-03T05:00": "yes", "2026-01-03T23:00": "no"}
    for when, fires in nights.items():
        (trial,) = here.json("route", "test", str(file), "--at", when)
        assert trial["fires"] == fires, when

    here("route", "disable", "r")
    (trial,) = here.json("route", "test", str(file), "--at", "2026-01-02T23:00")
    assert (trial["fires"], trial["why"]) == ("no", "it is switched off")
    here("route", "enable", "r")
    kept = tmp_path / "routes.json"
    kept.write_text(exported)
    assert "named r already" in here("route", "import", str(kept), code=1)
    here("route", "import", "--replace", str(kept))
    here("route", "remove", "r")
    assert here.json("route", "list") == []
    here("route", "import", str(kept))
    assert here("route", "export") == exported
    removed = here("peer", "remove", "DEST", aside=True)
    assert "still a destination of: r;" in removed
    here("route", "remove", "r")


def test_what_makes_no_sense_is_refused_with_the_exit_codes_of_the_contract(
    here: Here, tmp_path: Path
) -> None:
    dest = ("--to", "DEST")
    assert "pacs peer add" in here("route", "add", "r", "--to", "NOPE", code=1)
    assert "this archive itself" in here("route", "add", "r", "--to", "SELF", code=1)
    assert "not a DICOM" in here("route", "add", "r", *dest, "--match", "Foo=1", code=1)
    assert "is a UID" in here("route", "add", "r", *dest, "--set", "StudyInstanceUID=1", code=1)
    assert "Missing option" in here("route", "add", "r", code=2)
    assert "KEY=VALUE" in here("route", "add", "r", *dest, "--match", "Modality", code=2)
    assert "HH:MM" in here("route", "add", "r", *dest, "--hours", "evening", code=2)
    assert "no day" in here("route", "add", "r", *dest, "--days", "someday", code=2)
    assert "--priors N" in here("route", "add", "r", *dest, "--same-modality", code=2)
    assert "no route" in here("route", "remove", "r", code=1)
    assert "no route" in here("route", "disable", "r", code=1)
    assert "no route" in here("route", "export", "r", code=1)
    here("route", "add", "r", *dest)
    assert "r already" in here("route", "add", "r", *dest, code=1)
    here("route", "add", "r", *dest, "--replace", "--priority", "5")
    assert [one["priority"] for one in here.json("route", "list")] == [5]
    no_dicom = tmp_path / "x.dcm"
    no_dicom.write_bytes(b"no image")
    here("route", "test", str(no_dicom), code=1)
    here("route", "test", str(no_dicom), "--at", "noon", code=2)
