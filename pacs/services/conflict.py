"""Contradictions that arrived, listed for a person to look at. Design section 4, Identity.

Nothing is merged or dropped by itself: a conflict is settled by accepting it
as it is, or by choosing the version that is found and delivered.
"""

from collections.abc import Sequence
from typing import Protocol

from pacs.core.caller import Caller
from pacs.core.errors import EntryConflicts, EntryNotFound
from pacs.core.identifiers import ObjectId
from pacs.core.journal import INSTANCE, ConflictRow, EntryKind, JournalEntry, MemberRow
from pacs.core.ports import AuditTrail
from pacs.services.delete import EntryObeyer, EntryWriter

_LAST_ROW = (1 << 63) - 1  # what a database takes for a row number


class ConflictRows(Protocol):
    """What is asked of the index; see ``storage.database.conflict``."""

    def list(self, *, settled_too: bool) -> Sequence[ConflictRow]: ...
    def find(self, conflict_id: int) -> ConflictRow | None: ...
    def members(self, conflict: ConflictRow, limit: int) -> Sequence[MemberRow]: ...


class Conflicts:
    """What an admin sees of conflicts and does about them."""

    def __init__(
        self, *, rows: ConflictRows, journal: EntryWriter, decisions: EntryObeyer, audit: AuditTrail
    ) -> None:
        self._rows = rows
        self._journal = journal
        self._decisions = decisions
        self._audit = audit

    def list(self, caller: Caller, *, settled_too: bool = False) -> Sequence[ConflictRow]:
        """Conflicts in the order they were found."""
        return self._rows.list(settled_too=settled_too)

    def show(
        self, caller: Caller, conflict_id: int, limit: int
    ) -> tuple[ConflictRow, Sequence[MemberRow]]:
        """One conflict and the instances in it. Raises ``EntryNotFound``."""
        conflict = self._find(conflict_id)
        return conflict, self._rows.members(conflict, limit)

    def accept(self, caller: Caller, conflict_id: int, *, reason: str) -> JournalEntry:
        """Settle a conflict as it stands. Raises ``EntryNotFound`` or ``EntryConflicts``."""
        return self._settle(caller, self._find(conflict_id), "accept", (), reason)

    def deliver(
        self, caller: Caller, conflict_id: int, object_id: str, *, reason: str
    ) -> JournalEntry:
        """Settle a conflict of contents: this version is found and delivered from now on.

        Raises ``EntryNotFound`` or ``EntryConflicts``.
        """
        conflict = self._find(conflict_id)
        if conflict.kind != INSTANCE:
            raise EntryConflicts(f"a {conflict.kind} conflict has no versions to choose from")
        members = self._rows.members(conflict, limit=1_000_000)
        chosen = tuple(one.object_id for one in members if one.object_id == object_id)
        if not chosen:
            raise EntryNotFound(f"conflict {conflict_id} has no version {object_id}")
        return self._settle(caller, conflict, "deliver", chosen, reason)

    def _find(self, conflict_id: int) -> ConflictRow:
        conflict = self._rows.find(conflict_id) if 0 < conflict_id <= _LAST_ROW else None
        if conflict is None:
            raise EntryNotFound(f"there is no conflict {conflict_id}")
        return conflict

    def _settle(
        self,
        caller: Caller,
        conflict: ConflictRow,
        kind: EntryKind,
        object_ids: tuple[ObjectId, ...],
        reason: str,
    ) -> JournalEntry:
        if not reason.strip():
            raise EntryConflicts("settling a conflict needs a reason")
        entry = self._journal.append(
            kind,
            made_by=caller.subscriber,
            reason=reason.strip(),
            about={
                "kind": conflict.kind,
                "registrant": conflict.registrant,
                "uid": conflict.uid,
            },
            object_ids=object_ids,
        )
        self._decisions.apply(entry)
        self._audit.record("conflict-settled", caller, entry=entry.id, kind=conflict.kind)
        return entry
