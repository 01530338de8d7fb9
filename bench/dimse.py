"""A small DIMSE client of the benchmark's own, so that queries and moves are timed without a process start.

Blocking socket, one presentation context, Implicit VR Little Endian. It speaks
just enough of PS3.8 Section 9.3 and PS3.7 Sections 6.3 and 9.3 for C-FIND and
C-MOVE, and takes no code from the archive or from its peers.
"""

import socket
import struct
from collections.abc import Iterator, Mapping
from types import TracebackType

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from bench.servers import LOOPBACK

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
STUDY_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
CALLING_AE_TITLE = "BENCH"
MAX_PDU_BYTES = 131_072
TIMEOUT_S = 120.0
CONTEXT_ID = 1
ASSOCIATE_RQ, ASSOCIATE_AC, P_DATA, RELEASE_RQ, RELEASE_RP = 1, 2, 4, 5, 6
C_FIND_RQ, C_MOVE_RQ = 0x0020, 0x0021
COMMAND, LAST = 1, 2
NO_DATA_SET = 0x0101
AFFECTED_SOP_CLASS_UID, COMMAND_FIELD, MESSAGE_ID = 0x0002, 0x0100, 0x0110
MOVE_DESTINATION, PRIORITY, DATA_SET_TYPE, STATUS = 0x0600, 0x0700, 0x0800, 0x0900
COMPLETED_SUB_OPERATIONS = 0x1021
PENDING = (0xFF00, 0xFF01)

Command = Mapping[int, bytes]
"""Element number within group 0000 → value."""


class Refused(Exception):
    """The peer did not do what it was asked."""


