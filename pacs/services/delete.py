"""Deleting with a reason: hidden at once, undone within a delay, then the files are removed. R39.

The journal entry is durable before the index obeys it, and stays for ever. It
names kept files, not UIDs, so what arrives later under the same UIDs is a new
instance.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Protocol

from pacs.core.attributes import Level
from pacs.core.caller import Caller
from pacs.core.errors import EntryConflicts, EntryNotFound, PacsError
from pacs.core.form_ports import FormStore
from pacs.core.identifiers import ObjectId, object_id_time_ms
from pacs.core.journal import Candidate, DeletionRow, EntryKind, JournalEntry, Orphan
from pacs.core.ports import AuditTrail
from pacs.core.records import Held, Instance, Place

_PURGE_AT_ONCE = 200  # files removed in one transaction: stores wait so long at most


class DeletionRows(Protocol):
    """What is asked of the index; see ``storage.database.delete``."""

    def scope(self, level: Level, uid: str, registrant: str | None) -> Sequence[Candidate]: ...
    def deletions(self) -> Sequence[DeletionRow]: ...
    def transaction(self) -> AbstractContextManager[None]: ...
    def restorable(self, entry_id: str) -> Sequence[ObjectId]: ...
    def due(self, before: datetime, limit: int) -> Sequence[Held]: ...
    def forget(self, gone: Sequence[Held]) -> Sequence[Orphan]: ...
    def inherit(self, orphan: Orphan, successor: Instance) -> None: ...


class EntryWriter(Protocol):
    """Makes journal entries durable; see ``storage.journal``."""

    def append(
        self,
        kind: EntryKind,
        *,
        made_by: str,
        reason: str,
        about: dict[str, str],
        object_ids: Sequence[ObjectId],
    ) -> JournalEntry: ...


class EntryObeyer(Protocol):
    """Makes the index obey an entry; see ``storage.database.decisions``."""

    def apply(self, entry: JournalEntry) -> None: ...


class Deletions:
    """What an admin deletes and brings back."""

    def __init__(
        self,
        *,
        rows: DeletionRows,
        journal: EntryWriter,
        decisions: EntryObeyer,
        store: FormStore,
        read: Callable[[Place], Instance],
        audit: AuditTrail,
        delay_s: float,
    ) -> None:
        self._rows = rows
        self._journal = journal
        self._decisions = decisions
        self._store = store
        self._read = read
        self._audit = audit
        self._delay = timedelta(seconds=delay_s)

    def delete(
        self, caller: Caller, level: Level, uid: str, *, reason: str, registrant: str | None = None
    ) -> tuple[JournalEntry, int]:
        """Hide everything under ``uid``; gives the journal entry and how many files it hides.

        Raises ``EntryNotFound`` when nothing is held under it, and
        ``EntryConflicts`` without a reason or when it belongs to several
        registrants and none is named.
        """
        if not reason.strip():
            raise EntryConflicts("a deletion needs a reason")
        with self._rows.transaction():
            scope = self._rows.scope(level, uid, registrant)
            owners = sorted({one.registrant for one in scope})
            if not scope:
                raise EntryNotFound(f"no {level.value.lower()} is held under {uid}")
            if len(owners) > 1:
                raise EntryConflicts(
                    f"several registrants hold {uid}: name one of {', '.join(owners)}"
                )
            entry = self._journal.append(
                "delete",
                made_by=caller.subscriber,
                reason=reason.strip(),
                about={"level": level.value, "uid": uid, "registrant": owners[0]},
                object_ids=[one.object_id for one in scope],
            )
            self._decisions.apply(entry)
        self._audit.record(
            "deleted",
            caller,
            entry=entry.id,
            level=level.value,
            count=len(scope),
            study=uid if level is Level.STUDY else None,
        )
        return entry, len(scope)

    def give_up(
        self,
        caller: Caller,
        chosen: Callable[[], Sequence[ObjectId]],
        *,
        reason: str,
        about: dict[str, str],
    ) -> tuple[JournalEntry | None, int]:
        """Hide the files that ``chosen`` gives, which is asked while nobody else changes the index.

        One entry for all of them, undone and purged as any; none where none is given.
        """
        with self._rows.transaction():
            files = chosen()
            if not files:
                return None, 0
            entry = self._journal.append(
                "delete", made_by=caller.subscriber, reason=reason, about=about, object_ids=files
            )
            self._decisions.apply(entry)
        self._audit.record("deleted", caller, entry=entry.id, count=len(files), **about)
        return entry, len(files)

    def pending(self, caller: Caller) -> Sequence[DeletionRow]:
        """Deletions that can still be undone, oldest first."""
        return [one for one in self._rows.deletions() if not self._is_over(one.entry_id)]

    def _is_over(self, entry_id: str) -> bool:
        """Tell whether the time to undo has passed; from then on files may be gone."""
        decided = datetime.fromtimestamp(object_id_time_ms(ObjectId(entry_id)) / 1000, UTC)
        return decided + self._delay <= datetime.now(UTC)

    def undo(self, caller: Caller, entry_id: str, *, reason: str) -> tuple[JournalEntry, int]:
        """Bring back what a deletion hides, but for what has come again since.

        Raises ``EntryNotFound`` when there is nothing to bring back or its
        time is over.
        """
        with self._rows.transaction():
            hidden = self._rows.restorable(entry_id)
            if not hidden or self._is_over(entry_id):
                raise EntryNotFound(f"no deletion {entry_id} can be undone")
            # Exactly what comes back is on record: reindex must find the same.
            entry = self._journal.append(
                "restore",
                made_by=caller.subscriber,
                reason=reason.strip(),
                about={"entry": entry_id},
                object_ids=hidden,
            )
            self._decisions.apply(entry)
        self._audit.record("restored", caller, entry=entry_id, count=len(hidden))
        return entry, len(hidden)

    def purge(self, caller: Caller, removed: Callable[[int], None] = lambda _: None) -> int:
        """Remove the files whose delay is over; gives how many. Files first, then their rows.

        Both within one transaction, so that nothing is brought back meanwhile.
        A crash in between leaves rows without files, which cannot be undone
        any more, and the next purge finds them again. ``removed`` is told
        after each part how many were removed.
        """
        total = 0
        while count := self._purge_some():
            total += count
            removed(count)
        if total:
            self._audit.record("purged", caller, count=total)
        return total

    def _remove(self, held: Held) -> None:
        """Remove the file, and of a re-encoded form what was received, where that lies there still."""
        original = None if held.form is None else self._store.original(held.place, held.digest)
        for place in (original, held.place):
            if place is not None:
                self._store.remove(place)

    def _purge_some(self) -> int:
        with self._rows.transaction():
            due = self._rows.due(datetime.now(UTC) - self._delay, _PURGE_AT_ONCE)
            for held in due:
                self._remove(held)
            for orphan in self._rows.forget(due):
                try:
                    self._rows.inherit(orphan, self._read(orphan.successor.place))
                except PacsError:
                    # A damaged successor is for verify to report; the parent keeps what it has.
                    continue
        return len(due)
