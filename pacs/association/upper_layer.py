"""The upper layer on one connection, driven by the thread that uses it. PS3.8 Section 9.

Owns the receive buffer, the timers and the state, which moves only by PS3.8
Table 9-10. Nothing happens behind the back of its thread: it reads when asked
to, and while it waits to write. Refuses to decide who may associate, what
messages mean and how bytes travel (``connection``).
"""

import logging
import mmap
import time
from collections import deque
from collections.abc import Iterable
from typing import Final, NoReturn, Protocol

from pynetdicom.fsm import ACTIONS, TRANSITION_TABLE
from pynetdicom.pdu_primitives import A_ASSOCIATE

from config.settings import Association
from pacs.association.associate import DECODERS, decode_associate
from pacs.association.connection import Connection, Piece
from pacs.association.pace import Pace, Progress
from pacs.association.pdu import RELEASE_RP, RELEASE_RQ, PduReader, PduRefused
from pacs.core.errors import PeerUnreachable

LOGGER = logging.getLogger("pacs.association")

RECEIVE_BYTES: Final = 262_144
LEAST_BYTES_PER_S: Final = 4_096  # who reads more slowly than a modem holds a thread for nothing
CLOSED, AWAITING_REQUEST, DECIDING = "Sta1", "Sta2", "Sta3"
AWAITING_ANSWER, ESTABLISHED, ENDING = "Sta5", "Sta6", "Sta13"
PEER_RELEASES: Final = frozenset({"Sta8", "Sta9", "Sta12"})
"""States in which our A-RELEASE response is awaited; Sta9 and Sta12 after a collision."""

UNEXPECTED_PDU: Final = 2
"""Reason of A-ABORT from the service provider, PS3.8 Table 9-26."""
VERSION_UNSUPPORTED: Final = (1, 2, 2)
"""Result, source and reason of A-ASSOCIATE-RJ, PS3.8 Table 9-21."""
_EVENTS: Final = {1: "Evt6", 2: "Evt3", 3: "Evt4", 5: "Evt12", 6: "Evt13", 7: "Evt16"}


class User(Protocol):
    """Who takes the P-DATA of an established association."""

    def takes(self, context_id: int, control: int, piece: memoryview, ended: bool) -> bool:
        """Take a piece of a PDV; tell whether reading shall pause. Raises ``PduRefused``."""


