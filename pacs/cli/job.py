"""``pacs job``: work that outlives its request, and its dead letters."""

from collections.abc import Mapping
from dataclasses import asdict

import click

from pacs.cli.archive import opened
from pacs.cli.home import Home, pass_home
from pacs.cli.output import emit, json_option, note
from pacs.core.caller import admin
from pacs.core.work import ENDED, JobRow, JobState

_COLUMNS = ["id", "state", "queue", "kind", "attempts", "progress", "asked_utc", "last_error"]
_states = click.Choice([one.value for one in JobState])
_ended = click.Choice([one.value for one in ENDED])


@click.group()
def job() -> None:
    """Look at jobs; 'failed' are the dead letters."""


@job.command("list")
@click.option("--state", type=_states, help="Only those in this state.")
@click.option("--kind", help="Only those of this kind.")
@click.option("--queue", help="Only those of this queue.")
@click.option("--limit", type=click.IntRange(1), default=1_000, show_default=True)
@click.option(
    "--summary",
    is_flag=True,
    help="Count them by queue and state, with the oldest's age; tell which queues are held.",
)
@json_option
@pass_home
def list_jobs(
    home: Home,
    *,
    state: str | None,
    kind: str | None,
    queue: str | None,
    limit: int,
    summary: bool,
    as_json: bool,
) -> None:
    """List jobs, the newest first."""
    caller = admin("job list")
    chosen = JobState(state) if state else None
    with opened(home) as archive:
        if summary:
            depths = [
                {**asdict(one), "state": one.state.value, "oldest_s": round(one.oldest_s, 1)}
                for one in archive.jobs.depths(caller)
            ]
        else:
            rows = archive.jobs.list(caller, state=chosen, kind=kind, queue=queue, limit=limit)
    if summary:
        columns = ["queue", "state", "jobs", "oldest_s", "held_until_utc", "held_why"]
        emit(depths, columns, as_json=as_json)
    else:
        emit((_shown(one) for one in rows), _COLUMNS, as_json=as_json)


@job.command()
@click.argument("job_id", type=int, metavar="ID")
@json_option
@pass_home
def show(home: Home, *, job_id: int, as_json: bool) -> None:
    """Show everything of one job, its log included."""
    with opened(home) as archive:
        found, lines = archive.jobs.show(admin("job show"), job_id)
    if as_json:
        log = [{"said_utc": said, "line": line} for said, line in lines]
        emit([{**_shown(found), "log": log}], [], as_json=True)
        return
    rows = [{"what": key, "value": one} for key, one in _shown(found).items() if one is not None]
    emit([*rows, *({"what": said, "value": line} for said, line in lines)], ["what", "value"])


@job.command()
@click.argument("job_ids", type=int, metavar="ID...", nargs=-1, required=True)
@pass_home
def retry(home: Home, *, job_ids: tuple[int, ...]) -> None:
    """Let failed, cancelled or delayed jobs wait anew: no attempt made, no deadline.

    One that waits in a held queue lets its queue go on now.
    """
    with opened(home) as archive:
        for one in job_ids:
            archive.jobs.retry(admin("job retry"), one)
            note(f"job {one} waits")


@job.command()
@click.argument("job_ids", type=int, metavar="ID...", nargs=-1, required=True)
@pass_home
def cancel(home: Home, *, job_ids: tuple[int, ...]) -> None:
    """Cancel jobs and their parts; one that runs is asked to stop within a second or two."""
    with opened(home) as archive:
        for one in job_ids:
            state = archive.jobs.cancel(admin("job cancel"), one)
            asked = state is JobState.RUNNING
            note(f"job {one} {'is asked to stop' if asked else 'is cancelled'}")


@job.command()
@click.option(
    "--state",
    "states",
    type=_ended,
    multiple=True,
    default=(JobState.DONE.value, JobState.CANCELLED.value),
    show_default=True,
    help="State in which they ended; may be given again.",
)
@click.option(
    "--older-than-s", type=click.FloatRange(0), help="Ended so long ago, not jobs.keep_ended_s."
)
@pass_home
def purge(home: Home, *, states: tuple[str, ...], older_than_s: float | None) -> None:
    """Forget jobs that have ended. Dead letters go only with --state failed."""
    with opened(home) as archive:
        older_s = archive.settings.jobs.keep_ended_s if older_than_s is None else older_than_s
        gone = archive.jobs.purge(admin("job purge"), [JobState(one) for one in states], older_s)
    click.echo(f"{gone} jobs forgotten")


def _shown(row: JobRow) -> Mapping[str, object]:
    progress = None if row.progress_total is None else f"{row.progress_done}/{row.progress_total}"
    return {**asdict(row), "state": row.state.value, "progress": progress}
