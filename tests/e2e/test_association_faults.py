"""Peers that fail, stall or lie at every point of an association: nothing of theirs is left behind."""

import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from pacs.association.commands import decode_command
from pacs.association.message import Message, Operation, Request, Response
from scp.service_class import ServiceClass
from tests.association_fakes import (
    ABORT,
    CT,
    ECHO,
    EXPLICIT,
    FIND,
    IMPLICIT,
    PATIENCE_S,
    RELEASE_RQ,
    Running,
    aborted,
    associate_rq,
    command,
    find_class,
    p_data,
    read_exactly,
    read_pdu,
    serving,
    store_class,
    until,
)

CONTEXTS = ((ECHO, [IMPLICIT]), (FIND, [EXPLICIT]), (CT, [EXPLICIT]))
ECHO_ID, FIND_ID, CT_ID = 1, 3, 5
FUZZ_STREAMS = 300


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@contextmanager
def leaving_nothing(*classes: ServiceClass, **bounds: Any) -> Iterator[Running]:
    """Serve; afterwards threads, files of the spool and descriptors are as before."""
    before = descriptors()
    with serving(*classes, **bounds) as running:
        yield running
        assert until(lambda: running.server.open_connections == 0)
        assert running.server.open_associations == 0
        assert running.spool.open == []
    assert until(lambda: descriptors() == before)


def matches(request: Request) -> Iterator[Response]:
    """Many large matches, until cancelled."""
    one = Dataset()
    one.EncapsulatedDocument = bytes(50_000)
    for _ in range(1_000):
        if request.cancelled():
            yield Response(status=0xFE00)
            return
        yield Response(status=0xFF00, identifier=one)
    yield Response(status=0)


def find_rq(message_id: int = 9) -> bytes:
    asked = command(0x20, message_id, data=True, AffectedSOPClassUID=FIND)
    return p_data((FIND_ID, 3, asked), (FIND_ID, 2, b""))


def store_rq() -> bytes:
    return p_data(
        (CT_ID, 3, command(1, data=True, AffectedSOPClassUID=CT, AffectedSOPInstanceUID="1.2.3"))
    )


ECHO_RQ = p_data((ECHO_ID, 3, command(0x30, AffectedSOPClassUID=ECHO)))
POINTS: dict[str, tuple[bool, bytes]] = {
    "before anything": (False, b""),
    "within the A-ASSOCIATE-RQ": (False, associate_rq(*CONTEXTS)[:100]),
    "idle": (True, b""),
    "within a PDU header": (True, ECHO_RQ[:3]),
    "within a PDV header": (True, ECHO_RQ[:9]),
    "within a command": (True, ECHO_RQ[:30]),
    "between command and Data Set": (True, store_rq()),
    "within a Data Set": (True, store_rq() + p_data((CT_ID, 0, bytes(9_000)))),
    "within a fragment": (True, store_rq() + p_data((CT_ID, 0, bytes(9_000)))[:4_000]),
    "while it is answered": (True, find_rq()),
    "after the release": (True, RELEASE_RQ),
    "after an abort of ours": (True, p_data((99, 3, b""))),
}


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def abort(connection: socket.socket) -> None:
    connection.sendall(ABORT)
    connection.close()


