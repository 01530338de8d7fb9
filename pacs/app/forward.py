"""Forwarding, joined: its ports from the archive's parts, its kind of job, its chore."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pacs.core.errors import CoercionFailed
from pacs.core.forwarding import FORWARD, Coercer, ForwardWork, RouteJudge
from pacs.core.identifiers import AETitle, Registrant, TransferSyntaxUID
from pacs.core.job_ports import JobContext
from pacs.core.records import Job
from pacs.core.routing import Coercion, Route
from pacs.core.work import Policy
from pacs.jobs.kinds import JobKind, Schedule
from pacs.services.forward import Forwarding
from pacs.services.forward.desk import Desk
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


class NoRoutes:
    """Where no routes are kept there is none of any name, and nothing to be changed."""

    def route(self, name: str) -> Route | None:
        """None is known."""
        return None

    def selects(self, route: Route, registrant: Registrant, rows: Sequence[int]) -> frozenset[int]:
        """Nothing is selected."""
        return frozenset()

    def came_from(self, ae_title: AETitle, rows: Sequence[int]) -> frozenset[int]:
        """Nothing is known to have come from anywhere."""
        return frozenset()

    def coerced(
        self, path: str, offset: int, syntax: TransferSyntaxUID, coercions: Sequence[Coercion]
    ) -> AbstractContextManager[str]:
        """Raise ``CoercionFailed``: what cannot be changed as asked is not sent."""
        raise CoercionFailed


def forwarding(
    archive: "Archive", judge: RouteJudge | None = None, coercer: Coercer | None = None
) -> Forwarding:
    """Make the service of an archive."""

    def others_due(queue: str) -> bool:
        return any(one != queue for one in archive.job_table.queues())

    return Forwarding(
        Desk(
            index=DatabaseRetrieveIndex(archive.database),
            sent=ForwardTable(archive.database),
            records=archive.records,
            shipping=archive.shipping,
            coercer=coercer or NoRoutes(),
            judge=judge or NoRoutes(),
            snapshots=archive.snapshots,
            audit=archive.audit,
            settings=archive.settings.forward,
            others_due=others_due,
        )
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
