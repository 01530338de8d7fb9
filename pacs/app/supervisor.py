"""The listeners of one server: started together, replaced when they end, drained together.

Owns their processes and how soon an ended one is replaced; serves nobody
itself.
"""

import logging
import os
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from config.load import Loaded
from pacs.app import control
from pacs.app.nursery import Child, ChildFailed, Nursery
from pacs.association.board import Board
from pacs.core.errors import ListenerFailed, PacsError

_LOG = logging.getLogger("pacs.serve")

STABLE_S = 10.0
"""A listener that served so long is replaced at once, whatever was before."""
LONGEST_PAUSE_S = 30.0
END_S = 5.0
"""What a listener gets beyond ``association.drain_timeout_s`` to cut off, close and end."""
WARN_EVERY_S = 86_400.0
_FIRST_PAUSE_S = 0.5
_EXIT_S = 2.0
"""Time from a listener's last word to its end."""
_LEAST_POOL = 4


def pause_s(quick_ends: int) -> float:
    """How long to wait before a listener is replaced that has ended early so many times in a row.

    >>> [pause_s(ends) for ends in (0, 1, 2, 3, 4, 99)]
    [0.0, 0.0, 0.5, 1.0, 2.0, 30.0]
    """
    if quick_ends < 2:
        return 0.0
    return min(LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(quick_ends - 2, 16))


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0))


@dataclass(slots=True, kw_only=True)
class _Place:
    """One listener's number, who has it now, and when somebody should."""

    number: int
    process: Child | None = None
    control: socket.socket | None = None
    serving: bool = False
    begun_s: float = 0.0
    due_s: float = 0.0
    quick_ends: int = 0
    failure: PacsError | None = field(default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """Where peers come: the listening sockets, without and with TLS."""

    plain: socket.socket | None
    tls: socket.socket | None

    def close(self) -> None:
        """Close them."""
        for one in (self.plain, self.tls):
            if one is not None:
                one.close()

    @property
    def ports(self) -> tuple[int | None, int | None]:
        """Their ports."""
        plain, tls = (
            None if one is None else int(one.getsockname()[1]) for one in (self.plain, self.tls)
        )
        return plain, tls


class Signals:
    """SIGTERM, SIGINT and SIGHUP, told to a selector."""

    def __init__(self) -> None:
        self.stopping = self.reloading = False
        self.woken, self._wake = socket.socketpair()
        self.woken.setblocking(False)
        self._wake.setblocking(False)

    @contextmanager
    def heard(self) -> Iterator["Signals"]:
        """Hear them until the block ends. In the main thread only."""
        signal.set_wakeup_fd(self._wake.fileno())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, self._reload)
        try:
            yield self
        finally:
            signal.set_wakeup_fd(-1)

    def _stop(self, *_: object) -> None:
        self.stopping = True

    def _reload(self, *_: object) -> None:
        self.reloading = True


