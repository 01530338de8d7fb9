"""Processing, put together for one process."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from pacs.app.extension import installed
from pacs.app.operations import catalogue
from pacs.core.identifiers import AETitle
from pacs.core.processing import OperationFact
from pacs.services.process import Processing
from processing.datasets.process import SandboxedProcessor, facts
from storage.database.retrieve import DatabaseRetrieveIndex

if TYPE_CHECKING:
    from pacs.app.archive import Archive


def operations() -> Sequence[OperationFact]:
    """List what can be asked for; no archive is needed for that. Raises ``SettingsInvalid``."""
    return facts(catalogue(installed()))


@contextmanager
def processing(archive: "Archive") -> Iterator[Processing]:
    """Put the service together; its workers end with it."""
    processor = SandboxedProcessor(
        archive.settings.process, archive.scratch, catalogue=catalogue(archive.installed)
    )
    with closing(processor):
        yield Processing(
            index=DatabaseRetrieveIndex(archive.database),
            store=archive.store,
            processor=processor,
            ingest=archive.ingest,
            records=archive.records,
            audit=archive.audit,
            receiving_ae_title=AETitle(archive.settings.dicom.ae_title),
        )
