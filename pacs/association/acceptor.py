"""One association, from its first byte to its last, on our side of it. PS3.8 Section 7, PS3.7 Annex D.

Owns the order of things: admission, negotiation, sessions, requests one by
one, and the end, all in one thread. Refuses to decide any of them; each has
its module.
"""

import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace

from pynetdicom.pdu_primitives import A_ASSOCIATE

from pacs.association.acceptance import StoreOpener, acceptance, agree, extended, max_length
from pacs.association.admission import CONGESTION, Host, Rejected, admit, candidate_of
from pacs.association.connection import Connection
from pacs.association.exchange import Exchange
from pacs.association.intake import Arrived
from pacs.association.message import Message
from pacs.association.reporting import ExchangeWay
from pacs.association.sending import AssociationDelivery
from pacs.association.serving import RequestServer, ResponseUnsendable
from pacs.association.tls import ServerTls
from pacs.association.upper_layer import AWAITING_REQUEST, DECIDING, UpperLayer
from pacs.core.caller import Caller
from pacs.core.errors import PeerUnreachable
from pacs.core.identifiers import AETitle, new_object_id
from pacs.core.sending_ports import Delivery

LOGGER = logging.getLogger("pacs.association")

FIRST_MESSAGE_ID = 0x8000
"""Where we start counting, away from the small ids of the peer's own requests."""


