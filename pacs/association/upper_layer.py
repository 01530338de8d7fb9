"""The upper layer on one connection: bytes in and out, bounded in size and time. PS3.8 Section 9.

Owns the thread that reads and writes the socket and drives pynetdicom's state
machine. Refuses to decide who may associate and what messages mean. See
``overrides`` for what it changes and why.
"""

import logging
import queue
import select
import socket
import time
from typing import Final, Protocol

from pynetdicom import dul as pynetdicom_dul
from pynetdicom.association import Association
from pynetdicom.fsm import TRANSITION_TABLE
from pynetdicom.pdu import A_ABORT_RQ, A_ASSOCIATE_RQ, _PDUType
from pynetdicom.pdu_primitives import A_P_ABORT
from pynetdicom.transport import AssociationSocket

from pacs.association.pdu import (
    INVALID_PARAMETER,
    P_DATA,
    READ_BYTES,
    PduBounds,
    PduReader,
    PduRefused,
    ReceivedData,
)

LOGGER = logging.getLogger("pacs.association")

IDLE, AWAITING_REQUEST, AWAITING_CLOSE = "Sta1", "Sta2", "Sta13"
CLOSED, INVALID, ARTIM_EXPIRED, P_DATA_RECEIVED = "Evt17", "Evt19", "Evt18", "Evt10"
FROM_USER = frozenset({"Evt1", "Evt7", "Evt8", "Evt9", "Evt11", "Evt14", "Evt15"})
SHORTEST_REST_S: Final = 0.001
LONGEST_REST_S: Final = 0.02
SENDS_BEFORE_READING: Final = 8
"""P-DATA written at most before looking whether the peer has something to say (C-CANCEL)."""


class Transport(AssociationSocket):
    """The accepted socket; every single read or write is bounded in time."""

    def __init__(self, association: Association, connection: socket.socket) -> None:
        super().__init__(association, client_socket=connection)
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)

    @property
    def ready(self) -> bool:
        """Tell whether a read would return at once. ``select`` cannot look at fd 1024 and above."""
        return self.wait(0.0)

    def wait(self, timeout_s: float) -> bool:
        """Wait until a read would return at once, at most ``timeout_s``."""
        if self.socket is None or not self._is_connected:
            return False
        return bool(self._poll.poll(timeout_s * 1_000))

    def read(self, most_bytes: int) -> bytes:
        """Read what is there; empty when the connection is closed or lost."""
        try:
            return b"" if self.socket is None else self.socket.recv(most_bytes)
        except OSError:
            return b""

    def interrupt(self) -> None:
        """Shut the connection down, from any thread: reads and writes under way return."""
        connection = self.socket
        if connection is not None:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                LOGGER.debug("connection-gone-already")

    def _shutdown_socket(self) -> None:
        self.interrupt()
        if self.socket is not None:
            self.socket.close()


class Served(Protocol):
    """What the upper layer tells the association it works for."""

    def on_end(self) -> None:
        """The association no longer exists. Called from the upper layer's thread."""

    def on_indication(self) -> None:
        """Something waits in ``to_user_queue``. Called from the upper layer's thread."""

    @property
    def within_message(self) -> bool:
        """Tell whether a message has begun to arrive and has not ended."""


