"""Broken files and hostile byte streams against a real server: an answer each, and life goes on."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from tests import raw_peer
from tests.archive import Archive, Tool, data_set_offset, run, serving
from tests.association_fakes import until
from tests.raw_peer import EXPLICIT_LITTLE, IMPLICIT_LITTLE, Instance

pytestmark = pytest.mark.filterwarnings("ignore")

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
STATUSES = {0x0000, 0x0117, 0xA900, 0xA901, 0xC000, 0xC001, 0xC002, 0xC003}
GROWTH_KIB = 64 << 10
GONE = (b"", b"\x03", b"\x07")  # closed, A-ASSOCIATE-RJ, A-ABORT
CT = "1.2.840.10008.5.1.4.1.1.2"


@pytest.fixture(scope="module")
def archive(
    new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Archive]:
    settings = {"association.network_timeout_s": "10", "association.artim_timeout_s": "5"}
    with serving(
        tmp_path_factory.mktemp("malformed") / "home", new_database(), settings
    ) as running:
        yield running


def alive(archive: Archive, tool: Tool) -> bool:
    return run(tool("echoscu"), "127.0.0.1", str(archive.port)).code == 0


def announced(path: Path) -> Instance:
    """Announce a file as what it says it is, as far as that can be made out."""
    uids = {"SOPClassUID": SECONDARY_CAPTURE, "SOPInstanceUID": "2.25.404"}
    syntax = EXPLICIT_LITTLE
    try:
        one = dcmread(path, force=True, stop_before_pixels=True)
        syntax = str(one.file_meta.get("TransferSyntaxUID", "")) or IMPLICIT_LITTLE
        uids |= {key: str(one.get(key) or usual) for key, usual in uids.items()}
        offset = data_set_offset(path)
    except Exception:  # noqa: BLE001 - pydicom fails in many ways on what is broken on purpose
        offset = 0
    return Instance(
        sop_class_uid=uids["SOPClassUID"],
        sop_instance_uid=uids["SOPInstanceUID"],
        transfer_syntax_uid=syntax,
        data_set=path.read_bytes()[offset:],
    )


def stored(archive: Archive, instance: Instance) -> int | None:
    """Store; a SOP Class that is not one of Storage goes as Secondary Capture."""
    (status,) = raw_peer.send(archive.port, [instance])
    if status is not None:
        return status
    other = Instance(
        sop_class_uid=SECONDARY_CAPTURE,
        sop_instance_uid=instance.sop_instance_uid,
        transfer_syntax_uid=instance.transfer_syntax_uid,
        data_set=instance.data_set,
    )
    (status,) = raw_peer.send(archive.port, [other])
    return status


@pytest.fixture(scope="module")
def statuses(archive: Archive, samples: Path) -> dict[str, int | None]:
    """Store every malformed file; what was answered, by the file's name."""
    files = [
        one
        for one in sorted((samples / "malformed").rglob("*"))
        if one.is_file() and one.suffix != ".raw"
    ]
    assert len(files) > 30
    assert raw_peer.send(archive.port, [good(1)]) == [0]
    before_kib = archive.resident_kib()
    found = {}
    for path in files:
        kept = len(archive.kept())
        status = stored(archive, announced(path))
        found[path.name] = status
        assert (len(archive.kept()) > kept) <= (status == 0), path.name
    assert archive.resident_kib() - before_kib < GROWTH_KIB
    return found


def test_every_malformed_file_gets_a_status(
    archive: Archive, statuses: dict[str, int | None], peer_tool: Tool
) -> None:
    print("\n".join(f"{status} {name}" for name, status in statuses.items()))
    assert {name: one for name, one in statuses.items() if one not in STATUSES} == {}
    assert until(lambda: archive.arriving() == [])
    assert alive(archive, peer_tool)
    assert raw_peer.send(archive.port, [good(2)]) == [0]


