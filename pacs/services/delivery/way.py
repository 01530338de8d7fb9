"""What goes out over one open association, one Data Set after the other. PS3.4 Section C.4.2.

Owns the order, the encoding each receiver gets and the look at what comes
next while a response is awaited. Refuses to count and to open associations.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from pacs.core.errors import PacsError, PeerUnreachable, TranscodingFailed
from pacs.core.identifiers import TransferSyntaxUID
from pacs.core.ports import Delivery, InstanceStore, RetrieveIndex, Transcoder
from pacs.core.records import Held, Originator, Payload, SendOutcome
from pacs.services.delivery.contexts import FALLBACKS
from pacs.services.delivery.received import payload_as_received

_PAGE = 100

Sent = tuple[SendOutcome, Held]


class Waiting:
    """The instances still to be sent, in order, for any number of threads.

    Their rows are read a page at a time, so that memory does not grow with the
    selection.
    """

    def __init__(self, index: RetrieveIndex, rows: Sequence[int]) -> None:
        self._index = index
        self._rows = rows
        self._at = 0
        self._page: deque[Held] = deque()
        self._vanished = 0
        self._lock = threading.Lock()

    @property
    def empty(self) -> bool:
        """Tell whether everything has been taken, or has vanished."""
        with self._lock:
            return not self._page and self._at >= len(self._rows)

    def take(self) -> Held | None:
        """Give the next one; ``None`` when nothing waits. Raises ``RecordsFailed``."""
        with self._lock:
            while not self._page and self._at < len(self._rows):
                some = self._rows[self._at : self._at + _PAGE]
                self._page.extend(self._index.fetch(some))
                self._vanished += len(some) - len(self._page)
                self._at += len(some)
            return self._page.popleft() if self._page else None

    def give_back(self, held: Held) -> None:
        """Let somebody else send it: it was taken and has not been begun."""
        with self._lock:
            self._page.appendleft(held)

    def vanished(self) -> int:
        """Count those found deleted since this was last asked."""
        with self._lock:
            count, self._vanished = self._vanished, 0
            return count


class Payloads:
    """Makes of what is held what can travel."""

    def __init__(self, store: InstanceStore, transcoder: Transcoder) -> None:
        self._store = store
        self._transcoder = transcoder

    def as_it_lies(self, held: Held) -> Payload:
        """Give the stored bytes."""
        return Payload(
            sop_class_uid=held.sop_class_uid,
            sop_instance_uid=held.sop_instance_uid,
            transfer_syntax_uid=held.transfer_syntax_uid,
            path=self._store.path(held.place),
            offset=held.place.data_set_offset,
            size_bytes=held.place.size_bytes,
        )

    @contextmanager
    def converted(self, held: Held, accepted: Sequence[TransferSyntaxUID]) -> Iterator[Payload]:
        """Yield it in a syntax the receiver takes. Raises ``TranscodingFailed`` or ``InstanceNotFound``."""
        with self._store.open(held.place):
            pass  # a missing file is InstanceNotFound here, not a codec's failure
        if held.form is not None and held.form.original_syntax_uid in accepted:
            with payload_as_received(held, self._store, self._transcoder.restorer) as payload:
                yield payload
            return
        source, path = held.transfer_syntax_uid, self._store.path(held.place)
        for target in (*FALLBACKS, *accepted):
            if target in accepted and self._transcoder.convertible(source, target):
                offset = held.place.data_set_offset
                with self._transcoder.convert(path, offset, source, target) as data_set:
                    yield Payload(
                        sop_class_uid=held.sop_class_uid,
                        sop_instance_uid=held.sop_instance_uid,
                        transfer_syntax_uid=target,
                        path=data_set,
                        offset=0,
                    )
                return
        raise TranscodingFailed


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
        self._ahead: tuple[Held, Payload | None] | None = None
        self._failure: PacsError | None = None
        self.abort: Callable[[], None] = delivery.abort

    def send_next(self) -> Sent | None:
        """Send one more; ``None`` when nothing waits. Raises ``RecordsFailed``.

        Where the association ends with it, it has failed and the way is
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
            return self._deliver(held, payload), held
        except PeerUnreachable:
            self.broken = True
            return SendOutcome.FAILURE, held

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
        if held.transfer_syntax_uid in self._delivery.accepted(held.sop_class_uid):
            payload = self._payloads.as_it_lies(held)
        self._ahead = held, payload
        return payload

    def _deliver(self, held: Held, payload: Payload | None) -> SendOutcome:
        try:
            if payload is not None:
                return self._delivery.send(payload, self._originator, self._look_ahead)
            accepted = self._delivery.accepted(held.sop_class_uid)
            with self._payloads.converted(held, accepted) as converted:
                return self._delivery.send(converted, self._originator, self._look_ahead)
        except PeerUnreachable:
            raise
        except (PacsError, OSError):
            return SendOutcome.FAILURE
