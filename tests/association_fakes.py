"""Fakes for tests of the association layer: gate, spool, audit, a server on port 0, raw PDUs."""

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any, BinaryIO

import msgspec
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
    UserIdentityNegotiation,
)
from pynetdicom.presentation import build_context

from config.settings import Association, Dicom, Settings
from pacs.association.commands import encode_command
from pacs.association.message import Offer, Operation, Request, Response
from pacs.association.server import AssociationServer, listen
from pacs.association.tls import ServerTls
from pacs.core.caller import Caller, Candidate, Right, SubscriberName, Visibility
from pacs.core.errors import AdmissionRefused, NotAuthorized
from pacs.core.identifiers import Digest, StudyInstanceUID
from pacs.core.records import IncomingMeta, Place
from scp.server import Server
from scp.service_class import ServiceClass
from scp.verification import verification

CT = "1.2.840.10008.5.1.4.1.1.2"
FIND = "1.2.840.10008.5.1.4.1.2.2.1"
ECHO = "1.2.840.10008.1.1"
EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
PATIENCE_S = 60.0


class FakeGate:
    """Admits everybody but REFUSED, allows everything but ``denied``."""

    def __init__(self, denied: frozenset[Right] = frozenset()) -> None:
        self.denied = denied
        self.identity_response: bytes | None = None
        self.candidates: list[Candidate] = []

    def admit(self, candidate: Candidate) -> Caller:
        self.candidates.append(candidate)
        if candidate.calling_ae_title == "REFUSED":
            raise AdmissionRefused
        return Caller(
            subscriber=SubscriberName("local"),
            rights=frozenset(Right),
            visibility=Visibility(everything=True),
            ae_title=candidate.calling_ae_title,
            address=candidate.address,
            issuer_of_patient_id="HOSPITAL",
            identity_response=self.identity_response,
        )

    def allow(self, caller: Caller, right: Right, purpose: str = "") -> Caller:
        if right in self.denied:
            raise NotAuthorized
        return caller

    def stands(self, caller: Caller) -> bool:
        return True


