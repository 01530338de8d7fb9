"""Series and studies that have become complete, as jobs that ask the arrival rules again."""

from typing import TYPE_CHECKING

from pacs.jobs.kinds import JobKind
from pacs.services.quiet import KINDS, QUEUE, Quiet, QuietWork
from storage.database.route import RouteIndex

if TYPE_CHECKING:
    from pacs.app.archive import Archive
    from pacs.app.extension import Attached


def attach(archive: "Archive", _: object) -> "Attached":
    """Give the jobs that look whether it is quiet."""
    from pacs.app.extension import Attached

    quiet = Quiet(
        index=RouteIndex(archive.database),
        read=archive.reindex.read,
        asked=archive.ingest.asked,
        now=archive.job_table.now,
        settings=archive.settings.arrival,
    )
    kind = JobKind(handler=quiet.look, payload=QuietWork, queue=QUEUE)
    return Attached(jobs=dict.fromkeys(KINDS.values(), kind))
