"""An association that is made once more where its peer left before an instance was begun.

While what is sent next is being made the association lies idle, and many peers end it
after a minute. Owns when another is made: once for an instance, of which nothing had
left. Refuses to keep one alive: nothing that may be sent without being asked for was
negotiated. PS3.8 Section 9.2.
"""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import Self

from pacs.core.errors import PeerLeft
from pacs.core.identifiers import SOPClassUID, TransferSyntaxUID
from pacs.core.records import Originator, Payload, SendOutcome
from pacs.core.sending_ports import Delivery

LOGGER = logging.getLogger("pacs.delivery")

Opening = Callable[[], AbstractContextManager[Delivery]]


class Reopening:
    """Implements ``pacs.core.sending_ports.Delivery``; open within its block."""

    def __init__(self, opening: Opening) -> None:
        self._opening = opening
        self._stack = ExitStack()
        self._delivery: Delivery
        self._aborted = False

    def __enter__(self) -> Self:
        """Open the first. Raises ``PeerUnreachable``."""
        self._delivery = self._stack.enter_context(self._opening())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return self._stack.__exit__(kind, error, traceback)

    @property
    def last_status(self) -> int | None:
        """As of the association that is open."""
        return self._delivery.last_status

    def accepted(self, sop_class_uid: SOPClassUID) -> tuple[TransferSyntaxUID, ...]:
        """As of the association that is open: another might accept something else."""
        return self._delivery.accepted(sop_class_uid)

    def send(
        self,
        payload: Payload,
        originator: Originator | None,
        following: Callable[[], Payload | None] | None = None,
    ) -> SendOutcome:
        """Send one Data Set. Raises ``PeerUnreachable`` when no association is left for it."""
        try:
            return self._delivery.send(payload, originator, following)
        except PeerLeft:
            if self._aborted:
                raise
        LOGGER.info("association-reopened")
        self._reopen()
        return self._delivery.send(payload, originator, following)

    def _reopen(self) -> None:
        self._stack.close()
        self._delivery = self._stack.enter_context(self._opening())
        if self._aborted:  # while it was made
            self._delivery.abort()

    def close(self) -> None:
        """Let go of what was opened ahead."""
        self._delivery.close()

    def abort(self) -> None:
        """Close the way for good, from any thread."""
        self._aborted = True
        self._delivery.abort()
