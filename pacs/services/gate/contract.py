"""The gate by contracts: devices and users resolved to subscribers, whose contracts say what they may do.

Owns the order of the questions, and that no refusal gives away what exists: where an
identity is offered, all that is wrong with it, its user or the contract looks alike; where
none is, all that is wrong with the device or the contract does.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from pacs.core.caller import Caller, Candidate, Refusal, Right, SubscriberName
from pacs.core.contract import Contract, Enrolments
from pacs.core.errors import AdmissionRefused, NotAuthorized
from pacs.core.identifiers import new_object_id
from pacs.core.ports import AuditTrail, Snapshots
from pacs.core.records import Snapshot
from pacs.services.gate.identities import (
    Identities,
    Identity,
    code_keys,
    enrolment_code,
    refused,
)
from pacs.services.gate.loopback import LOCAL, LoopbackGate, is_loopback
from pacs.services.gate.standing import Recognition, Standing, fingerprint_of
from pacs.services.gate.terms import Terms


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """What holds without contracts, and how often the watch looks."""

    loopback: bool
    issuer_of_patient_id: str
    watch_s: float


class ContractGate:
    """``pacs.core.ports.Gate`` by the contracts of the snapshot; loopback's while there are none."""

    def __init__(
        self,
        snapshots: Snapshots,
        *,
        standing: Standing,
        identities: Identities,
        audit: AuditTrail,
        trust: Trust,
        enrolments: Enrolments | None = None,
        now_utc: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._standing = standing
        self._identities = identities
        self._audit = audit
        self._trust = trust
        self._enrolments = enrolments
        self._now_utc = now_utc
        self._snapshots = snapshots
        self._watch = _Watch(
            snapshots, trust.watch_s / 2
        )  # so each look of the watch is at a new one
        self._loopback = LoopbackGate(
            loopback_trust=True, issuer_of_patient_id=trust.issuer_of_patient_id
        )

    # --- once for each association ---------------------------------------------------

    def admit(self, candidate: Candidate) -> Caller:
        """Resolve who asks. Raises ``AdmissionRefused``."""
        snapshot, now_utc = self._snapshots.newest(), self._now_utc()
        recognition = self._standing.recognize(candidate, snapshot, now_utc)
        peer = snapshot.peers.get(candidate.calling_ae_title)
        device_of = None
        if recognition is Recognition.KNOWN and peer is not None:
            device_of = snapshot.contracts.get(peer.subscriber or SubscriberName(""))
        code = enrolment_code(candidate)
        if code is not None and (device_of is None or not device_of.holds(now_utc)):
            self._enrol(code, candidate)
        if self._is_trusted(candidate.address, snapshot):
            return replace(self._loopback.admit(candidate), revision=snapshot.revision)
        identity = None
        if candidate.user_identity_type is None or code is not None:
            contract = self._contract_of_device(device_of, recognition)
        else:
            identity = self._identities.accepted(
                candidate, snapshot.users, known_device=recognition is Recognition.KNOWN
            )
            contract = self._contract_of_user(identity, device_of, recognition, snapshot)
        return self._admitted(candidate, contract, identity, snapshot, recognition)

    def _contract_of_device(self, device_of: Contract | None, recognition: Recognition) -> Contract:
        if device_of is None:
            known = recognition is Recognition.KNOWN
            raise AdmissionRefused("its subscriber has no contract" if known else recognition.value)
        return device_of

    def _contract_of_user(
        self,
        identity: Identity,
        device_of: Contract | None,
        recognition: Recognition,
        snapshot: Snapshot,
    ) -> Contract:
        subscriber = identity.user.subscriber
        if recognition is Recognition.MISTAKEN:
            raise AdmissionRefused(recognition.value)
        if recognition is Recognition.KNOWN and (
            device_of is None or device_of.subscriber != subscriber
        ):
            raise refused("device and user are of different subscribers")
        contract = snapshot.contracts.get(subscriber)
        if contract is None:
            raise refused("the user's subscriber has no contract")
        return contract

    def _admitted(
        self,
        candidate: Candidate,
        contract: Contract,
        identity: Identity | None,
        snapshot: Snapshot,
        recognition: Recognition,
    ) -> Caller:
        now_utc = self._now_utc()
        refusal = Refusal.DEVICE if identity is None else Refusal.IDENTITY
        if not contract.holds(now_utc):
            raise AdmissionRefused(_why_not(contract), refusal=refusal)
        try:
            terms = self._standing.terms(contract, snapshot, "", now_utc)
        except NotAuthorized as failure:
            raise AdmissionRefused(str(failure), refusal=refusal) from None
        caller = Caller(
            subscriber=contract.subscriber,
            rights=terms.rights,
            visibility=terms.visibility,
            ae_title=candidate.calling_ae_title,
            address=candidate.address,
            association=new_object_id(),
            issuer_of_patient_id=contract.issuer_of_patient_id or contract.subscriber,
            user="" if identity is None else identity.user.name,
            known_device=recognition is Recognition.KNOWN,
            certificate_fingerprint=fingerprint_of(candidate, now_utc),
            identity_response=None if identity is None else identity.response,
        )
        return _with(caller, terms, snapshot, by_default=True)

    def _enrol(self, code: bytes, candidate: Candidate) -> None:
        """Take in a device that introduces itself. Raises ``AdmissionRefused`` in any case."""
        keys = code_keys(candidate.address)
        self._identities.check_unlocked(keys)
        name = None
        if code and self._enrolments is not None:
            name = self._enrolments.enrol(code, candidate)
        if name is None:
            self._identities.failed(keys, "no such enrolment code")
        self._audit.record(
            "enrolment",
            None,
            subscriber=name,
            calling_ae_title=candidate.calling_ae_title,
            address=candidate.address,
            sop_classes=len(candidate.sop_classes),
        )
        raise AdmissionRefused(f"enrolled for {name}, to be accepted", refusal=Refusal.LATER)

    # --- once for each request ---------------------------------------------------------

    def allow(self, caller: Caller, right: Right, purpose: str = "") -> Caller:
        """Give the caller as its contract stands now, under the purpose its request states.

        Raises ``NotAuthorized`` where the contract does not grant ``right``, or knows no such purpose.
        """
        # Instances come some hundred times a second: for them the state may be a second old.
        if right is Right.REGISTER:
            snapshot = self._snapshots.current()
        else:
            snapshot = self._snapshots.newest()
        if _came_by_trust(caller):
            if not self._is_trusted(caller.address, snapshot):
                raise NotAuthorized("loopback is no longer trusted")
            return self._loopback.allow(caller, right, purpose)
        now_utc = self._now_utc()
        contract = self._holding(caller, snapshot, now_utc)
        if contract is None or not self._is_same(caller, snapshot, waits=True):
            raise NotAuthorized(f"the contract of {caller.subscriber} does not hold for the caller")
        if snapshot.revision != caller.revision or purpose != caller.stated_purpose:
            terms = self._standing.terms(contract, snapshot, purpose, now_utc)
            caller = _with(caller, terms, snapshot, by_default=not purpose)
        if right is not Right.CONNECT and right not in caller.rights:
            raise NotAuthorized(f"{caller.subscriber} has no right to {right.value}")
        return caller

    # --- several times a second for each association -------------------------------------

    def stands(self, caller: Caller) -> bool:
        """Tell whether an association of this caller may go on, by a snapshot that is new. Never waits."""
        snapshot = self._watch.snapshot()
        if _came_by_trust(caller):
            return self._is_trusted(caller.address, snapshot)
        return self._holding(caller, snapshot, self._now_utc()) is not None and self._is_same(
            caller, snapshot, waits=False
        )

    def _holding(self, caller: Caller, snapshot: Snapshot, now_utc: datetime) -> Contract | None:
        contract = snapshot.contracts.get(caller.subscriber)
        return contract if contract is not None and contract.holds(now_utc) else None

    def _is_same(self, caller: Caller, snapshot: Snapshot, *, waits: bool) -> bool:
        """Tell whether device and user are bound as they were; what cannot be known without waiting, is."""
        if snapshot.revision == caller.revision:
            return True
        found = self._standing.remains(caller, snapshot, waits=waits)
        return not waits if found is None else found

    def _is_trusted(self, address: str, snapshot: Snapshot) -> bool:
        return self._trust.loopback and not snapshot.contracts and is_loopback(address)


class _Watch:
    """The newest snapshot, asked for as often as the watch looks and not for each association."""

    def __init__(self, snapshots: Snapshots, look_again_s: float) -> None:
        self._snapshots = snapshots
        self._look_again_s = look_again_s
        self._newest: Snapshot | None = None
        self._looked_s = 0.0

    def snapshot(self) -> Snapshot:
        """A snapshot that is not older than half a look. Raises ``RecordsFailed``."""
        now_s = time.monotonic()
        newest = self._newest
        if newest is None or now_s - self._looked_s >= self._look_again_s:
            newest = self._newest = self._snapshots.newest()
            self._looked_s = now_s
        return newest


def _came_by_trust(caller: Caller) -> bool:
    """Tell whether nothing but loopback let a caller in."""
    return caller.subscriber == LOCAL and not caller.known_device and not caller.user


def _why_not(contract: Contract) -> str:
    return f"the contract of {contract.subscriber} is {contract.state.value} or not in its time"


def _with(caller: Caller, terms: Terms, snapshot: Snapshot, *, by_default: bool) -> Caller:
    return replace(
        caller,
        rights=terms.rights,
        visibility=terms.visibility,
        purpose=terms.purpose,
        purpose_by_default=by_default,
        destinations=terms.destinations,
        max_matrix=terms.max_matrix,
        revision=snapshot.revision,
    )