def test_what_was_kept_of_the_malformed_is_found_and_fetched(
    archive: Archive, statuses: dict[str, int | None]
) -> None:
    """A header that cannot be read in full must not break the answers that speak of it."""
    assert 0 in statuses.values()
    model = raw_peer.STUDY_ROOT
    with raw_peer.associated(archive.port, [(model + raw_peer.FIND, [EXPLICIT_LITTLE])]) as asking:
        studies = raw_peer.matches(
            asking, model, raw_peer.identifier("STUDY", StudyInstanceUID="", PatientName="")
        )
        assert studies
        for one in studies:
            series = raw_peer.matches(
                asking,
                model,
                raw_peer.identifier(
                    "SERIES", StudyInstanceUID=one.StudyInstanceUID, SeriesInstanceUID=""
                ),
            )
            for each in series:
                images = raw_peer.matches(
                    asking,
                    model,
                    raw_peer.identifier(
                        "IMAGE",
                        StudyInstanceUID=one.StudyInstanceUID,
                        SeriesInstanceUID=each.SeriesInstanceUID,
                        SOPInstanceUID="",
                        KVP="",
                        RequestAttributesSequence=[],
                    ),
                )
                assert images


def good(number: int) -> Instance:
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_dataset

    one = Dataset()
    root = f"1.2.826.0.1.3680043.10.996.{number}"
    one.SOPClassUID, one.SOPInstanceUID = CT, f"{root}.3"
    one.StudyInstanceUID, one.SeriesInstanceUID = root, f"{root}.2"
    target = DicomBytesIO()
    target.is_little_endian, target.is_implicit_VR = True, False
    write_dataset(target, one)
    return Instance(
        sop_class_uid=CT,
        sop_instance_uid=f"{root}.3",
        transfer_syntax_uid=EXPLICIT_LITTLE,
        data_set=target.getvalue(),
    )


def replay(port: int, stream: bytes) -> bytes:
    """Send a stream as it was recorded, say no more; give everything the server answers."""
    answers = b""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        try:
            connection.sendall(stream)
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65_536):
                answers += piece
        except ConnectionError:
            pass  # the server may close before it has read everything
    return answers


def replay_in_turns(port: int, stream: bytes) -> bytes:
    """Send the association request, wait for the answer, then send the rest."""
    first = 6 + int.from_bytes(stream[2:6], "big")
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(stream[:first])
        answers = connection.recv(65_536)
        try:
            connection.sendall(stream[first:])
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65_536):
                answers += piece
        except ConnectionError:
            pass
    return answers


def mutations(stream: bytes) -> Iterator[bytes]:
    """The stream itself, cut, doubled, and with wrong bytes in lengths and types."""
    yield stream
    yield stream[: len(stream) // 2]
    yield stream[:7]
    yield stream + stream
    for place in (0, 2, 5, 10, 74, 76, len(stream) // 2, len(stream) - 4):
        yield stream[:place] + b"\xff" + stream[place + 1 :]
        yield stream[:place] + stream[place + 1 :]


STREAMS = ("echo", "find", "get", "store")


@pytest.mark.parametrize("name", STREAMS)
def test_every_raw_stream_gets_an_answer(
    archive: Archive, samples: Path, peer_tool: Tool, name: str
) -> None:
    stream = (samples / "malformed" / "network" / f"aflnet_dicom_{name}.raw").read_bytes()
    before_kib, kept = archive.resident_kib(), archive.kept()
    in_turns = replay_in_turns(archive.port, stream)
    assert in_turns[:1] == b"\x02", "the recorded association itself is a good one"
    answers = [replay(archive.port, one) for one in mutations(stream)]
    assert {one[:1] for one in answers} <= {b"\x02", *GONE}
    assert archive.resident_kib() - before_kib < GROWTH_KIB
    assert alive(archive, peer_tool)
    assert until(lambda: archive.arriving() == [])
    assert len(archive.kept()) - len(kept) <= 2 * len(answers)
