"""Rows of routes, and what judging a route asks of the index.

A definition is kept as the JSON of ``pacs.core.route_form``. Which instances
and studies a route selects is decided in ``pacs.services.route``.
"""

import json
from array import array
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from pacs.core.errors import EntryConflicts, EntryNotFound
from pacs.core.identifiers import (
    AETitle,
    ObjectId,
    Registrant,
    SeriesInstanceUID,
    StudyInstanceUID,
)
from pacs.core.records import Place
from pacs.core.route_form import form_of, route_of
from pacs.core.routing import Priors, Route
from storage.database.connection import Database
from storage.database.job_rows import parse_utc
from storage.database.revision import bump_revision

_SELECT = "SELECT active, definition FROM route"
_ROWS_A_QUERY = 500
_OF_STUDY = (
    "FROM instance i JOIN series e ON e.id = i.series_row JOIN study s ON s.id = e.study_row "
    "WHERE s.study_instance_uid = ? AND s.registrant = ? AND i.deleted_by IS NULL"
)
_IN_COMMON = (
    " AND EXISTS (SELECT 1 FROM series a JOIN series b ON a.{0} = b.{0} "
    "WHERE a.study_row = t.id AND b.study_row = s.id AND a.{0} <> '' "
    "AND a.instance_count > 0 AND b.instance_count > 0)"
)


