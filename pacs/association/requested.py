"""What we can ask on an association we opened: C-ECHO, C-FIND, C-MOVE, C-GET, C-STORE. PS3.7 Section 9.1.

Owns the pairing of requests with their responses. It refuses to judge a
Status beyond "is more to come", and lets no type of pynetdicom out.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_CANCEL, C_ECHO, C_FIND, C_GET, C_MOVE, C_STORE
from pynetdicom.dsutils import decode, encode
from pynetdicom.presentation import PresentationContext

from config import settings
from pacs.association.exchange import give_up, receive, require_alive
from pacs.association.landing import Landing, LandingPlace, LandingProvider, Received
from pacs.association.sending import PRIORITY_MEDIUM, AssociationDelivery
from pacs.core.errors import (
    CapacityExhausted,
    IdentifierInvalid,
    InstanceTooLarge,
    InstanceUnreadable,
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

    def __init__(
        self, association: Association, provider: LandingProvider, bounds: settings.Association
    ) -> None:
        self._association = association
        self._provider = provider
        self._delivery = AssociationDelivery(
            association, as_acceptor=False, max_queued_pdus=bounds.max_queued_pdus
        )
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

    def store(self, payload: Payload, originator: Originator | None = None) -> int:
        """Send one Data Set and give the peer's Status; raises as ``send_instance``."""
        return self._delivery.store(payload, originator)

    def echo(self) -> int:
        """Send a C-ECHO and give its Status. PS3.7 Section 9.1.5."""
        message_id, _ = self._request(C_ECHO(), VERIFICATION)
        response = self._response(C_ECHO, message_id)
        return int(response.Status)

    def find(
        self, sop_class_uid: str, identifier: Dataset, *, cancel_after: int | None = None
    ) -> Iterator[tuple[int, Dataset | None]]:
        """Yield each response's Status and identifier as they come. PS3.7 Section 9.1.2.

        After ``cancel_after`` matches a C-CANCEL is sent; what the peer still
        sends before it obeys is yielded too.
        """
        message_id, context = self._request(C_FIND(), sop_class_uid, identifier)
        matches = 0
        while True:
            response = self._response(C_FIND, message_id)
            yield int(response.Status), _decoded(response.Identifier, context)
            if not self._awaiting_response:
                return
            matches += 1
            if matches == cancel_after:
                self._cancel(message_id, context)

    def move(
        self, sop_class_uid: str, identifier: Dataset, destination: str
    ) -> Iterator[RetrieveResponse]:
        """Have the peer send to ``destination``; yield each response. PS3.7 Section 9.1.4."""
        request = C_MOVE()
        request.MoveDestination = destination
        message_id, context = self._request(request, sop_class_uid, identifier)
        while self._awaiting_response:
            yield _retrieve_response(self._response(C_MOVE, message_id), context)

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
        self._provider.place = LandingPlace(folder=folder, max_bytes=max_instance_bytes)
        try:
            message_id, context = self._request(C_GET(), sop_class_uid, identifier)
            while self._awaiting_response:
                yield _retrieve_response(self._response(C_GET, message_id, received), context)
        finally:
            self._provider.place = None

    def _request(
        self, request: Any, sop_class_uid: str, identifier: Dataset | None = None
    ) -> tuple[int, PresentationContext]:
        require_alive(self._association)
        context = self._context(sop_class_uid)
        request.MessageID = self._delivery.next_message_id()
        request.AffectedSOPClassUID = sop_class_uid
        if identifier is not None:
            request.Priority = PRIORITY_MEDIUM
            request.Identifier = BytesIO(_encoded(identifier, context))
        self._association.dimse.send_msg(request, int(context.context_id or 0))
        self._awaiting_response = True
        return int(request.MessageID), context

    def _context(self, sop_class_uid: str) -> PresentationContext:
        for context in self._association.accepted_contexts:
            if context.as_scu and context.abstract_syntax == sop_class_uid:
                return context
        raise PeerRefused(f"the peer accepted no presentation context for {sop_class_uid}")

    def _response(
        self,
        kind: type[C_ECHO | C_FIND | C_MOVE | C_GET],
        message_id: int,
        received: Callable[[Received], None] | None = None,
    ) -> Any:
        """Wait for the next response to ``message_id``, serving C-STOREs meanwhile."""
        while True:
            context_id, message = receive(self._association)
            if isinstance(message, C_STORE) and message.is_valid_request:
                self._take(context_id, message, received)
                continue
            answers = isinstance(message, kind) and message.is_valid_response
            if not answers or message.MessageIDBeingRespondedTo != message_id:
                give_up(self._association, "the peer answered with another message than expected")
            self._awaiting_response = int(message.Status) in PENDING
            return message

    def _take(
        self, context_id: int, request: C_STORE, received: Callable[[Received], None] | None
    ) -> None:
        """Keep one instance and answer its C-STORE. PS3.4 Section C.4.3.3."""
        landing: Any = request._dataset_file
        status, arrived = NOT_EXPECTED, None
        if isinstance(landing, Landing) and received is not None:
            try:
                status, arrived = SUCCESS, landing.keep()
            except (CapacityExhausted, InstanceTooLarge):
                status = OUT_OF_RESOURCES
            except PacsError:
                status = CANNOT_UNDERSTAND
        if arrived is not None and received is not None:
            received(arrived)
        response = C_STORE()
        response.MessageIDBeingRespondedTo = request.MessageID
        response.AffectedSOPClassUID = request.AffectedSOPClassUID
        response.AffectedSOPInstanceUID = request.AffectedSOPInstanceUID
        response.Status = status
        self._association.dimse.send_msg(response, context_id)

    def _cancel(self, message_id: int, context: PresentationContext) -> None:
        """Send a C-CANCEL. PS3.7 Section 9.3.2.3."""
        request = C_CANCEL()
        request.MessageIDBeingRespondedTo = message_id
        self._association.dimse.send_msg(request, int(context.context_id or 0))


def _encoded(identifier: Dataset, context: PresentationContext) -> bytes:
    syntax = context.transfer_syntax[0]
    encoded = encode(identifier, syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated)
    if encoded is None:
        raise IdentifierInvalid("the identifier cannot be encoded")
    return encoded


def _decoded(encoded: BytesIO | None, context: PresentationContext) -> Dataset | None:
    if encoded is None or not encoded.getbuffer().nbytes:
        return None
    syntax = context.transfer_syntax[0]
    try:
        return decode(encoded, syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated)
    except Exception as failure:  # pydicom's parser names no common base
        raise InstanceUnreadable("the peer's identifier cannot be parsed") from failure


def _retrieve_response(response: Any, context: PresentationContext) -> RetrieveResponse:
    identifier = _decoded(response.Identifier, context)
    failed_uids = identifier.get("FailedSOPInstanceUIDList") if identifier is not None else None
    listed = [failed_uids] if isinstance(failed_uids, str) else list(failed_uids or ())
    return RetrieveResponse(
        status=int(response.Status),
        comment=str(response.ErrorComment or ""),
        progress=Progress(
            remaining=int(response.NumberOfRemainingSuboperations or 0),
            completed=int(response.NumberOfCompletedSuboperations or 0),
            failed=int(response.NumberOfFailedSuboperations or 0),
            warning=int(response.NumberOfWarningSuboperations or 0),
            failed_sop_instance_uids=tuple(str(uid) for uid in listed),
        ),
    )
