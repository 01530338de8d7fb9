"""Storage Commitment asked of foreign archives: pynetdicom, Orthanc, and dcmqrscp that has none. PS3.4 Annex J."""

import json
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, build_role, evt
from pynetdicom.association import Association
from pynetdicom.pdu import P_DATA_TF

from pacs.app.archive import Archive
from pacs.app.listening import listening
from pacs.app.worker import work
from pacs.core.forwarding import CommitmentWork
from pacs.core.identifiers import AETitle, SOPClassUID, SOPInstanceUID
from pacs.core.work import JobRow, JobState
from tests.archive import free_port
from tests.association_fakes import until
from tests.e2e.test_cli_scu import listening as tool_listening
from tests.e2e.test_outbox_orthanc import orthanc
from tests.keeping import ADMIN, data_set, opened
from tests.pynetdicom_hold import hold

CT = "1.2.840.10008.5.1.4.1.1.2"
PUSH_MODEL = "1.2.840.10008.1.20.1"
WELL_KNOWN = "1.2.840.10008.1.20.1.1"
IMPLICIT = "1.2.840.10008.1.2"
PATIENCE_S = 60.0
UIDS = ("1.2.3.1", "1.2.3.2", "1.2.3.3")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    return "" if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


@contextmanager
def working(archive: Archive) -> Iterator[None]:
    """Run jobs in this process."""
    stopping = threading.Event()
    thread = threading.Thread(target=work, args=(archive, "test", (), stopping))
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def ask(archive: Archive, ae_title: str, *uids: str, required: bool = False) -> None:
    references = tuple((SOPClassUID(CT), SOPInstanceUID(one)) for one in uids)
    asked = CommitmentWork(destination=AETitle(ae_title), references=references, required=required)
    with archive.records.transaction() as unit:
        unit.enqueue(asked.job(cause="test"))


def row_of(archive: Archive) -> JobRow:
    (row,) = archive.jobs.list(ADMIN)
    return row


def ended(archive: Archive) -> JobRow:
    ends = (JobState.DONE, JobState.FAILED, JobState.CANCELLED)
    assert until(lambda: row_of(archive).state in ends, PATIENCE_S), row_of(archive)
    return row_of(archive)


def result_of(archive: Archive) -> Any:
    row = ended(archive)
    assert row.state is JobState.DONE, row.last_error
    return json.loads(str(row.result))


def information(asked: Dataset, *, failed: Sequence[str] = ()) -> Dataset:
    """Event Information that commits what was asked but for ``failed``."""
    made = Dataset()
    made.TransactionUID = asked.TransactionUID
    items = list(asked.ReferencedSOPSequence)
    made.ReferencedSOPSequence = [
        one for one in items if one.ReferencedSOPInstanceUID not in failed
    ]
    for one in (bad := [item for item in items if item.ReferencedSOPInstanceUID in failed]):
        one.FailureReason = 0x0112
    if bad:
        made.FailedSOPSequence = bad
    return made


def _is_requestor(thread: threading.Thread) -> bool:
    return isinstance(thread, Association) and thread.is_requestor


class Committer:
    """An archive by pynetdicom: takes requests, and reports where and what it is told to."""

    def __init__(self, *, status: int = 0x0000, at_once: bool = False, failed: Sequence[str] = ()):
        self.status, self.at_once, self.failed = status, at_once, failed
        self.asked: list[Dataset] = []
        self.answers: list[int] = []
        self.threads: list[threading.Thread] = []
        self._due: list[tuple[Association, Dataset]] = []
        self.on_asked: Callable[[], None] = lambda: None

    def act(self, event: Any) -> tuple[int, None]:
        assert str(event.request.RequestedSOPInstanceUID) == WELL_KNOWN
        assert event.action_type == 1
        self.asked.append(event.action_information)
        self.on_asked()
        if self.at_once:
            made = information(event.action_information, failed=self.failed)
            self._due.append((event.assoc, made))
        return self.status, None

    def answered(self, event: Any) -> None:
        """Report once the answer to a request has left."""
        if isinstance(event.pdu, P_DATA_TF):
            for due in [one for one in self._due if one[0] is event.assoc]:
                self._due.remove(due)
                thread = threading.Thread(target=self.report, args=due)
                thread.start()
                self.threads.append(thread)

    def report(self, association: Association, made: Dataset, event_type: int = 0) -> int:
        kind = event_type or (2 if "FailedSOPSequence" in made else 1)
        status, _ = association.send_n_event_report(made, kind, PUSH_MODEL, WELL_KNOWN)
        self.answers.append(int(status.get("Status", -1)))
        return self.answers[-1]

    @contextmanager
    def listening(self, port: int = 0) -> Iterator[int]:
        entity = AE(ae_title="COMMITTER")
        entity.add_supported_context(PUSH_MODEL, [IMPLICIT])
        server = entity.start_server(
            ("127.0.0.1", port),
            block=False,
            evt_handlers=[(evt.EVT_N_ACTION, self.act), (evt.EVT_PDU_SENT, self.answered)],
        )
        assert server is not None and server.socket is not None
        try:
            yield server.socket.getsockname()[1]
        finally:
            ours = server.active_associations  # others in this process are not waited for
            ours += [one for one in threading.enumerate() if _is_requestor(one)]
            server.shutdown()
            for thread in (*self.threads, *ours):
                thread.join(PATIENCE_S)

    @contextmanager
    def calling(self, port: int, *, ae_title: str = "COMMITTER") -> Iterator[Association]:
        """Associate with the archive, as the SCP."""
        entity = AE(ae_title=ae_title)
        entity.add_requested_context(PUSH_MODEL, [IMPLICIT])
        role = build_role(PUSH_MODEL, scp_role=True)
        association = entity.associate("127.0.0.1", port, ae_title="PACS", ext_neg=[role])
        assert association.is_established
        assert association.accepted_contexts[0].as_scp
        hold(association)
        try:
            yield association
        finally:
            association.release()


