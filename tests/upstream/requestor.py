"""Our requestor in place of ``AE.associate``: pynetdicom's tests bring the acceptor, its services and handlers.

What a test asks of its association goes to ``Requested``; what that gives is
written as pynetdicom's ``Association`` would give it. Where that keeps its own
rules about a caller's arguments, its texts are borrowed from it; everything
between the proposal and the last byte is ours.
"""

import re
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from socketserver import BaseServer
from types import SimpleNamespace
from typing import Any, TypeVar

from pydicom.dataset import Dataset
from pydicom.filereader import dcmread
from pydicom.tag import Tag
from pynetdicom import AE, evt
from pynetdicom.association import Association as Theirs
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import Verification
from pynetdicom.status import code_to_category

from config.settings import Association as Bounds
from pacs.association.landing import LandingPlace, Received
from pacs.association.message import Message, Operation
from pacs.association.requested import Answer, Requested, RetrieveResponse
from pacs.association.requestor import NothingAccepted, Proposal, associate
from pacs.association.upper_layer import CLOSED, ENDING
from pacs.core.errors import IdentifierInvalid, InstanceUnreadable, PeerRefused, PeerUnreachable
from pacs.core.identifiers import AETitle, SOPClassUID, SOPInstanceUID, TransferSyntaxUID
from pacs.core.records import Originator, Payload, Peer
from tests.upstream.acceptor import DATA_OF, NEVER_S, context_of, encoded_in, stored

CAN_BE_SAID = ("ErrorComment", "OffendingElement", "AttributeIdentifierList", "ErrorID")
LOOK_S = 0.02
MOST_INSTANCE_BYTES = 100_000_000
Said = TypeVar("Said")


