"""The accepting side with real peers: DCMTK and pynetdicom."""

import resource
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import AE, build_role, evt
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation

from config.settings import Association, Dicom, Settings
from pacs.association.commands import decode_command
from pacs.association.message import Message, Offer, Operation, Request, Response
from pacs.association.server import AssociationServer
from pacs.core.caller import Caller, Right
from pacs.core.errors import AddressInUse, RecordsFailed
from pacs.core.identifiers import AETitle, SOPClassUID, SOPInstanceUID, TransferSyntaxUID
from pacs.core.records import Payload, SendOutcome
from scp.service_class import ServiceClass
from tests.association_fakes import (
    CT,
    ECHO,
    EXPLICIT,
    FIND,
    IMPLICIT,
    RELEASE_RQ,
    Running,
    aborted,
    asked_in,
    associate_rq,
    command,
    find_class,
    p_data,
    read_pdu,
    serving,
    store_class,
    until,
)

COMMITMENT = "1.2.840.10008.1.20.1"
GET = "1.2.840.10008.5.1.4.1.2.2.3"
DEFLATED = "1.2.840.10008.1.2.1.99"


def dcmtk(tool: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    found = shutil.which(tool)
    if found is None:
        pytest.skip(f"{tool} is not installed (Debian: apt-get install dcmtk)")
    command_line = [found, *map(str, arguments)]
    return subprocess.run(command_line, capture_output=True, text=True, timeout=60, check=False)


def match(number: int) -> Dataset:
    one = Dataset()
    one.QueryRetrieveLevel = "STUDY"
    one.StudyInstanceUID = f"1.2.{number}"
    return one


def two_matches(request: Request) -> Iterator[Response]:
    assert request.identifier is not None
    assert request.identifier.PatientID == "4711"
    yield Response(status=0xFF00, identifier=match(1))
    yield Response(status=0xFF00, identifier=match(2))
    yield Response(status=0)


def query(transfer_syntax: str, running: Running) -> list[tuple[int, str | None]]:
    entity = AE("ASKER")
    entity.add_requested_context(FIND, transfer_syntax)
    association = entity.associate("127.0.0.1", running.port)
    assert association.is_established
    asked = Dataset()
    asked.QueryRetrieveLevel = "STUDY"
    asked.PatientID = "4711"
    got = [
        (status.Status, None if found is None else found.StudyInstanceUID)
        for status, found in association.send_c_find(asked, FIND)
    ]
    association.release()
    return got


def test_dcmtk_is_echoed_and_audited() -> None:
    with serving() as running:
        done = dcmtk("echoscu", "-aet", "MODALITY", "127.0.0.1", running.port)
        assert done.returncode == 0, done.stderr
        assert [one["outcome"] for one in running.audit.named("C-ECHO")] == ["success"]
        (admitted,) = running.audit.named("association")
        assert admitted["calling_ae_title"] == "MODALITY"
        candidate = running.gate.candidates[0]
        assert (candidate.address, candidate.called_ae_title) == ("127.0.0.1", "ANY-SCP")


@pytest.mark.parametrize("transfer_syntax", [EXPLICIT, IMPLICIT, DEFLATED])
def test_identifiers_travel_in_the_contexts_syntax(transfer_syntax: str) -> None:
    with serving(find_class(two_matches)) as running:
        assert query(transfer_syntax, running) == [(0xFF00, "1.2.1"), (0xFF00, "1.2.2"), (0, None)]


def test_neither_identifiers_nor_titles_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG"), serving(find_class(two_matches)) as running:
        caplog.clear()
        query(EXPLICIT, running)
    ours = [one for one in caplog.records if one.threadName.startswith("pacs-")]
    assert ours != []
    text = " ".join(one.getMessage() for one in ours)
    assert "4711" not in text
    assert "1.2.1" not in text
    assert "ASKER" not in text


def test_requests_sent_ahead_are_answered_in_order() -> None:
    with serving() as running, running.associate() as connection:
        asked = [
            p_data((1, 3, command(0x30, number, AffectedSOPClassUID=ECHO)))
            for number in range(1, 9)
        ]
        connection.sendall(b"".join(asked))
        answers = [decode_command(read_pdu(connection)[12:]) for _ in asked]
    assert [one["MessageIDBeingRespondedTo"] for one in answers] == list(range(1, 9))
    assert {one["Status"] for one in answers} == {0}


def test_a_response_that_cannot_be_encoded_is_a_failure() -> None:
    def broken(_request: Request) -> Iterator[Response]:
        one = Dataset()
        one.add_new(0x00280010, "US", 1)
        one[0x00280010]._value = "many"
        yield Response(status=0xFF00, identifier=one)

    with serving(find_class(broken)) as running:
        assert query(EXPLICIT, running) == [(0xC001, None)]


def endless(yielded: list[bool], signal: threading.Event | None = None) -> ServiceClass:
    def handler(request: Request) -> Iterator[Response]:
        while not request.cancelled():
            yielded.append(signal is not None and signal.is_set())
            yield Response(status=0xFF00, identifier=match(len(yielded)))
        yield Response(status=0xFE00)

    return find_class(handler)


def test_findscu_can_cancel(tmp_path: Path) -> None:
    yielded: list[bool] = []
    with serving(endless(yielded)) as running:
        done = dcmtk(
            "findscu", "-v", "-S", "--cancel", "3", "-k", "QueryRetrieveLevel=STUDY",
            "-k", "StudyInstanceUID", "127.0.0.1", running.port,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert [one["status"] for one in running.audit.named("C-FIND")] == ["FE00"]


def test_a_cancel_is_obeyed_within_twenty_responses() -> None:
    yielded: list[bool] = []
    sent = threading.Event()
    with serving(endless(yielded, sent)) as running:
        with running.associate((FIND, [EXPLICIT])) as connection:
            connection.sendall(
                p_data((1, 3, command(0x20, 9, data=True, AffectedSOPClassUID=FIND)), (1, 2, b""))
            )
            for _ in range(10):
                assert read_pdu(connection)[0] == 4
            cancel = command(0x0FFF, MessageIDBeingRespondedTo=9)
            connection.sendall(p_data((1, 3, cancel)))
            sent.set()
            while running.audit.named("C-FIND") == []:
                assert read_pdu(connection)[0] == 4
        assert sum(yielded) <= 20


def test_a_peer_that_does_not_read_does_not_fill_memory() -> None:
    yielded: list[bool] = []
    large = match(1)
    large.EncapsulatedDocument = bytes(100_000)

    def handler(_request: Request) -> Iterator[Response]:
        while True:
            yielded.append(True)
            yield Response(status=0xFF00, identifier=large)

    with serving(find_class(handler), network_timeout_s=2.0) as running:
        with running.associate((FIND, [EXPLICIT])) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            connection.sendall(
                p_data((1, 3, command(0x20, 9, data=True, AffectedSOPClassUID=FIND)), (1, 2, b""))
            )
            stalled = until(lambda: _still(yielded))
            assert stalled
        assert until(lambda: running.server.open_associations == 0)
        assert [one["outcome"] for one in running.audit.named("C-FIND")] == ["abandoned"]


def _still(yielded: list[bool]) -> bool:
    before = len(yielded)
    time.sleep(0.3)
    return before == len(yielded) > 0


def test_a_store_streams_and_memory_stays() -> None:
    pieces, size = 1_600, 131_000
    with serving(store_class()) as running, running.associate((CT, [EXPLICIT])) as connection:
        announced = command(1, data=True, AffectedSOPClassUID=CT, AffectedSOPInstanceUID="1.2.3")
        connection.sendall(p_data((1, 3, announced)))
        piece = p_data((1, 0, bytes(size)))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(pieces):
            connection.sendall(piece)
        connection.sendall(p_data((1, 2, b"")))
        assert read_pdu(connection)[0] == 4
        grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        (incoming,) = running.spool.all
        assert incoming.size_bytes == pieces * size
        assert incoming.largest_piece_bytes <= size
        assert grown_kib < 40_000
        provenance = incoming.meta.provenance
        assert incoming.meta.transfer_syntax_uid == EXPLICIT
        assert (provenance.source_ae_title, provenance.registrant) == ("TESTER", "local")
        assert provenance.issuer_of_patient_id == "HOSPITAL"


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"AffectedSOPClassUID": CT}, 0x0117),
        ({"AffectedSOPClassUID": CT, "AffectedSOPInstanceUID": "../../x"}, 0x0117),
        ({"AffectedSOPInstanceUID": "1.2.3"}, 0x0122),
        ({"AffectedSOPClassUID": FIND, "AffectedSOPInstanceUID": "1.2.3"}, 0x0122),
    ],
)
def test_a_store_that_does_not_say_what_is_refused_without_a_file(
    fields: dict[str, str], status: int
) -> None:
    with serving(store_class()) as running, running.associate((CT, [EXPLICIT])) as connection:
        connection.sendall(p_data((1, 3, command(1, data=True, **fields)), (1, 2, bytes(100))))
        assert status.to_bytes(2, "little") in read_pdu(connection)[-80:]
        assert running.spool.all == []
        assert [one["status"] for one in running.audit.named("C-STORE")] == [f"{status:04X}"]


