"""The usage of a retrieve: noted window by window while it goes on, each once, with nothing lost on the way."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from pacs.core.caller import Caller, SubscriberName, Visibility
from pacs.core.errors import RecordsFailed
from pacs.core.identifiers import AETitle
from pacs.core.records import SendOutcome
from pacs.core.usage import Delivered
from pacs.services.delivery.fate import Fate, Shipped
from pacs.services.retrieve import account as account_module
from pacs.services.retrieve.account import Account
from pacs.services.retrieve.tally import Order, Tally
from tests.unit.test_move_crew import (
    CT,
    EXPLICIT,
    SIZE_BYTES,
    Archive,
    Destination,
    held,
    moving,
    settled,
)

RECEIVER = AETitle("DEST")
CALLER = Caller(
    subscriber=SubscriberName("alpha"), rights=frozenset(), visibility=Visibility(), purpose="care"
)


class Ledger:
    """Facts by their key, as the database keeps them; ``refusals`` transactions fail, all the same written or not."""

    def __init__(self) -> None:
        self.facts: dict[str, Any] = {}
        self.refusals: list[bool] = []
        self._some: list[Any] = []

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        self._some = []
        yield self
        refused = bool(self.refusals)
        if not refused or self.refusals.pop(0):
            for one in self._some:
                self.facts.setdefault(one.key, one)
        if refused:
            raise RecordsFailed("away")

    def record_usage(self, usage: Any) -> None:
        self._some.append(usage)

    def sums(self) -> tuple[int, int]:
        facts = self.facts.values()
        return sum(one.instances for one in facts), sum(one.sent_bytes for one in facts)


def tally_of(count: int) -> Tally:
    return Tally(Order(chosen=[(row, CT, EXPLICIT) for row in range(count)]))


def take(tally: Tally, rows: Sequence[int]) -> None:
    for row in rows:
        tally.count(
            Shipped(
                held=held(row),
                fate=Fate.ANSWERED,
                outcome=SendOutcome.SUCCESS,
                status=0,
                sent_bytes=SIZE_BYTES,
            )
        )


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is always time to note what was taken."""
    monkeypatch.setattr(account_module, "WINDOW_S", 0.0)


@pytest.mark.usefixtures("always")
def test_what_was_taken_is_noted_while_more_is_taken() -> None:
    ledger, tally = Ledger(), tally_of(6)
    account = Account(ledger, CALLER, RECEIVER, tally)  # type: ignore[arg-type]
    account.look()
    assert ledger.facts == {}, "nothing was taken"
    for rows in ([0, 1], [2], [3, 4, 5]):
        take(tally, rows)
        account.look()
        assert ledger.sums() == (max(rows) + 1, (max(rows) + 1) * SIZE_BYTES)
    account.close()
    assert ledger.sums() == (6, 6 * SIZE_BYTES)
    assert len(ledger.facts) == 3, "a window is a fact of its own"
    for one in ledger.facts.values():
        assert isinstance(one, Delivered)
        assert (one.subscriber, one.receiver, one.purpose) == ("alpha", "DEST", "care")


def test_a_second_is_one_window() -> None:
    ledger, tally = Ledger(), tally_of(300)
    account = Account(ledger, CALLER, RECEIVER, tally)  # type: ignore[arg-type]
    account._noted_s += 3600  # however busy the machine is
    for row in range(300):
        take(tally, [row])
        account.look()
    assert ledger.facts == {}
    account.close()
    assert [one.instances for one in ledger.facts.values()] == [300]


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("written", [True, False])
def test_a_window_whose_commit_failed_counts_once_whether_it_was_written_or_not(
    written: bool,
) -> None:
    ledger, tally = Ledger(), tally_of(4)
    account = Account(ledger, CALLER, RECEIVER, tally)  # type: ignore[arg-type]
    ledger.refusals = [written, written]
    take(tally, [0, 1])
    account.look()
    take(tally, [2])
    account.look()  # fails once more: nothing is added to what may be written already
    take(tally, [3])
    account.look()
    assert ledger.sums()[0] == 2
    account.close()
    assert ledger.sums() == (4, 4 * SIZE_BYTES)


def test_what_cannot_be_noted_at_the_end_is_said() -> None:
    ledger, tally = Ledger(), tally_of(1)
    account = Account(ledger, CALLER, RECEIVER, tally)  # type: ignore[arg-type]
    ledger.refusals = [False]
    take(tally, [0])
    with pytest.raises(RecordsFailed):
        account.close()


@pytest.mark.usefixtures("always")
def test_a_move_notes_what_was_taken_before_it_ends() -> None:
    archive = Archive(40, 1)
    progress = moving(archive, Destination())
    while next(progress).completed < 20:
        pass
    assert archive.usage["deliver"] >= 20
    assert settled(progress, 40).completed == 40
    assert archive.usage == {"deliver": 40, "deliver-bytes": 40 * SIZE_BYTES}
