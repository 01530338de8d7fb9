"""Workitems whose job will not go on: they end too, and say why, whatever became of the job.

A job is given up after too many attempts or dead workers, or cancelled by an
administrator; nobody who watches the worklist would ever hear of that. Nor would
a job that waits, for a destination that is away or for nodes that nobody runs,
hear that its workitem is to be cancelled, or has expired.
"""

import logging
from contextlib import suppress
from typing import Final

from pacs.core.caller import admin
from pacs.core.errors import EntryConflicts, EntryNotFound, PacsError, RecordsFailed
from pacs.core.process_results import GivenUp
from pacs.services.process.desk import Desk
from pacs.services.process.ending import Hand, take_back
from pacs.services.process.report import Discontinued, Why

LOGGER = logging.getLogger("pacs.process")
_MOST_AT_ONCE: Final = 500


class Settling:
    """What the chore ``process.settle`` does."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def settle(self) -> int:
        """End what nobody will go on with, or shall; gives how many."""
        self._stop()
        return sum(map(self._ended, self._desk.results.given_up(_MOST_AT_ONCE)))

    def _stop(self) -> None:
        """Cancel the jobs that wait for a workitem that is to end: these are given up then, too."""
        after = 0
        while some := self._desk.results.idle(after, _MOST_AT_ONCE):
            for one in some:
                hand = Hand(self._desk, one.workitem, "", job=one.job)
                if hand.look() and hand.unwanted() is not None:
                    with suppress(EntryConflicts, EntryNotFound):  # ended meanwhile
                        self._desk.jobs.cancel(admin("process"), one.job)
            after = some[-1].job

    def _ended(self, one: GivenUp) -> bool:
        """End one workitem; what keeps it from that keeps no other."""
        hand = Hand(self._desk, one.workitem, one.session, job=one.job)
        try:
            if hand.take_up():
                return False
            unwanted = hand.unwanted()
            if unwanted is not None or not one.delivers:  # else what was to be sent on stands
                take_back(self._desk, one.workitem, self._desk.results.of(one.session))
            why = unwanted or Discontinued(Why.FAILED, _why(one))
            hand.discontinue(hand.performed(), why)
        except RecordsFailed:
            raise
        except PacsError as error:
            LOGGER.error("workitem-not-ended job=%d kind=%s", one.job, type(error).__name__)
            return False
        self._desk.audit.record(
            "process-given-up", admin("process"), workitem=one.workitem, cause=why.text
        )
        return True


def _why(one: GivenUp) -> str:
    what = "sending the results on" if one.delivers else "the work"
    end = "was cancelled by an administrator" if one.cancelled else "failed again and again"
    return f"{what} {end} (job {one.job})"
