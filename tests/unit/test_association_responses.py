"""Responses on their way out: gathered where more is at hand, never where it is not; and hostile questions."""

import struct
import threading
from collections.abc import Iterator

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE

from pacs.association.commands import decode_command
from pacs.association.message import Operation, Request, Response
from tests.association_fakes import (
    EXPLICIT,
    FIND,
    IMPLICIT,
    Running,
    command,
    find_class,
    p_data,
    read_pdu,
    serving,
)

PENDING, CANCELLED = 0xFF00, 0xFE00
TIMEOUT_S = 20.0


def match(number: int) -> Dataset:
    one = Dataset()
    one.QueryRetrieveLevel = "STUDY"
    one.StudyInstanceUID = f"1.2.{number}"
    return one


def asked(message_id: int = 9) -> bytes:
    request = command(0x20, message_id, data=True, AffectedSOPClassUID=FIND)
    return p_data((1, 3, request), (1, 2, b""))


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT])
@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 50])
def test_gathered_matches_arrive_whole_and_in_order(syntax: str, count: int) -> None:
    def handler(_: Request) -> Iterator[Response]:
        for number in range(count):
            status = 0xFF01 if number % 3 else PENDING
            yield Response(status=status, identifier=match(number), more_at_once=True)
        yield Response(status=0)

    with serving(find_class(handler)) as running:
        entity = AE("ASKER")
        entity.add_requested_context(FIND, syntax)
        association = entity.associate("127.0.0.1", running.port)
        got = list(association.send_c_find(match(0), FIND))
        association.release()
    found = [(one.Status, None if data is None else data.StudyInstanceUID) for one, data in got]
    expected = [(0xFF01 if number % 3 else PENDING, f"1.2.{number}") for number in range(count)]
    assert found == [*expected, (0, None)]


def test_what_is_not_followed_at_once_does_not_wait() -> None:
    """The handler goes on only when the peer has what was said so far."""
    received = threading.Event()

    def handler(_: Request) -> Iterator[Response]:
        for number in range(3):
            yield Response(status=PENDING, identifier=match(number), more_at_once=True)
        yield Response(status=PENDING, identifier=match(3))
        yield Response(status=0 if received.wait(TIMEOUT_S) else 0xC001)

    with (
        serving(find_class(handler)) as running,
        running.associate((FIND, [EXPLICIT])) as connection,
    ):
        connection.sendall(asked())
        for _ in range(8):  # command and Data Set of four
            assert read_pdu(connection)[0] == 4
        received.set()
        assert decode_command(read_pdu(connection)[12:])["Status"] == 0


def test_no_more_than_a_handful_waits() -> None:
    """However much is said to be at hand, the ninth match finds eight on their way."""
    received = threading.Event()

    def handler(_: Request) -> Iterator[Response]:
        for number in range(8):
            yield Response(status=PENDING, identifier=match(number), more_at_once=True)
        yield Response(status=0 if received.wait(TIMEOUT_S) else 0xC001)

    with (
        serving(find_class(handler)) as running,
        running.associate((FIND, [EXPLICIT])) as connection,
    ):
        connection.sendall(asked())
        for _ in range(16):
            assert read_pdu(connection)[0] == 4
        received.set()
        assert decode_command(read_pdu(connection)[12:])["Status"] == 0


def test_a_large_match_does_not_wait_for_seven_others() -> None:
    received = threading.Event()
    large = match(1)
    large.EncapsulatedDocument = bytes(70_000)

    def handler(_: Request) -> Iterator[Response]:
        yield Response(status=PENDING, identifier=large, more_at_once=True)
        yield Response(status=0 if received.wait(TIMEOUT_S) else 0xC001)

    with (
        serving(find_class(handler)) as running,
        running.associate((FIND, [EXPLICIT])) as connection,
    ):
        connection.sendall(asked())
        while read_pdu(connection)[11] != 2:  # until the last fragment of the Data Set
            continue
        received.set()
        assert decode_command(read_pdu(connection)[12:])["Status"] == 0


def test_a_cancel_is_seen_among_gathered_matches() -> None:
    said: list[bool] = []
    sent = threading.Event()

    def handler(request: Request) -> Iterator[Response]:
        while not request.cancelled():
            said.append(sent.is_set())
            yield Response(status=PENDING, identifier=match(len(said)), more_at_once=True)
        yield Response(status=CANCELLED)

    with (
        serving(find_class(handler)) as running,
        running.associate((FIND, [EXPLICIT])) as connection,
    ):
        connection.sendall(asked())
        for _ in range(10):
            assert read_pdu(connection)[0] == 4
        connection.sendall(p_data((1, 3, command(0x0FFF, MessageIDBeingRespondedTo=9))))
        sent.set()
        while not running.audit.named("C-FIND"):
            assert read_pdu(connection)[0] == 4
        assert [one["status"] for one in running.audit.named("C-FIND")] == ["FE00"]
    assert sum(said) <= 20


def test_what_waits_is_sent_before_a_match_that_cannot_be_encoded() -> None:
    broken = match(2)
    broken.add_new(0x00280010, "US", 1)
    broken[0x00280010]._value = "many"

    def handler(_: Request) -> Iterator[Response]:
        yield Response(status=PENDING, identifier=match(1), more_at_once=True)
        yield Response(status=PENDING, identifier=broken, more_at_once=True)

    with (
        serving(find_class(handler)) as running,
        running.associate((FIND, [EXPLICIT])) as connection,
    ):
        connection.sendall(asked())
        assert decode_command(read_pdu(connection)[12:])["Status"] == PENDING
        read_pdu(connection)
        assert decode_command(read_pdu(connection)[12:])["Status"] == 0xC001


def refused(running: Running, field: int, identifier: bytes) -> int:
    with running.associate((FIND, [EXPLICIT])) as connection:
        request = command(field, 9, data=True, AffectedSOPClassUID=FIND)
        connection.sendall(p_data((1, 3, request)))
        for start in range(0, len(identifier), 16_000):
            piece = identifier[start : start + 16_000]
            last = start + len(piece) == len(identifier)
            connection.sendall(p_data((1, 2 if last else 0, piece)))
        return int(decode_command(read_pdu(connection)[12:])["Status"])  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("operation", "field", "status"),
    [(Operation.C_FIND, 0x0020, 0xA700), (Operation.C_MOVE, 0x0021, 0xA701)],
)
def test_a_question_of_too_many_items_is_refused_for_want_of_resources(
    operation: Operation, field: int, status: int
) -> None:
    items = struct.pack("<HHL", 0xFFFE, 0xE000, 0) * 130_000
    hostile = struct.pack("<HH2sHL", 0x0040, 0x0275, b"SQ", 0, len(items)) + items
    asked_for: list[Request] = []

    def handler(request: Request) -> Iterator[Response]:
        asked_for.append(request)
        yield Response(status=0)

    with serving(find_class(handler)) as running:
        assert refused(running, field, hostile) == status
        (noted,) = running.audit.named(operation.value)
        assert (noted["outcome"], noted["status"]) == ("failure", f"{status:04X}")
    assert asked_for == []
