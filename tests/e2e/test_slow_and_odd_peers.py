"""Peers that keep a thread, leave while they are served, or name themselves oddly, at the socket."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from pacs.association.message import Request, Response
from tests.association_fakes import (
    CT,
    ECHO,
    EXPLICIT,
    FIND,
    IMPLICIT,
    RELEASE_RQ,
    aborted,
    associate_rq,
    command,
    find_class,
    p_data,
    read_pdu,
    serving,
    store_class,
    until,
)

PATIENCE_S = 60.0
FIND_RQ = p_data((1, 3, command(0x20, AffectedSOPClassUID=FIND)))
ANNOUNCED = command(1, data=True, AffectedSOPClassUID=CT, AffectedSOPInstanceUID="1.2")


def cancel(message_id: int) -> bytes:
    return p_data((1, 3, command(0x0FFF, 0, MessageIDBeingRespondedTo=message_id)))


# --- messages that never end ----------------------------------------------------------

ENDLESS = {
    "a command, empty fragments": ((ECHO, [IMPLICIT]), b"", p_data((1, 1, b""))),
    "a command, a byte at a time": ((ECHO, [IMPLICIT]), b"", p_data((1, 1, b"x"))),
    "a Data Set, a byte at a time": (
        (CT, [EXPLICIT]),
        p_data((1, 3, ANNOUNCED)),
        p_data((1, 0, b"x")),
    ),
}


@pytest.mark.parametrize("name", ENDLESS)
@pytest.mark.parametrize("pause_s", [0.0, 0.05])
def test_a_message_that_does_not_get_on_is_aborted(name: str, pause_s: float) -> None:
    """Each PDU is whole and comes in time; the message they are of never ends."""
    context, begin, fragment = ENDLESS[name]
    least = 4_096 if b"x" not in fragment or pause_s else 1 << 30
    bounds = {"network_timeout_s": 0.6, "min_progress_bytes": least, "max_command_bytes": 1 << 30}
    with serving(store_class(), **bounds) as running:
        with running.associate(context) as connection:
            connection.sendall(begin)
            ended = threading.Event()

            def feed() -> None:
                try:
                    while not ended.wait(pause_s):
                        connection.sendall(fragment * (1 if pause_s else 500))
                except OSError:
                    ended.set()

            feeding = threading.Thread(target=feed)
            feeding.start()
            assert until(lambda: running.server.open_associations == 0, PATIENCE_S)
            ended.set()
            feeding.join(PATIENCE_S)
        assert running.spool.open == []


def test_a_slow_line_is_served_as_long_as_it_gets_on() -> None:
    """Twice a window long and more, each with its share: slow is not hostile."""
    with serving(store_class(), network_timeout_s=1.0, min_progress_bytes=20) as running:
        with running.associate((CT, [EXPLICIT])) as connection:
            connection.sendall(p_data((1, 3, ANNOUNCED)))
            end_s = time.monotonic() + 2.2
            while time.monotonic() < end_s:
                connection.sendall(p_data((1, 0, bytes(20))))
                time.sleep(0.02)
            connection.sendall(p_data((1, 2, b"")))
            assert read_pdu(connection)[0] == 4
        assert running.spool.all[0].size_bytes > 100


def test_a_message_waits_unpunished_while_we_are_busy() -> None:
    """A fragment of the next request lies there for longer than a window: our handler's fault."""
    let_go = threading.Event()

    def slow(_: Request) -> Iterator[Response]:
        assert let_go.wait(PATIENCE_S)
        yield Response(status=0)

    with (
        serving(find_class(slow), network_timeout_s=1.0) as running,
        running.associate((FIND, [IMPLICIT])) as connection,
    ):
        connection.sendall(FIND_RQ + FIND_RQ[:-40])
        time.sleep(1.4)
        let_go.set()
        assert read_pdu(connection)[0] == 4
        connection.sendall(FIND_RQ[-40:])
        assert read_pdu(connection)[0] == 4


