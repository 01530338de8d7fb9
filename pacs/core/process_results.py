"""What pieces of workitems gave, and the port to where that is remembered: reuse and usage are made of it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from pacs.core.identifiers import AETitle, ObjectId, Registrant, StudyInstanceUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """Results in one series, by SOP Class and Instance UID."""

    series_instance_uid: str
    instances: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PieceDone:
    """How one of ``pieces`` of a session ended, of one study, under ``key``: what was asked of what.

    ``reasons`` say why lots of it gave nothing.
    """

    session: str
    number: int
    pieces: int
    key: str
    operation: str
    registrant: Registrant
    study_instance_uid: StudyInstanceUID
    made: tuple[Made, ...]
    reasons: tuple[str, ...]
    images: int
    size_bytes: int
    duration_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenUp:
    """A job of a workitem that will not go on, while the workitem waits or is IN PROGRESS.

    ``delivers``: it was to send results on, which stand; else it was to make them.
    ``cancelled``: by an administrator, else its attempts are over.
    """

    job: int
    workitem: str
    session: str
    delivers: bool
    cancelled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """A job of an open workitem that may wait for long with nobody looking: for its parts, or for a group of nodes."""

    job: int
    workitem: str


class ResultTable(Protocol):
    """What pieces of workitems gave; see ``storage.database.process_result``."""

    def note(self, done: PieceDone) -> None:
        """Note how a piece ended, within a transaction; in place of what was noted of it."""
        ...

    def complete(self, session: str) -> None:
        """The workitem of a session is COMPLETED: what it gave stays, and may be given again."""
        ...

    def of(self, session: str) -> Sequence[PieceDone]:
        """The pieces of a session that have ended, in their order."""
        ...

    def ended(self, session: str) -> int:
        """How many pieces of a session have ended."""
        ...

    def whole(self, registrant: Registrant, key: str, newer_s: float) -> Sequence[PieceDone]:
        """The pieces of the newest completed session that did all of the same without a reason; or nothing."""
        ...

    def files(
        self, registrant: Registrant, made_by: AETitle, series: str, uids: Sequence[str]
    ) -> Sequence[ObjectId]:
        """The files under these UIDs of a series that ``made_by`` made, which are not deleted."""
        ...

    def purge(self, older_s: float) -> int:
        """Forget what ended so long ago; gives how many pieces."""
        ...

    def bring_forward(self, workitem: str) -> Collection[str]:
        """Let the job that waits to begin a workitem look at it now, within a transaction; gives its queue."""
        ...

    def idle(self, after: int, most: int) -> Sequence[Idle]:
        """Jobs with greater numbers than ``after`` that wait, by their numbers; none of which a piece runs."""
        ...

    def given_up(self, most: int) -> Sequence[GivenUp]:
        """Jobs of open workitems that ended without their end, and have no other that goes on."""
        ...