QUICK = {"commitment__wait_on_association_s": "0", "jobs__poll_s": "0.05"}


def test_the_report_comes_on_the_same_association(tmp_path: Path, url: str) -> None:
    committer = Committer(at_once=True, failed=("1.2.3.2",))
    with (
        opened(tmp_path, url, commitment__wait_on_association_s="30") as archive,
        committer.listening() as port,
        working(archive),
    ):
        archive.peers.add(ADMIN, "COMMITTER", "127.0.0.1", port)
        ask(archive, "COMMITTER", *UIDS)
        assert result_of(archive) == {
            "offered": True,
            "committed": 2,
            "failed": {"1.2.3.2": 0x0112},
        }
        assert until(lambda: committer.answers == [0x0000])
        assert len(committer.asked) == 1


def test_the_report_comes_on_an_association_the_peer_opens(tmp_path: Path, url: str) -> None:
    committer = Committer()
    with (
        opened(tmp_path, url, **QUICK) as archive,
        listening(archive) as own_port,
        committer.listening() as port,
        working(archive),
    ):
        archive.peers.add(ADMIN, "COMMITTER", "127.0.0.1", port)
        ask(archive, "COMMITTER", *UIDS)
        assert until(lambda: row_of(archive).state is JobState.DELAYED, PATIENCE_S)
        made = information(committer.asked[0])
        with committer.calling(own_port) as association:
            assert committer.report(association, made) == 0x0000
            assert committer.report(association, made) == 0x0000
        assert result_of(archive) == {"offered": True, "committed": 3, "failed": {}}
        assert row_of(archive).attempts <= 2


def test_what_is_no_report_of_ours_is_refused(tmp_path: Path) -> None:
    committer = Committer()
    with (
        opened(tmp_path, **QUICK) as archive,
        listening(archive) as own_port,
        committer.listening() as port,
        working(archive),
    ):
        archive.peers.add(ADMIN, "COMMITTER", "127.0.0.1", port)
        ask(archive, "COMMITTER", *UIDS)
        assert until(lambda: row_of(archive).state is JobState.DELAYED, PATIENCE_S)
        made, stranger, nameless = information(committer.asked[0]), Dataset(), Dataset()
        stranger.TransactionUID = "1.2.3.4.5"
        nameless.RetrieveAETitle = "COMMITTER"
        with committer.calling(own_port, ae_title="OTHER") as association:
            assert committer.report(association, made) == 0x0112
        with committer.calling(own_port) as association:
            assert committer.report(association, stranger) == 0x0112
            assert committer.report(association, nameless) == 0x0115
            assert committer.report(association, made, event_type=3) == 0x0113
            other = Dataset()
            other.TransactionUID = made.TransactionUID
            assert committer.report(association, other, event_type=2) == 0x0000
            assert committer.report(association, made) == 0x0110
        assert result_of(archive)["failed"] == dict.fromkeys(UIDS, 0)


