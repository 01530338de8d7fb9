"""Telling peers what they did not ask for: events posted, seen, tried again and given up. PS3.7 Section 10.1.1.

An event is a row until the peer has answered it, so it outlives the
association, the process and the machine that had it. Who sends it is
``pacs.services.postman``. Refuses to know what an event means.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from pacs.core.caller import Caller
from pacs.core.errors import EntryNotFound
from pacs.core.events import Event, PostedEvent
from pacs.core.ports import AuditTrail, Records

MAX_LISTED = 100_000
_LAST_ROW = (1 << 63) - 1  # what a database takes for a row number


class OutboxRows(Protocol):
    """Where events are kept."""

    def list(self, limit: int) -> Sequence[PostedEvent]: ...
    def depths(self) -> Mapping[str, int]: ...
    def retry(self, event_id: int) -> None: ...
    def cancel(self, event_id: int) -> None: ...


def event_information(data_set: Dataset) -> bytes:
    """Encode Event Information as ``Event`` holds it: Explicit VR Little Endian."""
    stream = DicomBytesIO()
    stream.is_implicit_VR, stream.is_little_endian = False, True
    write_dataset(stream, data_set)
    return bytes(stream.getvalue())


class Outbox:
    """What services and an admin do with events; what an admin does is on record."""

    def __init__(self, rows: OutboxRows, records: Records, audit: AuditTrail) -> None:
        self._rows = rows
        self._records = records
        self._audit = audit

    def post(self, caller: Caller, event: Event) -> int:
        """Keep an event until it is delivered; gives its number. Durable when this returns.

        Together with other facts: ``Unit.post``. Raises ``EventTooLarge`` or ``OutboxFull``.
        """
        with self._records.transaction() as unit:
            return unit.post(event)

    def list(self, caller: Caller) -> Sequence[PostedEvent]:
        """Events in the order they were posted: waiting, being sent, or dead."""
        return self._rows.list(MAX_LISTED)

    def depths(self, caller: Caller) -> Mapping[str, int]:
        """How many events wait and how many are dead."""
        return self._rows.depths()

    def retry(self, caller: Caller, event_id: int) -> None:
        """Send one event now, dead or not. Raises ``EntryNotFound``."""
        self._rows.retry(_number(event_id))
        self._audit.record("event-retried", caller, number=event_id)

    def cancel(self, caller: Caller, event_id: int) -> None:
        """Forget one event; one that is being sent may still arrive. Raises ``EntryNotFound``."""
        self._rows.cancel(_number(event_id))
        self._audit.record("event-cancelled", caller, number=event_id)


def as_row(event: PostedEvent) -> dict[str, object]:
    """Name what is known of an event for a list; times in ISO 8601."""
    return {
        name: value.isoformat(timespec="milliseconds") if isinstance(value, datetime) else value
        for name in PostedEvent.__slots__
        for value in (getattr(event, name),)
    }


def _number(event_id: int) -> int:
    if not 0 < event_id <= _LAST_ROW:
        raise EntryNotFound(f"there is no event {event_id}")
    return event_id
