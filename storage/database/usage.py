"""Rows of usage: facts noted once, never changed, and their sums by month.

The table only grows: nothing here, or anywhere else, changes or removes a row of it. It has no index
but the key that makes a fact count once: registrations are most of it, and their keys are object ids,
which begin with the time, so those of a month are a range of it; the other kinds are read whole. What
was held before a month is remembered in ``usage_closed`` once that is over.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final

from pacs.core.caller import SubscriberName
from pacs.core.identifiers import object_id_time_ms
from pacs.core.usage import (
    Connected,
    Delivered,
    Difference,
    Holding,
    HoldingChanged,
    Month,
    Processed,
    Registered,
    Usage,
    UsageKind,
    UsageSum,
)
from storage.database.connection import Database

HELD_BYTES: Final = "COALESCE(original_bytes, size_bytes - data_set_offset)"
"""Length of the Data Set as it was received, whatever the file holds: what is counted as held."""

_DAY_MS: Final = 86_400_000
_LATE_MS: Final = 7 * _DAY_MS
"""A registration is noted as of so long after its file was begun at most, though a crash kept it longer."""

_COLUMNS: Mapping[type[Usage], Mapping[str, str]] = {
    Registered: {
        "study_instance_uid": "study_instance_uid",
        "modality": "modality",
        "bytes": "size_bytes",
    },
    HoldingChanged: {"amount": "instances", "bytes": "size_bytes"},
    Delivered: {
        "amount": "instances",
        "bytes": "sent_bytes",
        "study_instance_uid": "study_instance_uid",
        "receiver": "receiver",
        "asked_by": "asked_by",
        "purpose": "purpose",
    },
    Connected: {"duration_ms": "duration_ms", "asked_by": "asked_by"},
    Processed: {
        "amount": "images",
        "bytes": "size_bytes",
        "duration_ms": "duration_ms",
        "study_instance_uid": "study_instance_uid",
        "asked_by": "asked_by",
        "purpose": "purpose",
        "operation": "operation",
    },
}
"""Of each fact, what stands in which column beside its kind, time, key and subscriber."""


def _insertion(columns: Mapping[str, str]) -> str:
    named = ("kind", "noted_ms", "key", "subscriber", *columns)
    return (
        f"INSERT INTO usage_fact ({', '.join(named)}) VALUES ({', '.join('?' * len(named))}) "
        "ON CONFLICT DO NOTHING"
    )


_INSERTIONS: Mapping[type[Usage], tuple[str, str, Callable[[Any], tuple[object, ...]]]] = {
    fact: (fact.kind.value, _insertion(columns), attrgetter("key", "subscriber", *columns.values()))
    for fact, columns in _COLUMNS.items()
}


def note_usage(database: Database, usage: Usage) -> None:
    """Note a fact in the caller's transaction; one that is noted already is not noted again."""
    kind, insertion, values = _INSERTIONS[type(usage)]
    noted_ms = time.time_ns() // 1_000_000
    if type(usage) is Registered:
        began_ms = object_id_time_ms(usage.object_id)
        noted_ms = max(began_ms, min(noted_ms, began_ms + _LATE_MS))
    database.write(insertion, (kind, noted_ms, *values(usage)))


_GRACE_MS: Final = _DAY_MS
"""Transactions under way when a month ends, and clocks of other nodes, are past its end by then."""
_HOLDS: Final = "kind IN ('register', 'hold')"
_NOTED: Final = (
    "(SELECT * FROM usage_fact WHERE kind = 'register' AND key >= ? AND key < ? "
    "AND noted_ms >= ? AND noted_ms < ? UNION ALL "
    "SELECT * FROM usage_fact WHERE kind IN ('connect', 'deliver', 'hold', 'process') "
    "AND noted_ms >= ? AND noted_ms < ?) AS noted"
)
"""Facts noted from one time to another; ``_between`` gives the parameters."""
_CHANGE: Final = (
    f"SUM(CASE WHEN {_HOLDS} THEN amount ELSE 0 END), SUM(CASE WHEN {_HOLDS} THEN bytes ELSE 0 END)"
)
_SUMS: Final = (
    "SELECT subscriber, kind, COALESCE(modality, ''), COALESCE(receiver, ''), "
    "COALESCE(purpose, ''), COALESCE(operation, ''), SUM(amount), SUM(bytes), "
    "COALESCE(SUM(duration_ms), 0), COUNT(DISTINCT study_instance_uid) "
    f"FROM {_NOTED} WHERE kind <> 'hold'{{whose}} "
    "GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 3, 4, 5, 6"
)
_DIFFERENCES: Final = (
    "SELECT subscriber, SUM(noted), SUM(noted_bytes), SUM(held), SUM(held_bytes) FROM ("
    "SELECT subscriber, SUM(amount) AS noted, SUM(bytes) AS noted_bytes, 0 AS held, "
    f"0 AS held_bytes FROM usage_fact WHERE {_HOLDS} GROUP BY subscriber UNION ALL "
    f"SELECT registrant, 0, 0, COUNT(*), SUM({HELD_BYTES}) FROM instance "
    "WHERE deleted_by IS NULL GROUP BY registrant) AS counted GROUP BY subscriber "
    "HAVING SUM(noted) <> SUM(held) OR SUM(noted_bytes) <> SUM(held_bytes) ORDER BY subscriber"
)


