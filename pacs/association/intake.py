"""Messages as they arrive: PDVs put together, Data Sets streamed away. PS3.7 Section 6.3, PS3.8 Annex E.

Owns the bounds of a message in memory. A C-STORE's Data Set goes piece by
piece to where it is kept and never stays here. Refuses to decide what is
answered.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from config.settings import Association
from pacs.association.commands import (
    NO_DATA_SET,
    CommandRefused,
    decode_command,
    number,
    operation_of,
)
from pacs.association.message import Operation
from pacs.association.negotiation import Agreed
from pacs.association.pdu import COMMAND, LAST, PduRefused

LOGGER = logging.getLogger("pacs.association")


class MessageRefused(PduRefused):
    """The peer breaks the rules of message exchange, or a bound; the text is fixed."""

    def __init__(self, why: str) -> None:
        super().__init__(0)
        self.args = (why,)


class Kept(Protocol):
    """Where a C-STORE's Data Set goes; of ``pacs.core.ports.Incoming`` what the intake needs."""

    def write(self, piece: memoryview) -> None:
        """Append a piece; never raises."""

    def __exit__(self, *exc_info: object) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """One whole message. ``incoming`` is entered already; who takes it leaves it."""

    context: Agreed
    command: Mapping[str, object]
    incoming: Kept | None = None
    data: bytes = field(default=b"", repr=False)

    @property
    def message_id(self) -> int:
        """Message ID (0000,0110)."""
        return number(self.command, "MessageID")

    @property
    def status(self) -> int:
        """Status (0000,0900) of a response."""
        return number(self.command, "Status", default=-1)

    def discard(self) -> None:
        """Leave what was received without keeping it."""
        if self.incoming is not None:
            self.incoming.__exit__(None, None, None)


BeginStore = Callable[[Agreed, Mapping[str, object]], Kept | None]
"""Begins the file of a C-STORE; ``None`` drops its Data Set, so that it can be refused."""


class MessageAssembler:
    """Puts one message at a time together."""

    def __init__(
        self, contexts: Mapping[int, Agreed], bounds: Association, begin_store: BeginStore
    ) -> None:
        self._contexts = contexts
        self._bounds = bounds
        self._begin_store = begin_store
        self._reset()

    def _reset(self) -> None:
        self._context: Agreed | None = None
        self._command: dict[str, object] | None = None
        self._incoming: Kept | None = None
        self._keeps_data = False
        self._held = bytearray()

    @property
    def partial(self) -> bool:
        """Tell whether a message has begun and not ended."""
        return self._context is not None

    def discard(self) -> None:
        """Forget the message that has begun; its file is removed."""
        incoming = self._incoming
        self._reset()
        if incoming is not None:
            incoming.__exit__(None, None, None)

    def take(self, context_id: int, control: int, piece: memoryview, ended: bool) -> Arrived | None:
        """Take the next piece of a PDV; give the message it completes. Raises ``MessageRefused``."""
        context = self._contexts.get(context_id)
        if context is None:
            raise MessageRefused("presentation context was not accepted")
        if self._context is not None and self._context is not context:
            raise MessageRefused("presentation context changes within a message")
        self._context = context
        last = ended and bool(control & LAST)
        if control & COMMAND:
            return self._take_command(context, piece, last)
        return self._take_data(context, piece, last)

    def _take_command(self, context: Agreed, piece: memoryview, last: bool) -> Arrived | None:
        if self._command is not None:
            raise MessageRefused("command where a Data Set was announced")
        self._hold(piece, self._bounds.max_command_bytes, "command set is too large")
        if not last:
            return None
        try:
            command = decode_command(bytes(self._held))
        except CommandRefused as refused:
            raise MessageRefused(str(refused)) from None
        if number(command, "CommandDataSetType") == NO_DATA_SET:
            self._reset()
            return Arrived(context=context, command=command)
        self._command = command
        self._held.clear()
        if operation_of(command) is Operation.C_STORE:
            self._incoming = self._begun(context, command)
        else:
            self._keeps_data = True
        return None

    def _begun(self, context: Agreed, command: Mapping[str, object]) -> Kept | None:
        try:
            return self._begin_store(context, command)
        except Exception as failure:  # noqa: BLE001 - the walk through a PDU must not be left halfway
            LOGGER.error("store-not-begun kind=%s", type(failure).__name__)
            raise MessageRefused("the store cannot begin") from None

    def _take_data(self, context: Agreed, piece: memoryview, last: bool) -> Arrived | None:
        if self._command is None:
            raise MessageRefused("Data Set before its command")
        if self._incoming is not None:
            self._incoming.write(piece)
        elif self._keeps_data:
            self._hold(piece, self._bounds.max_identifier_bytes, "identifier is too large")
        if not last:
            return None
        arrived = Arrived(
            context=context,
            command=self._command,
            incoming=self._incoming,
            data=bytes(self._held),
        )
        self._reset()
        return arrived

    def _hold(self, piece: memoryview, most_bytes: int, why: str) -> None:
        self._held += piece
        if len(self._held) > most_bytes:
            raise MessageRefused(why)
