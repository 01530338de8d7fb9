"""The leave to go on delivering, asked again while a retrieve goes on.

A request is judged before it begins, and may last for hours. Owns how often it is judged again and
what it means that its terms have changed: what it was to deliver must still be had, in no other form.
Refuses to know rights and contracts: those are the ``Gate``'s.
"""

import logging
import time
from collections.abc import Callable, Sequence

from pacs.core.caller import Caller, Right
from pacs.core.errors import DestinationUnknown, NotAuthorized, PacsError, RecordsFailed
from pacs.core.ports import Gate, RetrieveIndex
from pacs.core.records import Selection
from pacs.services.delivery.contexts import Chosen

LOGGER = logging.getLogger("pacs.retrieve")

LOOK_S = 0.5
"""So often it is judged again: with what is waited for elsewhere, a change holds within a second."""

UNJUDGED_S = 5.0
"""What cannot be judged goes on for so long: a database that is away for a moment ends no retrieve of hours."""

MayGo = Callable[[Caller], object]
"""Raises ``DestinationUnknown`` where nothing may go where it goes any more."""

Covers = Callable[[Caller], bool]
"""Tells whether a caller, as it stands now, may have everything that was chosen."""


class Leave:
    """Whether one retrieve may go on. For one thread."""

    def __init__(self, gate: Gate, caller: Caller, *, may_go: MayGo, covers: Covers) -> None:
        self.refusal: PacsError | None = None
        """Why it may not."""
        self._gate = gate
        self._caller = caller
        self._may_go = may_go
        self._covers = covers
        self._looked_s = time.monotonic()
        self._failing_s: float | None = None
        """Since when each look has failed."""

    def holds(self) -> bool:
        """Tell whether it may, by a look that is not older than ``LOOK_S``.

        Raises ``RecordsFailed`` where each look has failed for ``UNJUDGED_S``.
        """
        if self.refusal is None and time.monotonic() - self._looked_s >= LOOK_S:
            self._look()
            self._looked_s = time.monotonic()
        return self.refusal is None

    def _look(self) -> None:
        began_s = time.monotonic()
        try:
            self._judge()
        except (NotAuthorized, DestinationUnknown) as refusal:
            self.refusal = refusal
        except RecordsFailed:
            # Counted from the first that failed, not from the last judgement: nobody asks while an
            # instance takes a minute, and a single failure after it must not be the end.
            if self._failing_s is None:
                self._failing_s = began_s
            if time.monotonic() - self._failing_s >= UNJUDGED_S:
                raise
            LOGGER.warning("retrieve-not-judged subscriber=%s", self._caller.subscriber)
        else:
            self._failing_s = None

    def _judge(self) -> None:
        before = self._caller
        now = self._gate.allow(before, Right.RECEIVE, before.stated_purpose)
        self._may_go(now)
        if _terms(now) != _terms(before) and not self._covers(now):
            raise NotAuthorized("what was asked for is not all to be had any more")
        self._caller = now


def _terms(caller: Caller) -> tuple[object, ...]:
    return caller.visibility, caller.max_matrix


def covers(
    index: RetrieveIndex,
    selection: Selection,
    asked: Caller,
    chosen: Sequence[Chosen],
    limit: int,
) -> Covers:
    """Compare what ``asked`` was given, ``chosen`` of a selection, with what it would be given now.

    What has been deleted meanwhile does not count, nor what has come. Where more is selected by
    now than ``limit``, what lies beyond it counts as not to be had.
    """

    def covered(now: Caller) -> bool:
        rows, bound = {row for row, _, _ in chosen}, now.max_matrix
        if bound is None or (asked.max_matrix is not None and asked.max_matrix <= bound):
            may = {row for row, _, _ in index.select(selection, now.visibility, limit)}
        else:
            found = index.select_within(selection, now.visibility, limit, bound)
            may = {row for row, _, _ in found.chosen} - found.denser.keys()
        if rows <= may:
            return True
        return rows & {row for row, _, _ in index.select(selection, asked.visibility, limit)} <= may

    return covered
