"""Rows of peers."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from pacs.core.caller import SubscriberName
from pacs.core.errors import EntryNotFound
from pacs.core.identifiers import AETitle
from pacs.core.records import Peer, PeerEncoding
from storage.database.connection import Database
from storage.database.revision import bump_revision

_COLUMNS = (
    "ae_title, host, port, associations, encoding, rate_mbit_s, tls, subscriber, networks, "
    "certificate_fingerprint"
)


def read_peers(
    database: Database, column: Literal["subscriber", "ae_title"] | None = None, value: str = ""
) -> Sequence[Peer]:
    """All peers by AE title, or those with that value in one column."""
    where = "" if column is None else f" WHERE {column} = ?"
    rows = database.execute(
        f"SELECT {_COLUMNS} FROM peer{where} ORDER BY ae_title", () if column is None else (value,)
    )
    return [_peer(row) for row in rows]


def _peer(row: Sequence[Any]) -> Peer:
    ae_title, host, port, many, encoding, rate, tls, subscriber, networks, fingerprint = row
    return Peer(
        ae_title=AETitle(ae_title),
        host=host,
        port=int(port),
        associations=int(many),
        encoding=PeerEncoding(encoding),
        rate_mbit_s=None if rate is None else float(rate),
        tls=bool(tls),
        subscriber=None if subscriber is None else SubscriberName(subscriber),
        networks=tuple(networks.split()),
        certificate_fingerprint=fingerprint,
    )


def write_peer(database: Database, peer: Peer) -> None:
    """Add a peer, or change the one of that AE title, within a transaction."""
    columns = _COLUMNS.split(", ")
    changes = ", ".join(f"{one} = excluded.{one}" for one in columns[1:])
    database.write(
        f"INSERT INTO peer ({_COLUMNS}, added_utc) VALUES ({', '.join('?' * len(columns))}, ?) "
        f"ON CONFLICT (ae_title) DO UPDATE SET {changes}",
        (
            peer.ae_title,
            peer.host,
            peer.port,
            peer.associations,
            peer.encoding.value,
            peer.rate_mbit_s,
            int(peer.tls),
            peer.subscriber,
            " ".join(peer.networks),
            peer.certificate_fingerprint,
            datetime.now(UTC).isoformat(),
        ),
    )


class PeerTable:
    """Peers by AE title. Every change bumps the revision in its own transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self) -> Sequence[Peer]:
        """All peers by AE title."""
        return read_peers(self._database)

    def put(self, peer: Peer) -> None:
        """Add a peer that is nobody's, or change the one of that AE title."""
        with self._database.transaction():
            write_peer(self._database, peer)
            bump_revision(self._database)

    def remove(self, ae_title: AETitle) -> None:
        """Remove a peer. Raises ``EntryNotFound``."""
        with self._database.transaction():
            removed = self._database.write("DELETE FROM peer WHERE ae_title = ?", (ae_title,))
            if removed.rowcount == 0:
                raise EntryNotFound(f"no peer is named {ae_title}")
            bump_revision(self._database)
