"""Messages as they arrive: PDVs put together, Data Sets streamed away. PS3.7 Section 6.3, PS3.8 Annex E.

Owns the bounds of a message in memory. A C-STORE's Data Set goes piece by
piece to the spool and never stays here. Refuses to decide what is answered.
"""

import logging
import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, cast

from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.dimse_primitives import DimseServiceType
from pynetdicom.pdu_primitives import P_DATA

from pacs.association.commands import (
    C_CANCEL,
    NO_DATA_SET,
    RESPONSE_BIT,
    CommandRefused,
    decode_command,
    encode_command,
    number,
    operation_of,
)
from pacs.association.message import Message, Operation
from pacs.association.negotiation import Agreed
from pacs.association.pdu import Pdv, ReceivedData
from pacs.core.ports import Incoming

LOGGER = logging.getLogger("pacs.association")


class MessageRefused(Exception):
    """The peer breaks the rules of message exchange, or a bound; the text is fixed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeBounds:
    """What one association may make us hold."""

    command_bytes: int
    identifier_bytes: int
    queued_messages: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """One whole message. ``incoming`` is entered already; who takes it leaves it."""

    context: Agreed
    command: Mapping[str, object]
    incoming: Incoming | None = None
    data: bytes = field(default=b"", repr=False)

    @property
    def message_id(self) -> int:
        """Message ID (0000,0110)."""
        return number(self.command, "MessageID")

    def discard(self) -> None:
        """Leave what was received without keeping it."""
        if self.incoming is not None:
            self.incoming.__exit__(None, None, None)


BeginStore = Callable[[Agreed, Mapping[str, object]], Incoming | None]
"""Begins the file of a C-STORE; ``None`` drops its Data Set, so that it can be refused."""


class MessageAssembler:
    """Puts one message at a time together."""

    def __init__(
        self, contexts: Mapping[int, Agreed], bounds: IntakeBounds, begin_store: BeginStore
    ) -> None:
        self._contexts = contexts
        self._bounds = bounds
        self._begin_store = begin_store
        self._reset()

    def _reset(self) -> None:
        self._context: Agreed | None = None
        self._encoded = bytearray()
        self._command: dict[str, object] | None = None
        self._incoming: Incoming | None = None
        self._keeps_data = False
        self._data = bytearray()

    @property
    def partial(self) -> bool:
        """Tell whether a message has begun and not ended."""
        return self._context is not None

    def discard(self) -> None:
        """Forget the message that has begun; its file is removed."""
        incoming, self._incoming = self._incoming, None
        self._reset()
        if incoming is not None:
            incoming.__exit__(None, None, None)

    def take(self, pdv: Pdv) -> Arrived | None:
        """Take the next PDV. Raises ``MessageRefused`` or ``CommandRefused``."""
        context = self._contexts.get(pdv.context_id)
        if context is None:
            raise MessageRefused("presentation context was not accepted")
        if self._context is not None and self._context is not context:
            raise MessageRefused("presentation context changes within a message")
        self._context = context
        return self._take_command(pdv) if pdv.is_command else self._take_data(pdv)

    def _take_command(self, pdv: Pdv) -> Arrived | None:
        if self._command is not None:
            raise MessageRefused("command where a Data Set was announced")
        self._encoded += pdv.value
        if len(self._encoded) > self._bounds.command_bytes:
            raise MessageRefused("command set is too large")
        if not pdv.is_last:
            return None
        self._command = decode_command(bytes(self._encoded))
        if number(self._command, "CommandDataSetType") == NO_DATA_SET:
            return self._complete()
        self._begin_data()
        return None

    def _begin_data(self) -> None:
        assert self._command is not None and self._context is not None
        if operation_of(self._command) is Operation.C_STORE:
            self._incoming = self._begin_store(self._context, self._command)
        else:
            self._keeps_data = True

    def _take_data(self, pdv: Pdv) -> Arrived | None:
        if self._command is None:
            raise MessageRefused("Data Set before its command")
        if self._incoming is not None:
            self._incoming.write(pdv.value)
        elif self._keeps_data:
            if len(self._data) + len(pdv.value) > self._bounds.identifier_bytes:
                raise MessageRefused("identifier is too large")
            self._data += pdv.value
        return self._complete() if pdv.is_last else None

    def _complete(self) -> Arrived:
        assert self._command is not None and self._context is not None
        arrived = Arrived(
            context=self._context,
            command=self._command,
            incoming=self._incoming,
            data=bytes(self._data),
        )
        self._reset()
        return arrived


class Refuser(Protocol):
    """The upper layer, as far as the intake needs it."""

    def refuse(self, reason: int = 0) -> None:
        """Abort as the service provider."""


class Intake(DIMSEServiceProvider):
    """Takes P-DATA from the upper layer's thread, hands messages to the association's.

    Requests wait in an inbox of bounded length. Responses to our own requests
    go to pynetdicom's ``msg_queue``, where sub-operations read them.
    """

    def __init__(self, association: Association, bounds: IntakeBounds) -> None:
        super().__init__(association)
        self._bounds = bounds
        self._inbox: queue.Queue[Arrived | Message | None] = queue.Queue()
        self._pending: dict[int, bool] = {}
        self._waiting = 0
        self._lock = threading.RLock()
        self._assembler: MessageAssembler | None = None

    def open(self, contexts: Mapping[int, Agreed], begin_store: BeginStore) -> None:
        """Begin to take messages on the accepted contexts."""
        self._assembler = MessageAssembler(contexts, self._bounds, begin_store)

    def close(self) -> None:
        """Take nothing more, and leave everything that was received and not served."""
        with self._lock:
            assembler, self._assembler = self._assembler, None
            if assembler is not None:
                assembler.discard()
            while not self._inbox.empty():
                item = self._inbox.get_nowait()
                if isinstance(item, Arrived):
                    item.discard()

    @property
    def within_message(self) -> bool:
        """Tell whether a message has begun to arrive and has not ended."""
        assembler = self._assembler
        return assembler is not None and assembler.partial

    @property
    def idle(self) -> bool:
        """Tell whether nothing is waiting or arriving."""
        return self._inbox.empty() and not self.within_message

    def wake(self) -> None:
        """Let ``next`` return."""
        self._inbox.put(None)

    def post(self, message: Message) -> None:
        """Put a message of ours in line with the peer's requests."""
        self._inbox.put(message)

    def next(self, timeout_s: float) -> Arrived | Message | None:
        """Wait for what is to be done next; ``None`` when there may be something else to see."""
        try:
            item = self._inbox.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if isinstance(item, Arrived):
            with self._lock:
                self._waiting -= 1
        return item

    def is_cancelled(self, message_id: int) -> bool:
        """Tell whether a C-CANCEL came for a request that is waiting or being served."""
        return self._pending.get(message_id, False)

    def finished(self, message_id: int) -> None:
        """Forget a request that was answered; a C-CANCEL for it is late and means nothing."""
        with self._lock:
            self._pending.pop(message_id, None)

    def receive_primitive(self, primitive: ReceivedData) -> None:  # type: ignore[override]  # the upper layer hands ours over
        """Take one P-DATA-TF. What breaks the rules costs the association."""
        with self._lock:
            if self._assembler is None:
                return
            try:
                for pdv in primitive.pdvs:
                    arrived = self._assembler.take(pdv)
                    if arrived is not None:
                        self._route(arrived)
            except (MessageRefused, CommandRefused) as refused:
                LOGGER.info("message-refused why=%s", refused)
                self._refuse()

    def _refuse(self) -> None:
        upper_layer: Refuser = self.dul  # type: ignore[assignment] # ours is an UpperLayer
        upper_layer.refuse()

    def _route(self, arrived: Arrived) -> None:
        field = number(arrived.command, "CommandField")
        if field == C_CANCEL:
            cancelled = number(arrived.command, "MessageIDBeingRespondedTo")
            if cancelled in self._pending:
                self._pending[cancelled] = True
        elif field & RESPONSE_BIT:
            self._take_response(arrived)
        else:
            self._take_request(arrived)

    def _take_request(self, arrived: Arrived) -> None:
        if self._waiting >= self._bounds.queued_messages:
            arrived.discard()
            raise MessageRefused("too many requests are waiting")
        self._waiting += 1
        self._pending[arrived.message_id] = False
        self._inbox.put(arrived)

    def _take_response(self, arrived: Arrived) -> None:
        if self.msg_queue.qsize() >= self._bounds.queued_messages:
            raise MessageRefused("too many responses are waiting")
        self.msg_queue.put((arrived.context.context_id, _primitive_of(arrived)))


def _primitive_of(arrived: Arrived) -> DimseServiceType:
    """Make pynetdicom's primitive of a response, which is what sub-operations read."""
    carrier = P_DATA()
    pdvs = carrier.presentation_data_value_list
    pdvs.append((arrived.context.context_id, b"\x03" + encode_command(arrived.command)))
    if arrived.data:
        pdvs.append((arrived.context.context_id, b"\x02" + arrived.data))
    message = DIMSEMessage()
    try:
        message.decode_msg(carrier)
        return cast(DimseServiceType, message.message_to_primitive())
    except Exception:  # noqa: BLE001 - pynetdicom raises whatever a response's values provoke
        raise MessageRefused("response cannot be understood") from None
