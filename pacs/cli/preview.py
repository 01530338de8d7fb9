"""``pacs process preview``: one result of an operation as a picture, nothing held."""

from pathlib import Path

import click

from pacs.cli.archive import opened
from pacs.cli.home import Home, pass_home
from pacs.cli.parameters import parameters_of
from pacs.core.attributes import Level
from pacs.core.caller import admin
from pacs.core.records import Selection


@click.command()
@click.argument("operation")
@click.option("--study", metavar="UID", help="What it has of one place, or its first image.")
@click.option("--series", metavar="UID", help="Its volume, or its first image.")
@click.option("--instance", metavar="UID", help="This image.")
@click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="A parameter; may be repeated."
)
@click.option(
    "--frame",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="Which result: of images their frames, of a volume what is made of it, counted through.",
)
@click.option(
    "--output",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="The PNG file that is written.",
)
@click.option(
    "--window",
    metavar="C,W",
    help="Center and width of gray results; else those the result itself says.",
)
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@pass_home
def preview(home: Home, /, *, output: Path, force: bool, operation: str, **said: object) -> None:
    """Compute one result and write it as an 8-bit PNG picture: what an operation will do.

    Of an operation on each image, the first image of what is named is taken. Nothing is held, no usage noted.
    Once there are contracts, that of whose images they are must grant processing.
    """
    from pacs.app.preview import previews
    from pacs.services.preview import Glimpse

    if output.exists() and not force:
        raise click.UsageError(f"{output} is there: name another file, or say --force")
    settings, frame = said["settings"], said["frame"]
    asked = Glimpse(
        operation=operation,
        parameters=parameters_of(settings if isinstance(settings, tuple) else ()),
        selection=_selection(said),
        frame=frame if isinstance(frame, int) else 1,
        window=_window(said["window"]),
    )
    with opened(home) as archive, previews(archive) as service:
        picture = service.png(admin("process preview"), asked)
    _write(output, picture, force=force)
    click.echo(str(output))


def _selection(said: dict[str, object]) -> Selection:
    named = {key: str(said[key]) for key in ("study", "series", "instance") if said[key]}
    if not named:
        raise click.UsageError("name what is meant: --study, --series or --instance")
    levels = {"instance": Level.IMAGE, "series": Level.SERIES, "study": Level.STUDY}
    return Selection(
        level=next(level for key, level in levels.items() if key in named),
        study_instance_uids=(named["study"],) if "study" in named else (),
        series_instance_uids=(named["series"],) if "series" in named else (),
        sop_instance_uids=(named["instance"],) if "instance" in named else (),
    )


def _window(text: object) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        center, width = map(float, str(text).split(","))
    except ValueError as error:
        raise click.UsageError(f"--window {text!r}: write center and width, as 40,400") from error
    if not (width > 0 and abs(center) + width < float("inf")):
        raise click.UsageError("--window: a width is above 0")
    return center, width


def _write(output: Path, picture: bytes, *, force: bool) -> None:
    try:
        with output.open("wb" if force else "xb") as file:
            file.write(picture)
    except OSError as error:
        raise click.ClickException(f"{output}: {error.strerror}") from error
