"""What a contract comes to for one request: rights, visibility, destinations and bounds.

One pure function of the contract, everybody's snapshot, the purpose and the time.
Refuses to know who asks.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from pacs.core.caller import Right, SubscriberName, Visibility
from pacs.core.contract import Agreement, Contract, Purpose
from pacs.core.errors import NotAuthorized
from pacs.core.identifiers import AETitle, Registrant, StudyInstanceUID
from pacs.core.records import Snapshot
from pacs.services.gate.loopback import LOCAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What holds for requests under one purpose; the fields are those of ``Caller``."""

    rights: frozenset[Right]
    visibility: Visibility
    purpose: str
    destinations: frozenset[AETitle]
    max_matrix: int | None


def resolved(contract: Contract, snapshot: Snapshot, purpose: str, now_utc: datetime) -> Terms:
    """Give the terms under ``purpose``, the contract's own where it is empty.

    Raises ``NotAuthorized`` where the contract does not hold or has no such purpose.
    """
    if not contract.holds(now_utc):
        raise NotAuthorized(f"the contract of {contract.subscriber} does not hold")
    bounds = _purpose(contract, purpose or contract.purpose)
    return Terms(
        rights=contract.rights.difference(_withheld(bounds)),
        visibility=_visibility(contract, snapshot, bounds),
        purpose=bounds.name,
        destinations=contract.destinations.union(_own_devices(contract, snapshot)),
        max_matrix=bounds.max_matrix,
    )


def _purpose(contract: Contract, name: str) -> Purpose:
    """The purpose of that name; one without bounds where none is meant."""
    if not name:
        return Purpose(name="")
    for one in contract.purposes:
        if one.name == name:
            return one
    raise NotAuthorized(f"the contract of {contract.subscriber} has no such purpose")


def _withheld(bounds: Purpose) -> Iterator[Right]:
    return (
        right
        for right, held in ((Right.PROCESS, bounds.process), (Right.REPORT, bounds.report))
        if not held
    )


def _visibility(contract: Contract, snapshot: Snapshot, bounds: Purpose) -> Visibility:
    """Own images, and others' by the agreements that hold under this purpose."""
    agreements = [one for one in contract.agreements if one.purpose in ("", bounds.name)]
    whole = [one.owner for one in agreements if one.study_instance_uid is None]
    return Visibility(
        everything=None in whole,
        registrants=frozenset(
            Registrant(owner) for owner in (contract.subscriber, *whole) if owner is not None
        ),
        studies=frozenset(study for one in agreements for study in _studies(one, snapshot)),
        modalities=bounds.modalities,
    )


def _studies(
    agreement: Agreement, snapshot: Snapshot
) -> Iterator[tuple[Registrant, StudyInstanceUID]]:
    """The study an agreement names; one without an owner names it for every registrant there is."""
    study = agreement.study_instance_uid
    if study is not None:
        owners: set[SubscriberName] = (
            {*snapshot.contracts, LOCAL} if agreement.owner is None else {agreement.owner}
        )
        for owner in owners:
            yield Registrant(owner), study


def _own_devices(contract: Contract, snapshot: Snapshot) -> Iterator[AETitle]:
    return (
        peer.ae_title for peer in snapshot.peers.values() if peer.subscriber == contract.subscriber
    )
