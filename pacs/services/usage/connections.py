"""Connections of one process, noted when they end. PS3.8 Section 9.1.

Owns when that is written: by a thread of its own, all that ended within a few seconds in one
transaction, so that a peer that opens an association for each image costs no further commit each.
A process that is killed loses those seconds of it; one that drains loses nothing.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from pacs.core.caller import Caller
from pacs.core.errors import RecordsFailed
from pacs.core.event_ports import EventWay
from pacs.core.ports import Records
from pacs.core.usage import Connected, asked_by

LOGGER = logging.getLogger("pacs.usage")

_EVERY_S: Final = 5.0
_AT_ONCE: Final = 1_000
_MOST: Final = 100_000
"""So many wait while the records cannot be written; the oldest goes then."""


class Connections:
    """Implements ``pacs.core.event_ports.EventWays`` for whoever counts. Start, then stop once."""

    def __init__(self, records: Records, *, every_s: float = _EVERY_S) -> None:
        self._records = records
        self._every_s = every_s
        self._ended: deque[Connected] = deque(maxlen=_MOST)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="pacs-usage", daemon=True)

    def start(self) -> None:
        """Begin to write what ends."""
        self._thread.start()

    def stop(self) -> None:
        """Write what is left, and end the thread. Called when all associations have ended."""
        self._stopping.set()
        self._thread.join()

    @contextmanager
    def opened(self, caller: Caller, way: EventWay) -> Iterator[None]:
        """Count an association from here to the end of the block."""
        begun_s = time.monotonic()
        try:
            yield
        finally:
            if len(self._ended) == _MOST:
                LOGGER.warning("connection-not-noted association=%s", self._ended[0].association)
            self._ended.append(
                Connected(
                    subscriber=caller.subscriber,
                    association=caller.association,
                    asked_by=asked_by(caller),
                    duration_ms=round((time.monotonic() - begun_s) * 1000),
                )
            )

    def _keep(self) -> None:
        while not self._stopping.wait(self._every_s):
            self._write()
        if not self._write():
            LOGGER.warning("connections-not-noted count=%d", len(self._ended))

    def _write(self) -> bool:
        """Write what has ended, the oldest first; tells whether nothing is left. Doing it again changes nothing."""
        while self._ended:
            some = list(self._ended)[:_AT_ONCE]
            try:
                with self._records.transaction() as unit:
                    for one in some:
                        unit.record_usage(one)
            except RecordsFailed:
                return False
            for _ in some:
                self._ended.popleft()
        return True
