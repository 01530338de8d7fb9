"""The least progress of a message: slow is served, standing still is not, and a pause between two is nobody's fault."""

import time

from pacs.association.pace import NEVER_S, Pace


class Message:
    """What is under way, as the pace sees it."""

    def __init__(self) -> None:
        self.now: tuple[int, int] | None = None

    def __call__(self) -> tuple[int, int] | None:
        return self.now


def watched(window_s: float) -> tuple[Pace, Message]:
    pace, message = Pace(window_s=window_s, least_bytes=100), Message()
    pace.progress = message
    return pace, message


def test_no_message_has_no_end() -> None:
    pace, _ = watched(10.0)
    assert pace.end_s() == NEVER_S


def test_a_share_moves_the_end_and_less_does_not() -> None:
    pace, message = watched(10.0)
    message.now = (0, 5)
    end_s = pace.end_s()
    assert end_s > time.monotonic()
    message.now = (0, 104)
    assert pace.end_s() == end_s
    message.now = (0, 105)
    assert pace.end_s() > end_s


def test_another_message_has_a_window_of_its_own_whatever_was_between() -> None:
    """Nobody asked while there was none: the reader took the end of one and the beginning of the next."""
    pace, message = watched(0.05)
    message.now = (0, 5)
    end_s = pace.end_s()
    time.sleep(0.1)
    assert pace.end_s() == end_s < time.monotonic()
    message.now = (1, 10)
    assert pace.end_s() > end_s


def test_time_that_we_were_busy_does_not_count() -> None:
    pace, message = watched(0.05)
    message.now = (0, 5)
    end_s = pace.end_s()
    time.sleep(0.1)
    pace.restart()
    assert pace.end_s() > end_s
