"""``pacs outbox``: events that peers shall be told of and have not confirmed yet, or never did."""

import click

from pacs.cli.archive import opened
from pacs.cli.home import Home, pass_home
from pacs.cli.output import emit, json_option
from pacs.core.caller import admin

_COLUMNS = [
    "id",
    "state",
    "ae_title",
    "registrant",
    "sop_class_uid",
    "sop_instance_uid",
    "event_type_id",
    "asked_utc",
    "attempts",
    "due_utc",
    "trouble",
]


@click.group()
def outbox() -> None:
    """Look after events on their way to peers (N-EVENT-REPORT)."""


@outbox.command("list")
@json_option
@pass_home
def list_events(home: Home, *, as_json: bool) -> None:
    """List events that are waiting, being sent, or dead; delivered ones are gone."""
    from pacs.services.outbox import as_row

    with opened(home) as archive:
        rows = [as_row(one) for one in archive.outbox.list(admin("outbox list"))]
    emit(rows, _COLUMNS, as_json=as_json)


@outbox.command()
@click.argument("event_id", type=int, metavar="ID")
@pass_home
def retry(home: Home, *, event_id: int) -> None:
    """Send one event now, dead or not, with all its attempts before it."""
    with opened(home) as archive:
        archive.outbox.retry(admin("outbox retry"), event_id)
    click.echo(f"event {event_id} is sent again")


@outbox.command()
@click.argument("event_id", type=int, metavar="ID")
@pass_home
def cancel(home: Home, *, event_id: int) -> None:
    """Forget one event; one that is being sent may still arrive."""
    with opened(home) as archive:
        archive.outbox.cancel(admin("outbox cancel"), event_id)
    click.echo(f"event {event_id} is forgotten")
