"""Storage Commitment in archive words: what is asked, what is reported, and the ports between rooms. PS3.4 Annex J.

Facts only. What follows from a report is ``pacs.services.commitment``'s.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NewType, Protocol

from pacs.core.identifiers import AETitle, SOPClassUID, SOPInstanceUID
from pacs.core.records import Peer

PUSH_MODEL: Final = SOPClassUID("1.2.840.10008.1.20.1")
WELL_KNOWN_INSTANCE: Final = SOPInstanceUID("1.2.840.10008.1.20.1.1")
"""The one SOP Instance all transactions are about. PS3.4 Section J.3.5."""

TransactionUID = NewType("TransactionUID", str)
Reference = tuple[SOPClassUID, SOPInstanceUID]

NOT_MENTIONED: Final = 0x0000
"""In place of a Failure Reason (0008,1197): the report says nothing of the instance at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """One request: references ``first`` and following of a job, under a UID of their own."""

    uid: TransactionUID
    job: int
    ae_title: AETitle
    first: int
    references: tuple[Reference, ...] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of the references of a transaction: all that are not ``failed`` are committed."""

    failed: Mapping[SOPInstanceUID, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One transaction of a job that is not over. ``asked``: the peer has said that it took it."""

    uid: TransactionUID
    first: int
    count: int
    asked: bool
    asked_utc: datetime
    deadline_utc: datetime
    outcome: Outcome | None = None


class CommitmentRows(Protocol):
    """The record of transactions; everything raises ``RecordsFailed``."""

    def now(self) -> datetime:
        """The time all nodes agree on."""
        ...

    def begin(self, transaction: Transaction, *, deadline_s: float, keep_s: float) -> None:
        """Note a transaction, durably: its request may leave when this returns.

        Those whose time was over ``keep_s`` ago are forgotten.
        """
        ...

    def asked(self, uid: TransactionUID) -> None:
        """Note that the peer took the request."""
        ...

    def drop(self, uid: TransactionUID) -> None:
        """End one transaction: the peer did not take the request."""
        ...

    def over(self, job: int) -> None:
        """End all transactions of a job; the next one begins anew."""
        ...

    def standing(self, job: int) -> Sequence[Standing]:
        """The transactions of a job that are not over, in the order of what they are about."""
        ...

    def report(
        self,
        uid: TransactionUID,
        ae_title: AETitle,
        judge: Callable[[Sequence[Reference]], Outcome],
    ) -> Outcome:
        """Note what was reported, once, and let the job that waits for it go on, in one transaction.

        The same outcome again changes nothing. Raises ``TransactionUnknown``,
        also for one that another AE was asked for, or ``ReportContradicts``.
        """
        ...


class CommitmentAsking(Protocol):
    """An association on which transactions are asked for, and perhaps reported."""

    def ask(self, transaction: Transaction) -> int:
        """Send the request and give the peer's Status. Raises ``PeerUnreachable``."""
        ...

    def wait(self, timeout_s: float) -> bool:
        """Wait until the peer has asked something and got its answer. Raises ``PeerUnreachable``."""
        ...


class CommitmentSender(Protocol):
    """Opens associations to ask for commitment."""

    def open(self, peer: Peer) -> AbstractContextManager[CommitmentAsking]:
        """Associate. Raises ``PeerUnreachable``, ``PeerRefused`` or ``ServiceNotOffered``."""
        ...
