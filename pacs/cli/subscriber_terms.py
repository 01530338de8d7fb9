"""``pacs subscriber user|agree|disagree|purpose|destination|code``: what a contract says in detail."""

import sys
from typing import TYPE_CHECKING, Any

import click

from pacs.cli.archive import opened
from pacs.cli.home import Home, pass_home
from pacs.cli.output import emit, json_option, note
from pacs.cli.subscriber_options import (
    RIGHTS,
    agreement_text,
    code_row,
    moment,
    name_argument,
    rights_from,
)
from pacs.core.caller import SubscriberName, admin
from pacs.core.contract import Agreement
from pacs.core.identifiers import StudyInstanceUID

if TYPE_CHECKING:
    from pacs.services.subscriber.terms import PurposeEdits


@click.group()
def user() -> None:
    """Name the people and programs of a subscriber (User Identity, PS3.7 D.3.3.7)."""


@user.command("add")
@name_argument
@click.argument("user_name", metavar="USER")
@click.option("--token-only", is_flag=True, help="It proves itself by a JSON Web Token only.")
@click.option(
    "--name-only", is_flag=True, help="It proves nothing: its name counts at known devices only."
)
@pass_home
def add_user(home: Home, *, name: str, user_name: str, token_only: bool, name_only: bool) -> None:
    """Add a user, or give it another passcode: asked for, or the first line of standard input."""
    from pacs.app.subscriber import terms

    if token_only and name_only:
        raise click.UsageError("--token-only and --name-only contradict each other")
    passcode = None if token_only or name_only else _passcode(user_name)
    with opened(home) as archive:
        caller = admin("subscriber user add")
        terms(archive).add_user(caller, name, user_name, passcode, named=name_only)
    click.echo(f"{user_name} is a user of {name}")


def _passcode(user_name: str) -> bytes:
    """Ask for a passcode at a terminal, else read it; it is never an argument, which others could see."""
    if sys.stdin.isatty():
        said = click.prompt(
            f"Passcode of {user_name}", hide_input=True, confirmation_prompt=True, err=True
        )
        return str(said).encode()
    return sys.stdin.readline().rstrip("\r\n").encode()


@user.command("list")
@name_argument
@json_option
@pass_home
def list_users(home: Home, *, name: str, as_json: bool) -> None:
    """List the users of a subscriber."""
    from pacs.app.subscriber import terms

    with opened(home) as archive:
        users = terms(archive).users(admin("subscriber user list"), name)
    rows = [{"name": one.name, "proof": one.proof} for one in users]
    emit(rows, ["name", "proof"], as_json=as_json)


@user.command("remove")
@name_argument
@click.argument("user_name", metavar="USER")
@pass_home
def remove_user(home: Home, *, name: str, user_name: str) -> None:
    """Remove a user."""
    from pacs.app.subscriber import terms

    with opened(home) as archive:
        terms(archive).remove_user(admin("subscriber user remove"), name, user_name)
    click.echo(f"{user_name} removed")


# --- agreements -------------------------------------------------------------------


def _agreement_options(command: Any) -> Any:
    for option in (
        click.option("--purpose", default="", help="Only for requests under this purpose."),
        click.option("--study", metavar="UID", help="One study of the owner."),
        click.option("--archive", "everything", is_flag=True, help="The whole archive's images."),
        click.option("--owner", metavar="OTHER", help="Whose images."),
    ):
        command = option(command)
    return command


def _agreement(
    owner: str | None, study: str | None, purpose: str, *, everything: bool
) -> Agreement:
    if (owner is not None) == everything:
        raise click.UsageError("say whose images: --owner OTHER or --archive")
    if study is not None and owner is None:
        raise click.UsageError("a study is named together with its --owner")
    return Agreement(
        owner=None if owner is None else SubscriberName(owner),
        study_instance_uid=None if study is None else StudyInstanceUID(study),
        purpose=purpose,
    )


def _said(one: Agreement) -> str:
    return agreement_text(
        {"owner": one.owner, "study_instance_uid": one.study_instance_uid, "purpose": one.purpose}
    )


@click.command()
@name_argument
@_agreement_options
@pass_home
def agree(home: Home, /, name: str, **said: Any) -> None:
    """Let a subscriber see others' images; to receive them it needs the right, too."""
    from pacs.app.subscriber import terms

    agreed = _agreement(**said)
    with opened(home) as archive:
        terms(archive).agree(admin("subscriber agree"), name, agreed)
    click.echo(f"{name} may see {_said(agreed)}")


@click.command()
@name_argument
@_agreement_options
@pass_home
def disagree(home: Home, /, name: str, **said: Any) -> None:
    """End an agreement, named as it was made."""
    from pacs.app.subscriber import terms

    agreed = _agreement(**said)
    with opened(home) as archive:
        terms(archive).disagree(admin("subscriber disagree"), name, agreed)
    click.echo(f"{name} may no longer see {_said(agreed)}")


# --- purposes and destinations ------------------------------------------------------


@click.group()
def purpose() -> None:
    """Bound what is seen and done under a purpose that requests state."""


