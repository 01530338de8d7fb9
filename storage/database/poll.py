"""Rows of polls: what an admin entered, and how the last run of each ended."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from pacs.core.errors import EntryNotFound
from pacs.core.identifiers import AETitle
from pacs.core.poll_ports import LastRun
from pacs.core.polling import FetchBy, Poll
from storage.database.connection import Database
from storage.database.job_rows import text_utc
from storage.database.revision import bump_revision

_COLUMNS = "name, ae_title, cron, window_days, fetch_by, filters, max_instances, active"


class PollTable:
    """Polls by name. What an admin changes bumps the revision, how a run ended does not."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self) -> Sequence[Poll]:
        """All polls by name."""
        rows = self._database.execute(f"SELECT {_COLUMNS} FROM poll ORDER BY name")
        return [_poll_of(row) for row in rows]

    def put(self, poll: Poll) -> None:
        """Add a poll, or change the one of that name."""
        columns = _COLUMNS.split(", ")
        changes = ", ".join(f"{one} = excluded.{one}" for one in columns[1:])
        with self._database.transaction():
            self._database.write(
                f"INSERT INTO poll ({_COLUMNS}, added_utc) VALUES "
                f"({', '.join('?' * len(columns))}, ?) ON CONFLICT (name) DO UPDATE SET {changes}",
                (
                    poll.name,
                    poll.ae_title,
                    poll.cron,
                    poll.window_days,
                    poll.by.value,
                    json.dumps(poll.filters),
                    poll.max_instances,
                    int(poll.active),
                    text_utc(datetime.now(UTC)),
                ),
            )
            bump_revision(self._database)

    def remove(self, name: str) -> None:
        """Remove a poll. Raises ``EntryNotFound``."""
        with self._database.transaction():
            removed = self._database.write("DELETE FROM poll WHERE name = ?", (name,))
            if removed.rowcount == 0:
                raise EntryNotFound(f"no poll is named {name}")
            bump_revision(self._database)

    def last_runs(self) -> Mapping[str, LastRun]:
        """How the last run of each poll ended, by its name; nothing of those that never ran."""
        rows = self._database.execute(
            "SELECT name, last_run_utc, last_result, trouble FROM poll "
            "WHERE last_run_utc IS NOT NULL"
        )
        return {
            name: LastRun(
                ended_utc=ended, result=json.loads(result) if result else None, trouble=trouble
            )
            for name, ended, result, trouble in rows
        }

    def note_run(self, name: str, result: Mapping[str, int] | None, trouble: str) -> None:
        """Say how a run ended; the result of the last one that had one stays."""
        with self._database.transaction():
            self._database.write(
                "UPDATE poll SET last_run_utc = ?, last_result = COALESCE(?, last_result), "
                "trouble = ? WHERE name = ?",
                (
                    text_utc(datetime.now(UTC)),
                    None if result is None else json.dumps(result),
                    trouble,
                    name,
                ),
            )


def _poll_of(row: Sequence[object]) -> Poll:
    name, ae_title, cron, window_days, by, filters, max_instances, active = row
    return Poll(
        name=str(name),
        ae_title=AETitle(str(ae_title)),
        cron=str(cron),
        window_days=int(str(window_days)),
        by=FetchBy(by),
        filters=tuple((key, value) for key, value in json.loads(str(filters))),
        max_instances=int(str(max_instances)),
        active=bool(active),
    )
