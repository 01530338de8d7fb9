"""Figures in the text form that Prometheus reads, and their HTTP server. The only door to prometheus-client.

Knows no figure by name. The server answers GET /metrics and nothing else, one
request at a time, each within a bound, so that whoever asks costs the archive little.
"""

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from pacs.core.errors import PacsError, SettingsInvalid

_LOG = logging.getLogger("pacs.metrics")
_REQUEST_S = 5.0
_FRESH_S = 1.0
_END_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One gauge: its name, a sentence, and its values by the values of its labels."""

    name: str
    about: str
    labels: tuple[str, ...] = ()
    values: Mapping[tuple[str, ...], float]


class _Given(Collector):
    """Hands the library what it is to write."""

    def __init__(self, figures: Sequence[Figure]) -> None:
        self._figures = figures

    def collect(self) -> Iterator[GaugeMetricFamily]:
        for one in self._figures:
            family = GaugeMetricFamily(one.name, one.about, labels=one.labels)
            for labels, value in one.values.items():
                family.add_metric(labels, value)
            yield family


def written(figures: Sequence[Figure]) -> bytes:
    """Write figures as Prometheus' text, version 0.0.4."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Given(figures))
    return generate_latest(registry)


@contextmanager
def serving_metrics(host: str, port: int, figures: Callable[[], Sequence[Figure]]) -> Iterator[int]:
    """Answer GET /metrics with what ``figures`` gives, for the block; gives the port.

    Raises ``SettingsInvalid``.
    """
    try:
        server = _Server(host, port, figures)
    except OSError as error:
        raise SettingsInvalid(f"metrics.port {port} of {host}: {error.strerror}") from error
    thread = threading.Thread(target=server.serve_forever, name="pacs-metrics", daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        threading.Thread(target=server.shutdown, daemon=True).start()  # it waits for a request
        thread.join(_END_S)
        server.server_close()


class _Server(HTTPServer):
    request_queue_size = 8

    def __init__(self, host: str, port: int, figures: Callable[[], Sequence[Figure]]) -> None:
        super().__init__((host, port), _Answer)
        self._figures = figures
        self._text = b""
        self._written_at = -_FRESH_S

    def server_bind(self) -> None:
        """Bind without asking a name server who we are; connections of a server before do not matter."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def text(self) -> bytes:
        """Write the figures anew, at most once a second."""
        if time.monotonic() - self._written_at >= _FRESH_S:
            self._text = written(self._figures())
            self._written_at = time.monotonic()
        return self._text


class _Answer(BaseHTTPRequestHandler):
    server: _Server
    server_version = "pacs"
    sys_version = ""
    timeout = _REQUEST_S

    def handle(self) -> None:
        """Answer one request; who sends or reads it too slowly is cut off."""
        bound = threading.Timer(_REQUEST_S, self._cut_off)
        bound.daemon = True
        bound.start()
        try:
            super().handle()
        except OSError:
            _LOG.debug("metrics-asker-gone")
        finally:
            bound.cancel()

    def _cut_off(self) -> None:
        try:
            self.connection.shutdown(2)
        except OSError:
            return  # it has just gone by itself

    def do_GET(self) -> None:
        """Answer what a collector asks."""
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        try:
            text = self.server.text()
        except PacsError as error:
            _LOG.error("metrics-failed: %s", error)
            self.send_error(HTTPStatus.SERVICE_UNAVAILABLE)
            return
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", CONTENT_TYPE_PLAIN_0_0_4)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Say nothing of requests: they hold what a stranger wrote."""
