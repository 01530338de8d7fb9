"""The upper layer moves as PS3.8 Table 9-10 says, whatever the peer does in whichever state."""

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pynetdicom.fsm import ACTIONS, TRANSITION_TABLE
from pynetdicom.pdu import A_ASSOCIATE_AC
from pynetdicom.pdu_primitives import A_ASSOCIATE

from config.settings import Association
from pacs.association.acceptance import ourselves
from pacs.association.connection import Connection
from pacs.association.pdu import p_data_header
from pacs.association.upper_layer import (
    AWAITING_REQUEST,
    CLOSED,
    DECIDING,
    ENDING,
    ESTABLISHED,
    UpperLayer,
)
from pacs.core.errors import PeerUnreachable
from tests.association_fakes import (
    ABORT,
    CT,
    EXPLICIT,
    IMPLICIT,
    RELEASE_RQ,
    associate_rq,
    read_pdu,
)

RELEASE_RP = bytes.fromhex("06 00 00000004 00000000")
REJECT = bytes.fromhex("03 00 00000004 00010101")
UNKNOWN = bytes.fromhex("63 00 00000004 00000000")


def associate_ac() -> bytes:
    answer = A_ASSOCIATE()
    answer.application_context_name = "1.2.840.10008.3.1.1.1"
    answer.calling_ae_title, answer.called_ae_title = "A", "B"
    answer.user_information = ourselves(16_384)
    return bytes(A_ASSOCIATE_AC(answer).encode())


SENT = {
    "Evt3": associate_ac(),
    "Evt4": REJECT,
    "Evt6": associate_rq(),
    "Evt10": p_data_header(1, 3, 2) + b"xx",
    "Evt12": RELEASE_RQ,
    "Evt13": RELEASE_RP,
    "Evt16": ABORT,
    "Evt19": UNKNOWN,
}
"""What the peer does, by event; Evt17 is that it closes."""


