"""In whose name jobs of ours do what a workitem orders."""

from typing import Any


def up(migrator: object, db: Any) -> None:
    text = "TEXT" if db.param == "?" else 'TEXT COLLATE "C"'
    db.execute_sql(f"ALTER TABLE workitem ADD COLUMN ordered_by {text} NOT NULL DEFAULT ''")
