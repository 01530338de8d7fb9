"""One association, from its first byte to its last, on our side of it. PS3.8 Section 7, PS3.7 Annex D.

Owns the order of things: admission, negotiation, sessions, requests one by
one, and the end. Refuses to decide any of them; each has its module.
"""

import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Final

from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    A_RELEASE,
)
from pynetdicom.transport import AddressInformation

from pacs.association.acceptance import StoreOpener, agree, answer
from pacs.association.admission import CONGESTION, Host, Rejected, admit, candidate_of
from pacs.association.exchange import receive
from pacs.association.identifiers import encode_identifier
from pacs.association.intake import Arrived, Intake, IntakeBounds
from pacs.association.message import Message
from pacs.association.negotiation import (
    Agreed,
)
from pacs.association.pdu import PduBounds
from pacs.association.sending import AssociationDelivery
from pacs.association.serving import (
    RequestServer,
    ResponseUnsendable,
    ServingBounds,
    encode_request,
    send,
)
from pacs.association.upper_layer import Transport, UpperLayer
from pacs.core.caller import Caller
from pacs.core.errors import OperationUnsupported, PeerUnreachable
from pacs.core.identifiers import (
    AETitle,
    new_object_id,
)
from pacs.core.ports import Delivery

LOGGER = logging.getLogger("pacs.association")

TICK_S: Final = 0.2
"""How often an idle association looks whether it has been idle for too long."""


