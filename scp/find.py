"""Query/Retrieve SCP, C-FIND. DICOM PS3.4 Section C.4.1, PS3.7 Section 9.1.2.

Turns one C-FIND request into one question to ``Find``, and its answers into
Pending responses. It decides nothing about what matches.
"""

from collections.abc import Iterator

from pacs.association.message import Offer, Operation, Request, Response
from pacs.core.caller import Right
from pacs.core.errors import IdentifierInvalid, RecordsFailed, TooManyMatches
from pacs.services.find import Find
from pacs.services.find.identifiers import QUERY_RETRIEVE_LEVEL, Model, Negotiated, Question
from scp.service_class import ServiceClass

PATIENT_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.1.1"
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
_MODELS = {PATIENT_ROOT_FIND: Model.PATIENT_ROOT, STUDY_ROOT_FIND: Model.STUDY_ROOT}
_TRANSFER_SYNTAXES = (
    "1.2.840.10008.1.2.1",  # Explicit VR Little Endian
    "1.2.840.10008.1.2",  # Implicit VR Little Endian
    "1.2.840.10008.1.2.2",  # Explicit VR Big Endian
    "1.2.840.10008.1.2.1.99",  # Deflated Explicit VR Little Endian
)
PENDING, PENDING_WITH_WARNING = 0xFF00, 0xFF01  # PS3.4 Table C.4-1
SUCCESS, CANCELLED = 0x0000, 0xFE00

# PS3.4 Table C.5-1: relational queries, combined date-time, fuzzy person names and timezone
# adjustment are taken when asked for; enhanced multi-frame conversion is not.
_ACCEPTED = bytes((1, 1, 1, 1, 0))


def application_information(asked: bytes) -> bytes:
    """Answer a requester's application information byte by byte, with no more bytes than it sent."""
    return bytes(ours if theirs == 1 else 0 for ours, theirs in zip(_ACCEPTED, asked, strict=False))


def negotiated(information: bytes) -> Negotiated:
    """Read what was accepted; bytes that were not sent are 0."""
    taken = [one == 1 for one in information[:4].ljust(4, b"\0")]
    return Negotiated(
        relational=taken[0],
        combined_date_time=taken[1],
        fuzzy_names=taken[2],
        timezone=taken[3],
    )


def service_class(find: Find) -> ServiceClass:
    """Attach the query service in both information models."""

    def handle(request: Request) -> Iterator[Response]:
        return answer_find(request, find)

    return ServiceClass(
        name="Query",
        standard="PS3.4 Annex C",
        offers=(
            Offer(
                sop_classes={
                    PATIENT_ROOT_FIND: "Patient Root Query/Retrieve Information Model - FIND",
                    STUDY_ROOT_FIND: "Study Root Query/Retrieve Information Model - FIND",
                },
                transfer_syntaxes=_TRANSFER_SYNTAXES,
                extended=application_information,
            ),
        ),
        operations={Operation.C_FIND: handle},
        rights={Operation.C_FIND: Right.QUERY},
        statuses={  # PS3.4 Table C.4-1
            TooManyMatches: 0xA700,  # Refused: Out of Resources
            IdentifierInvalid: 0xA900,  # Identifier does not match SOP Class
            RecordsFailed: 0xC001,  # Unable to process
        },
    )


def answer_find(request: Request, find: Find) -> Iterator[Response]:
    """Answer one C-FIND: a Pending response per match, then Success, or Cancel as soon as asked."""
    if request.identifier is None:
        raise IdentifierInvalid(offending_elements=(QUERY_RETRIEVE_LEVEL,))
    question = Question(
        model=_MODELS[request.sop_class_uid],
        identifier=request.identifier,
        negotiated=negotiated(request.association.negotiated(request.sop_class_uid)),
    )
    for one in find.search(request.caller, question, request.cancelled):
        if request.cancelled():
            break
        pending = PENDING if one.all_keys_supported else PENDING_WITH_WARNING
        yield Response(status=pending, identifier=one.identifier, more_at_once=one.more_at_once)
    yield Response(status=CANCELLED if request.cancelled() else SUCCESS)