class ServedAssociation(threading.Thread):
    """One accepted connection and the association on it."""

    def __init__(
        self,
        host: Host,
        *,
        connection: socket.socket,
        address: tuple[str, int],
        ended: Callable[["ServedAssociation"], None],
        tls: ServerTls | None = None,
    ) -> None:
        super().__init__(name="pacs-association", daemon=True)
        self.id = str(new_object_id())
        self.address = address
        self.caller: Caller | None = None
        """Who it was resolved to; nobody until it is admitted."""
        self._host, self._ended = host, ended
        self._bounds = host.settings.association
        self._draining = False
        self._connection = (
            tls.accept(connection, self._tls_refused) if tls else Connection(connection)
        )
        self.upper_layer = UpperLayer(self._connection, requestor=False, bounds=self._bounds)

    # --- told by the server, from its threads ------------------------------------

    def drain(self) -> None:
        """End as soon as nothing is being served; at once where nothing is associated."""
        self._draining = True
        if self.upper_layer.state == AWAITING_REQUEST:
            self.upper_layer.ask_abort()
        self.upper_layer.wake()

    def abort(self) -> None:
        """Have the association end with an A-ABORT as soon as its thread looks up."""
        self.upper_layer.ask_abort()

    def abandon(self, deadline_s: float) -> None:
        """End now, whatever is being served; an A-ABORT gets until then to leave."""
        self.join(max(0.0, deadline_s - time.monotonic()))
        self.upper_layer.shut_down()

    # --- the association's own thread ----------------------------------------------

    def run(self) -> None:
        """Live from connection to its end."""
        try:
            with ExitStack() as stack:
                exchange = self._establish(stack)
                if exchange is not None:
                    stack.callback(exchange.close)
                    self._serve_until_end(exchange)
        except PeerUnreachable as gone:
            LOGGER.info("association-lost association=%s why=%s", self.id, gone)
        except Exception as failure:  # noqa: BLE001 - one association's failure must not be another's
            LOGGER.error(
                "association-failed association=%s kind=%s", self.id, type(failure).__name__
            )
        finally:
            self._finish()

    def _finish(self) -> None:
        try:
            self.upper_layer.abort()
            self.upper_layer.linger()
        finally:
            LOGGER.info("association-ended association=%s", self.id)
            self._ended(self)

    def _establish(self, stack: ExitStack) -> Exchange | None:
        """Admit, negotiate and accept, or reject; give the exchange where there is an association."""
        while self.upper_layer.state == AWAITING_REQUEST:
            self.upper_layer.receive(self._bounds.artim_timeout_s)
        request = self.upper_layer.associate
        if self.upper_layer.state != DECIDING or request is None:
            return None
        candidate = replace(
            candidate_of(request, self.upper_layer.titles, *self.address),
            tls=self._connection.tls,
            certificate=self._connection.certificate,
        )
        try:
            caller = admit(request, candidate, host=self._host, stack=stack, association=self.id)
            self.caller = caller
            return self._accept(request, caller, candidate.called_ae_title, stack)
        except Rejected as rejected:
            self.upper_layer.reject(*rejected.answer)
            return None

    def _tls_refused(self, cause: str) -> None:
        """Note why no association can follow; the peer gets an alert and nothing else."""
        address, port = self.address
        LOGGER.info("tls-refused association=%s address=%s why=%s", self.id, address, cause)
        self._host.audit.record(
            "tls-refused", None, association=self.id, address=address, port=port, cause=cause
        )

    def _accept(
        self, request: A_ASSOCIATE, caller: Caller, called: AETitle, stack: ExitStack
    ) -> Exchange:
        agreement = agree(request, self._host, caller)
        classes = frozenset(one.abstract_syntax for one in agreement.accepted.values())
        bounds = self._bounds
        try:
            door = stack.enter_context(self._host.services.open(caller, classes))
            answers = extended(request, agreement, self._host)
            encoded = acceptance(
                request,
                agreement,
                answers,
                max_pdu_bytes=bounds.max_pdu_bytes,
                identity_response=caller.identity_response,
            )
        except Exception as failure:  # noqa: BLE001 - a service that cannot begin is not offered to be waited for
            LOGGER.error("session-failed association=%s kind=%s", self.id, type(failure).__name__)
            raise Rejected(CONGESTION) from None
        exchange = Exchange(
            self.upper_layer,
            agreement.accepted,
            bounds=bounds,
            begin_store=StoreOpener(
                spool=self._host.spool, association=self.id, caller=caller, called_ae_title=called
            ),
            peer_max_bytes=max_length(request),
            first_message_id=FIRST_MESSAGE_ID,
        )
        self._requests = RequestServer(
            exchange,
            public=Public(self.id, exchange, answers, max_length(request)),
            door=door,
            caller=caller,
            called_ae_title=called,
            host=self._host,
        )
        self.upper_layer.accept(encoded)
        LOGGER.info("association association=%s contexts=%d", self.id, len(agreement.accepted))
        stack.enter_context(self._host.services.opened(caller, ExchangeWay(exchange)))
        return exchange

    def _serve_until_end(self, exchange: Exchange) -> None:
        try:
            self._serve_while_established(exchange)
        except PeerUnreachable:
            if not self.upper_layer.released:
                raise
            LOGGER.info("released-while-served association=%s", self.id)
        self.upper_layer.answer_release()

    def _serve_while_established(self, exchange: Exchange) -> None:
        while self.upper_layer.established:
            exchange.send_posts()
            arrived = exchange.next_request()
            if arrived is not None:
                self._serve(exchange, arrived)
                continue
            if self._draining and exchange.idle:
                LOGGER.info("association-drained association=%s", self.id)
                return
            patience_s = exchange.patience_s(self._bounds.network_timeout_s)
            if not self.upper_layer.receive(patience_s) and not exchange.awaits:
                self._fall_silent(exchange)

    def _serve(self, exchange: Exchange, arrived: Arrived) -> None:
        try:
            self._requests.serve(arrived)
        except ResponseUnsendable:
            LOGGER.debug("request-failed association=%s", self.id)
        finally:
            exchange.finished()

    def _fall_silent(self, exchange: Exchange) -> None:
        """Silence within a message is the peer's fault, between two it is the end of an idle one."""
        LOGGER.info("association-idle association=%s", self.id)
        if exchange.within_message:
            self.upper_layer.refuse()
        else:
            self.upper_layer.abort()


class Public:
    """The association as handlers see it; implements ``message.OpenAssociation``."""

    session: object = None

    def __init__(
        self, name: str, exchange: Exchange, extended: Mapping[str, bytes], max_pdu_bytes: int
    ) -> None:
        self.id = name
        self.max_pdu_bytes = max_pdu_bytes
        self._exchange = exchange
        self._extended = extended

    def negotiated(self, sop_class_uid: str) -> bytes:
        """Service Class Application Information we answered with."""
        return self._extended.get(sop_class_uid, b"")

    def delivery(self) -> Delivery:
        """Send C-STORE sub-operations on this association (C-GET)."""
        return AssociationDelivery(self._exchange)

    def post(self, message: Message) -> None:
        """Put a message of ours in line. Raises ``OperationUnsupported`` without a context for it."""
        self._exchange.post(message)
