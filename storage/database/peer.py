"""Rows of peers, and the snapshot of everything an admin changes while serving."""

import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from pacs.core.errors import EntryNotFound
from pacs.core.identifiers import AETitle
from pacs.core.records import Peer, Snapshot
from storage.database.connection import Database

_LOOK_AGAIN_S = 1.0


class PeerTable:
    """Peers by AE title. Every change bumps the revision in its own transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self) -> Sequence[Peer]:
        """All peers by AE title."""
        rows = self._database.execute(
            "SELECT ae_title, host, port, associations FROM peer ORDER BY ae_title"
        )
        return [
            Peer(ae_title=AETitle(ae_title), host=host, port=int(port), associations=int(many))
            for ae_title, host, port, many in rows
        ]

    def put(self, peer: Peer) -> None:
        """Add a peer, or change the one of that AE title."""
        with self._database.transaction():
            self._database.write(
                "INSERT INTO peer (ae_title, host, port, associations, added_utc) "
                "VALUES (?, ?, ?, ?, ?) ON CONFLICT (ae_title) DO UPDATE SET "
                "host = excluded.host, port = excluded.port, associations = excluded.associations",
                (
                    peer.ae_title,
                    peer.host,
                    peer.port,
                    peer.associations,
                    datetime.now(UTC).isoformat(),
                ),
            )
            bump_revision(self._database)

    def remove(self, ae_title: AETitle) -> None:
        """Remove a peer. Raises ``EntryNotFound``."""
        with self._database.transaction():
            removed = self._database.write("DELETE FROM peer WHERE ae_title = ?", (ae_title,))
            if removed.rowcount == 0:
                raise EntryNotFound(f"no peer is named {ae_title}")
            bump_revision(self._database)


def bump_revision(database: Database) -> None:
    """Tell every process, within a second, that something changed. Within a transaction."""
    database.write("UPDATE revision SET number = number + 1 WHERE id = 1")


class DatabaseSnapshots:
    """``pacs.core.ports.Snapshots``: compares revisions at most once a second."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._peers = PeerTable(database)
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._looked_at = 0.0

    def current(self) -> Snapshot:
        """The newest snapshot, at most one second old. Raises ``RecordsFailed``."""
        with self._lock:
            now = time.monotonic()
            if self._snapshot is None or now - self._looked_at >= _LOOK_AGAIN_S:
                (row,) = self._database.execute("SELECT number FROM revision WHERE id = 1")
                if self._snapshot is None or row[0] != self._snapshot.revision:
                    peers = {one.ae_title: one for one in self._peers.list()}
                    self._snapshot = Snapshot(revision=int(row[0]), peers=peers)
                self._looked_at = now
            return self._snapshot
