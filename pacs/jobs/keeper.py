"""The second thread of a worker process: heart-beats, schedules, leases of others, the drain's end.

It never runs a job. Short jobs cost it nothing: a job is first beaten for
after a second.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from config.settings import Jobs
from pacs.core.errors import RecordsFailed
from pacs.core.job_ports import JobTable
from pacs.core.work import LeaseLost, Policy
from pacs.jobs.context import LOST, Context
from pacs.jobs.schedules import Scheduler

_LOG = logging.getLogger("pacs.jobs")
_TICK_S = 1.0
_OVERDUE_AT_ONCE = 500


class Keeper:
    """Keeps what a worker holds, until ``stop``."""

    def __init__(
        self,
        table: JobTable,
        scheduler: Scheduler,
        settings: Jobs,
        *,
        owner: str,
        give_up: Callable[[], None],
    ) -> None:
        self._table = table
        self._scheduler = scheduler
        self._settings = settings
        self.owner = owner
        self._give_up = give_up
        self._lock = threading.Lock()
        self._held: Context | None = None
        self._begun = self._extended = 0.0
        self._swept = 0.0
        self._drain_by: float | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="pacs-keeper", daemon=True)

    def start(self) -> None:
        """Begin to keep."""
        self._thread.start()

    def drain(self) -> None:
        """From now on the job at hand has ``jobs.drain_timeout_s`` left; then it is given back."""
        if self._drain_by is None:
            self._drain_by = time.monotonic() + self._settings.drain_timeout_s

    def stop(self) -> None:
        """End the thread, when nothing is held any more."""
        self._stopping.set()
        self._thread.join(self._settings.drain_timeout_s)

    @contextmanager
    def holding(self, context: Context) -> Iterator[None]:
        """Keep this job's lease for the block."""
        with self._lock:
            self._held, self._begun = context, time.monotonic()
            self._extended = self._begun
        try:
            yield
        finally:
            with self._lock:
                self._held = None

    def _keep(self) -> None:
        while not self._stopping.wait(_TICK_S):
            for duty in (self._beat, self._drained, self._scheduler.tick, self._sweep):
                try:
                    duty()
                except RecordsFailed as error:
                    _LOG.error("keeping-failed: %s", error)
                except Exception:  # noqa: BLE001 - the lease is kept whatever else is broken
                    _LOG.exception("keeping-failed")

    def _beat(self) -> None:
        now = time.monotonic()
        with self._lock:
            context, extended = self._held, self._extended
            if context is None or now - self._begun < _TICK_S:
                return
        extend = now - extended >= self._settings.lease_s / 3
        if now - extended > self._settings.lease_s:
            context.stop(LOST)
        context.flush()
        context.beat(self._settings.lease_s if extend else None)
        with self._lock:
            if extend and self._held is context:
                self._extended = now

    def _drained(self) -> None:
        """Give back what could not be finished in time, and end the process under its handler."""
        if self._drain_by is None or time.monotonic() < self._drain_by:
            return
        with self._lock:
            context = self._held
        if context is None:
            return
        try:
            self._table.later(context.claim, 0.0, "given back: its worker stopped", counts=False)
        except LeaseLost:
            return  # it has just ended by itself
        _LOG.warning("given-back job=%d kind=%s", context.id, context.claim.kind)
        self._give_up()

    def _sweep(self) -> None:
        now = time.monotonic()
        if now - self._swept >= self._settings.lease_s / 4:
            self._swept = now
            taken = self._table.expire(Policy().max_crashes)
            if taken:
                _LOG.warning("leases-expired jobs=%d", taken)
            failed = self._table.overdue(_OVERDUE_AT_ONCE)
            if failed:
                _LOG.error("dead-letters deadlines-passed=%d", failed)
            if failed == _OVERDUE_AT_ONCE:
                self._swept = 0.0  # there may be more: again in the next tick
