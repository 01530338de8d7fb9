"""Which instances a retrieve delivers. Visibility and deletions are part of the query."""

import re
from collections.abc import Sequence
from functools import lru_cache

from pydicom.uid import UID

from pacs.core.caller import Visibility
from pacs.core.forms import Form
from pacs.core.identifiers import (
    Digest,
    ObjectId,
    Registrant,
    SeriesInstanceUID,
    SOPClassUID,
    SOPInstanceUID,
    StudyInstanceUID,
    TransferSyntaxUID,
)
from pacs.core.records import Bounded, Denser, Held, Instance, Place, Selection
from storage.database.connection import Database
from storage.database.visibility import Sight

_FROM = (
    "FROM instance i JOIN series e ON e.id = i.series_row JOIN study s ON s.id = e.study_row "
    "JOIN patient p ON p.id = s.patient_row WHERE i.delivered = 1 AND i.deleted_by IS NULL"
)
HELD = (
    "SELECT i.registrant, s.study_instance_uid, e.series_instance_uid, i.sop_class_uid, "
    "i.sop_instance_uid, i.transfer_syntax_uid, i.digest, i.place, i.object_id, i.size_bytes, "
    "i.data_set_offset, i.form_digest, i.original_syntax_uid, i.original_bytes "
    "FROM instance i JOIN series e ON e.id = i.series_row "
    "JOIN study s ON s.id = e.study_row "
)
_VERSIONS = (
    f"{HELD} JOIN patient p ON p.id = s.patient_row "
    "WHERE i.sop_instance_uid = ? AND i.deleted_by IS NULL "
    "AND e.series_instance_uid = ? AND s.study_instance_uid = ? "
    "AND p.registrant = ? AND p.patient_id = ? AND p.issuer_of_patient_id = ? "
    "AND p.lone_study_uid = ? ORDER BY i.object_id"
)
_PARAMETERS_A_QUERY = 500
_PLAIN = re.compile("[1-9][0-9]{0,8}")
_IMAGES = (
    "Image Storage",
    "Segmentation Storage",
    "Parametric Map",
    "Topography Map",
    "Thickness Map",
    "Volume Analysis",
)
_NO_IMAGES = frozenset({"Surface Segmentation Storage"})
"""Parts of the names of PS3.6 Table A-1."""

Chosen = tuple[int, SOPClassUID, TransferSyntaxUID]


