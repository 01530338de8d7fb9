"""``pacs peer``: the devices the archive may send to and the command line may call."""

from dataclasses import asdict, fields
from typing import Any

import click

from pacs.cli.archive import opened
from pacs.cli.home import Home, pass_home
from pacs.cli.output import emit, json_option, note
from pacs.core.caller import admin
from pacs.core.records import Peer, PeerEncoding
from pacs.services.peer import (
    LEAST_RATE_MBIT_S,
    MAX_ASSOCIATIONS,
    MOST_RATE_MBIT_S,
    SendingPolicy,
)


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
    help="How many associations of one C-MOVE, or one study forwarded, the device takes at once.",
)
@click.option(
    "--encoding",
    type=click.Choice([one.value for one in PeerEncoding]),
    default=PeerEncoding.AS_STORED.value,
    show_default=True,
    help="In which form it gets what it takes in several; compressed is lossless.",
)
@click.option(
    "--rate",
    "rate_mbit_s",
    metavar="MBIT",
    type=click.FloatRange(LEAST_RATE_MBIT_S, MOST_RATE_MBIT_S),
    help="Most that is sent to it, in Mbit/s, by each process; as fast as it goes unless given.",
)
@pass_home
def add(home: Home, /, *, ae_title: str, host: str, port: int, **policy: Any) -> None:
    """Add a peer, or change the one of that AE title; holds within a second."""
    sending = SendingPolicy(**{**policy, "encoding": PeerEncoding(policy["encoding"])})
    with opened(home) as archive:
        added = archive.peers.add(admin("peer add"), ae_title, host, port, sending)
    click.echo(f"{added.ae_title} is {added.host}:{added.port}")


@peer.command("list")
@json_option
@pass_home
def list_peers(home: Home, *, as_json: bool) -> None:
    """List all peers."""
    with opened(home) as archive:
        peers = archive.peers.list(admin("peer list"))
    rows = [{**asdict(one), "encoding": one.encoding.value} for one in peers]
    emit(rows, [field.name for field in fields(Peer)], as_json=as_json)


@peer.command()
@click.argument("ae_title", metavar="AE")
@pass_home
def remove(home: Home, *, ae_title: str) -> None:
    """Remove a peer; holds within a second. What routes send to it fails until it is added again."""
    from pacs.app.route import routes

    caller = admin("peer remove")
    with opened(home) as archive:
        archive.peers.remove(caller, ae_title)
        orphans = [one.name for one in routes(archive).list(caller) if ae_title in one.destinations]
    click.echo(f"{ae_title} removed")
    if orphans:
        note(f"still a destination of: {', '.join(orphans)}; what they send there fails")
