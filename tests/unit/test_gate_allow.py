"""Asked again: what a caller may do now, and whether its association may go on."""

import threading
import time
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from pacs.core.caller import Caller, Right
from pacs.core.contract import Agreement, ContractState, Purpose
from pacs.core.errors import AdmissionRefused, NotAuthorized
from pacs.core.records import Snapshot
from pacs.services.gate import ContractGate
from pacs.services.gate.host_names import HostNames
from tests.association_fakes import until
from tests.legitimacy import (
    ALL_RIGHTS,
    FINGERPRINT,
    NOW,
    Book,
    Clock,
    admitted,
    candidate,
    certificate,
    contract,
    device,
    gate_by,
    signed_in,
    user,
)

QUERIES = frozenset({Right.QUERY})


def revoked(gate: ContractGate, caller: Caller) -> bool:
    """Tell that the caller may do nothing and shall go; one without the other is wrong."""
    time.sleep(0.06)  # the watch takes an answer for new so long
    stands = gate.stands(caller)
    try:
        gate.allow(caller, Right.CONNECT)
    except NotAuthorized:
        assert not stands
        return True
    assert stands
    return False


def test_a_right_is_there_or_is_not() -> None:
    book = Book(contract(rights=QUERIES), device())
    gate = gate_by(book)
    caller = gate.admit(candidate())
    assert gate.allow(caller, Right.QUERY) is caller  # nothing has changed, nothing is made anew
    assert gate.allow(caller, Right.CONNECT) is caller
    for right in ALL_RIGHTS - QUERIES - {Right.CONNECT}:
        with pytest.raises(NotAuthorized):
            gate.allow(caller, right)


def test_what_is_granted_and_revoked_holds_for_associations_that_are_open() -> None:
    book = Book(contract(rights=QUERIES), device())
    gate = gate_by(book)
    caller = gate.admit(candidate())
    book.write(contract(rights=frozenset({Right.RECEIVE}), agreements=(Agreement(owner=None),)))
    now = gate.allow(caller, Right.RECEIVE)
    assert now.visibility.everything and now.revision == book.snapshot.revision
    assert (now.association, now.ae_title) == (caller.association, caller.ae_title)
    with pytest.raises(NotAuthorized):
        gate.allow(caller, Right.QUERY)


@pytest.mark.parametrize(
    "change",
    [
        {"state": ContractState.SUSPENDED},
        {"state": ContractState.CANCELLED},
        {"state": ContractState.PENDING},
        {"ends_utc": NOW},
    ],
)
def test_a_contract_that_ends_ends_its_associations(change: dict[str, Any]) -> None:
    book = Book(contract(), device())
    gate = gate_by(book)
    caller = gate.admit(candidate())
    assert not revoked(gate, caller)
    book.write(contract(**change))
    assert revoked(gate, caller)
    book.write(contract())
    assert not revoked(gate, caller)


def test_a_date_that_passes_needs_no_change() -> None:
    clock = Clock()
    book = Book(contract(ends_utc=NOW + timedelta(hours=1)), device())
    gate = gate_by(book, clock=clock)
    caller = gate.admit(candidate())
    clock.now_utc += timedelta(minutes=59)
    assert not revoked(gate, caller)
    clock.now_utc += timedelta(minutes=1)
    assert revoked(gate, caller)


@pytest.mark.parametrize(
    "other",
    [
        device(owner="beta"),
        device(owner=None),
        device(host="10.0.0.9"),
        device(networks=("192.168.0.0/16",)),
        device(certificate_fingerprint=FINGERPRINT),
    ],
)
def test_a_device_bound_otherwise_is_no_longer_let_go_on(other: Any) -> None:
    book = Book(contract(), contract("beta"), device(), user())
    gate = gate_by(book)
    alone, with_user = gate.admit(candidate()), gate.admit(signed_in("ann"))
    book.write(device("CT2"))  # a change that concerns others
    assert not revoked(gate, alone) and not revoked(gate, with_user)
    book.write(other)
    assert revoked(gate, alone) and revoked(gate, with_user)


def test_without_its_device_a_caller_goes_even_with_a_user() -> None:
    book = Book(contract(), device(), user())
    gate = gate_by(book)
    callers = gate.admit(candidate()), gate.admit(signed_in("ann"))
    book.strike("peers", "CT1")
    assert all(revoked(gate, one) for one in callers)


def test_a_user_who_is_gone_or_another_s_takes_its_associations_along() -> None:
    roaming = signed_in("ann", ae_title="LAPTOP", address="203.0.113.9")
    book = Book(contract(), contract("beta"), device(), user())
    gate = gate_by(book)
    callers = gate.admit(roaming), gate.admit(signed_in("ann"))
    book.write(user("ann", "beta"))
    assert all(revoked(gate, one) for one in callers)
    book.write(user())
    assert not any(revoked(gate, one) for one in callers)
    book.strike("users", "ann")
    assert all(revoked(gate, one) for one in callers)


