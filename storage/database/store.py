"""Rows of arriving instances: the transaction behind every C-STORE.

Rows do not depend on the order of arrival: the attributes of a patient, study
or series are those of its earliest instance (least object id, ``origin``), so
``reindex`` finds the same rows whatever the order in which transactions were
committed. Identity is per registrant and nothing is merged: the UIDs an
instance carries decide where it is found, and contradictions become rows of
``conflict``.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache

from config.settings import Outbox as OutboxSettings
from pacs.core.attributes import INDEXED, Level
from pacs.core.events import Event
from pacs.core.journal import INSTANCE, SERIES, STUDY
from pacs.core.records import Held, Instance, Job
from pacs.core.text import date_time_key, name_groups, name_sounds
from pacs.core.usage import Usage
from storage.database.conflict import refresh
from storage.database.connection import INDEX_LOCK, Database
from storage.database.job_rows import enqueue
from storage.database.outbox import post
from storage.database.retrieve import DatabaseRetrieveIndex, turns_of
from storage.database.usage import note_usage
from storage.database.versions import deliver

_LONGEST_NAME = 640  # characters: a row of an index of PostgreSQL holds 2704 bytes
_KEYS = {
    "patient": ("patient_id", "issuer_of_patient_id", "registrant", "lone_study_uid"),
    "study": ("study_instance_uid", "registrant", "patient_row"),
    "series": ("series_instance_uid", "study_row"),
}
_OLDER_SERIES = (
    "SELECT e.id, e.instance_count FROM series e JOIN study s ON s.id = e.study_row "
    "JOIN patient p ON p.id = s.patient_row WHERE e.series_instance_uid = ? "
    "AND s.study_instance_uid = ? AND s.registrant = ? AND p.patient_id = ? "
    "AND p.issuer_of_patient_id = ? AND p.registrant = ? AND p.lone_study_uid = ? "
    "AND e.origin < ? AND s.origin < ? AND p.origin < ?"
)
_COLUMNS = {
    level: [(one.column, one.keyword) for one in INDEXED if one.level is level] for level in Level
}
_LATER = ("series_row", "deleted_by", "delivered")
Row = dict[str, object]


class DatabaseRecords:
    """``pacs.core.ports.Records`` on SQLite or PostgreSQL."""

    def __init__(
        self,
        database: Database,
        versions: str,
        outbox: OutboxSettings | None = None,
        *,
        wake: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._database = database
        self._versions = versions
        self._outbox = outbox or OutboxSettings()
        self._wake = wake
        self.on_posted: Callable[[], None] = lambda: None
        """Called after a transaction that posted events, so that they need not be looked for."""

    @contextmanager
    def transaction(self) -> Iterator["DatabaseUnit"]:
        """Begin; commits durably at the end of the block. Raises ``RecordsFailed``.

        Workers are told of new jobs after the commit; that is never waited for.
        """
        with self._database.transaction():
            unit = DatabaseUnit(self._database, self._versions, outbox=self._outbox)
            yield unit
        if unit.posted:
            self.on_posted()
        self.wake(unit.queues)

    def wake(self, queues: Collection[str]) -> None:
        """Tell workers that there are jobs in these queues; after the commit."""
        for queue in sorted(queues):
            self._wake(queue)


class DatabaseUnit:
    """``pacs.core.ports.Unit``: what may be written in one transaction."""

    def __init__(
        self,
        database: Database,
        versions: str,
        *,
        alone: bool = False,
        outbox: OutboxSettings | None = None,
    ) -> None:
        self._database = database
        self._versions = versions
        self._alone = alone
        self._outbox = outbox or OutboxSettings()
        self.posted = False
        self._held = DatabaseRetrieveIndex(database)
        self.queues: set[str] = set()
        """Queues in which this transaction has put a job."""

    def wake(self, queue: str) -> None:
        """Have workers told of a queue in which a job may go on."""
        self.queues.add(queue)

    # --- instances -------------------------------------------------------------

    def add_instance(self, instance: Instance, deleted_by: str | None = None) -> bool:
        """Insert the rows of an instance; ``False`` where the same digest is held already.

        ``deleted_by`` names the journal entry that hides it from the start (reindex).
        """
        self._take_turns(instance)
        came_before = deleted_by is None and self._came_before(instance)
        if came_before and self.holds_digest(instance):
            return False
        series, empty = self._known_series(instance) or self._new_series(instance)
        lone = int(deleted_by is None and not came_before)
        row = _instance_row(instance)
        row.update(zip(_LATER, (series, deleted_by, lone), strict=True))
        self._insert("instance", row)
        self._count(instance, series, lone=bool(lone), came_before=came_before)
        if empty:
            header, registrant = instance.header, instance.provenance.registrant
            refresh(self._database, STUDY, registrant, header.study_instance_uid)
            refresh(self._database, SERIES, registrant, header.series_instance_uid)
        return True

    def _take_turns(self, instance: Instance) -> None:
        """Let transactions about the same UIDs see each other. SQLite has one writer anyway."""
        if self._alone or self._database.dialect == "sqlite":
            return
        self._database.write(
            "SELECT pg_advisory_xact_lock_shared(?), "
            "pg_advisory_xact_lock(hashtextextended(uid, 0)) "
            "FROM (SELECT unnest(?::text[]) AS uid ORDER BY 1) AS uids",
            (INDEX_LOCK, turns_of(instance)),
        )

    def _came_before(self, instance: Instance) -> bool:
        """Tell whether anything is held under this SOP Instance UID, in whatever company."""
        found = self._database.write(
            "SELECT 1 FROM instance WHERE sop_instance_uid = ? AND registrant = ? "
            "AND deleted_by IS NULL LIMIT 1",
            (instance.header.sop_instance_uid, instance.provenance.registrant),
        )
        return found.fetchone() is not None

    def _count(self, instance: Instance, series: int, *, lone: bool, came_before: bool) -> None:
        """Count what is delivered now; choose among versions where there are several."""
        if lone:
            self._database.write(
                "UPDATE series SET instance_count = instance_count + 1 WHERE id = ?", (series,)
            )
        elif came_before:
            uid = instance.header.sop_instance_uid
            deliver(self._database, (uid,), self._versions)
            refresh(self._database, INSTANCE, instance.provenance.registrant, uid)

    def holds_digest(self, instance: Instance) -> bool:
        """Tell whether this very Data Set is held, not deleted, under the same UIDs and registrant."""
        return any(one.digest == instance.digest for one in self.versions(instance))

    def versions(self, instance: Instance) -> Sequence[Held]:
        """List what is held under the same registrant, patient, series and SOP Instance UID."""
        return self._held.versions(instance)

    def came_again(self, instance: Instance, held: Sequence[Held]) -> bool:
        """Note under which AE title these files came once more; ``False`` where one is deleted meanwhile.

        All that are no profile's are noted as one, empty: a peer may call any.
        """
        self._take_turns(instance)
        ids = [one.place.object_id for one in held]
        (left,) = self._database.write(
            f"SELECT COUNT(*) FROM instance WHERE deleted_by IS NULL "
            f"AND object_id IN ({', '.join('?' * len(ids))})",
            ids,
        ).fetchone()
        if left < len(ids):
            return False
        called = instance.provenance.receiving_ae_title
        profiles = self._database.write("SELECT 1 FROM profile WHERE ae_title = ?", (called,))
        is_profile = profiles.fetchone() is not None
        for one in ids:
            self._database.write(
                "INSERT INTO profile_spared (object_id, ae_title, noted_utc) VALUES (?, ?, ?) "
                "ON CONFLICT (object_id, ae_title) DO "
                + ("UPDATE SET noted_utc = excluded.noted_utc" if is_profile else "NOTHING"),
                (one, called if is_profile else "", _utc(instance.provenance.received_utc)),
            )
        return True

    def _known_series(self, instance: Instance) -> tuple[int, bool] | None:
        """Find the series where it and its parents are older: nothing of them changes.

        Tells whether nothing in it has been delivered yet.
        """
        header, registrant = instance.header, instance.provenance.registrant
        found = self._database.write(
            _OLDER_SERIES,
            (
                header.series_instance_uid,
                header.study_instance_uid,
                registrant,
                header.patient_id,
                header.issuer_of_patient_id,
                registrant,
                _lone_study_uid(instance),
                *[instance.place.object_id] * 3,
            ),
        ).fetchone()
        return None if found is None else (int(found[0]), found[1] == 0)

    def _new_series(self, instance: Instance) -> tuple[int, bool]:
        """Make what is missing of patient, study and series, and give them earlier attributes."""
        patient = self._parent("patient", _patient_row(instance), instance)
        study = self._parent("study", {**_study_row(instance), "patient_row": patient}, instance)
        series = self._parent("series", {**_series_row(instance), "study_row": study}, instance)
        note_modalities(self._database, study)
        return series, True

    def _parent(self, table: str, row: Row, instance: Instance) -> int:
        """Find or insert a patient, study or series; its attributes are those of its origin."""
        keys = _KEYS[table]
        where = " AND ".join(f"{key} = ?" for key in keys)
        find = f"SELECT id, origin FROM {table} WHERE {where}"
        found = self._database.write(find, [row[key] for key in keys]).fetchone()
        if found is None:
            self._insert(table, row, on_conflict=f"ON CONFLICT ({', '.join(keys)}) DO NOTHING")
            found = self._database.write(find, [row[key] for key in keys]).fetchone()
        if instance.place.object_id < found[1]:
            self.set_attributes(table, found[0], row, only_earlier=True)
        return int(found[0])

    def set_attributes(
        self, table: str, row_id: int, row: Row, *, only_earlier: bool = False
    ) -> None:
        """Give a patient, study or series the attributes of another instance."""
        changed = {key: value for key, value in row.items() if key not in _KEYS[table]}
        sets = ", ".join(f'"{column}" = ?' for column in changed)
        params = [*changed.values(), row_id]
        earlier = ""
        if (
            only_earlier
        ):  # said again in the statement: on PostgreSQL others may change it meanwhile
            earlier = " AND origin > ?"
            params.append(row["origin"])
        self._database.write(f"UPDATE {table} SET {sets} WHERE id = ?{earlier}", params)

    def _insert(self, table: str, row: Row, on_conflict: str = "") -> None:
        self._database.write(_insertion(table, tuple(row), on_conflict), list(row.values()))

    # --- records -----------------------------------------------------------------

    def record_usage(self, usage: Usage) -> None:
        """Note a fact for accounting, once."""
        note_usage(self._database, usage)

    def enqueue(self, job: Job) -> None:
        """Insert a job row; one with a ``unique_key`` that is waiting already is not doubled."""
        self.queues.add(enqueue(self._database, job))

    def post(self, event: Event) -> int:
        """Insert an event, to be delivered once this is committed. Raises ``EventTooLarge`` or ``OutboxFull``."""
        number = post(self._database, event, self._outbox)
        self.posted = True
        return number


@lru_cache
def _insertion(table: str, columns: tuple[str, ...], on_conflict: str) -> str:
    named = ", ".join(f'"{column}"' for column in columns)
    marks = ", ".join("?" * len(columns))
    return f"INSERT INTO {table} ({named}) VALUES ({marks}) {on_conflict}"


def note_modalities(database: Database, study: int) -> None:
    """Make the modalities of a study those of its series, beside its date as it is now."""
    database.write(
        "DELETE FROM study_modality WHERE study_row = ? AND NOT EXISTS ("
        "SELECT 1 FROM series e JOIN study s ON s.id = e.study_row "
        "WHERE s.id = study_modality.study_row AND e.modality = study_modality.modality "
        "AND COALESCE(s.study_date, '') = study_modality.study_date)",
        (study,),
    )
    database.write(
        "INSERT INTO study_modality (modality, study_date, study_row) "
        "SELECT DISTINCT e.modality, COALESCE(s.study_date, ''), s.id "
        "FROM series e JOIN study s ON s.id = e.study_row "
        "WHERE s.id = ? AND e.modality IS NOT NULL ON CONFLICT DO NOTHING",
        (study,),
    )


def parent_rows(instance: Instance) -> dict[str, Row]:
    """Make the patient, study and series rows an instance would give its parents."""
    return {
        "patient": _patient_row(instance),
        "study": _study_row(instance),
        "series": _series_row(instance),
    }


def _utc(moment: datetime) -> str:
    """Write a moment in UTC so that text sorts as time does."""
    return moment.isoformat(timespec="microseconds")[:26] + "Z"


def _attributes(instance: Instance, level: Level) -> Row:
    values = instance.header.values
    return {column: values.get(keyword) for column, keyword in _COLUMNS[level]}


def _common(instance: Instance) -> Row:
    return {
        "registrant": instance.provenance.registrant,
        "origin": instance.place.object_id,
        "received_utc": _utc(instance.provenance.received_utc),
    }


def _lone_study_uid(instance: Instance) -> str:
    """Keep a patient to one study: a missing Patient ID never joins two into one."""
    return "" if instance.header.patient_id else instance.header.study_instance_uid


def _patient_row(instance: Instance) -> Row:
    header = instance.header
    groups = [group[:_LONGEST_NAME] for group in name_groups(header.values.get("PatientName", ""))]
    return {
        **_attributes(instance, Level.PATIENT),
        **_common(instance),
        "patient_id": header.patient_id,
        "issuer_of_patient_id": header.issuer_of_patient_id,
        "lone_study_uid": _lone_study_uid(instance),
        "name_alphabetic": groups[0],
        "name_ideographic": groups[1],
        "name_phonetic": groups[2],
        "name_sounds": name_sounds(header.values.get("PatientName", "")),
    }


def _study_row(instance: Instance) -> Row:
    values = instance.header.values
    referring = values.get("ReferringPhysicianName")
    return {
        **_attributes(instance, Level.STUDY),
        **_common(instance),
        "study_instance_uid": instance.header.study_instance_uid,
        "study_moment": date_time_key(values.get("StudyDate", ""), values.get("StudyTime", "")),
        "referring_physician_name_key": "\n".join(name_groups(referring)) if referring else None,
    }


def _series_row(instance: Instance) -> Row:
    return {
        **_attributes(instance, Level.SERIES),
        **_common(instance),
        "series_instance_uid": instance.header.series_instance_uid,
    }


def _instance_row(instance: Instance) -> Row:
    place, form = instance.place, instance.form
    return {
        **_attributes(instance, Level.IMAGE),
        "registrant": instance.provenance.registrant,
        "sop_instance_uid": instance.header.sop_instance_uid,
        "sop_class_uid": instance.header.sop_class_uid,
        "object_id": place.object_id,
        "digest": instance.digest,
        "transfer_syntax_uid": instance.transfer_syntax_uid,
        "place": place.name,
        "size_bytes": place.size_bytes,
        "data_set_offset": place.data_set_offset,
        "received_utc": _utc(instance.provenance.received_utc),
        "source_ae_title": instance.provenance.source_ae_title,
        "form_digest": None if form is None else form.digest,
        "original_syntax_uid": None if form is None else form.original_syntax_uid,
        "original_bytes": None if form is None else form.original_bytes,
    }
