"""Ports of the outbox: what it asks of open associations, and of those it opens.

PS3.7 Section 10.1.1. The other ports are in ``pacs.core.ports``.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from pacs.core.caller import Caller
from pacs.core.events import Event, EventOutcome
from pacs.core.identifiers import SOPClassUID
from pacs.core.records import Peer


class EventWay(Protocol):
    """An open association on which events can be posted."""

    def carries(self, context_uid: SOPClassUID) -> bool:
        """Tell whether a presentation context was accepted for it in which we are the SCP."""
        ...

    def post(self, event: Event, ended: Callable[[EventOutcome], None]) -> None:
        """Put the event in line, from any thread; ``ended`` is called once, from any thread.

        Raises ``PeerUnreachable`` when the association has ended; then ``ended`` is not called.
        """
        ...


class EventWays(Protocol):
    """Who is told of each association that opens."""

    def opened(self, caller: Caller, way: EventWay) -> AbstractContextManager[None]:
        """Know of ``way`` until the end of the block."""
        ...


class EventDelivery(Protocol):
    """An association we opened to report events."""

    def carries(self, context_uid: SOPClassUID) -> bool:
        """Tell whether the peer accepted a presentation context for it with us as the SCP."""
        ...

    def report(self, event: Event) -> EventOutcome:
        """Send one event and wait for what the peer says. Raises ``PeerUnreachable``."""
        ...


class EventSender(Protocol):
    """Opens associations to report events."""

    def open(
        self, peer: Peer, context_uids: Sequence[SOPClassUID]
    ) -> AbstractContextManager[EventDelivery]:
        """Associate with ``peer`` and ask for the SCP role. Raises ``PeerUnreachable`` or ``PeerRefused``."""
        ...
