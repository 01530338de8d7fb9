"""Previews, put together for one process."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from pacs.app.process import processor_of
from pacs.services.preview import Previews
from processing.datasets.preview import SandboxedPainter
from storage.database.retrieve import DatabaseRetrieveIndex

if TYPE_CHECKING:
    from pacs.app.archive import Archive


@contextmanager
def previews(archive: "Archive") -> Iterator[Previews]:
    """Put the service together; its workers end with it."""
    settings = archive.settings.process
    with (
        closing(processor_of(archive)) as processor,
        closing(SandboxedPainter(settings, archive.scratch)) as painter,
    ):
        yield Previews(
            index=DatabaseRetrieveIndex(archive.database),
            store=archive.store,
            processor=processor,
            painter=painter,
            snapshots=archive.snapshots,
            audit=archive.audit,
            most=settings.max_instances,
        )
