"""Devices that introduce themselves: codes, the pending contracts they make, and taking one in.

A code opens nothing. Who knows one gets a contract that grants nothing until an
admin accepts it.
"""

import hashlib
import hmac
import ipaddress
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from pacs.core.caller import Caller, Candidate, Right, SubscriberName
from pacs.core.contract import Contract, ContractState
from pacs.core.contract_ports import ContractReads, Enrolled, EnrolmentCode, Proposal
from pacs.core.errors import EntryConflicts, EntryNotFound
from pacs.core.identifiers import AETitle, is_ae_title
from pacs.core.records import Peer
from pacs.services.subscriber.checks import LONGEST_NAME, RESERVED, check_name
from pacs.services.subscriber.contracts import check_free, rights_said
from pacs.services.subscriber.desk import Change, Desk

PORT: Final = 104
PORT_TLS: Final = 2_762
"""Where an enrolled device is called until an admin says otherwise: DICOM's well-known ports (PS3.8 9.1.1)."""
_ALPHABET: Final = "23456789ABCDEFGHJKMNPQRSTVWXYZ"  # nothing that is read for another
_CHARACTERS: Final = 20  # 98 bits: a digest of it needs no slow hash
_GROUP: Final = 5
_LONGEST_CODE_BYTES: Final = 256
_MOST_USES: Final = 10_000
_MOST_SOP_CLASSES: Final = 128  # presentation contexts of one association, PS3.8 9.3.2.2
_LONGEST_SUBJECT: Final = 256
_UNSAYABLE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCode:
    """A code as it is told once, and its number."""

    number: int
    code: str


class Enrolment:
    """What an admin does with codes and pending contracts; ``pacs.core.contract.Enrolments``."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def codes(self, caller: Caller) -> Sequence[EnrolmentCode]:
        """All codes, oldest first."""
        return self._desk.rows.codes()

    def add_code(
        self, caller: Caller, *, rights: frozenset[Right], until_utc: datetime | None, uses: int
    ) -> NewCode:
        """Make a code; it is told here and never again. Raises ``EntryConflicts``."""
        said = rights_said(rights)
        if not 1 <= uses <= _MOST_USES:
            raise EntryConflicts(f"a code is used 1 to {_MOST_USES} times")
        code = _new_code()
        with self._desk.rows.change() as unit:
            if len(unit.codes()) >= self._desk.bounds.max_codes:
                raise EntryConflicts(
                    f"there are {self._desk.bounds.max_codes} codes already (subscriber.max_codes)"
                )
            number = unit.add_code(
                digest=_digest(code.encode()), rights=rights, until_utc=until_utc, uses=uses
            )
        self._desk.record(
            "enrolment-code-changed", caller, code=number, change=f"added, {said}, {uses} uses"
        )
        return NewCode(number=number, code=code)

    def remove_code(self, caller: Caller, number: int) -> None:
        """Forget a code; devices that wait by it still do. Raises ``EntryNotFound``."""
        with self._desk.rows.change() as unit:
            if not unit.remove_code(number):
                raise EntryNotFound(f"no enrolment code has the number {number}")
        self._desk.record("enrolment-code-changed", caller, code=number, change="removed")

    def accept(
        self, caller: Caller, name: str, *, rights: frozenset[Right] | None, new_name: str = ""
    ) -> Contract:
        """Let a pending contract hold, with these rights or those it was promised.

        Raises ``EntryNotFound``, ``EntryConflicts``.
        """
        with self._desk.change(caller, event="contract-changed") as change:
            contract = change.get(name)
            if contract.state is not ContractState.PENDING:
                raise EntryConflicts(f"{name} is {contract.state.value}, not pending")
            if new_name and new_name != name:
                contract = _renamed(change, contract, new_name)
            accepted = replace(
                contract,
                state=ContractState.ACTIVE,
                rights=contract.rights if rights is None else rights,
            )
            change.put(accepted)
            before = "" if accepted.subscriber == name else f", was {name}"
            change.note(
                accepted.subscriber, f"accepted with {rights_said(accepted.rights)}{before}"
            )
        return accepted

    def enrol(self, code: bytes, candidate: Candidate) -> SubscriberName | None:
        """Make a pending contract for a device that knows a code; see ``Enrolments``."""
        digest = _digest(code)
        kept = _matching(self._desk.rows, digest)
        if kept is None or not is_ae_title(candidate.calling_ae_title) or not _address(candidate):
            return None
        title = AETitle(candidate.calling_ae_title.strip())
        # Strangers with some code, and devices that wait, cost a look and no change.
        if self._desk.rows.peer(title) is not None:
            return _known(self._desk.rows, title, kept, candidate)
        if not _is_open(kept) or not self._has_room(self._desk.rows, kept):
            return None
        who = f"{title} at {_address(candidate)}"
        with self._desk.change(None, event="contract-enrolled", who=who) as change:
            return self._made(change, digest, title, candidate)

    def _made(
        self, change: Change, digest: str, title: AETitle, candidate: Candidate
    ) -> SubscriberName | None:
        """Make it, unless somebody else was quicker than we were."""
        unit = change.unit
        kept = _matching(unit, digest)
        if kept is None:
            return None
        if unit.peer(title) is not None:
            return _known(unit, title, kept, candidate)
        if not _is_open(kept) or not self._has_room(unit, kept):
            return None
        name = _free_name(unit, title)
        change.put(
            Contract(
                subscriber=name,
                state=ContractState.PENDING,
                issuer_of_patient_id=name,
                rights=kept.rights,
            )
        )
        unit.put_peer(_peer(name, title, candidate))
        unit.enrol(Enrolled(subscriber=name, code=kept.id, proposal=_proposal(title, candidate)))
        change.note(name, f"enrolled itself as {title} at {_address(candidate)} by code {kept.id}")
        return name

    def _has_room(self, unit: ContractReads, kept: EnrolmentCode) -> bool:
        bounds, waiting = self._desk.bounds, unit.pending()
        return (
            len(waiting) < bounds.max_pending
            and waiting.count(kept.id) < bounds.max_pending_per_code
            and unit.count() < bounds.max_subscribers
        )


def _new_code() -> str:
    letters = "".join(secrets.choice(_ALPHABET) for _ in range(_CHARACTERS))
    return "-".join(letters[at : at + _GROUP] for at in range(0, _CHARACTERS, _GROUP))


def _digest(code: bytes) -> str:
    """Of the code as it is meant: case, dashes and blanks are lost on a console's keyboard."""
    plain = re.sub(rb"[\s-]", b"", code[:_LONGEST_CODE_BYTES]).upper()
    return hashlib.sha256(plain).hexdigest()


