"""No more leaves for a peer than its rate allows, and nothing else suffers from the waiting."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from config.settings import Association
from pacs.association import rate as rate_module
from pacs.association.message import Request, Response
from pacs.association.rate import LEAST_STEP_BYTES, STEP_S, Rate, Rates
from pacs.association.sending import Batch
from pacs.core.errors import PeerUnreachable
from pacs.core.identifiers import AETitle
from pacs.core.records import Peer, SendOutcome
from scu.store import StoreSCU
from tests.association_fakes import serving, store_class
from tests.unit.test_association_ahead import OFFERS, at, written

BYTES_PER_S = 125_000
PEER = Peer(ae_title=AETitle("SLOW"), host="", port=1, rate_mbit_s=1.0)


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.mark.parametrize("sizes", [[1_000], [12_500], [1, 100_000, 5_000], [1_048_576]])
def test_not_more_leaves_than_the_rate_allows_and_not_much_less(sizes: list[int]) -> None:
    clock = Clock()
    rate, left, began_s = Rate(1.0, clock), 0, clock.now_s
    for number in range(200):
        clock.now_s += rate.rest_s(rate.turn(sizes[number % len(sizes)]))
        left += sizes[number % len(sizes)]
        allowed = (clock.now_s - began_s + STEP_S) * BYTES_PER_S
        assert left <= allowed + max(sizes) + 1, "but for rounding"
    assert left + 1 >= (clock.now_s - began_s) * BYTES_PER_S


def test_all_associations_share_the_rate() -> None:
    """Everybody asks at once, and what each gets leaves in turn."""
    clock = Clock()
    rate = Rate(1.0, clock)
    turns = [rate.turn(12_500) for _ in range(10)]
    assert turns == pytest.approx([clock.now_s + STEP_S * (place - 1) for place in range(10)])


def test_an_idle_line_saves_no_more_than_a_step() -> None:
    clock = Clock()
    rate = Rate(1.0, clock)
    clock.now_s += 3_600
    assert rate.rest_s(rate.turn(12_500)) == 0
    assert rate.rest_s(rate.turn(125_000)) == 0
    assert rate.rest_s(rate.turn(1)) == pytest.approx(1.0)


def test_a_rate_can_change_while_something_is_sent() -> None:
    clock = Clock()
    rate = Rate(1.0, clock)
    rate.turn(12_500)
    rate.set(0.1)
    assert rate.rest_s(rate.turn(12_500)) == 0
    assert rate.rest_s(rate.turn(1)) == pytest.approx(1.0)


@pytest.mark.parametrize("mbit_s", [0.01, 0.33, 1, 10, 1_000])
def test_pieces_are_small_where_the_rate_is(mbit_s: float) -> None:
    step_bytes = Rate(mbit_s).step_bytes
    assert step_bytes == max(LEAST_STEP_BYTES, int(mbit_s * BYTES_PER_S * STEP_S) // 2 * 2)
    batch = Batch(131_066, step_bytes)
    assert 0 < batch.capacity_bytes <= max(LEAST_STEP_BYTES, step_bytes)
    assert batch.capacity_bytes % 2 == 0, "PS3.8 Section E.1"


def test_a_peer_has_one_bucket_and_none_without_a_rate() -> None:
    rates = Rates()
    assert rates.of(replace(PEER, rate_mbit_s=None)) is None
    first = rates.of(PEER)
    assert first is not None
    assert rates.of(replace(PEER, rate_mbit_s=8.0)) is first
    assert first.step_bytes == 100_000
    assert rates.of(replace(PEER, ae_title=AETitle("OTHER"))) is not first


@pytest.fixture(autouse=True)
def own_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = Rates()
    monkeypatch.setattr(rate_module, "RATES", fresh)
    monkeypatch.setattr("pacs.association.requestor.RATES", fresh)


def test_what_is_paced_arrives_whole_and_not_before_its_time(tmp_path: Path) -> None:
    """Two associations at once; the response timeout is shorter than the sending takes."""
    payloads = [written(tmp_path, number, 200_001) for number in range(4)]
    outcomes: list[SendOutcome] = []
    with serving(store_class()) as running:
        peer = replace(at(running), rate_mbit_s=8.0)
        way = StoreSCU(ae_title="US", bounds=Association(dimse_timeout_s=0.3, artim_timeout_s=5))

        def send(some: list[int]) -> None:
            with way.open(peer, OFFERS) as delivery:
                outcomes.extend(delivery.send(payloads[one], None) for one in some)

        began_s = time.monotonic()
        threads = [threading.Thread(target=send, args=(some,)) for some in ([0, 1], [2, 3])]
        for one in threads:
            one.start()
        for one in threads:
            one.join(60)
        took_s = time.monotonic() - began_s
        arrived = sorted(bytes(one.content) for one in running.spool.all)
    assert outcomes == [SendOutcome.SUCCESS] * 4
    assert arrived == sorted(Path(one.path).read_bytes() for one in payloads)
    assert took_s >= 4 * 200_001 / 1_000_000 - 2 * STEP_S


def test_who_waits_its_turn_can_be_aborted(tmp_path: Path) -> None:
    began = threading.Event()
    payload = written(tmp_path, 1, 1 << 20)  # minutes, at that rate

    with serving(store_class()) as running:
        way = StoreSCU(ae_title="US", bounds=Association(dimse_timeout_s=600, artim_timeout_s=1))
        peer = replace(at(running), rate_mbit_s=0.01)
        with pytest.raises(PeerUnreachable), way.open(peer, OFFERS) as delivery:
            aborter = threading.Timer(0.3, delivery.abort)
            aborter.start()
            began.set()
            delivery.send(payload, None)
        aborter.join(10)
    assert began.is_set()


def test_a_peer_that_ends_the_association_is_noticed_while_its_turn_is_awaited(
    tmp_path: Path,
) -> None:
    answered = threading.Event()

    def store(request: Request) -> Iterator[Response]:
        answered.set()
        yield Response(status=0)

    with serving(store_class(store)) as running:
        way = StoreSCU(ae_title="US", bounds=Association(dimse_timeout_s=600, artim_timeout_s=1))
        peer = replace(at(running), rate_mbit_s=0.01)
        with pytest.raises(PeerUnreachable), way.open(peer, OFFERS) as delivery:
            assert delivery.send(written(tmp_path, 1, 10), None) is SendOutcome.SUCCESS
            ending = threading.Timer(0.3, running.server.drain, (0.0,))
            ending.start()
            delivery.send(written(tmp_path, 2, 1 << 20), None)
        ending.join(30)
    assert answered.is_set()
