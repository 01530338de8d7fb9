"""``pacs usage``: what subscribers used in a month, in units that can be priced."""

from collections.abc import Sequence
from dataclasses import asdict, fields

import click

from pacs.cli import exits
from pacs.cli.archive import opened
from pacs.cli.home import Home, pass_home
from pacs.cli.output import emit, json_option, note
from pacs.core.caller import SubscriberName, admin
from pacs.core.usage import Difference, Month
from pacs.services.usage import UsageLine

_COLUMNS = [one.name for one in fields(UsageLine) if one.name != "month"]
_DIFFERENCE = ["subscriber", "noted_instances", "held_instances", "noted_bytes", "held_bytes"]


@click.command()
@click.option("--subscriber", metavar="NAME", help="Only what this one used.")
@click.option("--month", "of", metavar="YYYY-MM", help="In UTC; the current one unless given.")
@click.option(
    "--check",
    is_flag=True,
    help="Instead, compare what is held by the facts with the index; exit code 3 where it differs.",
)
@json_option
@pass_home
def usage(home: Home, *, subscriber: str | None, of: str | None, check: bool, as_json: bool) -> int:
    """Add up a month's facts: registered, held, delivered, connected, processed."""
    caller = admin("usage")
    month = None if of is None else _month(of)
    whose = None if subscriber is None else SubscriberName(subscriber)
    with opened(home) as archive:
        if check:
            return _checked(archive.usage.differences(caller), as_json=as_json)
        lines = archive.usage.lines(caller, month or archive.usage.this_month(), whose)
    emit([asdict(one) for one in lines], _COLUMNS, as_json=as_json)
    return exits.DONE


def _month(text: str) -> Month:
    try:
        return Month.parse(text)
    except ValueError as error:
        raise click.UsageError(f"{text!r} is no month as 2026-01") from error


def _checked(differences: Sequence[Difference], *, as_json: bool) -> int:
    rows = [
        {
            "subscriber": one.subscriber,
            "noted_instances": one.noted.instances,
            "held_instances": one.held.instances,
            "noted_bytes": one.noted.size_bytes,
            "held_bytes": one.held.size_bytes,
        }
        for one in differences
    ]
    if rows or as_json:
        emit(rows, _DIFFERENCE, as_json=as_json)
    note(f"{len(rows)} subscribers hold another amount than the facts say")
    return exits.DAMAGE if rows else exits.DONE
