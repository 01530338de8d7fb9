"""Effects of the test's jobs: a row each time one is committed."""

from typing import Any


def up(migrator: object, db: Any) -> None:
    db.execute_sql("CREATE TABLE tally_effect (n BIGINT NOT NULL, job BIGINT NOT NULL)")
