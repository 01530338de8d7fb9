"""``pacs route``: which arrivals go where, how changed and with which company."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pacs.cli.archive import opened
from pacs.cli.home import Home, pass_home
from pacs.cli.output import emit, json_option, note, plain
from pacs.cli.route_options import route_of, route_options
from pacs.core.caller import admin
from pacs.core.identifiers import AETitle, Registrant
from pacs.core.records import Provenance
from pacs.core.route_form import WHEN_OF, form_of

if TYPE_CHECKING:
    from pacs.core.routing import Route
    from pacs.services.route.trial import Trial

_HOLDS = {True: "yes", False: "no", None: "depends"}


@click.group()
def route() -> None:
    """Say which arrivals are sent where; a change holds within a second."""


@route.command()
@click.argument("name")
@route_options
@click.option("--replace", "replacing", is_flag=True, help="Change the route of that name.")
@pass_home
def add(home: Home, /, name: str, *, replacing: bool, **said: Any) -> None:
    """Add a route. What matches all it asks for is sent to every destination."""
    from pacs.app.route import routes

    made = route_of(name, said)
    with opened(home) as archive:
        routes(archive).add(admin("route add"), made, replacing=replacing)
    click.echo(f"{name}: {WHEN_OF[made.level]} to {', '.join(made.destinations)}")


@route.command("list")
@json_option
@pass_home
def list_routes(home: Home, *, as_json: bool) -> None:
    """List all routes."""
    from pacs.app.route import routes

    with opened(home) as archive:
        found = routes(archive).list(admin("route list"))
        waiting = {
            one.name: routes(archive).waiting(admin("route list"), one.name) for one in found
        }
    if as_json:
        emit([{**form_of(one), "waiting": waiting[one.name]} for one in found], [], as_json=True)
        return
    rows = [{**_row(one), "waiting": waiting[one.name]} for one in found]
    emit(rows, ["name", "active", "when", "to", "conditions", "also", "waiting"])


def _row(one: "Route") -> dict[str, object]:
    from pacs.services.route.conditions import window_text

    keys = [f"{'unless ' if key.unless else ''}{key.path}={key.value}" for key in one.keys]
    calling = [f"calling {title}" for title in one.calling_ae_titles]
    called = [f"called {title}" for title in one.called_ae_titles]
    windows = [window_text(window) for window in one.windows]
    return {
        "name": one.name,
        "active": "yes" if one.active else "no",
        "when": WHEN_OF[one.level],
        "to": one.destinations,
        "conditions": [*one.registrants, *calling, *called, *windows, *keys],
        "also": list(_also(one)),
    }


def _also(one: "Route") -> Iterator[str]:
    for coercion in one.coercions:
        yield f"{coercion.kind.value} {coercion.keyword}"
    if one.priors is not None:
        yield f"{one.priors.latest} priors"
    if one.commitment.value != "no":
        yield f"commitment {one.commitment.value}"
    if one.in_order:
        yield "in order"
    if one.priority:
        yield f"priority {one.priority}"


@route.command()
@click.argument(
    "path", metavar="FILE", type=click.Path(path_type=Path, exists=True, dir_okay=False)
)
@click.option(
    "--calling", default="", metavar="AE", help="Who sends it; else the source its file names."
)
@click.option("--called", metavar="AE", help="Whom the sender calls; else dicom.ae_title.")
@click.option("--registrant", default="local", show_default=True, help="Whose it is.")
@click.option(
    "--at", "when", metavar="TIME", help="When it arrives, as 2026-01-31T07:30; else now."
)
@json_option
@pass_home
def test(
    home: Home,
    *,
    path: Path,
    calling: str,
    called: str | None,
    registrant: str,
    when: str | None,
    as_json: bool,
) -> None:
    """Say which routes would fire for a file, and what each condition says. Nothing is sent."""
    from pacs.app.route import routes, time_zone

    with opened(home) as archive:
        settings = archive.settings
        provenance = Provenance(
            registrant=Registrant(registrant),
            issuer_of_patient_id=settings.identity.issuer_of_patient_id,
            received_utc=_moment(when, time_zone(archive)),
            association="route test",
            source_ae_title=AETitle(calling),
            receiving_ae_title=AETitle(called or settings.dicom.ae_title),
        )
        trials = routes(archive).test(admin("route test"), path, provenance)
    if as_json:
        emit(map(_trial_form, trials), [], as_json=True)
        return
    if not trials:
        note("there are no routes")
    for one in trials:
        for line in _trial_lines(one):
            click.echo(line)


def _moment(text: str | None, zone: Any) -> datetime:
    if text is None:
        return datetime.now(UTC)
    try:
        read = datetime.fromisoformat(text)
    except ValueError as error:
        raise click.UsageError(f"{text!r} is no time as 2026-01-31T07:30") from error
    return (read if read.tzinfo else read.replace(tzinfo=zone)).astimezone(UTC)


def _trial_form(one: "Trial") -> Mapping[str, object]:
    return {
        "route": one.route.name,
        "active": one.route.active,
        "when": WHEN_OF[one.route.level],
        "fires": _HOLDS[one.fires],
        "to": list(one.destinations),
        "why": one.why,
        "conditions": [
            {"condition": finding.condition, "holds": _HOLDS[finding.holds], "seen": finding.seen}
            for finding in one.findings
        ],
    }


def _trial_lines(one: "Trial") -> Iterator[str]:
    verdicts = {True: "fires", False: "does not fire", None: "may fire"}
    to = (
        f", {WHEN_OF[one.route.level]} to {', '.join(one.destinations)}"
        if one.fires is not False
        else ""
    )
    yield f"{one.route.name}: {verdicts[one.fires]}{to}{f' ({one.why})' if one.why else ''}"
    for finding in one.findings:
        yield plain(f"  {_HOLDS[finding.holds]}: {finding.condition} [{finding.seen}]")


@route.command()
@click.argument("name")
@pass_home
def remove(home: Home, *, name: str) -> None:
    """Remove a route. Jobs that wait in its name stay, and end by themselves."""
    from pacs.app.route import routes

    with opened(home) as archive:
        waiting = routes(archive).remove(admin("route remove"), name)
    click.echo(f"{name} removed")
    if waiting:
        note(f"{waiting} jobs in its name have not ended: 'pacs job list' shows them")


@route.command()
@click.argument("name")
@pass_home
def enable(home: Home, *, name: str) -> None:
    """Let a route hold again, for what arrives from now on."""
    _activate(home, name, active=True)


@route.command()
@click.argument("name")
@pass_home
def disable(home: Home, *, name: str) -> None:
    """Switch a route off; what it asked for already is still sent."""
    _activate(home, name, active=False)


def _activate(home: Home, name: str, *, active: bool) -> None:
    from pacs.app.route import routes

    word = "enabled" if active else "disabled"
    with opened(home) as archive:
        routes(archive).activate(admin(f"route {word[:-1]}"), name, active=active)
    click.echo(f"{name} {word}")


@route.command("export")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@pass_home
def export_routes(home: Home, *, names: tuple[str, ...]) -> None:
    """Print all routes, or those named, as JSON for 'pacs route import'."""
    from pacs.app.route import routes

    with opened(home) as archive:
        click.echo(routes(archive).exported(admin("route export"), names))


@route.command("import")
@click.argument("file", type=click.File(encoding="utf-8"))
@click.option("--replace", "replacing", is_flag=True, help="Change routes that are there already.")
@pass_home
def import_routes(home: Home, *, file: Any, replacing: bool) -> None:
    """Take in what 'pacs route export' printed, all of it or nothing; - is standard input."""
    from pacs.app.route import routes

    try:
        text = file.read()
    except UnicodeDecodeError as error:
        raise click.UsageError("the file is no UTF-8 text") from error
    with opened(home) as archive:
        taken = routes(archive).imported(admin("route import"), text, replacing=replacing)
    for one in taken:
        click.echo(one.name)