def _matching(rows: ContractReads, digest: str) -> EnrolmentCode | None:
    """The code of that digest. Every one is compared, each in the same time."""
    alike = [one for one in rows.codes() if hmac.compare_digest(one.digest, digest)]
    return alike[0] if alike else None


def _is_open(kept: EnrolmentCode) -> bool:
    return kept.uses_left > 0 and (kept.until_utc is None or datetime.now(UTC) < kept.until_utc)


def _known(
    rows: ContractReads, title: AETitle, kept: EnrolmentCode, candidate: Candidate
) -> SubscriberName | None:
    """The name of the contract this very device came by, if it did."""
    peer = rows.peer(title)
    if peer is None or peer.subscriber is None:
        return None
    enrolled = rows.enrolled(peer.subscriber)
    if enrolled is None or enrolled.code != kept.id or enrolled.proposal.ae_title != title:
        return None
    came = enrolled.proposal
    then = came.certificate.fingerprint if came.certificate else ""
    now = candidate.certificate.fingerprint if candidate.certificate else ""
    return peer.subscriber if (came.address, then) == (_address(candidate), now) else None


def _address(candidate: Candidate) -> str:
    """Where it comes from, in one form: without a zone, an IPv4 address never as an IPv6 one."""
    try:
        parsed = ipaddress.ip_address(candidate.address.partition("%")[0])
    except ValueError:
        return ""
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)


def _peer(name: SubscriberName, title: AETitle, candidate: Candidate) -> Peer:
    address = _address(candidate)
    return Peer(
        ae_title=title,
        host=address,
        port=PORT_TLS if candidate.tls else PORT,
        tls=candidate.tls,
        subscriber=name,
        networks=(str(ipaddress.ip_network(address)),),
        certificate_fingerprint=candidate.certificate.fingerprint if candidate.certificate else "",
    )


def _proposal(title: AETitle, candidate: Candidate) -> Proposal:
    shown = candidate.certificate
    return Proposal(
        ae_title=title,
        called_ae_title=candidate.called_ae_title,
        address=_address(candidate),
        tls=candidate.tls,
        certificate=shown and replace(shown, subject=shown.subject[:_LONGEST_SUBJECT]),
        sop_classes=tuple(dict.fromkeys(candidate.sop_classes))[:_MOST_SOP_CLASSES],
        at_utc=datetime.now(UTC),
    )


def _free_name(rows: ContractReads, title: AETitle) -> SubscriberName:
    """A name that nobody has and under which nothing is held: whose images they were is not asked here."""
    base = _UNSAYABLE.sub("-", title).strip("-._")[: LONGEST_NAME - 12] or "device"
    number = 1
    while True:
        name = base if number == 1 else f"{base}-{number}"
        taken = (
            name.lower() in RESERVED
            or rows.namesake(name) is not None
            or rows.grantees(name)
            or rows.holds_images(name)
        )
        if not taken:
            return SubscriberName(name)
        number += 1


def _renamed(change: Change, contract: Contract, new_name: str) -> Contract:
    old, new = contract.subscriber, SubscriberName(new_name)
    check_name(new_name)
    if new.lower() != old.lower():
        check_free(change, new_name)
    if change.unit.holds_images(old):
        raise EntryConflicts(f"images are held under {old}: it keeps its name")
    change.unit.rename(old, new)
    issuer = new if contract.issuer_of_patient_id == old else contract.issuer_of_patient_id
    return replace(contract, subscriber=new, issuer_of_patient_id=issuer)
