"""``pacs reindex``: rebuild the index tables from files and journal."""

from dataclasses import asdict

import click

from pacs.cli import exits
from pacs.cli.archive import opened
from pacs.cli.home import Home, pass_home
from pacs.cli.output import emit, json_option, note, progress
from pacs.core.caller import admin


@click.command()
@json_option
@pass_home
def reindex(home: Home, *, as_json: bool) -> int:
    """Rebuild the index, all or nothing; records are left as they are. Not while serving."""
    from pacs.app.home import exclusive, initialize

    caller = admin("reindex")
    loaded = home.load()
    with exclusive(home.path):
        initialize(home.path, loaded)
        with opened(home) as archive:
            archive.reindex.recover()
            with progress(None, "reindex") as advance:
                damages = archive.reindex.run(caller, lambda: advance(1))
    if damages or as_json:
        emit([asdict(one) for one in damages], ["kind", "file", "detail"], as_json=as_json)
    note(f"index rebuilt, {len(damages)} files could not be read")
    return exits.DAMAGE if damages else exits.DONE