def test_an_empty_data_set_reaches_the_handler() -> None:
    with serving(store_class()) as running, running.associate((CT, [EXPLICIT])) as connection:
        announced = command(1, data=True, AffectedSOPClassUID=CT, AffectedSOPInstanceUID="1.2.3")
        connection.sendall(p_data((1, 3, announced), (1, 2, b"")))
        assert read_pdu(connection)[0] == 4
        assert [one.size_bytes for one in running.spool.all] == [0]


def test_a_store_that_cannot_begin_costs_the_association_alone() -> None:
    with serving(store_class()) as running:

        def broken(_meta: object) -> object:
            raise RuntimeError("no spool")

        whole, running.spool.incoming = running.spool.incoming, broken  # type: ignore[assignment]
        with running.associate((CT, [EXPLICIT])) as connection:
            connection.sendall(
                p_data(
                    (
                        1,
                        3,
                        command(1, data=True, AffectedSOPClassUID=CT, AffectedSOPInstanceUID="1.2"),
                    )
                )
            )
            assert aborted(connection) == (2, 0)
        running.spool.incoming = whole  # type: ignore[method-assign]
        with running.associate() as connection:
            connection.sendall(p_data((1, 3, command(0x30, AffectedSOPClassUID=ECHO))))
            assert read_pdu(connection)[0] == 4


