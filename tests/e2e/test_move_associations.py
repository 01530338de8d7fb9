"""C-MOVE over several associations, with foreign receivers: full, lossy, slow and generous ones."""

import json
import os
import sqlite3
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pynetdicom import AE, evt
from pynetdicom.association import Association

from tests import processes, raw_peer
from tests.archive import Archive, Tool, data_set_of, free_port, run, serving, storescp
from tests.raw_peer import EXPLICIT_LITTLE, IMPLICIT_LITTLE, STUDY_ROOT, Instance, identifier
from tests.settled import settled

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

CT = "1.2.840.10008.5.1.4.1.1.2"
STUDY = "1.2.826.0.1.3680043.10.998.1"
TOTAL = 40
PIXELS_BYTES = 60_000
PATIENCE_S = 60.0
BOUND_S = 5.0
"""How long a device may take to answer."""
HALF_A_BOUND_S = BOUND_S / 2


def image(number: int) -> Instance:
    one = Dataset()
    one.SOPClassUID, one.SOPInstanceUID = CT, f"{STUDY}.1.{number}"
    one.StudyInstanceUID, one.SeriesInstanceUID = STUDY, f"{STUDY}.1"
    one.PatientID, one.PatientName, one.Modality = "SPREAD", "Test^Spread", "CT"
    one.InstanceNumber = number
    one.add_new(0x7FE00010, "OW", os.urandom(PIXELS_BYTES))
    target = DicomBytesIO()
    target.is_little_endian, target.is_implicit_VR = True, False
    write_dataset(target, one)
    return Instance(
        sop_class_uid=CT,
        sop_instance_uid=str(one.SOPInstanceUID),
        transfer_syntax_uid=EXPLICIT_LITTLE,
        data_set=target.getvalue(),
    )


HELD = [image(number) for number in range(1, TOTAL + 1)]
SENT = {one.sop_instance_uid: one.data_set for one in HELD}
ASKED = identifier("STUDY", StudyInstanceUID=STUDY)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    bounds = {"ASSOCIATION__DIMSE_TIMEOUT_S": str(BOUND_S)}
    with serving(tmp_path_factory.mktemp("spread") / "home", settings=bounds) as running:
        assert set(raw_peer.send(running.port, HELD)) == {0}
        settled(running)  # each listener has what begins with its first request
        yield running


class Destination:
    """A Storage SCP of pynetdicom's: what came over which association, in order."""

    def __init__(self) -> None:
        self.arrived: dict[int, list[str]] = {}
        self.wrong: list[str] = []
        self.originators: set[tuple[str, int]] = set()
        self.answer: Callable[[Any, int], int] = lambda event, number: 0
        self._lock = threading.Lock()

    def __call__(self, event: Any) -> int:
        request = event.request
        uid = str(request.AffectedSOPInstanceUID)
        with self._lock:
            mine = self.arrived.setdefault(id(event.assoc), [])
            mine.append(uid)
            self.originators.add(
                (
                    str(request.MoveOriginatorApplicationEntityTitle).strip(),
                    int(request.MoveOriginatorMessageID),
                )
            )
            if request.DataSet.getvalue() != SENT[uid]:
                self.wrong.append(uid)
        return self.answer(event, len(mine))

    @property
    def uids(self) -> Counter[str]:
        return Counter(uid for some in self.arrived.values() for uid in some)

    @contextmanager
    def listening(self, limit: int = 100) -> Iterator[int]:
        entity = AE(ae_title="DEST")
        entity.maximum_associations = limit
        entity.add_supported_context(CT, EXPLICIT_LITTLE)
        server = entity.start_server(
            ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, self)]
        )
        assert server is not None and server.socket is not None
        try:
            yield server.socket.getsockname()[1]
        finally:
            server.shutdown()


def moved(
    archive: Archive, *, cancelling: threading.Event | None = None
) -> tuple[Dataset, list[str]]:
    """Ask for the study; check every response's counters; give the last, and what it names."""
    model = [(STUDY_ROOT + raw_peer.MOVE, [IMPLICIT_LITTLE])]
    with raw_peer.associated(archive.port, model) as mover:
        if cancelling is not None:
            threading.Thread(target=cancel_after, args=(mover, cancelling), daemon=True).start()
        responses = raw_peer.move(mover, STUDY_ROOT, ASKED, "DEST", message_id=9)
    done = 0
    for status, _ in responses:
        remaining, completed, failed, warning = (
            int(status.get(f"NumberOf{one}Suboperations", 0) or 0)
            for one in ("Remaining", "Completed", "Failed", "Warning")
        )
        assert remaining + completed + failed + warning == TOTAL
        assert completed + failed + warning >= done
        done = completed + failed + warning
    assert {one.Status for one, _ in responses[:-1]} <= {0xFF00}
    last, named = responses[-1]
    listed = [] if named is None else named.FailedSOPInstanceUIDList
    return last, [listed] if isinstance(listed, str) else list(listed)


