"""Storage Commitment put together: its rows, the way to peers, the job and the door for reports."""

from typing import TYPE_CHECKING

from pacs.app.extension import Attached
from pacs.core.forwarding import COMMITMENT, CommitmentWork
from pacs.jobs.kinds import JobKind
from pacs.services.commitment import Commitments, Reports
from scp import commitment
from scu.commitment import CommitmentSCU
from storage.database.commitment import CommitmentTable

if TYPE_CHECKING:
    from pacs.app.archive import Archive

_QUEUE = "commitment"
_LARGEST_ITEM_BYTES = 200
_ELEMENTS_PER_ITEM = 6
"""One item of a report at its longest: the bounds of what we read must hold the whole answer."""


def attach(archive: "Archive", _: object) -> Attached:
    """Give the service class that takes reports, and the job that asks."""
    settings = archive.settings
    rows = CommitmentTable(archive.database, archive.records)
    reports = Reports(rows, archive.audit)
    commitments = Commitments(
        rows=rows,
        sender=CommitmentSCU(
            ae_title=settings.dicom.ae_title, bounds=settings.association, take=reports.take
        ),
        snapshots=archive.snapshots,
        settings=settings.commitment,
        most_references=max(
            1,
            min(
                settings.commitment.max_references,
                settings.association.max_identifier_bytes // _LARGEST_ITEM_BYTES,
                settings.association.max_identifier_elements // _ELEMENTS_PER_ITEM,
            ),
        ),
    )
    return Attached(
        service_classes=(commitment.service_class(reports),),
        jobs={
            COMMITMENT: JobKind(handler=commitments.run, payload=CommitmentWork, queue=_QUEUE),
        },
    )
