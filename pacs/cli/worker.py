"""``pacs worker``: run jobs without a server, on any machine that reaches database and store."""

import click

from pacs.cli.home import Home, pass_home
from pacs.cli.output import note


@click.command()
@click.option(
    "--queues",
    default="",
    metavar="A,B",
    help="Only these queues, or those they are the base of; process:GROUP for what a group is asked.",
)
@click.option(
    "--processes", type=click.IntRange(1, 256), help="Worker processes, instead of jobs.workers."
)
@pass_home
def worker(home: Home, *, queues: str, processes: int | None) -> None:
    """Run jobs in the foreground; SIGTERM lets those at hand finish, or gives them back."""
    from pacs.app.workers import run_workers
    from pacs.observe.log import configure

    loaded = home.load()
    configure(loaded.settings.logging)
    count = processes or max(1, loaded.settings.jobs.workers)
    chosen = [one.strip() for one in queues.split(",") if one.strip()]
    run_workers(home.path, loaded, count, chosen, ready=lambda: note(f"{count} worker(s) run jobs"))
