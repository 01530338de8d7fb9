"""Rows of Storage Commitment: transactions as they were asked, and what was reported of them.

A row is there before its request leaves and is found by its Transaction UID,
on whatever node the report comes in. The first report counts. Decides neither
what a report means nor when to ask.
"""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from pacs.core.commitment import Outcome, Reference, Standing, Transaction, TransactionUID
from pacs.core.errors import RecordsFailed, ReportContradicts, TransactionUnknown
from pacs.core.identifiers import AETitle, SOPClassUID, SOPInstanceUID
from storage.database.connection import Database
from storage.database.job_rows import DatabaseClock, parse_utc, text_utc
from storage.database.store import DatabaseRecords

_STANDING = (
    "transaction_uid, first_reference, reference_count, state, asked_utc, deadline_utc, failed"
)
_FORGOTTEN_AT_ONCE = 100


def bring_forward(database: Database, job: int) -> str | None:
    """Let one job that waits for its time go on now, in the caller's transaction; gives its queue."""
    row = database.write(
        "UPDATE job SET state = 'waiting', not_before_utc = NULL "
        "WHERE id = ? AND state = 'delayed' RETURNING queue",
        (job,),
    ).fetchone()
    return None if row is None else str(row[0])


class CommitmentTable:
    """``pacs.core.commitment.CommitmentRows`` on SQLite or PostgreSQL."""

    def __init__(self, database: Database, records: DatabaseRecords) -> None:
        self._database = database
        self._records = records
        self._clock = DatabaseClock(database)

    def now(self) -> datetime:
        """The time all nodes agree on."""
        return self._clock.now()

    # --- by the job ----------------------------------------------------------------------

    def begin(self, transaction: Transaction, *, deadline_s: float, keep_s: float) -> None:
        """Note a transaction, durably, and forget what was over long ago."""
        now = self.now()
        with self._database.transaction():
            self._forget(now - timedelta(seconds=keep_s))
            self._database.write(
                "INSERT INTO commitment (transaction_uid, ae_title, job, state, first_reference, "
                "reference_count, reference_list, asked_utc, deadline_utc) "
                "VALUES (?, ?, ?, 'asking', ?, ?, ?, ?, ?)",
                (
                    transaction.uid,
                    transaction.ae_title,
                    transaction.job,
                    transaction.first,
                    len(transaction.references),
                    json.dumps(transaction.references, separators=(",", ":")),
                    text_utc(now),
                    text_utc(now + timedelta(seconds=deadline_s)),
                ),
            )

    def _forget(self, before: datetime) -> None:
        locked = "" if self._database.dialect == "sqlite" else " FOR UPDATE SKIP LOCKED"
        self._database.write(
            "DELETE FROM commitment WHERE transaction_uid IN (SELECT transaction_uid "
            "FROM commitment WHERE deadline_utc < ? ORDER BY deadline_utc "
            f"LIMIT {_FORGOTTEN_AT_ONCE}{locked})",
            (text_utc(before),),
        )

    def asked(self, uid: TransactionUID) -> None:
        """Note that the peer took the request."""
        self._state("asked", "transaction_uid = ? AND state = 'asking'", uid)

    def drop(self, uid: TransactionUID) -> None:
        """End one transaction."""
        self._state("over", "transaction_uid = ?", uid)

    def over(self, job: int) -> None:
        """End all transactions of a job."""
        self._state("over", "job = ? AND state <> 'over'", job)

    def _state(self, state: str, where: str, param: object) -> None:
        with self._database.transaction():
            self._database.write(f"UPDATE commitment SET state = ? WHERE {where}", (state, param))

    def standing(self, job: int) -> Sequence[Standing]:
        """The transactions of a job that are not over, in the order of what they are about."""
        rows = self._database.execute(
            f"SELECT {_STANDING} FROM commitment WHERE job = ? AND state <> 'over' "
            "ORDER BY first_reference, asked_utc",
            (job,),
        )
        return [_standing(row) for row in rows]

    # --- by the report -------------------------------------------------------------------

    def report(
        self,
        uid: TransactionUID,
        ae_title: AETitle,
        judge: Callable[[Sequence[Reference]], Outcome],
    ) -> Outcome:
        """Note what was reported, once, and let the job go on that waits for it."""
        with self._records.transaction() as unit:
            row = self._row(uid)
            if row is None or row[1] != ae_title:
                raise TransactionUnknown(f"{ae_title} was not asked for {uid}")
            outcome = judge(_references(row[2]))
            # The job's row first, as its end takes them; otherwise the two could wait for each other.
            queue = bring_forward(self._database, int(row[0]))
            if queue is not None:
                unit.queues.add(queue)
            failed = json.dumps(outcome.failed, sort_keys=True, separators=(",", ":"))
            changed = self._database.write(
                "UPDATE commitment SET reported_utc = ?, failed = ? "
                "WHERE transaction_uid = ? AND reported_utc IS NULL",
                (text_utc(self.now()), failed, uid),
            )
            if not changed.rowcount and (self._row(uid) or row)[3] != failed:
                raise ReportContradicts(f"transaction {uid}")
        return outcome

    def _row(self, uid: TransactionUID) -> Any:
        return self._database.write(
            "SELECT job, ae_title, reference_list, failed FROM commitment WHERE transaction_uid = ?",
            (uid,),
        ).fetchone()


def _references(text: str) -> tuple[Reference, ...]:
    return tuple((SOPClassUID(one), SOPInstanceUID(other)) for one, other in json.loads(text))


def _standing(row: Sequence[Any]) -> Standing:
    uid, first, count, state, asked, deadline, failed = row
    return Standing(
        uid=TransactionUID(uid),
        first=int(first),
        count=int(count),
        asked=state == "asked",
        asked_utc=_moment(asked),
        deadline_utc=_moment(deadline),
        outcome=None if failed is None else Outcome(failed=json.loads(failed)),
    )


def _moment(text: str) -> datetime:
    moment = parse_utc(text)
    if moment is None:
        raise RecordsFailed("a transaction without a time")
    return moment.astimezone(UTC)
