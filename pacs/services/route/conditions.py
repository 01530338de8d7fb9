"""The conditions of one route, ready to be asked: who sent, when, and what it is.

Owns how conditions are decided about one instance, whatever is known of it. What
is known, and what a route does then, is for ``judge``, ``rule`` and ``trial``.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo
from typing import Protocol

from pacs.core.errors import EntryConflicts
from pacs.core.identifiers import AETitle, Registrant, is_ae_title
from pacs.core.routing import Route, Window
from pacs.core.text import wildcard_matches
from pacs.services.route.keys import Condition, conditions_of

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class Subject(Protocol):
    """What is known of one instance. ``None`` is not known here."""

    @property
    def registrant(self) -> Registrant: ...
    @property
    def calling_ae_title(self) -> AETitle: ...
    @property
    def called_ae_title(self) -> AETitle | None: ...
    @property
    def received_utc(self) -> datetime: ...
    def has(self, condition: Condition) -> bool | None:
        """Tell whether the attribute matches, whatever ``unless`` says."""
        ...

    def text(self, condition: Condition) -> str:
        """Give the attribute's text, for a person to read."""
        ...


class Check(Protocol):
    """One condition of a route."""

    @property
    def said(self) -> str:
        """The condition in words."""
        ...

    def holds(self, subject: Subject) -> bool | None:
        """Tell whether it is kept; ``None`` where that is not known here."""
        ...

    def seen(self, subject: Subject) -> str:
        """What was looked at, for a person to read."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class IsRegistrant:
    """It is held for one of these."""

    registrants: tuple[Registrant, ...]

    @property
    def said(self) -> str:
        """The condition in words."""
        return f"registrant is {' or '.join(self.registrants)}"

    def holds(self, subject: Subject) -> bool:
        """Tell whether it is one of them."""
        return subject.registrant in self.registrants

    def seen(self, subject: Subject) -> str:
        """The registrant."""
        return subject.registrant


@dataclass(frozen=True, slots=True, kw_only=True)
class IsAE:
    """It came from, or was sent to, an AE title that a pattern covers."""

    patterns: tuple[str, ...]
    called: bool

    @property
    def said(self) -> str:
        """The condition in words."""
        return f"{'called' if self.called else 'calling'} AE is {' or '.join(self.patterns)}"

    def holds(self, subject: Subject) -> bool | None:
        """Tell whether a pattern covers it."""
        title = subject.called_ae_title if self.called else subject.calling_ae_title
        if title is None:
            return None
        return any(wildcard_matches(one, title) for one in self.patterns)

    def seen(self, subject: Subject) -> str:
        """The AE title."""
        title = subject.called_ae_title if self.called else subject.calling_ae_title
        return "" if title is None else title


@dataclass(frozen=True, slots=True, kw_only=True)
class IsWithin:
    """It was received in one of these windows, by the clock of ``zone``."""

    windows: tuple[Window, ...]
    zone: tzinfo

    @property
    def said(self) -> str:
        """The condition in words."""
        return f"received {' or '.join(map(window_text, self.windows))}"

    def holds(self, subject: Subject) -> bool:
        """Tell whether a window holds at that time."""
        local = subject.received_utc.astimezone(self.zone)
        return any(is_within(one, local) for one in self.windows)

    def seen(self, subject: Subject) -> str:
        """The local time."""
        local = subject.received_utc.astimezone(self.zone)
        return f"{_DAYS[local.weekday()]} {local:%Y-%m-%d %H:%M:%S%z}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Matches:
    """An attribute matches, or with ``unless`` does not."""

    condition: Condition

    @property
    def said(self) -> str:
        """The condition in words."""
        return f"{'unless ' if self.condition.unless else ''}{self.condition.said}"

    def holds(self, subject: Subject) -> bool | None:
        """Tell whether it is kept."""
        found = subject.has(self.condition)
        return None if found is None else found is not self.condition.unless

    def seen(self, subject: Subject) -> str:
        """The attribute's text."""
        return subject.text(self.condition)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """A route and its conditions: on the sender, on the time, on the attributes; cheap ones first."""

    route: Route
    origin: tuple[Check, ...]
    times: tuple[Check, ...]
    keys: tuple[Matches, ...]
    rest: tuple[Check, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Put together what is asked of every instance, once."""
        object.__setattr__(self, "rest", (*self.keys, *self.times))

    @property
    def all(self) -> tuple[Check, ...]:
        """Every condition."""
        return (*self.origin, *self.times, *self.keys)


def conditions(route: Route, zone: tzinfo) -> Conditions:
    """Make the conditions of a route. Raises ``EntryConflicts`` for what can never be asked."""
    origin: list[Check] = []
    if route.registrants:
        origin.append(IsRegistrant(registrants=route.registrants))
    for patterns, called in ((route.calling_ae_titles, False), (route.called_ae_titles, True)):
        if not all(map(is_ae_title, patterns)):
            raise EntryConflicts("a pattern of AE titles has 1 to 16 printable characters")
        if patterns:
            origin.append(IsAE(patterns=patterns, called=called))
    times = (IsWithin(windows=route.windows, zone=zone),) if route.windows else ()
    return Conditions(
        route=route,
        origin=tuple(origin),
        times=times,
        keys=tuple(Matches(condition=one) for one in conditions_of(route.keys)),
    )


def verdict(checks: Iterable[Check], subject: Subject) -> bool | None:
    """Tell whether all are kept; ``None`` where what is known breaks none and does not suffice."""
    sure = True
    for one in checks:
        holds = one.holds(subject)
        if holds is False:
            return False
        sure = sure and holds is not None
    return True if sure else None


def is_within(window: Window, local: datetime) -> bool:
    """Tell whether a window holds at a local time; its day is the one on which it begins.

    Beginning and ending at the same time it lasts a day.
    """
    now = local.time()
    today, yesterday = local.weekday(), (local - timedelta(days=1)).weekday()
    if window.begins < window.ends:
        return window.begins <= now < window.ends and _on(window, today)
    return (now >= window.begins and _on(window, today)) or (
        now < window.ends and _on(window, yesterday)
    )


def _on(window: Window, day: int) -> bool:
    return not window.days or day in window.days


def window_text(window: Window) -> str:
    """Say a window as the command line takes it.

    >>> from datetime import time
    >>> window_text(Window(days=frozenset({0, 1}), begins=time(22), ends=time(6, 30)))
    'mon,tue 22:00-06:30'
    """
    days = ",".join(_DAYS[one] for one in sorted(window.days))
    hours = f"{_clock(window.begins)}-{_clock(window.ends)}"
    return f"{days or 'any day'} {hours}"


def _clock(moment: object) -> str:
    text = str(moment)
    return text[:5] if text[5:] in ("", ":00") else text


def day_numbers(text: str) -> frozenset[int]:
    """Read days of the week, ``mon-fri`` or ``sat,sun``. Raises ``EntryConflicts``.

    >>> sorted(day_numbers("fri-mon,wed"))
    [0, 2, 4, 5, 6]
    """
    found: set[int] = set()
    for part in text.lower().split(","):
        first, dash, last = (one.strip() for one in part.partition("-"))
        if first not in _DAYS or (dash and last not in _DAYS):
            raise EntryConflicts(f"{part!r} is no day or range of days: say mon-fri or sat,sun")
        begin, end = _DAYS.index(first), _DAYS.index(last or first)
        found.update((begin + step) % 7 for step in range((end - begin) % 7 + 1))
    return frozenset(found)