def test_dcmtk_stores(tmp_path: Path) -> None:
    text = tmp_path / "ct.dump"
    text.write_text(
        f"(0008,0016) UI [{CT}]\n(0008,0018) UI [1.2.3.4]\n(0010,0020) LO [4711]\n"
        "(0020,000d) UI [1.2.3]\n(0020,000e) UI [1.2.3.1]\n"
    )
    assert dcmtk("dump2dcm", text, tmp_path / "ct.dcm").returncode == 0
    with serving(store_class()) as running:
        done = dcmtk("storescu", "127.0.0.1", running.port, tmp_path / "ct.dcm")
        assert done.returncode == 0, done.stderr
        (incoming,) = running.spool.all
        assert incoming.meta.sop_instance_uid == "1.2.3.4"
        assert b"4711" in incoming.content


def test_what_is_negotiated_is_what_handlers_see() -> None:
    seen = []

    def handler(request: Request) -> Iterator[Response]:
        seen.append((request.association.negotiated(FIND), request.association.max_pdu_bytes))
        yield Response(status=0)

    extended = SOPClassExtendedNegotiation()
    extended.sop_class_uid = UID(FIND)
    extended.service_class_application_information = b"\x01\x01"
    with serving(find_class(handler)) as running:
        entity = AE("ASKER")
        entity.add_requested_context(FIND, EXPLICIT)
        association = entity.associate("127.0.0.1", running.port, ext_neg=[extended], max_pdu=9_999)
        assert association.acceptor.sop_class_extended == {FIND: b"\x01\x00"}
        assert association.acceptor.maximum_length == running.settings.association.max_pdu_bytes
        list(association.send_c_find(match(1), FIND))
        association.release()
    assert seen == [(b"\x01\x00", 9_999)]


