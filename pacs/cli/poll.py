"""``pacs poll``: peers asked on a schedule for what is new there."""

from collections.abc import Mapping
from dataclasses import asdict

import click

from pacs.cli.archive import opened
from pacs.cli.home import Home, pass_home
from pacs.cli.keys import parse_keys
from pacs.cli.output import emit, json_option, note
from pacs.core.caller import admin
from pacs.core.identifiers import AETitle
from pacs.core.poll_ports import LastRun
from pacs.core.polling import FetchBy, Poll
from pacs.services.poll import LONGEST_WINDOW_DAYS

_COLUMNS = [
    "name", "ae_title", "active", "cron", "window_days", "by", "match", "last_run_utc", "trouble",
]  # fmt: skip
_name_argument = click.argument("name", metavar="NAME")


@click.group()
def poll() -> None:
    """Ask peers on a schedule for what is new there, and fetch it."""


@poll.command()
@click.argument("ae_title", metavar="AE")
@click.argument("name", metavar="[NAME]", required=False)
@click.option(
    "--cron", default="*/5 * * * *", show_default=True, help="When; empty for on demand only."
)
@click.option(
    "--window-days",
    type=click.IntRange(0, LONGEST_WINDOW_DAYS),
    default=2,
    show_default=True,
    help="Studies of today and so many days before, by Study Date.",
)
@click.option(
    "--match",
    "matches",
    multiple=True,
    metavar="KEYWORD=VALUE",
    help="Key of the query at STUDY level; may be given again.",
)
@click.option(
    "--by",
    type=click.Choice([one.value for one in FetchBy]),
    default=FetchBy.MOVE.value,
    show_default=True,
    help="C-MOVE to our own AE title, which the peer must know, or C-GET.",
)
@click.option(
    "--max-instances",
    type=click.IntRange(1),
    default=10_000,
    show_default=True,
    help="Instances one run asks for; the next goes on.",
)
@pass_home
def add(
    home: Home,
    /,
    *,
    ae_title: str,
    name: str | None,
    cron: str,
    matches: tuple[str, ...],
    by: str,
    **bounds: int,
) -> None:
    """Poll the peer AE; its title names the poll unless NAME does. Changes the one of that name."""
    asked = Poll(
        name=ae_title if name is None else name,
        ae_title=AETitle(ae_title),
        cron=cron,
        by=FetchBy(by),
        filters=tuple(parse_keys(matches).items()),
        window_days=bounds["window_days"],
        max_instances=bounds["max_instances"],
    )
    with opened(home) as archive:
        added = archive.polls.add(admin("poll add"), asked)
    when = f"at {added.cron}" if added.cron else "when asked to"
    click.echo(f"{added.name} polls {added.ae_title} {when}")


@poll.command("list")
@json_option
@pass_home
def list_polls(home: Home, *, as_json: bool) -> None:
    """List all polls, and what was wrong when each ran last."""
    with opened(home) as archive:
        rows = [_row(*one) for one in archive.polls.list(admin("poll list"))]
    emit(rows, _COLUMNS, as_json=as_json)


@poll.command()
@_name_argument
@json_option
@pass_home
def show(home: Home, *, name: str, as_json: bool) -> None:
    """Show one poll, what it remembers of its peer, and what the peer did not deliver."""
    with opened(home) as archive:
        shown = archive.polls.show(admin("poll show"), name)
        given_up = archive.settings.poll.max_attempts
    failed = [{**asdict(one), "given_up": one.attempts >= given_up} for one in shown.failed]
    row = {**_row(shown.poll, shown.last_run), "remembered": asdict(shown.counts)}
    if as_json:
        emit([{**row, "failed": failed}], [], as_json=True)
        return
    emit([{"what": key, "value": one} for key, one in row.items()], ["what", "value"])
    emit(failed, ["study_instance_uid", "sop_instance_uid", "attempts", "given_up", "trouble"])


@poll.command()
@_name_argument
@pass_home
def remove(home: Home, *, name: str) -> None:
    """Remove a poll; holds within a second."""
    with opened(home) as archive:
        archive.polls.remove(admin("poll remove"), name)
    click.echo(f"{name} removed")


@poll.command()
@_name_argument
@pass_home
def enable(home: Home, *, name: str) -> None:
    """Let a poll run by its schedule again."""
    with opened(home) as archive:
        archive.polls.enable(admin("poll enable"), name, True)
    click.echo(f"{name} enabled")


@poll.command()
@_name_argument
@pass_home
def disable(home: Home, *, name: str) -> None:
    """Keep a poll from running by its schedule."""
    with opened(home) as archive:
        archive.polls.enable(admin("poll disable"), name, False)
    click.echo(f"{name} disabled")


@poll.command()
@_name_argument
@click.option(
    "--now", is_flag=True, help="Also where the peer was away and is left alone for a while."
)
@pass_home
def run(home: Home, *, name: str, now: bool) -> None:
    """Have a worker run a poll, whatever its schedule says."""
    with opened(home) as archive:
        archive.polls.run(admin("poll run"), name, now=now)
    note(f"{name} waits for a worker; 'pacs job list --kind poll.run' shows how it goes")


@poll.command()
@_name_argument
@click.option("--gone", is_flag=True, help="Also what came before and is no longer held here.")
@pass_home
def retry(home: Home, *, name: str, gone: bool) -> None:
    """Try anew, at the next run, what the peer did not deliver."""
    with opened(home) as archive:
        again = archive.polls.retry(admin("poll retry"), name, gone=gone)
    click.echo(f"{again} instances are tried anew")


def _row(one: Poll, last: LastRun | None) -> Mapping[str, object]:
    return {
        "name": one.name,
        "ae_title": one.ae_title,
        "active": one.active,
        "cron": one.cron,
        "window_days": one.window_days,
        "by": one.by.value,
        "match": [f"{keyword}={value}" for keyword, value in one.filters],
        "max_instances": one.max_instances,
        "last_run_utc": last.ended_utc if last else None,
        "last_result": last.result if last else None,
        "trouble": last.trouble if last else "",
    }
