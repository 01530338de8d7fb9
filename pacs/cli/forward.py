"""``pacs forward``: have a study sent, by a job that goes on until the peer holds it."""

import click

from pacs.app.forward import forwarding
from pacs.cli.archive import opened
from pacs.cli.home import Home, pass_home
from pacs.core.caller import admin
from pacs.core.identifiers import AETitle, StudyInstanceUID


@click.command()
@click.option("--to", "destination", required=True, metavar="AE", help="The peer to send to.")
@click.option("--study", required=True, metavar="UID", help="Study Instance UID.")
@click.option("--route", default="", help="Change it on the way as this route says.")
@click.option("--again", is_flag=True, help="Also send what the peer was sent before.")
@pass_home
def forward(home: Home, *, destination: str, study: str, route: str, again: bool) -> None:
    """Have a study sent to a peer; 'pacs job list --kind forward.send' shows how it goes."""
    with opened(home) as archive:
        asked = forwarding(archive).ask(
            admin("forward"),
            AETitle(destination),
            StudyInstanceUID(study),
            route=route,
            again=again,
        )
    click.echo(f"{asked} jobs asked for" if asked > 1 else "job asked for")
