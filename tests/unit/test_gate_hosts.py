"""Host names of devices: looked up beside whoever asks, kept for a while, never waited for long."""

import socket
import threading

import pytest

from pacs.services.gate import host_names
from pacs.services.gate.host_names import HostNames, ask_system, parsed
from tests.association_fakes import until
from tests.legitimacy import Book, admitted, candidate, contract, device

HERE, THERE = "10.0.0.1", "10.0.0.2"


def answering(*answers: str | None) -> tuple[HostNames, list[str]]:
    """A name server that gives one answer after the other, then the last one again."""
    asked: list[str] = []

    def ask(name: str) -> frozenset[host_names.Address] | None:
        asked.append(name)
        answer = answers[min(len(asked), len(answers)) - 1]
        address = parsed(answer) if answer else None
        return None if answer is None else frozenset({address} if address else ())

    return HostNames(ask), asked


def test_a_device_may_have_a_name_for_its_host() -> None:
    names, asked = answering(HERE)
    book = Book(contract(), device(host="ct1.example"))
    assert admitted(book, candidate(), names=names).known_device
    assert names.addresses("ct1.example", 2.0) == {parsed(HERE)}
    assert asked == ["ct1.example"]  # the second time it was known
    assert names.addresses(THERE, 0.0) == {parsed(THERE)} and len(asked) == 1


def test_the_system_is_asked_for_real_names() -> None:
    found = ask_system("localhost")
    assert found and all(one.is_loopback for one in found)
    assert ask_system("a" * 300) == frozenset()
    assert ask_system("nul\0.example") == frozenset()


@pytest.mark.parametrize(
    ("code", "answer"), [(socket.EAI_AGAIN, None), (socket.EAI_NONAME, frozenset())]
)
def test_a_server_that_is_away_is_not_a_name_that_is_unknown(
    code: int, answer: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(code, "no")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    assert ask_system("ct1.example") == answer


def test_a_changed_answer_is_taken_and_a_missing_one_leaves_the_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(host_names, "FRESH_S", 0.0)
    names, _ = answering(HERE, THERE, None, "")
    given = [names.addresses("ct1.example", 2.0) for _ in range(4)]
    here, there = frozenset({parsed(HERE)}), frozenset({parsed(THERE)})
    assert given == [here, there, there, frozenset()]


def test_nobody_waits_longer_than_said_and_few_are_asked_at_once() -> None:
    asked: list[str] = []
    answer = threading.Event()

    def slowly(name: str) -> frozenset[host_names.Address]:
        asked.append(name)
        assert answer.wait(10)
        return frozenset()

    names = HostNames(slowly)
    for number in range(20):
        assert names.addresses(f"host{number}", 0.0) is None
    assert names.addresses("host0", 0.01) is None
    assert until(lambda: len(asked) == host_names.MOST_AT_ONCE)
    answer.set()
    assert until(lambda: names.addresses("host0", 0.0) == frozenset())
    assert until(lambda: names.addresses("host19", 0.1) == frozenset())


def test_answers_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_names, "MOST_NAMES", 2)
    names, asked = answering(HERE)
    for name in ("a.example", "b.example", "a.example", "c.example", "a.example", "b.example"):
        names.addresses(name, 2.0)
    assert asked == ["a.example", "b.example", "c.example", "b.example"]