@purpose.command("add")
@name_argument
@click.argument("purpose_name", metavar="PURPOSE")
@click.option(
    "--modality", "modalities", multiple=True, help="Kinds of images; may be given again."
)
@click.option("--any-modality", is_flag=True, help="All kinds of images.")
@click.option(
    "--max-matrix",
    metavar="N",
    type=click.IntRange(1, 65_535),
    help="Most Rows, and most Columns, of an image that is delivered.",
)
@click.option("--no-max-matrix", is_flag=True, help="Images of any size.")
@click.option("--process/--no-process", default=None, help="Processing under it, or none.")
@click.option("--report/--no-report", default=None, help="Reports under it, or none.")
@click.option(
    "--default", "is_default", is_flag=True, help="Requests have it unless they state another."
)
@pass_home
def add_purpose(
    home: Home, /, name: str, purpose_name: str, *, is_default: bool, **said: Any
) -> None:
    """Add a purpose, or change the one of that name.

    It bounds nothing that is not said. Of one that is there, what is not said stays:
    a bound is lifted only by --any-modality, --no-max-matrix, --process or --report.
    """
    from pacs.app.subscriber import terms

    edits = _purpose_edits(**said)
    with opened(home) as archive:
        caller = admin("subscriber purpose add")
        terms(archive).add_purpose(caller, name, purpose_name, edits, default=is_default)
    click.echo(f"{name} has the purpose {purpose_name}")


def _purpose_edits(
    *,
    modalities: tuple[str, ...],
    any_modality: bool,
    max_matrix: int | None,
    no_max_matrix: bool,
    process: bool | None,
    report: bool | None,
) -> "PurposeEdits":
    from pacs.services.subscriber.terms import PurposeEdits

    if modalities and any_modality:
        raise click.UsageError("--modality and --any-modality contradict each other")
    if max_matrix is not None and no_max_matrix:
        raise click.UsageError("--max-matrix and --no-max-matrix contradict each other")
    kinds = frozenset(modalities) or None
    given: dict[str, tuple[bool, Any]] = {
        "modalities": (any_modality or kinds is not None, kinds),
        "max_matrix": (no_max_matrix or max_matrix is not None, max_matrix),
        "process": (process is not None, process),
        "report": (report is not None, report),
    }
    return PurposeEdits(**{name: value for name, (is_said, value) in given.items() if is_said})


@purpose.command("remove")
@name_argument
@click.argument("purpose_name", metavar="PURPOSE")
@pass_home
def remove_purpose(home: Home, *, name: str, purpose_name: str) -> None:
    """Remove a purpose."""
    from pacs.app.subscriber import terms

    with opened(home) as archive:
        terms(archive).remove_purpose(admin("subscriber purpose remove"), name, purpose_name)
    click.echo(f"{purpose_name} removed")


@click.group()
def destination() -> None:
    """Let a subscriber have images moved to AEs beside its own."""


@destination.command("add")
@name_argument
@click.argument("ae_title", metavar="AE")
@pass_home
def add_destination(home: Home, *, name: str, ae_title: str) -> None:
    """Allow a move destination. It must be a peer by the time of the C-MOVE."""
    from pacs.app.subscriber import terms

    with opened(home) as archive:
        terms(archive).add_destination(admin("subscriber destination add"), name, ae_title)
    click.echo(f"{name} may have images moved to {ae_title}")


@destination.command("remove")
@name_argument
@click.argument("ae_title", metavar="AE")
@pass_home
def remove_destination(home: Home, *, name: str, ae_title: str) -> None:
    """Take a move destination back."""
    from pacs.app.subscriber import terms

    with opened(home) as archive:
        terms(archive).remove_destination(admin("subscriber destination remove"), name, ae_title)
    click.echo(f"{name} may no longer have images moved to {ae_title}")


# --- enrolment codes -----------------------------------------------------------------


@click.group()
def code() -> None:
    """Make codes by which devices introduce themselves: as the passcode of the user name enrol."""


@code.command("add")
@click.option(
    "--right", "rights", type=RIGHTS, multiple=True, help="Granted when the device is accepted."
)
@click.option("--until", metavar="DATE", help="When it is over; a day is its last.")
@click.option(
    "--uses",
    type=click.IntRange(1, 10_000),
    default=1,
    show_default=True,
    help="How many devices may use it.",
)
@pass_home
def add_code(home: Home, *, rights: tuple[str, ...], until: str | None, uses: int) -> None:
    """Make a code and print it, this once."""
    from pacs.app.route import time_zone
    from pacs.app.subscriber import enrolments

    with opened(home) as archive:
        until_utc = None if until is None else moment(until, time_zone(archive), through=True)
        desk = enrolments(archive.database, archive.audit, archive.settings.subscriber)
        made = desk.add_code(
            admin("subscriber code add"),
            rights=rights_from(rights),
            until_utc=until_utc,
            uses=uses,
        )
    click.echo(made.code)
    note(f"its number is {made.number}; it is not kept and cannot be shown again")


@code.command("list")
@json_option
@pass_home
def list_codes(home: Home, *, as_json: bool) -> None:
    """List codes by number, without the codes themselves."""
    from pacs.app.subscriber import enrolments

    with opened(home) as archive:
        desk = enrolments(archive.database, archive.audit, archive.settings.subscriber)
        codes = desk.codes(admin("subscriber code list"))
    emit(map(code_row, codes), ["id", "rights", "until", "uses_left", "added"], as_json=as_json)


@code.command("remove")
@click.argument("number", type=int)
@pass_home
def remove_code(home: Home, *, number: int) -> None:
    """Forget a code. Devices that enrolled themselves by it keep waiting."""
    from pacs.app.subscriber import enrolments

    with opened(home) as archive:
        desk = enrolments(archive.database, archive.audit, archive.settings.subscriber)
        desk.remove_code(admin("subscriber code remove"), number)
    click.echo(f"code {number} removed")
