"""What goes out over one open association, one Data Set after the other. PS3.4 Section C.4.2.

Owns the order and the look at what comes next: while something is sent and
answered for, the next file is opened, and those behind it that must be made
are made. Refuses to count, to open associations and to choose an encoding.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from pacs.core.errors import PacsError, PeerUnreachable
from pacs.core.records import Held, Originator, Payload
from pacs.core.sending_ports import Delivery
from pacs.services.delivery.ahead import Making
from pacs.services.delivery.fate import Fate, Shipped
from pacs.services.delivery.payloads import Payloads, length_of
from pacs.services.delivery.waiting import Waiting

LOOK_S: Final = 0.25
"""How often whoever follows what is sent is given the word while nothing happens."""


class _Next(NamedTuple):
    """One that was taken and not begun: its bytes as they lie, or being made, or to be made in its turn."""

    held: Held
    payload: Payload | None
    making: Making | None


class Way:
    """One open association and who waits for it. For one thread, but for ``abort``."""

    def __init__(
        self,
        waiting: Waiting,
        delivery: Delivery,
        payloads: Payloads,
        originator: Originator | None,
    ) -> None:
        self.broken = False
        self._waiting = waiting
        self._delivery = delivery
        self._payloads = payloads
        self._originator = originator
        self._turn: _Next | None = None
        self._next: deque[_Next] = deque()
        self._makings = 0
        self._failure: PacsError | None = None
        self.abort: Callable[[], None] = delivery.abort

    def sent(self) -> Iterator[Shipped | None]:
        """Send all that waits; yield each outcome, and ``None`` now and then while the next is being made.

        Raises ``RecordsFailed``.
        """
        while True:
            while not self.ready(LOOK_S):
                yield None
            one = self.send_next()
            if one is None:
                return
            yield one

    def ready(self, within_s: float) -> bool:
        """Tell whether ``send_next`` need not wait; waits so long itself for what is being made."""
        one = self._turn = self._taken_turn()
        if one is None or one.payload is not None:
            return True
        if one.making is None:
            making = self._payloads.begin_now(one.held, self._delivery.accepted)
            one = self._turn = one._replace(making=making)
        self._take_more()
        return one.making is None or one.making.is_over(within_s)

    def send_next(self) -> Shipped | None:
        """Send one more; ``None`` when nothing waits. Raises ``RecordsFailed``.

        Where the association ends with it, its fate is unknown and the way is
        ``broken``.
        """
        one, self._turn = self._taken_turn(), None
        if one is None:
            if self._failure is not None:
                raise self._failure
            return None
        try:
            return self._deliver(one)
        except PeerUnreachable as failure:
            self.broken = True
            return Shipped(held=one.held, fate=Fate.UNKNOWN, failure=failure)
        except (PacsError, OSError) as failure:
            return Shipped(held=one.held, fate=Fate.UNSENT, failure=failure)
        finally:
            if one.making is not None:
                one.making.close()

    def _taken_turn(self) -> _Next | None:
        """Give the one whose turn it is: what is made for it waits in nobody's way any more."""
        if self._turn is not None:
            return self._turn
        if not self._next:
            self._take()
        if not self._next:
            return None
        one = self._next.popleft()
        if one.making is not None:
            one.making.turn()
            self._makings -= 1
        return one

    def close(self) -> None:
        """Leave what was looked at and not begun to others."""
        self._delivery.close()
        if self._turn is not None:
            self._next.appendleft(self._turn)
            self._turn = None
        while self._next:
            one = self._next.pop()
            if one.making is not None:
                one.making.close()
            self._waiting.give_back(one.held)

    def _deliver(self, one: _Next) -> Shipped:
        if one.payload is not None:
            return self._send(one.held, one.payload)
        self._take_more()
        if one.making is not None:
            return self._send(one.held, one.making.result())
        with self._payloads.made(one.held, self._delivery.accepted) as made:
            return self._send(one.held, made)

    def _send(self, held: Held, payload: Payload) -> Shipped:
        length_bytes = length_of(payload)
        outcome = self._delivery.send(payload, self._originator, self._look_ahead)
        status = self._delivery.last_status
        return Shipped(
            held=held,
            fate=Fate.UNSENT if status is None else Fate.ANSWERED,
            outcome=outcome,
            status=status,
            sent_bytes=0 if status is None else length_bytes,
        )

    def _look_ahead(self) -> Payload | None:
        """Give what is sent next where it may be opened now: stored bytes, or what is made already."""
        if not self._next:
            self._take()
        self._take_more()
        if not self._next:
            return None
        following = self._next[0]
        return following.making.ready if following.making is not None else following.payload

    def _take_more(self) -> None:
        """While some are made ahead, go on taking; stored bytes need no more than one look."""
        while len(self._next) < self._payloads.most_ahead and self._is_making():
            if not self._take():
                return

    def _is_making(self) -> bool:
        """Where there was no room for the last one there is none for another."""
        if not self._next:
            return True
        last = self._next[-1]
        return self._makings > 0 and (last.payload is not None or last.making is not None)

    def _take(self) -> bool:
        """Take one more, if any waits and the index says so; begin to make what must be made."""
        try:
            held = None if self._failure is not None else self._waiting.take()
        except PacsError as failure:  # told when those before have been sent
            self._failure = failure
            return False
        if held is None:
            return False
        accepts = self._delivery.accepted
        payload = self._payloads.at_once(held, accepts)
        making = None if payload is not None else self._payloads.begin(held, accepts)
        self._makings += making is not None
        self._next.append(_Next(held=held, payload=payload, making=making))
        return True
