"""Requests in both directions: ours as SCU of the N- services, the peer's on an association we opened. PS3.7 Section 10.1."""

import threading
import time
from typing import Any

import msgspec
import pytest
from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.association import Association as Theirs
from pynetdicom.dimse_primitives import C_ECHO

from config.settings import Association
from pacs.association.answering import Asked, OnRequest
from pacs.association.message import Message, Operation, Response
from pacs.association.requested import Requested
from pacs.association.requestor import associate
from pacs.core.errors import (
    IdentifierInvalid,
    InstanceUnreadable,
    PeerRefused,
    PeerUnreachable,
)
from tests.association_fakes import until
from tests.unit.test_requestor import proposal, scp
from tests.upstream import checkpoint

COMMITMENT = "1.2.840.10008.1.20.1"
COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"
MPPS = "1.2.840.10008.3.1.2.3.3"
FILM_SESSION = "1.2.840.10008.5.1.1.1"
PRINTER, PRINT_META = "1.2.840.10008.5.1.1.16", "1.2.840.10008.5.1.1.9"
BOUNDS = Association(dimse_timeout_s=10, artim_timeout_s=5)


def named(name: str) -> Dataset:
    one = Dataset()
    one.PatientName = name
    return one


def action(**more: Any) -> Message:
    return Message(
        operation=Operation.N_ACTION,
        sop_class_uid=COMMITMENT,
        fields={"RequestedSOPInstanceUID": COMMITMENT_INSTANCE, "ActionTypeID": 1},
        data_set=named("ASKED"),
        **more,
    )


ASKED_BY_US = [
    (
        Operation.N_CREATE,
        MPPS,
        evt.EVT_N_CREATE,
        {"AffectedSOPInstanceUID": "1.2.3"},
        "attribute_list",
    ),
    (
        Operation.N_SET,
        MPPS,
        evt.EVT_N_SET,
        {"RequestedSOPInstanceUID": "1.2.3"},
        "modification_list",
    ),
    (
        Operation.N_ACTION,
        COMMITMENT,
        evt.EVT_N_ACTION,
        {"RequestedSOPInstanceUID": "1.2.3", "ActionTypeID": 7},
        "action_information",
    ),
]


@pytest.mark.parametrize(("operation", "sop_class", "event", "fields", "information"), ASKED_BY_US)
def test_a_message_with_a_data_set_is_answered_with_one(
    operation: Operation, sop_class: str, event: Any, fields: dict[str, object], information: str
) -> None:
    seen: list[str] = []

    def handle(one: evt.Event) -> tuple[int, Dataset]:
        seen.append(str(getattr(one, information).PatientName))
        return 0x0000, named("ANSWERED")

    message = Message(
        operation=operation, sop_class_uid=sop_class, fields=fields, data_set=named("ASKED")
    )
    with scp([(event, handle)], sop_class) as peer, opened(peer, sop_class) as requested:
        answer = requested.ask(message)
    assert seen == ["ASKED"]
    assert answer.status == 0x0000
    assert answer.data_set is not None
    assert answer.data_set.PatientName == "ANSWERED"
    assert answer.fields["AffectedSOPInstanceUID"] == "1.2.3"


def test_attributes_are_asked_by_tag_on_the_context_of_a_meta_class() -> None:
    seen: list[Any] = []

    def handle(one: evt.Event) -> tuple[int, Dataset]:
        seen.append((one.request.RequestedSOPClassUID, list(one.attribute_identifiers)))
        return 0x0107, named("PRINTER")

    message = Message(
        operation=Operation.N_GET,
        sop_class_uid=PRINTER,
        fields={
            "RequestedSOPInstanceUID": "1.2.3",
            "AttributeIdentifierList": [0x00100010, 0x21100010],
        },
        context_uid=PRINT_META,
    )
    with scp([(evt.EVT_N_GET, handle)], PRINT_META) as peer, opened(peer, PRINT_META) as requested:
        answer = requested.ask(message)
    assert seen == [(PRINTER, [0x00100010, 0x21100010])]
    assert answer.status == 0x0107
    assert answer.data_set == named("PRINTER")


