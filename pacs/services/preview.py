"""Previews: one result of an operation as a picture, for whoever decides about it. Nothing is held.

Decides what it is computed of and which result is shown; knows no pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from pydicom.uid import generate_uid

from pacs.core.attributes import Level
from pacs.core.caller import Caller
from pacs.core.errors import InstanceNotFound, NotAuthorized, ProcessingRefused
from pacs.core.ports import AuditTrail, InstanceStore, RetrieveIndex, Snapshots
from pacs.core.processing import (
    DerivedImage,
    ProcessingRequest,
    Processor,
    StoredImage,
    Takes,
)
from pacs.core.records import Held, Selection
from pacs.services.process.standing import owners_purposes


class Painter(Protocol):
    """Makes pictures of derived images; see ``processing.datasets.preview``."""

    def png(
        self, results: Sequence[DerivedImage], number: int, window: tuple[float, float] | None
    ) -> bytes:
        """Give frame ``number``, counted from 1 through all results. Raises ``ProcessingRefused``."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Glimpse:
    """What shall be seen: an operation, what it is done to, which result, and its window center and width."""

    operation: str
    parameters: Mapping[str, str]
    selection: Selection
    frame: int = 1
    window: tuple[float, float] | None = None


class Previews:
    """Makes previews."""

    def __init__(
        self,
        *,
        index: RetrieveIndex,
        store: InstanceStore,
        processor: Processor,
        painter: Painter,
        snapshots: Snapshots,
        audit: AuditTrail,
        most: int,
    ) -> None:
        self._index = index
        self._store = store
        self._processor = processor
        self._painter = painter
        self._snapshots = snapshots
        self._audit = audit
        self._most = most

    def png(self, caller: Caller, glimpse: Glimpse) -> bytes:
        """Compute and paint. Raises ``ProcessingUnknown``, ``ProcessingRefused``, ``InstanceNotFound``.

        And ``NotAuthorized`` where the contract of whose images they are grants no processing.
        """
        takes = self._processor.checked(glimpse.operation, glimpse.parameters).takes
        if takes is not Takes.IMAGE and glimpse.selection.level is Level.IMAGE:
            raise ProcessingRefused(f"{glimpse.operation} takes {takes.value}: name a series")
        sources = self._sources(caller, glimpse, takes)
        owners = {one.registrant for one in sources}
        try:
            owners_purposes(owners, self._snapshots.newest(), datetime.now(UTC))
        except NotAuthorized as error:
            self._audit.record(
                "process-refused", caller, operation=glimpse.operation, cause=str(error)
            )
            raise
        request = ProcessingRequest(
            operation=glimpse.operation,
            parameters=glimpse.parameters,
            sources=[self._stored(one) for one in sources],
            series_instance_uid=str(generate_uid(prefix=None)),
        )
        with self._processor.process(request) as results:
            return self._painter.png(results, glimpse.frame, glimpse.window)

    def _sources(self, caller: Caller, glimpse: Glimpse, takes: Takes) -> Sequence[Held]:
        """The first image, the first volume, or all there is of one study."""
        rows = self._index.select(glimpse.selection, caller.visibility, self._most)
        if not rows:
            raise InstanceNotFound("nothing is held under that UID")
        if takes is Takes.IMAGE:
            return self._index.fetch([rows[0][0]])
        if len(rows) > self._most:
            raise ProcessingRefused(
                f"more than {self._most} instances (process.max_instances): name a series"
            )
        held = self._index.fetch([row for row, _, _ in rows])
        first = _whose(held[0], takes)
        return [one for one in held if _whose(one, takes) == first]

    def _stored(self, held: Held) -> StoredImage:
        return StoredImage(
            path=self._store.path(held.place),
            offset=held.place.data_set_offset,
            transfer_syntax_uid=held.transfer_syntax_uid,
        )


def _whose(held: Held, takes: Takes) -> tuple[str, ...]:
    """What goes together in one piece of work."""
    series = (held.series_instance_uid,) if takes is Takes.SERIES else ()
    return (held.registrant, held.study_instance_uid, *series)
