"""The leave to go on delivering, asked again while a retrieve goes on.

A request is judged before it begins, and may last for hours. Owns how often it is judged again and
what it means that its terms have changed: what it was to deliver must still be had, in no other form.
Refuses to know rights and contracts: those are the ``Gate``'s.
"""

import time
from collections.abc import Callable, Sequence

from pacs.core.caller import Caller, Right
from pacs.core.errors import DestinationUnknown, NotAuthorized, PacsError
from pacs.core.ports import Gate, RetrieveIndex
from pacs.core.records import Selection
from pacs.services.delivery.contexts import Chosen

LOOK_S = 0.5
"""So often it is judged again: with what is waited for elsewhere, a change holds within a second."""

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
        self._judged_s = time.monotonic()

    def holds(self) -> bool:
        """Tell whether it may, by a judgement that is not older than ``LOOK_S``. Raises ``RecordsFailed``."""
        if self.refusal is None and time.monotonic() - self._judged_s >= LOOK_S:
            try:
                self._judge()
            except (NotAuthorized, DestinationUnknown) as refusal:
                self.refusal = refusal
            self._judged_s = time.monotonic()
        return self.refusal is None

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
