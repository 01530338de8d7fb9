"""One process's postman: events to the associations it holds, and calls to peers that hold none.

Owns which association gets which event: one addressed to its AE title and its
subscriber, one at a time. The rows decide among processes. A thread of its own
looks at the rows when something was posted here, when an association opened,
and a few times a second; nothing else here touches the database, so no
association waits for it.
"""

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from config.settings import Outbox as OutboxSettings
from pacs.core.caller import Caller
from pacs.core.errors import PacsError, PeerUnreachable
from pacs.core.event_ports import EventWay
from pacs.core.events import Addressee, ClaimedEvent, EventOutcome, WaitingEvents
from pacs.core.identifiers import SOPClassUID, new_object_id
from pacs.services.courier import Courier

LOGGER = logging.getLogger("pacs.outbox")

_PAUSE_S = 1.0
"""After the rows could not be reached."""
_REST_PER_LOOK = 20
"""A look may cost a twentieth of a core, however many events wait."""


@dataclass(eq=False, slots=True, kw_only=True)
class _Round:
    """An open association and what is under way on it."""

    addressee: Addressee
    way: EventWay
    number: int
    claimed: ClaimedEvent | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """A peer being called, and whose claims those of the call are."""

    thread: threading.Thread
    owner: str


class Postman:
    """Implements ``pacs.core.ports.EventWays``."""

    def __init__(self, courier: Courier, settings: OutboxSettings) -> None:
        self._courier = courier
        self._settings = settings
        self._owner = str(new_object_id())
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._rounds: set[_Round] = set()
        self._ended: deque[tuple[_Round, ClaimedEvent, EventOutcome]] = deque()
        self._under_way = 0
        self._renewed_s = time.monotonic()
        self._calls: dict[Addressee, _Call] = {}
        self._look = threading.Event()
        self._stopping = self._resting = False
        self._thread = threading.Thread(target=self._run, name="pacs-postman", daemon=True)

    # --- told from other threads ------------------------------------------------------

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def rest(self) -> None:
        """Send nothing more; answers to what was sent still count."""
        self._resting = True

    def stop(self, timeout_s: float) -> None:
        """End, and give back what was claimed; calls under way get the time to finish."""
        deadline_s = time.monotonic() + timeout_s
        self._resting = self._stopping = True
        self.look()
        self._thread.join(max(0.0, deadline_s - time.monotonic()))
        if self._thread.is_alive():
            return  # what it holds is its own until the lease ends
        for call in self._calls.values():
            call.thread.join(max(0.0, deadline_s - time.monotonic()))
        try:
            self._settle()
            self._courier.rows.release(self._owner)
        except PacsError as failure:
            LOGGER.error("outbox-not-reached kind=%s", type(failure).__name__)

    def look(self) -> None:
        """Look at the rows now: something was posted."""
        self._look.set()

    @contextmanager
    def opened(self, caller: Caller, way: EventWay) -> Iterator[None]:
        """Know of an association until the end of the block."""
        addressee = Addressee(ae_title=caller.ae_title, registrant=caller.registrant)
        one = _Round(addressee=addressee, way=way, number=next(self._numbers))
        with self._lock:
            self._rounds.add(one)
        self.look()
        try:
            yield
        finally:
            with self._lock:
                self._rounds.discard(one)

    # --- its own thread -------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping:
            began_s = time.thread_time()
            try:
                self._once()
            except PacsError as failure:
                LOGGER.error("outbox-not-reached kind=%s", type(failure).__name__)
                time.sleep(_PAUSE_S)
            except Exception as failure:  # noqa: BLE001 - events of all peers hang on this thread
                LOGGER.error("postman-failed kind=%s", type(failure).__name__)
                time.sleep(_PAUSE_S)
            took_s = time.thread_time() - began_s
            self._look.wait(max(self._settings.poll_s, took_s * _REST_PER_LOOK))
            self._look.clear()

    def _once(self) -> None:
        self._settle()
        self._renew()
        if self._resting:
            return
        self._courier.rows.expire()
        for waiting in self._courier.rows.waiting():
            self._bring(waiting)

    def _settle(self) -> None:
        """Note what was answered; what the rows cannot take now is noted at the next look."""
        while self._ended:
            one, claimed, outcome = self._ended[0]
            self._courier.settle(self._owner, claimed, outcome)
            self._ended.popleft()
            one.claimed = None
            self._under_way -= 1

    def _renew(self) -> None:
        """Keep what waits on a busy association, or in a call, from being taken for abandoned."""
        if time.monotonic() - self._renewed_s <= self._settings.lease_s / 3:
            return
        self._renewed_s = time.monotonic()
        owners = [one.owner for one in self._calling().values()]
        for owner in (*owners, *((self._owner,) if self._under_way else ())):
            self._courier.rows.renew(owner)

    def _bring(self, waiting: WaitingEvents) -> None:
        """Post on every free association of the addressee; call it where there is none for long."""
        with self._lock:
            own = [one for one in self._rounds if one.addressee == waiting.addressee]
        own = [one for one in own if one.way.carries(waiting.context_uid)]
        for one in sorted(own, key=lambda one: one.number):
            if one.claimed is None and not self._post(one, waiting.context_uid):
                return
        if not own and waiting.callable and waiting.waiting_s >= self._settings.grace_s:
            self._call(waiting.addressee)

    def _post(self, one: _Round, context_uid: SOPClassUID) -> bool:
        """Post the next event there; tell whether there was one."""
        claimed = self._courier.rows.claim(self._owner, one.addressee, (context_uid,))
        if claimed is None:
            return False
        one.claimed = claimed
        self._under_way += 1

        def ended(outcome: EventOutcome) -> None:
            self._ended.append((one, claimed, outcome))
            self.look()

        try:
            one.way.post(claimed.event, ended)
        except PeerUnreachable:
            ended(EventOutcome(unsent=True))
        return True

    def _calling(self) -> dict[Addressee, _Call]:
        self._calls = {to: one for to, one in self._calls.items() if one.thread.is_alive()}
        return self._calls

    def _call(self, to: Addressee) -> None:
        """Call a peer on a thread of its own, where one is free and there is an address."""
        calling = self._calling()
        if to in calling or len(calling) >= self._settings.max_calls or not self._courier.knows(to):
            return
        owner = str(new_object_id())  # its own: what a failed call leaves claimed is not renewed
        thread = threading.Thread(
            target=self._called, args=(to, owner), name="pacs-postman-call", daemon=True
        )
        thread.start()
        calling[to] = _Call(thread=thread, owner=owner)

    def _called(self, to: Addressee, owner: str) -> None:
        try:
            rows = self._courier.rows
            context_uids = [one.context_uid for one in rows.waiting() if one.addressee == to]
            if context_uids:
                self._courier.call(owner, to, context_uids, proceed=lambda: not self._resting)
        except PacsError as failure:
            LOGGER.error("outbox-not-reached kind=%s", type(failure).__name__)
        except Exception as failure:  # noqa: BLE001 - what it had claimed is sent when the lease ends
            LOGGER.error("call-failed kind=%s", type(failure).__name__)
        self.look()