class ServedAssociation(Association):
    """One accepted connection and the association on it."""

    def __init__(
        self,
        entity: ApplicationEntity,
        host: Host,
        *,
        connection: socket.socket,
        address: tuple[str, int],
        ended: Callable[["ServedAssociation"], None],
    ) -> None:
        super().__init__(entity, "acceptor")
        self.id = str(new_object_id())
        self.name = "pacs-association"
        self._host, self._address, self._ended = host, address, ended
        bounds = host.settings.association
        self.intake = Intake(
            self,
            IntakeBounds(
                command_bytes=bounds.max_command_bytes,
                identifier_bytes=bounds.max_identifier_bytes,
                queued_messages=bounds.max_queued_messages,
            ),
        )
        self.upper_layer = UpperLayer(
            self,
            self,
            PduBounds(
                associate_bytes=bounds.max_associate_pdu_bytes, data_bytes=bounds.max_pdu_bytes
            ),
        )
        self.dimse, self.dul = self.intake, self.upper_layer
        self.acse_timeout = bounds.artim_timeout_s
        self.network_timeout = bounds.network_timeout_s
        self.dimse_timeout = bounds.dimse_timeout_s
        self.set_socket(Transport(self, connection))
        self.requestor.address_info = AddressInformation.from_tuple(address)
        self._draining = threading.Event()
        self._message_id = 0
        self._serving: int | None = None
        self._extended: Mapping[str, bytes] = {}
        self._agreed: Mapping[int, Agreed] = {}

    def _bind_defaults(self) -> None:
        """Bind nothing that logs; pynetdicom's handlers print what they are given."""
        for event in evt._INTERVENTION_EVENTS:
            self.bind(event, evt.get_default_handler(event))

    # --- told by the upper layer, from its thread -------------------------------

    def on_end(self) -> None:
        """The association no longer exists."""
        self.is_established = False
        self.is_aborted = self.is_aborted or not self.is_released
        self.intake.msg_queue.put((None, None))
        self.intake.wake()

    def on_indication(self) -> None:
        """A release or an abort waits to be seen."""
        self.intake.wake()

    @property
    def within_message(self) -> bool:
        """Tell whether a message has begun to arrive and has not ended."""
        return self.intake.within_message

    # --- told by the server, from its threads ------------------------------------

    def drain(self) -> None:
        """End as soon as nothing is being served; at once where nothing is associated."""
        self._draining.set()
        self.intake.wake()
        if not self.is_established and self.requestor.primitive is None:
            self.upper_layer.abandon()

    def abandon(self, deadline_s: float) -> None:
        """End now, whatever is being served; an A-ABORT gets until then to leave."""
        while self.upper_layer.is_alive() and time.monotonic() < deadline_s:
            if self.upper_layer.ended:
                break
            time.sleep(0.005)
        self.upper_layer.abandon()

    def abort(self, block: bool = False) -> None:
        """Send A-ABORT once; never waits."""
        if self.is_aborted or self.is_released:
            return
        self.acse.send_abort(0x00)

    # --- the association's own thread ----------------------------------------------

    def run_reactor(self) -> None:
        """Live from connection to its end."""
        self._started_dul = True
        try:
            self.upper_layer.start()
            with ExitStack() as stack:
                if self._establish(stack):
                    self._serve_until_end()
        except Exception as failure:  # noqa: BLE001 - one association's failure must not be another's
            LOGGER.error(
                "association-failed association=%s kind=%s", self.id, type(failure).__name__
            )
        finally:
            self._finish()

    def _finish(self) -> None:
        if self.is_established:
            self.abort()
        self.intake.close()
        if self.upper_layer.ident is not None:
            self.upper_layer.join(self._host.settings.association.artim_timeout_s + 1)
            self.upper_layer.abandon()
            self.upper_layer.join()
        self._ended(self)
        LOGGER.info("association-ended association=%s", self.id)

    def _establish(self, stack: ExitStack) -> bool:
        """Admit, negotiate and accept, or reject; tell whether there is an association."""
        request: object = (
            self.upper_layer.to_user_queue.get()
        )  # the upper layer never ends without one
        if not isinstance(request, A_ASSOCIATE):
            return False
        self.requestor.primitive = request
        candidate = candidate_of(request, *self._address)
        try:
            caller = admit(request, candidate, host=self._host, stack=stack, association=self.id)
            self._accept(caller, candidate.called_ae_title, stack)
        except Rejected as rejected:
            self.acse.send_reject(*rejected.answer)
            return False
        return True

    def _accept(self, caller: Caller, called: AETitle, stack: ExitStack) -> None:
        agreement = agree(self, self._host)
        classes = frozenset(one.abstract_syntax for one in agreement.accepted.values())
        try:
            door = stack.enter_context(self._host.services.open(caller, classes))
            self._extended = answer(self, agreement, self._host)
        except Exception as failure:  # noqa: BLE001 - a service that cannot begin is not offered to be waited for
            LOGGER.error("session-failed association=%s kind=%s", self.id, type(failure).__name__)
            raise Rejected(CONGESTION) from None
        bounds = self._host.settings.association
        self._bounds = ServingBounds(
            pdu_bytes=bounds.max_pdu_bytes,
            queued_pdus=bounds.max_queued_pdus,
            identifier_bytes=bounds.max_identifier_bytes,
        )
        self._requests = RequestServer(
            self,
            public=Public(self),
            door=door,
            caller=caller,
            called_ae_title=called,
            bounds=self._bounds,
        )
        self._agreed = agreement.accepted
        self.intake.open(
            agreement.accepted,
            StoreOpener(
                spool=self._host.spool, association=self.id, caller=caller, called_ae_title=called
            ),
        )
        self.is_established = True
        self.acse.send_accept()
        LOGGER.info("association association=%s contexts=%d", self.id, len(agreement.accepted))

    def _serve_until_end(self) -> None:
        while not self._has_ended():
            item = self.intake.next(TICK_S)
            if item is None or not self.is_established:
                if isinstance(item, Arrived):
                    item.discard()
                continue
            try:
                self._serve(item)
            except PeerUnreachable as gone:
                LOGGER.info("association-lost association=%s why=%s", self.id, gone)
                self.abort()
            except ResponseUnsendable:
                continue
            finally:
                self.upper_layer._idle_timer.restart()  # the peer was silent because it waited

    def _serve(self, item: Arrived | Message) -> None:
        if isinstance(item, Message):
            self._send_posted(item)
            return
        self._serving = item.message_id
        try:
            self._requests.serve(item)
        finally:
            self._serving = None
            self.intake.finished(item.message_id)

    def _has_ended(self) -> bool:
        indication: object = self.upper_layer.peek_next_pdu()
        if isinstance(indication, A_RELEASE):
            self.is_released = True
            self.is_established = False
            self.acse.send_release(is_response=True)
            return True
        if indication is not None or not self.is_established or not self.upper_layer.is_alive():
            return True
        draining = self._draining.is_set() and self.intake.idle
        if draining or (self.intake.idle and self.upper_layer.idle_timer_expired()):
            LOGGER.info("association-%s association=%s", "drained" if draining else "idle", self.id)
            self.abort()
            return True
        return False

    # --- what handlers may touch ----------------------------------------------------

    def delivery(self) -> Delivery:
        """Send C-STORE sub-operations on this association (C-GET)."""
        return AssociationDelivery(
            self,
            as_acceptor=True,
            max_queued_pdus=self._host.settings.association.max_queued_pdus,
            reserved_message_id=self._serving,
        )

    def negotiated(self, sop_class_uid: str) -> bytes:
        """Service Class Application Information we answered with."""
        return self._extended.get(sop_class_uid, b"")

    def post(self, message: Message) -> None:
        """Put a message of ours in line. Raises ``OperationUnsupported`` without a context for it."""
        if self._context_of(message) is None:
            raise OperationUnsupported("no presentation context was accepted for the message")
        self.intake.post(message)

    def _context_of(self, message: Message) -> Agreed | None:
        fitting = (
            one for one in self._agreed.values() if one.abstract_syntax == message.sop_class_uid
        )
        return next(fitting, None)

    def _send_posted(self, message: Message) -> None:
        context = self._context_of(message)
        assert context is not None
        data = b""
        if message.data_set is not None:
            data = encode_identifier(message.data_set, context.transfer_syntax)
        self._message_id = self._message_id % 0xFFFF + 1
        command = encode_request(
            message.operation,
            message.sop_class_uid,
            message_id=self._message_id,
            fields=message.fields,
            with_data_set=bool(data),
        )
        send(self, context.context_id, (command, data), self._bounds)
        _, response = receive(self)
        LOGGER.info("post-answered association=%s status=%04X", self.id, response.Status or 0)


class Public:
    """The association as handlers see it; implements ``message.OpenAssociation``."""

    session: object = None

    def __init__(self, association: ServedAssociation) -> None:
        self.id = association.id
        self.max_pdu_bytes = int(association.requestor.maximum_length or 0)
        self.negotiated = association.negotiated
        self.delivery = association.delivery
        self.post = association.post
