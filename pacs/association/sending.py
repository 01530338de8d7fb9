"""C-STORE out: a Data Set streamed from its file, never held in memory. PS3.7 Section 9.1.1.

Owns the command, the fragments and the reading of the response; both a C-MOVE
(we associated) and a C-GET (the peer did, PS3.4 Section C.4.3) send through
it. It refuses to choose what is sent or to convert it: a payload goes out
only where its own transfer syntax was accepted.
"""

import mmap
import os
from collections.abc import Sequence
from typing import Final

from pacs.association.commands import encode_request, number
from pacs.association.exchange import Exchange
from pacs.association.message import Operation
from pacs.association.pdu import COMMAND, LAST, P_DATA_HEADER_BYTES, p_data_header
from pacs.association.upper_layer import PIECES_AT_ONCE, Piece
from pacs.core.errors import InstanceNotFound, PeerRefused, PeerUnreachable
from pacs.core.identifiers import SOPClassUID, TransferSyntaxUID
from pacs.core.records import Originator, Payload, SendOutcome

READ_AHEAD_BYTES: Final = 1_048_576
"""Of a file, what is read and written at once; at least one fragment fits."""

PRIORITY_MEDIUM: Final = 0x0000
SUCCESS: Final = 0x0000
WARNINGS: Final = frozenset({0x0001, 0x0107, 0x0116, 0xB000, 0xB006, 0xB007})
"""PS3.4 Table B.2-1 and PS3.7 Annex C.4."""


class AssociationDelivery:
    """An open association as a way to a receiver; implements ``pacs.core.ports.Delivery``."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._broken = False
        self._batch = Batch(exchange.fragment_bytes)

    @property
    def broken(self) -> bool:
        """Tell whether the way is closed for good; then the association cannot be released."""
        return self._broken

    def accepted(self, sop_class_uid: SOPClassUID) -> tuple[TransferSyntaxUID, ...]:
        """List the accepted transfer syntaxes in which we may act as SCU, in context order."""
        found = [
            TransferSyntaxUID(context.transfer_syntax)
            for context in self._exchange.contexts.values()
            if context.as_scu and context.abstract_syntax == sop_class_uid
        ]
        return tuple(dict.fromkeys(found))

    def send(self, payload: Payload, originator: Originator | None) -> SendOutcome:
        """Send one Data Set. Raises ``PeerUnreachable`` when the way is closed for good.

        A payload that cannot be read, or that no accepted context fits, is a
        failed sub-operation; the way stays open.
        """
        try:
            status = self.store(payload, originator)
        except (InstanceNotFound, PeerRefused):
            return SendOutcome.FAILURE
        if status == SUCCESS:
            return SendOutcome.SUCCESS
        return SendOutcome.WARNING if status in WARNINGS else SendOutcome.FAILURE

    def store(self, payload: Payload, originator: Originator | None) -> int:
        """Send one Data Set, wait for the response and give the peer's Status.

        Raises ``PeerUnreachable`` when the association died or nothing came
        within the DIMSE timeout, ``PeerRefused`` where no context has the
        payload's class and syntax, ``InstanceNotFound`` where its file cannot
        be opened; the last two leave the association usable.
        """
        context_id = self._context_id(payload)
        try:
            file = os.open(payload.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as failure:
            raise InstanceNotFound(f"cannot open {payload.path}: {failure.strerror}") from failure
        try:
            return self._store(file, payload, originator, context_id)
        except PeerUnreachable:
            self._broken = True
            raise
        finally:
            os.close(file)

    def _context_id(self, payload: Payload) -> int:
        for context in self._exchange.contexts.values():
            if (
                context.as_scu
                and context.abstract_syntax == payload.sop_class_uid
                and context.transfer_syntax == payload.transfer_syntax_uid
            ):
                return context.context_id
        raise PeerRefused(
            f"the peer accepted no presentation context for {payload.sop_class_uid}"
            f" in {payload.transfer_syntax_uid}"
        )

    def _store(
        self, file: int, payload: Payload, originator: Originator | None, context_id: int
    ) -> int:
        exchange = self._exchange
        exchange.look()
        message_id = exchange.next_message_id()
        command = encode_request(
            Operation.C_STORE,
            payload.sop_class_uid,
            message_id=message_id,
            fields={  # PS3.7 Table 9.3-1
                "Priority": PRIORITY_MEDIUM,
                "AffectedSOPInstanceUID": payload.sop_instance_uid,
                "MoveOriginatorApplicationEntityTitle": originator and originator.ae_title,
                "MoveOriginatorMessageID": originator and originator.message_id,
            },
            with_data_set=True,
        )
        self._send_file(
            file, payload.offset, context_id, exchange.fragments(context_id, COMMAND, command)
        )
        return self._await_status(message_id)

    def _send_file(self, file: int, start: int, context_id: int, first: Sequence[Piece]) -> None:
        """Send the command and the Data Set behind it.

        A message that was begun must be completed, so a file that ends early
        or cannot be read further costs the association.
        """
        position, end = start, max(start, os.fstat(file).st_size)
        upper_layer, ahead = self._exchange.upper_layer, first
        while True:
            size = min(end - position, self._batch.capacity_bytes)
            try:
                pieces = self._batch.fill(file, position, size, context_id, position + size >= end)
            except EOFError:
                upper_layer.give_up("the instance's file became shorter while it was sent")
            except OSError as failure:
                upper_layer.give_up(f"the instance's file cannot be read: {failure.strerror}")
            upper_layer.send([*ahead, pieces])
            position, ahead = position + size, ()
            if position >= end:
                return

    def _await_status(self, message_id: int) -> int:
        response = self._exchange.next_response()
        answered = number(response.command, "MessageIDBeingRespondedTo", default=-1)
        if answered != message_id or response.status < 0:
            self._exchange.upper_layer.give_up(
                "the peer sent something else than its C-STORE response"
            )
        return response.status


class Batch:
    """Some fragments of a file as they travel, each behind its headers, in one buffer."""

    def __init__(self, fragment_bytes: int) -> None:
        stride = P_DATA_HEADER_BYTES + max(1, fragment_bytes)
        count = min(max(1, READ_AHEAD_BYTES // stride), PIECES_AT_ONCE)
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