class RouteTable:
    """Routes by name. Every change bumps the revision in its own transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self) -> Sequence[Route]:
        """All routes by name."""
        return [_route(*row) for row in self._database.execute(f"{_SELECT} ORDER BY name")]

    def find(self, name: str) -> Route | None:
        """The route of that name, as committed now; ``None`` where there is none."""
        rows = self._database.execute(f"{_SELECT} WHERE name = ?", (name,))
        return next((_route(*row) for row in rows), None)

    def put(self, routes: Sequence[Route], *, replacing: bool) -> None:
        """Add these routes, all or none; only ``replacing`` changes those there are. Raises ``EntryConflicts``."""
        with self._database.transaction():
            for one in sorted(routes, key=lambda route: route.name):
                self._put(one, replacing=replacing)
            bump_revision(self._database)

    def _put(self, route: Route, *, replacing: bool) -> None:
        change = (
            "DO UPDATE SET active = excluded.active, definition = excluded.definition"
            if replacing
            else "DO NOTHING"
        )
        written = self._database.write(
            "INSERT INTO route (name, active, definition, added_utc) VALUES (?, ?, ?, ?) "
            f"ON CONFLICT (name) {change}",
            (
                route.name,
                int(route.active),
                json.dumps(form_of(route), ensure_ascii=False),
                datetime.now(UTC).isoformat(),
            ),
        )
        if written.rowcount == 0:
            raise EntryConflicts(f"a route is named {route.name} already")

    def activate(self, name: str, *, active: bool) -> None:
        """Let a route hold, or not. Raises ``EntryNotFound``."""
        self._change("UPDATE route SET active = ? WHERE name = ?", (int(active), name))

    def remove(self, name: str) -> None:
        """Remove a route. Raises ``EntryNotFound``."""
        self._change("DELETE FROM route WHERE name = ?", (name,))

    def _change(self, sql: str, params: Sequence[object]) -> None:
        with self._database.transaction():
            if self._database.write(sql, params).rowcount == 0:
                raise EntryNotFound(f"no route is named {params[-1]}")
            bump_revision(self._database)

    def waiting(self, prefixes: Sequence[str]) -> int:
        """Count the jobs not ended yet whose unique key begins with one of ``prefixes``."""
        begins = " OR ".join(["substr(unique_key, 1, ?) = ?"] * len(prefixes))
        rows = self._database.execute(
            "SELECT COUNT(*) FROM job WHERE state IN ('waiting', 'delayed', 'running', 'blocked') "
            f"AND ({begins})",
            [value for one in prefixes for value in (len(one), one)],
        )
        return int(next(rows)[0])


def _route(active: int, definition: str) -> Route:
    return replace(route_of(json.loads(definition)), active=bool(active))


class RouteIndex:
    """What is held of a study, its series and its patient, as routing asks for it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def newest(
        self,
        registrant: Registrant,
        study: StudyInstanceUID,
        series: SeriesInstanceUID | None,
        *,
        but: int = 0,
    ) -> tuple[Place, datetime] | None:
        """The instance of a study or series received last, and when; ``None`` where none is left.

        With ``but`` so many that were received later are passed over.
        """
        where, params = _of(registrant, study, series)
        rows = self._database.execute(
            "SELECT i.place, i.object_id, i.size_bytes, i.data_set_offset, i.received_utc "
            f"{_OF_STUDY}{where} ORDER BY i.received_utc DESC, i.id DESC LIMIT 1 OFFSET ?",
            [*params, but],
        )
        for name, object_id, size_bytes, offset, received in rows:
            place = Place(
                name=name,
                object_id=ObjectId(object_id),
                size_bytes=int(size_bytes),
                data_set_offset=int(offset),
            )
            return place, parse_utc(received) or datetime.min.replace(tzinfo=UTC)
        return None

    def delivered(
        self,
        registrant: Registrant,
        study: StudyInstanceUID,
        series: SeriesInstanceUID | None,
    ) -> Sequence[int]:
        """Rows of all instances that are delivered, ascending."""
        # No pages: asked for the first rows by number, a planner walks past all other studies.
        where, params = _of(registrant, study, series)
        rows = self._database.execute(f"SELECT i.id {_OF_STUDY}{where} AND i.delivered = 1", params)
        return array("q", sorted(row[0] for row in rows))

    def sources(self, rows: Sequence[int]) -> dict[int, AETitle]:
        """From which AE each of these instances came."""
        found: dict[int, AETitle] = {}
        for start in range(0, len(rows), _ROWS_A_QUERY):
            some = rows[start : start + _ROWS_A_QUERY]
            marks = ", ".join("?" * len(some))
            sql = f"SELECT id, source_ae_title FROM instance WHERE id IN ({marks})"
            found.update(
                (int(row[0]), AETitle(row[1])) for row in self._database.execute(sql, some)
            )
        return found

    def comes_only_from(
        self,
        ae_title: AETitle,
        registrant: Registrant,
        study: StudyInstanceUID,
        series: SeriesInstanceUID | None,
    ) -> bool:
        """Tell whether every delivered instance of a study or series came from that AE."""
        where, params = _of(registrant, study, series)
        others = self._database.execute(
            f"SELECT 1 {_OF_STUDY}{where} AND i.delivered = 1 AND i.source_ae_title <> ? LIMIT 1",
            [*params, ae_title],
        )
        return next(others, None) is None

    def priors(
        self, registrant: Registrant, study: StudyInstanceUID, priors: Priors
    ) -> Sequence[StudyInstanceUID]:
        """Earlier studies of the patient as ``priors`` wants them, the latest first.

        Earlier is by Study Date and Time; of studies without a date nobody knows.
        """
        found: dict[str, str] = {}
        for row, moment in self._dated(registrant, study):
            found.update(self._before(row, moment, registrant, study, priors))
        latest = sorted(found, key=lambda uid: (found[uid], uid), reverse=True)
        return [StudyInstanceUID(one) for one in latest[: priors.latest]]

    def _dated(self, registrant: Registrant, study: StudyInstanceUID) -> list[tuple[int, str]]:
        rows = self._database.execute(
            "SELECT id, study_moment FROM study WHERE study_instance_uid = ? AND registrant = ? "
            "AND study_moment <> ''",
            (study, registrant),
        )
        return [(int(row[0]), str(row[1])) for row in rows]

    def _before(
        self,
        row: int,
        moment: str,
        registrant: Registrant,
        study: StudyInstanceUID,
        priors: Priors,
    ) -> list[tuple[str, str]]:
        alike = _IN_COMMON.format("modality") if priors.same_modality else ""
        alike += _IN_COMMON.format("body_part_examined") if priors.same_body_part else ""
        rows = self._database.execute(
            "SELECT s.study_instance_uid, s.study_moment FROM study t "
            "JOIN study s ON s.patient_row = t.patient_row WHERE t.id = ? AND s.registrant = ? "
            "AND s.study_instance_uid <> ? AND s.study_moment <> '' AND s.study_moment < ? "
            "AND s.study_moment >= ? AND EXISTS (SELECT 1 FROM series h "
            f"WHERE h.study_row = s.id AND h.instance_count > 0){alike} "
            f"ORDER BY s.study_moment DESC, s.study_instance_uid DESC LIMIT {priors.latest:d}",
            (row, registrant, study, moment, _earliest(moment, priors.within_days)),
        )
        return [(str(one[0]), str(one[1])) for one in rows]


def _of(
    registrant: Registrant, study: StudyInstanceUID, series: SeriesInstanceUID | None
) -> tuple[str, list[object]]:
    if series is None:
        return "", [study, registrant]
    return " AND e.series_instance_uid = ?", [study, registrant, series]


def _earliest(moment: str, within_days: int | None) -> str:
    """The first day that is near enough; any, where that is not asked."""
    if within_days is None:
        return ""
    day = datetime.strptime(moment[:8], "%Y%m%d").replace(tzinfo=UTC)
    try:
        return (day - timedelta(days=within_days)).strftime("%Y%m%d").zfill(8)
    except OverflowError:
        return ""
