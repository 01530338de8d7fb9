"""What a subscriber's contract says: who it is, what it may do, whose images it may see, and for what purpose.

Frozen facts, as the ``Snapshot`` holds them. What they mean for one association
or one request is decided by the ``Gate`` and by nobody else.
"""

import enum
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

from pacs.core.caller import Candidate, Right, SubscriberName
from pacs.core.identifiers import AETitle, StudyInstanceUID

ENROL: Final = "enrol"
"""The user name under which a device that no contract knows yet introduces itself. No user has it."""

NAME_ONLY: Final = "name-only"
"""Stands where a passcode would, for a user that has none and is taken by its name; no hash is written so."""


class ContractState(enum.Enum):
    """Where a contract stands. Only an active one grants anything."""

    PENDING = "pending"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Purpose:
    """What a stated purpose bounds, whoever's images they are.

    ``modalities`` are the kinds of images that exist under it, ``None`` all.
    ``max_matrix`` is the most Rows, and the most Columns, an image may be
    delivered with; what has more is reduced on its way, whether ``Right.PROCESS``
    is granted or not: that limits what is seen. ``process`` and ``report`` say whether those rights hold
    under it.
    """

    name: str
    modalities: frozenset[str] | None = None
    max_matrix: int | None = None
    process: bool = True
    report: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Others' images a subscriber may see: all that ``owner`` registered, or one study of it.

    ``owner`` is ``None`` for the whole archive. With a ``purpose`` it holds
    only for requests made under that purpose.
    """

    owner: SubscriberName | None
    study_instance_uid: StudyInstanceUID | None = None
    purpose: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """One subscriber's contract.

    ``destinations`` are AE titles it may have images moved to, beside its own
    peers. ``purpose`` is the one its requests have unless they state another
    of its ``purposes``; empty for none. ``allocation_bytes`` is what it has
    paid for to be held: told, never a reason to refuse an image.
    """

    subscriber: SubscriberName
    state: ContractState
    reason: str = ""
    issuer_of_patient_id: str = ""
    rights: frozenset[Right] = frozenset()
    destinations: frozenset[AETitle] = frozenset()
    agreements: tuple[Agreement, ...] = ()
    purposes: tuple[Purpose, ...] = ()
    purpose: str = ""
    allocation_bytes: int | None = None
    begins_utc: datetime | None = None
    ends_utc: datetime | None = None

    def holds(self, now_utc: datetime) -> bool:
        """Tell whether it grants anything now: active, begun and not ended."""
        return (
            self.state is ContractState.ACTIVE
            and (self.begins_utc is None or self.begins_utc <= now_utc)
            and (self.ends_utc is None or now_utc < self.ends_utc)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A person or program of a subscriber, as User Identity Negotiation names it (PS3.7 D.3.3.7).

    ``passcode`` is what ``pacs.services.passcode`` made of it, empty for one that proves itself
    by a token (JSON Web Token) only, ``NAME_ONLY`` for one that a known device vouches for.
    """

    name: str
    subscriber: SubscriberName
    passcode: str = field(default="", repr=False)

    @property
    def proof(self) -> str:
        """By what it is told from others: ``passcode``, ``token`` or ``name``."""
        if self.passcode == NAME_ONLY:
            return "name"
        return "passcode" if self.passcode else "token"


class Enrolments(Protocol):
    """Takes in devices that introduce themselves; the ``Gate`` asks for it, and admits none of them."""

    def enrol(self, code: bytes, candidate: Candidate) -> SubscriberName | None:
        """Make a pending contract for a device that knows an enrolment code; give its name.

        ``None`` where the code is none, is over or used up, a bound is reached, or the calling
        AE title is a peer already. The device that came by this code before, from the same address
        with the same certificate, changes nothing and gets its name, whatever became of the
        contract since: what it may do now is said there. Raises ``RecordsFailed``.
        """
        ...
