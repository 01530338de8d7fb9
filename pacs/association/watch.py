"""Associations that may not go on are ended: their contract was suspended, their device unbound, their time is over.

Owns when to look and how an end is brought about. Whether a caller still stands, the ``Gate``
decides. PS3.8 Section 7.3.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from pacs.association.acceptor import ServedAssociation
from pacs.association.admission import Host

LOGGER = logging.getLogger("pacs.association")

PATIENCE_S: Final = 1.0
"""Time an association gets to say A-ABORT; a handler that is busy loses its connection then."""


class Watch:
    """Looks at all associations of a server on a thread of its own, again and again."""

    def __init__(self, host: Host, open_now: Callable[[], Sequence[ServedAssociation]]) -> None:
        self._host = host
        self._open_now = open_now
        self._ending: dict[ServedAssociation, float] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pacs-watch", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self._host.settings.legitimacy.watch_s):
            try:
                self._look()
            except Exception as failure:  # noqa: BLE001 - who cannot be judged now is at the next look
                LOGGER.error("watch-failed kind=%s", type(failure).__name__)

    def _look(self) -> None:
        """End who no longer stands; cut off who was told to end and has not."""
        open_now = self._open_now()
        self._ending = {one: self._ending[one] for one in open_now if one in self._ending}
        for one in open_now:
            if one in self._ending:
                if time.monotonic() - self._ending[one] >= PATIENCE_S:
                    one.upper_layer.shut_down()
            elif one.caller is not None and not self._host.gate.stands(one.caller):
                self._ending[one] = time.monotonic()
                self._end(one)

    def _end(self, one: ServedAssociation) -> None:
        LOGGER.info("association-revoked association=%s", one.id)
        self._host.audit.record("association-revoked", one.caller, association=one.id)
        one.abort()
