"""``pacs serve``: run the archive until it is told to stop."""

import click

from config.load import variable
from pacs.cli.home import Home, pass_home
from pacs.cli.output import note


@click.command()
@click.option("--host", help="Address to listen on, instead of dicom.host.")
@click.option("--port", type=click.IntRange(0, 65_535), help="Port, instead of dicom.port.")
@click.option("--ae-title", help="Our AE title, instead of dicom.ae_title.")
@click.option(
    "--listeners",
    type=click.IntRange(0, 255),
    help="Processes that hold associations, instead of serve.listeners; 0 for one per core.",
)
@pass_home
def serve(
    home: Home, *, host: str | None, port: int | None, ae_title: str | None, listeners: int | None
) -> None:
    """Run the archive in the foreground; SIGTERM drains it and ends it."""
    from pacs.app.serve import serve as run
    from pacs.observe.log import configure

    options = {
        ("dicom", "host"): host,
        ("dicom", "port"): port,
        ("dicom", "ae_title"): ae_title,
        ("serve", "listeners"): listeners,
    }
    loaded = home.load(
        {variable(*key): str(one) for key, one in options.items() if one is not None}
    )
    configure(loaded.settings.logging)
    dicom = loaded.settings.dicom
    run(
        home.path,
        loaded,
        ready=lambda bound: note(f"{dicom.ae_title} listens on {dicom.host}:{bound}"),
    )