class Opened:
    """One association of ours, as tests of pynetdicom see theirs."""

    is_acceptor, is_requestor = False, True

    def __init__(
        self, ae: AE, peer: Peer, contexts: Sequence[PresentationContext], handlers: Any
    ) -> None:
        self.ae = ae
        self._peer = peer
        self._contexts = contexts
        self._handlers = {event: (one, more[:1] and more[0]) for event, one, *more in handlers}
        self._stack = ExitStack()
        self._thread = threading.get_ident()
        self._end: str | None = None
        self._requested: Requested | None = None
        self.requestor = SimpleNamespace(ae_title=ae.ae_title)
        self.acceptor = SimpleNamespace(ae_title=peer.ae_title, address=peer.host, port=peer.port)

    def open(self, proposals: Sequence[Proposal], bounds: Bounds) -> None:
        """Ask for the association, as ``AE.associate`` does."""
        asked = associate(self._peer, proposals, ae_title=self.ae.ae_title, bounds=bounds)
        try:
            self._requested = self._stack.enter_context(asked)
        except NothingAccepted:
            self._end = "aborted"
        except PeerRefused:
            self._end = "rejected"
        except PeerUnreachable:
            self._end = "aborted"
        else:
            self._watch_for_abort()

    def _watch_for_abort(self) -> None:
        upper_layer = self._upper_layer
        abort = upper_layer.abort

        def noted() -> None:
            if upper_layer.state not in (CLOSED, ENDING):
                self._end = "aborted"
            abort()

        upper_layer.abort = noted

    @property
    def _upper_layer(self) -> Any:
        assert self._requested is not None
        return self._requested._exchange.upper_layer

    # --- what became of it -----------------------------------------------------------

    def _state(self) -> str:
        if self._end is None and threading.get_ident() == self._thread:
            assert self._requested is not None
            try:
                self._requested._exchange.look()
            except PeerUnreachable as gone:
                self._lost(gone)
        return self._end or "established"

    def _lost(self, gone: BaseException) -> None:
        """Leave ``associate`` by an error, as whoever uses it would."""
        self._end = self._end or ("released" if self._upper_layer.released else "aborted")
        try:
            self._stack.__exit__(type(gone), gone, None)
        except PeerUnreachable:
            return

    is_established = property(lambda self: self._state() == "established")
    is_released = property(lambda self: self._state() == "released")
    is_aborted = property(lambda self: self._state() == "aborted")
    is_rejected = property(lambda self: self._state() == "rejected")

    def is_alive(self) -> bool:
        return bool(self.is_established)

    def release(self) -> None:
        if self.is_established:
            self._stack.close()
            self._end = self._end or "released"

    def abort(self, block: bool = True) -> None:
        if self.is_established:
            self._lost(PeerUnreachable("the test wants it"))
            self._end = "aborted"

    kill = abort

    # --- contexts ----------------------------------------------------------------------

    @property
    def _accepted_cx(self) -> dict[int, PresentationContext]:
        if self._requested is None:
            return {}
        contexts = self._requested._exchange.contexts
        return {number: context_of(one) for number, one in contexts.items()}

    @property
    def accepted_contexts(self) -> list[PresentationContext]:
        return list(self._accepted_cx.values())

    @property
    def rejected_contexts(self) -> list[PresentationContext]:
        return [one for at, one in enumerate(self._contexts) if 2 * at + 1 not in self._accepted_cx]

    def _context(self, uid: str, syntax: str = "") -> PresentationContext:
        if not self.is_established:
            raise RuntimeError("must be established")
        return Theirs._get_valid_context(self, uid, syntax, "scu")  # type: ignore[arg-type]

    # --- requests ----------------------------------------------------------------------

    def _said(self, ask: Callable[[], Said], unheard: Said) -> Said:
        try:
            return ask()
        except PeerUnreachable as gone:
            self._lost(gone)
            return unheard
        except (IdentifierInvalid, PeerRefused) as refused:
            raise ValueError(str(refused)) from refused

    def send_c_echo(self, msg_id: int = 1) -> Dataset:
        self._context(Verification)
        assert self._requested is not None
        return self._said(lambda: _status(self._requested.echo()), Dataset())

    def send_c_store(
        self,
        dataset: Any,
        msg_id: int = 1,
        priority: int = 2,
        originator_aet: str | None = None,
        originator_id: int | None = None,
    ) -> Dataset:
        if not isinstance(dataset, Dataset):
            dataset = dcmread(dataset)
        context = self._context(dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID)
        syntax = str(context.transfer_syntax[0])
        encoded = encoded_in(dataset, syntax)
        if encoded is None:
            raise ValueError("Failed to encode the supplied dataset")
        originator = None
        if originator_aet is not None:
            originator = Originator(ae_title=AETitle(originator_aet), message_id=originator_id or 0)
        with stored(encoded) as path:
            payload = Payload(
                sop_class_uid=SOPClassUID(dataset.SOPClassUID),
                sop_instance_uid=SOPInstanceUID(dataset.SOPInstanceUID),
                transfer_syntax_uid=TransferSyntaxUID(syntax),
                path=path,
                offset=0,
            )
            assert self._requested is not None
            return self._said(
                lambda: _status(self._requested.store(payload, originator)), Dataset()
            )

    def send_c_find(
        self, dataset: Dataset, query_model: str, msg_id: int = 1, priority: int = 2
    ) -> Iterator[tuple[Dataset, Dataset | None]]:
        self._context(query_model)
        assert self._requested is not None
        found = self._requested.find(str(query_model), dataset)
        return self._responses(found, lambda one: (_status(one[0]), one[1]))

    def send_c_move(
        self, dataset: Dataset, move_aet: str, query_model: str, msg_id: int = 1, priority: int = 2
    ) -> Iterator[tuple[Dataset, Dataset | None]]:
        self._context(query_model)
        assert self._requested is not None
        moved = self._requested.move(str(query_model), dataset, move_aet)
        return self._responses(moved, _progress)

    def send_c_get(
        self, dataset: Dataset, query_model: str, msg_id: int = 1, priority: int = 2
    ) -> Iterator[tuple[Dataset, Dataset | None]]:
        self._context(query_model)
        assert self._requested is not None
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        got = self._requested.get(
            str(query_model),
            dataset,
            LandingPlace(folder=folder, max_bytes=MOST_INSTANCE_BYTES, received=self._received),
        )
        return self._responses(got, _progress)

    def _received(self, instance: Received) -> None:
        """Show the test's handler what has landed; what it would answer, nobody asks."""
        handler, arguments = self._handlers.get(evt.EVT_C_STORE, (None, None))
        if handler is not None:
            event = SimpleNamespace(dataset=dcmread(instance.path))
            handler(event, *(arguments or ()))

    def _responses(
        self, answers: Iterator[Said], written: Callable[[Said], tuple[Dataset, Dataset | None]]
    ) -> Iterator[tuple[Dataset, Dataset | None]]:
        """Ask now, as pynetdicom does, and give what comes when it is wanted."""
        first = self._next(answers, written)

        def rest() -> Iterator[tuple[Dataset, Dataset | None]]:
            one = first
            while one is not None:
                yield one
                one = self._next(answers, written)

        return rest()

    def _next(
        self, answers: Iterator[Said], written: Callable[[Said], tuple[Dataset, Dataset | None]]
    ) -> tuple[Dataset, Dataset | None] | None:
        return self._said(lambda: next((written(one) for one in answers), None), (Dataset(), None))

    def _ask(
        self,
        operation: Operation,
        class_uid: Any,
        meta_uid: Any,
        data_set: Dataset | None = None,
        **fields: Any,
    ) -> tuple[Dataset, Dataset | None]:
        self._context(meta_uid or class_uid)
        message = Message(
            operation=operation,
            sop_class_uid=str(class_uid),
            fields={key: one for key, one in fields.items() if one is not None},
            data_set=data_set,
            context_uid=meta_uid and str(meta_uid),
        )
        assert self._requested is not None
        try:
            return self._said(lambda: _answer(self._requested.ask(message)), (Dataset(), None))
        except ValueError as refused:
            what = words(DATA_OF[operation]) if operation in DATA_OF else ""
            raise ValueError(f"Failed to encode the supplied '{what}' dataset") from refused
        except InstanceUnreadable:
            return _status(0x0110), None  # what pynetdicom makes of it, on this side only

    def send_n_create(
        self,
        dataset: Dataset | None,
        class_uid: Any,
        instance_uid: Any = None,
        msg_id: int = 1,
        meta_uid: Any = None,
    ) -> Any:
        return self._ask(
            Operation.N_CREATE, class_uid, meta_uid, dataset, AffectedSOPInstanceUID=instance_uid
        )

    def send_n_set(
        self,
        dataset: Dataset,
        class_uid: Any,
        instance_uid: Any,
        msg_id: int = 1,
        meta_uid: Any = None,
    ) -> Any:
        return self._ask(
            Operation.N_SET, class_uid, meta_uid, dataset, RequestedSOPInstanceUID=instance_uid
        )

    def send_n_get(
        self,
        identifier_list: Any,
        class_uid: Any,
        instance_uid: Any,
        msg_id: int = 1,
        meta_uid: Any = None,
    ) -> Any:
        return self._ask(
            Operation.N_GET,
            class_uid,
            meta_uid,
            RequestedSOPInstanceUID=instance_uid,
            AttributeIdentifierList=[int(Tag(one)) for one in identifier_list or ()] or None,
        )

    def send_n_action(
        self,
        dataset: Dataset | None,
        action_type: int,
        class_uid: Any,
        instance_uid: Any,
        msg_id: int = 1,
        meta_uid: Any = None,
    ) -> Any:
        return self._ask(
            Operation.N_ACTION,
            class_uid,
            meta_uid,
            dataset,
            RequestedSOPInstanceUID=instance_uid,
            ActionTypeID=action_type,
        )

    def send_n_delete(
        self, class_uid: Any, instance_uid: Any, msg_id: int = 1, meta_uid: Any = None
    ) -> Any:
        return self._ask(
            Operation.N_DELETE, class_uid, meta_uid, RequestedSOPInstanceUID=instance_uid
        )[0]


