"""``pacs send``: files and folders to a peer, each file with its outcome."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pacs.association.message import Operation
from pacs.cli import exits
from pacs.cli.home import Home, pass_home
from pacs.cli.output import emit, json_option, note, progress
from pacs.cli.peers import Call, Named, call, described, peer_argument
from pacs.core.caller import admin
from pacs.core.errors import PeerRefused, PeerUnreachable
from pacs.core.records import Payload
from pacs.observe.audit import record_once

if TYPE_CHECKING:
    from scu.store import FileOutcome

Row = Mapping[str, object]
NOT_SENT = "not sent"


@click.command()
@peer_argument
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@json_option
@pass_home
def send(home: Home, *, named: Named, paths: tuple[Path, ...], as_json: bool) -> int:
    """Send DICOM files, and those in folders, to a peer: AE or AE@host:port.

    A file goes out as it is where the peer takes its transfer syntax, and is
    decompressed where it does not. Exit code 5: the association could not be
    made or was lost; 4: the peer refused something; 1: something could not be
    read or converted.
    """
    calling = call(home, named)
    payloads, rows = _read(paths)
    code = exits.FAILED if rows else exits.DONE
    if not payloads:
        emit(rows, ["path", "outcome", "status"], as_json=as_json)
        note("nothing to send")
        return exits.FAILED
    failure: PeerRefused | PeerUnreachable | None = None
    outcomes: list[FileOutcome] = []
    try:
        with progress(len(payloads), "send") as advance:
            for outcome in _outcomes(calling, payloads):
                outcomes.append(outcome)
                advance(1)
    except (PeerRefused, PeerUnreachable) as error:
        failure = error
    _record(home, calling, payloads, outcomes)
    rows += [_row(one) for one in outcomes]
    rows += _unsent(payloads, outcomes)
    emit(rows, ["path", "outcome", "status"], as_json=as_json)
    if failure is not None:
        raise failure
    return max([code, *(_code(one) for one in outcomes)])


def _read(paths: Sequence[Path]) -> tuple[list[Payload], list[Row]]:
    """Find what can be sent, and tell about the rest."""
    from scu.files import Unsendable, read

    payloads: list[Payload] = []
    rows: list[Row] = []
    with progress(None, "read") as advance:
        for one in read(paths):
            advance(1)
            if isinstance(one, Unsendable):
                rows.append({"path": str(one.path), "outcome": one.reason, "status": ""})
            else:
                payloads.append(one)
    return payloads, rows


def _outcomes(calling: Call, payloads: Sequence[Payload]) -> Iterator["FileOutcome"]:
    from pacs.app.calling import transcoding
    from scu.store import send_files

    with transcoding(calling.settings.retrieve) as transcoder:
        yield from send_files(
            calling.peer,
            payloads,
            ae_title=calling.ae_title,
            bounds=calling.bounds,
            transcoder=transcoder,
        )


def _record(
    home: Home, calling: Call, payloads: Sequence[Payload], outcomes: Sequence["FileOutcome"]
) -> None:
    sent = sum(_code(one) == exits.DONE for one in outcomes)
    record_once(
        home.path,
        calling.settings.audit,
        "files-sent",
        admin("send"),
        peer=calling.peer.ae_title,
        sent=sent,
        refused=len(payloads) - sent,
    )


def _row(outcome: "FileOutcome") -> Row:
    status = outcome.status
    return {
        "path": outcome.payload.path,
        "outcome": outcome.sent_as.value,
        "status": described(Operation.C_STORE, status) if status is not None else "",
    }


def _unsent(payloads: Sequence[Payload], outcomes: Sequence["FileOutcome"]) -> list[Row]:
    settled = {id(one.payload) for one in outcomes}
    return [
        {"path": one.path, "outcome": NOT_SENT, "status": ""}
        for one in payloads
        if id(one) not in settled
    ]


def _code(outcome: "FileOutcome") -> int:
    from scu.store import SentAs

    match outcome.sent_as:
        case SentAs.SENT | SentAs.WARNING:
            return exits.DONE
        case SentAs.LOST:
            return exits.UNREACHABLE
        case SentAs.REFUSED | SentAs.UNSUPPORTED:
            return exits.REFUSED
        case SentAs.UNCONVERTED | SentAs.UNREADABLE:
            return exits.FAILED
