"""What a subscriber used in a month, line by line. Months and days are those of UTC.

Decides what is added up to what, and how storage is measured: each day counts what was held at its
end, so a month's byte-days are the sum over its days. Knows no price.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol

from pacs.core.caller import Caller, SubscriberName
from pacs.core.usage import Difference, Holding, Month, UsageKind, UsageSum

_DAY_MS: Final = 86_400_000


class UsageSums(Protocol):
    """What is asked of the facts; see ``storage.database.usage``."""

    def sums(self, month: Month, subscriber: SubscriberName | None) -> Sequence[UsageSum]: ...
    def changes(self, month: Month) -> Mapping[SubscriberName, Mapping[int, Holding]]: ...
    def held_before(self, month: Month, now_ms: int) -> Mapping[SubscriberName, Holding]: ...
    def differences(self) -> Sequence[Difference]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageLine:
    """One line of a month; ``None`` where its kind does not count that.

    Of what is held, ``instances`` and ``bytes`` are those at the month's end, or now in a month
    that is not over; ``byte_days`` add up what was held at the end of each of its days so far.
    """

    subscriber: SubscriberName
    month: str
    kind: str
    modality: str | None = None
    receiver: str | None = None
    purpose: str | None = None
    operation: str | None = None
    instances: int | None = None
    bytes: int | None = None
    byte_days: int | None = None
    studies: int | None = None
    associations: int | None = None
    images: int | None = None
    seconds: float | None = None


class UsageAccount:
    """Adds up facts. Who does not see everything gets its own lines only."""

    def __init__(
        self, rows: UsageSums, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._rows = rows
        self._clock = clock

    def this_month(self) -> Month:
        """The month that is not over."""
        return Month.of(self._clock())

    def lines(
        self, caller: Caller, month: Month, subscriber: SubscriberName | None = None
    ) -> Sequence[UsageLine]:
        """Give the lines of a month, subscriber by subscriber. Raises ``RecordsFailed``."""
        whose = subscriber if caller.visibility.everything else caller.subscriber
        found = [_line(one, month) for one in self._rows.sums(month, whose)]
        found += self._holdings(month, whose)
        return sorted(found, key=lambda one: (one.subscriber, one.kind))

    def differences(self, caller: Caller) -> Sequence[Difference]:
        """List who holds by the facts another number of instances or bytes than by the index."""
        return [
            one
            for one in self._rows.differences()
            if caller.visibility.everything or one.subscriber == caller.subscriber
        ]

    def _holdings(self, month: Month, whose: SubscriberName | None) -> Iterator[UsageLine]:
        now_ms = round(self._clock().timestamp() * 1000)
        days = -(-(min(month.end_ms, now_ms) - month.start_ms) // _DAY_MS)  # begun, so far
        before = self._rows.held_before(month, now_ms)
        changes = self._rows.changes(month)
        for subscriber in sorted({*before, *changes}):
            changed = changes.get(subscriber, {})
            held, byte_days = before.get(subscriber, Holding()), 0
            if whose not in (None, subscriber) or {held, *changed.values()} == {Holding()}:
                continue
            for day in range(max(0, days)):
                held += changed.get(day, Holding())
                byte_days += held.size_bytes
            yield UsageLine(
                subscriber=subscriber,
                month=str(month),
                kind=UsageKind.HOLD.value,
                instances=held.instances,
                bytes=held.size_bytes,
                byte_days=byte_days,
            )


def _line(one: UsageSum, month: Month) -> UsageLine:
    """Name the sums as its kind counts them."""
    seconds = round(one.duration_ms / 1000, 3)
    counted: Mapping[UsageKind, Mapping[str, object]] = {
        UsageKind.REGISTER: {
            "modality": one.modality,
            "instances": one.amount,
            "bytes": one.size_bytes,
            "studies": one.studies,
        },
        UsageKind.DELIVER: {
            "receiver": one.receiver,
            "purpose": one.purpose,
            "instances": one.amount,
            "bytes": one.size_bytes,
            "studies": one.studies,
        },
        UsageKind.CONNECT: {"associations": one.amount, "seconds": seconds},
        UsageKind.PROCESS: {
            "operation": one.operation,
            "purpose": one.purpose,
            "images": one.amount,
            "bytes": one.size_bytes,
            "seconds": seconds,
        },
    }
    named = counted[one.kind]
    return UsageLine(subscriber=one.subscriber, month=str(month), kind=one.kind.value, **named)  # type: ignore[arg-type]  # the keys are fields
