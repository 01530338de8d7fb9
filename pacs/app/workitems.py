"""The worklist put together: its rows, its service class, and the chore that removes what is over."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from config.settings import Settings
from pacs.core.caller import admin
from pacs.core.job_ports import JobContext
from pacs.core.ports import AuditTrail, Records, Snapshots
from pacs.core.records import Job
from pacs.jobs.kinds import JobKind, Schedule
from pacs.services.workitems import Desk, Workitems
from scp import ups
from storage.database.connection import Database
from storage.database.workitem import WorkitemTable
from storage.database.workitem_watch import WorkitemWatchTable

if TYPE_CHECKING:
    from pacs.app.archive import Archive
    from pacs.app.extension import Attached

PURGE = "workitems.purge"


@dataclass(frozen=True, slots=True, kw_only=True)
class Nothing:
    """The payload of work that needs to be told nothing."""


def workitems(
    database: Database,
    records: Records,
    snapshots: Snapshots,
    audit: AuditTrail,
    settings: Settings,
) -> Workitems:
    """Make the service. Who performs here adds itself with ``add_on_created``."""
    return Workitems(
        Desk(
            rows=WorkitemTable(database),
            watches=WorkitemWatchTable(database),
            records=records,
            snapshots=snapshots,
            audit=audit,
            settings=settings.workitems,
            max_uids=settings.query.max_uids,
        )
    )


def attach(archive: "Archive", _: object) -> "Attached":
    """Give the service class and the chore."""
    from pacs.app.extension import Attached

    def purge(_: JobContext[Nothing]) -> int:
        return archive.workitems.administration.purge(admin("worker"))

    return Attached(
        service_classes=(ups.service_class(archive.workitems),),
        jobs={PURGE: JobKind(handler=purge, payload=Nothing, queue="chores")},
        schedules=(
            Schedule(
                name=PURGE,
                cron=archive.settings.workitems.purge_cron,
                job=Job(kind=PURGE, payload="{}", queue="chores"),
            ),
        ),
    )
