"""C-STORE out: a Data Set streamed from its file, never held in memory. PS3.7 Section 9.1.1.

Owns the command, the fragments and the reading of the response; both a C-MOVE
(we associated) and a C-GET (the peer did, PS3.4 Section C.4.3) send through
it. While a response is awaited the next file is opened and its beginning
read. It refuses to choose what is sent or to convert it: a payload goes out
only where its own transfer syntax was accepted.
"""

import mmap
import os
import time
from collections.abc import Callable
from typing import Final

from pacs.association.commands import encode_request, number
from pacs.association.connection import PIECES_AT_ONCE, Piece
from pacs.association.exchange import Exchange
from pacs.association.message import Operation
from pacs.association.pdu import COMMAND, LAST, P_DATA_HEADER_BYTES, p_data_header
from pacs.association.rate import Rate
from pacs.core.errors import InstanceNotFound, PeerLeft, PeerRefused, PeerUnreachable
from pacs.core.identifiers import SOPClassUID, TransferSyntaxUID
from pacs.core.records import Originator, Payload, SendOutcome

READ_AHEAD_BYTES: Final = 1_048_576
"""Of a file, what is read and written at once; at least one fragment fits."""

PRIORITY_MEDIUM: Final = 0x0000
SUCCESS: Final = 0x0000
WARNINGS: Final = frozenset({0x0001, 0x0107, 0x0116, 0xB000, 0xB006, 0xB007})
"""PS3.4 Table B.2-1 and PS3.7 Annex C.4."""

Following = Callable[[], Payload | None]


class AssociationDelivery:
    """An open association as a way to a receiver; implements ``pacs.core.sending_ports.Delivery``."""

    def __init__(self, exchange: Exchange, rate: Rate | None = None) -> None:
        self._exchange = exchange
        self._rate = rate
        self._broken = False
        self.last_status: int | None = None
        self._batch = Batch(
            exchange.fragment_bytes, READ_AHEAD_BYTES if rate is None else rate.step_bytes
        )
        self._ahead: Source | None = None
        self._contexts: dict[tuple[str, str], int] = {}
        self._accepted: dict[str, tuple[TransferSyntaxUID, ...]] = {}
        for one in exchange.contexts.values():
            if one.as_scu and (one.abstract_syntax, one.transfer_syntax) not in self._contexts:
                self._contexts[one.abstract_syntax, one.transfer_syntax] = one.context_id
                before = self._accepted.get(one.abstract_syntax, ())
                syntax = TransferSyntaxUID(one.transfer_syntax)
                self._accepted[one.abstract_syntax] = (*before, syntax)

    @property
    def broken(self) -> bool:
        """Tell whether the way is closed for good; then the association cannot be released."""
        return self._broken

    def accepted(self, sop_class_uid: SOPClassUID) -> tuple[TransferSyntaxUID, ...]:
        """List the accepted transfer syntaxes in which we may act as SCU, in context order."""
        return self._accepted.get(sop_class_uid, ())

    def close(self) -> None:
        """Let go of the file that was opened ahead."""
        self._exchange.more_is_ready = False
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.close()

    def abort(self) -> None:
        """Have the association's thread abort: a ``send`` under way raises ``PeerUnreachable``."""
        self._exchange.upper_layer.ask_abort()

    def send(
        self,
        payload: Payload,
        originator: Originator | None,
        following: Following | None = None,
    ) -> SendOutcome:
        """Send one Data Set. Raises ``PeerUnreachable`` when the way is closed for good.

        A payload that cannot be read, or that no accepted context fits, is a
        failed sub-operation; the way stays open.
        """
        self.last_status = None
        try:
            status = self.last_status = self.store(payload, originator, following)
        except (InstanceNotFound, PeerRefused):
            return SendOutcome.FAILURE
        if status == SUCCESS:
            return SendOutcome.SUCCESS
        return SendOutcome.WARNING if status in WARNINGS else SendOutcome.FAILURE

    def store(
        self,
        payload: Payload,
        originator: Originator | None,
        following: Following | None = None,
    ) -> int:
        """Send one Data Set, wait for the response and give the peer's Status.

        Raises ``PeerUnreachable`` when the association died or nothing came
        within the DIMSE timeout, ``PeerLeft`` when it had died before, ``PeerRefused`` where no context has the
        payload's class and syntax, ``InstanceNotFound`` where its file cannot
        be opened or has another length; the last two leave the association
        usable.
        """
        source = self._opened(payload)
        try:
            message_id = self._send(source, originator)
            asked_s = time.monotonic()
            source.close()
            self._look_ahead(following)
            return self._await_status(message_id, asked_s)
        except PeerUnreachable:
            self._broken = True
            self.close()
            raise
        finally:
            source.close()

    def _opened(self, payload: Payload) -> "Source":
        """Take the file opened ahead if it is this one, or open it now."""
        ahead = self._ahead
        if ahead is not None and ahead.payload is payload:
            self._ahead, self._exchange.more_is_ready = None, False
            return ahead
        self.close()
        return Source(payload, self._context_id(payload), self._batch)

    def _look_ahead(self, following: Following | None) -> None:
        """Open what comes next, and read its beginning into the buffer that is free again."""
        payload = None if following is None else following()
        if payload is None:
            return
        try:
            self._ahead = Source(payload, self._context_id(payload), self._batch)
            self._ahead.read_ahead()
        except (InstanceNotFound, PeerRefused, EOFError, OSError):
            self.close()  # found again, and answered for, when its turn comes
        else:
            self._exchange.more_is_ready = True

    def _context_id(self, payload: Payload) -> int:
        found = self._contexts.get((payload.sop_class_uid, payload.transfer_syntax_uid))
        if found is None:
            raise PeerRefused(
                f"the peer accepted no presentation context for {payload.sop_class_uid}"
                f" in {payload.transfer_syntax_uid}"
            )
        return found

    def _send(self, source: "Source", originator: Originator | None) -> int:
        """Send the command and the Data Set behind it; give the Message ID.

        A message that was begun must be completed, so a file that ends early
        or cannot be read further costs the association.
        """
        exchange = self._exchange
        if not source.is_read_ahead:  # else the peer was heard a moment ago
            self._require_peer()
        message_id = exchange.next_message_id()
        command = encode_request(
            Operation.C_STORE,
            source.payload.sop_class_uid,
            message_id=message_id,
            fields={  # PS3.7 Table 9.3-1
                "Priority": PRIORITY_MEDIUM,
                "AffectedSOPInstanceUID": source.payload.sop_instance_uid,
                "MoveOriginatorApplicationEntityTitle": originator and originator.ae_title,
                "MoveOriginatorMessageID": originator and originator.message_id,
            },
            with_data_set=True,
        )
        pieces: list[Piece] = exchange.fragments(source.context_id, COMMAND, command)
        while pieces or not source.ended:
            try:
                pieces.append(source.read())
            except EOFError:
                exchange.upper_layer.give_up("the instance's file became shorter while it was sent")
            except OSError as failure:
                exchange.upper_layer.give_up(
                    f"the instance's file cannot be read: {failure.strerror}"
                )
            if self._rate is not None:
                self._await_turn(self._rate, sum(map(len, pieces)))
            exchange.send_pieces(pieces)
            pieces = []
        return message_id

    def _require_peer(self) -> None:
        """Look whether the peer is still there. Raises ``PeerLeft``."""
        try:
            self._exchange.look()
        except PeerUnreachable as failure:
            raise PeerLeft(str(failure)) from failure

    def _await_turn(self, rate: Rate, size_bytes: int) -> None:
        """Wait until the peer's rate lets so much out; whatever happens meanwhile is noticed at once."""
        turn_s = rate.turn(size_bytes)
        while rest_s := rate.rest_s(turn_s):
            self._exchange.upper_layer.receive(rest_s)
            self._exchange.upper_layer.require()

    def _await_status(self, message_id: int, asked_s: float) -> int:
        response = self._exchange.next_response(asked_s)
        answered = number(response.command, "MessageIDBeingRespondedTo", default=-1)
        if answered != message_id or response.status < 0:
            self._exchange.upper_layer.give_up(
                "the peer sent something else than its C-STORE response"
            )
        return response.status


