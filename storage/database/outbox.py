"""Rows of events that peers are to be told of: posted, claimed under a lease, settled.

A claim is the owner's until ``due_ms``; who ends without settling it loses it
then. All times are of the database's clock, so that machines need not agree.
One live event per addressee and SOP Instance can be claimed: the oldest, so
that their order is kept. Decides neither who sends nor when to try again.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from config.settings import Outbox as OutboxSettings
from pacs.core.errors import EntryNotFound, EventTooLarge, OutboxFull
from pacs.core.events import Addressee, ClaimedEvent, Event, PostedEvent, WaitingEvents
from pacs.core.identifiers import AETitle, Registrant, SOPClassUID, SOPInstanceUID
from storage.database.connection import Database

_NOW_MS = {
    "sqlite": "CAST((julianday('now') - 2440587.5) * 86400000.0 AS INTEGER)",
    "postgresql": "CAST(extract(epoch FROM statement_timestamp()) * 1000 AS BIGINT)",
}
_SKIP_LOCKED = {"sqlite": "", "postgresql": " FOR UPDATE SKIP LOCKED"}
_TO = "ae_title = ? AND registrant = ?"
_OLDER = (
    "EXISTS (SELECT 1 FROM outbox e WHERE e.ae_title = o.ae_title AND e.registrant = o.registrant "
    "AND e.sop_instance_uid = o.sop_instance_uid AND e.dead = 0 AND e.id < o.id)"
)
_EVENT = (
    "id, ae_title, registrant, sop_class_uid, sop_instance_uid, event_type_id, context_uid, "
    "information, attempts"
)
_LISTED = (
    "id, ae_title, registrant, sop_class_uid, sop_instance_uid, event_type_id, "
    "length(information), asked_ms, expires_ms, due_ms, attempts, trouble, dead, owner"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def post(database: Database, event: Event, bounds: OutboxSettings) -> int:
    """Insert an event in the caller's transaction; gives its number.

    Dead ones of the same addressee make room, the oldest first. Raises
    ``EventTooLarge`` or ``OutboxFull``.
    """
    if len(event.information) > bounds.max_event_bytes:
        raise EventTooLarge(f"Event Information of {len(event.information)} bytes")
    to = (event.addressee.ae_title, event.addressee.registrant)
    if _full(database, f"WHERE {_TO}", to, bounds.max_events_per_peer):
        dead = f"SELECT id FROM outbox WHERE {_TO} AND dead = 1 ORDER BY id LIMIT 1"
        if not database.write(f"DELETE FROM outbox WHERE id IN ({dead})", to).rowcount:
            raise OutboxFull(f"{bounds.max_events_per_peer} events wait for {to[0]}")
    elif _full(database, "", (), bounds.max_events):
        raise OutboxFull(f"{bounds.max_events} events wait")
    now = _NOW_MS[database.dialect]
    expires_s = bounds.expiry_s if event.expires_s is None else event.expires_s
    inserted = database.write(
        "INSERT INTO outbox (ae_title, registrant, sop_class_uid, sop_instance_uid, "
        "event_type_id, context_uid, information, asked_ms, expires_ms, due_ms) "
        f"VALUES (?, ?, ?, ?, ?, ?, ?, {now}, {now} + ?, {now}) RETURNING id",
        (
            *to,
            event.sop_class_uid,
            event.sop_instance_uid,
            event.event_type_id,
            event.carried_by,
            event.information,
            round(expires_s * 1_000),
        ),
    )
    return int(inserted.fetchone()[0])


def _full(database: Database, where: str, params: Sequence[object], most: int) -> bool:
    found = database.write(f"SELECT 1 FROM outbox {where} LIMIT 1 OFFSET ?", (*params, most - 1))
    return found.fetchone() is not None


class OutboxTable:
    """Events by number."""

    def __init__(self, database: Database, bounds: OutboxSettings) -> None:
        self._database = database
        self._bounds = bounds
        self._now = _NOW_MS[database.dialect]
        self._claimable = (
            f"dead = 0 AND due_ms <= {self._now} AND expires_ms > {self._now} AND NOT {_OLDER}"
        )

    # --- for who administers ------------------------------------------

    def list(self, limit: int) -> Sequence[PostedEvent]:
        """Events in the order they were posted, at most ``limit``."""
        rows = self._database.execute(
            f"SELECT {_LISTED}, {self._now} FROM outbox ORDER BY id LIMIT ?", (limit,)
        )
        return [_posted(row) for row in rows]

    def depths(self) -> Mapping[str, int]:
        """How many events wait, those being sent included, and how many are dead."""
        found = dict(self._database.execute("SELECT dead, COUNT(*) FROM outbox GROUP BY dead"))
        return {"waiting": int(found.get(0, 0)), "dead": int(found.get(1, 0))}

    def retry(self, event_id: int) -> None:
        """Have one event sent now, dead or not, with its whole time before it. Raises ``EntryNotFound``."""
        with self._database.transaction():
            changed = self._database.write(
                "UPDATE outbox SET dead = 0, attempts = 0, due_ms = "
                f"CASE WHEN owner IS NULL THEN {self._now} ELSE due_ms END, "
                f"expires_ms = {self._now} + ? WHERE id = ?",
                (round(self._bounds.expiry_s * 1_000), event_id),
            )
            if not changed.rowcount:
                raise EntryNotFound(f"there is no event {event_id}")
            self._database.write(
                "DELETE FROM outbox_call WHERE (ae_title, registrant) IN "
                "(SELECT ae_title, registrant FROM outbox WHERE id = ?)",
                (event_id,),
            )

    def cancel(self, event_id: int) -> None:
        """Forget one event. Raises ``EntryNotFound``."""
        if not self.delivered(event_id):
            raise EntryNotFound(f"there is no event {event_id}")

    # --- for who sends ------------------------------------------------------------------

    def waiting(self) -> Sequence[WaitingEvents]:
        """Whom something waits for that may be sent now, and for how long already."""
        rows = self._database.execute(
            "SELECT w.ae_title, w.registrant, w.context_uid, w.waiting_ms, "
            "EXISTS (SELECT 1 FROM outbox_call c WHERE c.ae_title = w.ae_title "
            f"AND c.registrant = w.registrant AND c.not_before_ms > {self._now}) FROM "
            f"(SELECT ae_title, registrant, context_uid, {self._now} - MIN(due_ms) AS waiting_ms "
            f"FROM outbox o WHERE {self._claimable} "
            "GROUP BY ae_title, registrant, context_uid) w ORDER BY w.waiting_ms DESC"
        )
        return [
            WaitingEvents(
                addressee=Addressee(ae_title=AETitle(row[0]), registrant=Registrant(row[1])),
                context_uid=SOPClassUID(row[2]),
                waiting_s=int(row[3]) / 1_000,
                callable=not row[4],
            )
            for row in rows
        ]

    def claim(
        self, owner: str, addressee: Addressee, context_uids: Sequence[SOPClassUID]
    ) -> ClaimedEvent | None:
        """Take the oldest event that may be sent now; it is the owner's for the lease."""
        if not context_uids:
            return None
        database, marks = self._database, ", ".join("?" * len(context_uids))
        with database.transaction():
            row = database.write(
                f"SELECT {_EVENT} FROM outbox o WHERE {_TO} AND context_uid IN ({marks}) "
                f"AND {self._claimable} ORDER BY id LIMIT 1{_SKIP_LOCKED[database.dialect]}",
                (addressee.ae_title, addressee.registrant, *context_uids),
            ).fetchone()
            if row is None:
                return None
            database.write(
                f"UPDATE outbox SET owner = ?, due_ms = {self._now} + ?, attempts = attempts + 1 "
                "WHERE id = ?",
                (owner, round(self._bounds.lease_s * 1_000), row[0]),
            )
        return _claimed(row)

    def renew(self, owner: str) -> None:
        """Begin the leases of an owner anew."""
        with self._database.transaction():
            self._database.write(
                f"UPDATE outbox SET due_ms = {self._now} + ? WHERE owner = ?",
                (round(self._bounds.lease_s * 1_000), owner),
            )

    def delivered(self, event_id: int) -> bool:
        """Remove an event whoever has claimed it: the peer knows. Tells whether it was there."""
        with self._database.transaction():
            return bool(
                self._database.write("DELETE FROM outbox WHERE id = ?", (event_id,)).rowcount
            )

    def failed(self, event_id: int, owner: str, *, trouble: str, again_s: float | None) -> None:
        """Give a claim back, to be sent again after ``again_s``; ``None`` keeps it as dead."""
        with self._database.transaction():
            self._database.write(
                f"UPDATE outbox SET owner = NULL, trouble = ?, dead = ?, due_ms = {self._now} + ? "
                "WHERE id = ? AND owner = ?",
                (trouble, int(again_s is None), round((again_s or 0) * 1_000), event_id, owner),
            )

    def unsent(self, event_id: int, owner: str) -> None:
        """Give a claim back as if it had never been made."""
        with self._database.transaction():
            self._database.write(
                f"UPDATE outbox SET owner = NULL, attempts = attempts - 1, due_ms = {self._now} "
                "WHERE id = ? AND owner = ?",
                (event_id, owner),
            )

    def release(self, owner: str) -> None:
        """Give all claims of an owner back; whether they were sent nobody knows."""
        with self._database.transaction():
            self._database.write(
                f"UPDATE outbox SET owner = NULL, due_ms = {self._now} WHERE owner = ?", (owner,)
            )

    def expire(self) -> int:
        """Keep as dead what is not worth sending any more; tells how many."""
        over = (
            f"dead = 0 AND expires_ms <= {self._now} AND (owner IS NULL OR due_ms <= {self._now})"
        )
        if not next(self._database.execute(f"SELECT 1 FROM outbox WHERE {over} LIMIT 1"), None):
            return 0
        with self._database.transaction():
            dead = self._database.write(
                "UPDATE outbox SET dead = 1, owner = NULL, trouble = "
                f"CASE WHEN trouble = '' THEN 'expired' ELSE trouble END WHERE {over}"
            )
            return int(dead.rowcount)

    # --- peers that are called -------------------------------------------------------------

    def begin_call(self, addressee: Addressee) -> bool:
        """Take the right to call a peer, for one lease; ``False`` where another has it, or it is too early."""
        lease_ms = round(self._bounds.lease_s * 1_000)
        with self._database.transaction():
            taken = self._database.write(
                "INSERT INTO outbox_call (ae_title, registrant, failures, not_before_ms) "
                f"VALUES (?, ?, 0, {self._now} + ?) ON CONFLICT (ae_title, registrant) DO UPDATE "
                f"SET not_before_ms = excluded.not_before_ms "
                f"WHERE outbox_call.not_before_ms <= {self._now}",
                (addressee.ae_title, addressee.registrant, lease_ms),
            )
            return bool(taken.rowcount)

    def end_call(self, addressee: Addressee, again_s: Callable[[int], float] | None) -> None:
        """Say how a call went: ``None`` well, else how long to wait after so many failures."""
        to = (addressee.ae_title, addressee.registrant)
        with self._database.transaction():
            if again_s is None:
                self._database.write(f"DELETE FROM outbox_call WHERE {_TO}", to)
                return
            found = self._database.write(f"SELECT failures FROM outbox_call WHERE {_TO}", to)
            failures = int((found.fetchone() or (0,))[0]) + 1
            self._database.write(
                f"UPDATE outbox_call SET failures = ?, not_before_ms = {self._now} + ? WHERE {_TO}",
                (failures, round(again_s(failures) * 1_000), *to),
            )


