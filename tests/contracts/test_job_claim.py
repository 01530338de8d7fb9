"""What a claim costs does not depend on how much waits: counted in steps of the database, not in time."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from config.settings import Database as DatabaseSettings
from storage.database.connection import Database
from storage.database.job_claim import QUEUES, claim_params, claim_sql

FEW, MANY = 100, 100_000
MOST = 4.0
"""Times as much for a thousand times as many rows: an index grows a level or two."""
NOW = "2026-01-01T00:00:00.000000Z"
LATER = "2999-01-01T00:00:00.000000Z"
SERIES = {
    "sqlite": "WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c "
    "WHERE n < {count}) SELECT n FROM c",
    "postgresql": "SELECT n FROM generate_series(1, {count}) AS n",
}


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    return "" if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def database(url: str, tmp_path: Path) -> Iterator[Database]:
    made = Database(DatabaseSettings(url=url), tmp_path)
    made.migrate()
    yield made
    made.close()


def fill(database: Database, count: int) -> None:
    """A queue of either sort, one held, one in which one runs alone; as many again that have ended."""
    series = SERIES[database.dialect].format(count=count)
    with database.transaction():
        database.write("DELETE FROM job")
        database.write("DELETE FROM job_queue")
        for queue, alone in (("beside", "0"), ("alone", "1"), ("busy", "1"), ("held", "1")):
            database.write(
                "INSERT INTO job (kind, payload, queue, alone, priority, state, asked_utc, "
                "ended_utc, deadline_utc) "
                f"SELECT 'k', '{{}}', '{queue}', {alone}, n % 5, CASE n % 2 WHEN 0 THEN 'waiting' "
                f"ELSE 'done' END, '{NOW}', CASE n % 2 WHEN 1 THEN '{NOW}' END, '{LATER}' "
                f"FROM ({series}) AS s"
            )
        database.write(
            "INSERT INTO job (kind, payload, queue, alone, state, asked_utc, lease_until_utc) "
            f"VALUES ('k', '{{}}', 'busy', 1, 'running', '{NOW}', '{LATER}')"
        )
        database.write(
            "INSERT INTO job_queue (queue, held_until_utc, failures, why) "
            f"VALUES ('held', '{LATER}', 1, 'away')"
        )
    with database.connection():
        if database.dialect == "sqlite":
            database.peewee.execute_sql("ANALYZE")
        else:
            connection = database.peewee.connection()
            connection.autocommit = True
            connection.execute("VACUUM ANALYZE job")
            connection.autocommit = False


def cost(database: Database, sql: str, params: tuple[str, ...]) -> int:
    """Steps of SQLite's machine, or pages PostgreSQL touches. Nothing is changed."""
    measure = _steps if database.dialect == "sqlite" else _pages
    with pytest.raises(_Undone) as found, database.transaction():
        raise _Undone(measure(database, sql, params))
    return int(found.value.args[0])


class _Undone(Exception):
    """Ends a transaction without its changes; brings what was measured."""


def _steps(database: Database, sql: str, params: tuple[str, ...]) -> int:
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    connection = database.peewee.connection()
    connection.set_progress_handler(count, 10)
    try:
        database.write(sql, params).fetchall()
    finally:
        connection.set_progress_handler(None, 0)
    return steps


def _pages(database: Database, sql: str, params: tuple[str, ...]) -> int:
    rows = database.write(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}", params).fetchall()
    plan = rows[0][0] if isinstance(rows[0][0], list) else json.loads(rows[0][0])
    return int(plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"])


def test_a_claim_costs_the_same_of_a_hundred_rows_and_of_a_hundred_thousand(
    database: Database,
) -> None:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    asked = {
        f"{queue} oldest={oldest}": (
            claim_sql(database.dialect, oldest=oldest),
            claim_params(queue, "me", LATER, now),
        )
        for queue in ("beside", "alone", "busy", "held", "nothing")
        for oldest in (False, True)
    }
    asked["queues"] = (QUEUES, (now,))
    costs: dict[int, dict[str, int]] = {}
    for count in (FEW, MANY):
        fill(database, count)
        costs[count] = {name: cost(database, *one) for name, one in asked.items()}
    for name, few in costs[FEW].items():
        assert costs[MANY][name] <= MOST * max(few, 10), (name, costs)


def test_the_measure_sees_a_walk_over_all_rows(database: Database) -> None:
    walk = ("SELECT COUNT(*) FROM job WHERE state = 'waiting' AND kind = ?", ("k",))
    fill(database, FEW)
    few = cost(database, *walk)
    fill(database, MANY)
    assert cost(database, *walk) > MOST * max(few, 10)
