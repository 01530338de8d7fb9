"""Forwarding, joined: its ports from the archive's parts, its kind of job, its chore."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pacs.app.route import judge as route_judge
from pacs.core.forwarding import FORWARD, Coercer, ForwardWork, RouteJudge
from pacs.core.job_ports import JobContext
from pacs.core.records import Job
from pacs.core.work import Policy
from pacs.jobs.kinds import JobKind, Schedule
from pacs.services.forward import Forwarding
from pacs.services.forward.desk import Desk
from processing.datasets.coerce import FileCoercer
from storage.database.forward import ForwardTable
from storage.database.retrieve import DatabaseRetrieveIndex

if TYPE_CHECKING:
    from pacs.app.archive import Archive
    from pacs.app.extension import Attached

PURGE = "forward.purge"
_QUEUE = "forward"


@dataclass(frozen=True, slots=True, kw_only=True)
class Nothing:
    """The payload of work that needs to be told nothing."""


def forwarding(
    archive: "Archive", judge: RouteJudge | None = None, coercer: Coercer | None = None
) -> Forwarding:
    """Make the service of an archive; with its own routes and coercer unless given."""

    def others_due(queue: str) -> bool:
        return any(one != queue for one in archive.job_table.queues())

    return Forwarding(
        Desk(
            index=DatabaseRetrieveIndex(archive.database),
            sent=ForwardTable(archive.database),
            records=archive.records,
            shipping=archive.shipping,
            coercer=coercer or _coercer(archive),
            judge=judge or route_judge(archive),
            snapshots=archive.snapshots,
            audit=archive.audit,
            settings=archive.settings.forward,
            others_due=others_due,
        )
    )


def _coercer(archive: "Archive") -> FileCoercer:
    settings = archive.settings
    return FileCoercer(
        settings.parsing,
        archive.scratch,
        modifying_system=settings.dicom.ae_title,
        max_inflated_bytes=settings.retrieve.transcode_max_bytes,
    )


def attached(archive: "Archive", service: Forwarding) -> "Attached":
    """Give the kinds of job the service handles, and when its chore is due."""
    from pacs.app.extension import Attached

    settings = archive.settings.forward
    policy = Policy(
        max_attempts=settings.max_attempts,
        first_delay_s=settings.retry_s,
        max_delay_s=settings.max_retry_s,
    )

    def purge(_: JobContext[Nothing]) -> int:
        return service.purge()

    return Attached(
        jobs={
            FORWARD: JobKind(
                handler=service.send, payload=ForwardWork, policy=policy, queue=_QUEUE
            ),
            PURGE: JobKind(handler=purge, payload=Nothing, queue="chores"),
        },
        schedules=(
            Schedule(
                name=PURGE,
                cron=settings.purge_cron,
                job=Job(kind=PURGE, payload="{}", queue="chores"),
            ),
        ),
    )


def attach(archive: "Archive", _: object) -> "Attached":
    """Attach forwarding as the archive has it."""
    return attached(archive, forwarding(archive))
