"""Responses of one request on their way out: encoded, and gathered where they follow at once. PS3.7 Section 9.

Owns the command set of a response and how long one may wait for the next.
Refuses to know any service class: who answers says what follows at once.
"""

from typing import Final

from pacs.association.commands import (
    NO_DATA_SET,
    RESPONSE_BIT,
    WITH_DATA_SET,
    encode_command,
    number,
    operation_of,
    text,
)
from pacs.association.connection import Piece
from pacs.association.exchange import Exchange
from pacs.association.identifiers import encode_identifier
from pacs.association.intake import Arrived
from pacs.association.message import Operation, Response
from pacs.association.pdu import COMMAND

PENDING: Final = frozenset({0xFF00, 0xFF01})
"""More responses follow, PS3.7 Annex C.2. Every other status is final, a Warning too: 0xB001 of the
Repository Query "conveys the end of Pending responses" (PS3.4 Section C.6.4)."""
NORMALIZED: Final = frozenset(one for one in Operation if one.value.startswith("N-"))
GATHERED_RESPONSES: Final = 8
"""So many at most before the peer is looked at, who may want no more of them."""
GATHERED_BYTES: Final = 65_536
_ECHOED = ("EventTypeID", "ActionTypeID")


class Responses:
    """Sends the responses to one request; those that follow at once leave with the next."""

    def __init__(self, exchange: Exchange, arrived: Arrived) -> None:
        self._exchange = exchange
        self._arrived = arrived
        self._context_id = arrived.context.context_id
        self._commands: dict[tuple[int, bool], bytes] = {}
        self._waiting: list[Piece] = []
        self._count = self._bytes = 0

    def send(self, response: Response) -> None:
        """Send a response, and before it what waits. Raises ``PeerUnreachable``.

        Raises whatever pydicom makes of values that do not fit, with nothing of the response sent.
        """
        command, data = self._encoded(response)
        self._waiting += self._exchange.fragments(self._context_id, COMMAND, command)
        if data:
            self._waiting += self._exchange.fragments(self._context_id, 0, data)
        self._count += 1
        self._bytes += len(data)
        full = self._count >= GATHERED_RESPONSES or self._bytes >= GATHERED_BYTES
        if full or not response.more_at_once:
            self._flush(pending=response.status in PENDING)

    def _flush(self, *, pending: bool) -> None:
        waiting, self._waiting = self._waiting, []
        bare = self._bytes == 0
        self._count = self._bytes = 0
        if pending:
            self._exchange.look()
        if pending and bare:  # a C-GET's: its next C-STORE goes the same way
            self._exchange.send_along(waiting)
        else:
            self._exchange.send_pieces(waiting)

    def _encoded(self, response: Response) -> tuple[bytes, bytes]:
        """Encode; the command of a match is the same for all of them."""
        if not response.more_at_once:
            return encode_response(self._arrived, response)
        data = _data(self._arrived, response)
        key = (response.status, bool(data))
        command = self._commands.get(key)
        if command is None:
            command = self._commands[key] = _command(self._arrived, response, with_data=bool(data))
        return command, data


def encode_response(arrived: Arrived, response: Response) -> tuple[bytes, bytes]:
    """Encode command set and Data Set of a response."""
    data = _data(arrived, response)
    return _command(arrived, response, with_data=bool(data)), data


def _data(arrived: Arrived, response: Response) -> bytes:
    if response.identifier is None:
        return b""
    return encode_identifier(response.identifier, arrived.context.transfer_syntax)


def _command(arrived: Arrived, response: Response, *, with_data: bool) -> bytes:
    asked = arrived.command
    operation = operation_of(asked)
    command: dict[str, object] = {
        "AffectedSOPClassUID": sop_class_of(arrived),
        "CommandField": number(asked, "CommandField") | RESPONSE_BIT,
        "MessageIDBeingRespondedTo": arrived.message_id,
        "Status": response.status,
        "ErrorComment": response.comment[:64] or None,
        "OffendingElement": response.offending_elements or None,
        "NumberOfRemainingSuboperations": response.remaining,
        "NumberOfCompletedSuboperations": response.completed,
        "NumberOfFailedSuboperations": response.failed,
        "NumberOfWarningSuboperations": response.warning,
    }
    if operation in NORMALIZED or operation is Operation.C_STORE:
        instance = text(asked, "AffectedSOPInstanceUID", "RequestedSOPInstanceUID")
        command["AffectedSOPInstanceUID"] = instance or None
        command.update({key: asked[key] for key in _ECHOED if key in asked})
    command.update(response.fields)
    command["CommandDataSetType"] = WITH_DATA_SET if with_data else NO_DATA_SET
    return encode_command(command)


def sop_class_of(arrived: Arrived) -> str:
    """The SOP Class a request names, or its context's where it names none."""
    named = text(arrived.command, "AffectedSOPClassUID", "RequestedSOPClassUID")
    return named or arrived.context.abstract_syntax
