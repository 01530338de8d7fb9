"""What we can ask on an association we opened: C-ECHO, C-FIND, C-MOVE, C-GET, C-STORE. PS3.7 Section 9.1.

Owns the pairing of requests with their responses. It refuses to judge a
Status beyond "is more to come", and lets no type of pynetdicom out.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset

from pacs.association.commands import (
    C_CANCEL,
    FIELD_OF,
    NO_DATA_SET,
    RESPONSE_BIT,
    encode_command,
    encode_request,
    number,
    operation_of,
    text,
)
from pacs.association.exchange import Exchange
from pacs.association.identifiers import decode_identifier, encode_identifier
from pacs.association.intake import Arrived
from pacs.association.landing import Landing, LandingPlace, Received
from pacs.association.message import Operation
from pacs.association.negotiation import Agreed
from pacs.association.reporting import Reporting
from pacs.association.sending import PRIORITY_MEDIUM, AssociationDelivery, Following
from pacs.core.errors import (
    CapacityExhausted,
    IdentifierInvalid,
    InstanceTooLarge,
    PacsError,
    PeerRefused,
)
from pacs.core.identifiers import SOPClassUID, TransferSyntaxUID
from pacs.core.ports import Delivery
from pacs.core.records import Originator, Payload, Progress

VERIFICATION = "1.2.840.10008.1.1"
PENDING = frozenset({0xFF00, 0xFF01})
"""PS3.4 Tables C.4-1 to C.4-3: matches, or sub-operations, are continuing."""

SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
CANNOT_UNDERSTAND = 0xC000
"""PS3.4 Table B.2-1, for the C-STORE sub-operations of our C-GET, where we are the SCP."""

NOT_EXPECTED = 0x0211
"""PS3.7 Annex C.5.25, Unrecognized Operation: a C-STORE outside a C-GET."""


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


class Requested:
    """An association we opened, for one thread and one operation at a time.

    Every method raises ``PeerUnreachable`` once the association has ended, and
    ``PeerRefused`` where the peer accepted no context for the SOP Class.
    """

    def __init__(self, exchange: Exchange, landings: "Landings", *, identifier_bytes: int) -> None:
        self._exchange = exchange
        self._landings = landings
        self._identifier_bytes = identifier_bytes
        self._delivery = AssociationDelivery(exchange)
        self._awaiting_response = False

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
        self,
        sop_class_uid: str,
        identifier: Dataset,
        folder: Path,
        received: Callable[[Received], None],
        *,
        max_instance_bytes: int,
    ) -> Iterator[RetrieveResponse]:
        """Have the peer send to us; yield each response. PS3.7 Section 9.1.3.

        Each instance is written to ``folder`` as it arrives and reported to
        ``received`` under its final name, its SOP Instance UID and ``.dcm``;
        what ``received`` raises ends the association.
        """
        self._landings.place = LandingPlace(folder=folder, max_bytes=max_instance_bytes)
        try:
            message_id, _ = self._request(Operation.C_GET, sop_class_uid, identifier)
            while self._awaiting_response:
                yield self._progress(self._response(Operation.C_GET, message_id, received))
        finally:
            self._landings.place = None

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

    def _response(
        self,
        operation: Operation,
        message_id: int,
        received: Callable[[Received], None] | None = None,
    ) -> Arrived:
        """Wait for the next response to ``message_id``, serving C-STOREs meanwhile."""
        while True:
            arrived = self._exchange.next_message()
            if operation_of(arrived.command) is Operation.C_STORE:
                self._take(arrived, received)
                continue
            asked = number(arrived.command, "MessageIDBeingRespondedTo", default=-1)
            answers = number(arrived.command, "CommandField") == FIELD_OF[operation] | RESPONSE_BIT
            if not answers or asked != message_id or arrived.status < 0:
                self._exchange.upper_layer.give_up(
                    "the peer answered with another message than expected"
                )
            self._awaiting_response = arrived.status in PENDING
            return arrived

    def _take(self, request: Arrived, received: Callable[[Received], None] | None) -> None:
        """Keep one instance and answer its C-STORE. PS3.4 Section C.4.3.3."""
        landing, status = request.incoming, NOT_EXPECTED
        if isinstance(landing, Landing) and received is not None:
            try:
                arrived = landing.keep()
            except (CapacityExhausted, InstanceTooLarge):
                status = OUT_OF_RESOURCES
            except PacsError:
                status = CANNOT_UNDERSTAND
            else:
                status = SUCCESS
                received(arrived)
        else:
            request.discard()
        command = encode_command(
            {
                "CommandField": FIELD_OF[Operation.C_STORE] | RESPONSE_BIT,
                "MessageIDBeingRespondedTo": request.message_id,
                "CommandDataSetType": NO_DATA_SET,
                "AffectedSOPClassUID": text(request.command, "AffectedSOPClassUID") or None,
                "AffectedSOPInstanceUID": text(request.command, "AffectedSOPInstanceUID") or None,
                "Status": status,
            }
        )
        self._exchange.send(request.context.context_id, command)

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


class Landings:
    """Begins the files of C-STOREs while a C-GET says where; outside one their Data Sets are dropped."""

    place: LandingPlace | None = None

    def __call__(self, context: Agreed, command: Mapping[str, object]) -> Landing | None:
        return None if self.place is None else self.place.begin(context, command)


def _encoded(identifier: Dataset, context: Agreed) -> bytes:
    try:
        return encode_identifier(identifier, context.transfer_syntax)
    except Exception as failure:
        raise IdentifierInvalid("the identifier cannot be encoded") from failure
