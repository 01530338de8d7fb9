"""What goes out over one open association, one Data Set after the other. PS3.4 Section C.4.2.

Owns the order and the look at what comes next while a response is awaited.
Refuses to count, to open associations and to choose an encoding.
"""

from collections.abc import Callable

from pacs.core.errors import PacsError, PeerUnreachable
from pacs.core.ports import Delivery
from pacs.core.records import Held, Originator, Payload
from pacs.services.delivery.fate import Fate, Shipped
from pacs.services.delivery.payloads import Payloads, Prepare
from pacs.services.delivery.waiting import Waiting


class Way:
    """One open association and who waits for it. For one thread, but for ``abort``."""

    def __init__(
        self,
        waiting: Waiting,
        delivery: Delivery,
        payloads: Payloads,
        originator: Originator | None,
        prepare: Prepare | None = None,
    ) -> None:
        self.broken = False
        self._waiting = waiting
        self._delivery = delivery
        self._payloads = payloads
        self._originator = originator
        self._prepare = prepare
        self._ahead: tuple[Held, Payload | None] | None = None
        self._failure: PacsError | None = None
        self.abort: Callable[[], None] = delivery.abort

    def send_next(self) -> Shipped | None:
        """Send one more; ``None`` when nothing waits. Raises ``RecordsFailed``.

        Where the association ends with it, its fate is unknown and the way is
        ``broken``.
        """
        if self._ahead is None:
            self._look_ahead()
        if self._failure is not None:
            raise self._failure
        if self._ahead is None:
            return None
        (held, payload), self._ahead = self._ahead, None
        try:
            return self._deliver(held, payload)
        except PeerUnreachable as failure:
            self.broken = True
            return Shipped(held=held, fate=Fate.UNKNOWN, failure=failure)
        except (PacsError, OSError) as failure:
            return Shipped(held=held, fate=Fate.UNSENT, failure=failure)

    def close(self) -> None:
        """Leave what was looked at and not begun to others."""
        self._delivery.close()
        if self._ahead is not None:
            self._waiting.give_back(self._ahead[0])
            self._ahead = None

    def _look_ahead(self) -> Payload | None:
        """Take the next one; give what may be opened ahead: stored bytes, nothing that needs a codec."""
        try:
            held = self._waiting.take()
        except PacsError as failure:  # told when the response to the one before is in
            self._failure = failure
            return None
        if held is None:
            return None
        payload = None
        accepted = self._delivery.accepted(held.sop_class_uid)
        if self._prepare is None and held.transfer_syntax_uid in accepted:
            payload = self._payloads.as_it_lies(held)
        self._ahead = held, payload
        return payload

    def _deliver(self, held: Held, payload: Payload | None) -> Shipped:
        if payload is not None:
            return self._send(held, payload)
        accepted = self._delivery.accepted(held.sop_class_uid)
        with self._payloads.made(held, accepted, self._prepare) as made:
            return self._send(held, made)

    def _send(self, held: Held, payload: Payload) -> Shipped:
        outcome = self._delivery.send(payload, self._originator, self._look_ahead)
        status = self._delivery.last_status
        fate = Fate.UNSENT if status is None else Fate.ANSWERED
        return Shipped(held=held, fate=fate, outcome=outcome, status=status)
