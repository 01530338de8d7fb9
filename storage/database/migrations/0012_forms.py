"""Re-encoded forms: what the file of an instance holds instead of what was received.

``form_change`` is a record although it speaks of files: it says which of
several was the one to keep, and that cannot be seen from them.
"""

from typing import Any

_STATEMENTS = (
    "ALTER TABLE instance ADD COLUMN form_digest {TEXT}",
    "ALTER TABLE instance ADD COLUMN original_syntax_uid {TEXT}",
    "ALTER TABLE instance ADD COLUMN original_bytes BIGINT",
    """CREATE TABLE form_change (
        object_id {TEXT} PRIMARY KEY,
        state {TEXT} NOT NULL,
        token {TEXT} NOT NULL,
        keep {TEXT} NOT NULL,
        due_utc {TEXT} NOT NULL)""",
    "CREATE INDEX form_change_due ON form_change (due_utc)",
    """CREATE TABLE form_refusal (
        object_id {TEXT} NOT NULL,
        target {TEXT} NOT NULL,
        reason {TEXT} NOT NULL,
        PRIMARY KEY (object_id, target))""",
)


def up(migrator: object, db: Any) -> None:
    text = "TEXT" if db.param == "?" else 'TEXT COLLATE "C"'
    for statement in _STATEMENTS:
        db.execute_sql(statement.format(TEXT=text))
