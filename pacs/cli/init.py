"""``pacs init``: a home where there was none. Running it again changes nothing."""

import os
from pathlib import Path

import click

from config.load import FILE_NAME
from config.template import template
from pacs.cli.home import Home, pass_home

PRIVATE_DIRECTORY = 0o700
PRIVATE_FILE = 0o600


@click.command()
@pass_home
def init(home: Home) -> None:
    """Create the home: its settings file, its store and its database."""
    from pacs.app.home import initialize

    created = _write_settings(home.path)
    initialize(home.path, home.load())
    state = "created" if created else "is ready"
    click.echo(f"Home {home.path} {state}. Settings: {home.path / FILE_NAME}")
    click.echo(f"Next: pacs --home {home.path} serve")


def _write_settings(path: Path) -> bool:
    """Write pacs.toml unless it is there; whole or not at all, readable by its owner only."""
    path.mkdir(mode=PRIVATE_DIRECTORY, parents=True, exist_ok=True)
    target = path / FILE_NAME
    if target.exists():
        return False
    unfinished = path / f".{FILE_NAME}.{os.getpid()}"
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE_FILE)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(template())
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(target)
    return True
