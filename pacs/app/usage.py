"""Counting connections: who is told of each association that opens, beside the postman."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from pacs.core.caller import Caller
from pacs.core.event_ports import EventWay, EventWays
from pacs.services.usage import Connections

if TYPE_CHECKING:
    from pacs.app.archive import Archive


class _All:
    """Implements ``EventWays`` for several."""

    def __init__(self, *told: EventWays) -> None:
        self._told = told

    @contextmanager
    def opened(self, caller: Caller, way: EventWay) -> Iterator[None]:
        """Let all of them know of ``way`` until the end of the block."""
        with ExitStack() as stack:
            for one in self._told:
                stack.enter_context(one.opened(caller, way))
            yield


@contextmanager
def counting(archive: "Archive", others: EventWays) -> Iterator[EventWays]:
    """Note connections of this process until the end of the block; tells ``others`` of them too."""
    connections = Connections(archive.records)
    connections.start()
    try:
        yield _All(others, connections)
    finally:
        connections.stop()
