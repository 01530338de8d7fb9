"""What the administrator and the clock do with workitems: list, cancel, remove, and forget what is over."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from pacs.core.caller import Caller
from pacs.core.workitem_errors import NotEnded
from pacs.core.workitem_ports import Watch, WorkitemFact
from pacs.core.workitems import FINAL_STATES, WorkitemState, WorkitemUID
from pacs.services.workitems.desk import Desk

_FORGOTTEN_AT_ONCE: Final = 100


class Administration:
    """Looks after the worklist."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def list(
        self, caller: Caller, *, state: WorkitemState | None = None, limit: int = 1_000
    ) -> Sequence[WorkitemFact]:
        """List workitems of everybody, the newest first."""
        return self._desk.rows.facts(state, limit)

    def watches(self, caller: Caller, uid: str) -> Sequence[Watch]:
        """List who watches a workitem. Raises ``WorkitemUnknown``."""
        with self._desk.records.transaction():
            return self._desk.watches.watches(self._desk.locked(caller, uid).number)

    def remove(self, caller: Caller, uid: str) -> None:
        """Remove a workitem that has ended, whoever holds it. Raises ``WorkitemUnknown`` or ``NotEnded``."""
        with self._desk.records.transaction():
            row = self._desk.locked(caller, uid)
            if row.state not in FINAL_STATES:
                raise NotEnded(f"{row.uid} is {row.state.value}: cancel it first")
            self._desk.rows.delete(row.number)
        self._desk.note(caller, "removed", uid)

    def purge(self, caller: Caller) -> int:
        """Remove what ended ``workitems.keep_s`` ago and nobody holds by a deletion lock; gives how many."""
        before = self._desk.rows.now() - timedelta(seconds=self._desk.settings.keep_s)
        total = 0
        while uids := self._desk.rows.over(before, _FORGOTTEN_AT_ONCE):
            removed = sum(self._forget(uid) for uid in uids)
            total += removed
            if not removed:
                break
        return total

    def _forget(self, uid: WorkitemUID) -> bool:
        with self._desk.records.transaction():
            row = self._desk.rows.locked(uid)
            watches = () if row is None else self._desk.watches.watches(row.number)
            if row is None or any(one.deletion_lock for one in watches):
                return False  # somebody took hold of it meanwhile
            self._desk.rows.delete(row.number)
        return True
