"""Work that outlives its request: its states, its policy, and what a handler raises.

Here because the table of jobs, the engine and every handler share these words
and may not import each other. Decides nothing: ``pacs.jobs`` runs, the table
keeps; ``pacs.core.job_ports`` says what they ask of each other.
"""

import enum
from dataclasses import dataclass
from datetime import datetime

from pacs.core.errors import PacsError


class JobState(enum.Enum):
    """Where a job is. The last three are ends; only an administrator leads out of them."""

    WAITING = "waiting"
    DELAYED = "delayed"  # waiting too, but not due yet
    RUNNING = "running"
    BLOCKED = "blocked"  # until its children have ended
    DONE = "done"
    FAILED = "failed"  # the dead letters
    CANCELLED = "cancelled"


ENDED = (JobState.DONE, JobState.FAILED, JobState.CANCELLED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What becomes of a job whose handler fails. A job's own ``max_attempts`` goes before it."""

    max_attempts: int = 8
    first_delay_s: float = 5.0
    max_delay_s: float = 3_600.0
    max_crashes: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One job, leased. ``lease`` is the fence: whoever holds an older number changes nothing."""

    id: int
    lease: int
    queue: str
    kind: str
    payload: str
    attempts: int
    max_attempts: int | None
    deadline_utc: datetime | None
    has_children: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """How one child of a job ended. ``payload`` and ``result`` are JSON."""

    id: int
    kind: str
    payload: str
    state: JobState
    result: str | None
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """What a heart-beat brings back."""

    held: bool
    cancel_asked: bool


class JobFailed(PacsError):
    """What a handler raises to say how it goes on. Anything else it raises is tried again too."""


class Retry(JobFailed):
    """Try again, after ``after_s`` where given, else after the policy's back-off. Counts as an attempt."""

    def __init__(self, message: str = "", *, after_s: float | None = None) -> None:
        super().__init__(message)
        self.after_s = after_s


class Permanent(JobFailed):
    """Trying again is pointless: to the dead letters."""


class Postpone(JobFailed):
    """Not now: again after ``after_s``. Counts as no attempt."""

    def __init__(self, message: str = "", *, after_s: float = 60.0) -> None:
        super().__init__(message)
        self.after_s = after_s


class Hold(JobFailed):
    """Nothing of this queue for now: the peer it is for is away.

    The job stays first in its line and counts no attempt; the queue is begun
    again ``after_s`` from now, or after the back-off of its own failures in a row.
    """

    def __init__(self, message: str = "", *, after_s: float | None = None) -> None:
        super().__init__(message)
        self.after_s = after_s


class LeaseLost(PacsError):
    """The lease has gone to somebody else, or the job was ended; nothing was committed."""


# --- as an administrator sees it ----------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """One job as it stands in its row; times are text as kept."""

    id: int
    queue: str
    kind: str
    state: JobState
    priority: int
    alone: bool
    attempts: int
    crashes: int
    cause: str
    payload: str
    unique_key: str | None
    parent: int | None
    children_left: int | None
    not_before_utc: str | None
    deadline_utc: str | None
    lease_owner: str | None
    progress_done: int | None
    progress_total: int | None
    result: str | None
    last_error: str
    asked_utc: str
    started_utc: str | None
    ended_utc: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueHold:
    """A queue whose peer has been away ``failures`` times in a row, and for how long it is held yet."""

    queue: str
    held_s: float
    failures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDepth:
    """How many jobs of a queue are in a state, and how long ago the oldest of them came there.

    ``held_until_utc`` and ``held_why`` are those of the queue, where it is held now.
    """

    queue: str
    state: JobState
    jobs: int
    oldest_s: float
    held_until_utc: str | None = None
    held_why: str = ""
