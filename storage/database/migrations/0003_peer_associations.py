"""How many associations a peer takes at once. Peers added before take one, as they were treated."""

from typing import Any


def up(migrator: object, db: Any) -> None:
    db.execute_sql("ALTER TABLE peer ADD COLUMN associations BIGINT NOT NULL DEFAULT 1")
