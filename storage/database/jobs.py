"""The table of jobs as workers see it: claimed, leased, ended. The row is the truth.

Whoever claims gets a lease with a number; every later change names it, so a
worker that was too slow changes nothing. Each change of state is one short
transaction. Times are the database's on PostgreSQL: nodes' clocks differ.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

import peewee

from pacs.core.errors import RecordsFailed
from pacs.core.records import Job
from pacs.core.work import Beat, Claim, JobState, LeaseLost, Part
from storage.database.connection import Database
from storage.database.job_claim import QUEUES, claim_of, claim_params, claim_sql
from storage.database.job_queue import hold, lift
from storage.database.job_rows import (
    LONGEST_TEXT,
    DatabaseClock,
    end,
    enqueue,
    let_go,
    parse_utc,
    resume,
    text_utc,
)
from storage.database.store import DatabaseRecords, DatabaseUnit

_PROMOTED_AT_ONCE = 500
UNBEGUN = "its deadline passed before it was begun"
_HELD = "id = ? AND lease = ? AND state = 'running'"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Left:
    """What follows for others from a job that was given up: it has a parent, its queue was held."""

    is_part: bool
    troubled: bool


class JobTable:
    """``pacs.core.job_ports.JobTable`` on SQLite or PostgreSQL."""

    def __init__(
        self,
        database: Database,
        records: DatabaseRecords,
    ) -> None:
        self._database = database
        self._records = records
        self._clock = DatabaseClock(database)

    def now(self) -> datetime:
        """The time all nodes agree on. Raises ``RecordsFailed``."""
        return self._clock.now()

    # --- claiming ----------------------------------------------------------------

    def queues(self) -> Sequence[str]:
        """Queues of which a job may be begun, in their order: not the held ones."""
        now = text_utc(self.now())
        due = self._database.execute(
            "SELECT 1 FROM job WHERE state = 'delayed' AND not_before_utc <= ? LIMIT 1", (now,)
        )
        if next(due, None) is not None:
            self._promote(now)
        return [row[0] for row in self._database.execute(QUEUES, (now,))]

    def _promote(self, now: str) -> None:
        locked = "" if self._database.dialect == "sqlite" else " FOR UPDATE SKIP LOCKED"
        with self._database.transaction():
            self._database.write(
                "UPDATE job SET state = 'waiting' WHERE id IN (SELECT id FROM job "
                "WHERE state = 'delayed' AND not_before_utc <= ? ORDER BY not_before_utc "
                f"LIMIT {_PROMOTED_AT_ONCE}{locked})",
                (now,),
            )

    def claim(
        self, queue: str, owner: str, lease_s: float, *, oldest: bool = False
    ) -> Claim | None:
        """Lease the next job of a queue: the highest priority, or the oldest. Raises ``RecordsFailed``.

        One whose deadline has passed fails here, and the next is taken.
        """
        while True:
            now = self.now()
            claim = self._claim(queue, owner, now, lease_s, oldest=oldest)
            if claim is None or claim.deadline_utc is None or claim.deadline_utc > now:
                return claim
            self.fail(claim, UNBEGUN)

    def _claim(
        self, queue: str, owner: str, now: datetime, lease_s: float, *, oldest: bool
    ) -> Claim | None:
        until = text_utc(now + timedelta(seconds=lease_s))
        sql = claim_sql(self._database.dialect, oldest=oldest)
        try:
            with self._database.transaction():
                params = claim_params(queue, owner, until, text_utc(now))
                row = self._database.write(sql, params).fetchone()
        except RecordsFailed as error:
            if isinstance(error.__cause__, peewee.IntegrityError):
                return None  # another that runs alone was begun in the same moment
            raise
        return None if row is None else claim_of(row)

    # --- while it runs -------------------------------------------------------------

    def beat(self, claim: Claim, lease_s: float | None) -> Beat:
        """Ask about the lease and, where ``lease_s`` is given, extend it. Raises ``RecordsFailed``."""
        if lease_s is not None:
            until = text_utc(self.now() + timedelta(seconds=lease_s))
            with self._database.transaction():
                self._database.write(
                    f"UPDATE job SET lease_until_utc = ? WHERE {_HELD}",
                    (until, claim.id, claim.lease),
                )
        found = self._database.execute(
            f"SELECT cancel_asked FROM job WHERE {_HELD}", (claim.id, claim.lease)
        )
        row = next(found, None)
        return Beat(held=row is not None, cancel_asked=row is not None and bool(row[0]))

    def note(
        self, claim: Claim, progress: tuple[int, int] | None, lines: Sequence[str], keep: int
    ) -> None:
        """Write progress and log lines; only the newest ``keep`` lines stay."""
        with self._database.transaction():
            if progress is not None:
                self._database.write(
                    f"UPDATE job SET progress_done = ?, progress_total = ? WHERE {_HELD}",
                    (*progress, claim.id, claim.lease),
                )
            self._say(claim.id, lines, keep)

    def _say(self, job: int, lines: Sequence[str], keep: int) -> None:
        now = text_utc(self.now())
        for line in lines:
            self._database.write(
                "INSERT INTO job_log (job, said_utc, line) SELECT id, ?, ? FROM job WHERE id = ?",
                (now, line[:LONGEST_TEXT], job),
            )
        if lines:
            self._database.write(
                "DELETE FROM job_log WHERE job = ? AND id <= (SELECT id FROM job_log "
                "WHERE job = ? ORDER BY id DESC LIMIT 1 OFFSET ?)",
                (job, job, keep),
            )

    def part(self, claim: Claim, jobs: Sequence[Job]) -> None:
        """Add the parts of a job and let it wait for them. Raises ``LeaseLost``."""
        with self._database.transaction():
            self._leave(
                claim,
                "state = 'blocked', attempts = attempts - 1, children_left = ?",
                (len(jobs),),
            )
            woken = {enqueue(self._database, job, parent=claim.id) for job in jobs}
            if not jobs:
                resume(self._database, claim.id)
        self._records.wake(woken or {claim.queue})

    def parts(self, claim: Claim) -> Sequence[Part]:
        """How the parts of a job ended, in the order they were asked for."""
        rows = self._database.execute(
            "SELECT id, kind, payload, state, result, last_error FROM job "
            "WHERE parent = ? ORDER BY id",
            (claim.id,),
        )
        return [
            Part(
                id=row[0],
                kind=row[1],
                payload=row[2],
                state=JobState(row[3]),
                result=row[4],
                error=row[5],
            )
            for row in rows
        ]

    # --- how it ends ---------------------------------------------------------------

    @contextmanager
    def finishing(self, claim: Claim, result: str | None) -> Iterator[DatabaseUnit]:
        """End a job with the effects written in the block, in one transaction. Raises ``LeaseLost``."""
        with self._records.transaction() as unit:
            left = self._end(claim, JobState.DONE, "result = ?, last_error = ''", (result,))
            yield unit
            if left.is_part:
                unit.queues.update(end(self._database, claim.id))
            if left.troubled:
                lift(self._database, claim.queue)
                unit.queues.add(claim.queue)

    def fail(self, claim: Claim, error: str) -> None:
        """Put a job to the dead letters. Raises ``LeaseLost``."""
        self._ended(claim, JobState.FAILED, error)

    def drop(self, claim: Claim, error: str) -> None:
        """End a job as cancelled. Raises ``LeaseLost``."""
        self._ended(claim, JobState.CANCELLED, error)

    def _ended(self, claim: Claim, state: JobState, error: str) -> None:
        with self._database.transaction():
            left = self._end(claim, state, "last_error = ?", (error[:LONGEST_TEXT],))
            woken = end(self._database, claim.id) if left.is_part else set()
        self._records.wake(woken)

    def _end(self, claim: Claim, state: JobState, also: str, params: Sequence[object]) -> "_Left":
        sets = f"state = '{state.value}', ended_utc = ?, {also}"
        return self._leave(claim, sets, (text_utc(self.now()), *params))

    def _leave(self, claim: Claim, sets: str, params: Sequence[object]) -> "_Left":
        """Give the lease up, changing the row. Within a transaction. Raises ``LeaseLost``."""
        row = self._database.write(
            f"UPDATE job SET {sets}, lease_owner = NULL, lease_until_utc = NULL WHERE {_HELD} "
            "RETURNING parent, EXISTS (SELECT 1 FROM job_queue q WHERE q.queue = job.queue)",
            (*params, claim.id, claim.lease),
        ).fetchone()
        if row is None:
            raise LeaseLost(f"job {claim.id} is no longer ours")
        return _Left(is_part=row[0] is not None, troubled=bool(row[1]))

    def later(self, claim: Claim, after_s: float, error: str, *, counts: bool) -> None:
        """Let it wait again, ``after_s`` from now; ``counts`` as an attempt or not. Raises ``LeaseLost``.

        What has ended in vain has parts anew.
        """
        due = text_utc(self.now() + timedelta(seconds=after_s))
        state = "delayed" if after_s > 0 else "waiting"
        with self._database.transaction():
            self._leave(
                claim,
                f"state = '{state}', not_before_utc = ?, last_error = ?, "
                f"attempts = attempts - {0 if counts else 1}",
                (due, error[:LONGEST_TEXT]),
            )
            self._take_key(claim.id)
            if counts and claim.has_children:
                let_go(self._database, claim.id)
        if after_s <= 0:
            self._records.wake({claim.queue})

    def hold(self, claim: Claim, error: str, pause_s: Callable[[int], float]) -> None:
        """Put a job back into its place and begin none of its queue for a time. Raises ``LeaseLost``.

        ``pause_s`` gives how long, from how often in a row the queue has been held.
        """
        text = error[:LONGEST_TEXT]
        with self._database.transaction():
            self._leave(
                claim,
                "state = 'waiting', not_before_utc = NULL, attempts = attempts - 1, last_error = ?",
                (text,),
            )
            self._take_key(claim.id)
            hold(self._database, claim.queue, now=self.now(), why=text, pause_s=pause_s)

    def overdue(self, most: int) -> int:
        """Fail jobs whose deadline passed while they waited, ``most`` at most; gives how many."""
        now = text_utc(self.now())
        locked = "" if self._database.dialect == "sqlite" else " FOR UPDATE SKIP LOCKED"
        late = "state IN ('waiting', 'delayed') AND deadline_utc IS NOT NULL AND deadline_utc <= ?"
        if next(self._database.execute(f"SELECT 1 FROM job WHERE {late} LIMIT 1", (now,)), 0) == 0:
            return 0
        with self._database.transaction():
            rows = self._database.write(
                "UPDATE job SET state = 'failed', waiting_key = NULL, ended_utc = ?, "
                f"last_error = '{UNBEGUN}' WHERE id IN (SELECT id FROM job WHERE {late} "
                f"ORDER BY deadline_utc LIMIT ?{locked}) RETURNING id, parent",
                (now, now, most),
            ).fetchall()
            parts = [end(self._database, int(row[0])) for row in rows if row[1] is not None]
        self._records.wake(set().union(*parts))
        return len(rows)

    def _take_key(self, job: int) -> None:
        """Waiting again, it holds its unique key again, unless another waits under it."""
        self._database.write(
            "UPDATE job SET waiting_key = unique_key WHERE id = ? AND unique_key IS NOT NULL "
            "AND NOT EXISTS (SELECT 1 FROM job o WHERE o.waiting_key = job.unique_key)",
            (job,),
        )

    # --- workers that are gone -------------------------------------------------------

    def expire(self, max_crashes: int) -> int:
        """Take back the jobs whose lease is over; gives how many. Raises ``RecordsFailed``."""
        return self._take_back("lease_until_utc < ?", text_utc(self.now()), max_crashes)

    def release(self, owner: str, max_crashes: int) -> int:
        """Take back at once what a worker held whose process is known to have died."""
        return self._take_back("lease_owner = ?", owner, max_crashes)

    def _take_back(self, where: str, param: str, max_crashes: int) -> int:
        rows = list(
            self._database.execute(
                f"SELECT id, lease, queue FROM job WHERE state = 'running' AND {where}", (param,)
            )
        )
        return sum(self._crashed(int(row[0]), int(row[1]), row[2], max_crashes) for row in rows)

    def _crashed(self, job: int, lease: int, queue: str, max_crashes: int) -> bool:
        """Let one job wait again, or give it up where it has ended its process too often."""
        with self._database.transaction():
            row = self._database.write(
                "UPDATE job SET crashes = crashes + 1, lease_owner = NULL, lease_until_utc = NULL, "
                "state = CASE WHEN cancel_asked = 1 THEN 'cancelled' "
                "WHEN crashes + 1 >= ? THEN 'failed' ELSE 'waiting' END, "
                "attempts = attempts - 1, last_error = 'its worker ended while it ran' "
                f"WHERE {_HELD} RETURNING state",
                (max_crashes, job, lease),
            ).fetchone()
            if row is None:
                return False
            woken = {queue}
            if row[0] == "waiting":
                self._take_key(job)
            else:
                self._database.write(
                    "UPDATE job SET ended_utc = ? WHERE id = ?", (text_utc(self.now()), job)
                )
                woken |= end(self._database, job)
        self._records.wake(woken)
        return True

    # --- schedules -------------------------------------------------------------------

    def last_period(self, schedule: str) -> datetime:
        """When a schedule last fired; one never seen before begins now."""
        with self._database.transaction():
            self._database.write(
                "INSERT INTO job_schedule (name, last_period_utc) VALUES (?, ?) "
                "ON CONFLICT (name) DO NOTHING",
                (schedule, text_utc(self.now())),
            )
            row = self._database.write(
                "SELECT last_period_utc FROM job_schedule WHERE name = ?", (schedule,)
            ).fetchone()
        found = parse_utc(row[0])
        if found is None:
            raise RecordsFailed(f"schedule {schedule} has no last period")
        return found

    def fire(self, schedule: str, period: datetime, job: Job) -> bool:
        """Enqueue the job of a period, once however many nodes ask; tells whether it was now."""
        with self._database.transaction():
            changed = self._database.write(
                "UPDATE job_schedule SET last_period_utc = ? "
                "WHERE name = ? AND last_period_utc < ?",
                (text_utc(period), schedule, text_utc(period)),
            )
            if changed.rowcount != 1:
                return False
            woken = enqueue(self._database, job)
        self._records.wake({woken})
        return True
