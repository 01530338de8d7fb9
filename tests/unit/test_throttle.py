"""How often a host may associate, for all listeners together."""

import mmap

import msgspec

from config.settings import Association
from pacs.association.board import Board
from pacs.association.limits import Occupancy
from pacs.association.throttle import HOSTS, SIZE_BYTES, Throttle

HERE, THERE = b"h" * 16, b"t" * 16


def throttle() -> Throttle:
    return Throttle(mmap.mmap(-1, SIZE_BYTES + 8), 8)


def took(one: Throttle, key: bytes, now_s: float, times: int, per_minute: int = 6) -> int:
    return sum(one.take(key, per_minute=per_minute, now_s=now_s) for _ in range(times))


def test_a_host_may_begin_so_many_and_then_as_they_come_back() -> None:
    made = throttle()
    assert took(made, HERE, 100.0, 9) == 6
    assert took(made, HERE, 109.0, 9) == 0  # refusals cost nothing, but bring nothing either
    assert took(made, HERE, 110.0, 9) == 1
    assert took(made, HERE, 500.0, 9) == 6  # never more than a minute's worth


def test_hosts_have_buckets_of_their_own() -> None:
    made = throttle()
    assert took(made, HERE, 100.0, 9) == 6
    assert took(made, THERE, 100.0, 9) == 6


def test_a_new_host_takes_the_place_of_the_one_unseen_for_longest() -> None:
    made = throttle()
    for number in range(HOSTS):
        key = number.to_bytes(2, "big") * 8
        assert took(made, key, 100.0 + number, 9) == 6
    assert took(made, HERE, 700.0, 1) == 1
    assert took(made, (HOSTS - 1).to_bytes(2, "big") * 8, 612.0, 9) == 0  # still known
    assert took(made, bytes(16), 701.0, 9) == 6  # the first one was forgotten


def test_the_clock_of_another_process_may_be_a_little_behind() -> None:
    made = throttle()
    assert took(made, HERE, 100.0, 6) == 6
    assert took(made, HERE, 99.9, 1) == 0


def test_all_listeners_count_together() -> None:
    bounds = msgspec.structs.replace(Association(), max_per_minute_per_host=3)
    board = Board.shared(bounds.max_connections)
    try:
        one, other = (Occupancy(bounds, board, listener=number) for number in (0, 1))
        begun = []
        for occupancy in (one, other, one, other, one):
            assert occupancy.connect("10.0.0.1")
            begun.append(occupancy.associate("10.0.0.1"))
            if begun[-1]:
                occupancy.leave("10.0.0.1")
            occupancy.disconnect("10.0.0.1")
        assert begun == [True, True, True, False, False]
        assert other.connect("10.0.0.2") and other.associate("10.0.0.2")
    finally:
        board.close()