class Source:
    """One payload's file, open, and its fragments batch by batch as they will travel."""

    def __init__(self, payload: Payload, context_id: int, batch: "Batch") -> None:
        self.payload = payload
        self.context_id = context_id
        self._batch = batch
        self._position = payload.offset
        self._read: memoryview | None = None
        try:
            self._file = os.open(payload.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as failure:
            raise InstanceNotFound(f"cannot open {payload.path}: {failure.strerror}") from failure
        size_bytes = os.fstat(self._file).st_size
        self._end = max(payload.offset, size_bytes)
        if payload.size_bytes not in (None, size_bytes):
            self.close()
            raise InstanceNotFound(f"{payload.path} does not have the length that was kept")

    @property
    def is_read_ahead(self) -> bool:
        """Tell whether the beginning lies in the buffer."""
        return self._read is not None

    @property
    def ended(self) -> bool:
        """Tell whether everything was read."""
        return self._position >= self._end

    def read_ahead(self) -> None:
        """Read the beginning before it is asked for. Raises as ``read``."""
        self._read = self.read()

    def read(self) -> memoryview:
        """Lay out the next batch. Raises ``EOFError`` where the file became shorter, ``OSError``."""
        read, self._read = self._read, None
        if read is not None:
            return read
        size = min(self._end - self._position, self._batch.capacity_bytes)
        ends = self._position + size >= self._end
        pieces = self._batch.fill(self._file, self._position, size, self.context_id, ends)
        self._position += size
        return pieces

    def close(self) -> None:
        """Close the file."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)


class Batch:
    """Some fragments of a file as they travel, each behind its headers, in one buffer."""

    def __init__(self, fragment_bytes: int, most_bytes: int = READ_AHEAD_BYTES) -> None:
        most_bytes = min(most_bytes, READ_AHEAD_BYTES)
        fragment_bytes = min(fragment_bytes, most_bytes)
        stride = P_DATA_HEADER_BYTES + max(1, fragment_bytes)
        count = min(max(1, most_bytes // stride), PIECES_AT_ONCE)
        self.capacity_bytes = count * max(1, fragment_bytes)
        self._fragment_bytes = max(1, fragment_bytes)
        self._view = memoryview(mmap.mmap(-1, count * stride))
        self._values = [
            self._view[P_DATA_HEADER_BYTES + at : stride + at]
            for at in range(0, count * stride, stride)
        ]

    def fill(self, file: int, position: int, size: int, context_id: int, ends: bool) -> memoryview:
        """Read ``size`` bytes, lay out their fragments. Raises ``EOFError`` where there are fewer."""
        whole, rest = divmod(size, self._fragment_bytes)
        values = self._values[:whole]
        if rest or not whole:
            values.append(self._values[whole][:rest])
        if os.preadv(file, values, position) < size:  # a regular file gives what it has
            raise EOFError
        at = 0
        for place, value in enumerate(values, 1):
            control = LAST if ends and place == len(values) else 0
            self._view[at : at + P_DATA_HEADER_BYTES] = p_data_header(
                context_id, control, len(value)
            )
            at += P_DATA_HEADER_BYTES + len(value)
        return self._view[:at]
