"""Peers that break the rules, at the socket: each gets its answer, and nothing is left behind."""

import os
import struct
from pathlib import Path

import pytest

from tests.association_fakes import (
    ABORT,
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

SAMPLES = Path(
    os.environ.get("PACS_SAMPLES", Path(__file__).parents[2].parent / "shared" / "samples")
)
RAW = sorted(SAMPLES.glob("malformed/network/*.raw"))


def rejection(pdu: bytes) -> tuple[int, int, int]:
    assert pdu[0] == 3
    return pdu[7], pdu[8], pdu[9]


def echoes(running: object) -> bool:
    connection = running.associate((ECHO, [IMPLICIT]))  # type: ignore[attr-defined]
    with connection:
        connection.sendall(p_data((1, 3, command(0x30, AffectedSOPClassUID=ECHO))))
        answer = read_pdu(connection)
        connection.sendall(RELEASE_RQ)
        return answer[0] == 4 and read_pdu(connection)[0] == 6


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (struct.pack(">BxL", 4, 2_000_000_000), (2, 6)),
        (struct.pack(">BxL", 1, 2_000_000_000), (2, 6)),
        (struct.pack(">BxL", 9, 10), (2, 1)),
        (b"GET / HTTP/1.0\r\n\r\n", (2, 1)),
        (struct.pack(">BxL", 1, 100) + bytes(100), (2, 6)),
    ],
)
def test_a_wrong_first_pdu_is_answered_with_an_abort(sent: bytes, answer: tuple[int, int]) -> None:
    with serving() as running:
        with running.connect() as connection:
            connection.sendall(sent)
            got = aborted(connection)
        assert got is None or got == answer or sent[0] == 1
        if len(sent) == 6:
            assert got == answer
        assert echoes(running)


