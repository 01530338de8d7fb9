"""Failed identities, counted for all listeners of a server on the memory they share."""

import mmap
import multiprocessing

import msgspec

from config.settings import Legitimacy
from pacs.association.board import Board
from pacs.association.failures import ENTRIES, SIZE_BYTES, FailureTable
from pacs.association.lockout import Lockout

HERE, THERE = b"h" * 16, b"t" * 16
BOUNDS = Legitimacy(
    max_failures=2,
    max_failures_per_name=3,
    max_failures_per_address=4,
    failure_window_s=60,
    lock_s=600,
)


def table() -> FailureTable:
    return FailureTable(mmap.mmap(-1, SIZE_BYTES + 8), 8)


def note(made: FailureTable, key: bytes, *times_s: float, most: int = 3) -> None:
    for now_s in times_s:
        made.note(key, most=most, window_s=60.0, lock_s=600.0, now_s=now_s)


def test_as_many_as_may_fail_lock_for_a_time_and_begin_anew() -> None:
    made = table()
    note(made, HERE, 100.0, 101.0)
    assert not made.is_locked(HERE, 101.0)
    note(made, HERE, 102.0)
    assert made.is_locked(HERE, 102.0) and made.is_locked(HERE, 701.9)
    assert not made.is_locked(HERE, 702.0) and not made.is_locked(THERE, 102.0)
    note(made, HERE, 703.0, 704.0)
    assert not made.is_locked(HERE, 704.0)
    note(made, HERE, 705.0)
    assert made.is_locked(HERE, 705.0)


def test_failures_that_lie_far_apart_lock_nobody() -> None:
    made = table()
    note(made, HERE, *(100.0 + 31.0 * number for number in range(20)))
    assert not made.is_locked(HERE, 700.0)


def test_new_keys_take_the_places_of_those_that_count_least_and_never_of_the_locked() -> None:
    made = table()
    note(made, HERE, 100.0, 100.0, 100.0)
    for number in range(3 * ENTRIES):
        note(made, number.to_bytes(4, "big") * 4, 101.0 + number / 100)
    assert made.is_locked(HERE, 200.0)
    last = (3 * ENTRIES - 1).to_bytes(4, "big") * 4
    note(made, last, 140.0, 140.0)
    assert made.is_locked(last, 140.0)  # its first failure had not been forgotten


def test_each_kind_has_a_number_of_its_own() -> None:
    lockout = Lockout(BOUNDS)
    most = {"attempt 10.0.0.1 ann": 2, "user ann": 3, "address 10.0.0.1": 4, "device CT1": 4}
    for key, number in most.items():
        for _ in range(number):
            assert not lockout.blocked(key), key
            lockout.note(key)
        assert lockout.blocked(key), key


def test_no_kind_pushes_out_another() -> None:
    board = Board(1)
    lockout = Lockout(BOUNDS, board)
    for key, times in (("address 10.0.0.1", 3), ("user ann", 2)):
        for _ in range(times):
            lockout.note(key)
    for number in range(2 * ENTRIES):
        lockout.note(f"attempt 10.0.0.1 {number}")
    lockout.note("user ann")
    assert lockout.blocked("user ann")
    for number in range(2 * ENTRIES):
        lockout.note(f"user {number}")
    lockout.note("address 10.0.0.1")
    assert lockout.blocked("address 10.0.0.1") and not lockout.blocked("user 0")


def _fail(descriptor: int, slots: int) -> None:
    lockout = Lockout(BOUNDS, Board(slots, descriptor))
    lockout.note("user ann")
    lockout.note("address ::/64")


def test_all_processes_count_together() -> None:
    board = Board.shared(4)
    try:
        lockout = Lockout(BOUNDS, board)
        lockout.note("user ann")
        context = multiprocessing.get_context("fork")
        for _ in range(2):
            assert not lockout.blocked("user ann")
            process = context.Process(target=_fail, args=(board.descriptor, 4))
            process.start()
            process.join(30)
            assert process.exitcode == 0
        assert lockout.blocked("user ann") and not lockout.blocked("address ::/64")
        other = Lockout(msgspec.structs.replace(BOUNDS, max_failures_per_name=9), board)
        assert other.blocked("user ann")
    finally:
        board.close()
