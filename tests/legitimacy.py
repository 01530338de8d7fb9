"""Contracts for the tests of the gate: a snapshot that changes when told to, and gates that go by it."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from pacs.core.caller import Caller, Candidate, Certificate, Right, SubscriberName
from pacs.core.contract import NAME_ONLY, Contract, ContractState, Enrolments, User
from pacs.core.identifiers import AETitle
from pacs.core.ports import AuditTrail, Failures
from pacs.core.records import Peer, Snapshot
from pacs.services.gate.contract import ContractGate, Trust
from pacs.services.gate.devices import Devices
from pacs.services.gate.host_names import HostNames
from pacs.services.gate.identities import Identities, Tokens
from pacs.services.gate.standing import Standing
from pacs.services.passcode import hashed, matches
from tests.association_fakes import FakeAudit

FINGERPRINT = "ab" * 32
PASSCODE = "open sesame"
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
ALL_RIGHTS = frozenset(Right)


class Book:
    """``pacs.core.ports.Snapshots`` over what a test writes into it."""

    def __init__(self, *entries: Contract | Peer | User) -> None:
        self.snapshot = Snapshot(revision=1, peers={})
        self.looks = 0
        self.write(*entries)

    def write(self, *entries: Contract | Peer | User) -> None:
        """Add or replace entries, and be of a new revision."""
        found: Mapping[type, dict[Any, Any]] = {
            Contract: {**self.snapshot.contracts},
            Peer: {**self.snapshot.peers},
            User: {**self.snapshot.users},
        }
        for one in entries:
            found[type(one)][_key(one)] = one
        self._turn(contracts=found[Contract], peers=found[Peer], users=found[User])

    def strike(self, kind: str, name: str) -> None:
        """Remove an entry of ``contracts``, ``peers`` or ``users``."""
        left = {key: one for key, one in getattr(self.snapshot, kind).items() if key != name}
        self._turn(**{kind: left})

    def _turn(self, **parts: Any) -> None:
        self.snapshot = replace(self.snapshot, revision=self.snapshot.revision + 1, **parts)

    def current(self) -> Snapshot:
        return self.snapshot

    def newest(self) -> Snapshot:
        self.looks += 1
        return self.snapshot


def _key(entry: Contract | Peer | User) -> str:
    if isinstance(entry, Contract):
        return entry.subscriber
    return entry.ae_title if isinstance(entry, Peer) else entry.name


class Counted:
    """``pacs.core.ports.Failures`` that lock a key at its third failure."""

    def __init__(self) -> None:
        self.noted: list[str] = []

    def blocked(self, key: str) -> bool:
        return self.noted.count(key) >= 3

    def note(self, key: str) -> None:
        self.noted.append(key)


def contract(name: str = "alpha", **more: Any) -> Contract:
    given: dict[str, Any] = {"state": ContractState.ACTIVE, "rights": ALL_RIGHTS, **more}
    return Contract(subscriber=SubscriberName(name), **given)


def device(ae_title: str = "CT1", owner: str | None = "alpha", **more: Any) -> Peer:
    given: dict[str, Any] = {"host": "10.0.0.1", "port": 104, **more}
    subscriber = None if owner is None else SubscriberName(owner)
    return Peer(ae_title=AETitle(ae_title), subscriber=subscriber, **given)


@cache
def kept(passcode: str) -> str:
    """What is kept of a passcode; made once, for it is slow on purpose."""
    return hashed(passcode.encode())


def user(
    name: str = "ann", owner: str = "alpha", passcode: str = PASSCODE, *, named: bool = False
) -> User:
    """A user; without passcode it is one that proves itself by a token, or is named only."""
    kept_as = NAME_ONLY if named else kept(passcode) if passcode else ""
    return User(name=name, subscriber=SubscriberName(owner), passcode=kept_as)


def candidate(ae_title: str = "CT1", address: str = "10.0.0.1", **more: Any) -> Candidate:
    return Candidate(
        calling_ae_title=AETitle(ae_title),
        called_ae_title=AETitle("PACS"),
        address=address,
        port=1,
        **more,
    )


def signed_in(name: str, passcode: str = PASSCODE, **more: Any) -> Candidate:
    """A candidate with user name and passcode."""
    return candidate(
        user_identity_type=2,
        user_identity=name.encode(),
        user_passcode=passcode.encode(),
        **more,
    )


def certificate(fingerprint: str = FINGERPRINT, *, valid_s: float = 60.0) -> Certificate:
    return Certificate(
        fingerprint=fingerprint, subject="CN=ct1", not_after_utc=NOW + timedelta(seconds=valid_s)
    )


class Clock:
    """What time the gate believes it is."""

    def __init__(self, now_utc: datetime = NOW) -> None:
        self.now_utc = now_utc

    def __call__(self) -> datetime:
        return self.now_utc


def gate_by(
    book: Book,
    *,
    failures: Failures | None = None,
    tokens: Tokens | None = None,
    enrolments: Enrolments | None = None,
    names: HostNames | None = None,
    audit: AuditTrail | None = None,
    loopback: bool = True,
    clock: Clock | None = None,
) -> ContractGate:
    """A gate as ``pacs.app.gate`` makes it, over a book."""
    return ContractGate(
        book,
        standing=Standing(Devices(names or HostNames()), 2.0),
        identities=Identities(matches=matches, tokens=tokens, failures=failures or Counted()),
        audit=audit or FakeAudit(),
        trust=Trust(loopback=loopback, issuer_of_patient_id="local", watch_s=0.05),
        enrolments=enrolments,
        now_utc=clock or Clock(),
    )


def admitted(book: Book, asking: Candidate | None = None, **more: Any) -> Caller:
    return gate_by(book, **more).admit(asking or candidate())
