"""The door every request walks through: service class, right, handler, status, audit. PS3.7 Section 8.

Owns the order of these, once for all services. Refuses to know any of them;
implements ``pacs.association.message.Services``.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace

from pacs.association.message import (
    Message,
    Offer,
    OpenAssociation,
    Operation,
    Request,
    Response,
)
from pacs.core.caller import Caller
from pacs.core.errors import OperationUnsupported, PacsError
from pacs.core.event_ports import EventWay, EventWays
from pacs.core.ports import AuditTrail, Gate
from pacs.core.sending_ports import Delivery
from scp.purpose import stated
from scp.service_class import ServiceClass
from scp.status import (
    NO_SUCH_SOP_CLASS,
    PROCESSING_FAILURE,
    SOP_CLASS_NOT_SUPPORTED,
    category,
    status_of,
)
from scp.telling import RETRIEVALS, answered, asked

LOGGER = logging.getLogger("pacs.scp")

Door = Callable[[Request], Iterator[Response]]


@dataclass(frozen=True, slots=True)
class WithSession:
    """The association as one service class sees it: with the session that is its own."""

    association: OpenAssociation
    session: object

    @property
    def id(self) -> str:
        """As the association's."""
        return self.association.id

    @property
    def max_pdu_bytes(self) -> int:
        """As the association's."""
        return self.association.max_pdu_bytes

    def negotiated(self, sop_class_uid: str) -> bytes:
        """As the association's."""
        return self.association.negotiated(sop_class_uid)

    def delivery(self) -> Delivery:
        """As the association's."""
        return self.association.delivery()

    def post(self, message: Message) -> None:
        """As the association's."""
        self.association.post(message)


@dataclass(slots=True)
class _Passage:
    """What one request came to, for the audit."""

    last: Response | None = None

    @property
    def status(self) -> int | None:
        """The last status there was."""
        return None if self.last is None else self.last.status


class Server:
    """Every service class behind one door."""

    def __init__(
        self,
        service_classes: Sequence[ServiceClass],
        *,
        gate: Gate,
        audit: AuditTrail,
        ways: EventWays | None = None,
    ) -> None:
        self._ways = ways
        self._service_classes = tuple(service_classes)
        self._gate = gate
        self._audit = audit
        self._offers = tuple(one for each in self._service_classes for one in each.offers)
        self._listed = frozenset(uid for one in self._offers for uid in one.sop_classes)

    @property
    def offers(self) -> tuple[Offer, ...]:
        """Everything that may be negotiated."""
        return self._offers

    @contextmanager
    def open(self, caller: Caller, sop_class_uids: frozenset[str]) -> Iterator[Door]:
        """Enter the sessions of the service classes that were negotiated."""
        sessions: dict[int, object] = {}
        with ExitStack() as stack:
            for index, one in enumerate(self._service_classes):
                if any(self._serves(one, uid) for uid in sop_class_uids):
                    entered = None if one.session is None else one.session(caller)
                    sessions[index] = None if entered is None else stack.enter_context(entered)
            yield lambda request: self._serve(request, sessions)

    def opened(self, caller: Caller, way: EventWay) -> AbstractContextManager[None]:
        """Tell who has events for peers of an association, from its acceptance to its end."""
        return nullcontext() if self._ways is None else self._ways.opened(caller, way)

    def _serves(self, service_class: ServiceClass, sop_class_uid: str) -> bool:
        if sop_class_uid in self._listed:
            return any(sop_class_uid in one.sop_classes for one in service_class.offers)
        return any(one.any_other_class for one in service_class.offers)

    def _serve(self, request: Request, sessions: Mapping[int, object]) -> Iterator[Response]:
        passage = _Passage()
        try:
            for response in self._answers(request, sessions):
                passage.last = response
                yield response
                if category(response.status) != "pending":
                    return
            passage.last = Response(status=PROCESSING_FAILURE, comment=PacsError.peer_comment)
            LOGGER.error("handler-without-final-response operation=%s", request.operation.value)
            yield passage.last
        finally:
            self._record(request, passage)

    def _answers(self, request: Request, sessions: Mapping[int, object]) -> Iterator[Response]:
        found = [
            (self._service_classes[index], session)
            for index, session in sessions.items()
            if self._serves(self._service_classes[index], request.sop_class_uid)
        ]
        if not found:
            normalized = request.operation.value.startswith("N-")
            status = NO_SUCH_SOP_CLASS if normalized else SOP_CLASS_NOT_SUPPORTED
            yield Response(status=status, comment="SOP Class not negotiated")
            return
        able = [one for one in found if request.operation in one[0].operations]
        service_class, session = (able or found)[0]
        view = replace(request, association=WithSession(request.association, session))
        try:
            yield from self._handled(view, service_class)
        except PacsError as error:
            LOGGER.warning(
                "request-refused operation=%s error=%s cause=%s",
                request.operation.value,
                type(error).__name__,
                type(error.__cause__).__name__,
            )
            yield Response(
                status=status_of(error, service_class),
                comment=error.peer_comment,
                offending_elements=error.offending_elements,
            )
        except Exception as failure:  # noqa: BLE001 - whatever a handler does, the peer gets its answer
            _log_failure(request.operation, failure)
            yield Response(status=PROCESSING_FAILURE, comment=PacsError.peer_comment)

    def _handled(self, request: Request, service_class: ServiceClass) -> Iterator[Response]:
        handler = service_class.operations.get(request.operation)
        if handler is None:
            raise OperationUnsupported
        right = service_class.rights[request.operation]
        caller = self._gate.allow(request.caller, right, stated(request))
        if request.operation in RETRIEVALS:
            self._audit.record("retrieve-begun", caller, **asked(request))
        responses = handler(replace(request, caller=caller))
        try:
            yield from responses
        finally:
            close = getattr(responses, "close", None)  # generators have it, plain iterators not
            if close is not None:
                close()

    def _record(self, request: Request, passage: _Passage) -> None:
        ended = passage.status is not None and category(passage.status) != "pending"
        self._audit.record(
            request.operation.value,
            request.caller,
            association=request.association.id,
            sop_class_uid=request.sop_class_uid,
            outcome=category(passage.status or 0) if ended else "abandoned",
            status=f"{passage.status:04X}" if passage.status is not None else None,
            **asked(request),
            **answered(passage.last),
        )


def _log_failure(operation: Operation, failure: Exception) -> None:
    """Log where it happened. The error's own text stays out: it may quote patient data."""
    frames = []
    trace = failure.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        frames.append(f"{code.co_filename}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    LOGGER.error(
        "handler-failed operation=%s kind=%s at=%s",
        operation.value,
        type(failure).__name__,
        " < ".join(reversed(frames)),
    )