def test_a_name_that_becomes_another_s_device_is_no_longer_for_users_elsewhere() -> None:
    book = Book(contract(), contract("beta"), user())
    gate = gate_by(book)
    caller = gate.admit(signed_in("ann", ae_title="LAPTOP"))
    book.write(device("LAPTOP", None))
    assert not revoked(gate, caller)  # its address fits, and it is nobody's
    book.write(device("LAPTOP", None, host="10.0.0.9"))
    assert revoked(gate, caller)
    book.write(device("LAPTOP", "beta"))
    assert revoked(gate, caller)


def test_a_certificate_goes_with_its_binding() -> None:
    book = Book(contract(), device(certificate_fingerprint=FINGERPRINT))
    gate = gate_by(book)
    caller = gate.admit(candidate(address="203.0.113.9", certificate=certificate()))
    book.write(device("CT2"))
    assert not revoked(gate, caller)
    book.write(device(certificate_fingerprint="cd" * 32))
    assert revoked(gate, caller)


def test_loopback_s_trust_ends_with_the_first_contract() -> None:
    book = Book()
    gate = gate_by(book)
    caller = gate.admit(candidate("ANY", "127.0.0.1"))
    assert gate.allow(caller, Right.REGISTER) is caller and not revoked(gate, caller)
    with pytest.raises(NotAuthorized):
        gate.allow(caller, Right.QUERY, "teaching")
    book.write(contract(state=ContractState.PENDING))
    assert revoked(gate, caller)
    book.write(contract("local"))  # a subscriber of that name is not whom loopback was taken for
    assert revoked(gate, caller)


def test_a_stated_purpose_is_that_request_s_only() -> None:
    teaching = Purpose(name="teaching", max_matrix=256, process=False)
    book = Book(contract(purposes=(teaching, Purpose(name="care")), purpose="care"), device())
    gate = gate_by(book)
    caller = gate.admit(candidate())
    assert (caller.purpose, caller.max_matrix) == ("care", None)
    taught = gate.allow(caller, Right.RECEIVE, "teaching")
    assert (taught.purpose, taught.max_matrix) == ("teaching", 256)
    assert gate.allow(caller, Right.PROCESS) is caller
    stated = gate.allow(caller, Right.PROCESS, "care")
    assert gate.allow(stated, Right.PROCESS, "care") is stated
    assert stated == replace(caller, purpose_by_default=False)
    assert (caller.stated_purpose, stated.stated_purpose) == ("", "care")
    assert gate.allow(taught, Right.PROCESS) == caller, "what another request stated is not kept"
    for right, purpose in ((Right.PROCESS, "teaching"), (Right.RECEIVE, "research")):
        with pytest.raises(NotAuthorized):
            gate.allow(caller, right, purpose)


def test_a_slow_name_server_ends_no_association_and_holds_no_watch() -> None:
    answer = threading.Event()

    def slowly(_: str) -> None:
        assert answer.wait(10)

    book = Book(contract(), device())
    gate = gate_by(book, names=HostNames(slowly))
    caller = gate.admit(candidate())
    book.write(device(host="ct1.example"))
    assert gate.stands(caller)
    assert not answer.is_set()  # nobody waited for it
    answer.set()
    assert until(lambda: not gate.stands(caller))


class Unanswered(HostNames):
    """A name server that says nothing in time."""

    def addresses(self, name: str, patience_s: float) -> None:
        return None


def test_a_request_is_not_granted_to_a_device_that_is_not_known_in_time() -> None:
    book = Book(contract(), device())
    gate = gate_by(book, names=Unanswered())
    caller = gate_by(book).admit(candidate())
    book.write(device(host="ct1.example"))
    with pytest.raises(NotAuthorized):
        gate.allow(caller, Right.QUERY)
    with pytest.raises(AdmissionRefused):
        gate.admit(candidate())


def test_the_watch_asks_for_a_snapshot_a_few_times_a_second_however_many_there_are() -> None:
    book = Book(contract(), device())
    gate = gate_by(book)
    caller = admitted(book)
    for _ in range(1_000):
        assert gate.stands(caller)
    assert book.looks < 100


class Behind(Book):
    """One whose reader has looked at it once, a moment ago."""

    def current(self) -> Snapshot:
        self.looked = getattr(self, "looked", self.snapshot)
        return self.looked


def test_an_association_and_a_request_are_judged_by_the_state_as_it_is_now() -> None:
    """Only instances, which come by hundreds, may be judged by one of a moment ago."""
    book = Behind(contract(), device())
    gate = gate_by(book)
    caller = gate.admit(candidate())
    gate.allow(caller, Right.REGISTER)
    book.write(contract(state=ContractState.SUSPENDED))
    for right in ALL_RIGHTS - {Right.REGISTER}:
        with pytest.raises(NotAuthorized):
            gate.allow(caller, right)
    gate.allow(caller, Right.REGISTER)
    with pytest.raises(AdmissionRefused):
        gate.admit(candidate())