def _between(start_ms: int, end_ms: int) -> list[object]:
    """Give the parameters of ``_NOTED``."""
    keys = [_first_key(start_ms - _LATE_MS), _first_key(end_ms)]
    return [*keys, start_ms, end_ms, start_ms, end_ms]


def _first_key(time_ms: int) -> str:
    """Give what sorts before every object id issued from then on. RFC 9562 Section 5.7."""
    digits = f"{max(0, time_ms):012x}"
    return f"{digits[:8]}-{digits[8:]}"


class UsageTable:
    """Sums of facts, on SQLite or PostgreSQL. Every method raises ``RecordsFailed``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def sums(self, month: Month, subscriber: SubscriberName | None) -> Sequence[UsageSum]:
        """Add up what was noted in a month, but for changes of what is held."""
        whose = "" if subscriber is None else " AND subscriber = ?"
        params = _between(month.start_ms, month.end_ms)
        if subscriber is not None:
            params.append(subscriber)
        return [
            UsageSum(
                subscriber=SubscriberName(row[0]),
                kind=UsageKind(row[1]),
                modality=row[2],
                receiver=row[3],
                purpose=row[4],
                operation=row[5],
                amount=int(row[6]),
                size_bytes=int(row[7]),
                duration_ms=int(row[8]),
                studies=int(row[9]),
            )
            for row in self._database.execute(_SUMS.format(whose=whose), params)
        ]

    def changes(self, month: Month) -> Mapping[SubscriberName, Mapping[int, Holding]]:
        """By how much what each holds changed on each day of a month, counted from 0."""
        found: dict[SubscriberName, dict[int, Holding]] = {}
        rows = self._database.execute(
            f"SELECT subscriber, (noted_ms - ?) / {_DAY_MS}, {_CHANGE} FROM {_NOTED} GROUP BY 1, 2",
            [month.start_ms, *_between(month.start_ms, month.end_ms)],
        )
        for subscriber, day, instances, size_bytes in rows:
            change = Holding(instances=int(instances), size_bytes=int(size_bytes))
            found.setdefault(SubscriberName(subscriber), {})[int(day)] = change
        return found

    def held_before(self, month: Month, now_ms: int) -> Mapping[SubscriberName, Holding]:
        """What each held when a month began; remembered once that is a day ago."""
        closed = self._closed(month)
        found = {} if closed is None else self._remembered(closed)
        if closed is None or closed < month.before:
            for subscriber, change in self._since(closed, month):
                found[subscriber] = found.get(subscriber, Holding()) + change
            if month.start_ms + _GRACE_MS < now_ms:
                self._remember(month.before, found)
        return found

    def _closed(self, month: Month) -> Month | None:
        """Find the last month before this one whose end is remembered."""
        (row,) = self._database.execute(
            "SELECT MAX(month) FROM usage_closed WHERE month < ?", (str(month),)
        )
        return None if row[0] is None else Month.parse(row[0])

    def _remembered(self, closed: Month) -> dict[SubscriberName, Holding]:
        rows = self._database.execute(
            "SELECT subscriber, instances, bytes FROM usage_closed WHERE month = ?", (str(closed),)
        )
        return {
            SubscriberName(row[0]): Holding(instances=row[1], size_bytes=row[2]) for row in rows
        }

    def _since(
        self, closed: Month | None, month: Month
    ) -> Iterator[tuple[SubscriberName, Holding]]:
        """Add up what changed between a closed month, or the first fact, and this one."""
        source = "usage_fact WHERE noted_ms < ?"
        params: list[object] = [month.start_ms]
        if closed is not None:
            source, params = _NOTED, _between(closed.end_ms, month.start_ms)
        rows = self._database.execute(
            f"SELECT subscriber, {_CHANGE} FROM {source} GROUP BY subscriber", params
        )
        for subscriber, instances, size_bytes in rows:
            change = Holding(instances=int(instances), size_bytes=int(size_bytes))
            yield SubscriberName(subscriber), change

    def _remember(self, month: Month, held: Mapping[SubscriberName, Holding]) -> None:
        """Note the end of a month, once: nothing is noted in the past."""
        with self._database.transaction():
            for subscriber, holding in held.items():
                self._database.write(
                    "INSERT INTO usage_closed (month, subscriber, instances, bytes) "
                    "VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                    (str(month), subscriber, holding.instances, holding.size_bytes),
                )

    def differences(self) -> Sequence[Difference]:
        """Compare what is held by the facts and by the index, in one look at both."""
        return [
            Difference(
                subscriber=SubscriberName(row[0]),
                noted=Holding(instances=int(row[1]), size_bytes=int(row[2])),
                held=Holding(instances=int(row[3]), size_bytes=int(row[4])),
            )
            for row in self._database.execute(_DIFFERENCES)
        ]