def cancel_after(mover: Association, event: threading.Event) -> None:
    event.wait(PATIENCE_S)
    mover.send_c_cancel(9, query_model=STUDY_ROOT + raw_peer.MOVE)


def threads(archive: Archive) -> int:
    listeners = processes.listeners(archive.process.pid)
    return sum(len(list(Path(f"/proc/{one}/task").iterdir())) for one in listeners)


def settles(archive: Archive, before: int) -> bool:
    """Every thread of the moves has ended."""
    deadline = time.monotonic() + PATIENCE_S
    while threads(archive) > before and time.monotonic() < deadline:
        time.sleep(0.05)
    return threads(archive) <= before


def delivered(archive: Archive) -> int:
    with sqlite3.connect(archive.home / "index.sqlite") as index:
        (amount,) = index.execute(
            "SELECT COALESCE(SUM(amount), 0) FROM usage_fact WHERE kind = 'deliver'"
        ).fetchone()
    return int(amount)


def test_the_instances_spread_over_what_the_device_takes(archive: Archive) -> None:
    destination, before = Destination(), threads(archive)
    all_came = threading.Barrier(4)

    def answer(event: Any, number: int) -> int:
        if number == 1:  # however late one is opened, there is something left to send on it
            with suppress(threading.BrokenBarrierError):
                all_came.wait(HALF_A_BOUND_S)
        return 0

    destination.answer = answer
    with destination.listening() as port:
        archive.add_peer("DEST", port, associations=4)
        last, named = moved(archive)
    assert (last.Status, named) == (0, [])
    assert set(destination.uids) == set(SENT)
    assert set(destination.uids.values()) == {1}
    assert destination.wrong == []
    assert destination.originators == {("RAWPEER", 9)}
    assert len(destination.arrived) == 4
    order = [one.sop_instance_uid for one in HELD]
    for some in destination.arrived.values():
        assert some == sorted(some, key=order.index)
    assert settles(archive, before)


def test_a_device_that_takes_fewer_gets_everything_over_those(archive: Archive) -> None:
    destination, before = Destination(), threads(archive)
    with destination.listening(limit=1) as port:
        archive.add_peer("DEST", port, associations=4)
        last, named = moved(archive)
    assert (last.Status, named) == (0, [])
    assert set(destination.uids) == set(SENT)
    assert set(destination.uids.values()) == {1}
    assert settles(archive, before)


def test_an_abort_in_the_middle_costs_one_instance(archive: Archive) -> None:
    destination, aborted = Destination(), list[str]()

    def aborting(event: Any, number: int) -> int:
        time.sleep(0.01)
        if number == 3 and not aborted:
            aborted.append(str(event.request.AffectedSOPInstanceUID))
            event.assoc.abort()
        return 0

    destination.answer = aborting
    before, billed = threads(archive), delivered(archive)
    with destination.listening() as port:
        archive.add_peer("DEST", port, associations=3)
        last, named = moved(archive)
    assert last.Status == 0xB000
    assert named == aborted
    assert last.NumberOfCompletedSuboperations == TOTAL - 1
    assert set(destination.uids.values()) == {1}
    assert set(destination.uids) == set(SENT)
    assert settles(archive, before)
    assert delivered(archive) - billed == TOTAL - 1


def test_cancel_does_not_wait_for_a_silent_device(archive: Archive) -> None:
    destination, silent, over = Destination(), threading.Event(), threading.Event()

    def answer(event: Any, number: int) -> int:
        if number == 3:
            silent.set()
            over.wait(PATIENCE_S)
        return 0

    destination.answer = answer
    before = threads(archive)
    with destination.listening() as port:
        archive.add_peer("DEST", port, associations=4)
        try:
            last, _ = moved(archive, cancelling=silent)
        finally:
            over.set()
    assert last.Status == 0xFE00
    assert last.NumberOfRemainingSuboperations > 0
    assert last.NumberOfCompletedSuboperations <= 4 * 3
    assert settles(archive, before)


def test_a_device_that_never_answers_fails_everything_within_the_bound(archive: Archive) -> None:
    """Messages that are no response, sent again and again, do not lengthen the wait."""
    destination, over = Destination(), threading.Event()

    def chatting(event: Any, number: int) -> int:
        while not over.wait(0.5) and event.assoc.is_established:
            event.assoc.send_c_cancel(1, event.context.context_id)
        return 0

    destination.answer = chatting
    before = threads(archive)
    with destination.listening() as port:
        archive.add_peer("DEST", port, associations=2)
        try:
            last, named = moved(archive)
        finally:
            over.set()
    assert last.Status == 0xA702
    assert sorted(named) == sorted(SENT)
    assert len(destination.uids) == 2
    assert settles(archive, before)