def words(keyword: str) -> str:
    """Write a keyword as pynetdicom's messages do."""
    return re.sub("(?<=[a-z])(?=[A-Z])", " ", keyword)


def _status(status: int, **fields: object) -> Dataset:
    said = Dataset()
    said.Status = status
    for keyword, value in fields.items():
        setattr(said, keyword, list(value) if isinstance(value, tuple) else value)
    return said


def _progress(answer: RetrieveResponse) -> tuple[Dataset, Dataset | None]:
    progress = answer.progress
    status = _status(
        answer.status,
        NumberOfRemainingSuboperations=progress.remaining,
        NumberOfCompletedSuboperations=progress.completed,
        NumberOfFailedSuboperations=progress.failed,
        NumberOfWarningSuboperations=progress.warning,
    )
    identifier = None
    if not answer.pending and answer.status:
        identifier = Dataset()
        identifier.FailedSOPInstanceUIDList = list(progress.failed_sop_instance_uids) or ""
    return status, identifier


def _answer(answer: Answer) -> tuple[Dataset, Dataset | None]:
    said = {key: one for key, one in answer.fields.items() if key in CAN_BE_SAID}
    status = _status(answer.status, **said)
    if code_to_category(answer.status) not in ("Success", "Warning"):
        return status, None
    return status, answer.data_set or Dataset()