class DatabaseRetrieveIndex:
    """``pacs.core.ports.RetrieveIndex``, and what ingest asks outside its transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def is_ambiguous(self, selection: Selection, visibility: Visibility) -> bool:
        """Tell whether one patient or study asked for belongs to several registrants."""
        where, params = self._where(selection, visibility)
        asked = "s.study_instance_uid" if _names_studies(selection) else "p.patient_id"
        rows = self._database.execute(
            f"SELECT 1 {_FROM}{where} GROUP BY {asked} "
            "HAVING COUNT(DISTINCT i.registrant) > 1 LIMIT 1",
            params,
        )
        return any(rows)

    def select(self, selection: Selection, visibility: Visibility, limit: int) -> Sequence[Chosen]:
        """Row, class and stored syntax of each instance to deliver; at most ``limit`` + 1."""
        where, params = self._where(selection, visibility)
        rows = self._database.execute(
            f"SELECT i.id, i.sop_class_uid, i.transfer_syntax_uid {_FROM}{where} "
            "ORDER BY s.id, e.id, i.object_id LIMIT ?",
            [*params, limit + 1],
        )
        return [(int(row[0]), SOPClassUID(row[1]), TransferSyntaxUID(row[2])) for row in rows]

    def select_within(
        self, selection: Selection, visibility: Visibility, limit: int, max_matrix: int
    ) -> Bounded:
        """As ``select``, and which of them have more Rows or Columns than ``max_matrix``."""
        where, params = self._where(selection, visibility)
        rows = self._database.execute(
            "SELECT i.id, i.sop_class_uid, i.transfer_syntax_uid, "
            f'i.object_id, i.sop_instance_uid, i."rows", i."columns" {_FROM}{where} '
            "ORDER BY s.id, e.id, i.object_id LIMIT ?",
            [*params, limit + 1],
        )
        chosen: list[Chosen] = []
        denser: dict[int, Denser] = {}
        unmeasured: list[SOPInstanceUID] = []
        for row, sop_class, syntax, object_id, sop, *sides in rows:
            side_px = _greater(str(sop_class), sides)
            if side_px is None:
                unmeasured.append(SOPInstanceUID(sop))
                continue
            if side_px > max_matrix:
                denser[int(row)] = Denser(object_id=ObjectId(str(object_id)), side_px=side_px)
            chosen.append((int(row), SOPClassUID(sop_class), TransferSyntaxUID(syntax)))
        return Bounded(chosen=chosen, denser=denser, unmeasured=unmeasured)

    def fetch(self, rows: Sequence[int]) -> Sequence[Held]:
        """Read those rows in that order; one that has been deleted meanwhile is left out."""
        found: dict[int, Held] = {}
        for start in range(0, len(rows), _PARAMETERS_A_QUERY):
            some = rows[start : start + _PARAMETERS_A_QUERY]
            marks = ", ".join("?" * len(some))
            sql = HELD.replace("SELECT ", "SELECT i.id, ", 1)
            for row in self._database.execute(
                f"{sql} WHERE i.deleted_by IS NULL AND i.id IN ({marks})", some
            ):
                found[int(row[0])] = as_held(row[1:])
        return [found[row] for row in rows if row in found]

    def has_object(self, object_id: ObjectId) -> bool:
        """Tell whether rows of this kept file are committed. Raises ``RecordsFailed``."""
        return any(
            self._database.execute("SELECT 1 FROM instance WHERE object_id = ?", (object_id,))
        )

    def is_committed(self, instance: Instance) -> bool:
        """Tell whether the rows of this very file are there, once nobody is committing them any more.

        A PostgreSQL server may still be at a commit whose connection is gone:
        its locks on the instance's UIDs say so. Raises ``RecordsFailed`` when
        nobody answers in time.
        """
        object_id = instance.place.object_id
        if self._database.dialect == "sqlite":
            return self.has_object(object_id)
        turns = "FROM (SELECT unnest(?::text[]) AS uid ORDER BY 1) AS uids"
        with self._database.connection():
            taken = f"SELECT pg_advisory_lock(hashtextextended(uid, 0)) {turns}"
            list(self._database.execute(taken, (turns_of(instance),)))
            try:
                return self.has_object(object_id)
            finally:
                given = f"SELECT pg_advisory_unlock(hashtextextended(uid, 0)) {turns}"
                list(self._database.execute(given, (turns_of(instance),)))

    def versions(self, instance: Instance) -> Sequence[Held]:
        """List what is held under the same registrant, patient, series and SOP Instance UID."""
        header = instance.header
        return [
            as_held(row)
            for row in self._database.execute(
                _VERSIONS,
                (
                    header.sop_instance_uid,
                    header.series_instance_uid,
                    header.study_instance_uid,
                    instance.provenance.registrant,
                    header.patient_id,
                    header.issuer_of_patient_id,
                    "" if header.patient_id else header.study_instance_uid,
                ),
            )
        ]

    def _where(self, selection: Selection, visibility: Visibility) -> tuple[str, list[object]]:
        """Turn a selection into the rest of a WHERE clause that begins with AND."""
        clauses, params = _asked(selection)
        if not visibility.everything or visibility.modalities is not None:
            sight = Sight(visibility, self._database.dialect)
            seen = sight.series("i" if sight.by_registrant else "e")
            clauses += f" AND {seen.text}"
            params.extend(seen.params)
        return clauses, params


def turns_of(instance: Instance) -> list[str]:
    """The UIDs whose transactions take turns, in the order in which their locks are taken."""
    header = instance.header
    uids = {header.study_instance_uid, header.series_instance_uid, header.sop_instance_uid}
    return sorted(map(str, uids))


def as_held(row: Sequence[object]) -> Held:
    """Make the record of a row selected in the order of ``HELD``."""
    registrant, study, series, sop_class, sop, syntax, digest, name, object_id = map(str, row[:9])
    return Held(
        registrant=Registrant(registrant),
        study_instance_uid=StudyInstanceUID(study),
        series_instance_uid=SeriesInstanceUID(series),
        sop_class_uid=SOPClassUID(sop_class),
        sop_instance_uid=SOPInstanceUID(sop),
        transfer_syntax_uid=TransferSyntaxUID(syntax),
        digest=Digest(digest),
        place=Place(
            name=name,
            object_id=ObjectId(object_id),
            size_bytes=int(str(row[9])),
            data_set_offset=int(str(row[10])),
        ),
        form=_form(row[11:14]),
    )


def _greater(sop_class: str, sides: Sequence[object]) -> int | None:
    """Give the greater of Rows and Columns, 0 for what has none; ``None`` where that is not known.

    A value that is no number says nothing of the pixels: bytes under another VR than US are there.
    """
    texts = [str(one) for one in sides if one]
    if all(map(_PLAIN.fullmatch, texts)) and (len(texts) == len(sides) or not _is_image(sop_class)):
        return max(map(int, texts), default=0)
    return None


@lru_cache(maxsize=1_024)
def _is_image(sop_class: str) -> bool:
    """Tell whether all objects of a class have pixels. Private ones are told by what they have."""
    name = UID(sop_class).name
    return any(one in name for one in _IMAGES) and name not in _NO_IMAGES


def _form(row: Sequence[object]) -> Form | None:
    digest, syntax, size_bytes = row
    if digest is None:
        return None
    return Form(
        digest=Digest(str(digest)),
        original_syntax_uid=TransferSyntaxUID(str(syntax)),
        original_bytes=int(str(size_bytes)),
    )


def _names_studies(selection: Selection) -> bool:
    return bool(
        selection.study_instance_uids
        or selection.series_instance_uids
        or selection.sop_instance_uids
    )


def _asked(selection: Selection) -> tuple[str, list[object]]:
    clauses: list[str] = []
    params: list[object] = []
    for column, value in (
        ("p.patient_id", selection.patient_id),
        ("p.issuer_of_patient_id", selection.issuer_of_patient_id),
    ):
        if value is not None:
            clauses.append(f" AND {column} = ?")
            params.append(value)
    for column, values in (
        ("s.study_instance_uid", selection.study_instance_uids),
        ("e.series_instance_uid", selection.series_instance_uids),
        ("i.sop_instance_uid", selection.sop_instance_uids),
    ):
        if values:
            clauses.append(f" AND {column} IN ({', '.join('?' * len(values))})")
            params.extend(values)
    return "".join(clauses), params
