"""A Storage SCP of the benchmark's own that takes one transfer syntax, answers at once and costs little.

It serves destinations that DCMTK's storescp cannot be: those that know HTJ2K.
It keeps Data Sets in memory, and speaks just enough of PS3.8 Section 9.3 and
PS3.7 Section 9.3.1 to be sent to.
"""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from bench import dimse
from bench.servers import LOOPBACK

C_STORE_RSP = 0x8001
MESSAGE_ID_RESPONDED_TO, AFFECTED_SOP_INSTANCE_UID = 0x0120, 0x1000
PRESENTATION_CONTEXT, TRANSFER_SYNTAX, CONTEXT_ANSWER = 0x20, 0x40, 0x21
ACCEPTED, SYNTAXES_UNSUPPORTED = 0, 4
FIXED_BYTES = 68
"""Of an A-ASSOCIATE-RQ before its items."""


@dataclass(slots=True, kw_only=True)
class Sink:
    """One listening destination, and what it took since that was last cleared."""

    port: int
    transfer_syntax_uid: str
    taken: list[bytes] = field(default_factory=list)


@contextmanager
def sinking(transfer_syntax_uid: str) -> Iterator[Sink]:
    """Listen until the block ends, a thread for each association."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        sink = Sink(port=listener.getsockname()[1], transfer_syntax_uid=transfer_syntax_uid)
        threading.Thread(target=_listen, args=(listener, sink), daemon=True).start()
        try:
            yield sink
        finally:
            with suppress(OSError):  # wakes who waits in accept
                listener.shutdown(socket.SHUT_RDWR)


def _listen(listener: socket.socket, sink: Sink) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:  # closed
            return
        threading.Thread(target=_serve, args=(connection, sink), daemon=True).start()


def _serve(connection: socket.socket, sink: Sink) -> None:
    with connection, connection.makefile("rb", buffering=dimse.MAX_PDU_BYTES) as incoming:
        connection.settimeout(dimse.TIMEOUT_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        command: dimse.Command = {}
        pieces: list[bytes] = []
        while (received := _pdu(incoming.read)) is not None:
            kind, body = received
            if kind == dimse.ASSOCIATE_RQ:
                connection.sendall(accept(body, sink.transfer_syntax_uid))
            elif kind == dimse.P_DATA:
                for flags, piece in dimse.fragments(body):
                    pieces.append(piece)
                    if not flags & dimse.LAST:
                        continue
                    whole, pieces = b"".join(pieces), []
                    if flags & dimse.COMMAND:
                        command = dimse.decode_command(whole)
                        continue
                    sink.taken.append(whole)
                    connection.sendall(_stored(command, context_id=body[4]))
            elif kind == dimse.RELEASE_RQ:
                connection.sendall(dimse.pdu(dimse.RELEASE_RP, bytes(4)))
            else:
                return


def _pdu(read: Callable[[int], bytes]) -> tuple[int, bytes] | None:
    try:
        header = read(6)
        if len(header) < 6:
            return None
        kind, length = struct.unpack(">BxI", header)
        return kind, read(length)
    except OSError:
        return None


def accept(request: bytes, transfer_syntax_uid: str) -> bytes:
    """Answer an A-ASSOCIATE-RQ (PS3.8 Section 9.3.3): the contexts that propose this syntax."""
    syntax = transfer_syntax_uid.encode()
    answers = b""
    for kind, content in items(request[FIXED_BYTES:]):
        if kind != PRESENTATION_CONTEXT:
            continue
        proposed = [uid for each, uid in items(content[4:]) if each == TRANSFER_SYNTAX]
        taken = syntax in [one.rstrip(b"\0") for one in proposed]
        answer = struct.pack(">BxBx", content[0], ACCEPTED if taken else SYNTAXES_UNSUPPORTED)
        answers += dimse.item(CONTEXT_ANSWER, answer + dimse.item(TRANSFER_SYNTAX, syntax))
    user = dimse.item(0x51, struct.pack(">I", dimse.MAX_PDU_BYTES)) + dimse.item(0x52, b"2.25.1")
    every = dimse.item(0x10, b"1.2.840.10008.3.1.1.1") + answers + dimse.item(0x50, user)
    return dimse.pdu(dimse.ASSOCIATE_AC, request[:FIXED_BYTES] + every)


def items(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and content of each item.

    Examples
    --------
    >>> list(items(bytes([0x10, 0, 0, 2]) + b"ab" + bytes([0x20, 0, 0, 0])))
    [(16, b'ab'), (32, b'')]
    """
    at = 0
    while at + 4 <= len(body):
        kind, length = struct.unpack_from(">BxH", body, at)
        yield kind, body[at + 4 : at + 4 + length]
        at += 4 + length


def _stored(command: dimse.Command, *, context_id: int) -> bytes:
    """Make a C-STORE-RSP of Success (PS3.7 Section 9.3.1.2)."""
    answer = {
        dimse.AFFECTED_SOP_CLASS_UID: command[dimse.AFFECTED_SOP_CLASS_UID],
        dimse.COMMAND_FIELD: struct.pack("<H", C_STORE_RSP),
        MESSAGE_ID_RESPONDED_TO: command[dimse.MESSAGE_ID],
        dimse.DATA_SET_TYPE: struct.pack("<H", dimse.NO_DATA_SET),
        dimse.STATUS: struct.pack("<H", 0),
        AFFECTED_SOP_INSTANCE_UID: command[AFFECTED_SOP_INSTANCE_UID],
    }
    content = dimse.encode_command(answer)
    header = struct.pack(">IBB", len(content) + 2, context_id, dimse.COMMAND | dimse.LAST)
    return dimse.pdu(dimse.P_DATA, header + content)
