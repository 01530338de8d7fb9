"""Our acceptor in place of ``AE.start_server``: pynetdicom's tests bring the requestor and the handlers.

``AssociationServer`` with everything below it is ours. What a service does
with a request is not: each request goes to pynetdicom's own service class,
which calls the test's handlers, and each response it would send becomes one of
our ``Response``. It runs on a thread of its own, hand in hand with ours, since
it pushes responses where ours are asked for.
"""

import queue
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import AE, _config, dimse_messages, dimse_primitives, evt
from pynetdicom.dsutils import decode, encode
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.service_class import ServiceClass
from pynetdicom.sop_class import uid_to_service_class

from config.settings import Association as Bounds
from config.settings import Dicom, Settings
from pacs.association.message import Offer, Operation, Request, Response
from pacs.association.server import AssociationServer
from pacs.core.caller import Caller, Candidate, Right, SubscriberName, Visibility
from pacs.core.errors import AdmissionRefused, PeerRefused, PeerUnreachable
from pacs.core.event_ports import EventWay
from pacs.core.identifiers import SOPClassUID, SOPInstanceUID, TransferSyntaxUID
from pacs.core.records import Payload
from tests.association_fakes import FakeAudit, FakeSpool

NEVER_S = 30.0
ENDS_S = 3.0
DATA_OF = {
    Operation.C_STORE: "DataSet",
    Operation.C_FIND: "Identifier",
    Operation.C_GET: "Identifier",
    Operation.C_MOVE: "Identifier",
    Operation.N_EVENT_REPORT: "EventInformation",
    Operation.N_SET: "ModificationList",
    Operation.N_ACTION: "ActionInformation",
    Operation.N_CREATE: "AttributeList",
}
HANDLER_OF = {one: getattr(evt, f"EVT_{one.value.replace('-', '_')}") for one in Operation}
COUNTERS = {
    "NumberOfRemainingSuboperations": "remaining",
    "NumberOfCompletedSuboperations": "completed",
    "NumberOfFailedSuboperations": "failed",
    "NumberOfWarningSuboperations": "warning",
}
IMPLICIT_FIRST = ("implicit", "explicit-little", "lossless", "deflated", "big-endian", "lossy")
"""pynetdicom's preference, where a test does not say."""
HOUSEKEEPING = frozenset(
    {"CommandGroupLength", "CommandField", "CommandDataSetType", "MessageIDBeingRespondedTo"}
)

Handler = tuple[Callable[..., Any], list[Any] | None]


def _handlers(bound: Sequence[Any] | None) -> dict[Any, Handler]:
    every = {event: (evt.get_default_handler(event), None) for event in evt._INTERVENTION_EVENTS}
    for event, handler, *arguments in bound or ():
        every[event] = (handler, arguments[0] if arguments else None)
    return every


def _seconds(timeout_s: float | None) -> float:
    return NEVER_S if timeout_s is None else timeout_s


class Turn:
    """One request between two threads: ours asks for responses, pynetdicom's service pushes them."""

    def __init__(self) -> None:
        self._asked: queue.Queue[tuple[str, Any, queue.Queue[Any]]] = queue.Queue()
        self._over = threading.Event()
        self.worker: int | None = None

    def tell(self, kind: str, what: Any, unheard: Any = None) -> Any:
        """Have our thread do something and give its outcome; ``unheard`` once it has gone on."""
        answer: queue.Queue[Any] = queue.Queue()
        self._asked.put((kind, what, answer))
        while not self._over.is_set():
            try:
                outcome = answer.get(timeout=0.02)
            except queue.Empty:
                continue
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome
        return unheard

    def responses(self, service: Callable[[], None]) -> Iterator[Response]:
        """Run the service, yield what it pushes; on our thread."""
        worker = threading.Thread(target=self._work, args=(service,), daemon=True)
        worker.start()
        try:
            while True:
                kind, what, answer = self._asked.get()
                if kind == "end":
                    return
                if kind == "response":
                    yield what
                    answer.put(None)
                    continue
                try:
                    answer.put(what())
                except Exception as failure:  # noqa: BLE001 - belongs to the thread that asked
                    answer.put(failure)
        finally:
            self._over.set()

    def _work(self, service: Callable[[], None]) -> None:
        self.worker = threading.get_ident()
        try:
            service()
        finally:
            self._asked.put(("end", None, queue.Queue()))


