"""Unified Procedure Step SCP: Push, Pull, Watch, Event and Query. DICOM PS3.4 Annex CC.

Turns N-CREATE, N-SET, N-GET and C-FIND into calls on ``Workitems`` and their
outcomes into statuses; N-ACTION is in ``ups_actions``. It decides nothing about
states. Every workitem is an instance of UPS Push whichever of the SOP Classes was
negotiated (Section CC.3.1); what may be asked depends on that one.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from pydicom.dataset import Dataset

from pacs.association.message import Offer, Operation, Request, Response
from pacs.core import errors, workitem_errors
from pacs.core.caller import Right
from pacs.core.errors import IdentifierInvalid, OperationUnsupported, RecordsFailed
from pacs.core.workitem_errors import WorkitemError
from pacs.core.workitems import UPS_EVENT, UPS_PULL, UPS_PUSH, UPS_QUERY, UPS_WATCH
from pacs.services.workitems import Workitems
from scp.service_class import ServiceClass
from scp.status import CANCEL, PENDING, PENDING_WARNING, SUCCESS
from scp.ups_actions import act, named, text_of

SOP_CLASSES: Final[Mapping[str, str]] = {
    UPS_PUSH: "Unified Procedure Step - Push SOP Class",
    UPS_WATCH: "Unified Procedure Step - Watch SOP Class",
    UPS_PULL: "Unified Procedure Step - Pull SOP Class",
    UPS_EVENT: "Unified Procedure Step - Event SOP Class",
    UPS_QUERY: "Unified Procedure Step - Query SOP Class",
}
TRANSFER_SYNTAXES: Final = (
    "1.2.840.10008.1.2.1",  # Explicit VR Little Endian
    "1.2.840.10008.1.2",  # Implicit VR Little Endian
    "1.2.840.10008.1.2.2",  # Explicit VR Big Endian
    "1.2.840.10008.1.2.1.99",  # Deflated Explicit VR Little Endian
)
PROVIDED: Final[Mapping[Operation, frozenset[str]]] = {  # PS3.4 Tables CC.2-1 to CC.2-5
    Operation.C_FIND: frozenset({UPS_PULL, UPS_WATCH, UPS_QUERY}),
    Operation.N_GET: frozenset({UPS_PUSH, UPS_PULL, UPS_WATCH}),
    Operation.N_SET: frozenset({UPS_PULL}),
    Operation.N_ACTION: frozenset({UPS_PUSH, UPS_PULL, UPS_WATCH}),
    Operation.N_CREATE: frozenset({UPS_PUSH}),
}
STATUSES: Final[Mapping[type[errors.PacsError], int]] = {
    # PS3.4 Tables CC.2.1-2, CC.2.2-2, CC.2.3-3, CC.2.5-4, CC.2.6-1 and CC.2.7-1
    workitem_errors.NoLongerUpdated: 0xC300,
    workitem_errors.TransactionUIDWrong: 0xC301,
    workitem_errors.AlreadyInProgress: 0xC302,
    workitem_errors.NeverScheduledAgain: 0xC303,
    workitem_errors.FinalStateUnmet: 0xC304,
    workitem_errors.WorkitemUnknown: 0xC307,
    workitem_errors.ReceiverUnknown: 0xC308,
    workitem_errors.NotScheduledAtFirst: 0xC309,
    workitem_errors.NotInProgress: 0xC310,
    workitem_errors.AlreadyCompleted: 0xC311,
    workitem_errors.PerformerAway: 0xC312,
    workitem_errors.ActionUnfit: 0xC314,
    # PS3.7 Annex C
    workitem_errors.AttributeNotAllowed: 0x0105,  # No such attribute
    workitem_errors.AttributeValueInvalid: 0x0106,  # Invalid attribute value
    workitem_errors.WorkitemExists: 0x0111,  # Duplicate SOP Instance
    workitem_errors.ArgumentInvalid: 0x0115,  # Invalid argument value
    workitem_errors.WorkitemUIDInvalid: 0x0117,  # Invalid SOP Instance
    workitem_errors.AttributeMissing: 0x0120,  # Missing attribute
    workitem_errors.AttributeValueMissing: 0x0121,  # Missing attribute value
    workitem_errors.ActionUnknown: 0x0123,  # No such action type
    workitem_errors.WorkitemsFull: 0x0213,  # Resource limitation
    workitem_errors.WorkitemTooLarge: 0x0213,
    # PS3.4 Table CC.2.8-2
    errors.TooManyMatches: 0xA700,  # Refused: Out of Resources
    errors.IdentifierInvalid: 0xA900,  # Data Set does not match SOP Class
}
MEANINGS: Final[Mapping[int, str]] = {
    0xC300: "Failed: the UPS may no longer be updated",
    0xC301: "Failed: the correct Transaction UID was not provided",
    0xC302: "Failed: the UPS is already IN PROGRESS",
    0xC303: "Failed: the UPS may only become SCHEDULED via N-CREATE",
    0xC304: "Failed: final state requirements are not met",
    0xC307: "Failed: no such UPS instance is managed by this SCP",
    0xC308: "Failed: Receiving AE-TITLE is unknown to this SCP",
    0xC309: "Failed: the provided UPS state was not SCHEDULED",
    0xC310: "Failed: the UPS is not IN PROGRESS",
    0xC311: "Failed: the UPS is already COMPLETED",
    0xC312: "Failed: the performer cannot be contacted",
    0xC314: "Failed: action not appropriate for the instance",
}
CREATED_WITH_MODIFICATIONS: Final = 0xB300  # PS3.4 Table CC.2.5-4
OPTIONAL_NOT_SUPPORTED: Final = 0x0001  # PS3.4 Table CC.2.7-1
UNABLE_TO_PROCESS: Final = 0xC001  # PS3.4 Table CC.2.8-2
NO_SUCH_SOP_CLASS: Final = 0x0118
_TRANSACTION_UID: Final = 0x00081195

Answering = Callable[[Request, Workitems], Iterator[Response]]


def service_class(workitems: Workitems) -> ServiceClass:
    """Describe the service class."""
    handlers: Mapping[Operation, Answering] = {
        Operation.C_FIND: find,
        Operation.N_GET: get,
        Operation.N_SET: set_attributes,
        Operation.N_ACTION: act,
        Operation.N_CREATE: create,
    }
    return ServiceClass(
        name="Unified Procedure Step",
        standard="PS3.4 Annex CC",
        offers=(Offer(sop_classes=SOP_CLASSES, transfer_syntaxes=TRANSFER_SYNTAXES),),
        operations={one: _provided(handler, workitems) for one, handler in handlers.items()},
        rights=dict.fromkeys(handlers, Right.PROCESS),
        statuses=STATUSES,
        meanings=MEANINGS,
    )


def _provided(handler: Answering, workitems: Workitems) -> Callable[[Request], Iterator[Response]]:
    """Answer what the negotiated SOP Class provides; name the attributes that are at fault."""

    def handle(request: Request) -> Iterator[Response]:
        if request.context_uid not in PROVIDED[request.operation]:
            raise OperationUnsupported
        try:
            yield from handler(request, workitems)
        except WorkitemError as error:
            if not error.attributes:
                raise
            yield Response(
                status=STATUSES[type(error)],
                comment=error.peer_comment,
                fields={"AttributeIdentifierList": error.attributes},
            )

    return handle


def create(request: Request, workitems: Workitems) -> Iterator[Response]:
    """Answer one N-CREATE; the Attribute List of the answer is what is kept otherwise than sent."""
    if request.sop_class_uid != UPS_PUSH:
        yield Response(status=NO_SUCH_SOP_CLASS, comment="Workitems are instances of UPS Push")
        return
    uid = str(request.fields.get("AffectedSOPInstanceUID") or "")
    made = workitems.create(request.caller, uid, request.identifier or Dataset())
    yield Response(
        status=CREATED_WITH_MODIFICATIONS if made.adjusted else SUCCESS,
        identifier=made.changes if made.adjusted else None,
        fields={"AffectedSOPInstanceUID": made.uid},
    )


def set_attributes(request: Request, workitems: Workitems) -> Iterator[Response]:
    """Answer one N-SET."""
    modifications = request.identifier or Dataset()
    transaction_uid = text_of(modifications, "TransactionUID")
    workitems.modify(request.caller, named(request), transaction_uid, modifications)
    yield Response(status=SUCCESS)


def get(request: Request, workitems: Workitems) -> Iterator[Response]:
    """Answer one N-GET: what is asked for, everything where nothing is named."""
    held = workitems.get(request.caller, named(request))
    asked = request.fields.get("AttributeIdentifierList")
    if not isinstance(asked, tuple) or not asked:
        yield Response(status=SUCCESS, identifier=held)
        return
    wanted = {int(one) for one in asked} - {_TRANSACTION_UID}
    there = Dataset()
    for tag in sorted(wanted):
        if tag in held:
            there[tag] = held[tag]
    if "SpecificCharacterSet" in held:
        there.SpecificCharacterSet = held.SpecificCharacterSet
    missing = any(tag not in held for tag in map(int, asked))
    yield Response(status=OPTIONAL_NOT_SUPPORTED if missing else SUCCESS, identifier=there)


def find(request: Request, workitems: Workitems) -> Iterator[Response]:
    """Answer one C-FIND: a Pending response per match, then Success, or Cancel as soon as asked."""
    if request.identifier is None:
        raise IdentifierInvalid
    try:
        for one in workitems.finding.search(request.caller, request.identifier, request.cancelled):
            if request.cancelled():
                break
            pending = PENDING if one.all_keys_supported else PENDING_WARNING
            yield Response(status=pending, identifier=one.identifier)
    except RecordsFailed as failure:
        yield Response(status=UNABLE_TO_PROCESS, comment=failure.peer_comment)
        return
    yield Response(status=CANCEL if request.cancelled() else SUCCESS)
