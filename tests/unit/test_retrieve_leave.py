"""A retrieve judged again while it goes on: how often, and what it ends with."""

import threading
from types import SimpleNamespace

import pytest

from pacs.core.caller import Caller, Right, SubscriberName, Visibility
from pacs.core.contract import Purpose
from pacs.core.errors import DestinationUnknown, NotAuthorized, RecordsFailed
from pacs.core.records import SendOutcome
from pacs.services.delivery import crew as crew_module
from pacs.services.retrieve import leave as leave_module
from pacs.services.retrieve.leave import Leave
from tests.association_fakes import FakeGate
from tests.legitimacy import Book, candidate, contract, device, gate_by
from tests.unit.test_move_crew import Archive, Destination, Way, moving, settled

CALLER = Caller(
    subscriber=SubscriberName("beta"),
    rights=frozenset({Right.RECEIVE}),
    visibility=Visibility(),
    purpose="care",
)


class Counting(FakeGate):
    """A gate that says what it was asked, and allows nothing once it is ``shut``."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[Right, str]] = []
        self.shut = threading.Event()

    def allow(self, caller: Caller, right: Right, purpose: str = "") -> Caller:
        self.asked.append((right, purpose))
        if self.shut.is_set():
            raise NotAuthorized("suspended")
        return caller


def leave_by(gate: Counting, **more: object) -> Leave:
    given = {"may_go": lambda _: None, "covers": lambda _: True, **more}
    return Leave(gate, CALLER, **given)  # type: ignore[arg-type]


def test_it_is_judged_as_often_as_said_and_not_at_every_instance() -> None:
    gate = Counting()
    leave = leave_by(gate)
    leave._looked_s += 3600  # however busy the machine is
    gate.shut.set()
    assert all(leave.holds() for _ in range(1000))
    assert gate.asked == [], "a request has been judged a moment before"
    leave._looked_s -= 3600 + leave_module.LOOK_S
    assert not leave.holds() and isinstance(leave.refusal, NotAuthorized)
    gate.shut.clear()
    leave._looked_s -= 3600
    assert not leave.holds(), "what was taken away once is to be asked for anew"
    assert gate.asked == [(Right.RECEIVE, "care")]


FULL, SMALL = Purpose(name="full"), Purpose(name="small", max_matrix=64)


@pytest.mark.parametrize(
    ("stated", "purposes", "default", "goes_on"),
    [
        ("", (FULL, SMALL), "small", False),
        ("", (Purpose(name="other"),), "other", True),
        ("full", (FULL, SMALL), "small", True),
        ("full", (Purpose(name="other"),), "other", False),
    ],
)
def test_it_is_judged_by_what_its_request_stated(
    monkeypatch: pytest.MonkeyPatch,
    stated: str,
    purposes: tuple[Purpose, ...],
    default: str,
    *,
    goes_on: bool,
) -> None:
    monkeypatch.setattr(leave_module, "LOOK_S", 0.0)
    book = Book(contract(purposes=(FULL, SMALL), purpose="full"), device())
    gate = gate_by(book)
    caller = gate.allow(gate.admit(candidate()), Right.RECEIVE, stated)
    leave = Leave(
        gate, caller, may_go=lambda _: None, covers=lambda now: now.max_matrix == caller.max_matrix
    )
    assert leave.holds()
    book.write(contract(purposes=purposes, purpose=default))
    assert [leave.holds(), leave.holds()] == [goes_on, goes_on]


class Clock:
    """A clock that stands still unless told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1_000.0
        monkeypatch.setattr(leave_module, "time", SimpleNamespace(monotonic=lambda: self.now_s))

    def passes(self, seconds: float) -> None:
        self.now_s += seconds


def test_what_cannot_be_judged_is_gone_on_with_for_a_bounded_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[bool] = []

    def looked_at(_: Caller) -> None:
        looks.append(away)
        if away:
            raise RecordsFailed("no database")

    with monkeypatch.context() as patched:
        clock = Clock(patched)
        leave, away = leave_by(Counting(), may_go=looked_at), True
        clock.passes(60)  # an instance that took its time
        assert leave.holds(), "one failure ends nothing"
        clock.passes(leave_module.UNJUDGED_S - 0.1)
        assert leave.holds()
        away = False
        clock.passes(leave_module.LOOK_S)
        assert leave.holds(), "it is judged again as soon as it can be"
        away = True
        clock.passes(leave_module.LOOK_S)
        assert leave.holds(), "the time begins anew with a judgement"
        assert looks == [True, True, False, True], "looks that fail are no more frequent"
        clock.passes(leave_module.UNJUDGED_S)
        with pytest.raises(RecordsFailed):
            leave.holds()


def test_a_refusal_is_none_of_the_failures_that_are_borne(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(leave_module, "LOOK_S", 0.0)

    def unknown(_: Caller) -> None:
        raise DestinationUnknown("removed")

    leave = leave_by(Counting(), may_go=unknown)
    assert not leave.holds() and isinstance(leave.refusal, DestinationUnknown)


def test_a_refusal_is_heard_while_the_receiver_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leave_module, "LOOK_S", 0.0)
    monkeypatch.setattr(crew_module, "GRACE_S", 0.2)
    gate, destination = Counting(), Destination()

    def silent(way: Way) -> SendOutcome:
        gate.shut.set()
        assert way.aborted.wait(10), "nobody aborted"
        return SendOutcome.SUCCESS

    destination.answer = silent
    last = settled(moving(Archive(40, 2), destination, gate=gate), 40)
    assert isinstance(last.refusal, NotAuthorized)
    assert last.completed == len(destination.rows) <= 2
    assert (last.failed, last.remaining) == (40 - last.completed, 0)
    assert last.failed_sop_instance_uids == ()


def test_what_was_all_delivered_when_it_was_refused_is_a_success(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(leave_module, "LOOK_S", 0.0)
    gate, destination, refused = Counting(), Destination(), threading.Event()

    def last_one(way: Way) -> SendOutcome:
        gate.shut.set()
        assert refused.wait(10)
        return SendOutcome.SUCCESS

    allow = gate.allow

    def told(caller: Caller, right: Right, purpose: str = "") -> Caller:
        try:
            return allow(caller, right, purpose)
        except NotAuthorized:
            refused.set()
            raise

    monkeypatch.setattr(gate, "allow", told)
    destination.answer = last_one
    last = settled(moving(Archive(1, 1), destination, gate=gate), 1)
    assert (last.completed, last.failed, last.refusal) == (1, 0, None)
