"""Storage SCP. DICOM PS3.4 Annex B, PS3.7 Section 9.1.1.

Turns one C-STORE request into one call on ``Ingest`` and one Status. It
decides nothing about what is kept or where.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from pacs.association.message import Offer, Operation, Request, Response
from pacs.core import errors
from pacs.core.caller import Caller, Right
from pacs.services.store import Ingest
from scp.service_class import ServiceClass

STATUSES: Mapping[type[errors.PacsError], int] = {  # PS3.4 Table B.2-1
    errors.CapacityExhausted: 0xA700,  # Refused: Out of Resources
    errors.InstanceTooLarge: 0xA701,
    errors.RecordsFailed: 0xA702,
    errors.StorageFailed: 0xA703,
    errors.SOPClassMismatch: 0xA900,  # Error: Data Set does not match SOP Class
    errors.SOPInstanceMismatch: 0xA901,
    errors.InstanceUnreadable: 0xC000,  # Error: Cannot understand
    errors.InstanceTruncated: 0xC001,
    errors.InstanceTooDeep: 0xC002,
    errors.InstanceIncomplete: 0xC003,
}


def store(request: Request, ingest: Ingest) -> Iterator[Response]:
    """Answer one C-STORE."""
    if request.incoming is None:
        raise errors.InstanceUnreadable("the request came without a Data Set")
    with request.incoming as incoming:
        _, study = ingest.take(request.caller, incoming)
    yield Response(status=0x0000, study_instance_uid=study)


def service_class(
    ingest: Ingest,
    sop_classes: Mapping[str, str],
    *,
    any_other_class: bool,
    preferred: Callable[[Caller, str], Sequence[str]] | None = None,
) -> ServiceClass:
    """Attach the service: every class of ``sop_classes``, in every transfer syntax offered.

    ``preferred`` says in which of them a caller that retrieves gets a class from us.
    """
    # In C-GET we send: the peer that retrieves takes the SCP role (PS3.4 Section C.5.3).
    offer = Offer(
        sop_classes=sop_classes,
        any_other_class=any_other_class,
        scu_role=True,
        preferred=preferred,
    )
    return ServiceClass(
        name="Storage",
        standard="PS3.4 Annex B",
        offers=(offer,),
        operations={Operation.C_STORE: partial(store, ingest=ingest)},
        rights={Operation.C_STORE: Right.REGISTER},
        statuses=STATUSES,
    )
