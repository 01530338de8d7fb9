"""Transactions of Storage Commitment: what was asked of which AE, for which job, and what it reported."""

from typing import Any

_STATEMENTS = (
    """CREATE TABLE commitment (
        transaction_uid {TEXT} PRIMARY KEY,
        ae_title {TEXT} NOT NULL,
        job BIGINT NOT NULL,
        state {TEXT} NOT NULL,
        first_reference BIGINT NOT NULL,
        reference_count BIGINT NOT NULL,
        reference_list {TEXT} NOT NULL,
        asked_utc {TEXT} NOT NULL,
        deadline_utc {TEXT} NOT NULL,
        reported_utc {TEXT},
        failed {TEXT})""",
    "CREATE INDEX commitment_job ON commitment (job, first_reference) WHERE state <> 'over'",
    "CREATE INDEX commitment_deadline ON commitment (deadline_utc)",
)


def up(migrator: object, db: Any) -> None:
    text = "TEXT" if db.param == "?" else 'TEXT COLLATE "C"'
    for statement in _STATEMENTS:
        db.execute_sql(statement.format(TEXT=text))
