"""What we accept of what a peer proposes: contexts, roles, extended negotiation. PS3.7 Annex D.3.

Owns the choice of transfer syntax and roles, as pure functions of the proposal
and the offers. Refuses to decide who may associate.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pynetdicom.service_class import ServiceClass, StorageServiceClass
from pynetdicom.sop_class import uid_to_service_class

from pacs.association.message import Offer
from pacs.core.caller import Caller
from pacs.core.identifiers import is_uid

ACCEPTED: Final = 0
USER_REJECTION: Final = 1
ABSTRACT_SYNTAX_UNSUPPORTED: Final = 3
TRANSFER_SYNTAXES_UNSUPPORTED: Final = 4
"""Results of a presentation context, PS3.8 Table 9-18."""

_DICOM_ROOT = "1.2.840.10008."
_STORAGE_ARC = "1.2.840.10008.5.1.4.1.1."
_SYNTAX = "1.2.840.10008.1.2"

GROUPS: Final[Mapping[str, str]] = {  # PS3.5 Section 10 and Annex A
    f"{_SYNTAX}.1": "explicit-little",
    f"{_SYNTAX}.1.98": "lossless",  # Encapsulated Uncompressed
    f"{_SYNTAX}.4.57": "lossless",  # JPEG Lossless, process 14
    f"{_SYNTAX}.4.70": "lossless",  # the same, selection value 1
    f"{_SYNTAX}.4.80": "lossless",  # JPEG-LS Lossless
    f"{_SYNTAX}.4.90": "lossless",  # JPEG 2000 Lossless Only
    f"{_SYNTAX}.4.92": "lossless",  # JPEG 2000 Part 2 Lossless Only
    f"{_SYNTAX}.4.201": "lossless",  # HTJ2K Lossless Only
    f"{_SYNTAX}.4.202": "lossless",  # HTJ2K Lossless RPCL
    f"{_SYNTAX}.5": "lossless",  # RLE
    f"{_SYNTAX}.8.1": "lossless",  # Deflated Image Frame
    f"{_SYNTAX}.1.99": "deflated",
    _SYNTAX: "implicit",
    f"{_SYNTAX}.2": "big-endian",
}
LOSSY: Final = "lossy"
"""The group of every other syntax: lossy ones, referenced pixel data, private and unknown ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposed:
    """One proposed presentation context."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreed:
    """Our answer to one proposed context. The syntax has meaning only where it is accepted."""

    context_id: int
    abstract_syntax: str
    result: int
    transfer_syntax: str
    as_scp: bool = True
    as_scu: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """SCP/SCU Role Selection, from the requestor's side (PS3.7 D.3.3.4)."""

    scu: bool
    scp: bool