class Client:
    """One association with a peer, for one SOP Class."""

    def __init__(self, port: int, called_ae_title: str, sop_class_uid: str) -> None:
        self._sop_class_uid = sop_class_uid
        self._socket = socket.create_connection((LOOPBACK, port), timeout=TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._incoming = self._socket.makefile("rb", buffering=65_536)
        self._fragments: list[tuple[int, bytes]] = []
        self._socket.sendall(associate(called_ae_title, sop_class_uid))
        kind, body = self._pdu()
        if kind != ASSOCIATE_AC or not accepted(body):
            self.close()
            raise Refused(f"{called_ae_title} refused the association or {sop_class_uid}")

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._socket.sendall(pdu(RELEASE_RQ, bytes(4)))
                self._pdu()
        finally:
            self.close()

    def close(self) -> None:
        """Drop the connection without a word."""
        self._incoming.close()
        self._socket.close()

    def find(self, identifier: bytes) -> int:
        """Ask C-FIND; give the number of matches."""
        return sum(1 for _ in self.matches(identifier))

    def matches(self, identifier: bytes) -> Iterator[bytes]:
        """Ask C-FIND; yield each match's identifier as it came."""
        self._request(C_FIND_RQ, identifier, {})
        while True:
            command, data_set = self._message()
            status = number(command, STATUS)
            if status not in PENDING:
                break
            yield data_set
        if status:
            raise Refused(f"C-FIND ended with status {status:04X}")

    def move(self, identifier: bytes, destination: str) -> int:
        """Ask C-MOVE; give the number of completed sub-operations."""
        self._request(C_MOVE_RQ, identifier, {MOVE_DESTINATION: padded(destination, b" ")})
        while True:
            command, _ = self._message()
            status = number(command, STATUS)
            if status not in PENDING:
                break
        if status:
            raise Refused(f"C-MOVE ended with status {status:04X}")
        return number(command, COMPLETED_SUB_OPERATIONS)

    def _request(self, command_field: int, identifier: bytes, more: Command) -> None:
        command = {
            AFFECTED_SOP_CLASS_UID: padded(self._sop_class_uid, b"\0"),
            COMMAND_FIELD: struct.pack("<H", command_field),
            MESSAGE_ID: struct.pack("<H", 1),
            **more,
            PRIORITY: struct.pack("<H", 0),
            DATA_SET_TYPE: struct.pack("<H", 1),
        }
        self._socket.sendall(
            pdu(P_DATA, pdv(COMMAND | LAST, encode_command(command)))
            + pdu(P_DATA, pdv(LAST, identifier))
        )

    def _message(self) -> tuple[Command, bytes]:
        command = decode_command(self._assembled())
        has_data_set = number(command, DATA_SET_TYPE) != NO_DATA_SET
        return command, self._assembled() if has_data_set else b""

    def _assembled(self) -> bytes:
        """Put the fragments of one command set or Data Set together."""
        pieces: list[bytes] = []
        while True:
            if not self._fragments:
                self._fragments = self._p_data()
            flags, piece = self._fragments.pop(0)
            pieces.append(piece)
            if flags & LAST:
                return b"".join(pieces)

    def _p_data(self) -> list[tuple[int, bytes]]:
        kind, body = self._pdu()
        if kind != P_DATA:
            raise Refused(f"the peer ended the association with a PDU of type {kind}")
        return list(fragments(body))

    def _pdu(self) -> tuple[int, bytes]:
        header = self._incoming.read(6)
        if len(header) < 6:
            raise Refused("the peer closed the connection")
        kind, length = struct.unpack(">BxI", header)
        return kind, self._incoming.read(length)


def identifier(**keys: str | None) -> bytes:
    """Encode a Study level identifier."""
    question = Dataset()
    question.SpecificCharacterSet = "ISO_IR 192"
    question.QueryRetrieveLevel = "STUDY"
    for keyword, value in keys.items():
        setattr(question, keyword, value)
    target = DicomBytesIO()
    target.is_little_endian, target.is_implicit_VR = True, True
    write_dataset(target, question)
    return bytes(target.getvalue())


def associate(called_ae_title: str, sop_class_uid: str) -> bytes:
    """Make an A-ASSOCIATE-RQ for one context (PS3.8 Section 9.3.2)."""
    context = struct.pack(">BxBx", CONTEXT_ID, 0)
    context += item(0x30, sop_class_uid.encode()) + item(0x40, IMPLICIT_LITTLE.encode())
    user = item(0x51, struct.pack(">I", MAX_PDU_BYTES)) + item(0x52, b"2.25.1")
    titles = b"".join(one.encode().ljust(16) for one in (called_ae_title, CALLING_AE_TITLE))
    items = item(0x10, b"1.2.840.10008.3.1.1.1") + item(0x20, context) + item(0x50, user)
    return pdu(ASSOCIATE_RQ, struct.pack(">HH", 1, 0) + titles + bytes(32) + items)


def accepted(body: bytes) -> bool:
    """Tell whether an A-ASSOCIATE-AC accepts the context (PS3.8 Section 9.3.3.2)."""
    at = 68
    while at + 4 <= len(body):
        kind, length = struct.unpack_from(">BxH", body, at)
        if kind == 0x21:
            return body[at + 6] == 0
        at += 4 + length
    return False


def item(kind: int, content: bytes) -> bytes:
    """Make an item of an A-ASSOCIATE PDU."""
    return struct.pack(">BxH", kind, len(content)) + content


def pdu(kind: int, content: bytes) -> bytes:
    """Make a PDU."""
    return struct.pack(">BxI", kind, len(content)) + content


def pdv(flags: int, content: bytes) -> bytes:
    """Make a presentation data value (PS3.8 Section 9.3.5.1)."""
    return struct.pack(">IBB", len(content) + 2, CONTEXT_ID, flags) + content


def fragments(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield message control header and content of each presentation data value."""
    at = 0
    while at < len(body):
        length, _, flags = struct.unpack_from(">IBB", body, at)
        yield flags, body[at + 6 : at + 4 + length]
        at += 4 + length


def encode_command(command: Command) -> bytes:
    """Encode a command set with its group length (PS3.7 Section 6.3.1)."""
    body = b"".join(
        struct.pack("<HHI", 0, element, len(value)) + value
        for element, value in sorted(command.items())
    )
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


def decode_command(content: bytes) -> Command:
    """Decode a command set."""
    command: dict[int, bytes] = {}
    at = 0
    while at + 8 <= len(content):
        _, element, length = struct.unpack_from("<HHI", content, at)
        command[element] = content[at + 8 : at + 8 + length]
        at += 8 + length
    return command


def number(command: Command, element: int) -> int:
    """Give an unsigned number of a command set; 0 when it is absent."""
    return int.from_bytes(command.get(element, b""), "little")


def padded(text: str, filler: bytes) -> bytes:
    """Encode to an even length."""
    content = text.encode()
    return content + filler * (len(content) % 2)