ENDS: dict[str, Callable[[socket.socket], None]] = {
    "abort": abort,
    "reset": reset,
    "close": socket.socket.close,
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("point", POINTS)
def test_an_end_at_any_point_leaves_nothing(point: str, end: str) -> None:
    associated, sent = POINTS[point]
    with leaving_nothing(store_class(), find_class(matches)) as running:
        for _ in range(2):
            connection = running.associate(*CONTEXTS) if associated else running.connect()
            connection.sendall(sent)
            if point == "while it is answered":
                assert read_pdu(connection)[0] == 4
            ENDS[end](connection)


@pytest.mark.parametrize("point", POINTS)
def test_a_half_open_connection_ends_by_itself(point: str) -> None:
    """The peer is gone without a word: nothing more comes, and nothing is read."""
    associated, sent = POINTS[point]
    with leaving_nothing(
        store_class(), find_class(matches), artim_timeout_s=0.5, network_timeout_s=0.4
    ) as running:
        connection = running.associate(*CONTEXTS) if associated else running.connect()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.sendall(sent)
        assert until(lambda: running.server.open_connections == 0)
        connection.close()


def test_a_stream_of_single_bytes_is_served() -> None:
    with leaving_nothing(store_class()) as running, running.connect() as connection:
        stream = [
            associate_rq(*CONTEXTS),
            store_rq() + p_data((CT_ID, 0, b"12345")) + p_data((CT_ID, 0, b""), (CT_ID, 2, b"67")),
            RELEASE_RQ,
        ]
        answers = []
        for part in stream:
            for byte in part:
                connection.sendall(bytes((byte,)))
            answers.append(read_pdu(connection)[0])
        assert answers == [2, 4, 6]
        assert bytes(running.spool.all[0].content) == b"1234567"


def element(tag: int, length: int, value: bytes) -> bytes:
    return struct.pack("<HHL", 0, tag, length) + value


HOSTILE_COMMANDS = {
    "longer than the set": element(0x0002, 500, b"1.2"),
    "of 4 GB": element(0x0002, 0xFFFFFFFF, b"1.2"),
    "cut off in its header": ECHO_RQ[12:-3] + b"\x00",
    "of another group": struct.pack("<HHL", 8, 0x16, 2) + b"1 ",
    "with half a number": element(0x0100, 1, b"0"),
    "without a field": element(0x0800, 2, b"\x01\x01"),
    "with a field of no number": element(0x0100, 0, b"") + element(0x0800, 2, b"\x01\x01"),
    "empty": b"",
}


@pytest.mark.parametrize("name", HOSTILE_COMMANDS)
def test_a_hostile_command_costs_the_association(name: str) -> None:
    with leaving_nothing() as running, running.associate(*CONTEXTS) as connection:
        connection.sendall(p_data((ECHO_ID, 3, HOSTILE_COMMANDS[name])))
        assert aborted(connection) == (2, 0)


@pytest.mark.parametrize("length", [0, 1, 11, 3_000, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_hostile_pdv_costs_the_association_and_its_file(length: int) -> None:
    with leaving_nothing(store_class()) as running, running.associate(*CONTEXTS) as connection:
        connection.sendall(store_rq() + struct.pack(">BxLLBB", 4, 10, length, CT_ID, 0) + b"1234")
        assert aborted(connection) == (2, 6)
        assert until(lambda: [one.left for one in running.spool.all] == [1])


def test_associations_beyond_the_limit_are_all_rejected() -> None:
    with leaving_nothing(max_associations=3, network_timeout_s=300.0) as running:
        held = [running.associate() for _ in range(3)]
        before, threads = descriptors(), threading.active_count()
        for _ in range(200):
            with running.connect() as connection:
                connection.sendall(associate_rq())
                assert read_pdu(connection)[6:] == b"\x00\x02\x03\x02"
        assert until(lambda: threading.active_count() == threads)
        assert until(lambda: descriptors() == before)
        for one in held:
            one.sendall(ECHO_RQ + RELEASE_RQ)
            assert [read_pdu(one)[0], read_pdu(one)[0]] == [4, 6]
            one.close()


def mutated(stream: bytes, chance: random.Random) -> bytes:
    """Change a stream as a broken or evil peer would."""
    changed = bytearray(stream)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(changed))
        match chance.randrange(6):
            case 0:
                changed[place] ^= 1 << chance.randrange(8)
            case 1:
                changed[place] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
            case 2:
                del changed[place : place + chance.randint(1, 8)]
            case 3:
                changed[place:place] = chance.randbytes(chance.randint(1, 8))
            case 4:
                changed[place : place + 4] = struct.pack(">L", chance.getrandbits(32))
            case _:
                del changed[place:]
        if not changed:
            return b"\x00"
    return bytes(changed)


def test_fuzzed_streams_leave_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A bounded corpus, the same in every run: what fails can be run again by its number."""
    store = store_rq() + p_data((CT_ID, 0, bytes(300)), (CT_ID, 2, bytes(30)))
    valid = (associate_rq(*CONTEXTS), ECHO_RQ, store, find_rq(), RELEASE_RQ)

    def few(request: Request) -> Iterator[Response]:
        yield Response(status=0xFF00, identifier=Dataset())
        yield Response(status=0xFE00 if request.cancelled() else 0)

    with leaving_nothing(store_class(), find_class(few), artim_timeout_s=0.2) as running:
        for number in range(FUZZ_STREAMS):
            chance = random.Random(number)
            parts = list(valid)
            place = chance.randrange(len(parts))
            parts[place] = mutated(parts[place], chance)
            with running.connect() as connection:
                try:
                    connection.sendall(b"".join(parts))
                    connection.shutdown(socket.SHUT_WR)
                    while pdu := read_pdu(connection):
                        assert 2 <= pdu[0] <= 7, number
                except (BrokenPipeError, ConnectionResetError, OSError):
                    continue
        with running.associate() as connection:
            connection.sendall(ECHO_RQ)
            assert read_pdu(connection)[0] == 4
    failures = ("association-failed", "door-failed", "session-failed")
    assert [one.message for one in caplog.records if one.message.startswith(failures)] == []


def resident_kib() -> int:
    (line,) = (
        one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmRSS")
    )
    return int(line.split()[1])


def test_memory_does_not_grow_with_associations() -> None:
    with leaving_nothing(store_class()) as running:
        for number in range(120):
            with running.associate(*CONTEXTS) as connection:
                connection.sendall(store_rq() + p_data((CT_ID, 0, bytes(131_000))) * 4)
                connection.sendall(p_data((CT_ID, 2, b"")))
                assert read_pdu(connection)[0] == 4
            if number == 40:
                assert until(lambda: running.server.open_connections == 0)
                running.spool.all.clear()
                before = resident_kib()
            if number >= 40:
                running.spool.all.clear()
        assert until(lambda: running.server.open_connections == 0)
        assert resident_kib() - before < 8_192


def test_two_that_both_write_do_not_wait_for_each_other() -> None:
    """The peer sends 16 MB before it reads the first byte of an answer of 30 MB."""

    def many(_request: Request) -> Iterator[Response]:
        one = Dataset()
        one.EncapsulatedDocument = bytes(30_000_000)
        yield Response(status=0xFF00, identifier=one)
        yield Response(status=0)

    with leaving_nothing(store_class(), find_class(many)) as running:
        with running.associate(*CONTEXTS) as connection:
            connection.sendall(find_rq() + store_rq())
            fragment = p_data((CT_ID, 0, bytes(65_000)))
            for _ in range(250):
                connection.sendall(fragment)
            connection.sendall(p_data((CT_ID, 2, b"")))
            fields = []
            while len(fields) < 3:
                pdu = read_pdu(connection)
                assert pdu[0] == 4
                if pdu[11] & 1:
                    fields.append(decode_command(pdu[12:])["CommandField"])
        assert fields == [0x8020, 0x8020, 0x8001]
        assert running.spool.all[0].size_bytes == 250 * 65_000


def test_a_handler_learns_that_nobody_waits_any_more() -> None:
    learned = threading.Event()

    def searching(request: Request) -> Iterator[Response]:
        while not request.cancelled():
            time.sleep(0.01)
        learned.set()
        yield Response(status=0xFE00)

    with leaving_nothing(find_class(searching)) as running:
        with running.associate(*CONTEXTS) as connection:
            connection.sendall(find_rq())
        assert learned.wait(PATIENCE_S)


def test_messages_of_other_threads_go_out_while_a_handler_is_busy_and_while_it_is_idle() -> None:
    begun, posted, may_end = threading.Event(), threading.Event(), threading.Event()
    association: list[Any] = []

    def busy(request: Request) -> Iterator[Response]:
        association.append(request.association)
        begun.set()
        posted.wait(PATIENCE_S)
        while not may_end.is_set() and not request.cancelled():
            time.sleep(0.01)
        yield Response(status=0)

    def post(number: int) -> None:
        fields = {"AffectedSOPInstanceUID": f"1.2.{number}", "EventTypeID": number}
        association[0].post(
            Message(operation=Operation.N_EVENT_REPORT, sop_class_uid=FIND, fields=fields)
        )

    def reported(connection: socket.socket) -> dict[str, object]:
        return decode_command(read_pdu(connection)[12:])

    def answer(connection: socket.socket, report: dict[str, object]) -> None:
        message_id = report["MessageID"]
        fields = command(0x8100, MessageIDBeingRespondedTo=message_id, Status=0)
        connection.sendall(p_data((FIND_ID, 3, fields)))

    with leaving_nothing(find_class(busy)) as running, running.associate(*CONTEXTS) as connection:
        connection.sendall(find_rq())
        assert begun.wait(PATIENCE_S)
        post(1)
        post(2)
        posted.set()
        first = reported(connection)
        assert (first["CommandField"], first["EventTypeID"]) == (0x0100, 1)
        answer(connection, first)
        second = reported(connection)
        assert second["EventTypeID"] == 2
        may_end.set()
        answer(connection, second)
        assert reported(connection)["CommandField"] == 0x8020
        post(3)
        third = reported(connection)
        assert third["EventTypeID"] == 3
        answer(connection, third)
        connection.sendall(RELEASE_RQ)
        assert read_exactly(connection, 1) == b"\x06"


def test_what_a_handler_posts_follows_its_answer() -> None:
    def posting(request: Request) -> Iterator[Response]:
        request.association.post(
            Message(operation=Operation.N_EVENT_REPORT, sop_class_uid=FIND, fields={})
        )
        assert not request.cancelled()
        yield Response(status=0xFF00)
        yield Response(status=0)

    with (
        leaving_nothing(find_class(posting)) as running,
        running.associate(*CONTEXTS) as connection,
    ):
        connection.sendall(find_rq())
        seen = [decode_command(read_pdu(connection)[12:])["CommandField"] for _ in range(3)]
        assert seen == [0x8020, 0x8020, 0x0100]


def test_an_unanswered_message_of_ours_ends_the_association() -> None:
    association: list[Any] = []

    def once(request: Request) -> Iterator[Response]:
        association.append(request.association)
        yield Response(status=0)

    quick = {"dimse_timeout_s": 0.2, "network_timeout_s": 300.0}  # an idle one would end likewise
    with (
        leaving_nothing(find_class(once), **quick) as running,
        running.associate(*CONTEXTS) as connection,
    ):
        connection.sendall(find_rq())
        assert read_pdu(connection)[0] == 4
        association[0].post(
            Message(operation=Operation.N_EVENT_REPORT, sop_class_uid=FIND, fields={})
        )
        assert aborted(connection) == (0, 0)
