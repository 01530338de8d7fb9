"""Asking for Storage Commitment: N-ACTION, and the reports that come on the same association. PS3.4 Section J.3.2.

The association stays the peer's to report on as long as whoever opened it
waits. Decides nothing about what a Status or a report means.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from config import settings
from pacs.association.answering import Asked
from pacs.association.message import Message, Operation, Response
from pacs.association.requested import Requested
from pacs.association.requestor import NothingAccepted, Proposal, associate
from pacs.core import errors
from pacs.core.caller import Caller, admin
from pacs.core.commitment import (
    PUSH_MODEL,
    WELL_KNOWN_INSTANCE,
    CommitmentAsking,
    Reference,
    Transaction,
)
from pacs.core.records import Peer
from pacs.services.commitment import EventReport
from scu.models import UNCOMPRESSED

REQUEST_COMMITMENT = 1
"""Action Type ID, PS3.4 Table J.3-1."""

STATUSES: Mapping[type[errors.PacsError], int] = {  # PS3.7 Section 10.1.1.1.8
    errors.TransactionUnknown: 0x0112,
    errors.EventTypeUnknown: 0x0113,
    errors.EventInvalid: 0x0115,
}
"""What a report is answered with where it cannot be taken; everything else is a Processing failure."""

_SUCCESS = 0x0000
_UNRECOGNIZED_OPERATION = 0x0211

Take = Callable[[Caller, EventReport], None]


class CommitmentSCU:
    """Opens associations to ask for commitment; implements ``pacs.core.commitment.CommitmentSender``."""

    def __init__(self, *, ae_title: str, bounds: settings.Association, take: Take) -> None:
        self._ae_title = ae_title
        self._bounds = bounds
        self._take = take

    def open(self, peer: Peer) -> AbstractContextManager[CommitmentAsking]:
        """Associate. Raises ``PeerUnreachable``, ``PeerRefused`` or ``ServiceNotOffered``."""
        return self._open(peer)

    @contextmanager
    def _open(self, peer: Peer) -> Iterator[CommitmentAsking]:
        proposal = Proposal(sop_class_uid=PUSH_MODEL, transfer_syntax_uids=UNCOMPRESSED)
        caller = replace(admin("commitment"), ae_title=peer.ae_title, address=peer.host)
        opening = associate(
            peer,
            [proposal],
            ae_title=self._ae_title,
            bounds=self._bounds,
            on_request=lambda asked: self._reported(asked, caller),
        )
        try:
            with opening as requested:
                yield _Asking(requested)
        except NothingAccepted as refused:
            raise errors.ServiceNotOffered(str(refused)) from refused

    def _reported(self, asked: Asked, caller: Caller) -> Response:
        """Answer what the peer asks while we wait: reports, nothing else."""
        if asked.operation is not Operation.N_EVENT_REPORT or asked.sop_class_uid != PUSH_MODEL:
            return Response(status=_UNRECOGNIZED_OPERATION)
        try:
            self._take(caller, report_of(asked.fields, asked.data_set))
        except errors.PacsError as failure:
            if type(failure) not in STATUSES:
                raise
            return Response(status=STATUSES[type(failure)], comment=failure.peer_comment)
        return Response(status=_SUCCESS)


class _Asking:
    """One association."""

    def __init__(self, requested: Requested) -> None:
        self._requested = requested

    def ask(self, transaction: Transaction) -> int:
        """Send the request and give the peer's Status. Raises ``PeerUnreachable``."""
        message = Message(
            operation=Operation.N_ACTION,
            sop_class_uid=PUSH_MODEL,
            fields={
                "RequestedSOPInstanceUID": WELL_KNOWN_INSTANCE,
                "ActionTypeID": REQUEST_COMMITMENT,
            },
            data_set=information_of(transaction),
        )
        return self._requested.ask(message).status

    def wait(self, timeout_s: float) -> bool:
        """Wait until the peer has asked something and got its answer. Raises ``PeerUnreachable``."""
        return self._requested.serve(timeout_s)


def report_of(fields: Mapping[str, object], information: Dataset | None) -> EventReport:
    """Make a report of an N-EVENT-REPORT's command fields and Event Information."""
    event_type_id = fields.get("EventTypeID")
    return EventReport(
        event_type_id=event_type_id if isinstance(event_type_id, int) else 0,
        sop_instance_uid=str(fields.get("AffectedSOPInstanceUID") or ""),
        information=information,
    )


def information_of(transaction: Transaction) -> Dataset:
    """Make the Action Information, PS3.4 Table J.3-1."""
    information = Dataset()
    information.TransactionUID = transaction.uid
    information.ReferencedSOPSequence = Items(map(_item, transaction.references))
    return information


def _item(reference: Reference) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = reference
    return item
