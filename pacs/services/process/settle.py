"""Workitems whose job will not go on: they end too, and say why, whatever became of the job.

A job is given up after too many attempts or dead workers, or cancelled by an
administrator; nobody who watches the worklist would ever hear of that.
"""

import logging
from typing import Final

from pacs.core.caller import admin
from pacs.core.errors import PacsError, RecordsFailed
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
        """End what nobody will go on with; gives how many."""
        return sum(map(self._ended, self._desk.results.given_up(_MOST_AT_ONCE)))

    def _ended(self, one: GivenUp) -> bool:
        """End one workitem; what keeps it from that keeps no other."""
        hand = Hand(self._desk, one.workitem, one.session, job=one.job)
        try:
            if hand.take_up():
                return False
            if not one.delivers:  # results that were to be sent on stand
                take_back(self._desk, one.workitem, self._desk.results.of(one.session))
            hand.discontinue(hand.performed(), Discontinued(Why.FAILED, _why(one)))
        except RecordsFailed:
            raise
        except PacsError as error:
            LOGGER.error("workitem-not-ended job=%d kind=%s", one.job, type(error).__name__)
            return False
        self._desk.audit.record("process-given-up", admin("process"), workitem=one.workitem)
        return True


def _why(one: GivenUp) -> str:
    what = "sending the results on" if one.delivers else "the work"
    end = "was cancelled by an administrator" if one.cancelled else "failed again and again"
    return f"{what} {end} (job {one.job})"
