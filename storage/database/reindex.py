"""Emptying and filling the index tables in one transaction, and reading them all for ``verify``."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from pacs.core.identifiers import ObjectId
from pacs.core.journal import IndexedFile, JournalEntry
from pacs.core.records import Place
from storage.database.connection import Database
from storage.database.decisions import Decisions
from storage.database.job_rows import text_utc
from storage.database.retrieve import HELD, DatabaseRetrieveIndex, as_held
from storage.database.store import DatabaseUnit
from storage.database.tables import TABLES, Kind
from storage.database.versions import follow_policy


class RebuildTransaction(DatabaseUnit):
    """One transaction in which the index is emptied and filled again. Nobody else writes meanwhile."""

    def __init__(self, database: Database, versions: str) -> None:
        super().__init__(database, versions, alone=True)
        self._decisions = Decisions(database, versions)
        self._anew = False

    def empty(self) -> None:
        """Remove every row of every index table, and none of a record. What follows is no news."""
        self._anew = True
        for table in TABLES:
            if table.kind is Kind.INDEX:
                self._database.write(f"DELETE FROM {table.name}")

    def kept_names(self) -> Mapping[ObjectId, str]:
        """The file to keep of each object of which several may lie there."""
        rows = self._database.write("SELECT object_id, keep FROM form_change").fetchall()
        return {ObjectId(row[0]): str(row[1]) for row in rows}

    def add_change(self, object_id: ObjectId, keep: str) -> None:
        """Note that what else lies there under this object id is to go, where nobody has yet."""
        self._database.write(
            "INSERT INTO form_change (object_id, state, token, keep, due_utc) "
            "VALUES (?, 'settling', '', ?, ?) ON CONFLICT (object_id) DO NOTHING",
            (object_id, keep, text_utc(datetime.now(UTC))),
        )

    def obey(self, entry: JournalEntry) -> None:
        """Apply one journal entry."""
        self._decisions.apply_within(entry, anew=self._anew)


class WholeIndex:
    """The index seen as a whole: counted, walked, rebuilt."""

    def __init__(self, database: Database, versions: str) -> None:
        self._database = database
        self._versions = versions

    @contextmanager
    def rebuild(self) -> Iterator[RebuildTransaction]:
        """Begin; all or nothing. Raises ``RecordsFailed``."""
        with self._database.alone():
            yield RebuildTransaction(self._database, self._versions)

    def applied(self) -> Collection[str]:
        """Ids of the journal entries the index has obeyed."""
        return Decisions(self._database, self._versions).applied()

    def follow_policy(self) -> bool:
        """Choose the delivered versions anew when the setting has changed; tells whether it had."""
        return follow_policy(self._database, self._versions)

    def has_object(self, object_id: ObjectId) -> bool:
        """Tell whether rows of this kept file are committed."""
        return DatabaseRetrieveIndex(self._database).has_object(object_id)

    def is_surplus(self, place: Place) -> bool:
        """Tell whether a file is not the one its row speaks of, and nobody has noted that it goes."""
        rows = self._database.execute(
            "SELECT 1 FROM instance WHERE object_id = ? AND place <> ? "
            "AND object_id NOT IN (SELECT object_id FROM form_change WHERE object_id = ?)",
            (place.object_id, place.name, place.object_id),
        )
        return any(rows)

    def count(self) -> int:
        """How many files the index speaks of."""
        (row,) = self._database.execute("SELECT COUNT(*) FROM instance")
        return int(row[0])

    def files(self, after_row: int, limit: int) -> Sequence[IndexedFile]:
        """A page of rows in the order of their numbers."""
        sql = HELD.replace("SELECT ", "SELECT i.id, i.deleted_by IS NOT NULL, ", 1)
        rows = self._database.execute(
            f"{sql} WHERE i.id > ? ORDER BY i.id LIMIT ?", (after_row, limit)
        )
        return [
            IndexedFile(row=row[0], held=as_held(row[2:]), deleted=bool(row[1])) for row in rows
        ]
