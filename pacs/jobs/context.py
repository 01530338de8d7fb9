"""What a handler holds while it runs: the way to its lease, its log and its end.

The handler's thread and the keeper's share it; the lock is held for single
writes only. Decides nothing about retries: that is the worker's.
"""

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from pacs.core.job_ports import JobTable
from pacs.core.ports import Unit
from pacs.core.records import Job
from pacs.core.work import Claim, Part, Permanent
from pacs.jobs.kinds import encoded

CANCELLED = "cancelled"
LATE = "its deadline passed"
LOST = "its lease is lost"


class Parted(BaseException):
    """Leaves the handler of a job that waits for its parts. No error, so no handler catches it."""


class Context:
    """``pacs.core.job_ports.JobContext`` over one claim."""

    def __init__(
        self, table: JobTable, claim: Claim, *, max_log_lines: int, max_children: int
    ) -> None:
        self._table = table
        self.claim = claim
        self.payload: object = None
        self._max_log_lines = max_log_lines
        self._max_children = max_children
        self._lock = threading.Lock()
        self._lines: deque[str] = deque(maxlen=max_log_lines)
        self._progress: tuple[int, int] | None = None
        self._stop = ""
        self.told = ""
        """Why the handler was told to stop, once it has asked and heard so."""
        self.ended = False

    # --- the handler's side ----------------------------------------------------------

    @property
    def id(self) -> int:
        """The job's number."""
        return self.claim.id

    @property
    def attempt(self) -> int:
        """1 at first."""
        return self.claim.attempts

    def progress(self, done: int, total: int) -> None:
        """Say how far it is; written about once a second."""
        with self._lock:
            self._progress = (done, total)

    def log(self, line: str) -> None:
        """Add a line to the job's own log."""
        with self._lock:
            self._lines.append(line)

    def cancelled(self) -> bool:
        """Tell whether to stop."""
        deadline = self.claim.deadline_utc
        if not self._stop and deadline is not None and deadline <= self._table.now():
            self.stop(LATE)
        self.told = self._stop
        return bool(self.told)

    @property
    def parted(self) -> bool:
        """Tell whether it has asked for parts before."""
        return self.claim.has_children

    def children(self, jobs: Sequence[Job]) -> Sequence[Part]:
        """Wait for parts, or give how they ended."""
        if self.claim.has_children:
            return self._table.parts(self.claim)
        if len(jobs) > self._max_children:
            raise Permanent(f"{len(jobs)} parts, at most {self._max_children} are taken")
        self.flush()
        with self._lock:
            self._table.part(self.claim, jobs)
            self.ended = True
        raise Parted

    @contextmanager
    def finish(self, result: object = None) -> Iterator[Unit]:
        """End the job and do its effects, one transaction."""
        text = encoded(result)
        self.flush()
        # No beat while the row is ours: it would wait for this transaction.
        with self._lock:
            with self._table.finishing(self.claim, text) as unit:
                yield unit
            self.ended = True

    # --- the keeper's side -----------------------------------------------------------

    def stop(self, why: str) -> None:
        """Let ``cancelled`` say so from now on; the first reason counts."""
        self._stop = self._stop or why

    @property
    def stopping(self) -> str:
        """Why it is to stop, empty where it is not."""
        return self._stop

    def beat(self, lease_s: float | None) -> None:
        """Look at the lease, and extend it where ``lease_s`` is given; nothing while it ends."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self.ended:
                return
            found = self._table.beat(self.claim, lease_s)
        finally:
            self._lock.release()
        if not found.held:
            self.stop(LOST)
        elif found.cancel_asked:
            self.stop(CANCELLED)

    def flush(self) -> None:
        """Write what was said since the last time."""
        with self._lock:
            lines, progress = list(self._lines), self._progress
            self._lines.clear()
            self._progress = None
        if lines or progress is not None:
            self._table.note(self.claim, progress, lines, self._max_log_lines)

    def overdue(self, now: datetime) -> bool:
        """Tell whether the job's deadline has passed."""
        return self.claim.deadline_utc is not None and self.claim.deadline_utc <= now
