"""``pacs serve``: run the archive until it is told to stop."""

from functools import partial

import click

from config.load import variable
from config.settings import Dicom
from pacs.cli.home import Home, pass_home
from pacs.cli.output import note

_SETTINGS = {
    "listeners": ("serve", "listeners"),
    "workers": ("jobs", "workers"),
    "tls_port": ("tls", "port"),
}
"""Where an option's setting stands, for those that are not of ``dicom``."""


@click.command()
@click.option("--host", help="Address to listen on, instead of dicom.host.")
@click.option("--port", type=click.IntRange(0, 65_535), help="Port, instead of dicom.port.")
@click.option(
    "--tls-port",
    type=click.IntRange(0, 65_535),
    help="Port for TLS, instead of tls.port; 0 for none.",
)
@click.option("--ae-title", help="Our AE title, instead of dicom.ae_title.")
@click.option(
    "--listeners",
    type=click.IntRange(0, 255),
    help="Processes that hold associations, instead of serve.listeners; 0 for one per core.",
)
@click.option(
    "--workers",
    type=click.IntRange(0, 256),
    help="Processes that run jobs, instead of jobs.workers.",
)
@pass_home
def serve(home: Home, /, **given: str | int | None) -> None:
    """Run the archive in the foreground; SIGTERM drains it and ends it."""
    from pacs.app.serve import serve as run
    from pacs.observe.log import configure

    loaded = home.load(
        {
            variable(*_SETTINGS.get(key, ("dicom", key))): str(value)
            for key, value in given.items()
            if value is not None
        }
    )
    configure(loaded.settings.logging)
    run(home.path, loaded, ready=partial(_said, loaded.settings.dicom))


def _said(dicom: Dicom, port: int | None, tls_port: int | None) -> None:
    if port is not None:
        note(f"{dicom.ae_title} listens on {dicom.host}:{port}")
    if tls_port is not None:
        note(f"{dicom.ae_title} listens on {dicom.host}:{tls_port} with TLS")
