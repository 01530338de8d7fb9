"""What changing contracts asks of the rows they are kept in, and the facts only administration needs.

The rows of one change are one transaction, its first write the ``revision``: two
changes never interleave, and every process sees all of one or nothing of it.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from pacs.core.caller import Certificate, Right, SubscriberName
from pacs.core.contract import Contract, User
from pacs.core.identifiers import AETitle, SOPClassUID
from pacs.core.records import Peer


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """One change of a contract: when, by whom, what and why. Never a passcode, never a code."""

    at_utc: datetime
    subscriber: SubscriberName
    who: str
    what: str
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """How a device introduced itself when it enrolled."""

    ae_title: AETitle
    called_ae_title: AETitle
    address: str
    tls: bool
    certificate: Certificate | None
    sop_classes: tuple[SOPClassUID, ...]
    at_utc: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentCode:
    """What is kept of an enrolment code: nothing it could be told from. ``until_utc`` is exclusive."""

    id: int
    digest: str
    rights: frozenset[Right]
    until_utc: datetime | None
    uses_left: int
    added_utc: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolled:
    """Where a contract came from, if a device enrolled itself: by which code, and what it proposed."""

    subscriber: SubscriberName
    code: int
    proposal: Proposal


class ContractReads(Protocol):
    """What can be asked, within a change or outside of one."""

    def list(self) -> Sequence[Contract]:
        """All contracts by name."""
        ...

    def find(self, name: str) -> Contract | None:
        """The contract of that name, as committed now."""
        ...

    def users(self, subscriber: str | None = None) -> Sequence[User]:
        """The users of one subscriber, or all, by name."""
        ...

    def peers(self, subscriber: str) -> Sequence[Peer]:
        """The peers of one subscriber by AE title."""
        ...

    def peer(self, ae_title: AETitle) -> Peer | None:
        """The peer of that AE title, whosever it is."""
        ...

    def enrolled(self, name: str) -> Enrolled | None:
        """How a contract came to be, where a device enrolled itself."""
        ...

    def codes(self) -> Sequence[EnrolmentCode]:
        """All enrolment codes, oldest first."""
        ...

    def pending(self) -> Sequence[int]:
        """The code of each device that enrolled itself and waits."""
        ...

    def count(self) -> int:
        """How many contracts there are."""
        ...

    def grantees(self, owner: str) -> Sequence[SubscriberName]:
        """Whose contracts have an agreement that names ``owner``, by name."""
        ...

    def namesake(self, name: str) -> SubscriberName | None:
        """The contract of that name, whatever its capitals."""
        ...

    def holds_images(self, name: str) -> bool:
        """Tell whether anything is held under that name, what is deleted but not removed yet included."""
        ...


class ContractUnit(ContractReads, Protocol):
    """One change; committed together, or nothing is."""

    def put(self, contract: Contract) -> None:
        """Write a contract, whole."""
        ...

    def rename(self, old: SubscriberName, new: SubscriberName) -> None:
        """Give a contract that holds no images another name, with all that is its own."""
        ...

    def remove(self, name: SubscriberName) -> None:
        """Remove a contract with its users and peers, and what others agreed about it."""
        ...

    def put_user(self, user: User) -> None:
        """Write a user."""
        ...

    def remove_user(self, name: str) -> None:
        """Remove a user."""
        ...

    def put_peer(self, peer: Peer) -> None:
        """Write a peer."""
        ...

    def remove_peer(self, ae_title: AETitle) -> None:
        """Remove a peer."""
        ...

    def enrol(self, enrolled: Enrolled) -> None:
        """Say that a contract was made for a device that enrolled itself, and count one use of its code."""
        ...

    def add_code(
        self, *, digest: str, rights: frozenset[Right], until_utc: datetime | None, uses: int
    ) -> int:
        """Keep a code; gives its number."""
        ...

    def remove_code(self, number: int) -> bool:
        """Forget a code; ``False`` where there is none of that number."""
        ...

    def note(self, entry: HistoryEntry) -> None:
        """Add to the history; nothing ever takes away from it."""
        ...


class ContractRows(ContractReads, Protocol):
    """Where contracts are kept."""

    def change(self) -> AbstractContextManager[ContractUnit]:
        """Begin a change; committed durably at the end of the block. Raises ``RecordsFailed``."""
        ...

    def history(self, subscriber: str) -> Sequence[HistoryEntry]:
        """What was ever changed under that name, oldest first."""
        ...

    def held(self, subscriber: str) -> tuple[int, int]:
        """How many files are held under that name, and their bytes."""
        ...
