"""Jobs as an administrator sees them: listed, retried, cancelled, purged, counted."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from pacs.core.errors import EntryConflicts, EntryNotFound
from pacs.core.work import ENDED, JobDepth, JobRow, JobState, QueueHold
from storage.database.connection import Database
from storage.database.job_queue import forget, lift
from storage.database.job_rows import DatabaseClock, end, let_go, parse_utc, text_utc

_COLUMNS = (
    "id, queue, kind, payload, cause, unique_key, state, priority, alone, not_before_utc, deadline_utc, "
    "attempts, crashes, parent, children_left, lease_owner, progress_done, progress_total, "
    "result, last_error, asked_utc, started_utc, ended_utc"
)
_PURGED_AT_ONCE = 1_000
_MOST_QUEUES = 10_000
SINCE = {
    JobState.WAITING: "asked_utc",
    JobState.DELAYED: "asked_utc",
    JobState.BLOCKED: "asked_utc",
    JobState.RUNNING: "started_utc",
    JobState.FAILED: "ended_utc",
}
"""States counted for a collector, and the column that says since when."""


def load_sql(state: JobState, since: str) -> str:
    """Make the statement that counts the jobs of one state; each such state has a partial index."""
    return (
        f"SELECT queue, COUNT(*), MIN({since}) FROM job WHERE state = '{state.value}' "
        f"GROUP BY queue ORDER BY queue LIMIT {_MOST_QUEUES}"
    )


class JobList:
    """What ``Jobs`` asks of the table."""

    def __init__(self, database: Database, wake: Callable[[str], None] = lambda _: None) -> None:
        self._database = database
        self._wake = wake
        self._clock = DatabaseClock(database)

    def list(
        self, state: JobState | None, kind: str | None, queue: str | None, limit: int
    ) -> Sequence[JobRow]:
        """The newest jobs that match, newest first."""
        given = {"state": state.value if state else None, "kind": kind, "queue": queue}
        keys = {key: value for key, value in given.items() if value is not None}
        where = " AND ".join(f"{key} = ?" for key in keys) or "1 = 1"
        rows = self._database.execute(
            f"SELECT {_COLUMNS} FROM job WHERE {where} ORDER BY id DESC LIMIT ?",
            (*keys.values(), limit),
        )
        return [_job_of(row) for row in rows]

    def find(self, job: int) -> JobRow:
        """One job. Raises ``EntryNotFound``."""
        row = next(self._database.execute(f"SELECT {_COLUMNS} FROM job WHERE id = ?", (job,)), None)
        if row is None:
            raise EntryNotFound(f"there is no job {job}")
        return _job_of(row)

    def lines(self, job: int) -> Sequence[tuple[str, str]]:
        """When it said what, oldest first."""
        rows = self._database.execute(
            "SELECT said_utc, line FROM job_log WHERE job = ? ORDER BY id", (job,)
        )
        return [(row[0], row[1]) for row in rows]

    def depths(self) -> Sequence[JobDepth]:
        """How many jobs of each queue are in each state, and since when the oldest waits there."""
        now = self._clock.now()
        rows = self._database.execute(
            "SELECT queue, state, COUNT(*), MIN(COALESCE(ended_utc, started_utc, asked_utc)) "
            "FROM job GROUP BY queue, state ORDER BY queue, state"
        )
        held = self._held_queues(now)
        return [
            JobDepth(
                queue=row[0],
                state=JobState(row[1]),
                jobs=int(row[2]),
                oldest_s=max(0.0, (now - (parse_utc(row[3]) or now)).total_seconds()),
                held_until_utc=held.get(row[0], (None, ""))[0],
                held_why=held.get(row[0], (None, ""))[1],
            )
            for row in rows
        ]

    def load(self) -> Sequence[JobDepth]:
        """As ``depths``, from the indexes of those states in which a job may cause concern."""
        now = self._clock.now()
        return [
            JobDepth(
                queue=row[0],
                state=state,
                jobs=int(row[1]),
                oldest_s=max(0.0, (now - (parse_utc(row[2]) or now)).total_seconds()),
            )
            for state, since in SINCE.items()
            for row in self._database.execute(load_sql(state, since))
        ]

    def holds(self) -> Sequence[QueueHold]:
        """Queues whose peer is away, held or about to be tried."""
        now = self._clock.now()
        rows = self._database.execute(
            "SELECT queue, held_until_utc, failures FROM job_queue ORDER BY queue LIMIT ?",
            (_MOST_QUEUES,),
        )
        return [
            QueueHold(
                queue=row[0],
                held_s=max(0.0, ((parse_utc(row[1]) or now) - now).total_seconds()),
                failures=int(row[2]),
            )
            for row in rows
        ]

    def _held_queues(self, now: datetime) -> Mapping[str, tuple[str, str]]:
        rows = self._database.execute(
            "SELECT queue, held_until_utc, why FROM job_queue WHERE held_until_utc > ?",
            (text_utc(now),),
        )
        return {row[0]: (row[1], row[2]) for row in rows}

    def retry(self, job: int) -> None:
        """Let a job that failed, was cancelled or is delayed wait anew. Raises ``EntryConflicts``.

        One that waits in a held queue lets its queue go on.
        """
        row = self.find(job)
        with self._database.transaction():
            changed = self._database.write(
                "UPDATE job SET state = 'waiting', attempts = 0, crashes = 0, cancel_asked = 0, "
                "not_before_utc = NULL, deadline_utc = NULL, ended_utc = NULL, "
                "waiting_key = CASE WHEN parent IS NULL AND NOT EXISTS (SELECT 1 FROM job o "
                "WHERE o.waiting_key = job.unique_key AND o.id <> job.id) THEN unique_key END "
                "WHERE id = ? AND state IN ('failed', 'cancelled', 'delayed')",
                (job,),
            )
            waits = changed.rowcount != 1 and row.state is JobState.WAITING
            if changed.rowcount != 1 and not (waits and lift(self._database, row.queue)):
                raise EntryConflicts(f"job {job} is {row.state.value}: nothing to try again")
            if row.state in ENDED:
                let_go(self._database, job)
        self._wake(row.queue)

    def cancel(self, job: int) -> JobState:
        """Cancel a job and its parts; one that runs is asked to stop. Gives its state afterwards.

        Raises ``EntryConflicts`` where it has ended.
        """
        row = self.find(job)
        if row.state in ENDED:
            raise EntryConflicts(f"job {job} has ended already: {row.state.value}")
        with self._database.transaction():
            # The job before its parts: blocked no more, it is not let go on by their ends.
            self._database.write(
                "UPDATE job SET cancel_asked = 1, state = CASE state WHEN 'running' "
                "THEN 'running' ELSE 'cancelled' END, ended_utc = CASE state WHEN 'running' "
                "THEN NULL ELSE ? END, waiting_key = NULL, last_error = 'cancelled' "
                "WHERE id = ? AND state IN ('waiting', 'delayed', 'blocked', 'running')",
                (text_utc(self._clock.now()), job),
            )
            (state,) = self._database.write("SELECT state FROM job WHERE id = ?", (job,)).fetchone()
            woken = end(self._database, job) if state == "cancelled" else set()
        for queue in woken:
            self._wake(queue)
        for part in self._unended_parts(job):
            self.cancel(part)
        return JobState(state)

    def _unended_parts(self, job: int) -> Sequence[int]:
        rows = self._database.execute(
            "SELECT id FROM job WHERE parent = ? AND ended_utc IS NULL", (job,)
        )
        return [int(row[0]) for row in rows]

    def purge(self, states: Sequence[JobState], older_s: float) -> int:
        """Forget jobs that ended so long ago in these states, but parts their parent still needs."""
        before = text_utc(self._clock.now() - timedelta(seconds=older_s))
        marks = ", ".join("?" * len(states))
        with self._database.transaction():
            forget(self._database, before)
        total = 0
        while True:
            with self._database.transaction():
                gone: int = self._database.write(
                    "DELETE FROM job WHERE id IN (SELECT j.id FROM job j WHERE "
                    f"j.ended_utc < ? AND j.state IN ({marks}) AND NOT EXISTS (SELECT 1 FROM job p "
                    f"WHERE p.id = j.parent AND p.ended_utc IS NULL) LIMIT {_PURGED_AT_ONCE})",
                    (before, *(one.value for one in states)),
                ).rowcount
            total += gone
            if gone < _PURGED_AT_ONCE:
                return total


def _job_of(row: Sequence[object]) -> JobRow:
    values = dict(zip(_COLUMNS.split(", "), row, strict=True))
    values["state"], values["alone"] = JobState(values["state"]), bool(values["alone"])
    return JobRow(**values)  # type: ignore[arg-type]  # the columns are the fields
