"""How a route is said on the command line: the options of ``pacs route add``, read into a ``Route``."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import time
from typing import Any

import click

from pacs.core.errors import EntryConflicts
from pacs.core.identifiers import AETitle, Registrant
from pacs.core.route_form import LEVEL_OF
from pacs.core.routing import Coercion, CoercionKind, Commitment, Priors, Route, RouteKey, Window

_HOURS = re.compile(r"([01]?\d|2[0-4]):([0-5]\d)-([01]?\d|2[0-4]):([0-5]\d)\Z")


def route_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that describe a route."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


_OPTIONS = (
    click.option(
        "--to",
        "to",
        metavar="AE",
        required=True,
        multiple=True,
        help="Destination; may be given again.",
    ),
    click.option(
        "--when",
        type=click.Choice(list(LEVEL_OF)),
        default="study",
        show_default=True,
        help="What arrives: each instance, or a series or study once it is quiet.",
    ),
    click.option(
        "--match",
        metavar="KEY=VALUE",
        multiple=True,
        help="An attribute matches as in C-FIND; KEY= or KEY=* asks for any value.",
    ),
    click.option(
        "--unless", metavar="KEY=VALUE", multiple=True, help="An attribute does not match."
    ),
    click.option(
        "--calling",
        metavar="PATTERN",
        multiple=True,
        help="AE title of the sender; * and ? are wild cards.",
    ),
    click.option("--called", metavar="PATTERN", multiple=True, help="AE title the sender called."),
    click.option(
        "--registrant", "registrants", metavar="NAME", multiple=True, help="Whose instances."
    ),
    click.option("--days", metavar="DAYS", help="Days of the week it holds: mon-fri or sat,sun."),
    click.option(
        "--hours",
        metavar="HH:MM-HH:MM",
        multiple=True,
        help="Time of day it holds, past midnight too: 22:00-06:00.",
    ),
    click.option("--set", "sets", metavar="KEY=VALUE", multiple=True, help="Send this value."),
    click.option("--delete", "deletes", metavar="KEY", multiple=True, help="Send without it."),
    click.option(
        "--map", "maps", metavar="KEY:OLD=NEW", multiple=True, help="Send NEW where it is OLD."
    ),
    click.option(
        "--prefix", "prefixes", metavar="KEY=TEXT", multiple=True, help="Send it with TEXT before."
    ),
    click.option(
        "--priors",
        type=int,
        metavar="N",
        help="Send the N latest earlier studies of the patient along.",
    ),
    click.option("--same-modality", is_flag=True, help="Only priors with a modality in common."),
    click.option("--same-body-part", is_flag=True, help="Only priors with a body part in common."),
    click.option(
        "--within-days", type=int, metavar="N", help="Only priors of so many days before."
    ),
    click.option(
        "--commitment",
        type=click.Choice([one.value for one in Commitment]),
        default=Commitment.NO.value,
        show_default=True,
        help="Whether the destination must answer for what it got (Storage Commitment).",
    ),
    click.option("--in-order", is_flag=True, help="Send in the order of arrival."),
    click.option("--priority", type=int, default=0, show_default=True, help="Higher goes first."),
)


def route_of(name: str, said: Mapping[str, Any]) -> Route:
    """Make the route that the options describe. Raises ``click.UsageError`` for what is malformed."""
    return Route(
        name=name,
        level=LEVEL_OF[said["when"]],
        destinations=tuple(AETitle(one.strip()) for one in said["to"]),
        keys=(*_keys(said["match"], unless=False), *_keys(said["unless"], unless=True)),
        calling_ae_titles=tuple(said["calling"]),
        called_ae_titles=tuple(said["called"]),
        registrants=tuple(Registrant(one) for one in said["registrants"]),
        windows=tuple(_windows(said["days"], said["hours"])),
        coercions=tuple(_coercions(said)),
        priors=_priors(said),
        commitment=Commitment(said["commitment"]),
        in_order=said["in_order"],
        priority=said["priority"],
    )


def _keys(texts: Sequence[str], *, unless: bool) -> Iterator[RouteKey]:
    for text in texts:
        path, value = _pair(text, "KEY=VALUE")
        yield RouteKey(path=path, value=value, unless=unless)


def _pair(text: str, form: str) -> tuple[str, str]:
    first, sign, second = text.partition("=")
    if not sign or not first:
        raise click.UsageError(f"{text!r} is not {form}")
    return first, second


def _windows(days: str | None, hours: Sequence[str]) -> Iterator[Window]:
    from pacs.services.route.conditions import day_numbers

    if days is None and not hours:
        return
    try:
        on = frozenset[int]() if days is None else day_numbers(days)
    except EntryConflicts as error:
        raise click.UsageError(str(error)) from error
    for text in hours or ["00:00-24:00"]:
        found = _HOURS.match(text)
        if found is None:
            raise click.UsageError(f"{text!r} is not HH:MM-HH:MM")
        begin_h, begin_min, end_h, end_min = map(int, found.groups())
        yield Window(days=on, begins=_time(begin_h, begin_min), ends=_time(end_h, end_min))


def _time(hour: int, minute: int) -> time:
    if hour == 24 and minute:
        raise click.UsageError("a day ends at 24:00")
    return time(hour % 24, minute)


def _coercions(said: Mapping[str, Any]) -> Iterator[Coercion]:
    for text in said["sets"]:
        keyword, value = _pair(text, "KEY=VALUE")
        yield Coercion(kind=CoercionKind.SET, keyword=keyword, value=value)
    for keyword in said["deletes"]:
        yield Coercion(kind=CoercionKind.DELETE, keyword=keyword)
    for keyword, mapping in _maps(said["maps"]).items():
        yield Coercion(kind=CoercionKind.MAP, keyword=keyword, mapping=mapping)
    for text in said["prefixes"]:
        keyword, value = _pair(text, "KEY=TEXT")
        yield Coercion(kind=CoercionKind.PREFIX, keyword=keyword, value=value)


def _maps(texts: Sequence[str]) -> dict[str, dict[str, str]]:
    maps: dict[str, dict[str, str]] = {}
    for text in texts:
        keyword, colon, pair = text.partition(":")
        if not colon:
            raise click.UsageError(f"{text!r} is not KEY:OLD=NEW")
        old, new = _pair(pair, "KEY:OLD=NEW")
        if maps.setdefault(keyword, {}).setdefault(old, new) != new:
            raise click.UsageError(f"{keyword}: {old!r} is mapped twice")
    return maps


def _priors(said: Mapping[str, Any]) -> Priors | None:
    narrowed = said["same_modality"] or said["same_body_part"] or said["within_days"] is not None
    if said["priors"] is None:
        if narrowed:
            raise click.UsageError("say how many prior studies: --priors N")
        return None
    return Priors(
        latest=said["priors"],
        same_modality=said["same_modality"],
        same_body_part=said["same_body_part"],
        within_days=said["within_days"],
    )
