"""When a change of an administrator's is known to every listener: asked of the archive, instead of waited for.

A snapshot holds everything an administrator changes, of one revision: a
listener that knows a later change knows the earlier ones. Connections that are
open together are shared out evenly, so that some ask each listener.
"""

import itertools
import os
import time
from collections.abc import Callable
from contextlib import ExitStack

from tests.archive import Archive
from tests.association_fakes import ABORT, PATIENCE_S, associate_rq, connected, read_pdu
from tests.raw_peer import IMPLICIT_LITTLE, MOVE, STUDY_ROOT, associated, identifier, move

AT_ONCE = 2 * min(8, max(2, os.cpu_count() or 2))
UNKNOWN_DESTINATION = 0xA801
NOWHERE = "1.2.826.0.1.3680043.10.1.404"
_SIGNS = itertools.count(1)


def settled(archive: Archive, *, subscriber: str = "") -> None:
    """Wait until every listener knows what was changed so far: by a change of our own, the last one.

    Where contracts say who comes in, name a ``subscriber`` whose device it is.
    """
    sign, whose = f"SIGN{next(_SIGNS)}", ("--subscriber", subscriber) if subscriber else ()
    archive.pacs("peer", "add", sign, "127.0.0.1", "9", *whose)
    if subscriber:
        admitted(archive.port, sign)
    else:
        known(archive.port, sign)


def known(port: int, destination: str) -> None:
    """Wait until every listener knows a destination of C-MOVE that is new."""
    _until(lambda: _know(port, destination), f"{destination} is a destination")


def admitted(port: int, calling: str) -> None:
    """Wait until every listener lets a device in."""
    _until(lambda: _answers(port, calling) == {2}, f"{calling} is let in")


def refused(port: int, calling: str) -> None:
    """Wait until no listener lets a device in any more."""
    _until(lambda: _answers(port, calling) == {3}, f"{calling} is refused")


def _until(holds: Callable[[], bool], what: str) -> None:
    limit_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < limit_s, f"it never came to hold of every listener: {what}"
        time.sleep(0.05)


def _know(port: int, destination: str) -> bool:
    model = [(STUDY_ROOT + MOVE, [IMPLICIT_LITTLE])]
    asked = identifier("STUDY", StudyInstanceUID=NOWHERE)
    with ExitStack() as stack:
        several = [stack.enter_context(associated(port, model)) for _ in range(AT_ONCE)]
        return all(
            move(one, STUDY_ROOT, asked, destination)[-1][0].Status != UNKNOWN_DESTINATION
            for one in several
        )


def _answers(port: int, calling: str) -> set[int]:
    """PDU types that answer a request for an association, all of them asked before any is answered."""
    with ExitStack() as stack:
        several = [stack.enter_context(connected(port)) for _ in range(AT_ONCE)]
        for one in several:
            one.sendall(associate_rq(calling=calling))
        found = [read_pdu(one)[:1] for one in several]
        for one, answer in zip(several, found, strict=True):
            if answer == b"\x02":
                one.sendall(ABORT)
    return {int.from_bytes(one) for one in found}