_RECEIVES_ONLY: Final = Roles(scu=False, scp=True)
"""The requestor of a C-GET takes the SCP role, PS3.4 Section C.5.3."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """All contexts, in the order proposed, and the role items to answer with."""

    contexts: tuple[Agreed, ...]
    roles: Mapping[str, Roles]

    @property
    def accepted(self) -> Mapping[int, Agreed]:
        """The accepted contexts by id."""
        return {one.context_id: one for one in self.contexts if one.result == ACCEPTED}


def may_be_storage(sop_class_uid: str) -> bool:
    """Tell whether a SOP Class nobody lists can be one of Storage.

    Yes for Storage SOP Classes pynetdicom knows, for private ones, and for
    ones below the standard's storage arc that it does not know at all; a known
    class of another service (Print, MPPS …) is never taken for storage.
    """
    if not is_uid(sop_class_uid):
        return False
    known = uid_to_service_class(sop_class_uid)
    if known is StorageServiceClass:
        return True
    if not sop_class_uid.startswith(_DICOM_ROOT):
        return True
    return known is ServiceClass and sop_class_uid.startswith(_STORAGE_ARC)


def offers_for(sop_class_uid: str, offers: Iterable[Offer]) -> tuple[Offer, ...]:
    """Find the offers for a SOP Class: those that list it, else those for any other class."""
    every = tuple(offers)
    listed = tuple(one for one in every if sop_class_uid in one.sop_classes)
    if listed or not may_be_storage(sop_class_uid):
        return listed
    return tuple(one for one in every if one.any_other_class)


def choose_syntax(
    proposed: Sequence[str], acceptable: frozenset[str] | None, order: Sequence[str]
) -> str | None:
    """Choose by our order of groups, within a group by the requestor's; ``None`` if none fits.

    ``acceptable`` of ``None`` is every syntax. Groups that ``order`` leaves
    out come after the others.
    """
    fitting = [one for one in proposed if acceptable is None or one in acceptable]
    if not fitting:
        return None
    rank = {group: place for place, group in enumerate(order)}
    return min(fitting, key=lambda one: rank.get(GROUPS.get(one, LOSSY), len(rank)))


def negotiate(
    proposed: Iterable[Proposed],
    roles: Mapping[str, Roles],
    *,
    offers: Sequence[Offer],
    order: Sequence[str],
    caller: Caller | None = None,
) -> Agreement:
    """Answer a proposal. Source: PS3.8 Section 9.3.3.2, PS3.7 D.3.3.4.

    What an offer prefers for ``caller`` goes before ``order`` where it only receives from us.
    """
    answers: dict[str, Roles] = {}
    contexts = []
    for one in proposed:
        matching = offers_for(one.abstract_syntax, offers)
        asked = roles.get(one.abstract_syntax)
        agreed_roles = _roles(asked, matching) if matching else None
        if (
            agreed_roles is not None
            and asked is not None
            and any((agreed_roles.scu, agreed_roles.scp))
        ):
            answers[one.abstract_syntax] = agreed_roles
        wanted: tuple[str, ...] = ()
        if caller is not None and agreed_roles == _RECEIVES_ONLY:
            wanted = _preferred(one.abstract_syntax, matching, caller)
        contexts.append(_agreed(one, matching, roles=agreed_roles, order=(wanted, order)))
    return Agreement(contexts=tuple(contexts), roles=answers)


def _roles(asked: Roles | None, offers: tuple[Offer, ...]) -> Roles:
    if asked is None or not (asked.scu or asked.scp):
        return Roles(scu=True, scp=False)
    return Roles(scu=asked.scu, scp=asked.scp and any(one.scu_role for one in offers))


def _agreed(
    proposed: Proposed,
    offers: tuple[Offer, ...],
    *,
    roles: Roles | None,
    order: tuple[Sequence[str], Sequence[str]],
) -> Agreed:
    wanted, groups = order
    result, syntax = ABSTRACT_SYNTAX_UNSUPPORTED, None
    if roles is not None:
        preferred = (one for one in wanted if one in proposed.transfer_syntaxes)
        syntax = next(preferred, None) or choose_syntax(
            proposed.transfer_syntaxes, _acceptable(offers), groups
        )
        result = TRANSFER_SYNTAXES_UNSUPPORTED if syntax is None else ACCEPTED
        if not (roles.scu or roles.scp):
            result = USER_REJECTION
    return Agreed(
        context_id=proposed.context_id,
        abstract_syntax=proposed.abstract_syntax,
        result=result,
        transfer_syntax=syntax or next(iter(proposed.transfer_syntaxes), _SYNTAX),
        as_scp=roles is not None and roles.scu,
        as_scu=roles is not None and roles.scp,
    )


def _preferred(sop_class_uid: str, offers: tuple[Offer, ...], caller: Caller) -> tuple[str, ...]:
    acceptable = _acceptable(offers)
    return tuple(
        syntax
        for offer in offers
        if offer.preferred is not None
        for syntax in offer.preferred(caller, sop_class_uid)
        if acceptable is None or syntax in acceptable
    )


def _acceptable(offers: tuple[Offer, ...]) -> frozenset[str] | None:
    if any(not one.transfer_syntaxes for one in offers):
        return None
    return frozenset(syntax for one in offers for syntax in one.transfer_syntaxes)


def answer_extended(
    asked: Mapping[str, bytes], accepted_classes: frozenset[str], offers: Sequence[Offer]
) -> dict[str, bytes]:
    """Answer SOP Class Extended Negotiation of accepted classes. Source: PS3.7 D.3.3.5."""
    answers = {}
    for uid, information in asked.items():
        if uid not in accepted_classes:
            continue
        for offer in offers_for(uid, offers):
            if offer.extended is not None:
                answers[uid] = offer.extended(information)
                break
    return answers
