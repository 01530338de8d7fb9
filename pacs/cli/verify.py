"""``pacs verify``: compare files, digests and index, both ways."""

from dataclasses import asdict

import click

from pacs.cli import exits
from pacs.cli.archive import opened
from pacs.cli.home import Home, pass_home
from pacs.cli.output import emit, json_option, note, progress
from pacs.core.caller import admin


@click.command()
@click.option(
    "--restore",
    is_flag=True,
    help="Also make what was received of each compressed file again, and compare.",
)
@json_option
@pass_home
def verify(home: Home, *, restore: bool, as_json: bool) -> int:
    """Re-read every file and compare it with the index; exit code 3 when something is damaged."""
    caller = admin("verify")
    with opened(home) as archive:
        total = archive.verification.count(caller)
        with progress(total, "verify") as advance:
            damages = list(archive.verification.run(caller, lambda: advance(1), restore=restore))
    if damages or as_json:
        emit([asdict(one) for one in damages], ["kind", "file", "detail"], as_json=as_json)
    note(f"{total} files looked at, {len(damages)} damages found")
    return exits.DAMAGE if damages else exits.DONE
