"""Which instances that are held keep the conditions of a route: ``pacs.core.forwarding.RouteJudge``."""

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import tzinfo
from typing import Final, Protocol

from pacs.core.attributes import Level
from pacs.core.caller import Visibility
from pacs.core.errors import EntryConflicts
from pacs.core.identifiers import AETitle, Registrant, SeriesInstanceUID, StudyInstanceUID
from pacs.core.ports import FindIndex
from pacs.core.records import Instance, Place
from pacs.core.route_form import form_of
from pacs.core.routing import Route
from pacs.core.work import Permanent, Retry
from pacs.services.find.entities import HeaderReader
from pacs.services.find.identifiers import Source
from pacs.services.route.conditions import Conditions, conditions, verdict
from pacs.services.route.subjects import Kept, Memory

_PAGE_ROWS: Final = 200
_MOST_ROUTES: Final = 1_000


class RouteRows(Protocol):
    """Where routes are kept; see ``storage.database.route``."""

    def find(self, name: str) -> Route | None: ...


class HeldIndex(Protocol):
    """What is held of a study; see ``storage.database.route``."""

    def sources(self, rows: Sequence[int]) -> dict[int, AETitle]: ...

    def delivered(
        self,
        registrant: Registrant,
        study: StudyInstanceUID,
        series: SeriesInstanceUID | None,
    ) -> Sequence[int]: ...


class Judge:
    """Judges instances by their index rows, and by their files where those cannot say."""

    def __init__(
        self,
        *,
        rows: RouteRows,
        held: HeldIndex,
        index: FindIndex,
        read: Callable[[Place], Instance],
        read_header: HeaderReader,
        zone: tzinfo,
    ) -> None:
        self._rows = rows
        self._held = held
        self._index = index
        self._read = read
        self._read_header = read_header
        self._zone = zone
        self._memory = Memory()
        self._made: dict[str, Conditions] = {}

    def route(self, name: str) -> Route | None:
        """The route of that name, as committed now: whoever asks may know it before a snapshot does."""
        return self._rows.find(name)

    def selects(
        self,
        route: Route,
        registrant: Registrant,
        rows: Sequence[int],
        *,
        undecided: set[int] | None = None,
    ) -> frozenset[int]:
        """Which of these index rows of instances keep the route's conditions. Raises ``RecordsFailed``.

        One whose file cannot be read keeps no condition that needs it, and goes into ``undecided``.
        """
        asked = self._conditions(route)
        found: set[int] = set()
        for start in range(0, len(rows), _PAGE_ROWS):
            for row, keeps in self._judged(asked, registrant, rows[start : start + _PAGE_ROWS]):
                if keeps:
                    found.add(row)
                elif keeps is None and undecided is not None:
                    undecided.add(row)
        return frozenset(found)

    def came_from(self, ae_title: AETitle, rows: Sequence[int]) -> frozenset[int]:
        """Which of these instances were received from that AE: it is never sent them back."""
        sources = self._held.sources(rows)
        return frozenset(row for row, source in sources.items() if source == ae_title)

    def selects_any(
        self,
        route: Route,
        registrant: Registrant,
        study: StudyInstanceUID,
        series: SeriesInstanceUID | None,
        cancelled: Callable[[], bool],
    ) -> bool:
        """Tell whether one instance of a study or series keeps all conditions; page by page.

        Raises ``Retry`` where none does and a file that might decide it cannot be read.
        """
        rows = self._held.delivered(registrant, study, series)
        undecided: set[int] = set()
        for start in range(0, len(rows), _PAGE_ROWS):
            if cancelled():
                return False
            page = rows[start : start + _PAGE_ROWS]
            if self.selects(route, registrant, page, undecided=undecided):
                return True
        if undecided:
            raise Retry(f"{len(undecided)} instances cannot be judged: their files cannot be read")
        return False

    def _judged(
        self, asked: Conditions, registrant: Registrant, rows: Sequence[int]
    ) -> Iterator[tuple[int, bool | None]]:
        visibility = Visibility(registrants=frozenset({registrant}))
        wanted = frozenset(
            one.condition.key.keyword
            for one in asked.keys
            if one.condition.key.source is not Source.HEADER
        )
        sources = self._held.sources(rows)
        # The time of a study or series is that of its becoming quiet, and was looked at then.
        times = asked.times if asked.route.level is Level.IMAGE else ()
        for found in self._index.rows(Level.IMAGE, rows, wanted, visibility):
            subject = Kept(
                found,
                sources.get(found.row, AETitle("")),
                read=self._read,
                read_header=self._read_header,
                memory=self._memory,
            )
            yield found.row, verdict((*asked.origin, *times, *asked.keys), subject)

    def _conditions(self, route: Route) -> Conditions:
        """Make a route's conditions once. Raises ``Permanent`` for one that cannot be asked."""
        text = json.dumps(form_of(route))
        if text not in self._made:
            if len(self._made) >= _MOST_ROUTES:
                self._made.clear()
            try:
                self._made[text] = conditions(route, self._zone)
            except EntryConflicts as error:
                raise Permanent(f"route {route.name} cannot be judged: {error}") from error
        return self._made[text]
