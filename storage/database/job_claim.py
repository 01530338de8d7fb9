"""Statements by which jobs are found and taken: their time depends on no number of rows that wait.

Of a queue the first job that may run beside others and the first that runs
alone are looked at, each in the first row of its part of an index; the oldest
that runs alone among the first rows of each priority. Decides the order within
a queue; whose turn it is among queues is the worker's to say.
"""

import secrets

from pacs.core.work import Claim
from storage.database.connection import Dialect
from storage.database.job_rows import parse_utc

_LARGEST_STEP = 1 << 31
"""Between the numbers of two leases: their column holds four thousand million such steps."""

CLAIMED = "id, lease, queue, kind, payload, attempts, max_attempts, deadline_utc, children_left"
QUEUES = (
    "WITH RECURSIVE found (queue) AS (SELECT MIN(queue) FROM job WHERE state = 'waiting' "
    "UNION ALL SELECT (SELECT MIN(j.queue) FROM job j WHERE j.state = 'waiting' "
    "AND j.queue > found.queue) FROM found WHERE found.queue IS NOT NULL) "
    "SELECT queue FROM found WHERE queue IS NOT NULL "
    "AND NOT EXISTS (SELECT 1 FROM job_queue h WHERE h.queue = found.queue "
    "AND h.held_until_utc > ?) "
    "AND (EXISTS (SELECT 1 FROM job w WHERE w.state = 'waiting' AND w.queue = found.queue "
    "AND w.alone = 0) OR NOT EXISTS (SELECT 1 FROM job r WHERE r.state = 'running' "
    "AND r.queue = found.queue AND r.alone = 1))"
)
"""Queues of which something may be begun, given the time now."""

_FIRST_ALONE = (
    "SELECT id FROM job WHERE state = 'waiting' AND queue = ? AND alone = 1 "
    "ORDER BY priority DESC, id LIMIT 1"
)
# The first of each priority there is, each found where its part of the index begins; of these the
# oldest. Asked for by number alone it would need an index of its own, which every job would pay for.
_OLDEST_ALONE = (
    "WITH RECURSIVE rank (queue, priority) AS (SELECT queue, priority FROM (SELECT queue, priority "
    "FROM job WHERE state = 'waiting' AND queue = ? AND alone = 1 "
    "ORDER BY priority DESC, id LIMIT 1) AS top "
    "UNION ALL SELECT rank.queue, (SELECT MAX(j.priority) FROM job j WHERE j.state = 'waiting' "
    "AND j.queue = rank.queue AND j.alone = 1 AND j.priority < rank.priority) FROM rank "
    "WHERE rank.priority IS NOT NULL) "
    "SELECT MIN((SELECT j.id FROM job j WHERE j.state = 'waiting' AND j.queue = rank.queue "
    "AND j.alone = 1 AND j.priority <= rank.priority ORDER BY j.priority DESC, j.id LIMIT 1)) "
    "FROM rank WHERE rank.priority IS NOT NULL"
)


def claim_sql(dialect: Dialect, *, oldest: bool) -> str:
    """Make the statement that takes the next job of a queue. ``claim_params`` are its values."""
    locked = "" if dialect == "sqlite" else " FOR UPDATE SKIP LOCKED"
    order = "id + 0" if oldest else "priority DESC, id"
    beside = (
        "SELECT id, priority FROM job WHERE state = 'waiting' AND queue = ? AND alone = 0 "
        f"ORDER BY {order} LIMIT 1{locked}"
    )
    # Not the first that is free but the first: one that is being put back is not overtaken.
    alone = (
        "SELECT id, priority FROM job WHERE state = 'waiting' AND id = "
        f"({_OLDEST_ALONE if oldest else _FIRST_ALONE}) "
        "AND NOT EXISTS (SELECT 1 FROM job WHERE state = 'running' AND queue = ? AND alone = 1)"
        f"{locked}"
    )
    # Lost with a crash, the claim was never made; what a handler commits flushes it too. Said
    # within the statement: as one of its own it would cost a seventh of all there are per job.
    unflushed = (
        ""
        if dialect == "sqlite"
        else "AND set_config('synchronous_commit', 'off', true) IS NOT NULL "
    )
    first = "b.id < a.id"
    ahead = first if oldest else f"b.priority > a.priority OR (b.priority = a.priority AND {first})"
    return (
        f"WITH b AS ({beside}), a AS ({alone}) "
        "UPDATE job SET state = 'running', waiting_key = NULL, lease = lease + ?, "
        "lease_owner = ?, lease_until_utc = ?, attempts = attempts + 1, started_utc = ?, "
        "progress_done = NULL, progress_total = NULL "
        f"WHERE id = COALESCE((SELECT id FROM a WHERE NOT EXISTS (SELECT 1 FROM b WHERE {ahead})), "
        "(SELECT id FROM b)) "
        "AND NOT EXISTS (SELECT 1 FROM job_queue WHERE queue = ? AND held_until_utc > ?) "
        f"{unflushed}RETURNING {CLAIMED}"
    )


def claim_params(queue: str, owner: str, until_utc: str, now_utc: str) -> tuple[str | int, ...]:
    """Give the values of ``claim_sql`` in their order."""
    # By chance: of a claim that a crash of the database took back the next one has not the number.
    further = 1 + secrets.randbelow(_LARGEST_STEP)
    return (queue, queue, queue, further, owner, until_utc, now_utc, queue, now_utc)


def claim_of(row: tuple[object, ...]) -> Claim:
    """Make the claim of a row of ``CLAIMED``."""
    job, lease, queue, kind, payload, attempts, most, deadline, left = row
    return Claim(
        id=int(str(job)),
        lease=int(str(lease)),
        queue=str(queue),
        kind=str(kind),
        payload=str(payload),
        attempts=int(str(attempts)),
        max_attempts=None if most is None else int(str(most)),
        deadline_utc=parse_utc(deadline),
        has_children=left is not None,
    )