class Supervisor:
    """Keeps as many listeners as ``serve.listeners`` says on the same listening sockets."""

    def __init__(
        self,
        home: Path,
        loaded: Loaded,
        *,
        nursery: Nursery,
        doors: Doors,
        lock: int,
        signals: Signals,
    ) -> None:
        settings = loaded.settings
        count = settings.serve.listeners or cores()
        pool = max(_LEAST_POOL, settings.database.max_connections // count)
        database = msgspec.structs.replace(settings.database, max_connections=pool)
        self._settings = msgspec.structs.replace(settings, database=database)
        self._extensions = {
            name: msgspec.to_builtins(table) for name, table in loaded.extensions.items()
        }
        self._home, self._lock, self._signals = home, lock, signals
        self._nursery, self._doors = nursery, doors
        self._warned_s = float("-inf")
        self._board = Board.shared(settings.association.max_connections)
        self._places = [_Place(number=number) for number in range(count)]
        self._selector = selectors.DefaultSelector()
        self._selector.register(signals.woken, selectors.EVENT_READ)

    @property
    def serving(self) -> bool:
        """Whether all listeners serve."""
        return all(one.serving for one in self._places)

    def start(self) -> None:
        """Start all listeners and wait until all serve. Raises why one does not.

        Ends early when the server is told to stop.
        """
        for place in self._places:
            self._begin(place)
        while not self._signals.stopping and not self.serving:
            self._look(None)
            for place in self._places:
                if place.process is None:
                    raise place.failure or ListenerFailed("a listener ended before it served")

    def watch(self) -> None:
        """Replace listeners that end, until the server is told to stop."""
        while not self._signals.stopping:
            if self._signals.reloading:
                self._reload()
            now_s = time.monotonic()
            ended = [one for one in self._places if one.process is None]
            for place in ended:
                if place.due_s <= now_s:
                    self._begin(place)
            waiting = [one.due_s - now_s for one in ended if one.process is None]
            self._warn()
            self._look(max(0.0, min([*waiting, WARN_EVERY_S])))

    def _reload(self) -> None:
        """Have certificates read again, for handshakes to come."""
        self._signals.reloading = False
        self._warned_s = float("-inf")
        self._tell(control.RELOAD)

    def _warn(self) -> None:
        """Have the log say, once a day, which certificates are about to end."""
        from pacs.association.certificates import warn_of_endings

        now_s = time.monotonic()
        if self._settings.tls.port and now_s - self._warned_s >= WARN_EVERY_S:
            self._warned_s = now_s
            warn_of_endings(self._settings.tls, self._home, datetime.now(UTC))

    def _tell(self, word: bytes) -> None:
        for place in self._places:
            if place.control is not None:
                try:
                    place.control.send(word)
                except OSError:
                    continue  # it has just ended by itself

    def drain(self) -> None:
        """Have all listeners finish what they serve and end; kill those that do not in time."""
        self._doors.close()
        self._tell(control.DRAIN)
        drain_s = self._settings.association.drain_timeout_s
        deadline = time.monotonic() + drain_s + END_S
        while any(one.process for one in self._places) and time.monotonic() < deadline:
            self._look(max(0.0, deadline - time.monotonic()))

    def close(self) -> None:
        """Kill what is left of the listeners and forget them."""
        for place in self._places:
            if place.process is not None:
                _LOG.error("listener-killed listener=%d", place.number)
                place.process.kill()
                self._end(place)
        self._selector.close()
        self._doors.close()
        self._board.close()

    def _begin(self, place: _Place) -> None:
        try:
            ours, theirs = control.pair()
        except OSError as error:
            self._failed(place, error)
            return
        with theirs:
            try:
                place.process = self._nursery.begin("listener", [], control=theirs.fileno())
            except ChildFailed as error:
                ours.close()
                self._failed(place, error)
                return
        place.control, place.serving, place.failure = ours, False, None
        place.begun_s = time.monotonic()
        self._selector.register(ours, selectors.EVENT_READ, place)
        try:
            control.send_orders(ours, self._orders(place))
        except OSError:
            return  # it has ended already, and will be seen to have

    def _failed(self, place: _Place, error: OSError) -> None:
        """Take note that the machine had no process for us."""
        _LOG.error("listener-failed listener=%d why=%s", place.number, error)
        place.failure = ListenerFailed(f"a listener could not be begun: {error}")
        place.quick_ends += 1
        place.due_s = time.monotonic() + max(_FIRST_PAUSE_S, pause_s(place.quick_ends))

    def _orders(self, place: _Place) -> control.Orders:
        return control.Orders(
            home=str(self._home.absolute()),
            listener=place.number,
            settings=self._settings,
            extensions=self._extensions,
            listening=self._doors.plain.fileno() if self._doors.plain else -1,
            listening_tls=self._doors.tls.fileno() if self._doors.tls else -1,
            board=self._board.descriptor,
            lock=self._lock,
        )

    def _look(self, timeout_s: float | None) -> None:
        """Wait for news of the listeners or a signal, and take it in."""
        for key, _ in self._selector.select(timeout_s):
            if key.data is None:
                self._signals.woken.recv(4_096)
            else:
                self._hear(key.data)

    def _hear(self, place: _Place) -> None:
        if place.control is None or place.process is None:
            return
        report = control.receive_report(place.control)
        if report is None:
            self._end(place)
        elif report.error:
            place.failure = report.raised()
            _LOG.error("listener-failed listener=%d why=%s", place.number, report.error)
        else:
            place.serving = True
            _LOG.info("listener-started listener=%d pid=%d", place.number, place.process.pid)

    def _end(self, place: _Place) -> None:
        """Take note of an end: nothing of the listener is left when the next one begins."""
        if place.control is None or place.process is None:
            return
        self._selector.unregister(place.control)
        place.control.close()
        code = _collected(place.process)
        self._board.clear(place.number)
        now_s = time.monotonic()
        served_s = now_s - place.begun_s if place.serving else 0.0
        place.quick_ends = 1 if served_s >= STABLE_S else place.quick_ends + 1
        place.due_s = now_s + pause_s(place.quick_ends)
        level = logging.INFO if self._signals.stopping and code == 0 else logging.ERROR
        _LOG.log(
            level,
            "listener-ended listener=%d pid=%d code=%d served_s=%.1f",
            *(place.number, place.process.pid, code, served_s),
        )
        place.process = place.control = None
        place.serving = False


def _collected(process: Child) -> int:
    """The exit code of a process that is ending, by itself or not."""
    try:
        return process.wait(_EXIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
