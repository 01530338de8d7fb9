"""Limits on a shared board: what one listener takes the others see, and a dead one's can be given back."""

import multiprocessing
import os
import signal
from collections.abc import Iterator

import msgspec
import pytest

from config.settings import Association
from pacs.association.board import Board
from pacs.association.limits import Occupancy

BOUNDS = Association(
    max_connections=6,
    max_associations=4,
    max_associations_per_host=3,
    max_unassociated_per_host=2,
)
HERE, THERE = "10.0.0.1", "fe80::1%eth0"


@pytest.fixture
def board() -> Iterator[Board]:
    made = Board.shared(BOUNDS.max_connections)
    yield made
    made.close()


def views(board: Board, **bounds: int) -> tuple[Occupancy, Occupancy]:
    changed = msgspec.structs.replace(BOUNDS, **bounds)
    return Occupancy(changed, board, listener=0), Occupancy(changed, board, listener=1)


def test_connections_are_counted_together(board: Board) -> None:
    first, second = views(board, max_unassociated_per_host=9)
    assert [first.connect(HERE) for _ in range(3)] == [True] * 3
    assert [second.connect(HERE) for _ in range(4)] == [True, True, True, False]
    assert first.connections == second.connections == 6
    first.disconnect(HERE)
    assert second.connect(THERE) and not second.connect(THERE)


def test_associations_are_counted_together(board: Board) -> None:
    first, second = views(board)
    for one, host in ((first, HERE), (second, HERE), (first, THERE), (second, THERE)):
        assert one.connect(host) and one.associate(host)
    assert first.connect(HERE) and not first.associate(HERE)
    assert first.associations == second.associations == 4
    second.leave(THERE)
    assert first.associate(HERE)
    assert second.connect(HERE) and not second.associate(HERE)


def test_one_host_has_its_own_limits(board: Board) -> None:
    first, second = views(board)
    for one in (first, second, first):
        assert one.connect(HERE) and one.associate(HERE)
    assert first.connect(HERE) and not first.associate(HERE)
    assert second.connect(HERE) and not second.connect(HERE)
    assert second.connect(THERE) and second.associate(THERE)


def test_what_is_left_is_there_again(board: Board) -> None:
    first, second = views(board)
    for _ in range(20):
        for one in (first, second):
            assert one.connect(HERE) and one.associate(HERE)
            one.leave(HERE)
            one.disconnect(HERE)
    assert (first.connections, first.associations) == (0, 0)


def test_a_listener_gives_back_only_its_own(board: Board) -> None:
    first, second = views(board)
    assert first.connect(HERE) and first.associate(HERE)
    second.leave(HERE)
    second.disconnect(HERE)
    assert (first.connections, first.associations) == (1, 1)


def test_a_listener_s_leavings_are_cleared(board: Board) -> None:
    first, second = views(board)
    for one in (first, second, first):
        assert one.connect(HERE) and one.associate(HERE)
    board.clear(0)
    assert (second.connections, second.associations) == (1, 1)
    assert first.connect(HERE) and first.associate(HERE)


def test_the_turn_is_the_least_busy_accepting_one_s(board: Board) -> None:
    first, second = views(board)
    with first.accepting():
        assert first.connect(HERE)
        with first.turn() as ours:
            assert ours, "the other one does not accept"
        with second.accepting():
            with first.turn() as ours:
                assert not ours
            with second.turn() as ours:
                assert ours


def _hold_and_die(board: Board) -> None:
    with board.alone():
        Occupancy(BOUNDS, board, listener=1).connect(HERE)
        os.kill(os.getpid(), signal.SIGKILL)


def test_who_dies_holding_the_board_locks_nobody_out(board: Board) -> None:
    """The lock is the kernel's: it ends with the process."""
    process = multiprocessing.get_context("fork").Process(target=_hold_and_die, args=(board,))
    process.start()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL
    first, _ = views(board)
    assert first.connections == 1
    board.clear(1)
    assert first.connections == 0


def _take_and_give(board: Board, number: int) -> None:
    mine = Occupancy(BOUNDS, board, listener=number)
    for _ in range(300):
        if mine.connect(HERE):
            if mine.associate(HERE):
                mine.leave(HERE)
            mine.disconnect(HERE)


def test_processes_at_once_lose_no_count(board: Board) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_take_and_give, args=(board, one)) for one in range(3)]
    for one in processes:
        one.start()
    for one in processes:
        one.join(60)
    assert [one.exitcode for one in processes] == [0, 0, 0]
    first, _ = views(board)
    assert (first.connections, first.associations) == (0, 0)
