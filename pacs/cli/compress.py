"""``pacs compress``: hold images losslessly compressed, or as they were received, now."""

import click

from pacs.cli import exits
from pacs.cli.archive import opened
from pacs.cli.home import Home, pass_home
from pacs.cli.output import note, progress
from pacs.core.caller import admin
from pacs.core.forms import SYNTAXES, Outcome, Scope
from pacs.services.compress.tally import Tally

_DAMAGE = ("InstanceCorrupt", "InstanceNotFound")


@click.command()
@click.option("--study", metavar="UID", help="Everything in this study.")
@click.option("--series", metavar="UID", help="Everything in this series.")
@click.option("--all", "everything", is_flag=True, help="Everything that is held.")
@click.option(
    "--to",
    type=click.Choice(list(SYNTAXES)),
    help="In which form; storage.compress when not given.",
)
@click.option("--back", is_flag=True, help="As it was received, byte for byte.")
@click.option("--again", is_flag=True, help="Try what was refused before, too.")
@pass_home
def compress(
    home: Home,
    *,
    study: str | None,
    series: str | None,
    everything: bool,
    to: str | None,
    back: bool,
    again: bool,
) -> int:
    """Compress in this process, on every core; it may be stopped at any time and begun again.

    What could not be made again byte for byte stays as it is, and so does what
    is compressed already. Former files go after storage.keep_original_s.
    """
    if everything == bool(study or series):
        raise click.UsageError("name what is meant: --study, --series or --all")
    target = None if back else _target(home, to)
    if back and to:
        raise click.UsageError("--back is the form it was received in: --to says another")
    scope = Scope(study_instance_uid=study, series_instance_uid=series)
    return _told(_run(home, scope, target, again=again), back=back)


def _target(home: Home, to: str | None) -> str:
    """In which form: as asked, or as the settings say."""
    target = to or home.load().settings.storage.compress
    if target == "off":
        raise click.UsageError("storage.compress is off: say --to")
    return target


def _run(home: Home, scope: Scope, target: str | None, *, again: bool) -> Tally:
    from pacs.app.compress import compression, tidying

    caller = admin("compress")
    with opened(home) as archive:
        service = compression(archive)
        total = service.count(caller, scope, target, again=again)
        with progress(total, "compress" if target else "restore") as advance:
            tally = service.run(caller, scope, target, again=again, advance=advance)
        tidying(archive).run(caller)
    return tally


def _told(tally: Tally, *, back: bool) -> int:
    counts = tally.outcomes
    done = "as received again" if back else "compressed"
    click.echo(
        f"{counts[Outcome.CHANGED]} instances {done}, {tally.before_bytes} bytes before, "
        f"{tally.after_bytes} after"
    )
    for outcome in (Outcome.REFUSED, Outcome.PASSED_OVER, Outcome.FAILED):
        if counts[outcome]:
            note(f"{counts[outcome]} {outcome.value}")
    for reason, count in tally.reasons.items():
        note(f"  {count}: {reason}")
    if not counts[Outcome.FAILED]:
        return exits.DONE
    return exits.DAMAGE if any(one in tally.reasons for one in _DAMAGE) else exits.FAILED
