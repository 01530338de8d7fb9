"""Ports of workitems: their rows, and those of who watches them. PS3.4 Annex CC.

Everything that writes does so within ``Records.transaction()`` of the same
thread, together with the events that tell of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from pacs.core.events import Addressee
from pacs.core.identifiers import AETitle, Registrant
from pacs.core.workitems import WorkitemState, WorkitemUID


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkitemRow:
    """A workitem as kept. ``data_set`` is in Explicit VR Little Endian.

    ``performer`` is the AE title it was claimed by, empty for a performer of our own.
    ``ordered_by`` says in whose name jobs of ours do what it orders, empty where none do.
    """

    number: int
    uid: WorkitemUID
    registrant: Registrant
    state: WorkitemState
    transaction_uid: str = field(default="", repr=False)
    performer: AETitle = AETitle("")
    cancel_asked: bool = False
    ordered_by: str = ""
    data_set: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkitemFact:
    """A workitem as an admin sees it listed: nothing of the patient."""

    uid: WorkitemUID
    registrant: Registrant
    state: WorkitemState
    label: str
    worklist: str
    code: str | None
    performer: AETitle
    cancel_asked: bool
    created_utc: datetime
    changed_utc: datetime
    ended_utc: datetime | None
    watchers: int
    locks: int
    size_bytes: int


NARROWING = ("patient_id", "priority", "readiness", "worklist", "label", "code", "station", "start")
"""Columns beside the Data Set that queries are narrowed by; ``None`` in one says: look inside."""

Columns = Mapping[str, str | None]
"""A value for each of ``NARROWING``, empty for an attribute without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrow:
    """What a row must have to be worth a look: one of ``values``, or what lies from ``low`` to ``high``."""

    column: str
    values: frozenset[str] = frozenset()
    low: str = ""
    high: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Who is told of a workitem, and whether it must be kept until they let it go."""

    addressee: Addressee
    deletion_lock: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class GlobalWatch:
    """Who is told of every new workitem of a subscriber, or of those that match ``keys`` (encoded)."""

    addressee: Addressee
    deletion_lock: bool
    keys: bytes = field(default=b"", repr=False)


class WorkitemRows(Protocol):
    """Workitems by UID."""

    def now(self) -> datetime:
        """The time all nodes agree on."""
        ...

    def insert(self, row: WorkitemRow, columns: Columns) -> int | None:
        """Add one, and give its number; ``None`` where the UID is taken. Its number is not in ``row``.

        Until the transaction ends nobody begins or ends watching everything.
        """
        ...

    def counts(self, registrant: Registrant) -> tuple[int, int]:
        """How many workitems there are of this subscriber, and in all."""
        ...

    def find(self, uid: WorkitemUID) -> WorkitemRow | None:
        """Give one as it is committed."""
        ...

    def locked(self, uid: WorkitemUID) -> WorkitemRow | None:
        """Give one that nobody else changes until this transaction ends."""
        ...

    def update(self, row: WorkitemRow, columns: Columns | None = None) -> None:
        """Write one that was ``locked``; ``columns`` where its Data Set has changed."""
        ...

    def delete(self, number: int) -> None:
        """Remove one and who watches it."""
        ...

    def candidates(
        self, registrant: Registrant | None, narrow: Sequence[Narrow], limit: int
    ) -> Sequence[int]:
        """Numbers, ascending, of at most ``limit`` workitems; ``None`` is of all subscribers."""
        ...

    def page(self, numbers: Sequence[int], *, locked: bool = False) -> Sequence[WorkitemRow]:
        """Give those of a page that are still there, ascending; ``locked`` as ``locked`` gives one."""
        ...

    def facts(self, state: WorkitemState | None, limit: int) -> Sequence[WorkitemFact]:
        """List workitems, the newest first."""
        ...

    def over(self, before: datetime, limit: int) -> Sequence[WorkitemUID]:
        """Name workitems that ended before then and that nobody holds by a deletion lock."""
        ...


class WatchRows(Protocol):
    """Who watches what."""

    def alone(self) -> None:
        """Let nobody add a workitem until this transaction ends."""
        ...

    def watches(self, number: int) -> Sequence[Watch]:
        """Who watches a workitem."""
        ...

    def watch(self, number: int, watch: Watch) -> None:
        """Watch a workitem, or change the lock."""
        ...

    def unwatch(self, number: int, addressee: Addressee) -> None:
        """Watch a workitem no more."""
        ...

    def join(self, number: int, watch: Watch) -> bool:
        """Watch a workitem unless this AE does already; tells whether it did not."""
        ...

    def newest(self, registrant: Registrant) -> int:
        """Number of the subscriber's newest workitem, 0 without one; ``alone``, of all there will be so far."""
        ...

    def unwatched(self, addressee: Addressee, after: int, newest: int, limit: int) -> Sequence[int]:
        """Numbers, ascending, of the subscriber's workitems after one and up to one that this AE does not watch."""
        ...

    def stands(self, watch: GlobalWatch) -> bool:
        """Tell whether this AE still watches just so; it goes on until this transaction ends."""
        ...

    def everywhere(self, registrant: Registrant) -> Sequence[GlobalWatch]:
        """Who watches everything of a subscriber, or what matches."""
        ...

    def watch_all(self, watch: GlobalWatch) -> None:
        """Watch everything that comes, in place of what was watched for before."""
        ...

    def suspend(self, addressee: Addressee) -> None:
        """Watch no more of what comes."""
        ...

    def leave(self, addressee: Addressee) -> None:
        """Watch nothing any more."""
        ...

    def everybody(self) -> Sequence[Addressee]:
        """Everybody who watches anything, each once."""
        ...
