"""Strangers by the thousand cost a server nothing that stays, and each is on record; guesses are counted by all listeners."""

import json
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pynetdicom.pdu_primitives import UserIdentityNegotiation

from tests.archive import Archive, serving
from tests.association_fakes import associate_rq, read_pdu, until

STRANGERS = 10_000
WARM = 1_000
CALLERS = 8
ROOM_KIB = 16 * 1_024
"""What allocators may still take after the warm-up; ten thousand of anything would be more."""
LISTENERS = 2
ALLOWED = 6
DEVICE, IDENTITY = b"\x01\x01\x03", b"\x01\x01\x01"
STRANGER = associate_rq(calling="STRANGER")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    home = tmp_path_factory.mktemp("strangers") / "home"
    settings = {
        "dicom.loopback_trust": "false",
        "serve.listeners": str(LISTENERS),
        "legitimacy.max_failures_per_name": str(ALLOWED),
        "logging.level": "warning",
    }
    with serving(home, settings=settings) as running:
        yield running


def refusals(home: Path, calling: str) -> Iterator[dict[str, Any]]:
    """The refused associations of an AE title on record."""
    for file in sorted((home / "audit").rglob("*.jsonl")):
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                if '"association-refused"' in line and f'"{calling}"' in line:
                    yield json.loads(line)


def refused(home: Path, calling: str, count: int) -> list[dict[str, Any]]:
    """Wait for so many of them; give all."""
    assert until(lambda: sum(1 for _ in refusals(home, calling)) >= count)
    return list(refusals(home, calling))


def answer(connection: socket.socket) -> bytes:
    """Result, source and reason of a rejection."""
    pdu = read_pdu(connection)
    assert pdu[:1] == b"\x03", pdu.hex()
    return pdu[7:10]


def call(port: int, numbers: range, answers: Counter[bytes]) -> None:
    """Ask once from each of so many addresses of this machine."""
    found: Counter[bytes] = Counter()
    for number in numbers:
        source = (f"127.{1 + number // 65_536}.{number // 256 % 256}.{number % 256}", 0)
        with socket.create_connection(("127.0.0.1", port), 60, source) as connection:
            connection.sendall(STRANGER)
            found[answer(connection)] += 1
    answers.update(found)


def call_all(port: int, first: int, count: int) -> Counter[bytes]:
    """Have several callers ask at once."""
    answers: list[Counter[bytes]] = [Counter() for _ in range(CALLERS)]
    callers = [
        threading.Thread(target=call, args=(port, range(first + n, first + count, CALLERS), one))
        for n, one in enumerate(answers)
    ]
    for one in callers:
        one.start()
    for one in callers:
        one.join()
    return sum(answers, Counter())


def test_ten_thousand_strangers_cost_no_memory_and_are_all_on_record(archive: Archive) -> None:
    call_all(archive.port, 1, WARM)
    before_kib = archive.resident_kib()
    answers = call_all(archive.port, 1 + WARM, STRANGERS)
    assert answers == {DEVICE: STRANGERS}
    assert archive.resident_kib() - before_kib < ROOM_KIB
    found = refused(archive.home, "STRANGER", WARM + STRANGERS)
    on_record = Counter((one["calling_ae_title"], one["answer"], one["cause"]) for one in found)
    assert sum(on_record.values()) == WARM + STRANGERS
    ((who, said, cause),) = on_record
    assert (who, said) == ("STRANGER", "1/1/3") and cause
    addresses = {one["address"] for one in found}
    assert len(addresses) == WARM + STRANGERS


def guess(number: int) -> bytes:
    item = UserIdentityNegotiation()
    item.user_identity_type = 2
    item.primary_field, item.secondary_field = b"ann", f"guess {number}".encode()
    return associate_rq(calling="GUESSER", identity=item)


def test_guesses_at_several_listeners_are_counted_together(archive: Archive) -> None:
    """Connections that are open together are shared out evenly, so each listener hears as many."""
    for pair in range(ALLOWED):
        with ExitStack() as stack:
            sources = [(f"127.200.{pair}.{one}", 0) for one in range(1, 1 + LISTENERS)]
            connections = [
                stack.enter_context(
                    socket.create_connection(("127.0.0.1", archive.port), 60, source)
                )
                for source in sources
            ]
            for connection in connections:
                connection.sendall(guess(pair))
                assert answer(connection) == IDENTITY
    guesses = refused(archive.home, "GUESSER", ALLOWED * LISTENERS)
    assert {one["user"] for one in guesses} == {"ann"}
    seen = ["locked" in one["cause"] for one in guesses]
    assert seen == [False] * ALLOWED + [True] * (len(guesses) - ALLOWED)
    assert len(guesses) == ALLOWED * LISTENERS