def test_a_peer_that_says_nothing_fails_the_job_and_is_asked_anew(tmp_path: Path) -> None:
    committer = Committer()
    with (
        opened(tmp_path, commitment__deadline_s="0.5", **QUICK) as archive,
        listening(archive) as own_port,
        committer.listening() as port,
        working(archive),
    ):
        archive.peers.add(ADMIN, "COMMITTER", "127.0.0.1", port)
        ask(archive, "COMMITTER", *UIDS)
        assert ended(archive).state is JobState.FAILED
        assert "COMMITTER said nothing of 3 instances" in row_of(archive).last_error
        with committer.calling(own_port) as association:
            assert committer.report(association, information(committer.asked[0])) == 0x0000
        archive.jobs.retry(ADMIN, row_of(archive).id)
        assert until(lambda: len(committer.asked) == 2, PATIENCE_S)
        assert committer.asked[0].TransactionUID != committer.asked[1].TransactionUID


def test_a_peer_that_is_away_is_asked_when_it_is_back(tmp_path: Path) -> None:
    committer, port = Committer(at_once=True), free_port()
    with opened(tmp_path, commitment__wait_on_association_s="30") as archive, working(archive):
        archive.peers.add(ADMIN, "COMMITTER", "127.0.0.1", port)
        ask(archive, "COMMITTER", *UIDS)
        assert until(lambda: "no connection" in row_of(archive).last_error, PATIENCE_S)
        with committer.listening(port):
            assert result_of(archive)["committed"] == 3
    assert len(committer.asked) == 1


def test_nobody_can_ask_us_for_commitment(tmp_path: Path) -> None:
    with opened(tmp_path) as archive, listening(archive) as own_port:
        entity = AE(ae_title="MODALITY")
        entity.add_requested_context(PUSH_MODEL, [IMPLICIT])
        association = entity.associate("127.0.0.1", own_port, ae_title="PACS")
        hold(association)
        asked = Dataset()
        asked.TransactionUID = "1.2.3"
        status, _ = association.send_n_action(asked, 1, PUSH_MODEL, WELL_KNOWN)
        association.release()
        assert status.Status == 0x0211


@pytest.mark.parametrize(
    ("status", "state", "words"),
    [(0x0211, "done", ""), (0x0124, "failed", "refused with status 0124")],
)
def test_a_refusal_ends_it_by_its_kind(tmp_path: Path, status: int, state: str, words: str) -> None:
    committer = Committer(status=status)
    with opened(tmp_path, **QUICK) as archive, committer.listening() as port, working(archive):
        archive.peers.add(ADMIN, "COMMITTER", "127.0.0.1", port)
        ask(archive, "COMMITTER", *UIDS)
        row = ended(archive)
        assert (row.state.value, words in row.last_error) == (state, True)
        assert row.result in (None, '{"offered":false,"committed":0,"failed":{}}')


@pytest.mark.parametrize("required", [False, True])
def test_dcmqrscp_does_not_offer_it(
    peer_tool: Callable[[str], str], tmp_path: Path, required: bool
) -> None:
    (tmp_path / "qr").mkdir()
    config, port = tmp_path / "qr.cfg", free_port()
    config.write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n"
        "HostTable BEGIN\nHostTable END\nVendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\nQR {tmp_path / 'qr'} RW (20, 1024mb) ANY\nAETable END\n"
    )
    with (
        opened(tmp_path / "home", **QUICK) as archive,
        tool_listening([peer_tool("dcmqrscp"), "-c", str(config)], port),
        working(archive),
    ):
        archive.peers.add(ADMIN, "QR", "127.0.0.1", port)
        ask(archive, "QR", *UIDS, required=required)
        if required:
            assert ended(archive).state is JobState.FAILED
            assert "QR does not offer Storage Commitment" in row_of(archive).last_error
        else:
            assert result_of(archive) == {"offered": False, "committed": 0, "failed": {}}


def test_orthanc_commits_what_it_holds(peer_tool: Callable[[str], str], tmp_path: Path) -> None:
    file = tmp_path / "one.dcm"
    made = data_set("1.2.9", "1.2.9.1", "1.2.3.1")
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.save_as(file, implicit_vr=False, enforce_file_format=True)
    with (
        opened(tmp_path / "home", **QUICK) as archive,
        listening(archive) as own_port,
        orthanc(peer_tool("Orthanc"), tmp_path / "orthanc", own_port) as (port, _),
        working(archive),
    ):
        archive.peers.add(ADMIN, "ORTHANC", "127.0.0.1", port)
        sent = [peer_tool("storescu"), "-aec", "ORTHANC", "127.0.0.1", str(port), str(file)]
        subprocess.run(sent, check=True, timeout=PATIENCE_S)
        ask(archive, "ORTHANC", "1.2.3.1", "1.2.3.2")
        assert result_of(archive) == {
            "offered": True,
            "committed": 1,
            "failed": {"1.2.3.2": 0x0112},
        }, (tmp_path / "orthanc" / "log").read_text()[-3000:]
