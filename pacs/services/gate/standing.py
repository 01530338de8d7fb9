"""Whom a snapshot knows: devices recognized, callers still the ones they were, terms of each contract.

Remembers what it found for as long as the snapshot is the same one, so that asking again
for every request costs next to nothing. Refuses to know what follows.
"""

import enum
from collections.abc import Hashable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from pacs.core.caller import Caller, Candidate, SubscriberName
from pacs.core.contract import Contract
from pacs.core.records import Peer, Snapshot
from pacs.services.gate.devices import Devices
from pacs.services.gate.terms import Terms, resolved

MOST_REMEMBERED: Final = 10_000


class Recognition(enum.Enum):
    """What becomes of an AE title that a candidate says it has."""

    KNOWN = "it is the subscriber's device of that name"
    UNKNOWN = "no subscriber has a device of that name"
    MISTAKEN = "it is not the device of that name"


@dataclass(frozen=True, slots=True)
class _Found:
    """What was found by one snapshot."""

    revision: int
    terms: dict[tuple[SubscriberName, str], Terms] = field(default_factory=dict)
    remaining: dict[Hashable, bool] = field(default_factory=dict)


class Standing:
    """Judges by a snapshot; thread-safe, as every step stands alone."""

    def __init__(self, devices: Devices, patience_s: float) -> None:
        self._devices = devices
        self._patience_s = patience_s
        self._found = _Found(-1)

    def recognize(self, candidate: Candidate, snapshot: Snapshot, now_utc: datetime) -> Recognition:
        """Compare a candidate with the peer of its AE title."""
        peer = snapshot.peers.get(candidate.calling_ae_title)
        if peer is None:
            return Recognition.UNKNOWN
        fingerprint = fingerprint_of(candidate, now_utc)
        if not self._is_device(peer, candidate.address, fingerprint, self._patience_s):
            return Recognition.MISTAKEN
        return Recognition.UNKNOWN if peer.subscriber is None else Recognition.KNOWN

    def remains(self, caller: Caller, snapshot: Snapshot, *, waits: bool) -> bool | None:
        """Tell whether device and user are the subscriber's as they were; ``None`` until it is known."""
        key = (
            *(caller.subscriber, caller.ae_title, caller.address),
            *(caller.certificate_fingerprint, caller.user, caller.known_device),
        )
        remembered = self._of(snapshot).remaining
        found = remembered.get(key)
        if found is None:
            found = self._remains(caller, snapshot, self._patience_s if waits else 0.0)
            if found is not None and len(remembered) < MOST_REMEMBERED:
                remembered[key] = found
        return found

    def terms(
        self, contract: Contract, snapshot: Snapshot, purpose: str, now_utc: datetime
    ) -> Terms:
        """The contract's terms under a purpose. Raises ``NotAuthorized``."""
        key = (contract.subscriber, purpose)
        remembered = self._of(snapshot).terms
        found = remembered.get(key)
        if found is None:
            found = remembered[key] = resolved(contract, snapshot, purpose, now_utc)
        return found

    def _of(self, snapshot: Snapshot) -> _Found:
        found = self._found
        if found.revision != snapshot.revision:
            found = self._found = _Found(snapshot.revision)
        return found

    def _remains(self, caller: Caller, snapshot: Snapshot, patience_s: float) -> bool | None:
        if caller.user:
            user = snapshot.users.get(caller.user)
            if user is None or user.subscriber != caller.subscriber:
                return False
        peer = snapshot.peers.get(caller.ae_title)
        if peer is None:
            return bool(caller.user) and not caller.known_device
        if peer.subscriber != caller.subscriber and (caller.known_device or peer.subscriber):
            return False
        return self._is_device(peer, caller.address, caller.certificate_fingerprint, patience_s)

    def _is_device(
        self, peer: Peer, address: str, fingerprint: str, patience_s: float
    ) -> bool | None:
        return self._devices.is_device(
            peer, address=address, fingerprint=fingerprint, patience_s=patience_s
        )


def fingerprint_of(candidate: Candidate, now_utc: datetime) -> str:
    """The fingerprint of the certificate a candidate has shown; empty where it is over."""
    shown = candidate.certificate
    return "" if shown is None or shown.not_after_utc <= now_utc else shown.fingerprint
