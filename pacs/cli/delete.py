"""``pacs delete``: hide with a reason, bring back, and see what can still be brought back."""

from dataclasses import asdict

import click

from pacs.cli.archive import opened
from pacs.cli.home import Home, pass_home
from pacs.cli.output import emit, json_option, progress
from pacs.core.attributes import Level
from pacs.core.caller import admin

_LEVELS = {"study": Level.STUDY, "series": Level.SERIES, "instance": Level.IMAGE}


@click.group()
def delete() -> None:
    """Delete with a reason; undone with 'undo' until storage.deletion_delay_s is over."""


def _command(name: str) -> click.Command:
    """Make ``pacs delete study|series|instance``."""

    @click.command(name, help=f"Hide a {name} at once; its files are removed after the delay.")
    @click.argument("uid", metavar="UID")
    @click.option("--reason", required=True, help="Why; kept in the journal for ever.")
    @click.option("--registrant", help="Whose, where several registrants hold it.")
    @pass_home
    def command(home: Home, *, uid: str, reason: str, registrant: str | None) -> None:
        with opened(home) as archive:
            entry, count = archive.deletions.delete(
                admin(f"delete {name}"), _LEVELS[name], uid, reason=reason, registrant=registrant
            )
        click.echo(f"{count} instances deleted; undo with: pacs delete undo {entry.id}")

    return command


for _name in _LEVELS:
    delete.add_command(_command(_name))


@delete.command("list")
@json_option
@pass_home
def list_deletions(home: Home, *, as_json: bool) -> None:
    """List deletions that can still be undone."""
    with opened(home) as archive:
        rows = [asdict(one) for one in archive.deletions.pending(admin("delete list"))]
    emit(rows, ["entry_id", "instances"], as_json=as_json)


@delete.command()
@click.argument("entry_id", metavar="ENTRY")
@click.option("--reason", default="", help="Why; kept in the journal for ever.")
@pass_home
def undo(home: Home, *, entry_id: str, reason: str) -> None:
    """Bring back what one deletion hides."""
    with opened(home) as archive:
        _, count = archive.deletions.undo(admin("delete undo"), entry_id, reason=reason)
    click.echo(f"{count} instances are back")


@delete.command()
@pass_home
def purge(home: Home) -> None:
    """Remove the files of deletions whose delay is over; 'serve' does so every minute."""
    with opened(home) as archive, progress(None, "purge") as advance:
        count = archive.deletions.purge(admin("delete purge"), advance)
    click.echo(f"{count} files removed")
