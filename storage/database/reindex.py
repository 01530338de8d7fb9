"""Emptying and filling the index tables in one transaction, and reading them all for ``verify``."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from pacs.core.identifiers import ObjectId
from pacs.core.journal import IndexedFile, JournalEntry
from storage.database.connection import Database
from storage.database.decisions import Decisions
from storage.database.retrieve import HELD, DatabaseRetrieveIndex, as_held
from storage.database.store import DatabaseUnit
from storage.database.tables import TABLES, Kind
from storage.database.versions import follow_policy


class RebuildTransaction(DatabaseUnit):
    """One transaction in which the index is emptied and filled again. Nobody else writes meanwhile."""

    def __init__(self, database: Database, versions: str) -> None:
        super().__init__(database, versions, alone=True)
        self._decisions = Decisions(database, versions)

    def empty(self) -> None:
        """Remove every row of every index table, and none of a record."""
        for table in TABLES:
            if table.kind is Kind.INDEX:
                self._database.write(f"DELETE FROM {table.name}")

    def obey(self, entry: JournalEntry) -> None:
        """Apply one journal entry."""
        self._decisions.apply_within(entry)


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
