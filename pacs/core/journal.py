"""Decisions about what is held, and the rows they are about; shared by the services that make them and the storage that keeps them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pacs.core.identifiers import ObjectId
from pacs.core.records import Held

EntryKind = Literal["delete", "restore", "deliver", "accept"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEntry:
    """One decision: who, when, why, about which kept files.

    ``about`` names the subject in archive words; ``object_ids`` are the kept
    files it concerns, so that what arrives later under the same UIDs is not
    touched.
    """

    id: ObjectId
    kind: EntryKind
    made_utc: str
    made_by: str
    reason: str
    about: Mapping[str, str]
    object_ids: Sequence[ObjectId]


STUDY = "study-of-two-patients"
SERIES = "series-of-two-studies"
INSTANCE = "instance-of-two-contents"
"""The kinds of conflict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConflictRow:
    """One conflict. ``open`` while nobody has settled it since its newest member came."""

    id: int
    kind: str
    registrant: str
    uid: str
    open: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberRow:
    """One instance that takes part in a conflict, without patient data beyond its patient's ID."""

    object_id: ObjectId
    patient_id: str
    issuer_of_patient_id: str
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    received_utc: str
    source_ae_title: str
    delivered: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One kept file that a deletion would hide."""

    object_id: ObjectId
    registrant: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletionRow:
    """One deletion that can still be undone: its journal entry and how many files it hides."""

    entry_id: str
    instances: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphan:
    """A patient, study or series whose attributes came from a file now gone, and its next earliest."""

    table: str
    row: int
    successor: Held


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexedFile:
    """One row of the index and the file it speaks of."""

    row: int
    held: Held
    deleted: bool