def _claimed(row: Sequence[Any]) -> ClaimedEvent:
    return ClaimedEvent(
        id=int(row[0]),
        attempts=int(row[8]) + 1,
        event=Event(
            addressee=Addressee(ae_title=AETitle(row[1]), registrant=Registrant(row[2])),
            sop_class_uid=SOPClassUID(row[3]),
            sop_instance_uid=SOPInstanceUID(row[4]),
            event_type_id=int(row[5]),
            context_uid=SOPClassUID(row[6]),
            information=bytes(row[7]),
        ),
    )


def _posted(row: Sequence[Any]) -> PostedEvent:
    now_ms, dead, owner, due_ms = int(row[14]), row[12], row[13], int(row[9])
    sending = owner is not None and due_ms > now_ms
    return PostedEvent(
        id=int(row[0]),
        state="dead" if dead else "sending" if sending else "waiting",
        ae_title=AETitle(row[1]),
        registrant=Registrant(row[2]),
        sop_class_uid=SOPClassUID(row[3]),
        sop_instance_uid=SOPInstanceUID(row[4]),
        event_type_id=int(row[5]),
        size_bytes=int(row[6]),
        asked_utc=_utc(row[7]),
        expires_utc=_utc(row[8]),
        due_utc=_utc(due_ms),
        attempts=int(row[10]),
        trouble=str(row[11]),
    )


def _utc(milliseconds: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=int(milliseconds))
