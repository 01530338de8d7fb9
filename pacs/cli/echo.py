"""``pacs echo``: ask a peer whether it answers."""

import click

from pacs.association.message import Operation
from pacs.cli.home import Home, pass_home
from pacs.cli.peers import Named, call, code_of, peer_argument


@click.command()
@peer_argument
@pass_home
def echo(home: Home, *, named: Named) -> int:
    """Send one C-ECHO to a peer: AE as added with 'pacs peer add', or AE@host:port."""
    from scu.echo import echo as ask

    calling = call(home, named)
    status = ask(calling.peer, ae_title=calling.ae_title, bounds=calling.bounds)
    code = code_of(Operation.C_ECHO, status)
    peer = calling.peer
    if code == 0:
        click.echo(f"{peer.ae_title} at {peer.host}:{peer.port} answered")
    return code
