"""Ports of jobs: what the engine asks of the table of jobs, and a handler of the engine."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Generic, Protocol, TypeVar

from pacs.core.ports import Unit
from pacs.core.records import Job
from pacs.core.work import Beat, Claim, Part

PayloadType_co = TypeVar("PayloadType_co", covariant=True)


class JobContext(Protocol, Generic[PayloadType_co]):
    """What a handler has. Handlers are idempotent: whatever is outside the database may happen again."""

    @property
    def id(self) -> int:
        """The job's number."""
        ...

    @property
    def payload(self) -> PayloadType_co:
        """The payload in its registered type."""
        ...

    @property
    def attempt(self) -> int:
        """1 at first."""
        ...

    def progress(self, done: int, total: int) -> None:
        """Say how far it is; written about once a second."""
        ...

    def log(self, line: str) -> None:
        """Add a line to the job's own log; lines are cut and the oldest go when there are too many."""
        ...

    def cancelled(self) -> bool:
        """Tell whether to stop: cancelled, past its deadline, or the lease is lost.

        A handler that was told so and returns without ``finish`` is cancelled.
        """
        ...

    @property
    def parted(self) -> bool:
        """Tell whether it has asked for parts before; ``children`` gives how they ended then."""
        ...

    def children(self, jobs: Sequence[Job]) -> Sequence[Part]:
        """Wait for parts. Leaves the handler; it is called again when all have ended, and gets how.

        An attempt has parts once: asked again it gives the same ones, whatever is handed in.
        Tried again after a failure, not after a crash, the job has parts anew.
        """
        ...

    def finish(self, result: object = None) -> AbstractContextManager["Unit"]:
        """End the job and do its effects, one transaction. Raises ``LeaseLost`` and commits nothing.

        Everything written in the block, through the unit or to the same
        database from the same thread, is committed with the job's end, once.
        """
        ...


class JobTable(Protocol):
    """The table of jobs as workers see it. The row is the truth; whoever lost a lease changes nothing.

    Everything raises ``RecordsFailed``; what ends or gives back a claim raises
    ``LeaseLost`` where the lease is no longer held.
    """

    def now(self) -> datetime:
        """The time all nodes agree on."""
        ...

    def queues(self) -> Sequence[str]:
        """Queues of which a job may be begun now, in their order.

        Neither held ones nor those in which all that is due must wait until one
        that runs alone has ended.
        """
        ...

    def claim(
        self, queue: str, owner: str, lease_s: float, *, oldest: bool = False
    ) -> Claim | None:
        """Lease the next job of a queue: the highest priority, or the oldest. Nobody else gets it.

        Nothing of a held queue. No second one that is alone while one runs; those of
        one priority always by number, also after they were put back.
        """
        ...

    def beat(self, claim: Claim, lease_s: float | None) -> Beat:
        """Ask about the lease and, where ``lease_s`` is given, extend it."""
        ...

    def note(
        self, claim: Claim, progress: tuple[int, int] | None, lines: Sequence[str], keep: int
    ) -> None:
        """Write progress and log lines; only the newest ``keep`` lines stay."""
        ...

    def part(self, claim: Claim, jobs: Sequence[Job]) -> None:
        """Add the parts of a job and let it wait for them."""
        ...

    def parts(self, claim: Claim) -> Sequence[Part]:
        """How the parts of a job ended, in the order they were asked for."""
        ...

    def finishing(self, claim: Claim, result: str | None) -> AbstractContextManager[Unit]:
        """End a job with the effects written in the block, in one transaction."""
        ...

    def fail(self, claim: Claim, error: str) -> None:
        """Put a job to the dead letters."""
        ...

    def drop(self, claim: Claim, error: str) -> None:
        """End a job as cancelled."""
        ...

    def later(self, claim: Claim, after_s: float, error: str, *, counts: bool) -> None:
        """Let it wait again, ``after_s`` from now; ``counts`` as an attempt or not."""
        ...

    def hold(self, claim: Claim, error: str, pause_s: Callable[[int], float]) -> None:
        """Put a job back into its place, and begin none of its queue on any node for a time.

        Counts as no attempt. ``pause_s`` gives how long, from how often in a row the
        queue has been held; a job of it that ends well ends the row and the hold.
        """
        ...

    def overdue(self, most: int) -> int:
        """Fail jobs whose deadline passed while they waited, ``most`` at most; gives how many."""
        ...

    def expire(self, max_crashes: int) -> int:
        """Take back the jobs whose lease is over; gives how many."""
        ...

    def release(self, owner: str, max_crashes: int) -> int:
        """Take back at once what a worker held whose process is known to have died."""
        ...

    def last_period(self, schedule: str) -> datetime:
        """When a schedule last fired; one never seen before begins now."""
        ...

    def fire(self, schedule: str, period: datetime, job: Job) -> bool:
        """Enqueue the job of a period, once however many nodes ask; tells whether it was now."""
        ...
