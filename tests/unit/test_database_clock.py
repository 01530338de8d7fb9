"""The database's time while several threads of a process ask for it."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from storage.database import job_rows
from storage.database.connection import Database
from storage.database.job_rows import DatabaseClock

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


class Server:
    """A database whose clock is a minute later each time it is asked, as is ours."""

    dialect = "postgresql"

    def __init__(self) -> None:
        self.asked = 0

    def execute(self, sql: str) -> Iterator[tuple[datetime]]:
        self.asked += 1
        return iter([(NOON + timedelta(seconds=60 * (self.asked - 1)),)])


def test_another_thread_that_asks_meanwhile_puts_nobody_into_the_future(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server, ours_s = Server(), [100.0]
    monkeypatch.setattr(job_rows.time, "monotonic", lambda: ours_s[0])
    clock = DatabaseClock(cast(Database, server))
    assert clock.now() == NOON

    class Interrupted:
        """Is compared with what has elapsed; then another thread has its turn, a moment later."""

        others = 0

        def __lt__(self, elapsed_s: float) -> bool:
            Interrupted.others += 1
            if Interrupted.others == 1:
                ours_s[0] += 0.1
                assert clock.now() == NOON + timedelta(seconds=60)
                return False
            return True

    monkeypatch.setattr(job_rows, "_ASK_AGAIN_S", cast(Any, Interrupted()))
    ours_s[0] += 59.95
    found = clock.now()
    assert server.asked == 2
    assert NOON + timedelta(seconds=59) < found < NOON + timedelta(seconds=61)
