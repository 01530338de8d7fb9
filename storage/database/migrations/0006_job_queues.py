"""Jobs that run alone in their queue, queues that are held, and deadlines that are found without a claim.

``alone`` stands between queue and priority in the indexes of the claim: the
first job of either sort is found in its first row. ``id + 0`` keeps
PostgreSQL from walking the primary key past everything that has ended.
``job_alone`` is what keeps two of one queue from running, whoever claims.
"""

from typing import Any

_STATEMENTS = (
    "ALTER TABLE job ADD COLUMN alone INTEGER NOT NULL DEFAULT 0",
    "DROP INDEX job_ready",
    "DROP INDEX job_oldest",
    "CREATE INDEX job_ready ON job (queue, alone, priority DESC, id) WHERE state = 'waiting'",
    "CREATE INDEX job_oldest ON job (queue, (id + 0)) WHERE state = 'waiting' AND alone = 0",
    "CREATE UNIQUE INDEX job_alone ON job (queue) WHERE state = 'running' AND alone = 1",
    "CREATE INDEX job_deadline ON job (deadline_utc) "
    "WHERE deadline_utc IS NOT NULL AND state IN ('waiting', 'delayed')",
    """CREATE TABLE job_queue (
        queue {TEXT} PRIMARY KEY,
        held_until_utc {TEXT} NOT NULL,
        failures BIGINT NOT NULL,
        why {TEXT} NOT NULL)""",
)


def up(migrator: object, db: Any) -> None:
    text = "TEXT" if db.param == "?" else 'TEXT COLLATE "C"'
    for statement in _STATEMENTS:
        db.execute_sql(statement.format(TEXT=text))
