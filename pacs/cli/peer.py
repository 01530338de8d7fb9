"""``pacs peer``: the devices the archive may send to and the command line may call."""

from dataclasses import asdict

import click

from pacs.cli.archive import opened
from pacs.cli.home import Home, pass_home
from pacs.cli.output import emit, json_option
from pacs.core.caller import admin
from pacs.services.peer import MAX_ASSOCIATIONS


@click.group()
def peer() -> None:
    """Name devices by AE title."""


@peer.command()
@click.argument("ae_title", metavar="AE")
@click.argument("host")
@click.argument("port", type=click.IntRange(1, 65_535))
@click.option(
    "--associations",
    type=click.IntRange(1, MAX_ASSOCIATIONS),
    default=1,
    show_default=True,
    help="How many associations of one C-MOVE the device takes at once.",
)
@pass_home
def add(home: Home, *, ae_title: str, host: str, port: int, associations: int) -> None:
    """Add a peer, or change the one of that AE title; holds within a second."""
    with opened(home) as archive:
        added = archive.peers.add(
            admin("peer add"), ae_title, host, port, associations=associations
        )
    click.echo(f"{added.ae_title} is {added.host}:{added.port}")


@peer.command("list")
@json_option
@pass_home
def list_peers(home: Home, *, as_json: bool) -> None:
    """List all peers."""
    with opened(home) as archive:
        rows = [asdict(one) for one in archive.peers.list(admin("peer list"))]
    emit(rows, ["ae_title", "host", "port", "associations"], as_json=as_json)


@peer.command()
@click.argument("ae_title", metavar="AE")
@pass_home
def remove(home: Home, *, ae_title: str) -> None:
    """Remove a peer; holds within a second."""
    with opened(home) as archive:
        archive.peers.remove(admin("peer remove"), ae_title)
    click.echo(f"{ae_title} removed")
