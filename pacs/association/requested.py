"""What we can ask on an association we opened: every DIMSE operation. PS3.7 Sections 9.1 and 10.1.

Owns the pairing of requests with their responses; what the peer asks meanwhile
is for ``answering``. It refuses to judge a Status beyond "is more to come", and lets no type of pynetdicom out.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pydicom.dataset import Dataset

from pacs.association.answering import Answering, Landings, OnRequest
from pacs.association.commands import (
    C_CANCEL,
    FIELD_OF,
    NO_DATA_SET,
    RESPONSE_BIT,
    encode_command,
    encode_request,
    fields_of,
    number,
    text,
)
from pacs.association.exchange import Exchange
from pacs.association.identifiers import decode_identifier, encode_identifier
from pacs.association.intake import Arrived
from pacs.association.message import Message, Operation
from pacs.association.negotiation import Agreed
from pacs.association.posts import encoded as encode_posted
from pacs.association.rate import Rate
from pacs.association.reporting import Reporting
from pacs.association.responses import PENDING
from pacs.association.sending import PRIORITY_MEDIUM, AssociationDelivery, Following
from pacs.core.errors import (
    IdentifierInvalid,
    PeerRefused,
)
from pacs.core.identifiers import SOPClassUID, TransferSyntaxUID
from pacs.core.ports import Receiver
from pacs.core.records import Originator, Payload, Progress
from pacs.core.sending_ports import Delivery

VERIFICATION = "1.2.840.10008.1.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrieveResponse:
    """One response to a C-MOVE or C-GET; counters the peer left out are 0."""

    status: int
    progress: Progress
    comment: str = ""

    @property
    def pending(self) -> bool:
        """Tell whether more responses follow."""
        return self.status in PENDING


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The peer's response to one message of ours; ``fields`` by DICOM keyword, without housekeeping."""

    status: int
    fields: Mapping[str, object]
    data_set: Dataset | None = field(default=None, repr=False)


