"""Bringing one peer its events: on an association of our own, one after the other, until none is left.

Owns what follows from each answer: gone, again later, or dead. Called by the
``postman`` of a process; needs nothing of one, so whoever has the rows and a
way to peers may call it.
"""

import logging
import random
from collections.abc import Callable, Sequence
from typing import Protocol

from config.settings import Outbox as OutboxSettings
from pacs.core.caller import SubscriberName
from pacs.core.errors import PeerRefused, PeerUnreachable
from pacs.core.event_ports import EventDelivery, EventSender
from pacs.core.events import Addressee, ClaimedEvent, EventOutcome, WaitingEvents
from pacs.core.identifiers import SOPClassUID
from pacs.core.ports import AuditTrail, Snapshots
from pacs.core.records import Peer

LOGGER = logging.getLogger("pacs.outbox")
_MOST_DOUBLINGS = 30


class Again(Protocol):
    """How long to wait after so many failures."""

    def __call__(self, failures: int) -> float: ...


class ClaimRows(Protocol):
    """Events that can be claimed; see ``storage.database.outbox``."""

    def waiting(self) -> Sequence[WaitingEvents]: ...
    def claim(
        self, owner: str, addressee: Addressee, context_uids: Sequence[SOPClassUID]
    ) -> ClaimedEvent | None: ...
    def renew(self, owner: str) -> None: ...
    def delivered(self, event_id: int) -> bool: ...
    def failed(self, event_id: int, owner: str, *, trouble: str, again_s: float | None) -> None: ...
    def unsent(self, event_id: int, owner: str) -> None: ...
    def release(self, owner: str) -> None: ...
    def expire(self) -> int: ...
    def begin_call(self, addressee: Addressee) -> bool: ...
    def end_call(self, addressee: Addressee, again_s: Again | None) -> None: ...


class Courier:
    """Settles what became of events, and calls peers that wait for some. For any thread."""

    def __init__(
        self,
        *,
        rows: ClaimRows,
        sender: EventSender,
        snapshots: Snapshots,
        audit: AuditTrail,
        settings: OutboxSettings,
    ) -> None:
        self.rows = rows
        self._sender = sender
        self._snapshots = snapshots
        self._audit = audit
        self._settings = settings

    def again_s(self, failures: int) -> float:
        """Wait longer after each failure, and never two peers in step."""
        doubled = self._settings.retry_s * 2 ** min(failures - 1, _MOST_DOUBLINGS)
        longest_s = min(doubled, self._settings.max_retry_s)
        return float(longest_s * random.uniform(0.5, 1.0))  # noqa: S311 - no secret

    def settle(self, owner: str, claimed: ClaimedEvent, outcome: EventOutcome) -> None:
        """Note what the peer said: the event is gone, waits for its next attempt, or is dead."""
        if outcome.unsent:
            self.rows.unsent(claimed.id, owner)
            return
        status = "none" if outcome.status is None else f"{outcome.status:04X}"
        if outcome.delivered:
            self.rows.delivered(claimed.id)
            LOGGER.info("event-delivered event=%d attempts=%d", claimed.id, claimed.attempts)
        else:
            self.fail(owner, claimed, "lost" if outcome.status is None else f"status {status}")
        self._audit.record(
            "event-report",
            None,
            number=claimed.id,
            peer=claimed.event.addressee.ae_title,
            subscriber=claimed.event.addressee.registrant,
            sop_class_uid=claimed.event.sop_class_uid,
            outcome="success" if outcome.delivered else "failure",
            status=status,
        )

    def fail(self, owner: str, claimed: ClaimedEvent, trouble: str) -> None:
        """Give a claim back for its next attempt; after the last one it is dead."""
        over = claimed.attempts >= self._settings.max_attempts
        again_s = None if over else self.again_s(claimed.attempts)
        LOGGER.warning(
            "event-failed event=%d attempts=%d trouble=%s dead=%s",
            claimed.id,
            claimed.attempts,
            trouble,
            over,
        )
        self.rows.failed(claimed.id, owner, trouble=trouble, again_s=again_s)

    def knows(self, addressee: Addressee) -> bool:
        """Tell whether there is an address to call."""
        return self._peer(addressee) is not None

    def call(
        self,
        owner: str,
        addressee: Addressee,
        context_uids: Sequence[SOPClassUID],
        *,
        proceed: Callable[[], bool] = lambda: True,
    ) -> None:
        """Associate with a peer, report what waits for it, release. Nothing where it is too early.

        ``proceed`` is asked before each event.
        """
        peer = self._peer(addressee)
        if peer is None or not self.rows.begin_call(addressee):
            return
        again: Again | None = self.again_s
        try:
            with self._sender.open(peer, context_uids) as delivery:
                while proceed() and self._report(owner, addressee, context_uids, delivery):
                    continue
            again = None
        except (PeerUnreachable, PeerRefused) as failure:
            LOGGER.warning("peer-not-called peer=%s why=%s", addressee.ae_title, failure)
        finally:
            self.rows.end_call(addressee, again)

    def _peer(self, addressee: Addressee) -> Peer | None:
        """The device the event is for: one of that AE title that has become another subscriber's is not."""
        peer = self._snapshots.current().peers.get(addressee.ae_title)
        if peer is not None and peer.subscriber not in (None, SubscriberName(addressee.registrant)):
            return None
        return peer

    def _report(
        self,
        owner: str,
        addressee: Addressee,
        context_uids: Sequence[SOPClassUID],
        delivery: EventDelivery,
    ) -> bool:
        """Report the next event; tell whether there was one."""
        claimed = self.rows.claim(owner, addressee, context_uids)
        if claimed is None:
            return False
        if not delivery.carries(claimed.event.carried_by):
            self.fail(owner, claimed, "SCP role or presentation context not accepted")
            return True
        try:
            outcome = delivery.report(claimed.event)
        except PeerUnreachable:
            self.settle(owner, claimed, EventOutcome())
            raise
        self.settle(owner, claimed, outcome)
        return True
