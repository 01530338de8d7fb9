"""Rows of peers."""

from collections.abc import Sequence
from datetime import UTC, datetime

from pacs.core.errors import EntryNotFound
from pacs.core.identifiers import AETitle
from pacs.core.records import Peer, PeerEncoding
from storage.database.connection import Database
from storage.database.revision import bump_revision


class PeerTable:
    """Peers by AE title. Every change bumps the revision in its own transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self) -> Sequence[Peer]:
        """All peers by AE title."""
        rows = self._database.execute(
            "SELECT ae_title, host, port, associations, encoding, rate_mbit_s "
            "FROM peer ORDER BY ae_title"
        )
        return [
            Peer(
                ae_title=AETitle(ae_title),
                host=host,
                port=int(port),
                associations=int(many),
                encoding=PeerEncoding(encoding),
                rate_mbit_s=None if rate is None else float(rate),
            )
            for ae_title, host, port, many, encoding, rate in rows
        ]

    def put(self, peer: Peer) -> None:
        """Add a peer, or change the one of that AE title."""
        with self._database.transaction():
            self._database.write(
                "INSERT INTO peer "
                "(ae_title, host, port, associations, encoding, rate_mbit_s, added_utc) "
                "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (ae_title) DO UPDATE SET "
                "host = excluded.host, port = excluded.port, associations = excluded.associations, "
                "encoding = excluded.encoding, rate_mbit_s = excluded.rate_mbit_s",
                (
                    peer.ae_title,
                    peer.host,
                    peer.port,
                    peer.associations,
                    peer.encoding.value,
                    peer.rate_mbit_s,
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
