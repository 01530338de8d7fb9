"""Ports: what one room asks of another. ``pacs.app`` joins them.

A port states its promises; ``tests/contracts`` holds every implementation to
them.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import BinaryIO, Final, Protocol

from pacs.core.attributes import Level
from pacs.core.caller import Caller, Candidate, Right, Visibility
from pacs.core.conditions import Condition, Found
from pacs.core.events import Event
from pacs.core.identifiers import (
    Digest,
    ObjectId,
    SOPClassUID,
    SOPInstanceUID,
    StudyInstanceUID,
    TransferSyntaxUID,
)
from pacs.core.records import (
    Arrival,
    Bounded,
    Held,
    IncomingMeta,
    Instance,
    Job,
    Place,
    Selection,
    Snapshot,
)
from pacs.core.usage import Usage

# --- the gate and the record of what passed it --------------------------------


class Gate(Protocol):
    """Decides who may associate and what a caller may do. Asked once per association and per request."""

    def admit(self, candidate: Candidate) -> Caller:
        """Resolve who asks. Raises ``AdmissionRefused``."""
        ...

    def allow(self, caller: Caller, right: Right, purpose: str = "") -> Caller:
        """Give the caller as its contract stands now, under the purpose its request states.

        Raises ``NotAuthorized`` where the contract does not grant ``right``, or knows no such purpose.
        """
        ...

    def stands(self, caller: Caller) -> bool:
        """Tell whether an association of this caller may go on."""
        ...


ATTEMPT: Final = "attempt"
"""Under it one name counts at one place."""
USER: Final = "user"
"""Under it one name counts wherever it is tried."""


class Failures(Protocol):
    """Counts failed identities, of all processes that admit peers on this node together.

    A key begins with what is counted, and a blank: ``attempt``, ``user``, else a place, which is an
    ``address`` or a ``device``. How many are too many differs by that.
    """

    def blocked(self, key: str) -> bool:
        """Tell whether so many failed under ``key`` lately that the next is refused unseen."""
        ...

    def note(self, key: str) -> None:
        """Count one more under ``key``."""
        ...


class AuditTrail(Protocol):
    """Keeps what happened, for every access. Never raises, never blocks a store."""

    def record(self, event: str, caller: Caller | None, **details: object) -> None:
        """Note one event; ``details`` are identifiers and counts, never patient data."""
        ...


class Snapshots(Protocol):
    """Hands out the frozen state that admins change while serving."""

    def current(self) -> Snapshot:
        """A snapshot at most one second old."""
        ...

    def newest(self) -> Snapshot:
        """The snapshot as it stands now: for a job that may have been asked for a moment ago."""
        ...


# --- storage --------------------------------------------------------------------


class Incoming(Protocol):
    """One Part 10 file being received on the store's volume, hashed as written.

    Leaving the ``with`` block without ``keep`` removes it. ``write`` never
    raises: the first failure is remembered and raised by ``finish``, so that
    the association can drain the message and answer it.
    """

    meta: IncomingMeta

    def write(self, piece: memoryview) -> None:
        """Append a piece of the Data Set as it travelled."""
        ...

    def finish(self) -> Digest:
        """End the Data Set and give its digest.

        Raises ``CapacityExhausted``, ``InstanceTooLarge`` or ``StorageFailed``,
        whichever happened first while writing.
        """
        ...

    def open_data_set(self) -> BinaryIO:
        """Read what was written, from the first byte of the Data Set."""
        ...

    @property
    def data_set_bytes(self) -> int:
        """Length of the Data Set received so far."""
        ...

    @property
    def arrival_path(self) -> str:
        """File system path while it arrives."""
        ...

    def place(self, study: StudyInstanceUID) -> Place:
        """Where ``keep`` will put the file."""
        ...

    def keep(self, study: StudyInstanceUID) -> Place:
        """Give the file its final name. When this returns, it survives power loss.

        Raises ``CapacityExhausted`` or ``StorageFailed``; then nothing is kept.
        """
        ...

    def settle(self) -> None:
        """Say that the rows are committed: the file is no longer on its way."""
        ...

    def discard(self) -> None:
        """Remove the file, kept or not: nobody was told that it is safe."""
        ...

    def __enter__(self) -> "Incoming": ...
    def __exit__(self, *exc_info: object) -> None: ...


class Coming(Protocol):
    """One Data Set that a peer sends us because we asked for it, while it arrives."""

    def write(self, piece: memoryview) -> None:
        """Append a piece as it travelled. Never raises: the first failure shows in ``take``."""
        ...

    def take(self) -> None:
        """Keep it, all of it. Raises what went wrong, a ``PacsError``; the peer is told then.

        ``PeerUnreachable`` ends the association instead.
        """
        ...

    def __exit__(self, *exc_info: object) -> None: ...


Receiver = Callable[[SOPClassUID, SOPInstanceUID, TransferSyntaxUID], Coming]
"""Begins one Data Set of a C-GET. Whoever gets it takes it or leaves it, and leaves it in any case."""


class Spool(Protocol):
    """Where instances land while they arrive."""

    def incoming(self, meta: IncomingMeta) -> Incoming:
        """Begin a file. Raises nothing: a failure shows at ``finish``."""
        ...


class InstanceStore(Spool, Protocol):
    """Where the bytes of instances live."""

    def open(self, place: Place) -> BinaryIO:
        """Open a kept file, a real one, so that it can be sent without copying. Raises ``InstanceNotFound``."""
        ...

    def open_data_set(self, place: Place) -> BinaryIO:
        """Open a kept file from the first byte of its Data Set. Raises ``InstanceNotFound``."""
        ...

    def path(self, place: Place) -> str:
        """File system path of a kept file."""
        ...

    def verify(self, place: Place, digest: Digest) -> None:
        """Re-read the Data Set. Raises ``InstanceCorrupt`` or ``InstanceNotFound``."""
        ...

    def check(self, path: str, digest: Digest) -> None:
        """Read any file from its first byte. Raises ``InstanceCorrupt`` unless it has that digest."""
        ...

    def remove(self, place: Place) -> None:
        """Remove a kept file; one that is gone already is no error."""
        ...

    def places(self) -> Iterator[Place]:
        """Walk all kept files, oldest object id first."""
        ...

    def strays(self) -> Iterator[str]:
        """Walk what lies in the tree under names this archive never gave."""
        ...

    def read_meta(self, place: Place) -> tuple[IncomingMeta, Digest]:
        """Read back what the file says of itself and the digest in its name. Raises ``InstanceCorrupt``."""
        ...

    def unsettled(self) -> Iterator[Place | None]:
        """At start: each file that was on its way when the process ended; none of processes that run.

        Yields its place where it was kept already (then rows may or may not
        exist), ``None`` where it was not; either way the caller's next step
        removes the arrival mark.
        """
        ...

    def is_arriving(self, object_id: ObjectId) -> bool:
        """Tell whether this file is on its way: kept perhaps, its rows not yet committed."""
        ...

    def free_bytes(self) -> int:
        """Bytes that may still be stored above the reserve."""
        ...


class Unit(Protocol):
    """One transaction. Everything in it is committed together, or nothing is."""

    def add_instance(self, instance: Instance) -> bool:
        """Insert the rows of an instance; ``False`` where the same digest is held already in the same series."""
        ...

    def holds_digest(self, instance: Instance) -> bool:
        """Tell whether this very Data Set is held, visible, under the same UIDs and registrant."""
        ...

    def versions(self, instance: Instance) -> Sequence[Held]:
        """List what is held under the same registrant, series and SOP Instance UID, oldest first."""
        ...

    def came_again(self, instance: Instance, held: Sequence[Held]) -> bool:
        """Note that what these files hold came once more, and under which AE title.

        ``False``, and nothing is noted, where one of them has been deleted meanwhile.
        """
        ...

    def record_usage(self, usage: Usage) -> None:
        """Note a fact for accounting; one whose kind and key are noted already counts no second time."""
        ...

    def enqueue(self, job: Job) -> None:
        """Insert a job row; one with a ``unique_key`` that is waiting already is not doubled.

        One that waits is not begun before this transaction is committed, so it sees its effects;
        it is left as it is, or brought forward to now by a job that ``hastens``.
        """
        ...

    def wake(self, queue: str) -> None:
        """Have workers told, once this is committed, of a queue in which a job may go on."""
        ...

    def post(self, event: Event) -> int:
        """Insert an event, to be delivered once this is committed; gives its number.

        Raises ``EventTooLarge`` or ``OutboxFull``.
        """
        ...


class Records(Protocol):
    """The database. ``with records.transaction() as unit`` is the only way to write."""

    def transaction(self) -> AbstractContextManager[Unit]:
        """Begin; commits durably at the end of the block. Raises ``RecordsFailed``."""
        ...


ArrivalRule = Callable[[Arrival, Snapshot], Iterable[Job]]
"""A pure function, asked for every arrival; see ``Attached.on_arrival``."""

RepeatRule = Callable[[Arrival, Snapshot], Sequence[Job] | None]
"""A pure function, asked where what arrives is held already; ``None`` where that is nothing to it."""


class RetrieveIndex(Protocol):
    """Finds what a retrieve asks for. Visibility is applied in the query."""

    def is_ambiguous(self, selection: Selection, visibility: Visibility) -> bool:
        """Tell whether one patient or study asked for belongs to several registrants."""
        ...

    def select(
        self, selection: Selection, visibility: Visibility, limit: int
    ) -> Sequence[tuple[int, SOPClassUID, TransferSyntaxUID]]:
        """Row, class and stored syntax of each instance to deliver, series by series; at most ``limit`` + 1."""
        ...

    def select_within(
        self, selection: Selection, visibility: Visibility, limit: int, max_matrix: int
    ) -> Bounded:
        """As ``select``, and which of them have more Rows or Columns than ``max_matrix``.

        What has neither and is of no class of images is within any bound. At most ``limit`` + 1 in all.
        """
        ...

    def fetch(self, rows: Sequence[int]) -> Sequence[Held]:
        """Read those rows; one that has been deleted meanwhile is left out."""
        ...


# --- finding ----------------------------------------------------------------------


class FindIndex(Protocol):
    """Answers C-FIND. Every read is short: no reader stays open between two calls."""

    def candidates(
        self,
        level: Level,
        conditions: Sequence[Condition],
        visibility: Visibility,
        *,
        limit: int,
    ) -> Sequence[int]:
        """List the row numbers, ascending, of at most ``limit`` entities that keep all conditions.

        No entity that keeps them is left out below the limit, none is listed
        twice, and what ``visibility`` hides or a deletion took is never listed.
        """
        ...

    def rows(
        self,
        level: Level,
        rows: Sequence[int],
        wanted: frozenset[str],
        visibility: Visibility,
    ) -> Iterator[Found]:
        """Give what is held under these row numbers, ascending, with the wanted keywords' values.

        Rows that are gone by now are left out.
        """
        ...
