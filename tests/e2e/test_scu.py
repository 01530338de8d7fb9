"""Our SCUs against foreign peers: DCMTK's storescp and dcmqrscp, pynetdicom's applications."""

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from config.settings import Association
from pacs.association.landing import Received
from pacs.association.message import Offer, Operation, Request, Response
from pacs.association.requestor import Proposal, associate
from pacs.core.caller import Right
from pacs.core.errors import PeerRefused, PeerUnreachable
from pacs.core.identifiers import AETitle, SOPClassUID, SOPInstanceUID, TransferSyntaxUID
from pacs.core.records import Originator, Payload, Peer, SendOutcome
from scp.service_class import ServiceClass
from scu import files
from scu.echo import echo
from scu.find import find
from scu.get import Arrivals, get
from scu.models import STUDY_ROOT_GET
from scu.move import move
from scu.store import SentAs, StoreSCU, send_files
from tests.archive import free_port
from tests.association_fakes import serving

BOUNDS = Association()
PATIENCE_S = 60.0
US = "OURSCU"
CT = "1.2.840.10008.5.1.4.1.1.2"
STUDY = "1.2.826.0.1.3680043.10.999.1"
Tool = Callable[[str], str]


@contextmanager
def running(command: list[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a foreign peer until the block ends; it is ready once it takes a connection."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        limit_s = time.monotonic() + PATIENCE_S
        while True:
            assert process.poll() is None, f"{command[0]} ended at once"
            assert time.monotonic() < limit_s, f"{command[0]} does not listen"
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        process.wait()


@contextmanager
def stopped(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Keep a peer from doing anything: its sockets stay open."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def at(port: int, ae_title: str = "PEER") -> Peer:
    return Peer(ae_title=AETitle(ae_title), host="127.0.0.1", port=port)


def write_ct(path: Path, number: int, *, study: str = STUDY) -> Path:
    """Write a small CT of our own making."""
    one = Dataset()
    one.SOPClassUID = UID(CT)
    one.SOPInstanceUID = f"{study}.2.{number}"
    one.StudyInstanceUID = study
    one.SeriesInstanceUID = f"{study}.2"
    one.PatientID = "P1"
    one.PatientName = "Test^Scu"
    one.StudyDate = "20240102"
    one.StudyTime = "101500"
    one.StudyID = "S1"
    one.AccessionNumber = "A1"
    one.Modality = "CT"
    one.SeriesNumber = 1
    one.InstanceNumber = number
    one.Rows = one.Columns = 8
    one.BitsAllocated = 16
    one.PixelData = bytes([number]) * 128
    one["PixelData"].VR = "OW"
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID
    one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
    one.save_as(path, enforce_file_format=True)
    return path


def payloads(folder: Path) -> list[Payload]:
    return [one for one in files.read([folder]) if isinstance(one, Payload)]


def data_sets(folder: Path) -> dict[str, bytes]:
    """Map SOP Instance UID to the Data Set's bytes of every file in ``folder``."""
    return {
        one.sop_instance_uid: Path(one.path).read_bytes()[one.offset :] for one in payloads(folder)
    }


def identifier(level: str, **keys: str) -> Dataset:
    one = Dataset()
    one.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(one, keyword, value)
    return one


@pytest.fixture
def outbox(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    for number in range(1, 6):
        write_ct(folder / f"{number}.dcm", number)
    return folder


@pytest.fixture
def storescp(peer_tool: Tool, tmp_path: Path) -> Iterator[tuple[Peer, Path]]:
    """A bit-preserving receiver that accepts every transfer syntax it knows."""
    folder, port = tmp_path / "in", free_port()
    folder.mkdir()
    command = [peer_tool("storescp"), "+xa", "+B", "-od", str(folder), str(port)]
    with running(command, port):
        yield at(port), folder


@pytest.fixture
def dcmqrscp(peer_tool: Tool, tmp_path: Path) -> Iterator[tuple[Peer, Peer, Path]]:
    """An archive, and a receiver it may move to: both peers, and the receiver's folder."""
    port, moved_port = free_port(), free_port()
    archive, moved = tmp_path / "archive", tmp_path / "moved"
    archive.mkdir()
    moved.mkdir()
    settings = tmp_path / "dcmqrscp.cfg"
    settings.write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 8\n"
        f"HostTable BEGIN\nsink = (SINK, 127.0.0.1, {moved_port})\nHostTable END\n"
        "VendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\nQR {archive} RW (20, 1024mb) ANY\nAETable END\n"
    )
    sink = [peer_tool("storescp"), "+xa", "+B", "-od", str(moved), str(moved_port)]
    with running([peer_tool("dcmqrscp"), "-c", str(settings)], port), running(sink, moved_port):
        yield at(port, "QR"), at(moved_port, "SINK"), moved


def test_echo_is_answered(storescp: tuple[Peer, Path]) -> None:
    assert echo(storescp[0], ae_title=US, bounds=BOUNDS) == 0x0000


def test_echo_to_pynetdicoms_echoscp() -> None:
    port = free_port()
    with running([sys.executable, "-m", "pynetdicom", "echoscp", str(port)], port):
        assert echo(at(port), ae_title=US, bounds=BOUNDS) == 0x0000


def test_peer_that_is_down_is_unreachable() -> None:
    with pytest.raises(PeerUnreachable, match="no connection could be made"):
        echo(at(free_port()), ae_title=US, bounds=BOUNDS)


def test_host_without_an_address_is_unreachable() -> None:
    peer = Peer(ae_title=AETitle("X"), host="no-such-host.invalid", port=104)
    with pytest.raises(PeerUnreachable, match="cannot be resolved"):
        echo(peer, ae_title=US, bounds=BOUNDS)


def test_rejection_is_told_in_words(dcmqrscp: tuple[Peer, Peer, Path]) -> None:
    unknown = at(dcmqrscp[0].port, "NOBODY")
    with pytest.raises(PeerRefused, match=r"rejected permanently by .*AE title not recognized"):
        echo(unknown, ae_title=US, bounds=BOUNDS)


def test_rejection_of_a_sender_is_unreachable(dcmqrscp: tuple[Peer, Peer, Path]) -> None:
    way = StoreSCU(ae_title=US, bounds=BOUNDS).open(
        at(dcmqrscp[0].port, "NOBODY"),
        [(SOPClassUID(CT), (TransferSyntaxUID(ExplicitVRLittleEndian),))],
    )
    with pytest.raises(PeerUnreachable, match="not recognized"), way:
        pytest.fail("opened")


def test_way_without_accepted_contexts_takes_nothing(storescp: tuple[Peer, Path]) -> None:
    offered = SOPClassUID("1.2.826.0.1.3680043.10.999.77")
    syntax = TransferSyntaxUID(ExplicitVRLittleEndian)
    with StoreSCU(ae_title=US, bounds=BOUNDS).open(storescp[0], [(offered, (syntax,))]) as way:
        assert way.accepted(offered) == ()


def test_folder_arrives_bit_for_bit(storescp: tuple[Peer, Path], outbox: Path) -> None:
    (outbox / "notes.txt").write_text("not DICOM")
    outcomes = list(send_files(storescp[0], payloads(outbox), ae_title=US, bounds=BOUNDS))
    assert [(one.sent_as, one.status) for one in outcomes] == [(SentAs.SENT, 0)] * 5
    assert data_sets(storescp[1]) == data_sets(outbox)


def test_real_samples_arrive_bit_for_bit(storescp: tuple[Peer, Path], samples: Path) -> None:
    """Every sample of DCMTK's own knowledge, one per SOP Instance, in the syntax it is stored in."""
    chosen = {
        one.sop_instance_uid: one
        for one in payloads(samples / "cornerstonejs__cornerstoneWADOImageLoader")
    }
    outcomes = list(send_files(storescp[0], chosen.values(), ae_title=US, bounds=BOUNDS))
    sent = [one.payload for one in outcomes if one.sent_as is SentAs.SENT]
    arrived = data_sets(storescp[1])
    assert len(outcomes) == len(chosen)
    assert len({one.transfer_syntax_uid for one in sent}) >= 5
    for one in sent:
        assert arrived[one.sop_instance_uid] == Path(one.path).read_bytes()[one.offset :]


def test_syntax_the_peer_does_not_take_is_unsupported(peer_tool: Tool, tmp_path: Path) -> None:
    port, path = free_port(), write_ct(tmp_path / "1.dcm", 1)
    (payload,) = payloads(path)
    odd = Payload(
        sop_class_uid=payload.sop_class_uid,
        sop_instance_uid=payload.sop_instance_uid,
        transfer_syntax_uid=TransferSyntaxUID("1.2.840.10008.1.2.4.201"),
        path=payload.path,
        offset=payload.offset,
    )
    with running([peer_tool("storescp"), "--ignore", str(port)], port):
        (outcome,) = send_files(at(port), [odd], ae_title=US, bounds=BOUNDS)
    assert outcome.sent_as is SentAs.UNSUPPORTED


def test_association_that_breaks_costs_one_file(peer_tool: Tool, outbox: Path) -> None:
    port = free_port()
    command = [peer_tool("storescp"), "--ignore", "--abort-during", str(port)]
    with running(command, port):
        outcomes = list(send_files(at(port), payloads(outbox), ae_title=US, bounds=BOUNDS))
    assert [one.sent_as for one in outcomes] == [SentAs.LOST] * 5


def test_sender_tells_the_originator(outbox: Path) -> None:
    """The SENDER port: C-STORE to pynetdicom's storescp, as a C-MOVE sub-operation."""
    port, folder = free_port(), outbox.parent / "received"
    folder.mkdir()
    command = [sys.executable, "-m", "pynetdicom", "storescp", "-od", str(folder), str(port)]
    offers = [(SOPClassUID(CT), (TransferSyntaxUID(ExplicitVRLittleEndian),))]
    originator = Originator(ae_title=AETitle("ASKER"), message_id=7)
    with running(command, port), StoreSCU(ae_title=US, bounds=BOUNDS).open(at(port), offers) as way:
        assert way.accepted(SOPClassUID(CT)) == offers[0][1]
        sent = [way.send(one, originator) for one in payloads(outbox)]
        missing = Payload(
            sop_class_uid=SOPClassUID(CT),
            sop_instance_uid=SOPInstanceUID("1.2.3"),
            transfer_syntax_uid=TransferSyntaxUID(ExplicitVRLittleEndian),
            path=str(folder / "missing"),
            offset=0,
        )
        assert way.send(missing, None) is SendOutcome.FAILURE
        assert way.send(payloads(outbox)[0], None) is SendOutcome.SUCCESS
    assert sent == [SendOutcome.SUCCESS] * 5
    assert len(list(folder.iterdir())) == 5


def test_find_move_and_get_against_dcmqrscp(
    dcmqrscp: tuple[Peer, Peer, Path], outbox: Path, tmp_path: Path
) -> None:
    archive, sink, moved = dcmqrscp
    outcomes = list(send_files(archive, payloads(outbox), ae_title=US, bounds=BOUNDS))
    assert {one.sent_as for one in outcomes} == {SentAs.SENT}

    question = identifier("STUDY", StudyInstanceUID="", PatientID="P1", PatientName="")
    answers = list(find(archive, question, ae_title=US, bounds=BOUNDS))
    assert [status for status, _ in answers] == [0xFF00, 0x0000]
    match = answers[0][1]
    assert match is not None
    assert (match.StudyInstanceUID, str(match.PatientName)) == (STUDY, "Test^Scu")

    wanted = identifier("STUDY", StudyInstanceUID=STUDY)
    responses = list(move(archive, wanted, sink.ae_title, ae_title=US, bounds=BOUNDS))
    assert (responses[-1].status, responses[-1].progress.completed) == (0x0000, 5)
    assert all(one.pending for one in responses[:-1])
    assert data_sets(moved) == data_sets(outbox)

    folder, reported = tmp_path / "got", list[Received]()
    folder.mkdir()
    arrivals = Arrivals(folder=folder, received=reported.append, max_instance_bytes=1 << 20)
    got = list(get(archive, wanted, arrivals, ae_title=US, bounds=BOUNDS))
    assert (got[-1].status, got[-1].progress.completed) == (0x0000, 5)
    assert data_sets(folder) == data_sets(outbox)
    assert sorted(one.path for one in reported) == sorted(folder.iterdir())
    assert {dcmread(one.path).file_meta.TransferSyntaxUID for one in reported} == {
        one.transfer_syntax_uid for one in reported
    }


def test_unknown_move_destination_is_a_status(
    dcmqrscp: tuple[Peer, Peer, Path], outbox: Path
) -> None:
    list(send_files(dcmqrscp[0], payloads(outbox), ae_title=US, bounds=BOUNDS))
    wanted = identifier("STUDY", StudyInstanceUID=STUDY)
    (response,) = move(dcmqrscp[0], wanted, "NOWHERE", ae_title=US, bounds=BOUNDS)
    assert response.status == 0xA801


def test_instance_beyond_the_bound_is_refused_and_leaves_nothing(
    dcmqrscp: tuple[Peer, Peer, Path], outbox: Path, tmp_path: Path
) -> None:
    list(send_files(dcmqrscp[0], payloads(outbox), ae_title=US, bounds=BOUNDS))
    folder, wanted = tmp_path / "got", identifier("STUDY", StudyInstanceUID=STUDY)
    folder.mkdir()
    reported = list[Received]()
    arrivals = Arrivals(folder=folder, received=reported.append, max_instance_bytes=100)
    *_, last = get(dcmqrscp[0], wanted, arrivals, ae_title=US, bounds=BOUNDS)
    assert reported == []
    assert (last.progress.completed, last.progress.failed) == (0, 5)
    assert list(folder.iterdir()) == []


def test_query_left_half_read_ends_the_association(
    dcmqrscp: tuple[Peer, Peer, Path], outbox: Path
) -> None:
    list(send_files(dcmqrscp[0], payloads(outbox), ae_title=US, bounds=BOUNDS))
    keys = {"StudyInstanceUID": STUDY, "SeriesInstanceUID": f"{STUDY}.2", "SOPInstanceUID": ""}
    answers = find(dcmqrscp[0], identifier("IMAGE", **keys), ae_title=US, bounds=BOUNDS)
    assert next(answers)[0] == 0xFF00
    answers.close()  # type: ignore[attr-defined]
    assert echo(dcmqrscp[0], ae_title=US, bounds=BOUNDS) == 0x0000


def big_payload(path: Path, size_bytes: int) -> Payload:
    """A sparse file behind a header, so that it costs neither disk nor time to make."""
    header = write_ct(path, 1).read_bytes()
    (offset,) = {one.offset for one in payloads(path)}
    head = header[: header.index(b"\xe0\x7f\x10\x00OW\x00\x00") + 8]
    with path.open("wb") as target:
        target.write(head + size_bytes.to_bytes(4, "little"))
        target.truncate(len(head) + 4 + size_bytes)
    return Payload(
        sop_class_uid=SOPClassUID(CT),
        sop_instance_uid=SOPInstanceUID(f"{STUDY}.2.1"),
        transfer_syntax_uid=TransferSyntaxUID(ExplicitVRLittleEndian),
        path=str(path),
        offset=offset,
    )


CT_PROPOSAL = Proposal(sop_class_uid=CT, transfer_syntax_uids=(ExplicitVRLittleEndian,))


def test_large_instance_is_sent_in_bounded_memory(
    storescp: tuple[Peer, Path], tmp_path: Path
) -> None:
    payload = big_payload(tmp_path / "big.dcm", 200 << 20)
    with associate(storescp[0], [CT_PROPOSAL], ae_title=US, bounds=BOUNDS) as requested:
        before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert requested.store(payload) == 0x0000
        grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
    assert grown_kib < 16 << 10
    (arrived,) = payloads(storescp[1])
    sent_bytes = Path(payload.path).stat().st_size - payload.offset
    assert Path(arrived.path).stat().st_size - arrived.offset == sent_bytes


def test_peer_that_stops_reading_is_cut_off(peer_tool: Tool, tmp_path: Path) -> None:
    payload, port = big_payload(tmp_path / "big.dcm", 200 << 20), free_port()
    bounds = Association(dimse_timeout_s=0.5, network_timeout_s=30, artim_timeout_s=30)
    with (
        running([peer_tool("storescp"), "--ignore", str(port)], port) as process,
        pytest.raises(PeerUnreachable, match="stopped reading"),
        associate(at(port), [CT_PROPOSAL], ae_title=US, bounds=bounds) as requested,
        stopped(process),
    ):
        requested.store(payload)


def test_peer_that_does_not_answer_is_given_up(peer_tool: Tool, outbox: Path) -> None:
    port = free_port()
    bounds = Association(dimse_timeout_s=0.5, artim_timeout_s=30)
    with (
        running([peer_tool("storescp"), "--ignore", str(port)], port) as process,
        pytest.raises(PeerUnreachable, match=r"no response within 0\.5 s"),
        associate(at(port), [CT_PROPOSAL], ae_title=US, bounds=bounds) as requested,
        stopped(process),
    ):
        requested.store(payloads(outbox)[0])


def test_file_that_shrinks_while_it_is_sent_is_never_a_success(
    storescp: tuple[Peer, Path], tmp_path: Path
) -> None:
    payload = big_payload(tmp_path / "big.dcm", 50 << 20)
    with associate(storescp[0], [CT_PROPOSAL], ae_title=US, bounds=BOUNDS) as requested:
        upper_layer = requested._exchange.upper_layer
        hand_over = upper_layer.send

        def shrinking(pieces: Any) -> None:
            os.truncate(payload.path, 1 << 20)
            hand_over(pieces)

        upper_layer.send = shrinking  # type: ignore[method-assign]
        with pytest.raises(PeerUnreachable, match="became shorter"):
            requested.store(payload)
    assert echo(storescp[0], ae_title=US, bounds=BOUNDS) == 0x0000


def test_acceptor_delivers_to_getscu_within_its_c_get(
    peer_tool: Tool, outbox: Path, tmp_path: Path
) -> None:
    """A handler sends C-STOREs back on the association that asked (PS3.4 C.4.3)."""
    outcomes: list[SendOutcome] = []
    folder = tmp_path / "got"
    folder.mkdir()

    def deliver(request: Request) -> Iterator[Response]:
        way = request.association.delivery()
        outcomes.extend(way.send(one, None) for one in payloads(outbox))
        yield Response(status=0)

    retrieve = ServiceClass(
        name="Get",
        standard="PS3.4 Annex C",
        offers=(
            Offer(sop_classes={CT: "CT"}, scu_role=True),
            Offer(sop_classes={STUDY_ROOT_GET: "GET"}),
        ),
        operations={Operation.C_GET: deliver},
        rights={Operation.C_GET: Right.RECEIVE},
    )
    with serving(retrieve) as served:
        keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={STUDY}"]
        at_port = ["127.0.0.1", str(served.port)]
        command = [peer_tool("getscu"), "-S", "+B", "-od", str(folder), *keys, *at_port]
        subprocess.run(command, check=True, timeout=60, capture_output=True)
    assert outcomes == [SendOutcome.SUCCESS] * 5
    assert data_sets(folder) == data_sets(outbox)
