"""Two facilities on one archive, from their contracts to their end, as administrators and devices see it.

Everything is done with the ``pacs`` command and by foreign devices: DCMTK's
tools and pynetdicom's requestor.
"""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE

from tests import peers
from tests.archive import PACS, Archive, Said, run, serving
from tests.raw_peer import (
    EXPLICIT_LITTLE,
    FIND,
    IMPLICIT_LITTLE,
    MOVE,
    STUDY_ROOT,
    associated,
    find,
    get,
    identifier,
    matches,
    move,
)
from tests.routing import image
from tests.settled import admitted, refused, settled

SHARED_ID = "4711"
ROOT = "1.2.826.0.1.3680043.2.1143.9"
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
WITHIN_S = 60.0


@pytest.fixture(scope="module")
def archive(
    tmp_path_factory: pytest.TempPathFactory,
    peer_tool: Callable[[str], str],
) -> Iterator[Archive]:
    for one in ("echoscu", "storescu"):
        peer_tool(one)
    home = tmp_path_factory.mktemp("subscribers")
    with serving(home, settings={"serve.listeners": "2"}) as running:
        for name, device in (("north", "CT_NORTH"), ("south", "CT_SOUTH")):
            running.pacs(
                *("subscriber", "add", name, "--issuer", name.upper()),
                *("--right", "register", "--right", "query", "--right", "receive"),
            )
            running.pacs("peer", "add", device, "127.0.0.1", "11113", "--subscriber", name)
        settled(running, subscriber="north")
        _store_the_same_patient(running, tmp_path_factory.mktemp("files"))
        yield running


def _store_the_same_patient(archive: Archive, folder: Path) -> None:
    """Have each facility store a study of its own, under one Patient ID."""
    for number, (calling, whose) in enumerate((("CT_NORTH", "north"), ("CT_SOUTH", "south"))):
        sent = image(
            f"{ROOT}.{number}",
            PatientID=SHARED_ID,
            StudyDescription=whose,
            StudyInstanceUID=f"{ROOT}.{number}.1",
            SeriesInstanceUID=f"{ROOT}.{number}.2",
        )
        assert stored(archive, folder, calling, sent).code == 0


def tool(name: str) -> str:
    path = peers.find(name)
    assert path is not None, peers.reason(name)
    return path


