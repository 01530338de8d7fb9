"""Storage Commitment, its reports: N-EVENT-REPORT on associations that peers open. PS3.4 Section J.3.3.

Here the archive is the SCU and the peer that associates takes the SCP's role,
by SCP/SCU Role Selection (PS3.7 Annex D.3.3.4) or, in some devices, without.
Turns one report into one call on ``Reports`` and one Status.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from pacs.association.message import Offer, Operation, Request, Response
from pacs.core import errors
from pacs.core.caller import Right
from pacs.core.commitment import PUSH_MODEL
from pacs.services.commitment import EventReport, Reports
from scp.service_class import ServiceClass
from scp.status import SUCCESS

SOP_CLASSES: Final[Mapping[str, str]] = {PUSH_MODEL: "Storage Commitment Push Model SOP Class"}
TRANSFER_SYNTAXES: Final = (
    "1.2.840.10008.1.2.1",  # Explicit VR Little Endian
    "1.2.840.10008.1.2",  # Implicit VR Little Endian
)
STATUSES: Final[Mapping[type[errors.PacsError], int]] = {  # PS3.7 Section 10.1.1.1.8
    errors.TransactionUnknown: 0x0112,  # No such SOP Instance
    errors.EventTypeUnknown: 0x0113,  # No such event type
    errors.EventInvalid: 0x0115,  # Invalid argument value
    errors.ReportContradicts: 0x0110,  # Processing failure
}


def report(request: Request, reports: Reports) -> Iterator[Response]:
    """Answer one N-EVENT-REPORT."""
    event_type_id = request.fields.get("EventTypeID")
    reports.take(
        request.caller,
        EventReport(
            event_type_id=event_type_id if isinstance(event_type_id, int) else 0,
            sop_instance_uid=str(request.fields.get("AffectedSOPInstanceUID") or ""),
            information=request.identifier,
        ),
    )
    yield Response(status=SUCCESS)


def service_class(reports: Reports) -> ServiceClass:
    """Describe the service class. Who may associate may report: what counts is who was asked."""
    return ServiceClass(
        name="Storage Commitment",
        standard="PS3.4 Annex J",
        offers=(
            Offer(sop_classes=SOP_CLASSES, transfer_syntaxes=TRANSFER_SYNTAXES, scu_role=True),
        ),
        operations={Operation.N_EVENT_REPORT: lambda request: report(request, reports)},
        rights={Operation.N_EVENT_REPORT: Right.CONNECT},
        statuses=STATUSES,
    )
