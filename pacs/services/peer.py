"""Devices known by AE title: whose each is, where it calls from, where a C-MOVE may send to."""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

from pacs.core.caller import Caller, SubscriberName
from pacs.core.contract import ContractState
from pacs.core.contract_ports import ContractRows, ContractUnit, HistoryEntry
from pacs.core.errors import EntryConflicts, EntryNotFound
from pacs.core.identifiers import AETitle, is_ae_title
from pacs.core.ports import AuditTrail
from pacs.core.records import Peer, PeerEncoding

MAX_ASSOCIATIONS = 16
"""Of one C-MOVE or one study forwarded to one peer: each is a thread and a connection of ours."""
LEAST_RATE_MBIT_S = 0.01
"""A CT of 512 KiB takes seven minutes at it; what is slower is a mistake in the unit."""
MOST_RATE_MBIT_S = 1_000_000.0
MOST_NETWORKS = 32
_FINGERPRINT = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class SendingPolicy:
    """How a peer is sent to; the fields are those of ``Peer``.

    What protects is never dropped by silence: ``tls`` of ``None`` stays as it was.
    """

    associations: int = 1
    encoding: PeerEncoding = PeerEncoding.AS_STORED
    rate_mbit_s: float | None = None
    tls: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """Whose a peer is and how it is known; the fields are those of ``Peer``.

    ``None`` was not said: what a peer is bound to stays, for nothing of it is dropped by
    silence. Empty takes it away.
    """

    subscriber: str | None = None
    networks: tuple[str, ...] | None = None
    certificate_fingerprint: str | None = None


AS_USUAL = SendingPolicy()
NOT_SAID = Binding()


class PeerRows(Protocol):
    """Where peers are kept."""

    def list(self) -> Sequence[Peer]: ...


class Peers:
    """What an admin does with peers; each change is on record."""

    def __init__(self, rows: PeerRows, contracts: ContractRows, audit: AuditTrail) -> None:
        self._rows = rows
        self._contracts = contracts
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
        binding: Binding = NOT_SAID,
    ) -> Peer:
        """Add or change a peer. Raises ``EntryConflicts`` for what cannot be one, ``EntryNotFound``."""
        said = Peer(
            ae_title=AETitle(ae_title.strip()),
            host=host,
            port=port,
            associations=policy.associations,
            encoding=policy.encoding,
            rate_mbit_s=policy.rate_mbit_s,
        )
        with self._contracts.change() as unit:
            known = unit.peer(said.ae_title)
            peer = _bound(said, known or said, policy, binding)
            check_peer(peer)
            _check_subscriber(unit, peer)
            unit.put_peer(peer)
            _note(unit, caller, known, peer)
        self._audit.record("peer-changed", caller, **_details(peer))
        return peer

    def remove(self, caller: Caller, ae_title: str) -> None:
        """Remove a peer. Raises ``EntryNotFound``."""
        with self._contracts.change() as unit:
            known = unit.peer(AETitle(ae_title))
            if known is None:
                raise EntryNotFound(f"no peer is named {ae_title}")
            unit.remove_peer(known.ae_title)
            _note(unit, caller, known, None)
        self._audit.record("peer-removed", caller, peer=ae_title)


def check_peer(peer: Peer) -> None:
    """Refuse what cannot be a peer. Raises ``EntryConflicts``."""
    if not is_ae_title(peer.ae_title):
        raise EntryConflicts("an AE title has 1 to 16 printable characters, no backslash")
    if not peer.host or not 1 <= peer.port <= 65_535:
        raise EntryConflicts("a peer needs a host and a port from 1 to 65535")
    if not 1 <= peer.associations <= MAX_ASSOCIATIONS:
        raise EntryConflicts(f"a peer takes 1 to {MAX_ASSOCIATIONS} associations at once")
    rate = peer.rate_mbit_s
    if rate is not None and not LEAST_RATE_MBIT_S <= rate <= MOST_RATE_MBIT_S:
        raise EntryConflicts(f"a rate is {LEAST_RATE_MBIT_S:g} to {MOST_RATE_MBIT_S:,.0f} Mbit/s")
    _check_binding(peer)


