"""Figures over HTTP: written as Prometheus reads them, asked by anybody, at little cost."""

import http.client
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from pacs.core.errors import RecordsFailed, SettingsInvalid
from pacs.observe import metrics
from pacs.observe.metrics import Figure, serving_metrics, written

DEPTH = Figure(
    name="pacs_jobs",
    about="Jobs",
    labels=("queue", "state"),
    values={('a"\\\n', "waiting"): 3.0, ("b", "failed"): 1.0},
)


def asked(port: int, path: str = "/metrics", method: str = "GET") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path)
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, body


@contextmanager
def serving(figures: Sequence[Figure] = (DEPTH,)) -> Iterator[int]:
    with serving_metrics("127.0.0.1", 0, lambda: figures) as port:
        yield port


def test_labels_are_escaped_and_figures_without_values_are_described() -> None:
    empty = Figure(name="pacs_none", about="Nothing", labels=("queue",), values={})
    lone = Figure(name="pacs_free", about="Room", values={(): 7.0})
    assert written([DEPTH, empty, lone]).decode().splitlines() == [
        "# HELP pacs_jobs Jobs",
        "# TYPE pacs_jobs gauge",
        'pacs_jobs{queue="a\\"\\\\\\n",state="waiting"} 3.0',
        'pacs_jobs{queue="b",state="failed"} 1.0',
        "# HELP pacs_none Nothing",
        "# TYPE pacs_none gauge",
        "# HELP pacs_free Room",
        "# TYPE pacs_free gauge",
        "pacs_free 7.0",
    ]


def test_only_the_figures_are_answered() -> None:
    with serving() as port:
        assert asked(port) == (200, written([DEPTH]).decode())
        assert asked(port, "/metrics?name=x")[0] == 200
        assert asked(port, "/")[0] == 404
        assert asked(port, "/../etc/passwd")[0] == 404
        for method in ("POST", "HEAD", "DELETE"):
            assert asked(port, method=method)[0] == 501
    with pytest.raises(ConnectionRefusedError):
        asked(port)


def test_who_asks_again_at_once_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_FRESH_S", 3_600.0)
    calls: list[int] = []

    def figures() -> Sequence[Figure]:
        calls.append(1)
        return [DEPTH]

    with serving_metrics("127.0.0.1", 0, figures) as port:
        assert len({asked(port) for _ in range(3)}) == 1
    assert calls == [1]


def test_who_says_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_REQUEST_S", 0.2)
    with serving() as port, socket.create_connection(("127.0.0.1", port), timeout=60) as silent:
        silent.sendall(b"GET /metr")
        assert asked(port)[0] == 200
        assert silent.recv(100) == b""


def test_figures_that_cannot_be_had_are_said_to_be_away() -> None:
    def failing() -> Sequence[Figure]:
        raise RecordsFailed("the database refused: secret")

    with serving_metrics("127.0.0.1", 0, failing) as port:
        status, body = asked(port)
    assert status == 503
    assert "secret" not in body


def test_an_address_that_is_taken_is_said_to_be() -> None:
    with (
        serving() as port,
        pytest.raises(SettingsInvalid, match=f"metrics.port {port}"),
        serving_metrics("127.0.0.1", port, lambda: ()),
    ):
        pass
