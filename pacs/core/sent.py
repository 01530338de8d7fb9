"""What is known of an instance at a destination it is forwarded to. Facts and the port to them.

A row per instance and destination, kept by ``storage.database.forward``, so that exactly what is
missing is sent. ``pacs.services.forward`` decides what follows from it.
"""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pacs.core.identifiers import (
    AETitle,
    ObjectId,
    Registrant,
    SeriesInstanceUID,
    SOPClassUID,
    SOPInstanceUID,
    StudyInstanceUID,
)


class SentState(enum.Enum):
    """What is known of one instance at one destination."""

    SENDING = "sending"  # its run has begun it, or may have
    SENT = "sent"  # the destination said success, or a warning
    REFUSED = "refused"  # it was not taken, or cannot be given in a form the destination takes
    UNKNOWN = "unknown"  # it may have been received: the answer is lost
    UNSENT = "unsent"  # begun by us, and nothing of it has left


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One time a handler is at work for a destination. ``number`` is no other run's: the fence."""

    destination: AETitle
    job: int
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SentRow:
    """One instance that is held, and what is known of it at a destination: nothing where ``state`` is ``None``.

    ``size_bytes`` is the length of its Data Set as it is held, ``doubts`` how often its answer was lost,
    ``job`` the job that dealt with it last.
    """

    row: int
    object_id: ObjectId
    sop_class_uid: SOPClassUID
    sop_instance_uid: SOPInstanceUID
    size_bytes: int
    state: SentState | None
    job: int | None
    attempts: int
    doubts: int
    committed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """How the sending of one instance ended: ``status`` is the destination's, ``trouble`` ours where it gave none."""

    object_id: ObjectId
    state: SentState
    status: int | None = None
    trouble: str = ""


class SentTable(Protocol):
    """The record of what was forwarded. What changes it runs within the caller's transaction."""

    def of_study(
        self,
        destination: AETitle,
        registrant: Registrant,
        study: StudyInstanceUID,
        series: SeriesInstanceUID | None,
    ) -> Sequence[SentRow]:
        """Every instance of a study, or series, that is delivered now. Raises ``RecordsFailed``."""
        ...

    def doubt(self, destination: AETitle, object_ids: Sequence[ObjectId]) -> None:
        """Those still 'sending' may have been received: the run that sent them is over."""
        ...

    def begin(self, run: Run, object_ids: Sequence[ObjectId]) -> None:
        """They may be sent from now on; what was sent already stays so."""
        ...

    def settle(self, run: Run, told: Sequence[Told]) -> frozenset[ObjectId]:
        """Note how they ended; gives those that were still this run's."""
        ...

    def commit(self, destination: AETitle, object_ids: Sequence[ObjectId]) -> None:
        """The destination answers for these."""
        ...

    def disclaim(self, destination: AETitle, failed: Mapping[ObjectId, int]) -> None:
        """The destination does not answer for these, and why (Failure Reason, PS3.3 Section C.14): refused after all."""
        ...

    def holders(self, study: StudyInstanceUID) -> Sequence[Registrant]:
        """Whose instances of that study are delivered."""
        ...

    def forget(self, destination: AETitle, registrant: Registrant, study: StudyInstanceUID) -> int:
        """Let a study be sent again as if it never had been; gives of how many instances."""
        ...

    def purge(self, older_s: float) -> int:
        """Forget what was noted so long ago, and what is held no more; gives how many rows."""
        ...
