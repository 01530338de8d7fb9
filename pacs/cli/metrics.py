"""``pacs metrics``: what is measured of the archive, as a collector of text files takes it."""

import click

from pacs.cli.archive import opened
from pacs.cli.home import Home, pass_home


@click.command()
@pass_home
def metrics(home: Home) -> None:
    """Print depth and age of queues, held queues, the outbox and room in Prometheus' text form."""
    from pacs.app.metrics import figures
    from pacs.observe.metrics import written

    with opened(home) as archive:
        click.echo(written(figures(archive)), nl=False)
