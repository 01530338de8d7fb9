"""Who may associate: application context, limits, called AE title, then the gate. PS3.8 Section 9.3.4.

Owns the reasons of A-ASSOCIATE-RJ. Refuses to know what is negotiated; who a
caller is, the ``Gate`` decides.
"""

import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Final

from pynetdicom.pdu_primitives import A_ASSOCIATE, UserIdentityNegotiation

from config.settings import Settings
from pacs.association.limits import Occupancy
from pacs.association.message import Services
from pacs.core.caller import Caller, Candidate, Refusal
from pacs.core.contract import ENROL
from pacs.core.errors import AdmissionRefused, RecordsFailed
from pacs.core.identifiers import AETitle, SOPClassUID, is_ae_title
from pacs.core.ports import AuditTrail, Gate, Spool

LOGGER = logging.getLogger("pacs.association")

APPLICATION_CONTEXT: Final = "1.2.840.10008.3.1.1.1"
IDENTITY_REFUSED: Final = (1, 1, 1)
CONTEXT_UNSUPPORTED: Final = (1, 1, 2)
CALLING_UNRECOGNIZED: Final = (1, 1, 3)
CALLED_UNRECOGNIZED: Final = (1, 1, 7)
NOT_NOW: Final = (2, 1, 1)
CONGESTION: Final = (2, 3, 1)
LIMIT_EXCEEDED: Final = (2, 3, 2)
"""Result, source and reason of A-ASSOCIATE-RJ, PS3.8 Table 9-21."""
ANSWERS: Final[Mapping[Refusal, tuple[int, int, int]]] = {
    Refusal.DEVICE: CALLING_UNRECOGNIZED,
    Refusal.CALLED: CALLED_UNRECOGNIZED,
    Refusal.IDENTITY: IDENTITY_REFUSED,
    Refusal.LATER: NOT_NOW,
}
MOST_CLASSES: Final = 128
"""Presentation contexts one association can have: their ids are odd and fit a byte (PS3.8 Section 9.3.2.2)."""
_NAMED: Final = frozenset({1, 2})
"""User-Identity-Types whose primary field is a user name, PS3.7 Table D.3-14."""
_SHOWN: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What every association of one server shares.

    ``answers_to`` tells further AE titles that peers may call us by, as of now.
    """

    settings: Settings
    gate: Gate
    spool: Spool
    services: Services
    audit: AuditTrail
    occupancy: Occupancy
    answers_to: Callable[[AETitle], bool] = lambda _: False


class Rejected(Exception):
    """The association is rejected; ``answer`` is result, source and reason, ``cause`` for the audit trail."""

    def __init__(self, answer: tuple[int, int, int], cause: str = "") -> None:
        super().__init__("/".join(map(str, answer)))
        self.answer = answer
        self.cause = cause


def candidate_of(
    request: A_ASSOCIATE, titles: tuple[str, str], address: str, port: int
) -> Candidate:
    """Describe the peer as it presents itself; ``titles`` are called and calling."""
    identities = (
        one for one in request.user_information if isinstance(one, UserIdentityNegotiation)
    )
    identity = next(identities, None)
    return Candidate(
        calling_ae_title=AETitle(titles[1]),
        called_ae_title=AETitle(titles[0]),
        address=address,
        port=port,
        sop_classes=_proposed(request),
        user_identity_type=None if identity is None else identity.user_identity_type,
        user_identity=b"" if identity is None else identity.primary_field or b"",
        user_passcode=b"" if identity is None else identity.secondary_field or b"",
    )


def _proposed(request: A_ASSOCIATE) -> tuple[SOPClassUID, ...]:
    contexts = request.presentation_context_definition_list[:MOST_CLASSES]
    return tuple(dict.fromkeys(SOPClassUID(str(one.abstract_syntax)) for one in contexts))


def _claimed(candidate: Candidate) -> dict[str, str]:
    """The user a candidate says it is, for the audit trail; what may be an enrolment code is left out."""
    if candidate.user_identity_type not in _NAMED:
        return {}
    name = candidate.user_identity.decode("utf-8", "replace")
    return {"user": ENROL if name.startswith(f"{ENROL}:") else name[:_SHOWN]}


def admit(
    request: A_ASSOCIATE, candidate: Candidate, *, host: Host, stack: ExitStack, association: str
) -> Caller:
    """Resolve who asks, and count the association until ``stack`` is closed. Raises ``Rejected``."""
    try:
        caller = _admitted(request, candidate, host=host, stack=stack)
    except Rejected as rejected:
        LOGGER.info("association-refused association=%s answer=%s", association, rejected)
        host.audit.record(
            "association-refused",
            None,
            association=association,
            calling_ae_title=candidate.calling_ae_title,
            called_ae_title=candidate.called_ae_title,
            address=candidate.address,
            answer=str(rejected),
            cause=rejected.cause,
            **_claimed(candidate),
        )
        raise
    caller = replace(
        caller,
        association=association,
        ae_title=candidate.calling_ae_title,
        address=candidate.address,
    )
    host.audit.record(
        "association",
        caller,
        association=association,
        calling_ae_title=candidate.calling_ae_title,
        called_ae_title=candidate.called_ae_title,
        address=candidate.address,
        **({"user": caller.user} if caller.user else {}),
    )
    return caller


def _admitted(
    request: A_ASSOCIATE, candidate: Candidate, *, host: Host, stack: ExitStack
) -> Caller:
    if str(request.application_context_name) != APPLICATION_CONTEXT:
        raise Rejected(CONTEXT_UNSUPPORTED, "application context")
    if not host.occupancy.associate(candidate.address):
        raise Rejected(LIMIT_EXCEEDED, "too many associations")
    stack.callback(host.occupancy.leave, candidate.address)
    if not is_ae_title(candidate.called_ae_title) or not _called_us(candidate, host):
        raise Rejected(CALLED_UNRECOGNIZED, "called AE title")
    if not is_ae_title(candidate.calling_ae_title):
        raise Rejected(CALLING_UNRECOGNIZED, "calling AE title")
    try:
        return host.gate.admit(candidate)
    except AdmissionRefused as refused:
        raise Rejected(ANSWERS[refused.refusal], str(refused)) from None
    except Exception as failure:  # noqa: BLE001 - a gate that cannot decide lets nobody in
        LOGGER.error("gate-failed kind=%s", type(failure).__name__)
        raise Rejected(CONGESTION, "the gate failed") from None


def _called_us(candidate: Candidate, host: Host) -> bool:
    """Tell whether the called AE title is one of ours. Raises ``Rejected`` where that cannot be known now."""
    dicom, called = host.settings.dicom, candidate.called_ae_title
    if dicom.any_called_ae_title or called == dicom.ae_title.strip():
        return True
    try:
        return host.answers_to(called)
    except RecordsFailed as failure:
        LOGGER.error("called-ae-title-unknown kind=%s", type(failure).__name__)
        raise Rejected(CONGESTION, "the database does not answer") from None