def commitment(session_log: list[str], reports: int = 1) -> ServiceClass:
    @contextmanager
    def session(_caller: Caller) -> Iterator[object]:
        session_log.append("entered")
        yield "session"
        session_log.append("left")

    def act(request: Request) -> Iterator[Response]:
        assert request.fields["ActionTypeID"] == 1
        assert request.association.session == "session"
        for _ in range(reports):
            request.association.post(
                Message(
                    operation=Operation.N_EVENT_REPORT,
                    sop_class_uid=COMMITMENT,
                    fields={"AffectedSOPInstanceUID": "1.2.840.10008.1.20.1.1", "EventTypeID": 1},
                    data_set=request.identifier,
                )
            )
        yield Response(status=0, identifier=request.identifier)

    def get(request: Request) -> Iterator[Response]:
        assert request.fields["AttributeIdentifierList"] == (0x00100020,)
        yield Response(
            status=0, identifier=match(int(request.fields["RequestedSOPInstanceUID"][-1]))
        )  # type: ignore[index]

    def create(request: Request) -> Iterator[Response]:
        yield Response(status=0, fields={"AffectedSOPInstanceUID": "1.2.77"})

    return ServiceClass(
        name="Toy",
        standard="PS3.4 Annex J",
        offers=(Offer(sop_classes={COMMITMENT: "Toy"}, transfer_syntaxes=(EXPLICIT,)),),
        operations={Operation.N_ACTION: act, Operation.N_GET: get, Operation.N_CREATE: create},
        rights=dict.fromkeys((Operation.N_ACTION, Operation.N_GET, Operation.N_CREATE), Right.READ),
        session=session,
    )


def test_normalized_operations_and_event_reports() -> None:
    log: list[str] = []
    reported: list[tuple[int, str]] = []

    def on_report(event: evt.Event) -> tuple[int, None]:
        reported.append((event.event_type, event.event_information.StudyInstanceUID))
        return 0, None

    with serving(commitment(log)) as running:
        entity = AE("ASKER")
        entity.add_requested_context(COMMITMENT, EXPLICIT)
        association = entity.associate(
            "127.0.0.1", running.port, evt_handlers=[(evt.EVT_N_EVENT_REPORT, on_report)]
        )
        status, got = association.send_n_get([0x00100020], COMMITMENT, "1.2.3")
        assert (status.Status, got.StudyInstanceUID) == (0, "1.2.3")
        status, _ = association.send_n_create(match(5), COMMITMENT)
        assert (status.Status, status.get("AffectedSOPInstanceUID")) == (0, None)
        status, got = association.send_n_action(match(4), 1, COMMITMENT, "1.2.840.10008.1.20.1.1")
        assert (status.Status, got.StudyInstanceUID) == (0, "1.2.4")
        assert until(lambda: len(reported) == 1)
        status, _ = association.send_n_get([0x00100020], COMMITMENT, "1.2.3")
        assert status.Status == 0
        association.release()
    assert reported == [(1, "1.2.4")]
    assert log == ["entered", "left"]


def test_c_get_roles_are_answered() -> None:
    get = ServiceClass(
        name="Get",
        standard="PS3.4 Annex C",
        offers=(Offer(sop_classes={CT: "CT"}, scu_role=True),),
        operations={},
        rights={},
    )
    with serving(get) as running:
        entity = AE("ASKER")
        entity.add_requested_context(CT, EXPLICIT)
        association = entity.associate(
            "127.0.0.1", running.port, ext_neg=[build_role(CT, scp_role=True)]
        )
        (context,) = association.accepted_contexts
        assert (context.as_scp, context.as_scu) == (True, False)
        association.release()


def test_a_c_get_sends_on_the_same_association(tmp_path: Path) -> None:
    content = tmp_path / "data"
    content.write_bytes(b"\x08\x00\x18\x00UI\x04\x001.2\x00")
    payload = Payload(
        sop_class_uid=SOPClassUID(CT),
        sop_instance_uid=SOPInstanceUID("1.2"),
        transfer_syntax_uid=TransferSyntaxUID(EXPLICIT),
        path=str(content),
        offset=0,
    )

    def get(request: Request) -> Iterator[Response]:
        way = request.association.delivery()
        assert way.accepted(SOPClassUID(CT)) == (EXPLICIT,)
        for number in range(3):
            outcome = way.send(payload, None)
            assert outcome is SendOutcome.SUCCESS
            yield Response(status=0xFF00, remaining=2 - number, completed=number + 1, failed=0)
        yield Response(status=0, completed=3, failed=0, warning=0)

    retrieve = ServiceClass(
        name="Get",
        standard="PS3.4 Annex C",
        offers=(
            Offer(sop_classes={CT: "CT"}, scu_role=True),
            Offer(sop_classes={GET: "GET"}, transfer_syntaxes=(EXPLICIT,)),
        ),
        operations={Operation.C_GET: get},
        rights={Operation.C_GET: Right.RECEIVE},
    )
    got = []

    def on_store(event: evt.Event) -> int:
        got.append(event.request.DataSet.getvalue())
        return 0

    with serving(retrieve) as running:
        entity = AE("ASKER")
        entity.add_requested_context(GET, EXPLICIT)
        entity.add_requested_context(CT, EXPLICIT)
        association = entity.associate(
            "127.0.0.1",
            running.port,
            ext_neg=[build_role(CT, scp_role=True)],
            evt_handlers=[(evt.EVT_C_STORE, on_store)],
        )
        statuses = [status.Status for status, _ in association.send_c_get(match(1), GET)]
        association.release()
    assert statuses == [0xFF00, 0xFF00, 0xFF00, 0]
    assert got == [content.read_bytes()] * 3


