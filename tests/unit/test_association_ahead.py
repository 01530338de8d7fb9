"""While a response is awaited the next file is opened; what may travel together does; no wait is for ever."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from config.settings import Association
from pacs.association import upper_layer as upper_layer_module
from pacs.association.exchange import Exchange
from pacs.association.message import Request, Response
from pacs.core.errors import PeerUnreachable
from pacs.core.identifiers import AETitle, SOPClassUID, SOPInstanceUID, TransferSyntaxUID
from pacs.core.records import Payload, Peer, SendOutcome
from scu.store import StoreSCU
from tests.association_fakes import CT, EXPLICIT, FakeIncoming, Running, serving, store_class, until

OFFERS = [(SOPClassUID(CT), (TransferSyntaxUID(EXPLICIT),))]
BOUNDS = Association(dimse_timeout_s=10, artim_timeout_s=5)


def written(folder: Path, number: int, size_bytes: int = 300_000) -> Payload:
    path = folder / str(number)
    path.write_bytes(os.urandom(size_bytes))
    return Payload(
        sop_class_uid=SOPClassUID(CT),
        sop_instance_uid=SOPInstanceUID(f"1.2.{number}"),
        transfer_syntax_uid=TransferSyntaxUID(EXPLICIT),
        path=str(path),
        offset=0,
        size_bytes=size_bytes,
    )


def at(running: Running) -> Peer:
    return Peer(ae_title=AETitle("PACS"), host="127.0.0.1", port=running.port)


def is_open(path: str) -> bool:
    opened = Path("/proc/self/fd")
    return path in {os.path.realpath(one) for one in opened.iterdir()}


def test_the_next_file_is_open_before_the_response_comes(tmp_path: Path) -> None:
    """The receiver answers only then, and the file's name is gone by the time it is sent."""
    first, second = written(tmp_path, 1), written(tmp_path, 2)
    contents = [Path(one.path).read_bytes() for one in (first, second)]
    seen: list[bool] = []

    def store(request: Request) -> Iterator[Response]:
        assert request.incoming is not None
        if not seen:
            seen.append(until(lambda: is_open(second.path)))
            Path(second.path).unlink()
        yield Response(status=0)

    with serving(store_class(store)) as running:
        way = StoreSCU(ae_title="US", bounds=BOUNDS)
        with way.open(at(running), OFFERS) as delivery:
            outcomes = [delivery.send(first, None, lambda: second), delivery.send(second, None)]
        assert [bytes(one.content) for one in running.spool.all] == contents
    assert seen == [True]
    assert outcomes == [SendOutcome.SUCCESS] * 2


@pytest.mark.parametrize("fault", ["missing", "shorter", "another class"])
def test_what_cannot_be_opened_ahead_fails_in_its_own_turn(tmp_path: Path, fault: str) -> None:
    first, second, third = (written(tmp_path, number) for number in (1, 2, 3))
    if fault == "missing":
        Path(second.path).unlink()
    elif fault == "shorter":
        os.truncate(second.path, 1_000)
    else:
        second = Payload(
            sop_class_uid=SOPClassUID("1.2.3"),
            sop_instance_uid=second.sop_instance_uid,
            transfer_syntax_uid=second.transfer_syntax_uid,
            path=second.path,
            offset=0,
        )
    with serving(store_class()) as running:
        way = StoreSCU(ae_title="US", bounds=BOUNDS)
        with way.open(at(running), OFFERS) as delivery:
            outcomes = [
                delivery.send(first, None, lambda: second),
                delivery.send(second, None, lambda: third),
                delivery.send(third, None),
            ]
    assert outcomes == [SendOutcome.SUCCESS, SendOutcome.FAILURE, SendOutcome.SUCCESS]


