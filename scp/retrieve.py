"""Query/Retrieve SCP, C-MOVE and C-GET. DICOM PS3.4 Sections C.4.2 and C.4.3.

Turns an identifier into a selection, a selection's progress into responses.
It decides nothing about what is delivered or how it is encoded.
"""

import time
from collections.abc import Iterator, Mapping
from functools import partial

from pydicom.dataset import Dataset

from pacs.association.message import Offer, Operation, Request, Response
from pacs.core import errors
from pacs.core.caller import Right
from pacs.core.identifiers import AETitle
from pacs.core.records import Originator, Progress, Selection
from pacs.services.retrieve import Retrieve
from pacs.services.selection import selection_of
from scp.service_class import ServiceClass
from scp.status import NOT_AUTHORIZED

PATIENT_ROOT = ("1.2.840.10008.5.1.4.1.2.1.2", "1.2.840.10008.5.1.4.1.2.1.3")
STUDY_ROOT = ("1.2.840.10008.5.1.4.1.2.2.2", "1.2.840.10008.5.1.4.1.2.2.3")
_NAMES = {
    PATIENT_ROOT[0]: "Patient Root Query/Retrieve Information Model - MOVE",
    STUDY_ROOT[0]: "Study Root Query/Retrieve Information Model - MOVE",
    PATIENT_ROOT[1]: "Patient Root Query/Retrieve Information Model - GET",
    STUDY_ROOT[1]: "Study Root Query/Retrieve Information Model - GET",
}
_UNCOMPRESSED = (
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.2",
)
_PENDING, _SUCCESS, _CANCELLED = 0xFF00, 0x0000, 0xFE00
_SOME_FAILED = 0xB000  # Warning: Sub-operations complete, one or more failures
_ALL_FAILED = 0xA702  # Refused: Out of resources, unable to perform sub-operations
_COUNTER_LIMIT = 0xFFFF  # the counters are VR US
_UID_LIST_BYTES = 65_534  # a UI value's length has 16 bits in Explicit VR

STATUSES: Mapping[type[errors.PacsError], int] = {  # PS3.4 Tables C.4-2 and C.4-3
    errors.TooManyMatches: 0xA701,  # Refused: unable to calculate number of matches
    errors.RecordsFailed: 0xA701,
    errors.PeerUnreachable: 0xA702,  # Refused: unable to perform sub-operations
    errors.DestinationUnknown: 0xA801,  # Refused: Move Destination unknown
    errors.IdentifierInvalid: 0xA900,  # Error: Identifier does not match SOP Class
}


def relational_retrieval(application_information: bytes) -> bytes:
    """Accept relational retrieval where it is asked for. PS3.4 Section C.5.2.1, C.5.3.1."""
    return b"\x01" if application_information[:1] == b"\x01" else b"\x00"


def move(
    request: Request, retrieve: Retrieve, max_uids: int, pending_interval_s: float
) -> Iterator[Response]:
    """Answer one C-MOVE."""
    destination = AETitle(str(request.fields.get("MoveDestination", "")).strip())
    originator = Originator(ae_title=request.caller.ae_title, message_id=request.message_id)
    selection = _selection(request, max_uids)
    return _answers(
        retrieve.move(request.caller, selection, destination, originator, request.cancelled),
        pending_interval_s,
    )


def get(
    request: Request, retrieve: Retrieve, max_uids: int, pending_interval_s: float
) -> Iterator[Response]:
    """Answer one C-GET."""
    selection = _selection(request, max_uids)
    delivery = request.association.delivery()
    progress = retrieve.get(request.caller, selection, delivery, request.cancelled)
    return _answers(progress, pending_interval_s)


def _selection(request: Request, max_uids: int) -> Selection:
    return selection_of(
        request.identifier,
        patient_root=request.sop_class_uid in PATIENT_ROOT,
        relational=request.association.negotiated(request.sop_class_uid)[:1] == b"\x01",
        max_uids=max_uids,
    )


def _answers(progress: Iterator[Progress], pending_interval_s: float) -> Iterator[Response]:
    """One pending response after each sub-operation, the last one again while none ends, and the final one.

    The standard leaves the interval to us (PS3.4 Sections C.4.2.3.1, C.4.3.3.1); many peers
    give up after a minute without a word, and making what is sent next may take longer.
    """
    told = next(progress)  # untouched; what speaks against the request as a whole is raised here
    told_s = time.monotonic()
    for one in progress:
        if one.over:
            yield _response(_final_status(one), one, with_remaining=bool(one.remaining))
        elif one.remaining and (one != told or time.monotonic() >= told_s + pending_interval_s):
            told, told_s = one, time.monotonic()
            yield _response(_PENDING, one, with_remaining=True)


def _final_status(last: Progress) -> int:
    if last.refusal is not None:  # as the same request is answered from now on
        return STATUSES.get(type(last.refusal), NOT_AUTHORIZED)
    if last.remaining:
        return _CANCELLED
    if last.failed and not (last.completed or last.warning):
        return _ALL_FAILED
    return _SOME_FAILED if last.failed or last.warning else _SUCCESS


def _response(status: int, progress: Progress, *, with_remaining: bool) -> Response:
    return Response(
        status=status,
        identifier=None if status == _PENDING else _failed_list(progress),
        remaining=min(progress.remaining, _COUNTER_LIMIT) if with_remaining else None,
        completed=min(progress.completed, _COUNTER_LIMIT),
        failed=min(progress.failed, _COUNTER_LIMIT),
        warning=min(progress.warning, _COUNTER_LIMIT),
        comment="" if progress.refusal is None else progress.refusal.peer_comment,
    )


def _failed_list(progress: Progress) -> Dataset | None:
    """Failed SOP Instance UID List (0008,0058), as many as its length field can hold."""
    if not progress.failed_sop_instance_uids:
        return None
    room = _UID_LIST_BYTES
    listed = []
    for uid in progress.failed_sop_instance_uids:
        room -= len(uid) + 1
        if room < 0:
            break
        listed.append(uid)
    identifier = Dataset()
    identifier.FailedSOPInstanceUIDList = listed
    return identifier


def service_class(retrieve: Retrieve, *, max_uids: int, pending_interval_s: float) -> ServiceClass:
    """Attach the service: C-MOVE and C-GET in Patient Root and Study Root."""
    return ServiceClass(
        name="Query/Retrieve: retrieve",
        standard="PS3.4 Annex C",
        offers=(
            Offer(
                sop_classes=_NAMES,
                transfer_syntaxes=_UNCOMPRESSED,
                extended=relational_retrieval,
            ),
        ),
        operations={
            Operation.C_MOVE: partial(
                move,
                retrieve=retrieve,
                max_uids=max_uids,
                pending_interval_s=pending_interval_s,
            ),
            Operation.C_GET: partial(
                get, retrieve=retrieve, max_uids=max_uids, pending_interval_s=pending_interval_s
            ),
        },
        rights={Operation.C_MOVE: Right.RECEIVE, Operation.C_GET: Right.RECEIVE},
        statuses=STATUSES,
    )