class Cancels:
    """pynetdicom's table of C-CANCELs, as it asks it."""

    def __init__(self, turn: Turn, request: Request) -> None:
        self._turn, self._request = turn, request

    def keys(self) -> tuple[int, ...]:
        cancelled = self._turn.tell("call", self._request.cancelled, unheard=False)
        return (self._request.message_id,) if cancelled else ()

    def __delitem__(self, message_id: int) -> None:
        """Ours forgets it with the request."""


class Accepted:
    """One of our associations as handlers of pynetdicom see theirs."""

    is_acceptor, is_requestor = True, False

    def __init__(self, server: "Server", caller: Caller) -> None:
        self.ae, self._server = server.ae, server
        self.id = caller.association
        self.requestor = SimpleNamespace(ae_title=caller.ae_title, address=caller.address)
        self.acceptor = SimpleNamespace(ae_title=server.ae_title)
        self.acse = SimpleNamespace(is_aborted=lambda *_: False, is_release_requested=lambda: False)
        self.is_aborted = False
        self.dul = SimpleNamespace(socket=SimpleNamespace(close=self._cut))
        self.turn = Turn()
        self.request: Request | None = None
        self._abort_nonblocking = self._abort
        self.abort = self._abort_blocking

    def get_handlers(self, event: Any) -> Any:
        return self._server.handlers.get(event, (None, None))

    def _served(self) -> Any:
        live = list(self._server.ours._live)
        return next((one for one in live if one.id == self.id), None)

    @property
    def is_established(self) -> bool:
        served = self._served()
        return not self.is_aborted and served is not None and served.upper_layer.state == "Sta6"

    def _cut(self) -> None:
        self._served().upper_layer.shut_down()

    def _abort(self) -> None:
        self.is_aborted = True
        self._served().abort()

    def _abort_blocking(self) -> None:
        served = self._served()
        self._abort()
        if threading.get_ident() != self.turn.worker:  # else our thread waits for this one
            served.join(ENDS_S)

    @property
    def accepted_contexts(self) -> list[PresentationContext]:
        assert self.request is not None
        return [context_of(one) for one in self.request.association._exchange.contexts.values()]

    def serve(self, request: Request) -> Iterator[Response]:
        """Let pynetdicom's service class answer one request."""
        turn = self.turn = Turn()
        self.request = request
        self.dimse = SimpleNamespace(
            cancel_req=Cancels(turn, request),
            send_msg=lambda answer, _: turn.tell("response", _response(answer, request)),
        )
        primitive = _primitive(request)
        context = _agreed(request)
        named = request.sop_class_uid
        if _config.UNRESTRICTED_STORAGE_SERVICE and request.operation is Operation.C_STORE:
            named = "1.2.840.10008.5.1.4.1.1.1"
        service: ServiceClass = uid_to_service_class(named)(self)
        return turn.responses(lambda: service.SCP(primitive, context))

    def send_c_store(self, dataset: Dataset, **more: Any) -> Dataset:
        """Send a sub-operation of C-GET over our delivery."""
        assert self.request is not None
        delivery = self.request.association.delivery()
        syntaxes = delivery.accepted(SOPClassUID(dataset.SOPClassUID))
        if not syntaxes:
            raise ValueError("no context in which we are the SCU was accepted")
        syntax = syntaxes[0]
        encoded = encoded_in(dataset, str(syntax))
        if encoded is None:
            raise ValueError("the Data Set cannot be encoded")
        with stored(encoded) as path:
            payload = Payload(
                sop_class_uid=SOPClassUID(dataset.SOPClassUID),
                sop_instance_uid=SOPInstanceUID(dataset.SOPInstanceUID),
                transfer_syntax_uid=TransferSyntaxUID(syntax),
                path=path,
                offset=0,
            )
            answer = Dataset()
            try:
                answer.Status = self.turn.tell("call", lambda: delivery.store(payload, None))
            except PeerRefused as refused:
                raise ValueError(str(refused)) from refused
            except PeerUnreachable:
                return Dataset()
            return answer


