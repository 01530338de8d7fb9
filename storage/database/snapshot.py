"""The snapshot of everything an admin changes while serving, frozen at one revision."""

import threading
import time

from pacs.core.records import Snapshot
from storage.database.connection import Database
from storage.database.peer import PeerTable
from storage.database.poll import PollTable
from storage.database.profile import ProfileTable
from storage.database.route import RouteTable
from storage.database.subscriber_rows import read_contracts, read_users

_LOOK_AGAIN_S = 1.0
_READINGS = 3
"""Times a snapshot is read anew because something changed meanwhile."""


class DatabaseSnapshots:
    """``pacs.core.ports.Snapshots``: compares revisions at most once a second."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._peers = PeerTable(database)
        self._polls = PollTable(database)
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._looked_at = 0.0

    def current(self) -> Snapshot:
        """The newest snapshot, at most one second old. Raises ``RecordsFailed``."""
        with self._lock:
            if time.monotonic() - self._looked_at < _LOOK_AGAIN_S and self._snapshot is not None:
                return self._snapshot
        return self.newest()

    def newest(self) -> Snapshot:
        """The snapshot as it stands now. Raises ``RecordsFailed``."""
        with self._lock:
            revision = self._revision()
            if self._snapshot is None or revision != self._snapshot.revision:
                self._snapshot = self._whole(revision)
            self._looked_at = time.monotonic()
            return self._snapshot

    def _revision(self) -> int:
        (row,) = self._database.execute("SELECT number FROM revision WHERE id = 1")
        return int(row[0])

    def _whole(self, revision: int) -> Snapshot:
        """Read all of it, of one moment: the revision is the same before and after.

        Where changes come too fast for that it bears the older revision, and is
        read again at the next look.
        """
        for _ in range(_READINGS):
            read = self._read(revision)
            after = self._revision()
            if after == revision:
                break
            revision = after
        return read

    def _read(self, revision: int) -> Snapshot:
        return Snapshot(
            revision=revision,
            peers={one.ae_title: one for one in self._peers.list()},
            routes=tuple(RouteTable(self._database).list()),
            polls=tuple(self._polls.list()),
            contracts={one.subscriber: one for one in read_contracts(self._database)},
            profiles={one.ae_title: one for one in ProfileTable(self._database).list()},
            users={one.name: one for one in read_users(self._database)},
        )
