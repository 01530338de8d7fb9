"""Who is let in: devices by address and certificate, users by passcode, all else with one face."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from pacs.core.caller import Candidate, Refusal, Right
from pacs.core.contract import ContractState
from pacs.core.errors import AdmissionRefused
from pacs.services.gate import LOCAL, ContractGate
from tests.association_fakes import FakeAudit
from tests.legitimacy import (
    FINGERPRINT,
    NOW,
    PASSCODE,
    Book,
    Counted,
    admitted,
    candidate,
    certificate,
    contract,
    device,
    gate_by,
    kept,
    signed_in,
    user,
)


def refusal(book: Book, asking: Candidate, **more: Any) -> Refusal:
    with pytest.raises(AdmissionRefused) as raised:
        admitted(book, asking, **more)
    return raised.value.refusal


# --- without contracts ------------------------------------------------------------------


def test_loopback_is_local_while_there_is_no_contract_of_any_state() -> None:
    caller = admitted(Book(), candidate("ANY", "127.0.0.1"))
    assert caller.subscriber == LOCAL and caller.destinations is None
    assert caller.rights == frozenset(Right) - {Right.ADMINISTER}
    assert refusal(Book(), candidate("ANY", "10.0.0.1")) is Refusal.DEVICE
    assert refusal(Book(), candidate("ANY", "127.0.0.1"), loopback=False) is Refusal.DEVICE


@pytest.mark.parametrize("state", ContractState)
def test_with_any_contract_loopback_is_an_address_like_any_other(state: ContractState) -> None:
    book = Book(contract(state=state), device("CT1", host="127.0.0.1"))
    assert refusal(book, candidate("ANY", "127.0.0.1")) is Refusal.DEVICE
    if state is ContractState.ACTIVE:
        assert admitted(book, candidate("CT1", "127.0.0.1")).subscriber == "alpha"


# --- devices ------------------------------------------------------------------------------


def test_a_device_is_its_subscriber_s_at_its_address_and_nowhere_else() -> None:
    book = Book(contract(issuer_of_patient_id="ALPHA"), device())
    caller = admitted(book)
    assert (caller.subscriber, caller.ae_title, caller.known_device) == ("alpha", "CT1", True)
    assert (caller.issuer_of_patient_id, caller.identity_response) == ("ALPHA", None)
    assert caller.revision == book.snapshot.revision
    assert admitted(book, candidate(address="::ffff:10.0.0.1")).subscriber == "alpha"
    for stranger in (candidate(address="10.0.0.2"), candidate("CT2"), candidate(address="::1")):
        assert refusal(book, stranger) is Refusal.DEVICE


def test_networks_take_the_place_of_the_host() -> None:
    book = Book(contract(), device(networks=("192.168.0.0/16", "2001:db8::/32", "nonsense")))
    for address in ("192.168.7.1", "2001:db8::7", "::ffff:192.168.7.1"):
        assert admitted(book, candidate(address=address)).subscriber == "alpha"
    for address in ("10.0.0.1", "2001:db9::7", "no address"):
        assert refusal(book, candidate(address=address)) is Refusal.DEVICE


def test_a_certificate_identifies_from_anywhere_unless_networks_are_given() -> None:
    shown = {"certificate": certificate(), "tls": True}
    anywhere = Book(contract(), device(certificate_fingerprint=FINGERPRINT))
    assert admitted(anywhere, candidate(address="203.0.113.9", **shown)).subscriber == "alpha"
    bound = Book(contract(), device(certificate_fingerprint=FINGERPRINT, networks=("10.0.0.0/8",)))
    caller = admitted(bound, candidate(**shown))
    assert caller.certificate_fingerprint == FINGERPRINT
    assert refusal(bound, candidate(address="203.0.113.9", **shown)) is Refusal.DEVICE


@pytest.mark.parametrize(
    "shown", [None, certificate("cd" * 32), certificate(valid_s=-1), certificate(valid_s=0)]
)
def test_without_its_certificate_a_device_is_nobody(shown: Any) -> None:
    book = Book(contract(), device(certificate_fingerprint=FINGERPRINT))
    assert refusal(book, candidate(certificate=shown)) is Refusal.DEVICE


def test_a_device_of_nobody_is_nobody() -> None:
    assert refusal(Book(contract(), device(owner=None)), candidate()) is Refusal.DEVICE
    assert refusal(Book(contract(), device(owner="gone")), candidate()) is Refusal.DEVICE


@pytest.mark.parametrize(
    "more",
    [
        {"state": ContractState.PENDING},
        {"state": ContractState.SUSPENDED, "reason": "unpaid"},
        {"state": ContractState.CANCELLED},
        {"ends_utc": NOW},
        {"begins_utc": NOW + timedelta(days=1)},
        {"purpose": "one it does not have"},
    ],
)
def test_a_contract_that_does_not_hold_looks_like_none(more: dict[str, Any]) -> None:
    book = Book(contract(**more), device(), user())
    assert refusal(book, candidate()) is refusal(book, candidate("NOBODY")) is Refusal.DEVICE
    roaming = {"ae_title": "LAPTOP", "address": "203.0.113.9"}
    right, wrong = signed_in("ann", **roaming), signed_in("ann", "wrong", **roaming)
    assert refusal(book, right) is refusal(book, wrong) is Refusal.IDENTITY
    assert refusal(book, signed_in("ann")) is Refusal.IDENTITY  # from the device as well


# --- users --------------------------------------------------------------------------------


def test_a_passcode_proves_a_user_wherever_it_comes_from() -> None:
    book = Book(contract(), user())
    caller = admitted(book, signed_in("ann", ae_title="LAPTOP", address="203.0.113.9"))
    assert (caller.subscriber, caller.user, caller.known_device) == ("alpha", "ann", False)
    assert caller.identity_response == b""


@pytest.mark.parametrize(
    "kept_as",
    ["nonsense", kept(PASSCODE).replace("t=2", "t=0")],
    ids=["nonsense", "no passes"],  # not by its salt: two processes collect the same tests
)
def test_what_is_kept_and_cannot_be_compared_is_a_wrong_passcode(kept_as: str) -> None:
    book = Book(contract(), replace(user(), passcode=kept_as))
    assert refusal(book, signed_in("ann", ae_title="LAPTOP")) is Refusal.IDENTITY


@pytest.mark.parametrize(
    ("name", "passcode"), [("ann", "wrong"), ("ann", ""), ("nobody", PASSCODE), ("ANN", PASSCODE)]
)
def test_a_wrong_identity_is_refused_even_where_the_device_alone_would_do(
    name: str, passcode: str
) -> None:
    book = Book(contract(), device(), user())
    assert refusal(book, signed_in(name, passcode)) is Refusal.IDENTITY


def test_device_and_user_are_of_one_subscriber() -> None:
    book = Book(contract(), contract("beta"), device(), user("ann"), user("bob", "beta"))
    assert admitted(book, signed_in("ann")).subscriber == "alpha"
    assert refusal(book, signed_in("bob")) is Refusal.IDENTITY


def test_who_borrows_the_ae_title_of_a_device_is_refused_with_the_best_passcode() -> None:
    elsewhere = signed_in("ann", address="203.0.113.9")
    for owner in ("alpha", "beta", None):
        book = Book(contract(), contract("beta"), device(owner=owner), user())
        assert refusal(book, elsewhere) is Refusal.DEVICE
        assert refusal(book, signed_in("ann", "wrong", address="203.0.113.9")) is Refusal.IDENTITY


def test_who_proves_itself_by_a_token_only_is_never_taken_by_its_name() -> None:
    book = Book(contract(), device(), user("bot", passcode=""))
    for kind in (1, 2):
        asking = candidate(user_identity_type=kind, user_identity=b"bot")
        assert refusal(book, asking) is Refusal.IDENTITY


def test_a_name_alone_is_for_users_named_only_at_known_devices() -> None:
    book = Book(contract(), device(), user(), user("desk", named=True))
    named = {"user_identity_type": 1, "user_identity": b"desk"}
    caller = admitted(book, candidate(**named))
    assert (caller.user, caller.known_device, caller.identity_response) == ("desk", True, b"")
    assert refusal(book, candidate("LAPTOP", **named)) is Refusal.IDENTITY
    named["user_identity"] = b"ann"
    assert refusal(book, candidate(**named)) is Refusal.IDENTITY
    assert refusal(book, signed_in("desk", "")) is Refusal.IDENTITY
    assert refusal(book, signed_in("desk", "name-only")) is Refusal.IDENTITY


@pytest.mark.parametrize("kind", [3, 4, 0, 6, 255])
def test_kinds_of_identity_that_nobody_verifies_are_refused(kind: int) -> None:
    book = Book(contract(), device(), user())
    asking = candidate(user_identity_type=kind, user_identity=b"ann")
    assert refusal(book, asking) is Refusal.IDENTITY


def test_the_cause_is_told_apart_where_the_answer_is_not() -> None:
    book = Book(contract(state=ContractState.SUSPENDED), device())
    gate = gate_by(book)
    causes = set()
    for asking in (candidate(), candidate("NOBODY"), candidate(address="10.9.9.9")):
        with pytest.raises(AdmissionRefused) as raised:
            gate.admit(asking)
        causes.add(str(raised.value))
    assert len(causes) == 3 and any("suspended" in one for one in causes)


# --- guessing -------------------------------------------------------------------------------


def test_after_too_many_failures_address_and_name_are_refused_unseen() -> None:
    book, failures = Book(contract(), device(), user(), user("eve")), Counted()
    gate = gate_by(book, failures=failures)
    for _ in range(3):
        with pytest.raises(AdmissionRefused):
            gate.admit(signed_in("ann", "wrong", ae_title="X", address="203.0.113.9"))
    assert set(failures.noted) == {
        "address 203.0.113.9", "attempt address 203.0.113.9 ann", "user ann",
    }  # fmt: skip
    roaming = signed_in("ann", ae_title="X", address="203.0.113.77")
    for asking in (roaming, signed_in("eve", ae_title="X", address="203.0.113.9")):
        with pytest.raises(AdmissionRefused, match="locked") as raised:
            gate.admit(asking)
        assert raised.value.refusal is Refusal.IDENTITY
    assert len(failures.noted) == 9  # what is refused unseen is not counted
    assert gate.admit(signed_in("eve")).user == "eve"
    assert gate.admit(candidate()).known_device  # who claims no identity is asked for none


def test_who_guesses_elsewhere_locks_nobody_out_of_a_known_device() -> None:
    book, failures = Book(contract(), device(), device("CT2", host="10.0.0.2"), user()), Counted()
    gate = gate_by(book, failures=failures)
    for number in range(3):
        with pytest.raises(AdmissionRefused):
            gate.admit(signed_in("ann", "wrong", ae_title="X", address=f"203.0.113.{number}"))
    assert gate.admit(signed_in("ann")).user == "ann"
    failures.noted.clear()
    for _ in range(3):  # at the device itself no more may fail than elsewhere
        with pytest.raises(AdmissionRefused):
            gate.admit(signed_in("ann", "wrong"))
    assert set(failures.noted) == {"device CT1", "attempt device CT1 ann"}
    with pytest.raises(AdmissionRefused, match="locked"):
        gate.admit(signed_in("ann"))
    assert gate.admit(signed_in("ann", ae_title="CT2", address="10.0.0.2")).user == "ann"


class Places(Counted):
    """Failures that lock a name at a place at its second failure, all else at its fifth."""

    def blocked(self, key: str) -> bool:
        return self.noted.count(key) >= (2 if key.startswith("attempt ") else 5)


def failed(gate: ContractGate, asking: Candidate) -> str:
    with pytest.raises(AdmissionRefused) as raised:
        gate.admit(asking)
    assert raised.value.refusal is Refusal.IDENTITY
    return str(raised.value)


def test_who_guesses_locks_the_name_at_its_own_place_first() -> None:
    gate = gate_by(Book(contract(), user(), user("eve")), failures=Places())
    there = {"ae_title": "X", "address": "203.0.113.9"}
    for _ in range(2):
        assert "locked" not in failed(gate, signed_in("ann", "wrong", **there))
    assert "locked" in failed(gate, signed_in("ann", **there))
    assert gate.admit(signed_in("eve", **there)).user == "eve"
    elsewhere = {"ae_title": "X", "address": "203.0.113.10"}
    assert gate.admit(signed_in("ann", **elsewhere)).user == "ann"


def test_guesses_spread_over_addresses_are_bounded_by_the_name() -> None:
    gate = gate_by(Book(contract(), device(), user()), failures=Places())
    tried = 0
    for number in range(20):
        guess = signed_in("ann", "wrong", ae_title="X", address=f"203.0.113.{number}")
        tried += "locked" not in failed(gate, guess)
    assert tried == 5
    assert "locked" in failed(gate, signed_in("ann", ae_title="X", address="203.0.113.99"))
    assert gate.admit(signed_in("ann")).user == "ann", "her own device is not theirs to lock"


def test_a_shared_address_is_bounded_and_its_known_devices_go_on() -> None:
    book = Book(contract(), device(), user())
    gate = gate_by(book, failures=Places())
    tried = 0
    for number in range(20):  # behind the address of CT1, under other names each time
        tried += "locked" not in failed(gate, signed_in(f"u{number}", "wrong", ae_title="X"))
    assert tried == 5
    assert "locked" in failed(gate, signed_in("ann", ae_title="X"))
    assert gate.admit(signed_in("ann")).user == "ann"
    tried = 0
    for number in range(20):  # the device itself is bounded as an address is
        tried += "locked" not in failed(gate, signed_in(f"u{number}", "wrong"))
    assert tried == 5 and "locked" in failed(gate, signed_in("ann"))


def test_a_host_of_ipv6_counts_as_one_whatever_address_it_takes() -> None:
    failures = Counted()
    gate = gate_by(Book(contract()), failures=failures)
    for number in range(3):
        with pytest.raises(AdmissionRefused):
            gate.admit(signed_in(f"u{number}", ae_title="X", address=f"2001:db8::{number}"))
    assert failures.noted.count("address 2001:db8::/64") == 3


class Slow(Counted):
    """Somebody else fails while a passcode is being looked at."""

    def blocked(self, key: str) -> bool:
        found = super().blocked(key)
        if key == "user ann":  # the last that is asked before the look
            self.noted += [key] * 3
        return found


def test_a_guess_that_was_right_among_too_many_at_once_is_refused() -> None:
    assert refusal(Book(contract(), user()), signed_in("ann"), failures=Slow()) is Refusal.IDENTITY


# --- enrolment ------------------------------------------------------------------------------


class Codes:
    """``Enrolments`` with one code."""

    def __init__(self) -> None:
        self.taken: list[Candidate] = []

    def enrol(self, code: bytes, candidate: Candidate) -> Any:
        if code != b"TULIP":
            return None
        self.taken.append(candidate)
        return "newcomer"


@pytest.mark.parametrize(
    "identity",
    [
        {"user_identity_type": 2, "user_identity": b"enrol", "user_passcode": b"TULIP"},
        {"user_identity_type": 1, "user_identity": b"enrol:TULIP"},
    ],
)
def test_a_device_that_knows_a_code_is_noted_and_told_to_come_later(
    identity: dict[str, Any],
) -> None:
    codes, audit = Codes(), FakeAudit()
    book = Book(contract())
    asking = candidate("NEW", sop_classes=("1.2", "1.3"), **identity)
    assert refusal(book, asking, enrolments=codes, audit=audit) is Refusal.LATER
    assert codes.taken == [asking]
    (noted,) = audit.named("enrolment")
    assert (noted["subscriber"], noted["calling_ae_title"], noted["sop_classes"]) == (
        *("newcomer", "NEW"),
        2,
    )
    book.write(contract("newcomer", state=ContractState.PENDING), device("NEW", "newcomer"))
    assert refusal(book, asking, enrolments=codes) is Refusal.LATER  # still to be accepted
    book.write(contract("newcomer"))
    caller = admitted(book, asking, enrolments=codes)  # accepted: its binding is enough
    assert (caller.subscriber, caller.user, caller.identity_response) == ("newcomer", "", None)


def test_guessing_a_code_is_guessing_an_identity() -> None:
    failures, codes = Counted(), Codes()
    gate = gate_by(Book(contract()), failures=failures, enrolments=codes)
    wrong = candidate("NEW", user_identity_type=1, user_identity=b"enrol:ROSE")
    for _ in range(3):
        with pytest.raises(AdmissionRefused) as raised:
            gate.admit(wrong)
        assert raised.value.refusal is Refusal.IDENTITY
    right = candidate("NEW", user_identity_type=1, user_identity=b"enrol:TULIP")
    with pytest.raises(AdmissionRefused, match="locked"):
        gate.admit(right)
    assert codes.taken == []
    elsewhere = replace(right, address="10.0.0.99")  # who guesses locks enrolment for itself alone
    with pytest.raises(AdmissionRefused, match="enrolled"):
        gate.admit(elsewhere)
    assert codes.taken == [elsewhere]
    assert refusal(Book(contract()), right) is Refusal.IDENTITY  # where nobody takes codes