class FakeAudit:
    """Remembers what was recorded."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Caller | None, dict[str, object]]] = []

    def record(self, event: str, caller: Caller | None, **details: object) -> None:
        self.events.append((event, caller, details))

    def named(self, event: str) -> list[dict[str, object]]:
        return [details for name, _, details in self.events if name == event]


class FakeIncoming:
    """Counts what is written; keeps the bytes only when they are few."""

    def __init__(self, meta: IncomingMeta, spool: "FakeSpool") -> None:
        self.meta = meta
        self.spool = spool
        self.size_bytes = 0
        self.largest_piece_bytes = 0
        self.content = bytearray()
        self.left = 0

    def write(self, piece: memoryview) -> None:
        assert isinstance(piece, memoryview)
        self.size_bytes += len(piece)
        self.largest_piece_bytes = max(self.largest_piece_bytes, len(piece))
        if self.size_bytes < 1_000_000:
            self.content += piece

    def finish(self) -> Digest:
        return Digest("fake:")

    def open_data_set(self) -> BinaryIO:
        return BytesIO(bytes(self.content))

    @property
    def data_set_bytes(self) -> int:
        return self.size_bytes

    @property
    def arrival_path(self) -> str:
        return ""

    def place(self, study: StudyInstanceUID) -> Place:
        raise AssertionError(study)

    def keep(self, study: StudyInstanceUID) -> Place:
        raise AssertionError(study)

    def settle(self) -> None:
        """Nothing to settle."""

    def discard(self) -> None:
        """Nothing to discard."""

    def __enter__(self) -> "FakeIncoming":
        self.spool.open.append(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.left += 1
        self.spool.open.remove(self)


class FakeSpool:
    """Every file ever begun, and those still open."""

    def __init__(self) -> None:
        self.all: list[FakeIncoming] = []
        self.open: list[FakeIncoming] = []

    def incoming(self, meta: IncomingMeta) -> FakeIncoming:
        one = FakeIncoming(meta, self)
        self.all.append(one)
        return one


def store_class(handler: Callable[[Request], Iterator[Response]] | None = None) -> ServiceClass:
    def store(request: Request) -> Iterator[Response]:
        assert request.incoming is not None
        request.incoming.finish()
        yield Response(status=0)

    return ServiceClass(
        name="Storage",
        standard="PS3.4 Annex B",
        offers=(Offer(sop_classes={CT: "CT"}, any_other_class=True),),
        operations={Operation.C_STORE: handler or store},
        rights={Operation.C_STORE: Right.REGISTER},
    )


def find_class(handler: Callable[[Request], Iterator[Response]], **more: Any) -> ServiceClass:
    return ServiceClass(
        name="Query",
        standard="PS3.4 Annex C",
        offers=(
            Offer(
                sop_classes={FIND: "Study Root FIND"},
                transfer_syntaxes=(EXPLICIT, IMPLICIT, "1.2.840.10008.1.2.1.99"),
                extended=lambda asked: asked[:1] + b"\x00",
            ),
        ),
        operations={Operation.C_FIND: handler},
        rights={Operation.C_FIND: Right.QUERY},
        **more,
    )


class Running:
    """A server with all its fakes."""

    def __init__(
        self,
        settings: Settings,
        service_classes: Iterable[ServiceClass],
        tls: ServerTls | None = None,
    ) -> None:
        self.gate, self.spool, self.audit = FakeGate(), FakeSpool(), FakeAudit()
        door = Server(tuple(service_classes), gate=self.gate, audit=self.audit)
        self.server = AssociationServer(
            settings, gate=self.gate, spool=self.spool, services=door, audit=self.audit
        )
        self.settings = settings
        self.port = self.server.start(encrypted=(listen(settings.dicom), tls) if tls else None)

    def connect(self) -> socket.socket:
        return connected(self.port)

    def associate(self, *contexts: tuple[str, list[str]], **more: Any) -> socket.socket:
        request = associate_rq(*contexts, **more)  # before ARTIM runs
        connection = self.connect()
        connection.sendall(request)
        pdu = read_pdu(connection)
        assert pdu[0] == 2, f"not accepted: {pdu.hex()}"
        return connection


def connected(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


QUICK = Association(
    artim_timeout_s=3.0, network_timeout_s=20.0, dimse_timeout_s=20.0, drain_timeout_s=2.0
)


@contextmanager
def serving(
    *service_classes: ServiceClass,
    dicom: Any = None,
    tls: ServerTls | None = None,
    **bounds: Any,
) -> Iterator[Running]:
    """Serve on port 0, with TLS where it is given; afterwards no thread, association or file may be left."""
    before = set(threading.enumerate())
    association = msgspec.structs.replace(QUICK, **bounds)
    settings = Settings(
        dicom=msgspec.structs.replace(Dicom(port=0), **(dicom or {})), association=association
    )
    running = Running(settings, (verification(), *service_classes), tls)
    try:
        yield running
    finally:
        running.server.close()
    assert running.server.open_associations == 0
    assert running.spool.open == []
    assert all(one.left == 1 for one in running.spool.all)
    left = [one for one in set(threading.enumerate()) - before if one.name.startswith("pacs-")]
    assert left == []


def until(condition: Callable[[], bool], timeout_s: float = PATIENCE_S) -> bool:
    """Wait for a condition; tell whether it came."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def associate_rq(
    *contexts: tuple[str, list[str]],
    calling: str = "TESTER",
    called: str = "PACS",
    app: str = "",
    identity: UserIdentityNegotiation | None = None,
) -> bytes:
    primitive = A_ASSOCIATE()
    primitive.application_context_name = app or "1.2.840.10008.3.1.1.1"
    primitive.calling_ae_title, primitive.called_ae_title = calling, called
    built = []
    for index, (uid, syntaxes) in enumerate(contexts or ((ECHO, [IMPLICIT]),)):
        context = build_context(uid, syntaxes)
        context.context_id = 2 * index + 1
        built.append(context)
    primitive.presentation_context_definition_list = built
    length = MaximumLengthNotification()
    length.maximum_length_received = 16_384
    implementation = ImplementationClassUIDNotification()
    implementation.implementation_class_uid = "1.2.3.4"
    primitive.user_information = [length, implementation, *([identity] if identity else [])]
    return bytes(A_ASSOCIATE_RQ(primitive).encode())


def asked_in(port: int, request: bytes) -> tuple[int, int, int] | None:
    """Ask for an association: result, source and reason of its rejection, ``None`` where it is accepted."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        connection.sendall(request)
        pdu = read_pdu(connection)
        if pdu[:1] == b"\x03":
            return pdu[7], pdu[8], pdu[9]
        assert pdu[:1] == b"\x02", pdu.hex()
        connection.sendall(ABORT)
        return None


def p_data(*pdvs: tuple[int, int, bytes]) -> bytes:
    """Build a P-DATA-TF of (context id, control header, value)."""
    body = b"".join(
        struct.pack(">LBB", len(value) + 2, context_id, header) + value
        for context_id, header, value in pdvs
    )
    return struct.pack(">BxL", 4, len(body)) + body


def command(field: int, message_id: int = 1, *, data: bool = False, **more: object) -> bytes:
    return encode_command(
        {
            "CommandField": field,
            "MessageID": message_id,
            "CommandDataSetType": 1 if data else 0x0101,
            **more,
        }
    )


RELEASE_RQ = bytes.fromhex("05 00 00000004 00000000")
ABORT = bytes.fromhex("07 00 00000004 00000000")


def read_exactly(connection: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size:
        piece = connection.recv(size - len(got))
        if not piece:
            break
        got += piece
    return got


def read_pdu(connection: socket.socket) -> bytes:
    """Read one PDU; empty when the connection is closed."""
    try:
        header = read_exactly(connection, 6)
        if len(header) < 6:
            return b""
        return header + read_exactly(connection, struct.unpack(">xxL", header)[0])
    except ConnectionResetError:
        return b""


def aborted(connection: socket.socket) -> tuple[int, int] | None:
    """Read on to an A-ABORT: its source and reason."""
    while pdu := read_pdu(connection):
        if pdu[0] == 7:
            return pdu[8], pdu[9]
    return None
