"""Jobs as an administrator handles them: list, show, retry, cancel, purge, count."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Protocol

from pacs.core.caller import Caller
from pacs.core.ports import AuditTrail
from pacs.core.work import JobDepth, JobRow, JobState, QueueHold

_SECRET: Final = ("transaction_uid", "session")
"""In payloads: Transaction UIDs, with which anybody could end a workitem (PS3.4 Section CC.2.1)."""
_HIDDEN: Final = "hidden"


class JobRows(Protocol):
    """What is asked of the table of jobs."""

    def list(
        self, state: JobState | None, kind: str | None, queue: str | None, limit: int
    ) -> Sequence[JobRow]:
        """The newest jobs that match, newest first."""
        ...

    def find(self, job: int) -> JobRow:
        """One job. Raises ``EntryNotFound``."""
        ...

    def lines(self, job: int) -> Sequence[tuple[str, str]]:
        """When it said what, oldest first."""
        ...

    def depths(self) -> Sequence[JobDepth]:
        """How many jobs of each queue are in each state."""
        ...

    def load(self) -> Sequence[JobDepth]:
        """As ``depths``, without what is done or cancelled."""
        ...

    def holds(self) -> Sequence[QueueHold]:
        """Queues whose peer is away."""
        ...

    def retry(self, job: int) -> None:
        """Let a job wait anew, or its held queue go on. Raises ``EntryConflicts``."""
        ...

    def cancel(self, job: int) -> JobState:
        """Cancel a job and its parts. Raises ``EntryConflicts``."""
        ...

    def purge(self, states: Sequence[JobState], older_s: float) -> int:
        """Forget jobs that ended so long ago."""
        ...


class Jobs:
    """The administrator's way to jobs. What changes one is audited."""

    def __init__(self, rows: JobRows, audit: AuditTrail) -> None:
        self._rows = rows
        self._audit = audit

    def list(
        self,
        caller: Caller,
        *,
        state: JobState | None = None,
        kind: str | None = None,
        queue: str | None = None,
        limit: int = 1_000,
    ) -> Sequence[JobRow]:
        """The newest jobs that match, newest first."""
        return [_shown(row) for row in self._rows.list(state, kind, queue, limit)]

    def show(self, caller: Caller, job: int) -> tuple[JobRow, Sequence[tuple[str, str]]]:
        """One job, and when it said what. Raises ``EntryNotFound``."""
        return _shown(self._rows.find(job)), self._rows.lines(job)

    def depths(self, caller: Caller) -> Sequence[JobDepth]:
        """How many jobs of each queue are in each state, and how long the oldest has been."""
        return self._rows.depths()

    def load(self, caller: Caller) -> Sequence[JobDepth]:
        """As ``depths``, without what is done or cancelled: cheap enough to be asked often."""
        return self._rows.load()

    def holds(self, caller: Caller) -> Sequence[QueueHold]:
        """Queues whose peer is away, held or about to be tried."""
        return self._rows.holds()

    def retry(self, caller: Caller, job: int) -> None:
        """Let a dead letter, a cancelled or a delayed job wait anew, without its old deadline.

        One that waits in a held queue lets its queue go on.
        """
        self._rows.retry(job)
        self._audit.record("job-retried", caller, job=job)

    def cancel(self, caller: Caller, job: int) -> JobState:
        """Cancel a job and its parts; one that runs is asked to stop."""
        state = self._rows.cancel(job)
        self._audit.record("job-cancelled", caller, job=job)
        return state

    def purge(self, caller: Caller, states: Sequence[JobState], older_s: float) -> int:
        """Forget jobs that ended so long ago in these states; gives how many."""
        gone = self._rows.purge(states, older_s)
        if gone:
            self._audit.record("jobs-purged", caller, jobs=gone)
        return gone


def _shown(row: JobRow) -> JobRow:
    """Give a job without what is a secret in its payload."""
    if not any(f'"{one}"' in row.payload for one in _SECRET):
        return row
    payload = json.loads(row.payload)
    told = {name: _HIDDEN if name in _SECRET else value for name, value in payload.items()}
    return replace(row, payload=json.dumps(told, separators=(",", ":")))
