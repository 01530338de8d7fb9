"""``pacs stats``: how much the archive holds."""

import json

import click

from pacs.cli.archive import opened
from pacs.cli.home import Home, pass_home
from pacs.cli.output import emit
from pacs.core.caller import admin


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@pass_home
def stats(home: Home, *, as_json: bool) -> None:
    """Count patients, studies, series, instances and bytes."""
    with opened(home) as archive:
        counts = archive.statistics.read(admin("stats"))
    if as_json:
        click.echo(json.dumps(dict(counts), indent=1))
    else:
        emit(
            [{"what": name, "number": number} for name, number in counts.items()],
            ["what", "number"],
        )