def until(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + WITHIN_S
    while not holds():
        assert time.monotonic() < deadline_s, "it never came to hold"
        time.sleep(0.1)


def said(archive: Archive, calling: str, *options: str) -> Said:
    return run(tool("echoscu"), *options, "-aet", calling, "127.0.0.1", str(archive.port))


def stored(archive: Archive, folder: Path, calling: str, data_set: Dataset, *options: str) -> Said:
    path = folder / f"{data_set.SOPInstanceUID}.dcm"
    data_set.save_as(path, enforce_file_format=True)
    return run(
        tool("storescu"), *options, "-aet", calling, "127.0.0.1", str(archive.port), str(path)
    )


def asked(patient: str, purpose: str) -> Dataset:
    key = identifier("STUDY", PatientID=patient, StudyDescription="")
    if purpose:
        key.private_block(0x3109, "PACS ARCHIVE 1", create=True).add_new(0x03, "LO", purpose)
    return key


def seen(
    archive: Archive, calling: str, patient: str = SHARED_ID, *, purpose: str = ""
) -> list[str]:
    """Descriptions of the studies of a Patient ID that a device finds."""
    with associated(
        archive.port, [(STUDY_ROOT + FIND, [IMPLICIT_LITTLE])], ae_title=calling
    ) as association:
        found = matches(association, STUDY_ROOT, asked(patient, purpose))
        return sorted(one.StudyDescription for one in found)


def refusal(archive: Archive, calling: str, purpose: str) -> int:
    """The status of a question under a purpose."""
    with associated(
        archive.port, [(STUDY_ROOT + FIND, [IMPLICIT_LITTLE])], ae_title=calling
    ) as association:
        ((answer, _),) = find(association, STUDY_ROOT, asked(SHARED_ID, purpose))
        return int(answer.Status)


def fetched(archive: Archive, calling: str, purpose: str) -> tuple[list[bool], int]:
    """Of the images of the first study that come under a purpose, which are derived; and how many fail."""
    key = asked("", purpose)
    del key.PatientID, key.StudyDescription
    key.StudyInstanceUID = f"{ROOT}.0.1"
    contexts = [(CT_IMAGE, EXPLICIT_LITTLE)]
    responses, came = get(archive.port, STUDY_ROOT, key, contexts, ae_title=calling)
    last = responses[-1][0]
    assert last.NumberOfCompletedSuboperations == len(came)
    return [b"DERIVED" in one.data_set for one in came], last.NumberOfFailedSuboperations


def moved(archive: Archive, calling: str, destination: str) -> int:
    """The status of a C-MOVE of the first study."""
    with associated(
        archive.port, [(STUDY_ROOT + MOVE, [IMPLICIT_LITTLE])], ae_title=calling
    ) as association:
        key = identifier("STUDY", StudyInstanceUID=f"{ROOT}.0.1")
        return int(move(association, STUDY_ROOT, key, destination)[-1][0].Status)


def audited(archive: Archive) -> list[dict[str, Any]]:
    files = sorted((archive.home / "audit").glob("*.jsonl"))
    lines = [line for one in files for line in one.read_text().splitlines(keepends=True)]
    return [json.loads(line) for line in lines if line.endswith("\n")]  # whole ones


def refusals(archive: Archive, calling: str, count: int) -> list[dict[str, Any]]:
    """Wait for so many refusals of a device on record; give what is on record of it."""

    def found() -> list[dict[str, Any]]:
        return [one for one in audited(archive) if one.get("calling_ae_title") == calling]

    until(lambda: sum(one["event"] == "association-refused" for one in found()) >= count)
    return found()


def fed(archive: Archive, passcode: str, *arguments: str) -> None:
    """Run a command that reads a passcode from its standard input."""
    subprocess.run(
        [*PACS, *arguments], env=archive.environment, input=passcode + "\n", text=True, check=True
    )


def test_two_facilities_never_see_each_others_patient(archive: Archive) -> None:
    assert seen(archive, "CT_NORTH") == ["north"]
    assert seen(archive, "CT_SOUTH") == ["south"]


def test_a_stranger_hears_nothing_but_that_it_is_not_known(archive: Archive) -> None:
    answer = said(archive, "STRANGER")
    assert answer.code != 0
    assert "Calling AE Title Not Recognized" in answer.text
    (line,) = refusals(archive, "STRANGER", 1)
    assert line["event"] == "association-refused"
    assert line["cause"]


def test_a_suspension_ends_what_is_open_and_a_resumption_lets_in_again(archive: Archive) -> None:
    ae = AE(ae_title="CT_SOUTH")
    ae.add_requested_context(STUDY_ROOT + FIND)
    opened = [ae.associate("127.0.0.1", archive.port) for _ in range(4)]  # on both listeners
    assert all(one.is_established for one in opened)
    archive.pacs("subscriber", "suspend", "south", "--reason", "account not in order")
    until(lambda: all(one.is_aborted for one in opened))
    refused(archive.port, "CT_SOUTH")
    assert said(archive, "CT_SOUTH").code != 0
    assert said(archive, "CT_NORTH").code == 0
    archive.pacs("subscriber", "destination", "add", "north", "CT_SOUTH")
    until(lambda: moved(archive, "CT_NORTH", "CT_SOUTH") == 0xA801)
    archive.pacs("subscriber", "resume", "south")
    until(lambda: moved(archive, "CT_NORTH", "CT_SOUTH") != 0xA801)  # nobody listens there
    admitted(archive.port, "CT_SOUTH")
    assert said(archive, "CT_SOUTH").code == 0


def test_a_user_is_known_from_any_device_by_its_passcode(archive: Archive, tmp_path: Path) -> None:
    fed(archive, "correct horse", "subscriber", "user", "add", "north", "radiographer")
    sent = image(f"{ROOT}.5", PatientID="USER", StudyDescription="by a user")

    def store(*options: str) -> bool:
        return stored(archive, tmp_path, "ANY_STATION", sent, *options).code == 0

    settled(archive, subscriber="north")
    assert store("-usr", "radiographer", "-pwd", "correct horse")
    assert not store("-usr", "radiographer", "-pwd", "wrong")
    assert not store("-usr", "nobody", "-pwd", "correct horse")
    assert not store()
    assert seen(archive, "CT_NORTH", "USER") == ["by a user"]
    assert seen(archive, "CT_SOUTH", "USER") == []
    on_record = refusals(archive, "ANY_STATION", 3)
    assert sum(one["event"] == "association-refused" for one in on_record) == 3
    assert "correct horse" not in json.dumps(on_record)


def test_a_device_with_a_code_enrols_itself_and_works_once_it_is_accepted(
    archive: Archive, tmp_path: Path
) -> None:
    code = archive.pacs("subscriber", "code", "add", "--right", "register").split()[0]
    sent = image(f"{ROOT}.6", PatientID="NEW", StudyDescription="enrolled")

    def store(*options: str) -> Said:
        return stored(archive, tmp_path, "NEW_CT", sent, *options)

    assert store("-usr", "enrol", "-pwd", "no-such-code").code != 0
    introduced = store("-usr", "enrol", "-pwd", code)
    assert introduced.code != 0
    pending = [one for one in archive.listed("subscriber", "list") if one["state"] == "pending"]
    assert len(pending) == 1
    assert store().code != 0
    archive.pacs("subscriber", "accept", pending[0]["name"], "--as", "clinic")
    admitted(archive.port, "NEW_CT")
    assert store().code == 0
    assert said(archive, "NEW_CT").code == 0


def test_a_stated_purpose_opens_what_is_agreed_under_it_and_bounds_it(archive: Archive) -> None:
    archive.pacs("subscriber", "add", "school", "--right", "query", "--right", "receive")
    archive.pacs("peer", "add", "SCHOOL", "127.0.0.1", "11114", "--subscriber", "school")
    teaching = ("subscriber", "purpose", "add", "school", "teaching")
    archive.pacs(*teaching, "--modality", "CT", "--max-matrix", "4096")
    archive.pacs("subscriber", "agree", "school", "--owner", "north", "--purpose", "teaching")
    settled(archive, subscriber="north")
    assert said(archive, "SCHOOL").code == 0
    assert seen(archive, "SCHOOL") == []
    assert seen(archive, "SCHOOL", purpose="teaching") == ["north"]
    assert refusal(archive, "SCHOOL", "curiosity") == 0x0124
    assert fetched(archive, "SCHOOL", "teaching") == ([False], 0)
    archive.pacs(*teaching, "--modality", "CT", "--max-matrix", "1")
    until(lambda: fetched(archive, "SCHOOL", "teaching") == ([True], 0))
    archive.pacs(*teaching, "--modality", "MR")
    until(lambda: seen(archive, "SCHOOL", purpose="teaching") == [])


def test_a_contract_that_is_cancelled_leaves_its_images_to_whom_is_named(archive: Archive) -> None:
    archive.pacs(
        "subscriber", "cancel", "south", "--reason", "closed", "--images-to", "north"
    )  # fmt: skip
    refused(archive.port, "CT_SOUTH")
    assert said(archive, "CT_SOUTH").code != 0
    until(lambda: seen(archive, "CT_NORTH") == ["north", "south"])
