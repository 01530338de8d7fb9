"""``pacs workitem``: the worklist, as whoever looks after it sees it."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict

import click
from pydicom.dataset import Dataset

from pacs.cli.archive import opened
from pacs.cli.home import Home, pass_home
from pacs.cli.output import emit, json_option, note
from pacs.core.caller import admin
from pacs.core.workitem_ports import WorkitemFact
from pacs.core.workitems import WorkitemState
from pacs.services.workitems import Outcome

_MOST_ITEMS = 10
_COLUMNS = ["uid", "state", "registrant", "label", "performer", "watchers", "created_utc"]
_states = click.Choice([one.value for one in WorkitemState])


@click.group()
def workitem() -> None:
    """Look at workitems (Unified Procedure Steps); cancel or remove some."""


@workitem.command("list")
@click.option("--state", type=_states, help="Only those in this state.")
@click.option("--limit", type=click.IntRange(1), default=1_000, show_default=True)
@json_option
@pass_home
def list_workitems(home: Home, *, state: str | None, limit: int, as_json: bool) -> None:
    """List workitems, the newest first."""
    chosen = WorkitemState(state) if state else None
    with opened(home) as archive:
        rows = archive.workitems.administration.list(
            admin("workitem list"), state=chosen, limit=limit
        )
    emit((_shown(one) for one in rows), _COLUMNS, as_json=as_json)


@workitem.command()
@click.argument("uid")
@json_option
@pass_home
def show(home: Home, *, uid: str, as_json: bool) -> None:
    """Show everything a workitem says, and who watches it. Never its Transaction UID."""
    caller = admin("workitem show")
    with opened(home) as archive:
        found = archive.workitems.get(caller, uid)
        watches = archive.workitems.administration.watches(caller, uid)
    watchers = [{"ae_title": one.addressee.ae_title, "lock": one.deletion_lock} for one in watches]
    if as_json:
        attributes = found.to_json_dict(suppress_invalid_tags=True)
        emit([{"uid": uid, "attributes": attributes, "watchers": watchers}], [], as_json=True)
        return
    rows = list(_rows(found))
    rows += [{"what": "watched by", "value": str(one["ae_title"])} for one in watchers]
    emit(rows, ["what", "value"])


@workitem.command()
@click.argument("uid")
@click.option("--reason", default="", help="Said to whoever performs or watches it.")
@click.option("--force", is_flag=True, help="Cancel it although somebody performs it: he is gone.")
@pass_home
def cancel(home: Home, *, uid: str, reason: str, force: bool) -> None:
    """Ask whoever performs a workitem to cancel it; one nobody performs is cancelled."""
    request = Dataset()
    if reason:
        request.ReasonForCancellation = reason
    caller = admin("workitem cancel")
    with opened(home) as archive:
        ask = archive.workitems.abandon if force else archive.workitems.request_cancel
        outcome = ask(caller, uid, request)
        state = archive.workitems.get(caller, uid).ProcedureStepState
    note(f"{uid} is {state}" + ("" if outcome is Outcome.DONE else " already"))


@workitem.command()
@click.argument("uid")
@pass_home
def remove(home: Home, *, uid: str) -> None:
    """Remove a workitem that has ended, whoever holds it by a deletion lock."""
    with opened(home) as archive:
        archive.workitems.administration.remove(admin("workitem remove"), uid)
    note(f"{uid} is removed")


def _rows(data_set: Dataset, depth: int = 0) -> Iterator[Mapping[str, str]]:
    """A line for each attribute, those of items below their sequence; of many items the first ones."""
    for one in data_set:
        name = "  " * depth + one.name
        if one.VR != "SQ":
            yield {"what": name, "value": str(one.value)}
            continue
        items = list(one.value or ())
        yield {"what": name, "value": f"{len(items)} item{'' if len(items) == 1 else 's'}"}
        for item in items[:_MOST_ITEMS]:
            yield from _rows(item, depth + 1)
        if len(items) > _MOST_ITEMS:
            more = "… with --json"
            yield {"what": "  " * (depth + 1) + more, "value": f"{len(items) - _MOST_ITEMS} more"}


def _shown(one: WorkitemFact) -> Mapping[str, object]:
    times = ("created_utc", "changed_utc", "ended_utc")
    texts = {name: value.isoformat() for name in times if (value := getattr(one, name))}
    return {**asdict(one), "state": one.state.value, **texts}
