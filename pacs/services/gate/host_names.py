"""Addresses of host names, looked up beside whoever asks, so that nobody waits long for a name server.

Owns the answers: few, kept for a while, and a last one for as long as the name server is
away. Refuses to know what they are for.
"""

import ipaddress
import logging
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

LOGGER = logging.getLogger("pacs.gate")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

FRESH_S: Final = 30.0
MOST_NAMES: Final = 1_024
MOST_AT_ONCE: Final = 4
_AWAY: Final = frozenset({socket.EAI_AGAIN, socket.EAI_FAIL, socket.EAI_SYSTEM})
"""Failures that say nothing about the name."""


def parsed(text: str) -> Address | None:
    """Read an address: without its zone, a mapped one as the IPv4 address it is; ``None`` for a name.

    >>> parsed("::ffff:10.0.0.1") == parsed("10.0.0.1"), parsed("modality.example")
    (True, None)
    """
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def ask_system(name: str) -> frozenset[Address] | None:
    """Ask the system's resolver; ``None`` where it could not find out."""
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except socket.gaierror as failure:
        return None if failure.errno in _AWAY else frozenset()
    except (OSError, UnicodeError):
        return frozenset()
    addresses = (parsed(str(one[4][0])) for one in found)
    return frozenset(one for one in addresses if one is not None)


@dataclass(slots=True)
class _Answer:
    """What is known of one name, and whether it is being looked up."""

    addresses: frozenset[Address] | None = None
    known_s: float = float("-inf")
    asked: threading.Event | None = field(default=None)


class HostNames:
    """Looks names up; thread-safe."""

    def __init__(self, ask: Callable[[str], frozenset[Address] | None] = ask_system) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._answers: OrderedDict[str, _Answer] = OrderedDict()
        self._asking = 0

    def addresses(self, name: str, patience_s: float) -> frozenset[Address] | None:
        """Give a name's addresses, waiting so long for news; ``None`` where there is no answer yet."""
        literal = parsed(name)
        if literal is not None:
            return frozenset({literal})
        with self._lock:
            answer = self._answer(name)
            if time.monotonic() - answer.known_s >= FRESH_S and answer.asked is None:
                self._begin(name, answer)
            asked = answer.asked
        if asked is not None and patience_s > 0:
            asked.wait(patience_s)
        return answer.addresses

    def _answer(self, name: str) -> _Answer:
        answer = self._answers.get(name)
        if answer is None:
            answer = self._answers[name] = _Answer()
            if len(self._answers) > MOST_NAMES:
                self._answers.popitem(last=False)
        self._answers.move_to_end(name)
        return answer

    def _begin(self, name: str, answer: _Answer) -> None:
        """Look a name up on a thread of its own; not now where too many are under way."""
        if self._asking >= MOST_AT_ONCE:
            return
        answer.asked = threading.Event()
        thread = threading.Thread(
            target=self._look_up,
            args=(name, answer, answer.asked),
            name="pacs-resolve",
            daemon=True,
        )
        try:
            thread.start()
        except RuntimeError:  # the system has no thread to give
            answer.asked = None
            return
        self._asking += 1

    def _look_up(self, name: str, answer: _Answer, asked: threading.Event) -> None:
        found = self._ask(name)
        if found is None:
            LOGGER.warning("host-name-unresolved host=%s", name)
            found = answer.addresses or frozenset()  # the last answer stands while nobody answers
        with self._lock:
            answer.addresses, answer.known_s, answer.asked = found, time.monotonic(), None
            self._asking -= 1
        asked.set()
