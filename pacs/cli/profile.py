"""``pacs process profile``: operations under AE titles of their own, and ``pacs process profiles``, their list."""

from typing import Any

import click

from pacs.cli.archive import opened
from pacs.cli.home import Home, pass_home
from pacs.cli.output import emit, json_option
from pacs.cli.parameters import parameters_of
from pacs.core.caller import admin
from pacs.core.identifiers import AETitle
from pacs.core.processing import Keep, ProcessingOrder, Profile
from pacs.core.profile_form import form_of

COLUMNS = ["ae_title", "active", "operation", "parameters", "to", "keep"]
_KEEP = click.Choice([one.value for one in Keep])


@click.group()
def profile() -> None:
    """Let an AE title stand for an operation; a change holds within a second."""


@profile.command()
@click.argument("ae_title", metavar="AE")
@click.argument("operation")
@click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="A parameter; may be repeated."
)
@click.option("--version", default="", help="Of the operation; the newest installed unless given.")
@click.option("--series-description", default="", help="Of the derived series.")
@click.option("--to", multiple=True, metavar="AE", help="Who gets the results; may be repeated.")
@click.option("--to-sender", is_flag=True, help="Whoever sent the images gets the results.")
@click.option(
    "--keep-results",
    type=_KEEP,
    default=Keep.YES.value,
    show_default=True,
    help="Hold the results, or until every destination has them.",
)
@click.option(
    "--keep-sources",
    type=_KEEP,
    default=Keep.YES.value,
    show_default=True,
    help="Hold what is sent there, or until every destination has the results.",
)
@click.option("--group", default="", help="Of the nodes that may do it; all unless given.")
@click.option("--replace", "replacing", is_flag=True, help="Change the profile of that AE title.")
@pass_home
def add(home: Home, /, *, replacing: bool, **said: Any) -> None:
    """Add a profile. What is sent to AE is processed by OPERATION once its series is quiet."""
    from pacs.app.profile import profiles as service

    made = _profile_of(said)
    with opened(home) as archive, service(archive) as changing:
        changing.add(admin("profile add"), made, replacing=replacing)
    to = [*made.order.destinations, *(["the sender"] if made.asker else [])]
    click.echo(f"{made.ae_title}: {made.order.operation} to {', '.join(to) or 'be fetched'}")


def _profile_of(said: dict[str, Any]) -> Profile:
    return Profile(
        ae_title=AETitle(said["ae_title"].strip()),
        order=ProcessingOrder(
            operation=said["operation"],
            version=said["version"],
            parameters=parameters_of(said["settings"]),
            series_description=said["series_description"],
            destinations=tuple(AETitle(one.strip()) for one in said["to"]),
            keep_results=Keep(said["keep_results"]),
            group=said["group"],
        ),
        asker=said["to_sender"],
        keep_sources=Keep(said["keep_sources"]),
    )


@profile.command()
@click.argument("ae_title", metavar="AE")
@pass_home
def remove(home: Home, *, ae_title: str) -> None:
    """Remove a profile. What it has asked for already is done; its sources are kept."""
    from pacs.app.profile import profiles as service

    with opened(home) as archive, service(archive) as changing:
        changing.remove(admin("profile remove"), ae_title)
    click.echo(f"{ae_title} removed")


@profile.command()
@click.argument("ae_title", metavar="AE")
@pass_home
def enable(home: Home, *, ae_title: str) -> None:
    """Let a profile hold again, for what arrives from now on."""
    _activate(home, ae_title, active=True)


@profile.command()
@click.argument("ae_title", metavar="AE")
@pass_home
def disable(home: Home, *, ae_title: str) -> None:
    """Switch a profile off: what arrives is held, and what is not quiet yet is not processed."""
    _activate(home, ae_title, active=False)


def _activate(home: Home, ae_title: str, *, active: bool) -> None:
    from pacs.app.profile import profiles as service

    word = "enabled" if active else "disabled"
    with opened(home) as archive, service(archive) as changing:
        changing.activate(admin(f"profile {word[:-1]}"), ae_title, active=active)
    click.echo(f"{ae_title} {word}")


@profile.command("export")
@click.argument("ae_titles", metavar="[AE]...", nargs=-1)
@pass_home
def export_profiles(home: Home, *, ae_titles: tuple[str, ...]) -> None:
    """Print all profiles, or those named, as JSON for 'pacs process profile import'."""
    from pacs.app.profile import profiles as service

    with opened(home) as archive, service(archive) as changing:
        click.echo(changing.exported(admin("profile export"), ae_titles))


@profile.command("import")
@click.argument("file", type=click.File(encoding="utf-8"))
@click.option(
    "--replace", "replacing", is_flag=True, help="Change profiles that are there already."
)
@pass_home
def import_profiles(home: Home, *, file: Any, replacing: bool) -> None:
    """Take in what 'pacs process profile export' printed, all of it or nothing; - is standard input."""
    from pacs.app.profile import profiles as service

    try:
        text = file.read()
    except UnicodeDecodeError as error:
        raise click.UsageError("the file is no UTF-8 text") from error
    with opened(home) as archive, service(archive) as changing:
        taken = changing.imported(admin("profile import"), text, replacing=replacing)
    for one in taken:
        click.echo(one.ae_title)


@click.command()
@json_option
@pass_home
def profiles(home: Home, *, as_json: bool) -> None:
    """List the profiles: what is sent to which AE title is processed how, and who gets it."""
    from pacs.app.profile import profiles as service

    with opened(home) as archive, service(archive) as changing:
        found = changing.list(admin("profiles"))
    emit(map(form_of if as_json else _row, found), COLUMNS, as_json=as_json)


def _row(one: Profile) -> dict[str, object]:
    order = one.order
    kept = [
        f"{what} {keep.value}"
        for what, keep in (("results", order.keep_results), ("sources", one.keep_sources))
        if keep is not Keep.YES
    ]
    return {
        "ae_title": one.ae_title,
        "active": "yes" if one.active else "no",
        "operation": f"{order.operation} {order.version}".strip(),
        "parameters": [f"{name}={value}" for name, value in order.parameters.items()],
        "to": [*order.destinations, *(["the sender"] if one.asker else [])],
        "keep": kept or "all",
    }
