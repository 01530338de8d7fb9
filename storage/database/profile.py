"""Rows of processing profiles, and what is asked of the index before their sources are given up.

A definition is kept as the JSON of ``pacs.core.profile_form``. What may be deleted
is decided in ``pacs.services.profile``.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from pacs.core.attributes import Level
from pacs.core.errors import EntryConflicts, EntryNotFound
from pacs.core.identifiers import (
    AETitle,
    ObjectId,
    Registrant,
    SeriesInstanceUID,
    SOPInstanceUID,
    StudyInstanceUID,
)
from pacs.core.processing import Keep, Profile
from pacs.core.profile_form import form_of, profile_of
from pacs.core.records import Place
from storage.database.connection import Database
from storage.database.job_rows import parse_utc, text_utc
from storage.database.revision import bump_revision
from storage.database.versions import in_pieces

_SELECT = "SELECT active, definition FROM profile"
# Dead letters have not done what they were to do: an administrator may have them tried again.
_UNDONE = "j.state NOT IN ('done', 'cancelled')"
_NAMED = "j.payload LIKE ?"
_OF_PATIENT = (
    "EXISTS (SELECT 1 FROM study a JOIN study b ON b.patient_row = a.patient_row "
    "WHERE a.study_instance_uid = ? AND j.payload LIKE '%\"' || b.study_instance_uid || '\"%')"
)


class ProfileTable:
    """Profiles by AE title. Every change bumps the revision in its own transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self) -> Sequence[Profile]:
        """All profiles by AE title."""
        return [_profile(*row) for row in self._database.execute(f"{_SELECT} ORDER BY ae_title")]

    def find(self, ae_title: AETitle) -> Profile | None:
        """The profile of that AE title, as committed now; ``None`` where there is none."""
        rows = self._database.execute(f"{_SELECT} WHERE ae_title = ?", (ae_title,))
        return next((_profile(*row) for row in rows), None)

    def put(self, profiles: Sequence[Profile], *, replacing: bool) -> None:
        """Add these, all or none; only ``replacing`` changes those there are. Raises ``EntryConflicts``."""
        with self._database.transaction():
            for one in sorted(profiles, key=lambda profile: profile.ae_title):
                self._put(one, replacing=replacing)
            bump_revision(self._database)

    def _put(self, profile: Profile, *, replacing: bool) -> None:
        """Write one. Since when it tidies stays only where it did so before, and was active all along."""
        now = text_utc(datetime.now(UTC))
        change = (
            "DO UPDATE SET active = excluded.active, definition = excluded.definition, "
            "tidies_since_utc = CASE WHEN excluded.tidies_since_utc IS NULL THEN NULL "
            "WHEN profile.active = 0 OR excluded.active = 0 THEN excluded.tidies_since_utc "
            "ELSE COALESCE(profile.tidies_since_utc, excluded.tidies_since_utc) END"
            if replacing
            else "DO NOTHING"
        )
        written = self._database.write(
            "INSERT INTO profile (ae_title, active, definition, tidies_since_utc, added_utc) "
            f"VALUES (?, ?, ?, ?, ?) ON CONFLICT (ae_title) {change}",
            (
                profile.ae_title,
                int(profile.active),
                json.dumps(form_of(profile), ensure_ascii=False),
                now if profile.keep_sources is Keep.UNTIL_DONE else None,
                now,
            ),
        )
        if written.rowcount == 0:
            raise EntryConflicts(f"a profile is named {profile.ae_title} already")

    def activate(self, ae_title: AETitle, *, active: bool) -> None:
        """Let a profile hold, or not; with it begins anew since when it tidies. Raises ``EntryNotFound``."""
        self._change(
            "UPDATE profile SET active = ?, tidies_since_utc = "
            "CASE WHEN tidies_since_utc IS NULL THEN NULL ELSE ? END WHERE ae_title = ?",
            (int(active), text_utc(datetime.now(UTC)), ae_title),
        )

    def remove(self, ae_title: AETitle) -> None:
        """Remove a profile. Raises ``EntryNotFound``."""
        self._change("DELETE FROM profile WHERE ae_title = ?", (ae_title,))

    def _change(self, sql: str, params: Sequence[object]) -> None:
        with self._database.transaction():
            if self._database.write(sql, params).rowcount == 0:
                raise EntryNotFound(f"no profile is named {params[-1]}")
            bump_revision(self._database)

    def tidies_since(self, ae_title: AETitle) -> datetime | None:
        """Since when a profile gives up what is sent to it; ``None`` where it does not."""
        rows = self._database.execute(
            "SELECT tidies_since_utc FROM profile WHERE ae_title = ?", (ae_title,)
        )
        return next((parse_utc(row[0]) for row in rows), None)


def _profile(active: int, definition: str) -> Profile:
    return replace(profile_of(json.loads(definition)), active=bool(active))


