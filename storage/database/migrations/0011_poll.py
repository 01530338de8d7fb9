"""Polls, and what is remembered of the studies and instances of the peers they ask.

``poll_instance`` outlives the instance: what came once and was deleted here is
not fetched again.
"""

from typing import Any

_TEXT = {"sqlite": "TEXT", "postgresql": 'TEXT COLLATE "C"'}
_STATEMENTS = (
    """CREATE TABLE poll (
        name {TEXT} PRIMARY KEY,
        ae_title {TEXT} NOT NULL,
        cron {TEXT} NOT NULL,
        window_days BIGINT NOT NULL,
        fetch_by {TEXT} NOT NULL,
        filters {TEXT} NOT NULL DEFAULT '[]',
        max_instances BIGINT NOT NULL,
        active INTEGER NOT NULL DEFAULT 1,
        added_utc {TEXT} NOT NULL,
        last_run_utc {TEXT},
        last_result {TEXT},
        trouble {TEXT} NOT NULL DEFAULT '')""",
    """CREATE TABLE poll_study (
        ae_title {TEXT} NOT NULL,
        study_instance_uid {TEXT} NOT NULL,
        instances BIGINT,
        due_utc {TEXT},
        breaks BIGINT NOT NULL DEFAULT 0,
        seen_utc {TEXT} NOT NULL,
        PRIMARY KEY (ae_title, study_instance_uid))""",
    "CREATE INDEX poll_study_seen ON poll_study (seen_utc)",
    """CREATE TABLE poll_instance (
        ae_title {TEXT} NOT NULL,
        study_instance_uid {TEXT} NOT NULL,
        sop_instance_uid {TEXT} NOT NULL,
        came INTEGER NOT NULL,
        attempts BIGINT NOT NULL DEFAULT 0,
        due_utc {TEXT},
        trouble {TEXT} NOT NULL DEFAULT '',
        PRIMARY KEY (ae_title, study_instance_uid, sop_instance_uid))""",
)


def up(migrator: object, db: Any) -> None:
    text = _TEXT["sqlite" if db.param == "?" else "postgresql"]
    for statement in _STATEMENTS:
        db.execute_sql(statement.format(TEXT=text))
