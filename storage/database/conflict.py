"""Rows of conflicts: one UID in contradicting company. Design section 4, Identity.

A row is a function of what is held and not deleted, and of the newest journal
entry that settled it, so every change asks ``refresh`` and ``reindex`` finds
the same rows. ``latest`` is the newest member's object id: a conflict settled
before its newest member came is open again. A settled row stays while fewer
than two members are left, and is not listed.
"""

from collections.abc import Iterable, Sequence

from pacs.core.journal import INSTANCE, SERIES, STUDY, ConflictRow, MemberRow
from storage.database.connection import Database
from storage.database.versions import in_pieces

_LIVE_SERIES = "EXISTS (SELECT 1 FROM series e WHERE e.study_row = s.id AND e.instance_count > 0)"
_MEMBERS = {
    STUDY: "SELECT COUNT(*), MAX(s.origin) FROM study s "
    f"WHERE s.study_instance_uid = ? AND s.registrant = ? AND {_LIVE_SERIES}",
    SERIES: "SELECT COUNT(*), MAX(origin) FROM series "
    "WHERE series_instance_uid = ? AND registrant = ? AND instance_count > 0",
    INSTANCE: "SELECT COUNT(*), MAX(object_id) FROM instance "
    "WHERE sop_instance_uid = ? AND registrant = ? AND deleted_by IS NULL",
}
_COLUMN = {
    STUDY: "s.study_instance_uid",
    SERIES: "e.series_instance_uid",
    INSTANCE: "i.sop_instance_uid",
}
_LISTED = (
    "SELECT id, kind, registrant, uid, settled_by IS NULL OR settled_by < latest "
    "FROM conflict WHERE members > 1"
)


def refresh(database: Database, kind: str, registrant: str, uid: str) -> None:
    """Make the row of one UID true. Runs in the caller's transaction."""
    members, latest = database.write(_MEMBERS[kind], (uid, registrant)).fetchone()
    if members > 1:
        database.write(
            "INSERT INTO conflict (kind, registrant, uid, members, latest) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (kind, registrant, uid) "
            "DO UPDATE SET members = excluded.members, latest = excluded.latest",
            (kind, registrant, uid, members, latest),
        )
        return
    which = (kind, registrant, uid)
    database.write(
        "DELETE FROM conflict WHERE kind = ? AND registrant = ? AND uid = ? AND settled_by IS NULL",
        which,
    )
    database.write(
        "UPDATE conflict SET members = ?, latest = ? WHERE kind = ? AND registrant = ? AND uid = ?",
        (members, latest or "", *which),
    )


def refresh_instances(database: Database, registrant: str, uids: Iterable[str]) -> None:
    """Make the rows of many SOP Instance UIDs true; asks once for all that are in no conflict."""
    for marks, some in in_pieces(uids):
        known = database.write(
            f"SELECT uid FROM conflict WHERE kind = ? AND registrant = ? AND uid IN ({marks})",
            [INSTANCE, registrant, *some],
        ).fetchall()
        several = database.write(
            f"SELECT sop_instance_uid FROM instance WHERE sop_instance_uid IN ({marks}) "
            "AND registrant = ? AND deleted_by IS NULL "
            "GROUP BY sop_instance_uid HAVING COUNT(*) > 1",
            [*some, registrant],
        ).fetchall()
        for (uid,) in dict.fromkeys((*known, *several)):
            refresh(database, INSTANCE, registrant, uid)


def settle(database: Database, kind: str, registrant: str, uid: str, entry_id: str) -> None:
    """Note the newest journal entry that settled a conflict. Runs in the caller's transaction."""
    database.write(
        "INSERT INTO conflict (kind, registrant, uid, members, latest, settled_by) "
        "VALUES (?, ?, ?, 0, '', ?) ON CONFLICT (kind, registrant, uid) DO UPDATE SET settled_by = "
        "CASE WHEN conflict.settled_by > excluded.settled_by THEN conflict.settled_by "
        "ELSE excluded.settled_by END",
        (kind, registrant, uid, entry_id),
    )
    refresh(database, kind, registrant, uid)


class ConflictTable:
    """What ``pacs conflict`` reads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self, *, settled_too: bool) -> Sequence[ConflictRow]:
        """Conflicts in the order they were found."""
        found = [_row(row) for row in self._database.execute(f"{_LISTED} ORDER BY id")]
        return [row for row in found if settled_too or row.open]

    def find(self, conflict_id: int) -> ConflictRow | None:
        """One conflict by its number."""
        rows = self._database.execute(f"{_LISTED} AND id = ?", (conflict_id,))
        return next(map(_row, rows), None)

    def members(self, conflict: ConflictRow, limit: int) -> Sequence[MemberRow]:
        """Instances that take part, oldest first, at most ``limit``."""
        rows = self._database.execute(
            "SELECT i.object_id, p.patient_id, p.issuer_of_patient_id, s.study_instance_uid, "
            "e.series_instance_uid, i.sop_instance_uid, i.received_utc, i.source_ae_title, "
            "i.delivered FROM instance i JOIN series e ON e.id = i.series_row "
            "JOIN study s ON s.id = e.study_row JOIN patient p ON p.id = s.patient_row "
            f"WHERE i.deleted_by IS NULL AND i.registrant = ? AND {_COLUMN[conflict.kind]} = ? "
            "ORDER BY i.object_id LIMIT ?",
            (conflict.registrant, conflict.uid, limit),
        )
        names = MemberRow.__dataclass_fields__
        return [
            MemberRow(**{**dict(zip(names, row, strict=True)), "delivered": bool(row[8])})
            for row in rows
        ]


def _row(row: tuple[int, str, str, str, object]) -> ConflictRow:
    return ConflictRow(id=row[0], kind=row[1], registrant=row[2], uid=row[3], open=bool(row[4]))
