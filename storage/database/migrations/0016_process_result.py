"""What pieces of workitems gave: which results are held of the same done to the same, and what is used once all have ended."""

from typing import Any

_WORDS = {
    "sqlite": {"TEXT": "TEXT", "CLUSTERED": "WITHOUT ROWID"},
    "postgresql": {"TEXT": 'TEXT COLLATE "C"', "CLUSTERED": ""},
}
_STATEMENTS = (
    """CREATE TABLE process_result (
        session {TEXT} NOT NULL,
        piece INTEGER NOT NULL,
        pieces INTEGER NOT NULL,
        registrant {TEXT} NOT NULL,
        result_key {TEXT} NOT NULL,
        operation {TEXT} NOT NULL,
        study_instance_uid {TEXT} NOT NULL,
        made {TEXT} NOT NULL,
        reasons {TEXT} NOT NULL,
        images BIGINT NOT NULL,
        size_bytes BIGINT NOT NULL,
        duration_ms BIGINT NOT NULL,
        completed INTEGER NOT NULL DEFAULT 0,
        noted_ms BIGINT NOT NULL,
        PRIMARY KEY (session, piece)) {CLUSTERED}""",
    "CREATE INDEX process_result_key ON process_result (registrant, result_key)",
    "CREATE INDEX process_result_noted ON process_result (noted_ms)",
    "CREATE INDEX job_of_workitem ON job (cause) "
    "WHERE kind IN ('process.workitem', 'process.deliver')",
)


def up(migrator: object, db: Any) -> None:
    dialect = "sqlite" if db.param == "?" else "postgresql"
    for statement in _STATEMENTS:
        db.execute_sql(statement.format(**_WORDS[dialect]))
