"""Waking workers through a broker: after a commit a message says "look at queue Q", and no more.

The only door to Dramatiq. The row is the truth: a message that is lost, late,
doubled or out of order changes nothing, because workers also look by
themselves. So sending is never waited for, and a broker that is away fails nothing.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from pacs.core.errors import SettingsInvalid
from pacs.jobs.kinds import base_of

if TYPE_CHECKING:
    import dramatiq

_LOG = logging.getLogger("pacs.jobs")
_SAME_QUEUE_AGAIN_S = 1.0
_CONNECT_S = 3.0
_OLD_MS = 30_000  # a message of that age says nothing any more
_LONGEST_PAUSE_S = 30.0
_NAMESPACE = "pacs"


def connect(url: str) -> "dramatiq.Broker":
    """Make the broker of ``jobs.broker``, without speaking to it yet. Raises ``SettingsInvalid``."""
    try:
        from dramatiq.middleware import AgeLimit, Middleware
    except ImportError as error:
        raise SettingsInvalid(
            "jobs.broker: a broker needs dramatiq: pip install 'pacs-archive[broker]'"
        ) from error
    # No time limit, no retries: the row has its own.
    middleware: list[Middleware] = [AgeLimit(max_age=_OLD_MS)]
    scheme = url.partition("://")[0] if "://" in url else ""
    if scheme in ("redis", "rediss"):
        from dramatiq.brokers.redis import RedisBroker

        made: dramatiq.Broker = RedisBroker(  # type: ignore[no-untyped-call]  # it has no types
            url=url,
            middleware=middleware,
            namespace=_NAMESPACE,
            socket_connect_timeout=_CONNECT_S,
        )
        return made
    if scheme in ("amqp", "amqps"):
        from dramatiq.brokers.rabbitmq import RabbitmqBroker

        return RabbitmqBroker(url=url, middleware=middleware)
    raise SettingsInvalid(
        "jobs.broker: only redis:// and amqp:// are known; leave it empty for none"
    )


def _name(base: str) -> str:
    return f"pacs-look-{base}"


class Bell:
    """Sends the messages, from a thread of its own. ``ring`` never waits and never fails."""

    def __init__(self, url: str) -> None:
        self._broker = connect(url)
        self._lock = threading.Lock()
        self._pending: set[str] = set()  # at most one per queue
        self._sent: dict[str, float] = {}
        self._rung = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def ring(self, queue: str) -> None:
        """Say that a queue may be looked at; soon, once for many calls."""
        with self._lock:
            self._pending.add(base_of(queue))
            if self._thread is None:  # not before: the process may have forked since
                self._thread = threading.Thread(target=self._send, name="pacs-bell", daemon=True)
                self._thread.start()
        self._rung.set()

    def close(self) -> None:
        """Stop sending; what is not sent is found by the sweep."""
        self._closing.set()
        self._rung.set()
        if self._thread is not None:
            self._thread.join(_CONNECT_S)

    def _send(self) -> None:
        pause_s = 0.0
        while self._rung.wait() and not self._closing.is_set():
            if self._all_sent():
                pause_s = 0.0
                self._wait_for_repeats()
            else:
                pause_s = min(max(2 * pause_s, _SAME_QUEUE_AGAIN_S), _LONGEST_PAUSE_S)
                self._closing.wait(pause_s)

        self._hang_up()

    def _hang_up(self) -> None:
        """Close connections, in the thread that they belong to."""
        try:
            self._broker.close()
        except Exception as error:  # noqa: BLE001 - whatever its client raises, it is closed
            _LOG.debug("broker-away: %s", type(error).__name__)

    def _wait_for_repeats(self) -> None:
        """Sleep until the next queue may be named again, or somebody rings."""
        with self._lock:
            waiting = bool(self._pending)
            if not waiting:
                self._rung.clear()
        if waiting:
            self._closing.wait(_SAME_QUEUE_AGAIN_S / 10)

    def _all_sent(self) -> bool:
        now = time.monotonic()
        with self._lock:
            due = {
                one
                for one in self._pending
                if now - self._sent.get(one, -_SAME_QUEUE_AGAIN_S) >= _SAME_QUEUE_AGAIN_S
            }
            self._pending -= due
        for base in sorted(due):
            try:
                self._tell(base)
            except Exception as error:  # noqa: BLE001 - whatever its client raises only delays work
                _LOG.warning("broker-away: %s", type(error).__name__)
                return False
            self._sent[base] = now
        return True

    def _tell(self, base: str) -> None:
        from dramatiq import Message

        self._broker.declare_queue(_name(base))
        message: Message[Any] = Message(
            queue_name=_name(base), actor_name=_name(base), args=(), kwargs={}, options={}
        )
        self._broker.enqueue(message)


class Listener:
    """Runs ``look`` under Dramatiq whenever one of the queues is named."""

    def __init__(self, url: str, bases: Iterable[str], look: Callable[[], None]) -> None:
        import dramatiq

        broker = connect(url)
        dramatiq.set_broker(broker)
        for base in bases:
            dramatiq.actor(actor_name=_name(base), queue_name=_name(base), broker=broker)(look)
        self._worker = dramatiq.Worker(broker, worker_threads=1, worker_timeout=200)
        # Who is at work takes no message that an idle one could have heard.
        self._worker.queue_prefetch = self._worker.delay_prefetch = 1

    def start(self) -> None:
        """Listen; a broker that is away is tried again for ever."""
        self._worker.start()

    def stop(self, timeout_s: float) -> None:
        """Stop listening when the job at hand has ended."""
        self._worker.stop(timeout=int(timeout_s * 1000))
