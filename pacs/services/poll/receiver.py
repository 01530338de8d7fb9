"""Taking in what a peer sends during our C-GET: exactly as a C-STORE that it began itself. Design law 1.

Owns what is known of each instance before its first byte. What is kept, and
when it is safe, is ``Ingest``'s.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from pacs.core.caller import Caller
from pacs.core.errors import (
    CapacityExhausted,
    PacsError,
    PeerUnreachable,
    RecordsFailed,
    StorageFailed,
)
from pacs.core.identifiers import (
    AETitle,
    SOPClassUID,
    SOPInstanceUID,
    TransferSyntaxUID,
    new_object_id,
)
from pacs.core.ports import AuditTrail, Incoming, Spool
from pacs.core.records import IncomingMeta, Provenance
from pacs.services.store import Ingest

_LOG = logging.getLogger("pacs.poll")
_OURS = (CapacityExhausted, StorageFailed, RecordsFailed)


class IngestReceiver:
    """``pacs.core.ports.Receiver`` into the archive, for one association.

    ``failure`` is what kept us, not the peer, from taking something in. Once
    ``cancelled``, or after ``most`` instances, the association is ended: a peer
    need not say anything else while it sends.
    """

    def __init__(
        self,
        ingest: Ingest,
        spool: Spool,
        audit: AuditTrail,
        *,
        caller: Caller,
        receiving_ae_title: AETitle,
        cancelled: Callable[[], bool],
        most: int,
    ) -> None:
        self._ingest = ingest
        self._spool = spool
        self._audit = audit
        self._caller = replace(caller, association=new_object_id())
        self._receiving_ae_title = receiving_ae_title
        self._cancelled = cancelled
        self._room = most
        self.failure: PacsError | None = None

    def __call__(
        self,
        sop_class_uid: SOPClassUID,
        sop_instance_uid: SOPInstanceUID,
        transfer_syntax_uid: TransferSyntaxUID,
    ) -> "_Coming":
        """Begin the file of one instance on the store's volume."""
        caller = self._caller
        meta = IncomingMeta(
            sop_class_uid=sop_class_uid,
            sop_instance_uid=sop_instance_uid,
            transfer_syntax_uid=transfer_syntax_uid,
            provenance=Provenance(
                registrant=caller.registrant,
                issuer_of_patient_id=caller.issuer_of_patient_id,
                received_utc=datetime.now(UTC),
                association=caller.association,
                source_ae_title=caller.ae_title,
                receiving_ae_title=self._receiving_ae_title,
            ),
        )
        return _Coming(self, self._spool.incoming(meta).__enter__())

    def take(self, incoming: Incoming) -> None:
        """Keep one, and put on record how that went."""
        self._room -= 1
        if self._room < 0 or self._cancelled():
            raise PeerUnreachable("broken off: told to stop, or more came than was asked for")
        outcome, study = "failure", ""
        try:
            study = self._accept(incoming)
            outcome = "success"
        except PacsError as failure:
            if isinstance(failure, _OURS):
                self.failure = failure
            raise
        finally:
            self._audit.record(
                "C-STORE",
                self._caller,
                association=self._caller.association,
                sop_class_uid=incoming.meta.sop_class_uid,
                outcome=outcome,
                study=study or None,
            )

    def _accept(self, incoming: Incoming) -> str:
        try:
            return self._ingest.take(self._caller, incoming)[1]
        except PacsError:
            raise
        except Exception as failure:
            _LOG.error("store-failed kind=%s", type(failure).__name__)
            # One instance that provokes this must not end all the others.
            raise PacsError from failure


class _Coming:
    """One instance while it arrives; ``pacs.core.ports.Coming``."""

    def __init__(self, receiver: IngestReceiver, incoming: Incoming) -> None:
        self._receiver = receiver
        self._incoming = incoming

    def write(self, piece: memoryview) -> None:
        self._incoming.write(piece)

    def take(self) -> None:
        self._receiver.take(self._incoming)

    def __exit__(self, *exc_info: object) -> None:
        self._incoming.__exit__(*exc_info)
