"""What journal entries do to the index, in one place for the moment they are made, start-up and reindex."""

from collections.abc import Sequence

from pacs.core.journal import SERIES, STUDY, JournalEntry
from storage.database.conflict import refresh, refresh_instances, settle
from storage.database.connection import Database
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

    def apply_within(self, entry: JournalEntry) -> None:
        """Obey one entry in the caller's transaction, in which nobody else changes the index."""
        if entry.kind == "delete":
            self._hide(entry)
        elif entry.kind == "restore":
            self._restore(entry)
        else:
            self._settle(entry)
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

    def _hide(self, entry: JournalEntry) -> None:
        affected = self._affected(entry.object_ids, "i.deleted_by IS NULL")
        for marks, some in in_pieces(entry.object_ids):
            self._database.write(
                "UPDATE instance SET deleted_by = ?, delivered = 0 "
                f"WHERE object_id IN ({marks}) AND deleted_by IS NULL",
                [entry.id, *some],
            )
        self._refresh(affected)

    def _restore(self, entry: JournalEntry) -> None:
        """Bring back what is not held again by now."""
        affected = self._affected(entry.object_ids, "i.deleted_by IS NOT NULL")
        for marks, some in in_pieces(entry.object_ids):
            self._database.write(
                f"UPDATE instance SET deleted_by = NULL WHERE object_id IN ({marks}) "
                f"AND deleted_by IS NOT NULL AND {NOT_HELD_AGAIN}",
                some,
            )
        self._refresh(affected)

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
