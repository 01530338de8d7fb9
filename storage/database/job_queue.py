"""Queues that are held because the peer they are for is away: until when, after how many failures, why.

A row is there from the first failure until a job of the queue ends well; it
holds the queue until its time. All nodes read it; the engine says how long.
Everything here happens within the transaction of whoever calls it.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

from storage.database.connection import Database
from storage.database.job_rows import text_utc

_FAILED = (
    "INSERT INTO job_queue (queue, held_until_utc, failures, why) VALUES (?, ?, 1, ?) "
    "ON CONFLICT (queue) DO UPDATE SET why = excluded.why, failures = job_queue.failures + "
    # Jobs that ran side by side found out about one failure, not about one each.
    "CASE WHEN job_queue.held_until_utc > excluded.held_until_utc THEN 0 ELSE 1 END "
    "RETURNING failures"
)


def hold(
    database: Database, queue: str, *, now: datetime, why: str, pause_s: Callable[[int], float]
) -> None:
    """Count a failure and hold the queue for what ``pause_s`` gives of the failures in a row."""
    (failures,) = database.write(_FAILED, (queue, text_utc(now), why)).fetchone()
    until = text_utc(now + timedelta(seconds=pause_s(int(failures))))
    database.write(
        "UPDATE job_queue SET held_until_utc = ? WHERE queue = ? AND held_until_utc < ?",
        (until, queue, until),
    )


def lift(database: Database, queue: str) -> bool:
    """Forget the failures of a queue; tells whether there were any."""
    gone = database.write("DELETE FROM job_queue WHERE queue = ?", (queue,))
    return bool(gone.rowcount)


def forget(database: Database, before_utc: str) -> None:
    """Forget queues held until before a time in which nothing waits: peers come and go."""
    database.write(
        "DELETE FROM job_queue WHERE held_until_utc < ? AND NOT EXISTS (SELECT 1 FROM job j "
        "WHERE j.queue = job_queue.queue AND j.ended_utc IS NULL)",
        (before_utc,),
    )