def test_draining_lets_a_request_finish_and_ends_the_idle() -> None:
    begun, may_end = threading.Event(), threading.Event()

    def slow(_request: Request) -> Iterator[Response]:
        begun.set()
        may_end.wait(10)
        yield Response(status=0)

    with (
        serving(find_class(slow)) as running,
        running.associate((FIND, [EXPLICIT])) as busy,
        running.associate() as idle,
    ):
        busy.sendall(p_data((1, 3, command(0x20, AffectedSOPClassUID=FIND))))
        assert begun.wait(10)
        draining = threading.Thread(target=running.server.drain, args=(10.0,))
        draining.start()
        assert read_pdu(idle)[0] == 7
        with pytest.raises(ConnectionRefusedError):
            running.connect()
        may_end.set()
        assert read_pdu(busy)[0] == 4
        assert read_pdu(busy)[0] == 7
        busy.close()
        idle.close()
        draining.join()


def test_draining_ends_at_its_deadline() -> None:
    yielded: list[bool] = []
    with (
        serving(endless(yielded)) as running,
        running.associate((FIND, [EXPLICIT])) as connection,
    ):
        connection.sendall(p_data((1, 3, command(0x20, AffectedSOPClassUID=FIND))))
        assert until(lambda: len(yielded) > 0)
        running.server.drain(0.2)
        assert running.server.open_associations == 0


def test_a_release_is_answered_and_the_session_left() -> None:
    log: list[str] = []
    with serving(commitment(log)) as running:
        with running.associate((COMMITMENT, [EXPLICIT])) as connection:
            assert log == ["entered"]
            connection.sendall(RELEASE_RQ)
            assert read_pdu(connection)[0] == 6
        assert until(lambda: log == ["entered", "left"])


def test_a_called_title_is_ours_as_long_as_it_is_said_so() -> None:
    titles = {"MIP"}

    def answers_to(called: AETitle) -> bool:
        if called == "LOST":
            raise RecordsFailed
        return called in titles

    with serving(dicom={"any_called_ae_title": False, "ae_title": "PACS"}) as running:
        running.server._host = replace(running.server._host, answers_to=answers_to)

        def reached(called: str) -> tuple[int, int, int] | None:
            return asked_in(running.port, associate_rq(called=called))

        assert reached("PACS") is None
        assert reached("MIP") is None
        assert reached("OTHER") == (1, 1, 7), "called AE title not recognized"
        assert reached("LOST") == (2, 3, 1), "for now nobody can tell"
        titles.clear()
        assert reached("MIP") == (1, 1, 7)


def test_a_taken_port_is_said() -> None:
    with serving() as running:
        settings = Settings(dicom=Dicom(port=running.port), association=Association())
        second = AssociationServer(
            settings,
            gate=running.gate,
            spool=running.spool,
            services=running.server._host.services,
            audit=running.audit,
        )
        with pytest.raises(AddressInUse, match=str(running.port)):
            second.start()
        second.close()


def test_no_file_descriptor_is_left() -> None:
    with serving() as running:
        for _ in range(3):
            running.associate((ECHO, [IMPLICIT])).close()
        assert until(lambda: running.server.open_associations == 0)
        assert until(lambda: running.server.open_connections == 0)
        before = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(20):
            running.associate((ECHO, [IMPLICIT])).close()
        assert until(lambda: running.server.open_connections == 0)
        assert len(list(Path("/proc/self/fd").iterdir())) <= before
