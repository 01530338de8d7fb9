"""Usage as typed facts, each once by its key; what was noted before is kept in the new form.

A fact of a kind counts once: the primary key, in whose order rows lie on SQLite. Of registrations it
begins with the time, as object ids do, so that a month is found by it. What is held is counted once here, as the index has it, so that the facts add up to it.
``usage_closed`` remembers what was held at the end of a month that is over; it can be made anew.
"""

import time
from typing import Any

_WORDS = {
    "sqlite": {
        "TEXT": "TEXT",
        "CLUSTERED": "WITHOUT ROWID",
        "NOTED_MS": "CAST(strftime('%s', noted_utc) AS INTEGER) * 1000",
        "TIME": "printf('%08x-%04x', {NOTED_MS} / 65536, {NOTED_MS} % 65536)",
    },
    "postgresql": {
        "TEXT": 'TEXT COLLATE "C"',
        "CLUSTERED": "",
        "NOTED_MS": "CAST(EXTRACT(EPOCH FROM CAST(noted_utc AS TIMESTAMPTZ)) AS BIGINT) * 1000",
        "TIME": "lpad(to_hex({NOTED_MS} / 65536), 8, '0') || '-' || "
        "lpad(to_hex({NOTED_MS} % 65536), 4, '0')",
    },
}
_STATEMENTS = (
    "ALTER TABLE usage_fact RENAME TO usage_fact_before",
    """CREATE TABLE usage_fact (
        kind {TEXT} NOT NULL,
        key {TEXT} NOT NULL,
        noted_ms BIGINT NOT NULL,
        subscriber {TEXT} NOT NULL,
        amount BIGINT NOT NULL DEFAULT 1,
        bytes BIGINT NOT NULL DEFAULT 0,
        duration_ms BIGINT,
        study_instance_uid {TEXT},
        modality {TEXT},
        receiver {TEXT},
        asked_by {TEXT},
        purpose {TEXT},
        operation {TEXT},
        PRIMARY KEY (kind, key)) {CLUSTERED}""",
    """CREATE TABLE usage_closed (
        month {TEXT} NOT NULL,
        subscriber {TEXT} NOT NULL,
        instances BIGINT NOT NULL,
        bytes BIGINT NOT NULL,
        PRIMARY KEY (month, subscriber)) {CLUSTERED}""",
    "INSERT INTO usage_fact (kind, key, noted_ms, subscriber, bytes, study_instance_uid) "
    "SELECT 'register', {TIME} || '-before-' || id, {NOTED_MS}, subscriber, amount, subject "
    "FROM usage_fact_before WHERE kind = 'register-bytes'",
    "INSERT INTO usage_fact (kind, key, noted_ms, subscriber, amount, receiver) "
    "SELECT kind, 'before-' || id, {NOTED_MS}, subscriber, amount, subject "
    "FROM usage_fact_before WHERE kind NOT IN ('register-bytes', 'deliver-bytes')",
    "INSERT INTO usage_fact (kind, key, noted_ms, subscriber, amount, bytes, receiver) "
    "SELECT 'deliver', 'before-' || id, {NOTED_MS}, subscriber, 0, amount, subject "
    "FROM usage_fact_before WHERE kind = 'deliver-bytes'",
    "DROP TABLE usage_fact_before",
)
_OPENING = (
    "SELECT subscriber, SUM(amount), SUM(bytes) FROM ("
    "SELECT registrant AS subscriber, 1 AS amount, "
    "COALESCE(original_bytes, size_bytes - data_set_offset) AS bytes "
    "FROM instance WHERE deleted_by IS NULL UNION ALL "
    "SELECT subscriber, -amount, -bytes FROM usage_fact WHERE kind = 'register') AS counted "
    "GROUP BY subscriber"
)


def up(migrator: object, db: Any) -> None:
    words = _WORDS["sqlite" if db.param == "?" else "postgresql"]
    for template in _STATEMENTS:
        # Twice: the words name each other.
        statement = template.format(**words).format(**words)
        if db.param != "?":
            statement = statement.replace("%", "%%")
        db.execute_sql(statement)
    now_ms = time.time_ns() // 1_000_000
    for subscriber, amount, size_bytes in db.execute_sql(_OPENING).fetchall():
        db.execute_sql(
            "INSERT INTO usage_fact (kind, key, noted_ms, subscriber, amount, bytes) "
            "VALUES ('hold', ?, ?, ?, ?, ?)".replace("?", db.param),
            (f"opening/{subscriber}", now_ms, subscriber, int(amount), int(size_bytes)),
        )