class UpperLayer:
    """One connection. Everything but ``wake``, ``ask_abort`` and ``shut_down`` is for one thread."""

    def __init__(self, connection: Connection, *, requestor: bool, bounds: Association) -> None:
        self.state = CLOSED
        self.user: User | None = None
        self.associate: A_ASSOCIATE | None = None
        self._connection = connection
        self._requestor = requestor
        self._artim_timeout_s = bounds.artim_timeout_s
        self._silence_s = bounds.network_timeout_s  # of a PDU, and of a peer that shall read
        if requestor:
            self._silence_s = min(self._silence_s, bounds.dimse_timeout_s)
        self._reader = PduReader(bounds, self)
        self._view = memoryview(mmap.mmap(-1, RECEIVE_BYTES))
        self._start = self._end = 0
        self._garbled = self._within_send = self._abort_asked = False
        self._reason = UNEXPECTED_PDU
        self._artim_s = self._pdu_deadline_s = float("inf")
        self._pace = Pace(window_s=self._silence_s, least_bytes=bounds.min_progress_bytes)
        self.titles = ("", "")
        """Called and calling AE title as the peer wrote them, padding aside."""
        self._do("Evt1" if requestor else "Evt5")

    # --- for other threads ---------------------------------------------------------

    def wake(self) -> None:
        """Let a ``receive`` that waits return."""
        self._connection.wake()

    def ask_abort(self) -> None:
        """Have the association's thread abort as soon as it comes here."""
        self._abort_asked = True
        self.wake()

    def shut_down(self) -> None:
        """Cut the connection: reads and writes under way return."""
        self._connection.shut_down()

    # --- primitives of the local user ------------------------------------------------

    def request(self, pdu: bytes) -> None:
        """Send an A-ASSOCIATE-RQ."""
        self._do("Evt2", pdu)

    def accept(self, pdu: bytes) -> None:
        """Send an A-ASSOCIATE-AC. Raises ``PeerUnreachable``."""
        self._do("Evt7", pdu)

    def reject(self, result: int, source: int, reason: int) -> None:
        """Send an A-ASSOCIATE-RJ. Raises ``PeerUnreachable``."""
        self._do("Evt8", _rejection(result, source, reason))

    def release(self) -> None:
        """Release, and wait for the answer. A collision is resolved. Raises ``PeerUnreachable``."""
        self._do("Evt11", RELEASE_RQ)
        while self.state not in (CLOSED, ENDING):
            self.answer_release()
            if not self.receive(self._artim_timeout_s):
                self.abort()

    @property
    def released(self) -> bool:
        """Tell whether the peer asks for a release that is not answered yet."""
        return self.state in PEER_RELEASES

    def answer_release(self) -> None:
        """Answer a release the peer asks for, if it does."""
        if self.released:
            self._do("Evt14", RELEASE_RP)

    def abort(self) -> None:
        """Send A-ABORT as the service user, once; never waits."""
        if self.state not in (CLOSED, ENDING):
            self._do("Evt15" if self.state != AWAITING_REQUEST else "Evt18")

    def refuse(self, reason: int = 0) -> None:
        """Abort as the service provider."""
        self._reason = reason
        self._garbled = True
        self._do("Evt19")

    def linger(self) -> None:
        """Wait, within ARTIM, for the peer to close; so that it can read what was sent last."""
        while self.state == ENDING and time.monotonic() < self._artim_s:
            self.receive(self._artim_timeout_s)
        self._close()

    # --- sending ---------------------------------------------------------------------

    @property
    def established(self) -> bool:
        """Tell whether P-DATA can be exchanged; honours what another thread asked for."""
        if self._abort_asked:
            self.abort()
        return self.state == ESTABLISHED

    def require(self) -> None:
        """Return when P-DATA can be exchanged. Raises ``PeerUnreachable``."""
        if not self.established:
            raise PeerUnreachable("the association has ended")

    def give_up(self, reason: str) -> NoReturn:
        """Abort, and raise ``PeerUnreachable``."""
        self.abort()
        raise PeerUnreachable(reason)

    def send(self, pieces: Iterable[Piece]) -> None:
        """Write P-DATA gathered from pieces. Raises ``PeerUnreachable``."""
        self.require()
        self._write(pieces)

    def _write(self, pieces: Iterable[Piece]) -> None:
        """Write everything; reads while the peer takes nothing, so that neither waits for the other."""
        stuck_s = late_s = None
        waiting = deque(pieces)
        self._within_send = bool(waiting)
        while self._within_send:
            try:
                self._within_send = not self._connection.write(waiting)
            except BlockingIOError:
                stuck_s = stuck_s or time.monotonic() + self._silence_s
                late_s = late_s or stuck_s + self._left_bytes(waiting) / LEAST_BYTES_PER_S
                self._await_room(min(stuck_s, late_s))
                continue
            except OSError:
                self._do("Evt17")
                raise PeerUnreachable("the association has ended") from None
            stuck_s = None

    def _left_bytes(self, waiting: Iterable[Piece]) -> int:
        return self._connection.unsent_bytes + sum(map(len, waiting))

    def _await_room(self, deadline_s: float) -> None:
        state = self.state
        self._parse_all(state)
        rest_s = deadline_s - time.monotonic()
        readable = self._connection.await_room(max(0.0, rest_s))
        if rest_s <= 0 or self._abort_asked:
            self._close()  # in the middle of a PDU there is no room for an A-ABORT
            raise PeerUnreachable("aborted" if self._abort_asked else "the peer stopped reading")
        if readable:
            self._fill()
            self._parse_all(state)

    def _parse_all(self, state: str) -> None:
        """Walk all that was read. Raises ``PeerUnreachable`` where it leads out of ``state``."""
        while self._parse():
            continue
        if self.state != state:
            self._close()
            raise PeerUnreachable("the association has ended")

    # --- receiving -------------------------------------------------------------------

    def receive(self, timeout_s: float) -> bool:
        """Take what has arrived, or wait for something. ``False`` after ``timeout_s`` of nothing."""
        if self.state == CLOSED or self._parse():
            return True
        now_s = time.monotonic()
        deadline_s = now_s + timeout_s
        if timeout_s and self.state == ESTABLISHED and self._pace.end_s() <= now_s:
            return self._out_of_time()
        while not self._fill():
            if not timeout_s:
                return False
            bound_s = self._bound_s()
            rest_s = min(deadline_s, bound_s) - time.monotonic()
            if rest_s <= 0:
                return bound_s < deadline_s and self._out_of_time()
            if self._connection.await_data(rest_s):
                return self._woken()
        self._parse()
        return True

    def watch(self, progress: Progress) -> None:
        """Have each message under way bring its share in time; see ``Pace``."""
        self._pace.progress = progress

    def restart_timer(self) -> None:
        """The peer was silent, or what it began was left lying, because we were busy."""
        self._pdu_deadline_s = float("inf")
        self._pace.restart()

    def _woken(self) -> bool:
        if self._abort_asked:
            self.abort()
        return True

    def _bound_s(self) -> float:
        """When the peer's time is over: for its request or its closing, or for a PDU it began."""
        if self.state in (AWAITING_REQUEST, ENDING):
            return self._artim_s
        within = self._reader.within_pdu or self._start != self._end
        if not within:
            self._pdu_deadline_s = float("inf")
        elif self._pdu_deadline_s == float("inf"):
            self._pdu_deadline_s = time.monotonic() + self._silence_s
        return min(self._pdu_deadline_s, self._pace.end_s())

    def _out_of_time(self) -> bool:
        if self.state in (AWAITING_REQUEST, ENDING):
            self._do("Evt18")
        else:
            LOGGER.info("silence-within-message")
            self.refuse()
        return True

    def _fill(self) -> bool:
        """Read what is there; ``False`` when nothing is."""
        rest = self._end - self._start
        if rest and self._start:
            self._view[:rest] = bytes(self._view[self._start : self._end])
        self._start, self._end = 0, rest
        try:
            size = self._connection.read_into(self._view[rest:])
        except BlockingIOError:
            return False
        except OSError:
            size = 0
        if not size:
            self._do("Evt17")
        self._end += size
        return True

    def _parse(self) -> bool:
        """Walk what was read; tell whether that led anywhere."""
        if self._start == self._end:
            return False
        if self._garbled:
            self._start = self._end = 0
            return False
        try:
            taken = self._reader.read(self._view[self._start : self._end])
        except PduRefused as refused:
            LOGGER.info("refused reason=%d why=%s", refused.reason, refused)
            self.refuse(refused.reason)
            return True
        self._start += taken
        if not self._reader.within_pdu:
            self._pdu_deadline_s = float("inf")
        return taken > 0

    def begins_data(self) -> None:
        self._pdu_deadline_s = float("inf")  # on a slow line no read may ever end where a PDU does
        if self.state != ESTABLISHED:
            self._do("Evt10")

    def takes(self, context_id: int, control: int, piece: memoryview, ended: bool) -> bool:
        if self.state != ESTABLISHED or self.user is None:
            return False
        return self.user.takes(context_id, control, piece, ended)

    def takes_pdu(self, pdu: bytearray) -> bool:
        if pdu[0] in DECODERS and self.state != ENDING:
            self._decode(bytes(pdu))
        self._do(_EVENTS[pdu[0]])
        return True

    def _decode(self, encoded: bytes) -> None:
        decoded = decode_associate(encoded)
        if self.state in (AWAITING_REQUEST, AWAITING_ANSWER):
            self.associate, self.titles = decoded.primitive, decoded.titles
        self._unsupported = self._unsupported or not decoded.version_supported

    # --- PS3.8 Table 9-10 --------------------------------------------------------------

    _unsupported = False

    def _do(self, event: str, pdu: bytes = b"") -> None:
        """Go where the table says, and do what its action says."""
        action = TRANSITION_TABLE.get((event, self.state))
        if action is None:
            self._close()
            return
        state = ACTIONS[action][2]
        if action == "AE-6":
            state = ENDING if self._unsupported else DECIDING
            pdu = _rejection(*VERSION_UNSUPPORTED) if self._unsupported else b""
        elif action == "AR-8":
            state = "Sta9" if self._requestor else "Sta10"
        before, self.state = self.state, str(state)
        if self.state in (AWAITING_REQUEST, ENDING) and self.state != before:
            self._artim_s = time.monotonic() + self._artim_timeout_s
        if action in ("AA-1", "AA-7", "AA-8"):
            ours = event == "Evt15"
            self._abort(source=0 if ours else 2, reason=0 if ours else self._reason)
        elif self.state == CLOSED:
            self._close()
        elif pdu:
            self._write((pdu,))

    def _abort(self, *, source: int, reason: int) -> None:
        """Send A-ABORT if that is possible at once."""
        if not self._within_send:
            pdu = bytes((7, 0, 0, 0, 0, 4, 0, 0, source, reason))
            try:
                if self._connection.write_now(pdu):
                    return
            except OSError:
                LOGGER.debug("no-room-for-abort")
        self._close()

    def _close(self) -> None:
        self._connection.close()
        self.state = CLOSED


def _rejection(result: int, source: int, reason: int) -> bytes:
    return bytes((3, 0, 0, 0, 0, 4, 0, result, source, reason))
