"""Requests answered: from an arrived message through the door to responses on the wire. PS3.7 Section 9.

Owns what every request goes through before and after its handler, whatever the
service: checks that concern the message alone, encoding, back-pressure.
Refuses to know any service class.
"""

import logging
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing
from typing import Final, cast

from pacs.association.admission import Host
from pacs.association.commands import fields_of, operation_of, text
from pacs.association.elements import TooManyElements
from pacs.association.exchange import Exchange
from pacs.association.identifiers import decode_identifier
from pacs.association.intake import Arrived
from pacs.association.message import OpenAssociation, Operation, Request, Response
from pacs.association.responses import NORMALIZED, PENDING, Responses, sop_class_of
from pacs.core.caller import Caller
from pacs.core.errors import InstanceUnreadable, PacsError, PeerUnreachable
from pacs.core.identifiers import AETitle, TransferSyntaxUID, is_uid
from pacs.core.ports import Incoming

LOGGER = logging.getLogger("pacs.association")

Door = Callable[[Request], Iterator[Response]]

PROCESSING_FAILURE: Final = 0x0110
INVALID_OBJECT_INSTANCE: Final = 0x0117
SOP_CLASS_NOT_SUPPORTED: Final = 0x0122
UNRECOGNIZED_OPERATION: Final = 0x0211
"""PS3.7 Annex C."""
UNABLE_TO_PROCESS: Final = 0xC001
"""In the range that PS3.4 gives to every C- operation for what cannot be processed."""
RESOURCE_LIMITATION: Final = 0x0213
"""PS3.7 Annex C, for N- operations."""
OUT_OF_RESOURCES: Final = {  # PS3.4 Tables C.4-1 to C.4-3
    Operation.C_FIND: 0xA700,
    Operation.C_MOVE: 0xA701,
    Operation.C_GET: 0xA701,
}


class RequestServer:
    """Serves the requests of one association, one after the other."""

    def __init__(
        self,
        exchange: Exchange,
        *,
        public: OpenAssociation,
        door: Door,
        caller: Caller,
        called_ae_title: AETitle,
        host: Host,
    ) -> None:
        self._exchange = exchange
        self._public = public
        self._door = door
        self._caller = caller
        self._called_ae_title = called_ae_title
        self._identifier_bytes = host.settings.association.max_identifier_bytes
        self._most_elements = host.settings.association.max_identifier_elements
        self._most_asked = host.settings.query.max_elements
        self._audit = host.audit

    def serve(self, arrived: Arrived) -> None:
        """Answer one request. Raises ``PeerUnreachable`` when the association has ended."""
        with ExitStack() as stack:
            if arrived.incoming is not None:
                stack.push(arrived.incoming.__exit__)  # entered when its first byte was awaited
            answers = stack.enter_context(closing(self._responses(arrived)))
            responses = Responses(self._exchange, arrived)
            for response in answers:
                if response.status not in PENDING:
                    answers.close()  # what the handler leaves behind is done before the peer knows
                    self._send(arrived, responses, response)
                    return
                self._send(arrived, responses, response)

    def _responses(self, arrived: Arrived) -> Generator[Response, None, None]:
        refusal = refusal_of(arrived)
        if refusal is not None:
            yield self._refused(arrived, Response(status=refusal))
            return
        try:
            yield from self._door(self._request(arrived))
        except InstanceUnreadable as failure:
            status = PROCESSING_FAILURE
            if isinstance(failure, TooManyElements):
                operation = cast(Operation, operation_of(arrived.command))
                status = OUT_OF_RESOURCES.get(operation, RESOURCE_LIMITATION)
            answer = Response(status=status, comment=failure.peer_comment)
            yield self._refused(arrived, answer)
        except PeerUnreachable:
            raise
        except Exception as failure:  # noqa: BLE001 - the door answers for its handlers; this is the last resort
            LOGGER.error("door-failed kind=%s", type(failure).__name__)
            yield Response(status=PROCESSING_FAILURE, comment=PacsError.peer_comment)

    def _refused(self, arrived: Arrived, answer: Response) -> Response:
        """Put on record what is answered here, before the door that records everything else."""
        operation = operation_of(arrived.command)
        self._audit.record(
            "request-refused" if operation is None else operation.value,
            self._caller,
            association=self._public.id,
            sop_class_uid=arrived.context.abstract_syntax,
            outcome="failure",
            status=f"{answer.status:04X}",
        )
        return answer

    def _request(self, arrived: Arrived) -> Request:
        operation = operation_of(arrived.command)
        assert operation is not None
        context, message_id = arrived.context, arrived.message_id
        identifier = None
        if arrived.data:
            identifier = decode_identifier(
                arrived.data,
                context.transfer_syntax,
                most_bytes=self._identifier_bytes,
                most_elements=self._most_asked
                if operation in OUT_OF_RESOURCES
                else self._most_elements,
            )
        return Request(
            operation=operation,
            sop_class_uid=sop_class_of(arrived),
            transfer_syntax_uid=TransferSyntaxUID(context.transfer_syntax),
            message_id=message_id,
            fields=fields_of(arrived.command),
            caller=self._caller,
            called_ae_title=self._called_ae_title,
            association=self._public,
            cancelled=lambda: self._exchange.is_cancelled(message_id),
            identifier=identifier,
            incoming=cast(Incoming | None, arrived.incoming),  # our own intake began it
            context_uid=context.abstract_syntax,
        )

    def _send(self, arrived: Arrived, responses: Responses, response: Response) -> None:
        try:
            responses.send(response)
        except PeerUnreachable:
            raise
        except Exception as failure:  # noqa: BLE001 - pydicom raises whatever the values provoke
            LOGGER.error("response-not-encodable kind=%s", type(failure).__name__)
            normalized = operation_of(arrived.command) in NORMALIZED
            status = PROCESSING_FAILURE if normalized else UNABLE_TO_PROCESS
            responses.send(Response(status=status, comment="Response cannot be encoded"))
            raise ResponseUnsendable from None


class ResponseUnsendable(Exception):
    """A response could not be encoded; a failure was sent in its place and ends the request."""


def refusal_of(arrived: Arrived) -> int | None:
    """Judge a request by its command set alone. Source: PS3.7 Section 9.1.1.1.9 and Annex C.

    A composite operation must name its context's SOP Class; an N- operation
    may name another one, of a Meta SOP Class.
    """
    operation = operation_of(arrived.command)
    if operation is None:
        return UNRECOGNIZED_OPERATION
    if not arrived.context.as_scp and operation is not Operation.N_EVENT_REPORT:
        return SOP_CLASS_NOT_SUPPORTED
    if operation in NORMALIZED:
        return None
    if text(arrived.command, "AffectedSOPClassUID") != arrived.context.abstract_syntax:
        return SOP_CLASS_NOT_SUPPORTED
    if operation is Operation.C_STORE:
        if not is_uid(text(arrived.command, "AffectedSOPInstanceUID")):
            return INVALID_OBJECT_INSTANCE
        if arrived.incoming is None:
            return PROCESSING_FAILURE  # announced no Data Set: there is nothing to store
    return None
