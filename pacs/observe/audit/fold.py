"""Many records, one message: C-STOREs of a study on one association, refusals of one stranger.

A fold is closed when nothing more came for a while, when it has lasted long
enough or holds enough; it loses no count. Knows no XML and no socket; time is
that of the records, or handed in.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from config.settings import Audit
from pacs.observe.audit.records import Record, Spot, number_of

MOST_IN_ONE = 10_000
MOST_OPEN = 1_000
_FOLDED: Mapping[str, tuple[str, ...]] = {
    "C-STORE": ("association", "study", "outcome", "status"),
    "association-refused": (
        "address",
        "calling_ae_title",
        "called_ae_title",
        "answer",
        "cause",
        "user",
    ),
}
"""What is folded, and in what its records must be equal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Folded:
    """What one message speaks of: ``count`` records, the first one's values standing for all.

    ``sop_classes`` counts them by SOP Class where they have one.
    """

    record: Record
    first: int
    last: int
    count: int
    ended_utc: datetime
    sop_classes: Mapping[str, int]

    @property
    def event(self) -> str:
        """What happened."""
        return str(self.record.get("event", ""))

    def text(self, name: str) -> str:
        """A value of the record as text, empty where there is none."""
        value = self.record.get(name)
        return "" if value is None else str(value)

    def number(self, name: str) -> int:
        """A value of the record as a count."""
        value = self.record.get(name)
        return value if isinstance(value, int) else 0


@dataclass(slots=True, kw_only=True)
class _Open:
    """A fold that may grow; ``before`` is the place before its first record."""

    record: Record
    before: Spot
    first: int
    last: int
    begun_utc: datetime
    ended_utc: datetime
    sop_classes: Counter[str] = field(default_factory=Counter)
    count: int = 0

    def folded(self) -> Folded:
        return Folded(
            record=self.record,
            first=self.first,
            last=self.last,
            count=self.count,
            ended_utc=self.ended_utc,
            sop_classes=dict(self.sop_classes),
        )


class Folding:
    """The folds that are open while the trail is read."""

    def __init__(self, settings: Audit) -> None:
        self._settings = settings
        self._open: dict[tuple[object, ...], _Open] = {}

    def safe(self, behind: Spot) -> Spot:
        """The place up to which every record is in what was given out; ``behind`` is the reader's."""
        return min((one.before for one in self._open.values()), default=behind)

    def take(self, record: Record, before: Spot) -> Iterator[Folded]:
        """Take the next record; gives what is complete by it."""
        now_utc = time_of(record)
        yield from self.due(now_utc)
        names = _FOLDED.get(str(record.get("event")))
        if names is None:
            yield _opened(record, before, now_utc).folded()
            return
        key = (record.get("event"), *(str(record.get(name)) for name in names))
        found = self._open.get(key)
        if found is None:
            if len(self._open) >= MOST_OPEN:
                yield self._close(next(iter(self._open)))
            self._open[key] = _opened(record, before, now_utc)
            return
        _add(found, record, now_utc)
        if found.count >= MOST_IN_ONE:
            yield self._close(key)

    def due(self, now_utc: datetime) -> Iterator[Folded]:
        """Give what nothing more belongs to, by time."""
        quiet_s, most_s = self._settings.fold_quiet_s, self._settings.fold_max_s
        for key, one in list(self._open.items()):
            quiet = (now_utc - one.ended_utc).total_seconds() >= quiet_s
            if quiet or (now_utc - one.begun_utc).total_seconds() >= most_s:
                yield self._close(key)

    def rest(self) -> Iterator[Folded]:
        """Give all that is open."""
        for key in list(self._open):
            yield self._close(key)

    def _close(self, key: tuple[object, ...]) -> Folded:
        return self._open.pop(key).folded()


def _opened(record: Record, before: Spot, now_utc: datetime) -> _Open:
    number = number_of(record)
    one = _Open(
        record=record,
        before=before,
        first=number,
        last=number,
        begun_utc=now_utc,
        ended_utc=now_utc,
    )
    _add(one, record, now_utc)
    return one


def _add(one: _Open, record: Record, now_utc: datetime) -> None:
    one.count += 1
    one.last, one.ended_utc = number_of(record), max(now_utc, one.ended_utc)
    sop_class = record.get("sop_class_uid")
    if isinstance(sop_class, str):
        one.sop_classes[sop_class] += 1


def time_of(record: Record) -> datetime:
    """When it happened; the beginning of time where the record does not say."""
    try:
        return datetime.fromisoformat(str(record.get("time")))
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
