"""Rows of jobs: inserted, woken and counted down. What every module about jobs shares.

Everything here happens within the transaction of whoever calls it.
"""

import time
from datetime import UTC, datetime, timedelta

from pacs.core.records import Job
from storage.database.connection import Database

_UTC = "%Y-%m-%dT%H:%M:%S.%fZ"
_ASK_AGAIN_S = 60.0
LONGEST_TEXT = 2_000
"""Characters kept of an error or a line of the log."""


def text_utc(moment: datetime) -> str:
    """Write a time as it stands in rows: it compares as text.

    >>> text_utc(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    '2026-01-02T03:04:05.000000Z'
    """
    return moment.astimezone(UTC).strftime(_UTC)


def parse_utc(text: object) -> datetime | None:
    """Read a time back; ``None`` where there is none."""
    return datetime.strptime(str(text), _UTC).replace(tzinfo=UTC) if text else None


class DatabaseClock:
    """The database's time: asked once a minute, kept by our own clock in between."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._told: tuple[datetime, float] | None = None

    def now(self) -> datetime:
        """The time all nodes agree on. SQLite has one node only."""
        if self._database.dialect == "sqlite":
            return datetime.now(UTC)
        told = self._told  # looked at once: another thread may ask again meanwhile
        if told is None or time.monotonic() - told[1] > _ASK_AGAIN_S:
            (row,) = self._database.execute("SELECT clock_timestamp()")
            self._told = told = row[0].astimezone(UTC), time.monotonic()
        moment, asked_s = told
        return moment + timedelta(seconds=time.monotonic() - asked_s)


def enqueue(database: Database, job: Job, parent: int | None = None) -> str:
    """Insert a job; one with a ``unique_key`` that is waiting already is not doubled.

    The one that waits is locked until the caller commits: it may not be begun
    before it can see what the caller wrote. It is brought forward to now where
    the job ``hastens``. Gives the queue in which there is work now.
    """
    now = datetime.now(UTC)
    delayed = job.not_before_utc is not None and job.not_before_utc > now
    key = job.unique_key if parent is None else None  # a part belongs to its parent alone
    forward = ", state = 'waiting', not_before_utc = NULL" if job.hastens else ""
    row = database.write(
        "INSERT INTO job (queue, kind, payload, cause, unique_key, waiting_key, state, priority, "
        "not_before_utc, deadline_utc, max_attempts, parent, asked_utc, alone) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
        f"ON CONFLICT (waiting_key) DO UPDATE SET unique_key = excluded.unique_key{forward} "
        "RETURNING queue",
        (
            job.queue,
            job.kind,
            job.payload,
            job.cause,
            job.unique_key,
            key,
            "delayed" if delayed else "waiting",
            job.priority,
            None if job.not_before_utc is None else text_utc(job.not_before_utc),
            None if job.deadline_utc is None else text_utc(job.deadline_utc),
            job.max_attempts,
            parent,
            text_utc(now),
            int(job.alone),
        ),
    ).fetchone()
    return str(row[0])


def end(database: Database, job: int) -> set[str]:
    """Tell the parent of a job that has just ended; gives the queue in which the parent goes on."""
    row = database.write(
        "UPDATE job SET children_left = children_left - 1 WHERE state = 'blocked' "
        "AND children_left > 0 AND id = (SELECT c.parent FROM job c WHERE c.id = ?) "
        "RETURNING id, children_left, queue",
        (job,),
    ).fetchone()
    if row is None or row[1] > 0:
        return set()
    resume(database, int(row[0]))
    return {str(row[2])}


def resume(database: Database, job: int) -> None:
    """Let a job go on whose parts have all ended."""
    database.write("UPDATE job SET state = 'waiting' WHERE id = ? AND state = 'blocked'", (job,))


def let_go(database: Database, job: int) -> None:
    """Let the parts of a job stand alone: tried anew, it asks for others."""
    database.write("UPDATE job SET parent = NULL WHERE parent = ?", (job,))
    database.write("UPDATE job SET children_left = NULL WHERE id = ?", (job,))