@pytest.mark.parametrize("options", [("--fork",), ()], ids=["many at once", "one at a time"])
def test_dcmtk_takes_what_movescu_asks_for(
    archive: Archive, peer_tool: Tool, tmp_path: Path, options: tuple[str, ...]
) -> None:
    before = threads(archive)
    with storescp(peer_tool, tmp_path / "in", "+xa", *options) as receiver:
        archive.add_peer("DEST", receiver.port, associations=4)
        said = run(
            peer_tool("movescu"), "-v", "-S", "-aem", "DEST", "-k", "QueryRetrieveLevel=STUDY",
            "-k", f"StudyInstanceUID={STUDY}", "127.0.0.1", str(archive.port),
        )  # fmt: skip
        arrived = [data_set_of(one) for one in receiver.taken()]
    assert "Received Final Move Response (Success)" in said.text
    assert sorted(arrived) == sorted(SENT.values())
    assert settles(archive, before)


def test_dcmqrscp_takes_what_one_association_carries(
    archive: Archive, peer_tool: Tool, tmp_path: Path
) -> None:
    """It refuses C-STOREs into one study from several associations at once."""
    area, port = tmp_path / "area", free_port()
    area.mkdir()
    config = tmp_path / "dcmqrscp.cfg"
    config.write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n"
        "HostTable BEGIN\nHostTable END\nVendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\nDEST {area} RW (10, 1024mb) ANY\nAETable END\n"
    )
    with listening([peer_tool("dcmqrscp"), "-c", str(config), "+B"], port):
        archive.add_peer("DEST", port, associations=1)
        last, named = moved(archive)
    assert (last.Status, named) == (0, [])
    arrived = [data_set_of(one) for one in area.iterdir() if one.name != "index.dat"]
    assert sorted(arrived) == sorted(SENT.values())


def test_orthanc_takes_it_over_several_associations(
    archive: Archive, peer_tool: Tool, tmp_path: Path
) -> None:
    port, folder = free_port(), tmp_path / "orthanc"
    folder.mkdir()
    settings = {
        "StorageDirectory": str(folder / "storage"),
        "StorageCompression": False,
        "HttpServerEnabled": False,
        "DicomAet": "DEST",
        "DicomPort": port,
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowEcho": True,
        "Plugins": [],
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with listening([peer_tool("Orthanc"), str(folder / "orthanc.json")], port):
        archive.add_peer("DEST", port, associations=4)
        last, named = moved(archive)
    assert (last.Status, named) == (0, [])
    files = [one for one in (folder / "storage").rglob("*") if is_part10(one)]
    assert sorted(map(data_set_of, files)) == sorted(SENT.values())


@contextmanager
def listening(command: list[str], port: int) -> Iterator[None]:
    """Run a foreign server until the block ends."""
    import socket

    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            assert process.poll() is None, "it ended at once"
            assert time.monotonic() < deadline, "it does not listen"
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(30)


def is_part10(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def test_getscu_gets_every_byte(archive: Archive, peer_tool: Tool, tmp_path: Path) -> None:
    folder = tmp_path / "got"
    folder.mkdir()
    said = run(
        peer_tool("getscu"), "-v", "-S", "+B", "-od", str(folder), "-k", "QueryRetrieveLevel=STUDY",
        "-k", f"StudyInstanceUID={STUDY}", "127.0.0.1", str(archive.port),
    )  # fmt: skip
    assert said.code == 0, said.text
    assert sorted(map(data_set_of, folder.iterdir())) == sorted(SENT.values())


def test_a_kept_file_of_another_length_is_never_delivered(tmp_path: Path) -> None:
    damaged = f"{STUDY}.1.7"
    with serving(tmp_path / "home") as archive:
        assert set(raw_peer.send(archive.port, HELD[:10])) == {0}
        (short,) = [one for one in archive.kept() if dcmread(one).SOPInstanceUID == damaged]
        os.truncate(short, short.stat().st_size - 100)
        asked = [(CT, EXPLICIT_LITTLE)]
        responses, arrived = raw_peer.get(archive.port, STUDY_ROOT, ASKED, asked)
    assert responses[-1][0].Status == 0xB000
    assert responses[-1][0].NumberOfFailedSuboperations == 1
    assert responses[-1][1] is not None
    assert responses[-1][1].FailedSOPInstanceUIDList == damaged
    assert {one.sop_instance_uid for one in arrived} == {
        one.sop_instance_uid for one in HELD[:10]
    } - {damaged}