def encoded_in(data_set: Dataset, syntax: str) -> bytes | None:
    uid = UID(syntax)
    return encode(data_set, uid.is_implicit_VR, uid.is_little_endian, uid.is_deflated)


@contextmanager
def stored(encoded: bytes) -> Iterator[str]:
    """Put a Data Set into a file, as our senders take it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "data-set")
        path.write_bytes(encoded)
        yield str(path)


def context_of(agreed: Any) -> PresentationContext:
    context = build_context(agreed.abstract_syntax, agreed.transfer_syntax)
    context.context_id, context.result = agreed.context_id, 0
    context._as_scp, context._as_scu = agreed.as_scp, agreed.as_scu
    return context


def _agreed(request: Request) -> PresentationContext:
    contexts = request.association._exchange.contexts.values()
    syntax = str(request.transfer_syntax_uid)
    fitting = [one for one in contexts if one.transfer_syntax == syntax]
    named = [one for one in fitting if one.abstract_syntax == request.sop_class_uid]
    return context_of((named or fitting)[0])


def _primitive(request: Request) -> Any:
    """Write one of our requests as pynetdicom's."""
    primitive = getattr(dimse_primitives, request.operation.value.replace("-", "_"))()
    for keyword, value in request.fields.items():
        if hasattr(primitive, keyword):
            setattr(primitive, keyword, list(value) if isinstance(value, tuple) else value)
    data = b""
    if request.incoming is not None:
        with request.incoming.open_data_set() as stream:
            request.incoming.finish()
            data = stream.read()
    elif request.identifier is not None:
        data = encoded_in(request.identifier, request.transfer_syntax_uid) or b""
    if data:
        setattr(primitive, DATA_OF[request.operation], BytesIO(data))
    return primitive


def _response(answer: Any, request: Request) -> Response:
    """Write one of pynetdicom's responses as ours."""
    kind = f"{request.operation.value.replace('-', '_')}_RSP"
    message = getattr(dimse_messages, kind)()
    message.primitive_to_message(answer)
    command = {one.keyword: one.value for one in message.command_set if one.value is not None}
    offending = command.pop("OffendingElement", None)
    identifier = None
    if message.data_set is not None and message.data_set.getvalue():
        syntax = _agreed(request).transfer_syntax[0]
        message.data_set.seek(0)
        identifier = decode(
            message.data_set, syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated
        )
    counted = {ours: command.pop(theirs, None) for theirs, ours in COUNTERS.items()}
    if offending is not None:
        offending = [offending] if isinstance(offending, int) else offending
    return Response(
        status=command.pop("Status"),
        comment=command.pop("ErrorComment", "") or "",
        offending_elements=tuple(map(int, offending or ())),
        identifier=identifier,
        fields={key: one for key, one in command.items() if key not in HOUSEKEEPING},
        **counted,
    )


