"""What whoever made a workitem may do now: the contract as it stands, not as it stood when it was made.

Between the request and its end there may be days. Refuses to know what is asked.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from pacs.core.caller import Caller, Right, Visibility
from pacs.core.creator import Creator, is_admin
from pacs.core.errors import NotAuthorized, ProcessingRefused
from pacs.core.identifiers import AETitle, Registrant
from pacs.core.records import Snapshot
from pacs.services.gate import LOCAL, resolved

__all__ = ["Creator", "is_admin", "require_destinations", "standing"]


def standing(creator: Creator, snapshot: Snapshot, now_utc: datetime) -> Caller:
    """Give the creator as its contract stands now. Raises ``NotAuthorized`` without the right to process."""
    bare = creator.named()
    if creator.is_admin:
        return _everything(bare, Visibility(everything=True))
    if bare.subscriber == LOCAL:
        if snapshot.contracts:  # it has rights for as long as there is none
            raise NotAuthorized("loopback is no longer trusted")
        return _everything(bare, Visibility(registrants=frozenset({Registrant(LOCAL)})))
    contract = snapshot.contracts.get(bare.subscriber)
    if contract is None:
        raise NotAuthorized(f"{bare.subscriber} has no contract")
    terms = resolved(contract, snapshot, bare.stated_purpose, now_utc)
    if Right.PROCESS not in terms.rights:
        raise NotAuthorized(f"{bare.subscriber} has no right to process")
    return replace(
        bare,
        rights=terms.rights,
        visibility=terms.visibility,
        purpose=terms.purpose,
        destinations=terms.destinations,
        max_matrix=terms.max_matrix,
    )


def owners_purposes(
    registrants: Iterable[Registrant], snapshot: Snapshot, now_utc: datetime
) -> Mapping[Registrant, str]:
    """Give the purpose under which each registrant's own images are processed here, at the machine.

    The contract of whose images they are must grant it, once there is any contract; before, this
    machine is trusted, and for what was stored then it stays so: nobody's contract could grant it.
    Raises ``NotAuthorized``.
    """
    purposes: dict[Registrant, str] = {}
    for one in registrants:
        try:
            trusted = str(one) == LOCAL or not snapshot.contracts
            creator = Creator(subscriber=one)
            purposes[one] = "" if trusted else standing(creator, snapshot, now_utc).purpose
        except NotAuthorized as error:
            raise NotAuthorized(f"images of {one} are not processed: {error}") from error
    return purposes


def _everything(bare: Caller, visibility: Visibility) -> Caller:
    return replace(bare, rights=frozenset(Right) - {Right.ADMINISTER}, visibility=visibility)


def require_destinations(
    caller: Caller, destinations: Sequence[AETitle], snapshot: Snapshot, now_utc: datetime
) -> None:
    """Refuse what C-MOVE would refuse: a right to process alone has nothing delivered to anybody.

    A destination that the caller may not have images sent to is refused in the same words as an
    unknown one. Raises ``ProcessingRefused``.
    """
    if destinations and Right.RECEIVE not in caller.rights:
        raise ProcessingRefused("nothing is sent: the contract grants no delivery")
    for one in destinations:
        peer = snapshot.peers.get(one)
        allowed = caller.destinations is None or one in caller.destinations
        if peer is None or not allowed or not snapshot.may_receive(peer, now_utc):
            raise ProcessingRefused(f"nothing is sent to {one}: no such destination")
