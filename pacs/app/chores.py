"""Chores of the archive itself, as scheduled jobs: what is over is removed, once over all nodes."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pacs.core.caller import admin
from pacs.core.job_ports import JobContext
from pacs.core.records import Job
from pacs.core.work import JobState
from pacs.jobs.kinds import JobKind, Schedule

if TYPE_CHECKING:
    from pacs.app.archive import Archive
    from pacs.app.extension import Attached

PURGE_DELETIONS = "delete.purge"
PURGE_JOBS = "job.purge"
_QUEUE = "chores"


@dataclass(frozen=True, slots=True, kw_only=True)
class Nothing:
    """The payload of work that needs to be told nothing."""


def attach(archive: "Archive", _: object) -> "Attached":
    """Give the chores and when they are due."""
    from pacs.app.extension import Attached

    settings = archive.settings.jobs

    def purge_deletions(_: JobContext[Nothing]) -> int:
        return archive.deletions.purge(admin("worker"))

    def purge_jobs(_: JobContext[Nothing]) -> int:
        # Dead letters stay until a person has looked at them.
        states = (JobState.DONE, JobState.CANCELLED)
        return archive.jobs.purge(admin("worker"), states, settings.keep_ended_s)

    return Attached(
        jobs={
            PURGE_DELETIONS: JobKind(handler=purge_deletions, payload=Nothing, queue=_QUEUE),
            PURGE_JOBS: JobKind(handler=purge_jobs, payload=Nothing, queue=_QUEUE),
        },
        schedules=(
            _schedule(PURGE_DELETIONS, settings.purge_deletions_cron),
            _schedule(PURGE_JOBS, settings.purge_jobs_cron),
        ),
    )


def _schedule(kind: str, cron: str) -> Schedule:
    return Schedule(name=kind, cron=cron, job=Job(kind=kind, payload="{}", queue=_QUEUE))
