"""N-EVENT-REPORT on an association: posted on one a peer opened, asked on one we opened. PS3.7 Section 10.1.1.

Owns the way from an ``Event`` to a message. Refuses to decide what follows
from the peer's answer.
"""

from collections.abc import Callable
from typing import Final

from pacs.association.exchange import Exchange
from pacs.association.identifiers import decode_identifier
from pacs.association.message import Message, Operation
from pacs.core.errors import InstanceUnreadable, OperationUnsupported
from pacs.core.events import Event, EventOutcome
from pacs.core.identifiers import SOPClassUID

EXPLICIT_LITTLE: Final = "1.2.840.10008.1.2.1"
_LOOK_S: Final = 1.0


def message_of(event: Event) -> Message:
    """Make the message. Raises ``InstanceUnreadable`` where its information is no Data Set."""
    information = None
    if event.information:
        information = decode_identifier(
            event.information, EXPLICIT_LITTLE, most_bytes=len(event.information)
        )
    return Message(
        operation=Operation.N_EVENT_REPORT,
        sop_class_uid=event.sop_class_uid,
        fields={
            "AffectedSOPInstanceUID": event.sop_instance_uid,
            "EventTypeID": event.event_type_id,
        },
        data_set=information,
        context_uid=event.carried_by,
    )


class ExchangeWay:
    """An association a peer opened; implements ``pacs.core.ports.EventWay``."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def carries(self, context_uid: SOPClassUID) -> bool:
        """Tell whether a presentation context was accepted for it in which we are the SCP."""
        return self._exchange.carries(context_uid, Operation.N_EVENT_REPORT) is not None

    def post(self, event: Event, ended: Callable[[EventOutcome], None]) -> None:
        """Put the event in line, from any thread. Raises ``PeerUnreachable``."""
        try:
            message = message_of(event)
        except InstanceUnreadable:
            ended(EventOutcome())
            return
        self._exchange.post(message, ended)


class Reporting:
    """An association we opened; implements ``pacs.core.ports.EventDelivery``."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def carries(self, context_uid: SOPClassUID) -> bool:
        """Tell whether the peer accepted a presentation context for it with us as the SCP."""
        return self._exchange.carries(context_uid, Operation.N_EVENT_REPORT) is not None

    def report(self, event: Event) -> EventOutcome:
        """Send one event and wait for what the peer says. Raises ``PeerUnreachable``."""
        said: list[EventOutcome] = []
        try:
            self._exchange.post(message_of(event), said.append)
        except (InstanceUnreadable, OperationUnsupported):
            return EventOutcome()
        self._exchange.look()
        while not said:
            if not self._exchange.serve_waiting():
                self._exchange.upper_layer.receive(self._exchange.patience_s(_LOOK_S))
            self._exchange.look()
        return said[0]
