"""What performing workitems is done with: ports of the services beside it, and the payloads of its jobs."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final, Protocol

from pydicom.dataset import Dataset

from config.settings import Process
from pacs.core.caller import Caller
from pacs.core.identifiers import (
    AETitle,
    ObjectId,
    Registrant,
    SeriesInstanceUID,
    StudyInstanceUID,
)
from pacs.core.journal import JournalEntry
from pacs.core.ports import AuditTrail, RetrieveIndex, Snapshots, Unit
from pacs.core.process_results import ResultTable
from pacs.core.processing import OperationFact, Processor
from pacs.core.records import Job
from pacs.core.workitems import WorkitemState, WorkitemUID
from pacs.services.process.computing import Computing
from pacs.services.process.fetching import Fetching
from pacs.services.process.standing import Creator
from pacs.services.process.words import queue_of

WORKITEM: Final = "process.workitem"
PIECE: Final = "process.piece"
DELIVER: Final = "process.deliver"
PURGE: Final = "process.purge"
SETTLE: Final = "process.settle"

# --- the services beside it ----------------------------------------------------------------

OnCreated = Callable[[Caller, WorkitemUID, Dataset], Iterable[Job]]
"""Asked in the transaction that creates a workitem; its jobs are enqueued in it."""

OnReady = Callable[[Unit, WorkitemUID], None]
"""Told in the transaction that makes the input of a SCHEDULED workitem READY."""


class Workitem(Protocol):
    """A workitem as it stands."""

    @property
    def registrant(self) -> Registrant: ...
    @property
    def state(self) -> WorkitemState: ...
    @property
    def cancel_asked(self) -> bool: ...
    @property
    def transaction_uid(self) -> str: ...
    @property
    def data_set(self) -> Dataset: ...


class Workitems(Protocol):
    """The worklist, as any performer uses it; see ``pacs.services.workitems``."""

    def add_on_created(self, hook: OnCreated, /) -> None: ...
    def add_on_ready(self, hook: OnReady, /) -> None: ...
    def read(self, uid: WorkitemUID, /) -> Workitem: ...
    def claim(self, caller: Caller, uid: WorkitemUID, transaction_uid: str, /) -> object: ...
    def modify(
        self, caller: Caller, uid: WorkitemUID, transaction_uid: str, modifications: Dataset, /
    ) -> object: ...
    def complete(self, caller: Caller, uid: WorkitemUID, transaction_uid: str, /) -> object: ...
    def cancel(self, caller: Caller, uid: WorkitemUID, transaction_uid: str, /) -> object: ...
    def abandon(self, caller: Caller, uid: WorkitemUID, request: Dataset, /) -> object: ...


class Deleting(Protocol):
    """The journalled deletion; see ``pacs.services.delete``."""

    def give_up(
        self,
        caller: Caller,
        chosen: Callable[[], Sequence[ObjectId]],
        *,
        reason: str,
        about: dict[str, str],
    ) -> tuple[JournalEntry | None, int]: ...


class Cancelling(Protocol):
    """The administration of jobs; see ``pacs.services.job``."""

    def cancel(self, caller: Caller, job: int) -> object: ...


class SentRecord(Protocol):
    """What is known of instances at destinations; see ``storage.database.forward``."""

    def forget(
        self,
        destination: AETitle,
        registrant: Registrant,
        study: StudyInstanceUID,
        series: SeriesInstanceUID | None = None,
    ) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """All of it."""

    workitems: Workitems
    processor: Processor
    operations: Sequence[OperationFact]
    index: RetrieveIndex
    computing: Computing
    fetching: Fetching
    results: ResultTable
    snapshots: Snapshots
    deletions: Deleting
    sent: SentRecord
    jobs: Cancelling
    audit: AuditTrail
    settings: Process
    ae_title: AETitle
    threads: int = 1
    """How many images of a piece are computed at once."""


# --- payloads --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkitemWork:
    """See a workitem through. ``transaction_uid`` is what it is claimed with, by this job and no other.

    Without a key: asked for once, where the workitem is made; a later one of that UID is another.
    """

    uid: str
    transaction_uid: str
    creator: Creator
    made: datetime

    def job(self, *, group: str, priority: int, not_before_utc: datetime | None) -> Job:
        """The job that does it."""
        return Job(
            kind=WORKITEM,
            payload=_encoded(self),
            queue=queue_of(group),
            priority=priority,
            not_before_utc=not_before_utc,
            cause=f"workitem {self.uid}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LotWork:
    """What is computed at once: rows of the index, and the series results go to."""

    rows: tuple[int, ...]
    series_instance_uid: str
    part: int = 0
    parts: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PieceWork:
    """Compute and hold some of a workitem's results of one study: piece ``number`` of ``pieces``.

    ``digest`` is of its sources as they were when it was cut.
    """

    uid: str
    session: str
    number: int
    pieces: int
    key: str
    registrant: str
    study_instance_uid: str
    operation: str
    version: str
    parameters: dict[str, str]
    series_description: str
    made: datetime
    digest: str
    lots: tuple[LotWork, ...]
    expires_utc: datetime | None = None

    def job(self, *, group: str, priority: int = 0) -> Job:
        """The job that does it; a part of the workitem's."""
        return Job(
            kind=PIECE,
            payload=_encoded(self),
            queue=queue_of(group),
            priority=priority,
            cause=f"piece {self.number + 1} of {self.pieces} of workitem {self.uid}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliverWork:
    """Send the results of ``session`` on and end the workitem; ``reused`` where they were there before."""

    uid: str
    transaction_uid: str
    creator: Creator
    session: str
    reused: bool = False

    def job(self) -> Job:
        """The job that does it."""
        return Job(
            kind=DELIVER,
            payload=_encoded(self),
            queue=queue_of(""),
            unique_key=f"{DELIVER}:{self.uid}",
            cause=f"results of workitem {self.uid}",
        )


def _encoded(payload: WorkitemWork | PieceWork | DeliverWork) -> str:
    return json.dumps(asdict(payload), default=_iso, separators=(",", ":"))


def _iso(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} cannot be written")
