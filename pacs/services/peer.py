"""Devices known by AE title: where a C-MOVE may send to, whom the command line may call."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pacs.core.caller import Caller
from pacs.core.errors import EntryConflicts, EntryNotFound
from pacs.core.identifiers import AETitle, is_ae_title
from pacs.core.ports import AuditTrail
from pacs.core.records import Peer, PeerEncoding

MAX_ASSOCIATIONS = 16
"""Of one C-MOVE or one study forwarded to one peer: each is a thread and a connection of ours."""
LEAST_RATE_MBIT_S = 0.01
"""A CT of 512 KiB takes seven minutes at it; what is slower is a mistake in the unit."""
MOST_RATE_MBIT_S = 1_000_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SendingPolicy:
    """How a peer is sent to; the fields are those of ``Peer``."""

    associations: int = 1
    encoding: PeerEncoding = PeerEncoding.AS_STORED
    rate_mbit_s: float | None = None


AS_USUAL = SendingPolicy()


class PeerRows(Protocol):
    """Where peers are kept."""

    def list(self) -> Sequence[Peer]: ...
    def put(self, peer: Peer) -> None: ...
    def remove(self, ae_title: AETitle) -> None: ...


class Peers:
    """What an admin does with peers; each change is on record."""

    def __init__(self, rows: PeerRows, audit: AuditTrail) -> None:
        self._rows = rows
        self._audit = audit

    def list(self, caller: Caller) -> Sequence[Peer]:
        """All peers by AE title."""
        return self._rows.list()

    def find(self, caller: Caller, ae_title: str) -> Peer:
        """The peer of that AE title. Raises ``EntryNotFound``."""
        for peer in self._rows.list():
            if peer.ae_title == ae_title:
                return peer
        raise EntryNotFound(f"no peer is named {ae_title}")

    def add(
        self,
        caller: Caller,
        ae_title: str,
        host: str,
        port: int,
        policy: SendingPolicy = AS_USUAL,
    ) -> Peer:
        """Add or change a peer. Raises ``EntryConflicts`` for what cannot be one."""
        peer = Peer(
            ae_title=AETitle(ae_title.strip()),
            host=host,
            port=port,
            associations=policy.associations,
            encoding=policy.encoding,
            rate_mbit_s=policy.rate_mbit_s,
        )
        _check(peer)
        self._rows.put(peer)
        self._audit.record(
            "peer-changed",
            caller,
            peer=peer.ae_title,
            host=peer.host,
            port=peer.port,
            associations=peer.associations,
            encoding=peer.encoding.value,
            rate_mbit_s=peer.rate_mbit_s,
        )
        return peer

    def remove(self, caller: Caller, ae_title: str) -> None:
        """Remove a peer. Raises ``EntryNotFound``."""
        self._rows.remove(AETitle(ae_title))
        self._audit.record("peer-removed", caller, peer=ae_title)


def _check(peer: Peer) -> None:
    if not is_ae_title(peer.ae_title):
        raise EntryConflicts("an AE title has 1 to 16 printable characters, no backslash")
    if not peer.host or not 1 <= peer.port <= 65_535:
        raise EntryConflicts("a peer needs a host and a port from 1 to 65535")
    if not 1 <= peer.associations <= MAX_ASSOCIATIONS:
        raise EntryConflicts(f"a peer takes 1 to {MAX_ASSOCIATIONS} associations at once")
    rate = peer.rate_mbit_s
    if rate is not None and not LEAST_RATE_MBIT_S <= rate <= MOST_RATE_MBIT_S:
        raise EntryConflicts(f"a rate is {LEAST_RATE_MBIT_S:g} to {MOST_RATE_MBIT_S:,.0f} Mbit/s")