def test_what_was_opened_and_not_sent_is_closed(tmp_path: Path) -> None:
    payloads = [written(tmp_path, number) for number in (1, 2, 3)]
    with serving(store_class()) as running:
        way = StoreSCU(ae_title="US", bounds=BOUNDS)
        with way.open(at(running), OFFERS) as delivery:
            delivery.send(payloads[0], None, lambda: payloads[1])
            assert is_open(payloads[1].path)
            delivery.send(payloads[2], None, lambda: payloads[0])  # a change of mind
            assert not is_open(payloads[1].path)
            assert is_open(payloads[0].path)
        assert not any(is_open(one.path) for one in payloads)


def test_a_send_under_way_can_be_aborted_from_another_thread(tmp_path: Path) -> None:
    entered, over = threading.Event(), threading.Event()

    def silent(request: Request) -> Iterator[Response]:
        entered.set()
        over.wait(20)
        yield Response(status=0)

    with serving(store_class(silent)) as running:
        way = StoreSCU(ae_title="US", bounds=Association(dimse_timeout_s=60, artim_timeout_s=1))
        try:
            with (
                pytest.raises(PeerUnreachable),
                way.open(at(running), OFFERS) as delivery,
            ):
                threading.Thread(target=lambda: (entered.wait(10), delivery.abort())).start()
                delivery.send(written(tmp_path, 1), None)
        finally:
            over.set()
    assert entered.is_set()


def test_a_peer_that_reads_a_trickle_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes something before every silence is over, but less than the least rate."""
    monkeypatch.setattr(upper_layer_module, "LEAST_BYTES_PER_S", 1_000_000_000)
    over = threading.Event()
    monkeypatch.setattr(FakeIncoming, "write", lambda self, piece: over.wait(0.3))
    payload = written(tmp_path, 1, 0)
    os.truncate(payload.path, 30 << 20)
    whole = Payload(
        sop_class_uid=payload.sop_class_uid,
        sop_instance_uid=payload.sop_instance_uid,
        transfer_syntax_uid=payload.transfer_syntax_uid,
        path=payload.path,
        offset=0,
    )
    with serving(store_class()) as running:
        way = StoreSCU(ae_title="US", bounds=Association(dimse_timeout_s=1, artim_timeout_s=1))
        try:
            with (
                pytest.raises(PeerUnreachable, match="stopped reading"),
                way.open(at(running), OFFERS) as delivery,
            ):
                delivery.send(whole, None)
        finally:
            over.set()


def exchange_on(upper_layer: Any) -> Exchange:
    return Exchange(
        upper_layer,
        {},
        bounds=Association(dimse_timeout_s=0.5),
        begin_store=lambda context, command: None,
        peer_max_bytes=0,
    )


def sent(upper_layer: Any) -> list[bytes]:
    return [b"".join(map(bytes, call.args[0])) for call in upper_layer.send.call_args_list]


def test_a_pending_response_travels_with_the_store_that_is_ready() -> None:
    upper_layer = Mock()
    exchange = exchange_on(upper_layer)
    exchange.more_is_ready = True
    exchange.send_along([b"pending!"])
    assert sent(upper_layer) == []
    exchange.send(3, b"store...")
    (together,) = sent(upper_layer)
    assert together.index(b"pending!") < together.index(b"store...")


def test_a_pending_response_goes_at_once_where_nothing_is_ready() -> None:
    upper_layer = Mock()
    exchange_on(upper_layer).send_along([b"pending!"])
    assert len(sent(upper_layer)) == 1


def test_nobody_waits_behind_a_response_that_was_held() -> None:
    upper_layer = Mock(receive=Mock(return_value=False), give_up=Mock(side_effect=PeerUnreachable))
    exchange = exchange_on(upper_layer)
    exchange.more_is_ready = True
    exchange.send_along([b"pending!"])
    exchange.send_along([b"another!"])
    (both,) = sent(upper_layer)
    assert both.index(b"pending!") < both.index(b"another!")
    exchange.send_along([b"a third."])
    with pytest.raises(PeerUnreachable):
        exchange.next_response()
    assert b"a third." in sent(upper_layer)[-1]
