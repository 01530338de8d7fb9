"""What a shipment left without an outcome: whether anything of it can have gone out."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

from pacs.core.caller import admin
from pacs.core.identifiers import AETitle, ObjectId
from pacs.core.records import Held
from pacs.core.sent import Run, SentState, Told
from pacs.services.delivery.shipment import Shipment
from pacs.services.forward.desk import Desk
from pacs.services.forward.trip import Trip


class Sent:
    """The record; what is settled is this run's."""

    def __init__(self) -> None:
        self.begun: list[ObjectId] = []
        self.told: dict[ObjectId, SentState] = {}

    def begin(self, run: Run, object_ids: Sequence[ObjectId]) -> None:
        self.begun += object_ids

    def settle(self, run: Run, told: Sequence[Told]) -> frozenset[ObjectId]:
        self.told.update((one.object_id, one.state) for one in told)
        return frozenset(one.object_id for one in told)


class Aborted:
    """A shipment whose associations end while one is under way; another never had its turn."""

    stopped = True

    def __init__(self, trip: Trip, page: Sequence[Held], never: Sequence[Held]) -> None:
        self._trip, self._page, self._never = trip, page, never

    def sent(self, stopped: object) -> Generator[None, None, None]:
        self._trip.before(self._page)
        yield None

    def left(self) -> Iterator[Held]:
        # Taken only now, as of a window that nobody has noted: nothing is begun any more.
        self._trip.before([held("late")])
        return iter([*self._never, held("late")])


def held(name: str) -> Held:
    return cast(Held, SimpleNamespace(place=SimpleNamespace(object_id=ObjectId(name))))


def test_what_may_have_left_is_in_doubt_and_what_never_began_is_not() -> None:
    sent = Sent()

    @contextmanager
    def transaction() -> Iterator[Any]:
        yield None

    records = SimpleNamespace(transaction=transaction)
    desk = SimpleNamespace(sent=sent, records=records, settings=SimpleNamespace(window=50))
    run = Run(destination=AETitle("DEST"), job=1, number=1)
    trip = Trip(cast(Desk, desk), run, admin("test"), [])
    under_way, never = held("under way"), held("never")
    shipment = Aborted(trip, [under_way, never], [never])
    trip.go(cast(Shipment, shipment), lambda: False)
    trip.settle()
    assert sent.begun == ["under way", "never"]
    assert sent.told == {"under way": SentState.UNKNOWN, "never": SentState.UNSENT}
    assert not trip.complete(2)