class Requested:
    """An association we opened, for one thread and one operation at a time.

    Every method raises ``PeerUnreachable`` once the association has ended, and
    ``PeerRefused`` where the peer accepted no context for the SOP Class.
    """

    def __init__(
        self,
        exchange: Exchange,
        *,
        landings: Landings,
        on_request: OnRequest | None,
        identifier_bytes: int,
        rate: Rate | None = None,
    ) -> None:
        self._exchange = exchange
        self._landings = landings
        self._identifier_bytes = identifier_bytes
        self._delivery = AssociationDelivery(exchange, rate)
        self._awaiting_response = False
        exchange.serve = Answering(
            exchange, landings, on_request, identifier_bytes=identifier_bytes
        )

    @property
    def in_the_middle(self) -> bool:
        """Tell whether a response is outstanding: such an association can only be aborted."""
        return self._awaiting_response or self._delivery.broken

    def delivery(self) -> Delivery:
        """Give the way for C-STOREs on this association."""
        return self._delivery

    def accepted(self, sop_class_uid: str) -> tuple[TransferSyntaxUID, ...]:
        """List the transfer syntaxes the peer accepted for a SOP Class, in context order."""
        return self._delivery.accepted(SOPClassUID(sop_class_uid))

    def store(
        self,
        payload: Payload,
        originator: Originator | None = None,
        following: Following | None = None,
    ) -> int:
        """Send one Data Set and give the peer's Status; raises as the delivery's ``store``."""
        return self._delivery.store(payload, originator, following)

    def answer_all(self) -> None:
        """Answer what the peer has asked until now, before a release cuts it off."""
        self._exchange.look()
        while self._exchange.serve_waiting():
            continue

    def close(self) -> None:
        """Let go of what was opened ahead."""
        self._delivery.close()

    def echo(self) -> int:
        """Send a C-ECHO and give its Status. PS3.7 Section 9.1.5."""
        message_id, _ = self._request(Operation.C_ECHO, VERIFICATION)
        return self._response(Operation.C_ECHO, message_id).status

    def find(
        self, sop_class_uid: str, identifier: Dataset, *, cancel_after: int | None = None
    ) -> Iterator[tuple[int, Dataset | None]]:
        """Yield each response's Status and identifier as they come. PS3.7 Section 9.1.2.

        After ``cancel_after`` matches a C-CANCEL is sent; what the peer still
        sends before it obeys is yielded too.
        """
        message_id, context = self._request(Operation.C_FIND, sop_class_uid, identifier)
        matches = 0
        while True:
            response = self._response(Operation.C_FIND, message_id)
            yield response.status, self._decoded(response)
            if not self._awaiting_response:
                return
            matches += 1
            if matches == cancel_after:
                self._cancel(message_id, context)

    def move(
        self, sop_class_uid: str, identifier: Dataset, destination: str
    ) -> Iterator[RetrieveResponse]:
        """Have the peer send to ``destination``; yield each response. PS3.7 Section 9.1.4."""
        message_id, _ = self._request(
            Operation.C_MOVE, sop_class_uid, identifier, MoveDestination=destination
        )
        while self._awaiting_response:
            yield self._progress(self._response(Operation.C_MOVE, message_id))

    def get(
        self, sop_class_uid: str, identifier: Dataset, receiver: Receiver
    ) -> Iterator[RetrieveResponse]:
        """Have the peer send to us; yield each response. PS3.7 Section 9.1.3.

        Each instance goes to ``receiver`` as it arrives, and is answered once
        it has been taken. ``PeerUnreachable`` and what is no ``PacsError`` of what it
        raises ends the association, the rest is the peer's answer.
        """
        self._landings.receiver = receiver
        try:
            message_id, _ = self._request(Operation.C_GET, sop_class_uid, identifier)
            while self._awaiting_response:
                yield self._progress(self._response(Operation.C_GET, message_id))
        finally:
            self._landings.receiver = None

    def ask(self, message: Message) -> Answer:
        """Send a message and give the response to it; made for the N- operations. PS3.7 Section 10.1.

        Raises ``PeerRefused`` also where no context was accepted with us in the
        role that asks: SCP for N-EVENT-REPORT, else SCU. Raises
        ``IdentifierInvalid`` for what cannot be encoded, ``InstanceUnreadable``
        for an answer that cannot be decoded; the association goes on then.
        """
        self._exchange.look()
        context = self._exchange.context_of(message)
        if context is None:
            named = message.context_uid or message.sop_class_uid
            raise PeerRefused(f"the peer accepted no presentation context for {named}")
        message_id = self._exchange.next_message_id()
        try:
            command, data = encode_posted(message, message_id, context)
        except Exception as failure:
            raise IdentifierInvalid("the message cannot be encoded") from failure
        self._exchange.send(context.context_id, command, data)
        self._awaiting_response = True
        response = self._response(message.operation, message_id)
        return Answer(
            status=response.status,
            fields=fields_of(response.command),
            data_set=self._decoded(response),
        )

    def serve(self, timeout_s: float) -> bool:
        """Wait until a request of the peer's has been answered; ``False`` when time is over first.

        For whoever opened the association with ``on_request`` and expects
        events on it (Storage Commitment, UPS, Print).
        """
        deadline_s = time.monotonic() + timeout_s
        while not self._exchange.serve_waiting():
            rest_s = deadline_s - time.monotonic()
            self._exchange.upper_layer.require()
            if rest_s <= 0:
                return False
            self._exchange.upper_layer.receive(rest_s)
        return True

    def reporting(self) -> Reporting:
        """Give the way for N-EVENT-REPORTs, where the peer let us take the SCP role."""
        return Reporting(self._exchange)

    def _request(
        self,
        operation: Operation,
        sop_class_uid: str,
        identifier: Dataset | None = None,
        **fields: object,
    ) -> tuple[int, Agreed]:
        self._exchange.look()
        context = self._context(sop_class_uid)
        message_id = self._exchange.next_message_id()
        data = b""
        if identifier is not None:
            fields["Priority"] = PRIORITY_MEDIUM
            data = _encoded(identifier, context)
        command = encode_request(
            operation,
            sop_class_uid,
            message_id=message_id,
            fields=fields,
            with_data_set=identifier is not None,
        )
        self._exchange.send(context.context_id, command, data)
        self._awaiting_response = True
        return message_id, context

    def _context(self, sop_class_uid: str) -> Agreed:
        for context in self._exchange.contexts.values():
            if context.as_scu and context.abstract_syntax == sop_class_uid:
                return context
        raise PeerRefused(f"the peer accepted no presentation context for {sop_class_uid}")

    def _response(self, operation: Operation, message_id: int) -> Arrived:
        """Wait for the next response to ``message_id``; what the peer asks meanwhile is answered."""
        arrived = self._exchange.next_response(with_sub_operations=operation is Operation.C_GET)
        asked = number(arrived.command, "MessageIDBeingRespondedTo", default=-1)
        answers = number(arrived.command, "CommandField") == FIELD_OF[operation] | RESPONSE_BIT
        if not answers or asked != message_id or arrived.status < 0:
            self._exchange.upper_layer.give_up(
                "the peer answered with another message than expected"
            )
        self._awaiting_response = arrived.status in PENDING
        return arrived

    def _cancel(self, message_id: int, context: Agreed) -> None:
        """Send a C-CANCEL. PS3.7 Section 9.3.2.3."""
        command = {
            "CommandField": C_CANCEL,
            "MessageIDBeingRespondedTo": message_id,
            "CommandDataSetType": NO_DATA_SET,
        }
        self._exchange.send(context.context_id, encode_command(command))

    def _decoded(self, response: Arrived) -> Dataset | None:
        if not response.data:
            return None
        return decode_identifier(
            response.data, response.context.transfer_syntax, most_bytes=self._identifier_bytes
        )

    def _progress(self, response: Arrived) -> RetrieveResponse:
        identifier, command = self._decoded(response), response.command
        failed_uids = identifier.get("FailedSOPInstanceUIDList") if identifier is not None else None
        listed = [failed_uids] if isinstance(failed_uids, str) else list(failed_uids or ())
        return RetrieveResponse(
            status=response.status,
            comment=text(command, "ErrorComment"),
            progress=Progress(
                remaining=number(command, "NumberOfRemainingSuboperations"),
                completed=number(command, "NumberOfCompletedSuboperations"),
                failed=number(command, "NumberOfFailedSuboperations"),
                warning=number(command, "NumberOfWarningSuboperations"),
                failed_sop_instance_uids=tuple(str(uid) for uid in listed),
            ),
        )


def _encoded(identifier: Dataset, context: Agreed) -> bytes:
    try:
        return encode_identifier(identifier, context.transfer_syntax)
    except Exception as failure:
        raise IdentifierInvalid("the identifier cannot be encoded") from failure
