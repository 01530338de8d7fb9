"""What is known of each instance at the destinations it is forwarded to.

One row per instance and destination and one index, its key: it is looked up by the study's
instances and walked in pieces, so a hundred bytes a row are all it takes.
"""

from typing import Any

_WORDS = {
    "sqlite": {"TEXT": "TEXT", "CLUSTERED": "WITHOUT ROWID"},
    "postgresql": {"TEXT": 'TEXT COLLATE "C"', "CLUSTERED": ""},
}
_TABLE = """CREATE TABLE forward_sent (
    ae_title {TEXT} NOT NULL,
    object_id {TEXT} NOT NULL,
    state {TEXT} NOT NULL,
    job BIGINT NOT NULL,
    run BIGINT NOT NULL,
    noted_ms BIGINT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 1,
    doubts INTEGER NOT NULL DEFAULT 0,
    committed INTEGER NOT NULL DEFAULT 0,
    status INTEGER,
    trouble {TEXT} NOT NULL DEFAULT '',
    PRIMARY KEY (ae_title, object_id)) {CLUSTERED}"""


def up(migrator: object, db: Any) -> None:
    dialect = "sqlite" if db.param == "?" else "postgresql"
    db.execute_sql(_TABLE.format(**_WORDS[dialect]))
    if dialect == "postgresql":  # each row is written twice at least: leave room beside it
        db.execute_sql("ALTER TABLE forward_sent SET (fillfactor = 80)")