def test_a_message_without_data_set_and_a_failure_leave_the_association() -> None:
    statuses = iter([0x0112, 0x0000])
    message = Message(
        operation=Operation.N_DELETE,
        sop_class_uid=FILM_SESSION,
        fields={"RequestedSOPInstanceUID": "1.2.3"},
    )
    with (
        scp([(evt.EVT_N_DELETE, lambda _: next(statuses))], FILM_SESSION) as peer,
        opened(peer, FILM_SESSION) as requested,
    ):
        answers = [requested.ask(message) for _ in range(2)]
    assert [(one.status, one.data_set) for one in answers] == [(0x0112, None), (0x0000, None)]


def test_what_cannot_be_asked_is_refused_here_and_the_association_goes_on() -> None:
    unsayable = Dataset()
    unsayable.PerimeterValue = "not a number"
    with (
        scp([(evt.EVT_N_ACTION, lambda _: (0x0000, None))], COMMITMENT) as peer,
        opened(peer, COMMITMENT) as requested,
    ):
        with pytest.raises(PeerRefused):
            requested.ask(action(context_uid=MPPS))
        event = Message(operation=Operation.N_EVENT_REPORT, sop_class_uid=COMMITMENT, fields={})
        with pytest.raises(PeerRefused):  # the SCP's to send, and we are the SCU
            requested.ask(event)
        with pytest.raises(IdentifierInvalid):
            requested.ask(
                Message(
                    operation=Operation.N_ACTION,
                    sop_class_uid=COMMITMENT,
                    fields={},
                    data_set=unsayable,
                )
            )
        assert requested.ask(action()).status == 0x0000


def opened(peer: Any, *classes: str, on_request: OnRequest | None = None, **bounds: Any) -> Any:
    return associate(
        peer,
        [proposal(one) for one in classes],
        ae_title="US",
        bounds=msgspec.structs.replace(BOUNDS, **bounds),
        on_request=on_request,
    )


class Reporter:
    """A peer that answers N-ACTION and reports the outcome on the same association."""

    def __init__(self, *, early: bool = False) -> None:
        self.early = early
        self.answers: list[int | None] = []
        self.association: Theirs | None = None
        self.later: threading.Thread | None = None
        self.handlers: list[Any] = [(evt.EVT_N_ACTION, self.act)]

    def act(self, event: evt.Event) -> tuple[int, Dataset]:
        self.association = event.assoc
        if self.early:
            self.report()  # before its own answer: we wait for that one
        elif not self.later:
            self.later = threading.Thread(target=self._later, daemon=True)
            self.later.start()
        return 0x0000, named("ACTED")

    def _later(self) -> None:
        time.sleep(0.1)
        self.report()

    def report(self) -> None:
        assert self.association is not None
        status, _ = self.association.send_n_event_report(
            named("COMMITTED"), 1, COMMITMENT, COMMITMENT_INSTANCE
        )
        self.answers.append(status.get("Status"))


class Heard:
    """Takes what the peer asks."""

    def __init__(self, answer: Response | Exception | None = None) -> None:
        self.asked: list[Asked] = []
        self.answer = answer or Response(status=0x0000)

    def __call__(self, asked: Asked) -> Response:
        self.asked.append(asked)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture(params=[False, True], ids=["while-idle", "while-we-wait"])
def reporter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Reporter:
    checkpoint.install(monkeypatch)  # the peer's thread must not take the answer from its event
    return Reporter(early=request.param)


def test_an_event_on_an_association_we_opened_is_answered(reporter: Reporter) -> None:
    heard = Heard()
    with (
        scp(reporter.handlers, COMMITMENT) as peer,
        opened(peer, COMMITMENT, on_request=heard) as requested,
    ):
        assert requested.ask(action()).status == 0x0000
        if not reporter.early:
            assert requested.serve(10)
        assert until(lambda: reporter.answers == [0x0000])
        assert requested.ask(action()).data_set == named("ACTED")
    first = heard.asked[0]
    assert (first.operation, first.sop_class_uid) == (Operation.N_EVENT_REPORT, COMMITMENT)
    assert first.fields["EventTypeID"] == 1
    assert first.fields["AffectedSOPInstanceUID"] == COMMITMENT_INSTANCE
    assert first.data_set == named("COMMITTED")


