"""Rows of who watches which workitem, and who watches whatever comes. PS3.4 Section CC.2.3.

Whoever writes does so in the transaction of ``Records``. What an action does to
them is decided elsewhere.
"""

from collections.abc import Sequence

from pacs.core.events import Addressee
from pacs.core.identifiers import AETitle, Registrant
from pacs.core.workitem_ports import GlobalWatch, Watch
from storage.database.connection import Database
from storage.database.workitem import ARRIVALS_LOCK

_TO = "ae_title = ? AND registrant = ?"


class WorkitemWatchTable:
    """``pacs.core.workitem_ports.WatchRows`` on SQLite or PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def alone(self) -> None:
        """Let nobody add a workitem until this transaction ends."""
        if self._database.dialect == "postgresql":  # SQLite has one writer anyway
            self._database.write("SELECT pg_advisory_xact_lock(?)", (ARRIVALS_LOCK,))

    def watches(self, number: int) -> Sequence[Watch]:
        """Who watches a workitem."""
        found = self._database.write(
            "SELECT ae_title, registrant, deletion_lock FROM workitem_watch WHERE workitem = ? "
            "ORDER BY ae_title, registrant",
            (number,),
        )
        return [
            Watch(addressee=_addressee(row[0], row[1]), deletion_lock=bool(row[2]))
            for row in found.fetchall()
        ]

    def watch(self, number: int, watch: Watch) -> None:
        """Watch a workitem, or change the lock."""
        self._database.write(
            "INSERT INTO workitem_watch (workitem, ae_title, registrant, deletion_lock) "
            "VALUES (?, ?, ?, ?) ON CONFLICT (workitem, ae_title, registrant) "
            "DO UPDATE SET deletion_lock = excluded.deletion_lock",
            (number, *_to(watch.addressee), int(watch.deletion_lock)),
        )

    def unwatch(self, number: int, addressee: Addressee) -> None:
        """Watch a workitem no more."""
        self._database.write(
            f"DELETE FROM workitem_watch WHERE workitem = ? AND {_TO}", (number, *_to(addressee))
        )

    def join(self, number: int, watch: Watch) -> bool:
        """Watch a workitem unless this AE does already; tells whether it did not."""
        added = self._database.write(
            "INSERT INTO workitem_watch (workitem, ae_title, registrant, deletion_lock) "
            "VALUES (?, ?, ?, ?) ON CONFLICT (workitem, ae_title, registrant) DO NOTHING "
            "RETURNING workitem",
            (number, *_to(watch.addressee), int(watch.deletion_lock)),
        )
        return added.fetchone() is not None

    def newest(self, registrant: Registrant) -> int:
        """Number of the subscriber's newest workitem, 0 without one; ``alone``, of all there will be so far."""
        found = self._database.write(
            "SELECT COALESCE(MAX(id), 0) FROM workitem WHERE registrant = ?", (registrant,)
        )
        return int(found.fetchone()[0])

    def unwatched(self, addressee: Addressee, after: int, newest: int, limit: int) -> Sequence[int]:
        """Numbers, ascending, of the subscriber's workitems after one and up to one that this AE does not watch."""
        found = self._database.execute(
            "SELECT id FROM workitem WHERE registrant = ? AND id > ? AND id <= ? AND NOT EXISTS "
            "(SELECT 1 FROM workitem_watch w WHERE w.workitem = workitem.id AND w.ae_title = ? "
            "AND w.registrant = ?) ORDER BY id LIMIT ?",
            (addressee.registrant, after, newest, *_to(addressee), limit),
        )
        return [int(row[0]) for row in found]

    def stands(self, watch: GlobalWatch) -> bool:
        """Tell whether this AE still watches just so; it goes on until this transaction ends."""
        lock = "" if self._database.dialect == "sqlite" else " FOR SHARE"
        found = self._database.write(
            f"SELECT deletion_lock, match_keys FROM workitem_global WHERE {_TO}{lock}",
            _to(watch.addressee),
        )
        row = found.fetchone()
        return row is not None and (bool(row[0]), bytes(row[1])) == (
            watch.deletion_lock,
            watch.keys,
        )

    def everywhere(self, registrant: Registrant) -> Sequence[GlobalWatch]:
        """Who watches everything of a subscriber, or what matches."""
        found = self._database.write(
            "SELECT ae_title, registrant, deletion_lock, match_keys FROM workitem_global "
            "WHERE registrant = ? ORDER BY ae_title",
            (registrant,),
        )
        return [
            GlobalWatch(
                addressee=_addressee(row[0], row[1]),
                deletion_lock=bool(row[2]),
                keys=bytes(row[3]),
            )
            for row in found.fetchall()
        ]

    def watch_all(self, watch: GlobalWatch) -> None:
        """Watch everything that comes, in place of what was watched for before."""
        self._database.write(
            "INSERT INTO workitem_global (ae_title, registrant, deletion_lock, match_keys) "
            "VALUES (?, ?, ?, ?) ON CONFLICT (ae_title, registrant) DO UPDATE SET "
            "deletion_lock = excluded.deletion_lock, match_keys = excluded.match_keys",
            (*_to(watch.addressee), int(watch.deletion_lock), watch.keys),
        )

    def suspend(self, addressee: Addressee) -> None:
        """Watch no more of what comes."""
        self._database.write(f"DELETE FROM workitem_global WHERE {_TO}", _to(addressee))

    def leave(self, addressee: Addressee) -> None:
        """Watch nothing any more."""
        self.suspend(addressee)
        self._database.write(f"DELETE FROM workitem_watch WHERE {_TO}", _to(addressee))

    def everybody(self) -> Sequence[Addressee]:
        """Everybody who watches anything, each once."""
        found = self._database.execute(
            "SELECT ae_title, registrant FROM workitem_global UNION "
            "SELECT ae_title, registrant FROM workitem_watch ORDER BY ae_title, registrant"
        )
        return [_addressee(row[0], row[1]) for row in found]


def _addressee(ae_title: str, registrant: str) -> Addressee:
    return Addressee(ae_title=AETitle(ae_title), registrant=Registrant(registrant))


def _to(addressee: Addressee) -> tuple[str, str]:
    return addressee.ae_title, addressee.registrant
