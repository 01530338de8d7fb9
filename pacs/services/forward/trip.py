"""One shipment of what is missing, noted window by window. PS3.4 Annex B.

Owns what is written when: rows are 'sending' before anything of them can leave, and their
outcomes are committed together with the usage they are. Decides nothing about what follows.
"""

import threading
import time
from collections.abc import Sequence
from contextlib import closing

from pacs.core.caller import Caller
from pacs.core.errors import PacsError, PeerUnreachable
from pacs.core.identifiers import ObjectId
from pacs.core.ports import Unit
from pacs.core.records import Held, SendOutcome
from pacs.core.sent import Run, SentState, Told
from pacs.core.usage import Delivered, asked_by
from pacs.services.delivery.shipment import Fate, Shipment, Shipped, Stopped
from pacs.services.forward.desk import Desk

_UNSETTLED_S = 2.0
"""Outcomes are not kept back longer, however slowly a window goes out."""
_UNREADABLE = "its file cannot be read"


class Trip:
    """What became of the instances of one shipment. For one handler; used once."""

    def __init__(self, desk: Desk, run: Run, caller: Caller, order: Sequence[ObjectId]) -> None:
        self.trouble: PeerUnreachable | None = None
        """Why no association could be opened at all, or why the last one ended."""
        self.stopped = False
        self.last: Told | None = None
        """The last outcome."""
        self.fates: dict[ObjectId, tuple[Told, Held]] = {}
        self._desk = desk
        self._run = run
        self._caller = caller
        self._order = order
        self._ahead = 0
        self._marked: set[ObjectId] = set()
        self._begun: dict[ObjectId, Held] = {}
        self._pending: list[Told] = []
        self._shipped: dict[ObjectId, Shipped] = {}
        self._over = False
        self._settled_s = time.monotonic()
        self._lock = threading.RLock()

    def before(self, page: Sequence[Held]) -> None:
        """Let nothing of a page be sent that is not noted as begun. Called by the threads that send."""
        with self._lock:
            if self._over:
                return
            self._mark([one.place.object_id for one in page])
            self._begun.update((one.place.object_id, one) for one in page)

    def _mark(self, object_ids: Sequence[ObjectId]) -> None:
        """Note what is not noted yet as begun, and how those before ended."""
        new = [one for one in object_ids if one not in self._marked]
        if new:
            with self._desk.records.transaction() as unit:
                self._desk.sent.begin(self._run, new)
                self.write(unit)
            self._marked.update(new)

    def _look_ahead(self) -> None:
        """Note the next window while this one is sent, so that nobody waits for the commit."""
        window = self._desk.settings.window
        while self._ahead < len(self._order) and self._order[self._ahead] in self._marked:
            self._ahead += 1
        if self._ahead < len(self._order) and len(self._marked) - len(self.fates) < window:
            self._mark(self._order[self._ahead : self._ahead + window])

    def go(self, shipment: Shipment, stopped: Stopped) -> None:
        """Send until nothing is left, ``stopped`` says so or the peer is away. Raises ``RecordsFailed``."""
        try:
            with closing(shipment.sent(stopped)) as outcomes:
                for one in outcomes:
                    if one is not None:
                        self._note(one)
        except PeerUnreachable as trouble:
            self.trouble = trouble
        finally:
            with self._lock:
                self._over = True
        self.stopped = shipment.stopped
        self._account(shipment)

    def _note(self, shipped: Shipped) -> None:
        told = self.last = told_of(shipped)
        if isinstance(shipped.failure, PeerUnreachable):
            self.trouble = shipped.failure
        with self._lock:
            self.fates[told.object_id] = told, shipped.held
            self._shipped[told.object_id] = shipped
            self._pending.append(told)
            self._look_ahead()
            if time.monotonic() - self._settled_s > _UNSETTLED_S:
                self.settle()

    def _account(self, shipment: Shipment) -> None:
        """Say of what was noted and has no outcome whether anything of it can have left."""
        unread = self._marked - self._begun.keys()
        self._pending += [Told(object_id=one, state=SentState.UNSENT) for one in unread]
        open_ends = self._begun.keys() - self.fates.keys()
        if not open_ends:
            return
        never = {one.place.object_id for one in shipment.left()}
        for one in open_ends:
            state = SentState.UNSENT if one in never else SentState.UNKNOWN
            told = Told(object_id=one, state=state)
            self.fates[one] = told, self._begun[one]
            self._pending.append(told)

    def settle(self) -> None:
        """Commit what is known by now."""
        with self._lock:
            if self._pending:
                with self._desk.records.transaction() as unit:
                    self.write(unit)

    def write(self, unit: Unit) -> None:
        """Write what is known by now, and the usage it is, within a transaction."""
        with self._lock:
            pending, self._pending = self._pending, []
            self._settled_s = time.monotonic()
        if not pending:
            return
        ours = self._desk.sent.settle(self._run, pending)
        taken = [
            self._shipped.pop(one.object_id)
            for one in pending
            if one.state is SentState.SENT and one.object_id in ours
        ]
        if taken:
            unit.record_usage(self._delivered(taken))

    def _delivered(self, taken: Sequence[Shipped]) -> Delivered:
        """Make the fact: an instance is settled once in a run, so the first of them names it."""
        first = min(one.held.place.object_id for one in taken)
        return Delivered(
            subscriber=self._caller.subscriber,
            delivery=f"job {self._run.job}/{self._run.number}/{first}",
            study_instance_uid=taken[0].held.study_instance_uid,
            receiver=self._run.destination,
            asked_by=asked_by(self._caller),
            purpose=self._caller.purpose,
            instances=len(taken),
            sent_bytes=sum(one.sent_bytes for one in taken),
        )

    def complete(self, wanted: int) -> bool:
        """Tell whether so many were sent, and nothing failed."""
        return len(self.ended_as(SentState.SENT)) == len(self.fates) >= wanted

    def ended_as(self, state: SentState) -> list[tuple[Told, Held]]:
        """What ended so."""
        return [one for one in self.fates.values() if one[0].state is state]


def told_of(shipped: Shipped) -> Told:
    """Say what became of one instance in the words of the record. A warning is sent (PS3.4 Table B.2-1)."""
    object_id = shipped.held.place.object_id
    if shipped.fate is Fate.UNKNOWN:
        return Told(object_id=object_id, state=SentState.UNKNOWN)
    if shipped.fate is Fate.UNSENT:
        return Told(object_id=object_id, state=SentState.REFUSED, trouble=_trouble(shipped.failure))
    taken = shipped.outcome is not SendOutcome.FAILURE
    state = SentState.SENT if taken else SentState.REFUSED
    return Told(object_id=object_id, state=state, status=shipped.status)


def _trouble(failure: Exception | None) -> str:
    return failure.peer_comment if isinstance(failure, PacsError) else _UNREADABLE