def test_a_peer_that_reads_at_a_trickle_is_cut_off() -> None:
    def endless(request: Request) -> Iterator[Response]:
        while not request.cancelled():
            yield Response(status=0xFF00, comment="x" * 64)
        yield Response(status=0xFE00)

    wanted = associate_rq((FIND, [IMPLICIT]))
    with serving(find_class(endless), network_timeout_s=0.6, artim_timeout_s=1.0) as running:
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.connect(("127.0.0.1", running.port))
        with connection:
            connection.sendall(wanted)
            assert read_pdu(connection)[0] == 2
            connection.sendall(FIND_RQ)
            end_s = time.monotonic() + PATIENCE_S
            while running.server.open_associations and time.monotonic() < end_s:
                try:
                    connection.recv(1)
                except OSError:
                    break
                time.sleep(0.05)
            assert until(lambda: running.server.open_associations == 0, PATIENCE_S)


# --- a release while a request is served -------------------------------------------------


def test_a_release_while_served_ends_the_handler_and_is_answered() -> None:
    ended: list[str] = []

    def endless(request: Request) -> Iterator[Response]:
        try:
            while not request.cancelled():
                yield Response(status=0xFF00)
                time.sleep(0.01)
            ended.append("cancelled")
            yield Response(status=0xFE00)
        finally:
            ended.append("left")

    with serving(find_class(endless)) as running:
        with running.associate((FIND, [IMPLICIT])) as connection:
            connection.sendall(FIND_RQ)
            assert read_pdu(connection)[0] == 4
            connection.sendall(RELEASE_RQ)
            types = []
            while pdu := read_pdu(connection):
                types.append(pdu[0])
                if pdu[0] != 4:
                    break
            assert types[-1] == 6, "an A-RELEASE-RP, after the last P-DATA"
        assert until(lambda: running.server.open_associations == 0)
        assert ended[-1] == "left"


# --- message ids used twice ---------------------------------------------------------------


def test_a_reused_message_id_does_not_undo_a_cancel() -> None:
    """Cancel of 1, then another request 1 in the same write: the first ends, the second is served."""
    served: list[str] = []
    begun, queued = threading.Event(), threading.Event()

    def handler(request: Request) -> Iterator[Response]:
        if not served:
            served.append("first")
            begun.set()
            assert queued.wait(PATIENCE_S)
            end_s = time.monotonic() + PATIENCE_S
            while not request.cancelled():
                assert time.monotonic() < end_s, "the cancel was forgotten"
                time.sleep(0.01)
            yield Response(status=0xFE00)
            return
        served.append("cancelled" if request.cancelled() else "second")
        yield Response(status=0x0000)

    with (
        serving(find_class(handler)) as running,
        running.associate((FIND, [IMPLICIT])) as connection,
    ):
        connection.sendall(FIND_RQ)
        assert begun.wait(PATIENCE_S)
        connection.sendall(cancel(1) + FIND_RQ)
        time.sleep(0.1)
        queued.set()
        assert b"\x00\xfe" in read_pdu(connection)[-24:]
        assert read_pdu(connection)[0] == 4
    assert served == ["first", "second"]


# --- AE titles that are none ------------------------------------------------------------------


@pytest.mark.parametrize("title", [b" " * 16, b"A\\B".ljust(16), b"A\x07B".ljust(16), bytes(16),
                                   b"\xc4\xd6".ljust(16)])  # fmt: skip
@pytest.mark.parametrize(("at", "answer"), [(10, (1, 1, 7)), (26, (1, 1, 3))])
def test_an_ae_title_that_is_none_is_rejected_not_aborted(
    title: bytes, at: int, answer: tuple[int, int, int]
) -> None:
    request = associate_rq()
    request = request[:at] + title + request[at + 16 :]
    with serving() as running:
        with running.connect() as connection:
            connection.sendall(request)
            pdu = read_pdu(connection)
            assert (pdu[0], tuple(pdu[7:10])) == (3, answer)
        assert until(lambda: running.server.open_associations == 0)
        assert [one["answer"] for one in running.audit.named("association-refused")] == [
            "/".join(map(str, answer))
        ]


def test_a_request_cut_off_in_its_titles_is_aborted() -> None:
    with serving() as running, running.connect() as connection:
        connection.sendall(b"\x01\x00\x00\x00\x00\x10" + associate_rq()[6:22])
        assert aborted(connection) in ((2, 6), None)
