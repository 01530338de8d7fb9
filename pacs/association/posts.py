"""Messages of ours that nobody asked for, in line until the association is free for them. PS3.7 Section 8.

Owns the line, which any thread may join, and the one message that has gone out
and is not answered yet. Refuses to know what they report.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from pacs.association.commands import (
    FIELD_OF,
    LAST_MESSAGE_ID,
    RESPONSE_BIT,
    encode_request,
    number,
)
from pacs.association.identifiers import encode_identifier
from pacs.association.intake import Arrived
from pacs.association.message import Answered, Message
from pacs.association.negotiation import Agreed
from pacs.core.errors import PeerUnreachable
from pacs.core.events import EventOutcome

LOGGER = logging.getLogger("pacs.association")


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """A message in line; ``foreign`` where another thread posted it."""

    message: Message
    context: Agreed
    foreign: bool
    answered: Answered


@dataclass(frozen=True, slots=True, kw_only=True)
class Awaited:
    """The message whose response we wait for."""

    message_id: int
    field: int
    deadline_s: float
    answered: Answered


class Posts:
    """The line of one association. Everything but ``add`` is for its own thread."""

    def __init__(self, response_timeout_s: float) -> None:
        self._response_timeout_s = response_timeout_s
        self._thread = threading.get_ident()
        self._line: deque[Post] = deque()
        self._awaited: Awaited | None = None
        self._lock = threading.Lock()  # of the end: nothing is put in line after it
        self._closed = False

    def __bool__(self) -> bool:
        return bool(self._line or self._awaited)

    @property
    def awaits(self) -> bool:
        """Tell whether a message has gone out and is not answered."""
        return self._awaited is not None

    @property
    def overdue(self) -> bool:
        """Tell whether its answer should have come."""
        return self._awaited is not None and time.monotonic() > self._awaited.deadline_s

    def patience_s(self, most_s: float) -> float:
        """How long may be waited in silence before the line must be looked after."""
        if self._awaited is None:
            return most_s
        return min(most_s, max(0.001, self._awaited.deadline_s - time.monotonic()))

    def add(self, message: Message, context: Agreed, answered: Answered) -> None:
        """Put a message in line, from any thread. Raises ``PeerUnreachable`` after the end."""
        foreign = threading.get_ident() != self._thread
        post = Post(message=message, context=context, foreign=foreign, answered=answered)
        with self._lock:
            if self._closed:
                raise PeerUnreachable("the association has ended")
            self._line.append(post)

    def next(
        self, message_id: Callable[[], int], *, serving: bool
    ) -> tuple[Agreed, bytes, bytes] | None:
        """Take what goes out now: context, command set and Data Set.

        One message at a time until it is answered. While a request is served
        only what other threads posted: what its handler posts follows the response.
        """
        if self.awaits or not self._line or (serving and not self._line[0].foreign):
            return None
        post, asked = self._line.popleft(), message_id()
        try:
            command, data = encoded(post.message, asked, post.context)
        except Exception as failure:  # noqa: BLE001 - pydicom raises whatever the values provoke
            LOGGER.error("post-not-encodable kind=%s", type(failure).__name__)
            post.answered(EventOutcome())
            return None
        self._awaited = Awaited(
            message_id=asked,
            field=FIELD_OF[post.message.operation] | RESPONSE_BIT,
            deadline_s=time.monotonic() + self._response_timeout_s,
            answered=post.answered,
        )
        return post.context, command, data

    def answers(self, response: Arrived) -> bool:
        """Take the response if it is the one that is awaited."""
        awaited = self._awaited
        asked = number(response.command, "MessageIDBeingRespondedTo", default=-1)
        field = number(response.command, "CommandField")
        if awaited is None or (asked, field) != (awaited.message_id, awaited.field):
            return False
        self._awaited = None
        status = response.status if 0 <= response.status <= LAST_MESSAGE_ID else None
        LOGGER.info("post-answered status=%s", "none" if status is None else f"{status:04X}")
        awaited.answered(EventOutcome(status=status))
        return True

    def close(self) -> None:
        """Tell everybody in line that nothing comes of it any more."""
        with self._lock:
            self._closed = True
        if self._awaited is not None:
            self._awaited.answered(EventOutcome())
            self._awaited = None
        while self._line:
            self._line.popleft().answered(EventOutcome(unsent=True))


def encoded(message: Message, message_id: int, context: Agreed) -> tuple[bytes, bytes]:
    """Encode a message of ours. Raises whatever pydicom makes of values that do not fit."""
    data = b""
    if message.data_set is not None:
        data = encode_identifier(message.data_set, context.transfer_syntax)
    command = encode_request(
        message.operation,
        message.sop_class_uid,
        message_id=message_id,
        fields=message.fields,
        with_data_set=bool(data),
    )
    return command, data
