"""``pacs ls``: what the archive holds."""

import click

from pacs.cli.archive import opened
from pacs.cli.home import Home, pass_home
from pacs.cli.keys import parse_keys
from pacs.cli.output import emit, json_option
from pacs.core.attributes import Level
from pacs.core.caller import admin

LEVELS = {
    "patients": Level.PATIENT,
    "studies": Level.STUDY,
    "series": Level.SERIES,
    "instances": Level.IMAGE,
}


@click.command()
@click.argument("words", nargs=-1, metavar=f"[{'|'.join(LEVELS)}] [KEYWORD=VALUE]...")
@json_option
@pass_home
def ls(home: Home, *, words: tuple[str, ...], as_json: bool) -> None:
    """List patients, studies (unless said otherwise), series or instances.

    Keys narrow it as in C-FIND: PatientName='DOE*' StudyDate=20260101-
    """
    from pacs.services.ls import COLUMNS, is_keyword

    what, keys = (words[0], words[1:]) if words and "=" not in words[0] else ("studies", words)
    if what not in LEVELS:
        raise click.UsageError(f"{what!r} is none of {', '.join(LEVELS)}")
    wanted = parse_keys(keys)
    if unknown := [one for one in wanted if not is_keyword(one)]:
        raise click.UsageError(f"{unknown[0]} is not a DICOM keyword")
    level = LEVELS[what]
    columns = list(dict.fromkeys((*COLUMNS[level], *wanted)))
    with opened(home) as archive:
        emit(archive.listing.rows(admin("ls"), level, wanted), columns, as_json=as_json)