class ProfileIndex:
    """What is held of a series, and what else is to be done with it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def files(
        self, registrant: Registrant, study: StudyInstanceUID, series: SeriesInstanceUID
    ) -> Sequence[tuple[Place, datetime]]:
        """Every version of everything in a series that is not deleted, and when it was received; newest first."""
        rows = self._database.execute(
            "SELECT i.place, i.object_id, i.size_bytes, i.data_set_offset, i.received_utc "
            "FROM instance i JOIN series e ON e.id = i.series_row "
            "JOIN study s ON s.id = e.study_row WHERE e.series_instance_uid = ? "
            "AND s.study_instance_uid = ? AND i.registrant = ? AND i.deleted_by IS NULL "
            "ORDER BY i.received_utc DESC, i.id DESC",
            (series, study, registrant),
        )
        return [
            (
                Place(
                    name=row[0],
                    object_id=ObjectId(row[1]),
                    size_bytes=int(row[2]),
                    data_set_offset=int(row[3]),
                ),
                parse_utc(row[4]) or datetime.max.replace(tzinfo=UTC),
            )
            for row in rows
        ]

    def came_again(self, ae_title: AETitle, object_ids: Sequence[ObjectId]) -> datetime | None:
        """When one of these files came once more under that AE title, at the latest."""
        latest = [
            row[0]
            for marks, some in in_pieces(object_ids)
            for row in self._database.execute(
                "SELECT MAX(noted_utc) FROM profile_spared "
                f"WHERE ae_title = ? AND object_id IN ({marks})",
                [ae_title, *some],
            )
            if row[0] is not None
        ]
        return parse_utc(max(latest)) if latest else None

    def spared(self, ae_title: AETitle, object_ids: Sequence[ObjectId]) -> frozenset[ObjectId]:
        """Those of these files that came once more, under another AE title."""
        return frozenset(
            ObjectId(row[0])
            for marks, some in in_pieces(object_ids)
            for row in self._database.execute(
                "SELECT object_id FROM profile_spared "
                f"WHERE ae_title <> ? AND object_id IN ({marks})",
                [ae_title, *some],
            )
        )

    def untaken(
        self, registrant: Registrant, destination: AETitle, uids: Sequence[SOPInstanceUID]
    ) -> int:
        """How many of these instances a destination is not known to have taken."""
        taken: set[str] = set()
        for marks, some in in_pieces(uids):
            rows = self._database.execute(
                "SELECT i.sop_instance_uid FROM instance i JOIN forward_sent f "
                "ON f.object_id = i.object_id WHERE i.registrant = ? AND f.ae_title = ? "
                f"AND f.state = 'sent' AND i.sop_instance_uid IN ({marks})",
                [registrant, destination, *some],
            )
            taken.update(row[0] for row in rows)
        return len(set(uids) - taken)

    def is_wanted(
        self,
        registrant: Registrant,
        study: StudyInstanceUID,
        series: SeriesInstanceUID,
        kinds: Mapping[Level, Sequence[str]],
    ) -> bool:
        """Tell whether a job is not done that is about this series, this study, or any study of its patient.

        ``kinds`` says which jobs count at which of these levels.
        """
        about = {
            Level.PATIENT: _OF_PATIENT,
            Level.STUDY: _NAMED,
            Level.SERIES: f"{_NAMED} AND {_NAMED}",
        }
        named: dict[Level, list[str]] = {
            Level.PATIENT: [study],
            Level.STUDY: [_quoted(study)],
            Level.SERIES: [_quoted(study), _quoted(series)],
        }
        wanted, params = [], [_quoted(registrant)]
        for level, some in kinds.items():
            wanted.append(f"(j.kind IN ({', '.join('?' * len(some))}) AND {about[level]})")
            params += [*some, *named[level]]
        rows = self._database.execute(
            f"SELECT 1 FROM job j WHERE {_UNDONE} AND {_NAMED} AND ({' OR '.join(wanted)}) LIMIT 1",
            params,
        )
        return next(rows, None) is not None

    def said(
        self, kind: str, registrant: Registrant, study: StudyInstanceUID, series: SeriesInstanceUID
    ) -> Sequence[Mapping[str, object]]:
        """What jobs of a kind about this series have said when they were done."""
        rows = self._database.execute(
            f"SELECT j.result FROM job j WHERE j.state = 'done' AND j.kind = ? AND {_NAMED} "
            f"AND {_NAMED} AND {_NAMED}",
            (kind, _quoted(registrant), _quoted(study), _quoted(series)),
        )
        results = [json.loads(row[0]) for row in rows if row[0]]
        return [one for one in results if isinstance(one, dict)]


def _quoted(text: str) -> str:
    """Write a text as it is found in a payload; a name may have letters that mean others to LIKE, which is more."""
    return "%" + json.dumps(text).replace("\\", "_") + "%"
