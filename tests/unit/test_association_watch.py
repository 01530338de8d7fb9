"""What a gate's word does on the wire: which rejection, what is on record, and the end of who no longer stands."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from pynetdicom.pdu_primitives import UserIdentityNegotiation

from pacs.association.message import Request, Response
from pacs.core.caller import Caller, Candidate, Refusal
from pacs.core.errors import AdmissionRefused, RecordsFailed
from tests.association_fakes import (
    CT,
    ECHO,
    EXPLICIT,
    FIND,
    IMPLICIT,
    FakeGate,
    Running,
    aborted,
    asked_in,
    associate_rq,
    command,
    find_class,
    p_data,
    read_pdu,
    serving,
    until,
)

BY_THE_USER = (0, 0)
C_ECHO_RQ, C_FIND_RQ = 0x0030, 0x0020


class Stubborn(FakeGate):
    """Refuses everybody for a reason."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__()
        self.refusal = refusal

    def admit(self, candidate: Candidate) -> Caller:
        self.candidates.append(candidate)
        raise AdmissionRefused("the moon is full", refusal=self.refusal)


def behind(running: Running, gate: Any) -> Any:
    """Put another gate before a server that runs."""
    object.__setattr__(running.server._host, "gate", gate)
    return gate


@pytest.mark.parametrize(
    ("refusal", "answer"),
    [
        (Refusal.DEVICE, (1, 1, 3)),
        (Refusal.CALLED, (1, 1, 7)),
        (Refusal.IDENTITY, (1, 1, 1)),
        (Refusal.LATER, (2, 1, 1)),
    ],
)
def test_each_refusal_has_its_answer_and_its_cause_is_on_record(
    refusal: Refusal, answer: tuple[int, int, int]
) -> None:
    with serving() as running:
        behind(running, Stubborn(refusal))
        assert asked_in(running.port, associate_rq()) == answer
        (noted,) = running.audit.named("association-refused")
    assert noted["answer"] == "/".join(map(str, answer))
    assert noted["cause"] == "the moon is full"
    assert "user" not in noted


@pytest.mark.parametrize(
    ("kind", "name", "noted"),
    [
        (1, b"ann", "ann"),
        (2, b"ann", "ann"),
        (1, b"enrol:TULIP", "enrol"),
        (2, b"enrol", "enrol"),
        (1, b"\xff" + b"n" * 200, "\ufffd" + "n" * 63),
        (5, b"a.to.ken", None),
    ],
)
def test_the_claimed_user_is_on_record_and_no_secret_is(
    kind: int, name: bytes, noted: str | None
) -> None:
    item = UserIdentityNegotiation()
    item.user_identity_type, item.primary_field, item.secondary_field = kind, name, b"ROSE"
    with serving() as running:
        behind(running, Stubborn(Refusal.IDENTITY))
        asked_in(running.port, associate_rq(identity=item))
        (record,) = running.audit.named("association-refused")
    assert record.get("user") == noted
    assert not any(secret in str(record) for secret in ("ROSE", "TULIP", "a.to.ken"))


def test_the_gate_is_told_what_is_proposed() -> None:
    with serving() as running:
        contexts = [(f"1.2.3.{number % 120}", [IMPLICIT]) for number in range(128)]
        assert asked_in(running.port, associate_rq(*contexts)) is None
        (candidate,) = running.gate.candidates
    assert candidate.sop_classes == tuple(f"1.2.3.{number}" for number in range(120))


class Changing(FakeGate):
    """Lets go on who is not ``gone``."""

    def __init__(self) -> None:
        super().__init__()
        self.gone: set[str] = set()
        self.failing = False
        self.looks = 0

    def stands(self, caller: Caller) -> bool:
        self.looks += 1
        if self.failing:
            raise RecordsFailed
        return caller.ae_title not in self.gone


def test_who_no_longer_stands_is_shown_out_and_others_stay() -> None:
    with serving() as running:
        gate = behind(running, Changing())
        going = running.associate((ECHO, [IMPLICIT]), calling="GOING")
        staying = running.associate((ECHO, [IMPLICIT]), calling="STAYING")
        silent = running.connect()
        gate.gone.add("GOING")
        assert aborted(going) == BY_THE_USER
        assert [name for name, _, _ in running.audit.events].count("association-revoked") == 1
        staying.sendall(p_data((1, 3, command(C_ECHO_RQ, AffectedSOPClassUID=ECHO))))
        assert read_pdu(staying)[0] == 4
        for one in (going, staying, silent):
            one.close()


def test_a_watch_that_fails_ends_nobody_and_goes_on() -> None:
    with serving() as running:
        gate = behind(running, Changing())
        one = running.associate((ECHO, [IMPLICIT]), calling="ONE")
        gate.failing, gate.looks = True, 0
        gate.gone.add("ONE")
        assert until(lambda: gate.looks >= 3)
        one.sendall(p_data((1, 3, command(C_ECHO_RQ, AffectedSOPClassUID=ECHO))))
        assert read_pdu(one)[0] == 4
        gate.failing = False
        assert aborted(one) == BY_THE_USER
        one.close()


def test_a_busy_handler_keeps_nobody() -> None:
    let_go, entered = threading.Event(), threading.Event()

    def find(request: Request) -> Iterator[Response]:
        entered.set()
        let_go.wait(30)
        yield Response(status=0)

    with serving(find_class(find)) as running:
        gate = behind(running, Changing())
        one = running.associate((FIND, [EXPLICIT]), calling="BUSY")
        asking = command(C_FIND_RQ, data=True, AffectedSOPClassUID=FIND, Priority=0)
        one.sendall(p_data((1, 3, asking), (1, 2, b"")))
        assert entered.wait(10)
        gate.gone.add("BUSY")
        assert read_pdu(one) == b""  # nothing is said on a connection that is cut
        let_go.set()
        one.close()
    assert len(running.audit.named("association-revoked")) == 1


def test_who_is_not_asked_for_is_not_looked_at() -> None:
    with serving() as running:
        gate = behind(running, Changing())
        connection = running.connect()
        one = running.associate((CT, [EXPLICIT]), (ECHO, [IMPLICIT]), calling="ONE")
        assert until(lambda: gate.looks > 0)
        assert len(running.gate.candidates) == 0 and len(gate.candidates) == 1
        one.close()
        connection.close()