class UpperLayer(pynetdicom_dul.DULServiceProvider):
    """pynetdicom's upper layer with bounds; always leaves an indication when it ends."""

    def __init__(self, association: Association, served: Served, bounds: PduBounds) -> None:
        super().__init__(association)
        self.daemon = True
        self.name = "pacs-upper-layer"
        self._served = served
        self._reader = PduReader(bounds)
        self._abort_reason: int | None = None
        self._sent_in_a_row = 0
        self._rest_s = SHORTEST_REST_S
        self.ended = False

    def refuse(self, reason: int = 0) -> None:
        """Abort as the service provider (A-ABORT source 2). Only from this layer's thread."""
        self._abort_reason = reason
        self.event_queue.put(INVALID)

    def abandon(self) -> None:
        """End at once, from any thread."""
        self._kill_thread = True
        if isinstance(self.socket, Transport):
            self.socket.interrupt()

    def run_reactor(self) -> None:
        """Read, write and drive the state machine until the connection is gone."""
        self.assoc._dul_ready.set()
        self._idle_timer.start()
        try:
            while not self._kill_thread:
                self._step()
        except Exception as failure:  # noqa: BLE001 - a stranger's bytes must not end a thread without a trace
            LOGGER.warning("upper-layer-failed kind=%s", type(failure).__name__)
        finally:
            self._leave()

    def _leave(self) -> None:
        if isinstance(self.socket, Transport):
            self.socket._shutdown_socket()
        self.state_machine.transition(IDLE)
        self.to_user_queue.put(A_P_ABORT())
        self._served.on_end()

    def _step(self) -> None:
        if self.event_queue.empty():
            self._look_for_events()
        try:
            event = self.event_queue.get_nowait()
        except queue.Empty:
            self._rest()
            return
        self._rest_s = SHORTEST_REST_S
        state = self.state_machine.current_state
        if (event, state) not in TRANSITION_TABLE:
            self._drop(event)
            return
        self.state_machine.do_action(event)
        if not self.to_user_queue.empty():
            self._served.on_indication()
        if self.state_machine.current_state in (IDLE, AWAITING_CLOSE) and not self.ended:
            self.ended = True
            self._served.on_end()

    def _look_for_events(self) -> None:
        state = self.state_machine.current_state
        if state in (AWAITING_REQUEST, AWAITING_CLOSE) and self.artim_timer.expired:
            self.event_queue.put(ARTIM_EXPIRED)
        elif self._process_recv_primitive():
            return
        elif self._is_transport_event():
            self._idle_timer.restart()
        elif self._is_stuck():
            LOGGER.info("silence-within-message")
            self._idle_timer.restart()
            self.refuse()

    def _is_stuck(self) -> bool:
        """Silence between two messages is the association's matter, within one it is ours."""
        within = self._reader.partial or self._served.within_message
        state = self.state_machine.current_state
        waiting = state not in (IDLE, AWAITING_REQUEST, AWAITING_CLOSE)
        return waiting and within and self._idle_timer.expired

    def _rest(self) -> None:
        """Wait for the peer; longer and longer while nothing happens, as ours cannot wake us."""
        if isinstance(self.socket, Transport) and self.socket.socket is not None:
            self.socket.wait(self._rest_s)
        else:
            time.sleep(self._rest_s)
        self._rest_s = min(LONGEST_REST_S, 1.25 * self._rest_s)

    def _drop(self, event: str) -> None:
        """An event the state has no use for: ours came too late, the peer's ends the connection."""
        if event in FROM_USER:
            self.to_provider_queue.get_nowait()
        else:
            self._kill_thread = True

    def _process_recv_primitive(self) -> bool:
        """Offer one primitive of ours; now and then nothing, so that the peer is heard too."""
        if self._sent_in_a_row >= SENDS_BEFORE_READING and self.socket and self.socket.ready:
            self._sent_in_a_row = 0
            return False
        offered = super()._process_recv_primitive()
        self._sent_in_a_row = self._sent_in_a_row + 1 if offered else 0
        return offered

    def _is_transport_event(self) -> bool:
        transport = self.socket
        if not isinstance(transport, Transport) or transport.socket is None:
            self.event_queue.put(CLOSED)
            return False
        if not transport.ready:
            return False
        if self.state_machine.current_state != AWAITING_CLOSE:
            self._read_pdu_data()
        elif not transport.read(READ_BYTES):
            self.event_queue.put(CLOSED)
        return True

    def _read_pdu_data(self) -> None:
        """Read what is there of one PDU, and when it is whole tell the state machine."""
        assert isinstance(self.socket, Transport)
        piece = self.socket.read(self._reader.wanted_bytes)
        if not piece:
            self.event_queue.put(CLOSED)
            return
        try:
            pdu = self._reader.feed(piece)
            if pdu is not None:
                self._take(pdu)
        except PduRefused as refused:
            LOGGER.info("pdu-refused reason=%d", refused.reason)
            self.refuse(refused.reason)

    def _take(self, encoded: bytes) -> None:
        if encoded[0] == P_DATA:
            self._recv_pdu.put(ReceivedData(encoded))  # type: ignore[arg-type] # duck of P_DATA_TF
            self.event_queue.put(P_DATA_RECEIVED)
            return
        try:
            pdu, event = self._decode_pdu(bytearray(encoded))
            if isinstance(pdu, A_ASSOCIATE_RQ):
                pdu.to_primitive()  # what cannot become a primitive would end the state machine
        except Exception as failure:  # noqa: BLE001 - pynetdicom raises whatever the bytes provoke
            LOGGER.info("pdu-undecodable kind=%s", type(failure).__name__)
            raise PduRefused(INVALID_PARAMETER) from None
        self._recv_pdu.put(pdu)
        self.event_queue.put(event)

    def _send(self, pdu: _PDUType) -> None:
        if isinstance(pdu, A_ABORT_RQ) and self._abort_reason is not None:
            pdu.source = 0x02
            pdu.reason_diagnostic = self._abort_reason
        super()._send(pdu)