HOSTILE = {
    "a PDU of 2 GB": struct.pack(">BxL", 4, 2_000_000_000),
    "an unknown PDU": struct.pack(">BxL", 0x42, 4) + bytes(4),
    "a second A-ASSOCIATE-RQ": associate_rq(),
    "a PDV longer than its PDU": struct.pack(">BxLLBB", 4, 6, 600, 1, 3),
    "a PDV without a header": struct.pack(">BxLLBB", 4, 6, 1, 1, 3),
    "a context never accepted": p_data((99, 3, command(0x30, AffectedSOPClassUID=ECHO))),
    "a command that is none": p_data((1, 3, b"nonsense")),
    "a Data Set without a command": p_data((1, 2, b"nonsense")),
    "a command of 70,000 bytes": p_data((1, 1, bytes(70_000))),
    "an identifier of 5 MB": p_data(
        (3, 3, command(0x20, data=True, AffectedSOPClassUID=FIND)), *[(3, 0, bytes(60_000))] * 1
    )
    + p_data((3, 0, bytes(60_000))) * 90,
    "too many requests": p_data((5, 3, command(0x20, AffectedSOPClassUID=FIND))) * 60,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_breaks_the_rules_costs_the_association(name: str) -> None:
    def stuck(request):  # type: ignore[no-untyped-def]
        until(lambda: request.cancelled() or gone.is_set())
        yield from ()

    import threading

    gone = threading.Event()
    contexts = ((ECHO, [IMPLICIT]), (FIND, [EXPLICIT]), (FIND, [IMPLICIT]))
    with serving(find_class(stuck)) as running:
        with running.associate(*contexts) as connection:
            try:
                connection.sendall(HOSTILE[name])
            except (BrokenPipeError, ConnectionResetError):
                assert len(HOSTILE[name]) > 1_000_000
            got = aborted(connection)
            gone.set()
            assert got is not None
            assert got[0] in (0, 2)
            if name == "a PDU of 2 GB":
                assert got == (2, 6)
            if name == "an unknown PDU":
                assert got == (2, 1)
        assert echoes(running)


def test_one_byte_at_a_time_is_served() -> None:
    with serving() as running, running.connect() as connection:
        for byte in associate_rq():
            connection.sendall(bytes((byte,)))
        assert read_pdu(connection)[0] == 2
        for byte in p_data((1, 3, command(0x30, AffectedSOPClassUID=ECHO))):
            connection.sendall(bytes((byte,)))
        assert read_pdu(connection)[0] == 4


def test_silence_within_a_pdu_ends_in_an_abort() -> None:
    begun = p_data((1, 3, command(0x30, AffectedSOPClassUID=ECHO)))[:20]
    with serving(network_timeout_s=0.8) as running, running.associate() as connection:
        connection.sendall(begun)
        assert aborted(connection) == (2, 0)


def test_an_idle_association_is_aborted() -> None:
    with serving(network_timeout_s=0.3) as running, running.associate() as connection:
        assert aborted(connection) == (0, 0)


def test_a_dripping_request_does_not_outlive_artim() -> None:
    with serving(artim_timeout_s=0.3) as running, running.connect() as connection:
        connection.sendall(associate_rq()[:50])
        assert read_pdu(connection) == b""


def test_silent_peers_neither_count_nor_block() -> None:
    with serving(max_associations=1, artim_timeout_s=3.0) as running:
        silent = [running.connect() for _ in range(20)]
        assert echoes(running)
        for one in silent:
            one.close()


def test_connections_beyond_the_limit_are_closed() -> None:
    with serving(max_connections=2, artim_timeout_s=5.0) as running:
        first, second, third = (running.connect() for _ in range(3))
        assert read_pdu(third) == b""
        first.close()
        second.close()
        third.close()
        assert until(lambda: running.server.open_connections == 0)
        assert echoes(running)


@pytest.mark.parametrize("limit", ["max_associations", "max_associations_per_host"])
def test_associations_beyond_the_limit_are_rejected(limit: str) -> None:
    with serving(**{limit: 1}) as running:
        with running.associate(), running.connect() as second:
            second.sendall(associate_rq())
            assert rejection(read_pdu(second)) == (2, 3, 2)
        assert until(lambda: running.server.open_associations == 0)
        assert echoes(running)
        assert running.audit.named("association-refused")[0]["answer"] == "2/3/2"


@pytest.mark.parametrize(
    ("more", "answer"),
    [
        ({"calling": "REFUSED"}, (1, 1, 3)),
        ({"called": "OTHER"}, (1, 1, 7)),
        ({"app": "1.2.3"}, (1, 1, 2)),
    ],
)
def test_refusals(more: dict[str, str], answer: tuple[int, int, int]) -> None:
    with serving(dicom={"any_called_ae_title": False}) as running:
        with running.connect() as connection:
            connection.sendall(associate_rq(**more))  # type: ignore[arg-type]
            assert rejection(read_pdu(connection)) == answer
        assert running.audit.named("association") == []


@pytest.mark.parametrize("end", ["abort", "close"])
def test_an_end_mid_store_leaves_nothing(end: str) -> None:
    with serving(store_class()) as running:
        with running.associate((CT, [EXPLICIT])) as connection:
            announced = command(1, data=True, AffectedSOPClassUID=CT, AffectedSOPInstanceUID="1.2")
            connection.sendall(p_data((1, 3, announced), (1, 0, bytes(1_000))))
            assert until(lambda: len(running.spool.open) == 1)
            if end == "abort":
                connection.sendall(ABORT)
        assert until(lambda: running.spool.open == [])
        assert running.spool.all[0].left == 1
        assert until(lambda: running.server.open_associations == 0)
        assert echoes(running)


@pytest.mark.parametrize("path", RAW or [None], ids=lambda one: one.name if one else "absent")
def test_raw_streams_leave_the_server_alive(path: Path | None) -> None:
    if path is None:
        pytest.skip("no samples here: set PACS_SAMPLES")
    with serving(store_class(), find_class(lambda request: iter(()))) as running:
        with running.connect() as connection:
            try:
                connection.sendall(path.read_bytes())
            except (BrokenPipeError, ConnectionResetError):
                pass
            first = read_pdu(connection)
            assert first == b"" or first[0] in (2, 3, 7)
        assert until(lambda: running.server.open_associations == 0)
        assert echoes(running)
