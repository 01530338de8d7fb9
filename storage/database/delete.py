"""Which kept files a deletion concerns, and forgetting them once their time to be undone is over."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime

from pacs.core.attributes import UNIQUE_KEYS, Level, snake
from pacs.core.identifiers import ObjectId, new_object_id
from pacs.core.journal import SERIES, STUDY, Candidate, DeletionRow, Orphan
from pacs.core.records import Held, Instance
from storage.database.conflict import refresh, refresh_instances
from storage.database.connection import Database
from storage.database.decisions import NOT_HELD_AGAIN
from storage.database.job_rows import text_utc
from storage.database.retrieve import HELD, as_held
from storage.database.store import DatabaseUnit, note_modalities, parent_rows
from storage.database.versions import in_pieces

_ALIAS = {Level.STUDY: "s", Level.SERIES: "e", Level.IMAGE: "i"}
_CHILD = {  # from the bottom up: what hangs under a parent, and by which column
    "series": ("instance", "series_row"),
    "study": ("series", "study_row"),
    "patient": ("study", "patient_row"),
}


class DeletionTable:
    """What ``Deletions`` asks of the index."""

    def __init__(self, database: Database, versions: str) -> None:
        self._database = database
        self._versions = versions

    def scope(self, level: Level, uid: str, registrant: str | None) -> Sequence[Candidate]:
        """Every version of everything under ``uid`` that is not deleted yet."""
        column = f"{_ALIAS[level]}.{snake(UNIQUE_KEYS[level])}"
        whose = "" if registrant is None else " AND i.registrant = ?"
        rows = self._database.execute(
            "SELECT i.object_id, i.registrant FROM instance i "
            "JOIN series e ON e.id = i.series_row JOIN study s ON s.id = e.study_row "
            f"WHERE i.deleted_by IS NULL AND {column} = ?{whose} ORDER BY i.object_id",
            (uid,) if registrant is None else (uid, registrant),
        )
        return [Candidate(object_id=ObjectId(row[0]), registrant=row[1]) for row in rows]

    def transaction(self) -> AbstractContextManager[None]:
        """Begin a transaction in which nobody else changes the index. Raises ``RecordsFailed``."""
        return self._database.alone()

    def deletions(self) -> Sequence[DeletionRow]:
        """Deletions whose files are still there, oldest first."""
        rows = self._database.execute(
            "SELECT deleted_by, COUNT(*) FROM instance WHERE deleted_by IS NOT NULL "
            "GROUP BY deleted_by ORDER BY deleted_by"
        )
        return [DeletionRow(entry_id=row[0], instances=row[1]) for row in rows]

    def restorable(self, entry_id: str) -> Sequence[ObjectId]:
        """Files that one deletion hides, but for those that have come again since."""
        rows = self._database.execute(
            f"SELECT object_id FROM instance WHERE deleted_by = ? AND {NOT_HELD_AGAIN} "
            "ORDER BY object_id",
            (entry_id,),
        )
        return [ObjectId(row[0]) for row in rows]

    def due(self, before: datetime, limit: int) -> Sequence[Held]:
        """Files whose deletion was decided before that time, at most ``limit``."""
        bound = new_object_id(max(0, int(before.timestamp() * 1000)))
        rows = self._database.execute(
            f"{HELD} WHERE i.deleted_by IS NOT NULL AND i.deleted_by < ? "
            "ORDER BY i.deleted_by, i.object_id LIMIT ?",
            (bound, limit),
        )
        return [as_held(row) for row in rows]

    def forget(self, gone: Sequence[Held]) -> Sequence[Orphan]:
        """Remove the rows of files that are gone, and parents that hold nothing any more.

        Within ``transaction``. Gives the parents whose attributes were taken
        from one of the files.
        """
        ids = [held.place.object_id for held in gone]
        parents = self._parents(ids)
        for marks, some in in_pieces(ids):
            self._database.write(
                f"DELETE FROM instance WHERE object_id IN ({marks}) AND deleted_by IS NOT NULL",
                some,
            )
            self._forget_forms(marks, some)
        orphans = [
            orphan
            for table in _CHILD
            for row in parents[table]
            if (orphan := self._parent_left(table, row, frozenset(ids))) is not None
        ]
        for study in parents["study"]:
            note_modalities(self._database, study)
        self._refresh(gone)
        return orphans

    def _forget_forms(self, marks: str, ids: Sequence[object]) -> None:
        """Let what may be left of other forms go; who is making one gets its time to notice."""
        self._database.write(
            "UPDATE form_change SET due_utc = CASE state WHEN 'settling' THEN ? ELSE due_utc END, "
            f"state = 'purged' WHERE object_id IN ({marks})",
            [text_utc(datetime.now(UTC)), *ids],
        )
        for table in ("form_refusal", "profile_spared"):
            self._database.write(f"DELETE FROM {table} WHERE object_id IN ({marks})", ids)

    def _parents(self, ids: Sequence[ObjectId]) -> dict[str, list[int]]:
        """Rows of the series, studies and patients of these files."""
        rows = [
            row
            for marks, some in in_pieces(ids)
            for row in self._database.write(
                "SELECT e.id, s.id, s.patient_row FROM instance i "
                "JOIN series e ON e.id = i.series_row JOIN study s ON s.id = e.study_row "
                f"WHERE i.object_id IN ({marks}) AND i.deleted_by IS NOT NULL",
                some,
            ).fetchall()
        ]
        return {
            table: sorted({int(row[column]) for row in rows}) for column, table in enumerate(_CHILD)
        }

    def _parent_left(self, table: str, row: int, gone: frozenset[ObjectId]) -> Orphan | None:
        """Remove a parent without children; tell when a file gone was its origin."""
        child, link = _CHILD[table]
        database = self._database
        if not database.write(f"SELECT 1 FROM {child} WHERE {link} = ? LIMIT 1", (row,)).fetchone():
            if table == "study":
                database.write("DELETE FROM study_modality WHERE study_row = ?", (row,))
            database.write(f"DELETE FROM {table} WHERE id = ?", (row,))
            return None
        (origin,) = database.write(f"SELECT origin FROM {table} WHERE id = ?", (row,)).fetchone()
        if origin not in gone:
            return None
        column = {"series": "i.series_row", "study": "e.study_row", "patient": "s.patient_row"}
        successor = database.write(
            f"{HELD} WHERE {column[table]} = ? ORDER BY i.object_id LIMIT 1", (row,)
        ).fetchone()
        return Orphan(table=table, row=row, successor=as_held(successor))

    def inherit(self, orphan: Orphan, successor: Instance) -> None:
        """Give a parent the attributes of its next earliest file. Within ``transaction``."""
        unit = DatabaseUnit(self._database, self._versions, alone=True)
        unit.set_attributes(orphan.table, orphan.row, parent_rows(successor)[orphan.table])
        (study,) = self._database.write(
            "SELECT e.study_row FROM instance i JOIN series e ON e.id = i.series_row "
            "WHERE i.object_id = ?",
            (successor.place.object_id,),
        ).fetchone()
        note_modalities(self._database, study)
        self._refresh((orphan.successor,))

    def _refresh(self, files: Sequence[Held]) -> None:
        """Look at the conflicts of every UID of these files anew."""
        for registrant in sorted({one.registrant for one in files}):
            own = [one for one in files if one.registrant == registrant]
            for study in dict.fromkeys(one.study_instance_uid for one in own):
                refresh(self._database, STUDY, registrant, study)
            for series in dict.fromkeys(one.series_instance_uid for one in own):
                refresh(self._database, SERIES, registrant, series)
            refresh_instances(
                self._database, registrant, sorted({one.sop_instance_uid for one in own})
            )
