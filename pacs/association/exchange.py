"""Messages in turn on an established association: requests queued, responses matched, ours sent. PS3.7 Section 8.

Owns what lies between PDVs and whoever serves or asks: the bounded inbox,
C-CANCEL, and the responses we wait for; ``posts`` has the messages that nobody
asked for. Refuses to know which operation is under way. Both sides use it.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from config.settings import Association
from pacs.association.commands import C_CANCEL, LAST_MESSAGE_ID, RESPONSE_BIT, number
from pacs.association.connection import Piece
from pacs.association.intake import (
    Arrived,
    BeginStore,
    MessageAssembler,
    MessageRefused,
)
from pacs.association.message import Answered, Message, Operation
from pacs.association.negotiation import Agreed
from pacs.association.pdu import COMMAND, LAST, PDV_OVERHEAD_BYTES, p_data_header
from pacs.association.posts import Posts
from pacs.association.upper_layer import UpperLayer
from pacs.core.errors import OperationUnsupported, PeerUnreachable

LOGGER = logging.getLogger("pacs.association")

MAX_FRAGMENT_BYTES: Final = 131_072
"""Largest P-DATA built, whatever a peer allows: its Maximum Length may be unlimited (0)."""
LOOKED_CALLS: Final = 8
LOOKED_S: Final = 0.001
"""So often, or so late, ``is_cancelled`` looks again: a look costs as much as a small response."""
READS_AT_ONCE: Final = 16
"""How often ``look`` reads at most while there is something to read."""


@dataclass(slots=True, kw_only=True)
class _Turn:
    """A request that waits or is being served, and whether a C-CANCEL came for it."""

    arrived: Arrived
    cancelled: bool = False


class Exchange:
    """The messages of one association. Everything but ``post`` is for its own thread."""

    def __init__(
        self,
        upper_layer: UpperLayer,
        contexts: Mapping[int, Agreed],
        *,
        bounds: Association,
        begin_store: BeginStore,
        peer_max_bytes: int,
        first_message_id: int = 1,
    ) -> None:
        self.upper_layer = upper_layer
        self.contexts = contexts
        self._response_timeout_s = bounds.dimse_timeout_s
        self._bounds = bounds
        self._assembler = MessageAssembler(contexts, bounds, begin_store)
        self._inbox: deque[_Turn] = deque()
        self._responses: deque[Arrived] = deque()
        self._serving: int | None = None
        self._turn: _Turn | None = None
        self._taken_bytes = self._messages = 0
        self._unlooked_calls, self._looked_s = 0, 0.0
        self._message_id = first_message_id - 1
        self._posts = Posts(bounds.dimse_timeout_s)
        self._held: list[Piece] = []
        self.serve: Callable[[Arrived], None] | None = None
        """Answers what the peer asks while we wait; only where no ``next_request`` does."""
        self.more_is_ready = False
        """Set by who sends C-STOREs while the next is about to go out; ``send_along`` waits for it."""
        largest = min(peer_max_bytes or MAX_FRAGMENT_BYTES, MAX_FRAGMENT_BYTES) - PDV_OVERHEAD_BYTES
        self.fragment_bytes = largest - largest % 2  # PS3.8 Section E.1: of even length
        upper_layer.user = self
        upper_layer.watch(self.progress)

    # --- what arrives ------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Tell whether nothing is waiting, arriving or to be sent."""
        return not (self._inbox or self._posts or self.within_message)

    @property
    def within_message(self) -> bool:
        """Tell whether a message has begun to arrive and has not ended."""
        return self._assembler.partial

    def progress(self) -> tuple[int, int] | None:
        """Number the message under way and count what all have brought, PDUs aside; see ``Pace``."""
        return (self._messages, self._taken_bytes) if self._assembler.partial else None

    def takes(self, context_id: int, control: int, piece: memoryview, ended: bool) -> bool:
        """Take a piece of a PDV; reading pauses after each message."""
        self._taken_bytes += len(piece)
        arrived = self._assembler.take(context_id, control, piece, ended)
        if arrived is None:
            return False
        self._messages += 1
        try:
            self._route(arrived)
        except MessageRefused:
            arrived.discard()
            raise
        return True

    def _route(self, arrived: Arrived) -> None:
        field = number(arrived.command, "CommandField")
        if field == C_CANCEL:
            self._cancel(number(arrived.command, "MessageIDBeingRespondedTo"))
            return
        if field & RESPONSE_BIT:
            self._take_response(arrived)
            return
        if len(self._inbox) >= self._bounds.max_queued_messages:
            raise MessageRefused("too many requests are waiting")
        self._inbox.append(_Turn(arrived=arrived))

    def _cancel(self, message_id: int) -> None:
        """Cancel the oldest request of that id; a peer may use one again before its answer."""
        serving = () if self._turn is None else (self._turn,)
        for one in (*serving, *self._inbox):
            if one.arrived.message_id == message_id and not one.cancelled:
                one.cancelled = True
                return

    def _take_response(self, arrived: Arrived) -> None:
        if self._posts.answers(arrived):
            return
        if len(self._responses) >= self._bounds.max_queued_messages:
            raise MessageRefused("too many responses are waiting")
        self._responses.append(arrived)

    def next_request(self) -> Arrived | None:
        """Give the oldest request that waits to be served."""
        if not self._inbox:
            return None
        self._turn = self._inbox.popleft()
        self._serving = self._turn.arrived.message_id
        self._looked_s = 0.0
        return self._turn.arrived

    def finished(self) -> None:
        """The request that was being served is answered; a C-CANCEL for it means nothing any more."""
        self._serving = self._turn = None
        self.upper_layer.restart_timer()

    def next_response(
        self, asked_s: float | None = None, *, with_sub_operations: bool = False
    ) -> Arrived:
        """Wait for a response; on an association we opened, serve what the peer asks meanwhile.

        With ``asked_s``, of the monotonic clock, the wait has one end, whatever
        else the peer sends; without it silence has, and a peer that asks instead
        of answering, unless that are sub-operations. Raises ``PeerUnreachable``;
        the association is aborted then.
        """
        began_s = time.monotonic()
        while not self._responses:
            if not self.serve_waiting():
                self._wait(asked_s)
            elif asked_s is None and not with_sub_operations:
                asked_s = began_s
        return self._responses.popleft()

    def serve_waiting(self) -> bool:
        """Serve the oldest request that waits, where ``serve`` is set; tell whether there was one."""
        if self.serve is None or not self._inbox:
            return False
        arrived = self._inbox.popleft().arrived
        try:
            self.serve(arrived)
        finally:
            self.upper_layer.restart_timer()
        return True

    def _wait(self, asked_s: float | None = None) -> None:
        self.upper_layer.require()
        if self._held:
            self.upper_layer.send(self._released())
        rest_s = self._response_timeout_s
        if asked_s is not None:
            rest_s = max(0.0, asked_s + rest_s - time.monotonic())
        if rest_s and self.upper_layer.receive(rest_s):
            return
        if not rest_s and self._arrived_meanwhile():
            return
        self.upper_layer.give_up(f"no response within {self._response_timeout_s} s")

    def _arrived_meanwhile(self) -> bool:
        """Read what came before the time was over, while we did something else."""
        for _ in range(READS_AT_ONCE):
            if self._responses or not self.upper_layer.receive(0):
                break
        return bool(self._responses)

    def is_cancelled(self, message_id: int) -> bool:
        """Tell whether a C-CANCEL came, or nobody is there any more who waits for the answer.

        Asked again and again within a moment, it looks at every eighth call only.
        """
        self._unlooked_calls += 1
        late = time.monotonic() - self._looked_s > LOOKED_S
        try:
            if late or self._unlooked_calls >= LOOKED_CALLS:
                self.look()
        except PeerUnreachable:
            return True
        turn = self._turn
        return turn is not None and turn.cancelled and turn.arrived.message_id == message_id

    def look(self) -> None:
        """Read what is there without waiting, and send what may be sent between two messages.

        Raises ``PeerUnreachable`` when the association has ended.
        """
        self._unlooked_calls, self._looked_s = 0, time.monotonic()
        for _ in range(READS_AT_ONCE):
            if not self.upper_layer.receive(0):
                break
        self.upper_layer.require()
        self.send_posts()

    def close(self) -> None:
        """Leave everything that was received and not served, or posted and not answered."""
        self._assembler.discard()
        while self._inbox:
            self._inbox.popleft().arrived.discard()
        self._posts.close()

    # --- what we send ------------------------------------------------------------------

    def next_message_id(self) -> int:
        """Count message ids from 1 to 65535, over and over, leaving out that of the request served."""
        self._message_id = self._message_id % LAST_MESSAGE_ID + 1
        if self._message_id == self._serving:
            self._message_id = self._message_id % LAST_MESSAGE_ID + 1
        return self._message_id

    def send(self, context_id: int, command: bytes, data: bytes = b"") -> None:
        """Send one message. Raises ``PeerUnreachable``."""
        pieces = self.fragments(context_id, COMMAND, command)
        if data:
            pieces += self.fragments(context_id, 0, data)
        self.send_pieces(pieces)

    def send_pieces(self, pieces: Sequence[Piece]) -> None:
        """Send P-DATA-TFs behind what was held for them. Raises ``PeerUnreachable``."""
        self.upper_layer.send([*self._released(), *pieces] if self._held else pieces)

    def send_along(self, pieces: list[Piece]) -> None:
        """Send messages that may travel with the C-STORE about to follow it: one write, one wake-up.

        At once where nothing is about to follow. Nobody waits for anything
        before it is out. Raises ``PeerUnreachable``.
        """
        if self.more_is_ready and not self._held:
            self._held = pieces
        else:
            self.send_pieces(pieces)

    def _released(self) -> list[Piece]:
        held, self._held = self._held, []
        return held

    def fragments(self, context_id: int, kind: int, value: bytes) -> list[Piece]:
        """Cut a command set or a Data Set into P-DATA-TFs. Raises ``PeerUnreachable``."""
        most = self.require_room()
        view, pieces = memoryview(value), list[Piece]()
        for start in range(0, len(view), most):
            piece = view[start : start + most]
            control = kind | (LAST if start + most >= len(view) else 0)
            pieces += (p_data_header(context_id, control, len(piece)), piece)
        return pieces

    def require_room(self) -> int:
        """Give the length of a fragment. Raises ``PeerUnreachable`` where the peer leaves none."""
        if self.fragment_bytes < 2:
            self.upper_layer.give_up("the peer's Maximum Length holds no fragment")
        return self.fragment_bytes

    def post(self, message: Message, answered: Answered = lambda _: None) -> None:
        """Put a message of ours in line, from any thread; ``answered`` is called once, from any.

        What the thread of the association posts follows the response it is
        about to give; what others post goes out between any two messages.
        Raises ``OperationUnsupported`` without a context for it in which we
        have the role, ``PeerUnreachable`` when the association has ended.
        """
        context = self.context_of(message)
        if context is None:
            raise OperationUnsupported("no presentation context was accepted for the message")
        self._posts.add(message, context, answered)
        self.upper_layer.wake()

    def carries(self, sop_class_uid: str, operation: Operation) -> Agreed | None:
        """Find a context of this abstract syntax in which we have the role of who asks.

        N-EVENT-REPORT is asked by the SCP, everything else by the SCU (PS3.7 Section 7.5).
        """
        as_scp = operation is Operation.N_EVENT_REPORT
        fitting = (
            one
            for one in self.contexts.values()
            if one.abstract_syntax == sop_class_uid and (one.as_scp if as_scp else one.as_scu)
        )
        return next(fitting, None)

    def context_of(self, message: Message) -> Agreed | None:
        """Find the context that carries a message."""
        return self.carries(message.context_uid or message.sop_class_uid, message.operation)

    def patience_s(self, most_s: float) -> float:
        """How long may be waited in silence before a posted message must be looked after."""
        return self._posts.patience_s(most_s)

    @property
    def awaits(self) -> bool:
        """Tell whether a posted message has gone out and is not answered."""
        return self._posts.awaits

    def send_posts(self) -> None:
        """Send the next posted message, one at a time until it is answered. Raises ``PeerUnreachable``."""
        if self._posts.overdue:
            self.upper_layer.give_up(f"no response within {self._response_timeout_s} s")
        following = self._posts.next(self.next_message_id, serving=self._serving is not None)
        if following is not None:
            context, command, data = following
            self.send(context.context_id, command, data)