@contextmanager
def connected(
    state: str, *, requestor: bool = False, artim_s: float = 5.0
) -> Iterator[tuple[UpperLayer, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname(), timeout=5)
        connection, _ = listener.accept()
    upper_layer = UpperLayer(
        Connection(connection),
        requestor=requestor,
        bounds=Association(artim_timeout_s=artim_s, network_timeout_s=0.5),
    )
    upper_layer.state = state
    try:
        yield upper_layer, peer
    finally:
        upper_layer._close()
        peer.close()


@pytest.mark.parametrize(
    ("event", "state"),
    [one for one in TRANSITION_TABLE if one[0] in SENT or one[0] == "Evt17"],
)
def test_what_the_peer_does_moves_the_state_as_the_table_says(event: str, state: str) -> None:
    action = TRANSITION_TABLE[event, state]
    expected = ACTIONS[action][2]
    with connected(state) as (upper_layer, peer):
        if event == "Evt17":
            peer.close()
        else:
            peer.sendall(SENT[event])
        assert upper_layer.receive(5.0)
        assert upper_layer.state in (expected if isinstance(expected, tuple) else (expected,))
        if action in ("AA-1", "AA-7", "AA-8"):
            answer = read_pdu(peer)
            assert (answer[0], answer[8]) == (7, 2)
            assert answer[9] == (1 if event == "Evt19" else 2)
        if upper_layer.state == CLOSED and event != "Evt17":
            assert read_pdu(peer) == b""


@pytest.mark.parametrize(
    "state", ["Sta3", "Sta5", "Sta6", "Sta7", "Sta8", "Sta9", "Sta10", "Sta11", "Sta12"]
)
def test_our_abort_is_sent_in_every_state(state: str) -> None:
    with connected(state) as (upper_layer, peer):
        upper_layer.abort()
        upper_layer.abort()
        assert upper_layer.state == ENDING
        assert read_pdu(peer) == ABORT
        peer.close()
        upper_layer.linger()
        assert upper_layer.state == CLOSED


@pytest.mark.parametrize("state", ["Sta2", "Sta13"])
def test_artim_ends_waiting_for_a_request_and_for_the_close(state: str) -> None:
    with connected("Sta2", artim_s=0.1) as (upper_layer, peer):
        upper_layer.state = state
        assert upper_layer.receive(5.0)
        assert upper_layer.state == CLOSED
        assert read_pdu(peer) == b""


def test_another_protocol_version_is_rejected() -> None:
    request = bytearray(associate_rq())
    request[6:8] = b"\x00\x02"
    with connected("Sta2") as (upper_layer, peer):
        peer.sendall(request)
        upper_layer.receive(5.0)
        assert upper_layer.state == ENDING
        assert read_pdu(peer)[6:] == b"\x00\x01\x02\x02"


@pytest.mark.parametrize("requestor", [True, False])
def test_a_release_collision_ends_released(requestor: bool) -> None:
    """PS3.8 Section 7.2.2: the requestor answers first, the acceptor second."""
    with connected(ESTABLISHED, requestor=requestor) as (upper_layer, peer):
        seen: list[int] = []

        def collide() -> None:
            seen.append(read_pdu(peer)[0])
            peer.sendall(RELEASE_RQ)
            if not requestor:
                peer.sendall(RELEASE_RP)
            seen.append(read_pdu(peer)[0])
            if requestor:
                peer.sendall(RELEASE_RP)
            else:
                peer.close()

        other = threading.Thread(target=collide)
        other.start()
        upper_layer.release()
        upper_layer.linger()
        other.join()
        assert seen == [5, 6]
        assert upper_layer.state == CLOSED


def test_a_peer_that_drips_a_pdu_is_aborted_in_time() -> None:
    with connected(ESTABLISHED) as (upper_layer, peer):
        stopped = threading.Event()

        def drip() -> None:
            for byte in p_data_header(1, 3, 1_000) + bytes(1_000):
                if stopped.wait(0.05):
                    return
                peer.sendall(bytes((byte,)))

        other = threading.Thread(target=drip)
        other.start()
        while upper_layer.state == ESTABLISHED:
            upper_layer.receive(10.0)
        stopped.set()
        other.join()
        assert (upper_layer.state, read_pdu(peer)[6:]) == (ENDING, b"\x00\x00\x02\x00")


class Taking:
    """A user that takes all P-DATA and never pauses."""

    def takes(self, context_id: int, control: int, piece: memoryview, ended: bool) -> bool:
        return False


def test_a_long_message_may_take_longer_than_one_pdu() -> None:
    """On a slow line no read ever ends where a PDU does; each PDU has its own time."""
    with connected(ESTABLISHED) as (upper_layer, peer):
        upper_layer.user = Taking()
        pdu = p_data_header(1, 0, 100) + bytes(100)
        begun_s = time.monotonic()

        def stream() -> None:
            peer.sendall(pdu[:50])
            while time.monotonic() < begun_s + 1.2:  # the silence allowed is 0.5 s
                time.sleep(0.02)
                peer.sendall(pdu[50:] + pdu[:50])
            peer.close()

        other = threading.Thread(target=stream)
        other.start()
        while upper_layer.state == ESTABLISHED:
            upper_layer.receive(10.0)
        other.join()
        assert upper_layer.state == CLOSED


def test_a_peer_that_never_stops_sending_does_not_outlive_artim() -> None:
    with connected(ENDING, artim_s=0.2) as (upper_layer, _):
        upper_layer._artim_s = time.monotonic() + 0.2
        fills = iter(range(1_000_000))
        upper_layer._fill = lambda: next(fills) >= 0  # type: ignore[method-assign]
        upper_layer.linger()
        assert upper_layer.state == CLOSED


def test_what_ends_the_association_while_the_peer_reads_nothing_is_seen_at_once() -> None:
    with connected(ESTABLISHED) as (upper_layer, peer):
        upper_layer._silence_s = 20.0
        peer.sendall(RELEASE_RQ)
        assert upper_layer._fill()
        begun_s = time.monotonic()
        with pytest.raises(PeerUnreachable, match="ended"):
            upper_layer.send([bytes(1 << 20)] * 64)
        assert time.monotonic() < begun_s + upper_layer._silence_s
        assert upper_layer.state == CLOSED


def test_a_peer_that_reads_nothing_is_cut_off() -> None:
    with connected(ESTABLISHED) as (upper_layer, _):
        with pytest.raises(PeerUnreachable, match="stopped reading"):
            upper_layer.send([bytes(1 << 20)] * 64)
        assert upper_layer.state == CLOSED


def test_a_request_with_two_contexts_of_one_id_is_refused() -> None:
    with connected(AWAITING_REQUEST) as (upper_layer, peer):
        request = bytearray(associate_rq((CT, [EXPLICIT]), (CT, [IMPLICIT])))
        second = request.index(b"\x03\x00\x00\x00\x30\x00")  # its id, and its abstract syntax
        request[second] = 1
        peer.sendall(request)
        assert upper_layer.receive(5.0)
        assert upper_layer.state == ENDING
        assert read_pdu(peer)[6:] == b"\x00\x00\x02\x06"


def with_unknown_items(request: bytes) -> bytes:
    """Put an item nobody knows into the user information, which comes last, and one behind it."""
    unknown = struct.pack(">BxH", 0x77, 3) + b"new"
    place = request.rindex(b"\x50\x00", 0, request.index(b"\x51\x00\x00\x04"))
    (size,) = struct.unpack_from(">H", request, place + 2)
    inner = request[place + 4 :] + unknown
    assert len(inner) == size + len(unknown)
    body = request[6:place] + struct.pack(">BxH", 0x50, len(inner)) + inner + unknown
    return struct.pack(">BxL", request[0], len(body)) + body


def test_items_nobody_knows_are_ignored() -> None:
    with connected(AWAITING_REQUEST) as (upper_layer, peer):
        peer.sendall(with_unknown_items(associate_rq((CT, [EXPLICIT]))))
        assert upper_layer.receive(5.0)
        assert upper_layer.state == DECIDING
        assert upper_layer.associate is not None
        (context,) = upper_layer.associate.presentation_context_definition_list
        assert context.abstract_syntax == CT
        assert len(upper_layer.associate.user_information) == 2


@pytest.mark.parametrize("cut", [1, 3, 4])
def test_items_whose_lengths_do_not_add_up_are_refused(cut: int) -> None:
    with connected(AWAITING_REQUEST) as (upper_layer, peer):
        request = associate_rq()[6:-cut]
        peer.sendall(struct.pack(">BxL", 1, len(request)) + request)
        assert upper_layer.receive(5.0)
        assert upper_layer.state == ENDING
        assert read_pdu(peer)[6:] == b"\x00\x00\x02\x06"


def test_a_wake_and_an_abort_reach_a_thread_that_waits() -> None:
    with connected(ESTABLISHED) as (upper_layer, peer):
        threading.Timer(0.05, upper_layer.wake).start()
        assert upper_layer.receive(10.0)
        assert upper_layer.state == ESTABLISHED
        threading.Timer(0.05, upper_layer.ask_abort).start()
        assert upper_layer.receive(10.0)
        assert upper_layer.state == ENDING
        assert read_pdu(peer) == ABORT


def test_the_other_threads_calls_mean_nothing_after_the_end() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with connected(ESTABLISHED) as (upper_layer, _):
        upper_layer._close()
        upper_layer.wake()
        upper_layer.ask_abort()
        upper_layer.shut_down()
        assert upper_layer.receive(0)
        with pytest.raises(PeerUnreachable):
            upper_layer.send([b"x"])
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_waiting_costs_nothing() -> None:
    with connected(ESTABLISHED) as (upper_layer, _):
        begun_s, spent_s = time.monotonic(), time.thread_time()
        assert not upper_layer.receive(0.5)
        assert time.thread_time() - spent_s < (time.monotonic() - begun_s) / 5


@pytest.mark.parametrize("length", [0, 1, 3, 1_025, 0xFFFFFFFF])
def test_control_pdus_of_hostile_length_are_refused(length: int) -> None:
    with connected(ESTABLISHED) as (upper_layer, peer):
        peer.sendall(struct.pack(">BxL", 5, length))
        upper_layer.receive(5.0)
        assert upper_layer.state == ENDING
        assert read_pdu(peer)[6:] == b"\x00\x00\x02\x06"
