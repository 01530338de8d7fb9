"""In which form a peer gets what it takes in several, and how fast. Peers added before: as stored, at any rate."""

from typing import Any


def up(migrator: object, db: Any) -> None:
    text = "TEXT" if db.param == "?" else 'TEXT COLLATE "C"'
    db.execute_sql(f"ALTER TABLE peer ADD COLUMN encoding {text} NOT NULL DEFAULT 'as-stored'")
    db.execute_sql("ALTER TABLE peer ADD COLUMN rate_mbit_s DOUBLE PRECISION")
