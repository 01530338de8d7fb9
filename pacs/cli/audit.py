"""``pacs audit``: is the trail whole, what does it say, what would a collector be told."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from pacs.cli import exits
from pacs.cli.archive import opened
from pacs.cli.home import Home, pass_home
from pacs.cli.output import emit, json_option, note
from pacs.core.caller import admin

if TYPE_CHECKING:
    from pacs.app.archive import Archive
    from pacs.observe.audit.records import Record
    from pacs.observe.audit.verify import Finding

_COLUMNS = ["n", "time", "event", "subscriber", "user", "ae_title", "address", "details"]
_MOST_TOLD = 1_000
_since_option = click.option(
    "--since",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]),
    help="Only what happened from this UTC time on.",
)


@click.group()
def audit() -> None:
    """Verify, list and export the audit trail; reading it is put on record."""


@audit.command()
@json_option
@pass_home
def verify(home: Home, *, as_json: bool) -> int:
    """Check every record against its chain; exit code 3, and where, when it was tampered with."""
    with opened(home) as archive:
        total, looking = archive.audit.verify()
        found: list[Finding] = []
        damages = more = 0
        for one in looking:
            damages += one.damage
            more += len(found) >= _MOST_TOLD
            if len(found) < _MOST_TOLD:
                found.append(one)
        place = next((f"{one.file}:{one.line}" for one in found if one.damage), None)
        archive.audit.record(
            "audit-verified", admin("audit verify"), records=total, damages=damages, place=place
        )
    if found or as_json:
        emit([asdict(one) for one in found], ["file", "line", "kind", "detail"], as_json=as_json)
    untold = f", {more} more not shown" if more else ""
    note(f"{total} records looked at, {damages} damages found{untold}")
    return exits.DAMAGE if damages else exits.DONE


@audit.command("list")
@_since_option
@click.option("--event", help="Only events of this name.")
@click.option("--subscriber", help="Only those of this subscriber.")
@json_option
@pass_home
def list_records(
    home: Home, *, since: datetime | None, event: str | None, subscriber: str | None, as_json: bool
) -> None:
    """List records, the oldest first."""
    with opened(home) as archive:
        archive.audit.record("audit-read", admin("audit list"))
        chosen = (
            one
            for one in _from(archive, since)
            if event in (None, one.get("event")) and subscriber in (None, one.get("subscriber"))
        )
        rows = (_plain(one) if as_json else _row(one) for one in chosen)
        emit(rows, _COLUMNS, as_json=as_json)


@audit.command()
@_since_option
@pass_home
def export(home: Home, *, since: datetime | None) -> None:
    """Print the trail as DICOM audit messages (PS3.15 A.5), one XML document a line."""
    from pacs.app.audit import source_of
    from pacs.observe.audit.fold import Folded, Folding
    from pacs.observe.audit.mapping import messages_of
    from pacs.observe.audit.message import xml_of
    from pacs.observe.audit.records import Spot

    with opened(home) as archive:
        archive.audit.record("audit-read", admin("audit export"))
        folding, source = Folding(archive.settings.audit), source_of(archive)

        def complete() -> Iterator[Folded]:
            for record in _from(archive, since):
                yield from folding.take(record, Spot())
            yield from folding.rest()

        for folded in complete():
            for message in messages_of(folded, source):
                click.echo(xml_of(message, source).decode())


def _from(archive: "Archive", since: datetime | None) -> Iterator["Record"]:
    from pacs.observe.audit.fold import time_of
    from pacs.observe.audit.records import Spot, records

    first = None if since is None else since.replace(tzinfo=UTC)
    # A record is never in a file of an earlier day than its own.
    spot = Spot() if first is None else Spot(first.toordinal(), 0, 0)
    for record, _ in records(archive.audit.folder, spot):
        if first is None or time_of(record) >= first:
            yield record


def _plain(record: "Record") -> Mapping[str, object]:
    return {name: value for name, value in record.items() if name != "hash"}


def _row(record: "Record") -> Mapping[str, object]:
    shown = {name: record.get(name) for name in _COLUMNS[:-1]}
    rest = {name: value for name, value in record.items() if name not in (*shown, "hash")}
    return {**shown, "details": " ".join(f"{name}={value}" for name, value in rest.items())}
