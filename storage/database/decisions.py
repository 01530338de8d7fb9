"""What journal entries do to the index, in one place for the moment they are made, start-up and reindex."""

from collections.abc import Sequence

from pacs.core.caller import SubscriberName
from pacs.core.journal import SERIES, STUDY, JournalEntry
from pacs.core.usage import HoldingChanged
from storage.database.conflict import refresh, refresh_instances, settle
from storage.database.connection import Database
from storage.database.usage import HELD_BYTES, note_usage
from storage.database.versions import deliver, in_pieces, recount

_AFFECTED = (
    "SELECT i.series_row, i.registrant, s.study_instance_uid, e.series_instance_uid, "
    "i.sop_instance_uid FROM instance i JOIN series e ON e.id = i.series_row "
    "JOIN study s ON s.id = e.study_row WHERE "
)
NOT_HELD_AGAIN = (
    "NOT EXISTS (SELECT 1 FROM instance AS held WHERE held.series_row = instance.series_row "
    "AND held.sop_instance_uid = instance.sop_instance_uid "
    "AND held.digest = instance.digest AND held.deleted_by IS NULL)"
)
_CHANGED = f"RETURNING registrant, {HELD_BYTES}"
Affected = tuple[int, str, str, str, str]
"""Series row, registrant, Study, Series and SOP Instance UID."""


class Decisions:
    """Obeys journal entries. Applying one twice changes nothing."""

    def __init__(self, database: Database, versions: str) -> None:
        self._database = database
        self._versions = versions

    def applied(self) -> frozenset[str]:
        """Ids of the entries whose effect the index holds."""
        rows = self._database.execute("SELECT entry_id FROM journal_applied")
        return frozenset(row[0] for row in rows)

    def apply(self, entry: JournalEntry) -> None:
        """Obey one entry, all or nothing. Raises ``RecordsFailed``."""
        with self._database.alone():
            self.apply_within(entry)

    def apply_within(self, entry: JournalEntry, *, anew: bool = False) -> None:
        """Obey one entry in the caller's transaction, in which nobody else changes the index.

        What it changes of what is held is usage, unless an index that is filled ``anew`` obeys it again.
        """
        changed: list[tuple[str, int]] = []
        if entry.kind == "delete":
            changed = [(whose, -size) for whose, size in self._hide(entry)]
        elif entry.kind == "restore":
            changed = self._restore(entry)
        else:
            self._settle(entry)
        if not anew:
            self._note(entry, changed, -1 if entry.kind == "delete" else 1)
        self._database.write(
            "INSERT INTO journal_applied (entry_id) VALUES (?) ON CONFLICT DO NOTHING", (entry.id,)
        )

    def _affected(self, object_ids: Sequence[str], condition: str) -> list[Affected]:
        return [
            row
            for marks, some in in_pieces(object_ids)
            for row in self._database.write(
                f"{_AFFECTED} i.object_id IN ({marks}) AND {condition}", some
            ).fetchall()
        ]

    def _note(self, entry: JournalEntry, changed: Sequence[tuple[str, int]], each: int) -> None:
        """Note how much more, or less, each registrant holds by an entry."""
        for whose in sorted({one[0] for one in changed}):
            sizes = [size_bytes for registrant, size_bytes in changed if registrant == whose]
            note_usage(
                self._database,
                HoldingChanged(
                    subscriber=SubscriberName(whose),
                    entry_id=entry.id,
                    instances=each * len(sizes),
                    size_bytes=sum(sizes),
                ),
            )

    def _hide(self, entry: JournalEntry) -> list[tuple[str, int]]:
        """Hide what is not hidden yet; gives whose it was, and its bytes."""
        affected = self._affected(entry.object_ids, "i.deleted_by IS NULL")
        hidden = [
            row
            for marks, some in in_pieces(entry.object_ids)
            for row in self._database.write(
                "UPDATE instance SET deleted_by = ?, delivered = 0 "
                f"WHERE object_id IN ({marks}) AND deleted_by IS NULL {_CHANGED}",
                [entry.id, *some],
            ).fetchall()
        ]
        self._refresh(affected)
        return hidden

    def _restore(self, entry: JournalEntry) -> list[tuple[str, int]]:
        """Bring back what is not held again by now; gives whose it is, and its bytes."""
        affected = self._affected(entry.object_ids, "i.deleted_by IS NOT NULL")
        restored = [
            row
            for marks, some in in_pieces(entry.object_ids)
            for row in self._database.write(
                f"UPDATE instance SET deleted_by = NULL WHERE object_id IN ({marks}) "
                f"AND deleted_by IS NOT NULL AND {NOT_HELD_AGAIN} {_CHANGED}",
                some,
            ).fetchall()
        ]
        self._refresh(affected)
        return restored

    def _refresh(self, affected: Sequence[Affected]) -> None:
        """Choose versions, count and find conflicts anew where something came or went."""
        deliver(self._database, (row[4] for row in affected), self._versions)
        recount(self._database, {row[0] for row in affected})
        for registrant in sorted({row[1] for row in affected}):
            own = [row for row in affected if row[1] == registrant]
            for uid in dict.fromkeys(row[2] for row in own):
                refresh(self._database, STUDY, registrant, uid)
            for uid in dict.fromkeys(row[3] for row in own):
                refresh(self._database, SERIES, registrant, uid)
            refresh_instances(self._database, registrant, dict.fromkeys(row[4] for row in own))

    def _settle(self, entry: JournalEntry) -> None:
        """A conflict was looked at; with ``deliver`` one version was chosen."""
        for marks, some in in_pieces(entry.object_ids):
            # A choice holds for a version that is deleted by now, should it be brought back.
            self._database.write(
                f"UPDATE instance SET chosen_by = ? WHERE object_id IN ({marks}) "
                "AND (chosen_by IS NULL OR chosen_by < ?)",
                [entry.id, *some, entry.id],
            )
        self._refresh(self._affected(entry.object_ids, "1 = 1"))
        about = entry.about
        settle(self._database, about["kind"], about["registrant"], about["uid"], entry.id)