def _proposals(
    contexts: Sequence[PresentationContext], roles: Sequence[SCP_SCU_RoleSelectionNegotiation]
) -> list[Proposal]:
    turned = {str(one.sop_class_uid) for one in roles if one.scp_role}
    return [
        Proposal(
            sop_class_uid=str(one.abstract_syntax),
            transfer_syntax_uids=tuple(map(str, one.transfer_syntax)),
            scp_role=str(one.abstract_syntax) in turned,
        )
        for one in contexts
    ]


def _seconds(timeout_s: float | None) -> float:
    return NEVER_S if timeout_s is None else timeout_s


def _opened(ae: AE, addr: Any, port: int, more: dict[str, Any]) -> Opened:
    """Open an association of ours by the arguments of ``AE.associate``."""
    items = list(more.pop("ext_neg", None) or ())
    wanted = more.pop("contexts", None) or ae.requested_contexts
    handlers = more.pop("evt_handlers", None) or ()
    peer = Peer(ae_title=AETitle(more.pop("ae_title", "ANY-SCP")), host=addr, port=port)
    max_pdu_bytes = more.pop("max_pdu", 16_382) or 131_072
    if more or any(not isinstance(one, SCP_SCU_RoleSelectionNegotiation) for one in items):
        raise TypeError("ours negotiates roles, and nothing else of that")
    bounds = Bounds(
        artim_timeout_s=_seconds(ae.acse_timeout),
        dimse_timeout_s=_seconds(ae.dimse_timeout),
        network_timeout_s=_seconds(ae.network_timeout),
        connect_timeout_s=_seconds(ae.connection_timeout),
        max_pdu_bytes=max_pdu_bytes,
    )
    one = Opened(ae, peer, wanted, handlers)
    one.open(_proposals(wanted, items), bounds)
    return one


@contextmanager
def installed(patch: Any) -> Iterator[None]:
    """Put ours in place of theirs; afterwards whatever a test left open is closed."""
    opened: list[Opened] = []
    servers: list[Any] = []
    start, theirs = AE.start_server, AE.associate

    def begin(self: AE, addr: Any, port: int, **more: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():  # a C-MOVE of their acceptor
            return theirs(self, addr, port, **more)
        opened.append(_opened(self, addr, port, more))
        return opened[-1]

    def started(self: AE, *args: Any, **more: Any) -> Any:
        servers.append(start(self, *args, **more))
        return servers[-1]

    serve = BaseServer.serve_forever  # looks for its end every half second, in every test
    patch.setattr(BaseServer, "serve_forever", lambda self: serve(self, LOOK_S))
    patch.setattr(AE, "associate", begin)
    patch.setattr(AE, "start_server", started)
    patch.setattr("pacs.association.requestor.silence", lambda: None)  # tests read its log
    try:
        yield
    finally:
        for one in opened:
            one.abort()
        for server in servers:
            if server in server.ae._servers:
                server.shutdown()
