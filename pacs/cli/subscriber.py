"""``pacs subscriber``: contracts, from the first word to the last."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from pacs.cli.archive import opened
from pacs.cli.home import Home, pass_home
from pacs.cli.output import emit, json_option, note
from pacs.cli.subscriber_options import (
    LISTED,
    NONE,
    RIGHTS,
    allocation,
    listed,
    moment,
    name_argument,
    reason_option,
    rights_from,
    shown_form,
    shown_lines,
    term_options,
)
from pacs.cli.subscriber_terms import agree, code, destination, disagree, purpose, user
from pacs.core.caller import SubscriberName, admin
from pacs.core.contract import Contract, ContractState
from pacs.core.contract_form import form_of

if TYPE_CHECKING:
    from pacs.app.archive import Archive


@click.group()
def subscriber() -> None:
    """Say who may reach the archive, and what each may do; a change holds within a second."""


for _command in (user, agree, disagree, purpose, destination, code):
    subscriber.add_command(_command)


@subscriber.command()
@name_argument
@term_options
@click.option("--right", "rights", type=RIGHTS, multiple=True, help="May be given again.")
@click.option("--pending", is_flag=True, help="It holds once it is accepted.")
@pass_home
def add(home: Home, /, name: str, *, rights: tuple[str, ...], pending: bool, **said: Any) -> None:
    """Make a contract. Its name stands in its images for good."""
    from pacs.app.subscriber import contracts

    caller = admin("subscriber add")
    with opened(home) as archive:
        contract = replace(
            Contract(
                subscriber=SubscriberName(name),
                state=ContractState.PENDING if pending else ContractState.ACTIVE,
                issuer_of_patient_id=name,
                rights=rights_from(rights),
            ),
            **_terms(archive, said),
        )
        holds = contracts(archive).add(caller, contract)
    click.echo(f"{name} is {contract.state.value}")
    if holds:
        note(f"images held under the name {name} before are now its own")
    if not rights:
        note(f"it may do nothing yet: 'pacs subscriber grant {name} RIGHT'")
    note(f"its devices: 'pacs peer add AE HOST PORT --subscriber {name}'")


def _terms(archive: "Archive", said: Mapping[str, Any]) -> dict[str, Any]:
    """The terms that were said, by the name of the field."""
    from pacs.app.route import time_zone

    zone = time_zone(archive)
    terms: dict[str, Any] = {}
    if said["issuer"] is not None:
        terms["issuer_of_patient_id"] = said["issuer"]
    if said["allocation"] is not None:
        terms["allocation_bytes"] = allocation(said["allocation"])
    if said["since"] is not None:
        terms["begins_utc"] = moment(said["since"], zone)
    if said["until"] is not None:
        terms["ends_utc"] = moment(said["until"], zone, through=True)
    return terms


@subscriber.command("list")
@json_option
@pass_home
def list_subscribers(home: Home, *, as_json: bool) -> None:
    """List all subscribers."""
    from pacs.app.subscriber import contracts

    with opened(home) as archive:
        found = contracts(archive).list(admin("subscriber list"))
    emit(map(form_of if as_json else listed, found), LISTED, as_json=as_json)


@subscriber.command()
@name_argument
@json_option
@pass_home
def show(home: Home, *, name: str, as_json: bool) -> None:
    """Show a contract, its devices and users, and how much is held for it."""
    from pacs.app.subscriber import contracts

    with opened(home) as archive:
        form = shown_form(contracts(archive).show(admin("subscriber show"), name))
    if as_json:
        emit([form], [], as_json=True)
    else:
        emit(shown_lines(form), ["what", "value"])


@subscriber.command()
@name_argument
@term_options
@click.option(
    "--purpose",
    metavar="PURPOSE",
    help="The purpose its requests have unless they state another; 'none' for none.",
)
@pass_home
def change(home: Home, /, name: str, *, purpose: str | None, **said: Any) -> None:
    """Change terms of a contract."""
    from pacs.app.subscriber import contracts
    from pacs.services.subscriber.contracts import Edits

    with opened(home) as archive:
        terms = _terms(archive, said)
        if purpose is not None:
            terms["purpose"] = "" if purpose == NONE else purpose
        if not terms:
            raise click.UsageError("say what is to be changed")
        contracts(archive).change(admin("subscriber change"), name, Edits(**terms))
    click.echo(f"{name} changed")


@subscriber.command()
@name_argument
@click.argument("rights", metavar="RIGHT...", type=RIGHTS, nargs=-1, required=True)
@pass_home
def grant(home: Home, *, name: str, rights: tuple[str, ...]) -> None:
    """Give rights."""
    from pacs.app.subscriber import contracts

    with opened(home) as archive:
        after = contracts(archive).grant(admin("subscriber grant"), name, rights_from(rights))
    _say_rights(after)


@subscriber.command()
@name_argument
@click.argument("rights", metavar="RIGHT...", type=RIGHTS, nargs=-1, required=True)
@pass_home
def revoke(home: Home, *, name: str, rights: tuple[str, ...]) -> None:
    """Take rights away."""
    from pacs.app.subscriber import contracts

    with opened(home) as archive:
        after = contracts(archive).revoke(admin("subscriber revoke"), name, rights_from(rights))
    _say_rights(after)


def _say_rights(contract: Contract) -> None:
    rights = ", ".join(sorted(one.value for one in contract.rights))
    click.echo(f"{contract.subscriber} may {rights or 'nothing'}")


@subscriber.command()
@name_argument
@reason_option
@pass_home
def suspend(home: Home, *, name: str, reason: str) -> None:
    """Let a contract grant nothing for now; its associations end."""
    from pacs.app.subscriber import contracts

    with opened(home) as archive:
        contracts(archive).suspend(admin("subscriber suspend"), name, reason=reason)
    click.echo(f"{name} is suspended")


@subscriber.command()
@name_argument
@pass_home
def resume(home: Home, *, name: str) -> None:
    """Let a suspended contract hold again."""
    from pacs.app.subscriber import contracts

    with opened(home) as archive:
        contracts(archive).resume(admin("subscriber resume"), name)
    click.echo(f"{name} is active")


@subscriber.command()
@name_argument
@reason_option
@click.option(
    "--images-to", "heirs", metavar="SUBSCRIBER", multiple=True, help="May be given again."
)
@click.option("--images-to-nobody", "nobody", is_flag=True, help="No other subscriber sees them.")
@pass_home
def cancel(home: Home, *, name: str, reason: str, heirs: tuple[str, ...], nobody: bool) -> None:
    """End a contract for good. Its images stay, and those named see them by agreement.

    Agreements about its images that were made with others before end. Who may see the whole
    archive still sees them.
    """
    from pacs.app.subscriber import contracts

    if bool(heirs) == nobody:
        raise click.UsageError(
            "say who may still receive its images: --images-to SUBSCRIBER or --images-to-nobody"
        )
    with opened(home) as archive:
        contracts(archive).cancel(admin("subscriber cancel"), name, reason=reason, images_to=heirs)
    click.echo(f"{name} is cancelled; its images: {', '.join(heirs) or 'nobody'}")


@subscriber.command()
@name_argument
@pass_home
def remove(home: Home, *, name: str) -> None:
    """Remove a cancelled contract that holds no images, with its users and devices."""
    from pacs.app.route import routes
    from pacs.app.subscriber import contracts

    caller = admin("subscriber remove")
    with opened(home) as archive:
        gone = contracts(archive).remove(caller, name)
        orphans = [
            one.name for one in routes(archive).list(caller) if set(gone) & set(one.destinations)
        ]
    click.echo(f"{name} removed")
    if gone:
        note(f"its devices went with it: {', '.join(gone)}")
    if orphans:
        note(f"still destinations of: {', '.join(orphans)}; what they send there fails")


@subscriber.command()
@name_argument
@json_option
@pass_home
def history(home: Home, *, name: str, as_json: bool) -> None:
    """List what was ever changed: when, by whom, what and why."""
    from pacs.app.subscriber import contracts

    with opened(home) as archive:
        entries = contracts(archive).history(admin("subscriber history"), name)
    rows = [
        {"at": one.at_utc.isoformat(), "who": one.who, "what": one.what, "why": one.why}
        for one in entries
    ]
    emit(rows, ["at", "who", "what", "why"], as_json=as_json)


@subscriber.command()
@name_argument
@click.option(
    "--right",
    "rights",
    type=RIGHTS,
    multiple=True,
    help="May be given again; those of its code unless given.",
)
@click.option("--as", "new_name", metavar="NEWNAME", default="", help="Another name for it.")
@pass_home
def accept(home: Home, *, name: str, rights: tuple[str, ...], new_name: str) -> None:
    """Let a pending contract hold: 'pacs subscriber show' tells who enrolled itself."""
    from pacs.app.subscriber import enrolments

    with opened(home) as archive:
        desk = enrolments(archive.database, archive.audit, archive.settings.subscriber)
        accepted = desk.accept(
            admin("subscriber accept"),
            name,
            rights=rights_from(rights) if rights else None,
            new_name=new_name,
        )
    _say_rights(accepted)


@subscriber.command("export")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@pass_home
def export_subscribers(home: Home, *, names: tuple[str, ...]) -> None:
    """Print all contracts, or those named, as JSON for 'pacs subscriber import'.

    With their users and devices. What is kept of passcodes is in it: keep it secret.
    """
    from pacs.app.subscriber import exchange

    with opened(home) as archive:
        click.echo(exchange(archive).exported(admin("subscriber export"), names))


@subscriber.command("import")
@click.argument("file", type=click.File(encoding="utf-8"))
@click.option(
    "--replace", "replacing", is_flag=True, help="Make those that are there as the file says."
)
@pass_home
def import_subscribers(home: Home, *, file: Any, replacing: bool) -> None:
    """Take in what 'pacs subscriber export' printed, all of it or nothing; - is standard input."""
    from pacs.app.subscriber import exchange

    try:
        text = file.read()
    except UnicodeDecodeError as error:
        raise click.UsageError("the file is no UTF-8 text") from error
    with opened(home) as archive:
        taken = exchange(archive).imported(admin("subscriber import"), text, replacing=replacing)
    for one in taken:
        click.echo(one.subscriber)
