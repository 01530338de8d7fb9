"""One worker: claims jobs in turn, runs them one at a time, and says how each ended.

Owns the order of queues and what becomes of failures. It starts no process and
knows no kind of work; the table decides who gets what.
"""

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from config.settings import Jobs
from pacs.core.errors import RecordsFailed
from pacs.core.job_ports import JobTable
from pacs.core.work import Claim, Hold, LeaseLost, Permanent, Policy, Postpone, Retry
from pacs.jobs.context import CANCELLED, LOST, Context, Parted
from pacs.jobs.keeper import Keeper
from pacs.jobs.kinds import JobKind, decoded, is_served

_LOG = logging.getLogger("pacs.jobs")
_OLDEST_EVERY = 8  # claims of a queue: one takes the oldest, so that no priority starves another
_UNKNOWN_AGAIN_S = 60.0
_LEAST_HOLD_S = 0.1
_DATABASE_AGAIN_S = 1.0


class Worker:
    """Runs jobs until told to stop. One job at a time, whoever calls ``work``."""

    def __init__(
        self,
        table: JobTable,
        kinds: Mapping[str, JobKind],
        settings: Jobs,
        *,
        keeper: Keeper,
        queues: Sequence[str] = (),
        wake: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._table = table
        self._kinds = kinds
        self._settings = settings
        self._keeper = keeper
        self._queues = frozenset(queues)
        self._grouped = frozenset(one.queue for one in kinds.values() if one.grouped)
        self._wake = wake
        self._one_at_a_time = threading.Lock()
        self._claims: Counter[str] = Counter()  # of each queue since the oldest was taken
        self._last = ""

    def work(self, stopping: threading.Event) -> None:
        """Run what is due, until nothing is or ``stopping`` is set; at once where it runs already."""
        if not self._one_at_a_time.acquire(blocking=False):
            return
        try:
            done = 0
            while not stopping.is_set() and self._step(stopping, more=done > 0):
                done += 1
        finally:
            self._one_at_a_time.release()

    def _step(self, stopping: threading.Event, *, more: bool) -> bool:
        """Run one job; tells whether there was one."""
        try:
            claim = self._claim(more=more)
        except RecordsFailed as error:
            _LOG.error("claim-failed: %s", error)
            stopping.wait(_DATABASE_AGAIN_S)
            return False
        if claim is not None:
            self._run(claim)
        return claim is not None

    def _claim(self, *, more: bool) -> Claim | None:
        for queue in self._in_turn(self._table.queues()):
            if more:
                self._wake(queue)  # there is more than we can do: somebody else may help
            oldest = self._claims[queue] >= _OLDEST_EVERY - 1
            claim = self._table.claim(
                queue, self._keeper.owner, self._settings.lease_s, oldest=oldest
            )
            if claim is not None:
                # Counted over all queues, the oldest could be the turn of the same one each time.
                self._claims[queue] += 1
                if oldest:
                    del self._claims[queue]
                self._last = queue
                return claim
        return None

    def _in_turn(self, queues: Sequence[str]) -> Iterator[str]:
        """Put the queues that are ours in order: those after the last one served go first."""
        ours = [one for one in queues if self._serves(one)]
        yield from (one for one in ours if one > self._last)
        yield from (one for one in ours if one <= self._last)

    def _serves(self, queue: str) -> bool:
        return is_served(queue, self._queues, self._settings.groups, self._grouped)

    # --- one job ---------------------------------------------------------------------

    def _run(self, claim: Claim) -> None:
        kind = self._kinds.get(claim.kind)
        context = Context(
            self._table,
            claim,
            max_log_lines=self._settings.max_log_lines,
            max_children=self._settings.max_children,
        )
        with self._keeper.holding(context):
            if kind is None:
                error = f"no extension of {self._keeper.owner} knows kind {claim.kind}"
                self._settle(context, Postpone(error, after_s=_UNKNOWN_AGAIN_S), Policy())
            else:
                failure = self._handled(kind, context)
                if failure is not None:
                    self._settle(context, failure, kind.policy)

    def _handled(self, kind: JobKind, context: Context) -> Exception | None:
        """Call the handler and end the job; gives what went wrong."""
        try:
            context.payload = decoded(kind, context.claim.payload)
            result = kind.handler(context)
            if not context.ended and not context.told:
                with context.finish(result):
                    pass
        except Parted:
            return None
        except Exception as error:  # noqa: BLE001 - whatever a handler raises is settled, none ends the worker
            return error
        if context.ended:
            return None
        # It stopped because it was told to; a lease that is lost after all is found out below.
        return Postpone(LOST, after_s=0) if context.told == LOST else Permanent(context.told)

    def _settle(self, context: Context, failure: Exception, policy: Policy) -> None:
        """Say how a job that is not done goes on; again and again where the database is away."""
        until = time.monotonic() + self._settings.lease_s
        while True:
            try:
                self._decide(context, failure, policy)
                context.flush()
            except LeaseLost:
                _LOG.warning("lease-lost job=%d kind=%s", context.id, context.claim.kind)
            except RecordsFailed as error:
                _LOG.error("settling-failed job=%d: %s", context.id, error)
                if time.monotonic() < until:
                    time.sleep(_DATABASE_AGAIN_S)
                    continue  # after the lease somebody else takes it up
            return

    def _decide(self, context: Context, failure: Exception, policy: Policy) -> None:
        claim, table, text = context.claim, self._table, described(failure)
        if context.ended or isinstance(failure, LeaseLost):
            _LOG.warning("after-its-end job=%d: %s", claim.id, type(failure).__name__)
        elif context.stopping == CANCELLED:
            table.drop(claim, "cancelled while it ran")
        elif isinstance(failure, Permanent) or context.overdue(table.now()):
            self._bury(claim, text)
        elif isinstance(failure, Hold):
            _LOG.info("queue-held job=%d queue=%s", claim.id, claim.queue)
            table.hold(claim, text, partial(hold_s, self._settings, failure))
        elif isinstance(failure, Postpone):
            table.later(claim, failure.after_s, text, counts=False)
        elif claim.attempts >= (claim.max_attempts or policy.max_attempts):
            self._bury(claim, text)
        else:
            given = failure.after_s if isinstance(failure, Retry) else None
            after_s = back_off_s(policy, claim.attempts) if given is None else given
            _LOG.info("job-again job=%d kind=%s after_s=%.0f", claim.id, claim.kind, after_s)
            table.later(claim, after_s, text, counts=True)

    def _bury(self, claim: Claim, text: str) -> None:
        _LOG.error("dead-letter job=%d kind=%s attempts=%d", claim.id, claim.kind, claim.attempts)
        self._table.fail(claim, text)


def back_off_s(policy: Policy, attempts: int) -> float:
    """Wait twice as long after each failure, up to a bound, and never all at the same moment."""
    full = min(policy.max_delay_s, policy.first_delay_s * 2.0 ** min(attempts - 1, 32))
    return full * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret


def hold_s(settings: Jobs, failure: Hold, failures: int) -> float:
    """Hold a queue as long as the handler asks, else as its failures in a row say; never for nothing."""
    if failure.after_s is not None:
        return max(failure.after_s, _LEAST_HOLD_S)
    policy = Policy(first_delay_s=settings.hold_first_s, max_delay_s=settings.hold_max_s)
    return max(back_off_s(policy, failures), _LEAST_HOLD_S)


def described(failure: Exception) -> str:
    """Write a failure for the administrator, on one line. It stays in the row and out of the log."""
    return " ".join(f"{type(failure).__name__}: {failure}".split())
