"""The postman of one process, made of its archive's parts and kept beside its server."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pacs.services.courier import Courier
from pacs.services.postman import Postman
from scu.event import EventReportSCU
from storage.database.outbox import OutboxTable

if TYPE_CHECKING:
    from pacs.app.archive import Archive


@contextmanager
def posting(archive: "Archive") -> Iterator[Postman]:
    """Deliver events from this process until the end of the block."""
    settings = archive.settings
    courier = Courier(
        rows=OutboxTable(archive.database, settings.outbox),
        sender=EventReportSCU(ae_title=settings.dicom.ae_title, bounds=settings.association),
        snapshots=archive.snapshots,
        audit=archive.audit,
        settings=settings.outbox,
    )
    postman = Postman(courier, settings.outbox)
    archive.records.on_posted = postman.look
    postman.start()
    try:
        yield postman
    finally:
        postman.stop(settings.association.drain_timeout_s)