def _check_binding(peer: Peer) -> None:
    if len(peer.networks) > MOST_NETWORKS:
        raise EntryConflicts(f"a peer calls from at most {MOST_NETWORKS} networks")
    if any(_network(one) != one for one in peer.networks):
        raise EntryConflicts("a network is written in CIDR form, for example 192.0.2.0/24")
    fingerprint = peer.certificate_fingerprint
    if not fingerprint and any(one.endswith("/0") for one in peer.networks):
        raise EntryConflicts("from everywhere a device is told by its certificate: --certificate")
    if fingerprint and not _FINGERPRINT.match(fingerprint):
        raise EntryConflicts("a fingerprint is SHA-256 in lower-case hexadecimal")
    if peer.subscriber is None:
        if peer.networks or fingerprint:
            raise EntryConflicts("only a peer of a subscriber may call: name it with --subscriber")
    elif not peer.networks and not _is_address(peer.host):
        raise EntryConflicts(
            f"a caller is told by its address: name the network of {peer.host} with --network"
        )


def _bound(peer: Peer, known: Peer, policy: SendingPolicy, binding: Binding) -> Peer:
    """The peer with what it is bound to and protected by: what is said, else what is known.

    Another subscriber's device is told by what is said of it now: its networks are not those of the
    one before. Raises ``EntryConflicts`` where nothing is said of the certificate that one had.
    """
    subscriber, networks = known.subscriber, known.networks
    fingerprint = binding.certificate_fingerprint
    if binding.subscriber is not None:
        subscriber = SubscriberName(binding.subscriber) if binding.subscriber else None
    if known.subscriber is not None and subscriber not in (None, known.subscriber):
        networks = ()
        if known.certificate_fingerprint and fingerprint is None:
            raise EntryConflicts(
                f"it has a certificate as a device of {known.subscriber}: --certificate or --no-certificate"
            )
    if binding.networks is not None:
        networks = tuple(dict.fromkeys(map(_network, binding.networks)))
    return replace(
        peer,
        tls=known.tls if policy.tls is None else policy.tls,
        subscriber=subscriber,
        networks=networks,
        certificate_fingerprint=known.certificate_fingerprint
        if fingerprint is None
        else fingerprint,
    )


def _check_subscriber(unit: ContractUnit, peer: Peer) -> None:
    if peer.subscriber is None:
        return
    contract = unit.find(peer.subscriber)
    if contract is None:
        raise EntryNotFound(f"no subscriber is named {peer.subscriber}")
    if contract.state is ContractState.CANCELLED:
        raise EntryConflicts(f"{peer.subscriber} is cancelled")


def _note(unit: ContractUnit, caller: Caller, before: Peer | None, after: Peer | None) -> None:
    """Say in the history of whoever won or lost a device."""
    old = before.subscriber if before else None
    new = after.subscriber if after else None
    notes = []
    if after is not None and new is not None:
        word = "changed" if old == new else "added"
        notes.append((new, f"peer {after.ae_title} {word}, {_said(after)}"))
    if before is not None and old is not None and old != new:
        notes.append((old, f"peer {before.ae_title} removed"))
    for subscriber, what in notes:
        entry = HistoryEntry(
            at_utc=datetime.now(UTC),
            subscriber=subscriber,
            who=caller.user or caller.subscriber,
            what=what,
        )
        unit.note(entry)


def _said(peer: Peer) -> str:
    certificate = peer.certificate_fingerprint
    said = f"{peer.host}:{peer.port}, from {', '.join(peer.networks) or peer.host}"
    return f"{said}, certificate {certificate}" if certificate else said


def _details(peer: Peer) -> dict[str, object]:
    return {
        "peer": peer.ae_title,
        "host": peer.host,
        "port": peer.port,
        "associations": peer.associations,
        "encoding": peer.encoding.value,
        "rate_mbit_s": peer.rate_mbit_s,
        "tls": peer.tls,
        "contract": peer.subscriber,
        "networks": list(peer.networks),
        "certificate_fingerprint": peer.certificate_fingerprint,
    }


def _network(text: str) -> str:
    """Write a network in one form. Raises ``EntryConflicts``."""
    try:
        return str(ipaddress.ip_network(text.strip()))
    except ValueError as error:
        raise EntryConflicts(f"{text} is no network, as 192.0.2.0/24 or 192.0.2.7") from error


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