@pytest.mark.parametrize(
    ("on_request", "status"),
    [
        (None, 0x0211),
        (Heard(RuntimeError("a patient's name")), 0x0110),
        (Heard(InstanceUnreadable("a path")), 0x0110),
        (Heard(Response(status=0xFF00)), 0x0110),
        (Heard(Response(status=0x0113, comment="what")), 0x0113),
        (Heard(Response(status=0x0000, fields={"NoSuchKeyword": 1})), 0x0110),
    ],
    ids=["none", "error", "refusal", "pending", "failure", "unsayable"],
)
def test_what_the_opener_cannot_answer_fails_alone(
    reporter: Reporter, on_request: OnRequest | None, status: int
) -> None:
    with (
        scp(reporter.handlers, COMMITMENT) as peer,
        opened(peer, COMMITMENT, on_request=on_request) as requested,
    ):
        assert requested.ask(action()).status == 0x0000
        if not reporter.early:
            assert requested.serve(10)
        assert until(lambda: reporter.answers == [status])
        assert requested.ask(action()).status == 0x0000


def test_a_request_in_a_role_we_do_not_have_is_answered_so() -> None:
    answers: list[int] = []

    def turn(event: evt.Event) -> tuple[int, None]:
        event.assoc.accepted_contexts[0]._as_scu = True
        echo = C_ECHO()
        echo.MessageID, echo.AffectedSOPClassUID = 7, COMMITMENT
        event.assoc.dimse.send_msg(echo, 1)
        _, answer = event.assoc.dimse.get_msg(block=True)
        answers.append(answer.Status)
        return 0x0000, None

    with (
        scp([(evt.EVT_N_ACTION, turn)], COMMITMENT) as peer,
        opened(peer, COMMITMENT) as requested,
    ):
        assert requested.ask(action()).status == 0x0000
    assert answers == [0x0122]


def test_what_came_before_the_release_is_answered_before_it(reporter: Reporter) -> None:
    heard = Heard()
    with scp(reporter.handlers, COMMITMENT) as peer:
        with opened(peer, COMMITMENT, on_request=heard) as requested:
            assert requested.ask(action()).status == 0x0000
            time.sleep(0.5)  # nobody looks; by now the event lies in the socket
        assert until(lambda: reporter.answers != [])
    assert reporter.answers == [0x0000]
    assert len(heard.asked) == 1


def test_a_peer_that_asks_and_asks_instead_of_answering_is_given_up() -> None:
    def act(event: evt.Event) -> tuple[int, None]:
        for _ in range(10_000):
            status, _ = event.assoc.send_n_event_report(None, 1, COMMITMENT, COMMITMENT_INSTANCE)
            if "Status" not in status:  # gone; here, within a handler, it stays "established"
                break
        return 0x0000, None

    heard = Heard()
    with (
        scp([(evt.EVT_N_ACTION, act)], COMMITMENT) as peer,
        pytest.raises(PeerUnreachable, match="no response within"),
        opened(peer, COMMITMENT, on_request=heard, dimse_timeout_s=1) as requested,
    ):
        requested.ask(action())
    assert len(heard.asked) > 1


def test_nothing_to_serve_is_told_when_time_is_over() -> None:
    with (
        scp([(evt.EVT_N_ACTION, lambda _: (0x0000, None))], COMMITMENT) as peer,
        opened(peer, COMMITMENT) as requested,
    ):
        assert not requested.serve(0.05)
        assert not requested.serve(0)
        assert requested.ask(action()).status == 0x0000


def test_a_release_by_the_peer_is_answered_not_aborted() -> None:
    ended: list[str] = []

    def released(association: Theirs) -> None:
        association.release()
        ended.append("aborted" if association.is_aborted else "released")

    def act(event: evt.Event) -> tuple[int, None]:
        timer = threading.Timer(0.1, released, [event.assoc])
        timer.daemon = True
        timer.start()
        return 0x0000, None

    def wait_for_event(requested: Requested) -> None:
        assert requested.ask(action()).status == 0x0000
        requested.serve(10)

    with scp([(evt.EVT_N_ACTION, act)], COMMITMENT) as peer:
        with pytest.raises(PeerUnreachable), opened(peer, COMMITMENT) as requested:
            wait_for_event(requested)
        assert until(lambda: ended != [])
    assert ended == ["released"]
