"""Requests that a peer sends on an association we opened, answered. PS3.7 Sections 9.1.1 and 10.1.

Owns what is answered where nobody here wants to know: the association goes on.
A C-STORE is taken during our C-GET only, everything else goes to whoever
opened the association, if it gave a handler. Refuses to know any service class.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, cast

from pydicom.dataset import Dataset

from pacs.association.commands import fields_of, operation_of, text
from pacs.association.exchange import Exchange
from pacs.association.identifiers import decode_identifier
from pacs.association.intake import Arrived
from pacs.association.message import Operation, Response
from pacs.association.negotiation import Agreed
from pacs.association.responses import PENDING, Responses, sop_class_of
from pacs.association.serving import PROCESSING_FAILURE, UNRECOGNIZED_OPERATION, refusal_of
from pacs.core.errors import (
    CapacityExhausted,
    InstanceTooLarge,
    PacsError,
    PeerUnreachable,
    RecordsFailed,
    SOPClassMismatch,
    SOPInstanceMismatch,
    StorageFailed,
)
from pacs.core.identifiers import SOPClassUID, SOPInstanceUID, TransferSyntaxUID, is_uid
from pacs.core.ports import Coming, Receiver

LOGGER = logging.getLogger("pacs.association")

SUCCESS: Final = 0x0000
CANNOT_UNDERSTAND: Final = 0xC000
REFUSALS: Final[Mapping[type[PacsError], int]] = {
    CapacityExhausted: 0xA700,  # Refused: Out of Resources
    InstanceTooLarge: 0xA700,
    RecordsFailed: 0xA700,
    StorageFailed: 0xA700,
    SOPClassMismatch: 0xA900,  # Error: Data Set does not match SOP Class
    SOPInstanceMismatch: 0xA900,
}
"""PS3.4 Table B.2-1, for the C-STORE sub-operations of our C-GET, where we are the SCP."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a peer asks on an association we opened; ``fields`` as those of ``message.Request``."""

    operation: Operation
    sop_class_uid: str
    fields: Mapping[str, object]
    data_set: Dataset | None = field(default=None, repr=False)


OnRequest = Callable[[Asked], Response]
"""Answers one request, on the association's thread. What it raises fails the request and nothing else."""


class Landings:
    """Begins C-STOREs while a C-GET says who receives them; outside one their Data Sets are dropped."""

    receiver: Receiver | None = None

    def __call__(self, context: Agreed, command: Mapping[str, object]) -> Coming | None:
        sop_class_uid = text(command, "AffectedSOPClassUID")
        sop_instance_uid = text(command, "AffectedSOPInstanceUID")
        named = sop_class_uid == context.abstract_syntax and is_uid(sop_instance_uid)
        if self.receiver is None or not named:
            return None
        return self.receiver(
            SOPClassUID(sop_class_uid),
            SOPInstanceUID(sop_instance_uid),
            TransferSyntaxUID(context.transfer_syntax),
        )


class Answering:
    """Answers the requests of one association we opened, one after the other."""

    def __init__(
        self,
        exchange: Exchange,
        landings: Landings,
        on_request: OnRequest | None,
        *,
        identifier_bytes: int,
    ) -> None:
        self._exchange = exchange
        self._landings = landings
        self._on_request = on_request
        self._identifier_bytes = identifier_bytes

    def __call__(self, arrived: Arrived) -> None:
        """Answer one request. Raises ``PeerUnreachable``, and what takes an instance of our C-GET."""
        if operation_of(arrived.command) is Operation.C_STORE:
            answer = self._landed(arrived)
        else:
            answer = self._answered(arrived)
        self._send(arrived, answer)

    def _landed(self, request: Arrived) -> Response:
        """Keep one instance, and only then say so. PS3.4 Section C.4.3.3."""
        if self._landings.receiver is None:
            request.discard()
            return Response(status=UNRECOGNIZED_OPERATION)
        refusal = refusal_of(request)
        if refusal is not None:
            request.discard()
            return Response(status=refusal)
        coming = cast(Coming, request.incoming)  # our own landings began it
        try:
            coming.take()
        except PeerUnreachable:
            raise
        except PacsError as failure:
            numbers = (REFUSALS[kind] for kind in type(failure).__mro__ if kind in REFUSALS)
            status = next(numbers, CANNOT_UNDERSTAND)
            return Response(status=status, comment=failure.peer_comment)
        finally:
            coming.__exit__(None, None, None)
        return Response(status=SUCCESS)

    def _answered(self, arrived: Arrived) -> Response:
        refusal = refusal_of(arrived)
        if refusal is not None:
            return Response(status=refusal)
        if self._on_request is None:
            return Response(status=UNRECOGNIZED_OPERATION)
        try:
            answer = self._on_request(self._asked(arrived))
        except PeerUnreachable:
            raise
        except PacsError as failure:
            return Response(status=PROCESSING_FAILURE, comment=failure.peer_comment)
        except Exception as failure:  # noqa: BLE001 - whatever a handler does, the peer gets its answer
            LOGGER.error("request-handler-failed kind=%s", type(failure).__name__)
            return Response(status=PROCESSING_FAILURE, comment=PacsError.peer_comment)
        if answer.status in PENDING:  # one answer is all there is
            LOGGER.error("request-handler-gave-pending")
            return Response(status=PROCESSING_FAILURE, comment=PacsError.peer_comment)
        return answer

    def _asked(self, arrived: Arrived) -> Asked:
        operation = operation_of(arrived.command)
        assert operation is not None
        data_set = None
        if arrived.data:
            data_set = decode_identifier(
                arrived.data, arrived.context.transfer_syntax, most_bytes=self._identifier_bytes
            )
        return Asked(
            operation=operation,
            sop_class_uid=sop_class_of(arrived),
            fields=fields_of(arrived.command),
            data_set=data_set,
        )

    def _send(self, arrived: Arrived, answer: Response) -> None:
        responses = Responses(self._exchange, arrived)
        try:
            responses.send(answer)
        except PeerUnreachable:
            raise
        except Exception as failure:  # noqa: BLE001 - pydicom raises whatever the values provoke
            LOGGER.error("response-not-encodable kind=%s", type(failure).__name__)
            responses.send(Response(status=PROCESSING_FAILURE, comment=PacsError.peer_comment))
