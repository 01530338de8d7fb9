"""``pacs config``: the settings in force and where each comes from."""

import click
from msgspec import structs

from config.template import describe, masked
from pacs.cli.home import Home, pass_home
from pacs.cli.output import emit, json_option


@click.group()
def config() -> None:
    """Look at the settings of pacs.toml and the environment."""


@config.command()
@json_option
@pass_home
def show(home: Home, *, as_json: bool) -> None:
    """Print every setting with its value and its source; passwords are hidden."""
    loaded = home.load()
    tables = {
        **{name: getattr(loaded.settings, name) for name in loaded.settings.__struct_fields__},
        **loaded.extensions,
    }
    rows = [
        {"setting": name, "value": masked(value), "source": loaded.sources[name]}
        for table, struct in tables.items()
        for name, value in ((f"{table}.{key}", one) for key, one in structs.asdict(struct).items())
    ]
    emit(rows, ["setting", "value", "source"], as_json=as_json)


@config.command()
def explain() -> None:
    """Print what every setting is for and what it accepts."""
    rows = (
        {
            "setting": one.name,
            "purpose": one.description,
            "accepts": one.accepts,
            "default": one.default,
        }
        for one in describe()
    )
    emit(rows, ["setting", "purpose", "accepts", "default"])
