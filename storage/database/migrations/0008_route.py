"""Routes: which arrivals go where, as the admin entered them."""

from typing import Any

_WORDS = {"sqlite": {"TEXT": "TEXT"}, "postgresql": {"TEXT": 'TEXT COLLATE "C"'}}
_ROUTE = """CREATE TABLE route (
    name {TEXT} PRIMARY KEY,
    active INTEGER NOT NULL DEFAULT 1,
    definition {TEXT} NOT NULL,
    added_utc {TEXT} NOT NULL)"""


def up(migrator: object, db: Any) -> None:
    db.execute_sql(_ROUTE.format(**_WORDS["sqlite" if db.param == "?" else "postgresql"]))
