"""``pacs conflict``: UIDs that arrived in contradicting company, and what a person decides."""

from dataclasses import asdict

import click

from pacs.cli.archive import opened
from pacs.cli.home import Home, pass_home
from pacs.cli.output import emit, json_option
from pacs.core.caller import admin

_MEMBERS_SHOWN = 10_000
_MEMBER_COLUMNS = [
    "object_id",
    "patient_id",
    "issuer_of_patient_id",
    "study_instance_uid",
    "series_instance_uid",
    "sop_instance_uid",
    "received_utc",
    "source_ae_title",
    "delivered",
]


@click.group()
def conflict() -> None:
    """List and settle conflicts of identity; nothing is lost or merged by itself."""


@conflict.command("list")
@click.option("--all", "settled_too", is_flag=True, help="Settled ones too.")
@json_option
@pass_home
def list_conflicts(home: Home, *, settled_too: bool, as_json: bool) -> None:
    """List open conflicts."""
    with opened(home) as archive:
        found = archive.conflicts.list(admin("conflict list"), settled_too=settled_too)
    emit(
        [asdict(one) for one in found],
        ["id", "kind", "registrant", "uid", "open"],
        as_json=as_json,
    )


@conflict.command()
@click.argument("conflict_id", type=int, metavar="ID")
@json_option
@pass_home
def show(home: Home, *, conflict_id: int, as_json: bool) -> None:
    """Show the instances of one conflict."""
    with opened(home) as archive:
        _, members = archive.conflicts.show(admin("conflict show"), conflict_id, _MEMBERS_SHOWN)
    emit([asdict(one) for one in members], _MEMBER_COLUMNS, as_json=as_json)


@conflict.command()
@click.argument("conflict_id", type=int, metavar="ID")
@click.option("--accept", is_flag=True, help="It is right as it stands.")
@click.option("--deliver", metavar="OBJECT_ID", help="Find and deliver this version.")
@click.option("--reason", required=True, help="Why; kept in the journal for ever.")
@pass_home
def resolve(
    home: Home, *, conflict_id: int, accept: bool, deliver: str | None, reason: str
) -> None:
    """Settle a conflict: accept it as it stands, or choose the version to deliver."""
    if accept == (deliver is not None):
        raise click.UsageError("say either --accept or --deliver OBJECT_ID")
    caller = admin("conflict resolve")
    with opened(home) as archive:
        if deliver is None:
            archive.conflicts.accept(caller, conflict_id, reason=reason)
        else:
            archive.conflicts.deliver(caller, conflict_id, deliver, reason=reason)
    click.echo(f"conflict {conflict_id} settled")
