"""``pacs process``: what can be computed of images that are held, and doing it now."""

import os

import click

from pacs.cli import exits
from pacs.cli.archive import opened
from pacs.cli.home import Home, pass_home
from pacs.cli.output import emit, json_option, note, progress
from pacs.cli.parameters import parameters_of
from pacs.cli.preview import preview
from pacs.cli.profile import profile, profiles
from pacs.core.attributes import Level
from pacs.core.caller import admin
from pacs.core.errors import ProcessingRefused
from pacs.core.records import Selection
from pacs.services.process import Asked, Tally

COLUMNS = ["name", "version", "takes", "code", "parameters", "summary"]


@click.group()
def process() -> None:
    """Make derived images of images that are held: filters, projections, reformats, subtractions."""


for command in (profile, profiles, preview):
    process.add_command(command)


@process.command()
@json_option
def operations(*, as_json: bool) -> None:
    """List the operations, what each makes one result of, and its parameters with their defaults."""
    from dataclasses import asdict

    from pacs.app.process import operations as known

    rows = []
    for one in known():
        row = {**asdict(one), "takes": one.takes.value}
        if not as_json:
            row["parameters"] = " ".join(f"{each.name}={each.default}" for each in one.parameters)
        rows.append(row)
    emit(rows, COLUMNS, as_json=as_json)


@process.command()
@click.argument("operation")
@click.option("--study", metavar="UID", help="Everything in this study.")
@click.option("--series", metavar="UID", help="Everything in this series.")
@click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="A parameter; may be repeated."
)
@click.option("--series-description", default="", help="Of the derived series.")
@pass_home
def run(
    home: Home,
    *,
    operation: str,
    study: str | None,
    series: str | None,
    settings: tuple[str, ...],
    series_description: str,
) -> int:
    """Compute in this process, on every core, and hold the results as derived series.

    This is the administrator's door, at the machine: it asks nobody who you are. The results
    belong to whoever registered the source, and to its study; usage is noted for them, and
    once there are contracts theirs must grant processing. Asked again, it makes a further series.
    Exit code 1: something could not be processed or is not granted; what could is held.
    """
    if not (study or series):
        raise click.UsageError("name what is meant: --study or --series")
    asked = Asked(
        operation=operation,
        parameters=parameters_of(settings),
        selection=_selection(study, series),
        series_description=series_description,
    )
    return _told(_run(home, asked))


def _run(home: Home, asked: Asked) -> Tally:
    from pacs.app.process import processing

    with (
        opened(home) as archive,
        processing(archive) as service,
        progress(None, "process") as advance,
    ):
        return service.run(
            admin("process"),
            asked,
            workers=os.cpu_count() or 1,
            most=archive.settings.process.max_instances,
            advance=advance,
        )


def _selection(study: str | None, series: str | None) -> Selection:
    return Selection(
        level=Level.SERIES if series else Level.STUDY,
        study_instance_uids=(study,) if study else (),
        series_instance_uids=(series,) if series else (),
    )


def _told(tally: Tally) -> int:
    """Print the derived series; where there is none, the reason is the error."""
    if not tally.derived:
        raise ProcessingRefused("; ".join(tally.reasons) or "it gave no result")
    click.echo(f"{tally.derived} images derived of {tally.sources}")
    for uid in tally.series:
        click.echo(uid)
    for reason, count in tally.reasons.items():
        note(f"{count} not done: {reason}")
    return exits.FAILED if tally.reasons else exits.DONE