class Door:
    """What pynetdicom's AE supports, as our ``Services``, and whom it knows, as our ``Gate``."""

    def __init__(self, server: "Server", contexts: Sequence[PresentationContext]) -> None:
        self._server = server
        self._contexts = contexts

    @property
    def offers(self) -> tuple[Offer, ...]:
        answer = None
        if self._server.handlers[evt.EVT_SOP_EXTENDED][0] is not evt.get_default_handler(
            evt.EVT_SOP_EXTENDED
        ):
            answer = self._extended
        offers = [
            Offer(
                sop_classes={str(one.abstract_syntax): ""},
                transfer_syntaxes=tuple(map(str, one.transfer_syntax)),
                scu_role=bool(one.scp_role),
                extended=None if answer is None else answer(str(one.abstract_syntax)),
            )
            for one in self._contexts
        ]
        if _config.UNRESTRICTED_STORAGE_SERVICE:
            offers.append(Offer(sop_classes={}, any_other_class=True))
        return tuple(offers)

    def _extended(self, uid: str) -> Callable[[bytes], bytes]:
        def answered(asked: bytes) -> bytes:
            event = evt.Event(None, evt.EVT_SOP_EXTENDED, {"app_info": {uid: asked}})
            return bytes(self._server.call(evt.EVT_SOP_EXTENDED, event).get(uid, b""))

        return answered

    @contextmanager
    def open(self, caller: Caller, classes: frozenset[str]) -> Iterator[Any]:
        accepted = Accepted(self._server, caller)
        self._server.active_associations.append(accepted)
        try:
            yield accepted.serve
        finally:
            self._server.active_associations.remove(accepted)

    def opened(self, caller: Caller, way: EventWay) -> AbstractContextManager[None]:
        """Nobody here has events of its own."""
        return nullcontext()

    def admit(self, candidate: Candidate) -> Caller:
        known = self._server.ae.require_calling_aet
        if known and candidate.calling_ae_title not in known:
            raise AdmissionRefused
        return Caller(
            identity_response=self._verified(candidate),
            subscriber=SubscriberName("upstream"),
            rights=frozenset(Right),
            visibility=Visibility(everything=True),
        )

    def _verified(self, candidate: Candidate) -> bytes | None:
        handler, _ = self._server.handlers[evt.EVT_USER_ID]
        if candidate.user_identity_type is None or handler is evt.get_default_handler(
            evt.EVT_USER_ID
        ):
            return None
        event = evt.Event(
            None,
            evt.EVT_USER_ID,
            {
                "user_id_type": candidate.user_identity_type,
                "primary_field": candidate.user_identity,
                "secondary_field": candidate.user_passcode or None,
            },
        )
        verified, response = self._server.call(evt.EVT_USER_ID, event)
        if not verified:
            raise AdmissionRefused
        return None if response is None else bytes(response)

    def allow(self, caller: Caller, right: Right, purpose: str = "") -> Caller:
        """Whoever was admitted may do everything."""
        return caller

    def stands(self, caller: Caller) -> bool:
        return True


class Server:
    """Ours, as what ``AE.start_server`` returns."""

    def __init__(
        self,
        ae: AE,
        address: Any,
        *,
        evt_handlers: Sequence[Any] | None,
        ae_title: str | None,
        contexts: Sequence[PresentationContext] | None,
    ) -> None:
        self.ae, self.ae_title = ae, ae_title or ae.ae_title
        self.handlers = _handlers(evt_handlers)
        self.active_associations: list[Accepted] = []
        door = Door(self, contexts or ae.supported_contexts)
        settings = Settings(
            dicom=Dicom(
                host=address[0],
                port=address[1],
                ae_title=self.ae_title,
                any_called_ae_title=not ae.require_called_aet,
                transfer_syntax_order=IMPLICIT_FIRST,
            ),
            association=Bounds(
                max_associations=ae.maximum_associations,
                max_associations_per_host=ae.maximum_associations,
                max_pdu_bytes=ae.maximum_pdu_size or 131_072,
                artim_timeout_s=min(_seconds(ae.acse_timeout), ENDS_S),
                network_timeout_s=_seconds(ae.network_timeout),
                dimse_timeout_s=_seconds(ae.dimse_timeout),
                max_identifier_bytes=16_777_216,
            ),
        )
        self.ours = AssociationServer(
            settings, gate=door, spool=FakeSpool(), services=door, audit=FakeAudit()
        )
        self.port = self.ours.start()

    def call(self, event: Any, what: evt.Event) -> Any:
        """Call the test's handler."""
        handler, arguments = self.handlers[event]
        return handler(what, *(arguments or ()))

    def shutdown(self) -> None:
        self.ours.close()
        if self in self.ae._servers:
            self.ae._servers.remove(self)

    server_close = shutdown


@contextmanager
def installed(patch: Any) -> Iterator[None]:
    """Put ours in place of theirs; afterwards whatever a test left open is closed."""
    started: list[Server] = []

    def start_server(
        self: AE,
        address: Any,
        block: bool = True,
        ssl_context: Any = None,
        evt_handlers: Any = None,
        ae_title: str | None = None,
        contexts: Any = None,
    ) -> Server:
        if block or ssl_context is not None:
            raise TypeError("ours never blocks its caller")
        server = Server(
            self, address, evt_handlers=evt_handlers, ae_title=ae_title, contexts=contexts
        )
        self._servers.append(server)
        started.append(server)
        return server

    patch.setattr(AE, "start_server", start_server)
    patch.setattr("pacs.association.server.silence", lambda: None)  # tests read its log
    try:
        yield
    finally:
        for one in started:
            one.shutdown()
