"""Ports of polling: what is asked of a peer that is polled, what it says it holds, what is remembered.

What a peer says is checked, but not believed: the index says what came.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date, datetime
from typing import Generic, Protocol, TypeVar

from pacs.core.identifiers import (
    AETitle,
    Registrant,
    SeriesInstanceUID,
    SOPClassUID,
    SOPInstanceUID,
    StudyInstanceUID,
)
from pacs.core.ports import Receiver
from pacs.core.records import Peer


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyThere:
    """A study at a peer. ``instances`` is ``None`` where the peer does not count them."""

    study_instance_uid: StudyInstanceUID
    instances: int | None = None
    sop_class_uids: tuple[SOPClassUID, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceThere:
    """An instance at a peer. ``sop_class_uid`` is ``None`` where the peer does not name it."""

    series_instance_uid: SeriesInstanceUID
    sop_instance_uid: SOPInstanceUID
    sop_class_uid: SOPClassUID | None = None
    modality: str = ""


ThereType = TypeVar("ThereType", StudyThere, InstanceThere)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed(Generic[ThereType]):
    """What a peer answered: each thing once.

    ``whole`` is ``False`` where there may be more than it said; ``odd`` counts
    the answers that could not be used; ``ignored``: a key was not supported.
    """

    there: tuple[ThereType, ...]
    whole: bool = True
    odd: int = 0
    ignored: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What one C-GET or C-MOVE asks for: a study, one of its series, or instances of that series."""

    study_instance_uid: StudyInstanceUID
    series_instance_uid: SeriesInstanceUID | None = None
    sop_instance_uids: tuple[SOPInstanceUID, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What will come, as far as the peer has said: SOP Classes, else modalities, else nothing."""

    sop_class_uids: tuple[SOPClassUID, ...] = ()
    modalities: tuple[str, ...] = ()


class PolledPeer(Protocol):
    """One association with a peer that is polled.

    Everything raises ``PeerUnreachable`` when it has ended, and ``PeerRefused``
    where the peer does nothing of that kind, or nothing for now.
    """

    def studies(
        self, day: date, filters: Sequence[tuple[str, str]], *, hour: int | None = None
    ) -> Listed[StudyThere]:
        """Ask which studies have this Study Date, and a Study Time within ``hour`` where given."""
        ...

    def instances(self, study: StudyInstanceUID) -> Listed[InstanceThere]:
        """Ask for all instances of a study, series by series."""
        ...

    def fetch(self, wanted: Wanted, cancelled: Callable[[], bool]) -> str:
        """Have what is wanted sent to us; gives the peer's last words, its Status and counters.

        What came is seen in the index, whatever the peer says. Breaks the
        association off when ``cancelled``, and raises ``PeerUnreachable``.
        """
        ...


class PolledPeers(Protocol):
    """Opens associations with peers that are polled, one at a time. Each raises as its methods."""

    def asking(self, peer: Peer) -> AbstractContextManager[PolledPeer]:
        """Open one that can ask."""
        ...

    def moving(self, peer: Peer) -> AbstractContextManager[PolledPeer]:
        """Open one on which ``fetch`` sends to our own AE title."""
        ...

    def getting(
        self, peer: Peer, expected: Expected, receiver: Receiver
    ) -> AbstractContextManager[PolledPeer]:
        """Open one on which ``fetch`` brings what is ``expected`` to ``receiver``."""
        ...


# --- what is remembered ------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class LastRun:
    """How a poll ended last: what it did the last time that it got through, and what was wrong since."""

    ended_utc: str
    result: Mapping[str, int] | None
    trouble: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyMemory:
    """A study as it was left.

    ``instances`` is the peer's count when nothing was left to ask for;
    ``due_utc`` says when there is something to try again, ``breaks`` how often
    in a row it could not be gone through.
    """

    instances: int | None = None
    due_utc: datetime | None = None
    breaks: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceMemory:
    """An instance that was here once, or that was asked for so often and did not come."""

    came: bool
    attempts: int = 0
    due_utc: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedInstance:
    """An instance that did not come, and what was wrong the last time."""

    study_instance_uid: StudyInstanceUID
    sop_instance_uid: SOPInstanceUID
    attempts: int
    trouble: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryCounts:
    """How much is remembered of one peer."""

    studies: int
    came: int
    failed: int


class Memory(Protocol):
    """What polling remembers, by the peer's AE title. Everything raises ``RecordsFailed``."""

    def held(
        self,
        registrant: Registrant,
        study: StudyInstanceUID,
        instances: Iterable[SOPInstanceUID],
    ) -> frozenset[SOPInstanceUID]:
        """Which of them are held for ``registrant``, in whatever study, or were deleted from this one."""
        ...

    def studies(
        self, ae_title: AETitle, studies: Sequence[StudyInstanceUID]
    ) -> Mapping[StudyInstanceUID, StudyMemory]:
        """What is known of these studies; it is kept for as long as they are seen."""
        ...

    def remember(self, ae_title: AETitle, study: StudyInstanceUID, memory: StudyMemory) -> None:
        """Keep this of a study, in place of what was known."""
        ...

    def instances(
        self, ae_title: AETitle, study: StudyInstanceUID
    ) -> Mapping[SOPInstanceUID, InstanceMemory]:
        """What is known of the instances of a study."""
        ...

    def note(
        self,
        ae_title: AETitle,
        study: StudyInstanceUID,
        known: Mapping[SOPInstanceUID, InstanceMemory],
        trouble: str = "",
    ) -> None:
        """Keep this of instances, in place of what was known; what came once, came."""
        ...

    def failed(self, ae_title: AETitle, limit: int) -> Sequence[FailedInstance]:
        """What a peer did not deliver when it was asked to, at most ``limit``."""
        ...

    def counts(self, ae_title: AETitle) -> MemoryCounts:
        """How much is remembered of a peer."""
        ...

    def retry(self, ae_title: AETitle, *, gone: bool) -> int:
        """Forget every failure with a peer, and where ``gone`` all that came; gives how many failures."""
        ...

    def forget(self, not_seen_since: datetime) -> int:
        """Forget the studies no peer has shown since, and their instances; gives how many studies."""
        ...
