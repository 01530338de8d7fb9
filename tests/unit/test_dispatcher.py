"""The one door: service class, right, handler, status, audit."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from pacs.association.message import Operation, Request, Response
from pacs.core import errors
from pacs.core.caller import Caller, Right
from pacs.core.identifiers import AETitle, TransferSyntaxUID
from scp.server import Server
from scp.service_class import ServiceClass
from scp.status import COMMON, STATUSES, category, status_of
from scp.verification import verification
from tests.association_fakes import CT, ECHO, FIND, FakeAudit, FakeGate, find_class, store_class

SECRET = "DOE^JANE"


class Open:
    """An association that can do nothing."""

    id = "association-1"
    max_pdu_bytes = 0
    session: object = None


def request(operation: Operation, uid: str) -> Request:
    gate = FakeGate()
    candidate: Any = type("C", (), {"calling_ae_title": AETitle("A"), "address": "here"})
    return Request(
        operation=operation,
        sop_class_uid=uid,
        transfer_syntax_uid=TransferSyntaxUID("1.2.840.10008.1.2"),
        message_id=1,
        fields={},
        caller=gate.admit(candidate),
        called_ae_title=AETitle("PACS"),
        association=Open(),  # type: ignore[arg-type]
        cancelled=lambda: False,
    )


class Door:
    """A server with its fakes."""

    def __init__(self, *service_classes: ServiceClass, denied: Right | None = None) -> None:
        self.audit = FakeAudit()
        gate = FakeGate(frozenset({denied} if denied else ()))
        self.server = Server((verification(), *service_classes), gate=gate, audit=self.audit)

    def answers(self, operation: Operation, uid: str) -> list[Response]:
        asked = request(operation, uid)
        with self.server.open(asked.caller, frozenset({ECHO, FIND, CT})) as door:
            return list(door(asked))


def pending(*more: Response) -> list[Response]:
    return [Response(status=0xFF00), *more]


def raising(error: Exception) -> ServiceClass:
    def handler(_request: Request) -> Iterator[Response]:
        yield Response(status=0xFF00)
        raise error

    return find_class(handler, statuses={errors.TooManyMatches: 0xA700})


def test_an_answer_passes_and_is_recorded_once() -> None:
    door = Door()
    assert [one.status for one in door.answers(Operation.C_ECHO, ECHO)] == [0]
    ((event, caller, details),) = door.audit.events
    assert (event, details["outcome"], details["status"]) == ("C-ECHO", "success", "0000")
    assert caller is not None
    assert details["association"] == "association-1"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.TooManyMatches("x"), 0xA700),
        (errors.NotAuthorized(), 0x0124),
        (errors.OperationUnsupported(), 0x0211),
        (errors.RecordsFailed(SECRET), 0x0110),
        (ValueError(SECRET), 0x0110),
    ],
)
def test_an_error_becomes_one_final_response(
    error: Exception, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        door = Door(raising(error))
        first, last = door.answers(Operation.C_FIND, FIND)
    assert (first.status, last.status) == (0xFF00, status)
    assert last.comment == getattr(error, "peer_comment", errors.PacsError.peer_comment)
    assert SECRET not in caplog.text + repr(door.audit.events)
    assert [details["outcome"] for _, _, details in door.audit.events] == ["failure"]


def test_offending_elements_travel() -> None:
    error = errors.IdentifierInvalid(offending_elements=(0x00100020,))
    assert Door(raising(error)).answers(Operation.C_FIND, FIND)[-1].offending_elements == (
        0x00100020,
    )


def test_a_right_that_is_not_granted_is_refused_before_the_handler() -> None:
    def never(_request: Request) -> Iterator[Response]:
        raise AssertionError

    door = Door(find_class(never), denied=Right.QUERY)
    assert [one.status for one in door.answers(Operation.C_FIND, FIND)] == [0x0124]


@pytest.mark.parametrize(
    ("operation", "uid", "status"),
    [
        (Operation.C_FIND, ECHO, 0x0211),
        (Operation.C_FIND, "1.2.840.10008.5.1.4.31", 0x0122),
        (Operation.N_GET, "1.2.840.10008.5.1.1.16", 0x0118),
    ],
)
def test_what_nobody_serves_is_refused(operation: Operation, uid: str, status: int) -> None:
    assert [one.status for one in Door().answers(operation, uid)] == [status]


def test_a_service_that_was_not_negotiated_is_not_reached() -> None:
    door = Door(find_class(lambda _request: iter([Response(status=0)])))
    asked = request(Operation.C_FIND, FIND)
    with door.server.open(asked.caller, frozenset({ECHO})) as serve:
        assert [one.status for one in serve(asked)] == [0x0122]


def test_a_handler_without_a_final_response_is_answered_for() -> None:
    door = Door(find_class(lambda _request: iter(pending())))
    assert [one.status for one in door.answers(Operation.C_FIND, FIND)] == [0xFF00, 0x0110]


def test_an_abandoned_request_closes_its_handler_and_is_recorded() -> None:
    closed = []

    def endless(_request: Request) -> Iterator[Response]:
        try:
            while True:
                yield Response(status=0xFF00)
        finally:
            closed.append(True)

    door = Door(find_class(endless))
    asked = request(Operation.C_FIND, FIND)
    with door.server.open(asked.caller, frozenset({FIND})) as serve:
        answers = serve(asked)
        next(answers)
        answers.close()  # type: ignore[attr-defined]
    assert closed == [True]
    assert [details["outcome"] for _, _, details in door.audit.events] == ["abandoned"]


def test_each_service_class_sees_its_own_session() -> None:
    left = []
    seen = []

    @contextmanager
    def session(_caller: Caller) -> Iterator[object]:
        yield "mine"
        left.append(True)

    def handler(asked: Request) -> Iterator[Response]:
        seen.append((asked.association.session, asked.association.id))
        yield Response(status=0)

    Door(find_class(handler, session=session)).answers(Operation.C_FIND, FIND)
    assert seen == [("mine", "association-1")]
    assert left == [True]


def test_unlisted_classes_go_to_whoever_takes_any() -> None:
    door = Door(store_class(lambda _request: iter([Response(status=0)])))
    asked = request(Operation.C_STORE, "1.2.3.4.5")
    with door.server.open(asked.caller, frozenset({"1.2.3.4.5"})) as serve:
        assert [one.status for one in serve(asked)] == [0]


def test_common_statuses_are_failures_of_the_annex() -> None:
    for kind, status in STATUSES.items():
        assert status in COMMON
        assert category(status) == "failure"
        assert status_of(kind(), verification()) == status


def test_every_error_has_a_status_and_a_comment_that_fits() -> None:
    classes = [one for one in vars(errors).values() if isinstance(one, type)]
    kinds = [one for one in classes if issubclass(one, errors.PacsError)]
    assert kinds
    for kind in kinds:
        assert 1 <= len(kind.peer_comment) <= 64
        assert status_of(kind(), verification()) in COMMON
