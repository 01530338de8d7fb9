"""Usage: the facts accounting will price, each noted once in the transaction of what it is about.

Owns the kinds, their units and the key that makes a fact count once however often it is noted.
Refuses to know a price. Bytes are those of Data Sets: as received where they are held, as sent
where they travelled; how something is encoded at rest changes nothing of it.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import MAXYEAR, UTC, datetime
from typing import ClassVar

from pacs.core.caller import Caller, SubscriberName
from pacs.core.identifiers import AETitle, ObjectId, StudyInstanceUID


class UsageKind(enum.Enum):
    """What can be used. A value is what stands in the table."""

    REGISTER = "register"
    HOLD = "hold"
    DELIVER = "deliver"
    CONNECT = "connect"
    PROCESS = "process"


@dataclass(frozen=True, slots=True, kw_only=True)
class KindLine:
    """What is counted of a kind, and what one fact is about: its line in docs/services/usage.md."""

    units: str
    about: str
    once_per: str


KINDS: Mapping[UsageKind, KindLine] = {
    UsageKind.REGISTER: KindLine(
        units="instances, bytes",
        about="an instance taken in and kept; held from then on",
        once_per="kept file (object id)",
    ),
    UsageKind.HOLD: KindLine(
        units="instances, bytes; less than nothing where they went",
        about="what is held changed otherwise: deleted, restored, counted when facts began",
        once_per="journal entry and registrant",
    ),
    UsageKind.DELIVER: KindLine(
        units="instances, bytes, studies",
        about="instances of one study that a receiver took: C-GET, C-MOVE, forwarding",
        once_per="window of a retrieve and study; run of a job and the instances it settled",
    ),
    UsageKind.CONNECT: KindLine(
        units="associations, seconds",
        about="an association that was accepted and has ended",
        once_per="association",
    ),
    UsageKind.PROCESS: KindLine(
        units="images, bytes, seconds",
        about="one operation done on request",
        once_per="session of processing and study",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """An instance was taken in. From then on its subscriber holds it."""

    kind: ClassVar[UsageKind] = UsageKind.REGISTER
    subscriber: SubscriberName
    object_id: ObjectId
    study_instance_uid: StudyInstanceUID
    modality: str
    size_bytes: int

    @property
    def key(self) -> str:
        """The file that was kept: an instance that is held already is not kept again."""
        return self.object_id


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldingChanged:
    """More is held, or less, by an entry of the journal; both numbers have the sign of the change."""

    kind: ClassVar[UsageKind] = UsageKind.HOLD
    subscriber: SubscriberName
    entry_id: str
    instances: int
    size_bytes: int

    @property
    def key(self) -> str:
        """An entry hides or brings back once; of several registrants, each its own."""
        return f"{self.entry_id}/{self.subscriber}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """Instances of one study were taken by ``receiver``, in one go.

    ``delivery`` is no other one's. ``sent_bytes`` are those that travelled. Who asked
    (``asked_by``) is a user, an AE title, or the job or command that did.
    """

    kind: ClassVar[UsageKind] = UsageKind.DELIVER
    subscriber: SubscriberName
    delivery: str
    study_instance_uid: StudyInstanceUID
    receiver: AETitle
    asked_by: str
    purpose: str
    instances: int
    sent_bytes: int

    @property
    def key(self) -> str:
        """What was delivered in one go, study by study."""
        return f"{self.delivery}/{self.study_instance_uid}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected:
    """An association of a subscriber was open for so long."""

    kind: ClassVar[UsageKind] = UsageKind.CONNECT
    subscriber: SubscriberName
    association: str
    asked_by: str
    duration_ms: int

    @property
    def key(self) -> str:
        """An association has one id, for ever."""
        return self.association


@dataclass(frozen=True, slots=True, kw_only=True)
class Processed:
    """One operation was done on request: on so many images of one study, of so many bytes, in that time.

    ``session`` is what was asked for once, whoever does it and however often it is tried.
    """

    kind: ClassVar[UsageKind] = UsageKind.PROCESS
    subscriber: SubscriberName
    session: str
    operation: str
    study_instance_uid: StudyInstanceUID
    asked_by: str
    purpose: str
    images: int
    size_bytes: int
    duration_ms: int

    @property
    def key(self) -> str:
        """The same operation of the same session is done once to a study."""
        return f"{self.session}/{self.operation}/{self.study_instance_uid}"


Usage = Registered | HoldingChanged | Delivered | Connected | Processed
"""One fact for accounting."""


def asked_by(caller: Caller) -> str:
    """Say who asks, as exactly as it is known: a user, an AE title, or the command or job that does."""
    return caller.user or caller.ae_title or caller.association


# --- sums ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Month:
    """A calendar month in UTC: its facts are those noted from its first millisecond to before its end."""

    year: int
    number: int

    @classmethod
    def of(cls, moment: datetime) -> "Month":
        """Give the month in which that is."""
        at = moment.astimezone(UTC)
        return cls(year=at.year, number=at.month)

    @classmethod
    def parse(cls, text: str) -> "Month":
        """Read YYYY-MM, since 1970. Raises ``ValueError``.

        >>> str(Month.parse("2026-01").before), Month.parse("2026-02").end_ms
        ('2025-12', 1772323200000)
        """
        found = cls.of(datetime.strptime(text, "%Y-%m").replace(tzinfo=UTC))
        if not 1970 <= found.year < MAXYEAR:
            raise ValueError(f"no month that can be added up: {text}")
        return found

    @property
    def before(self) -> "Month":
        """The month before."""
        return self._months_later(-1)

    @property
    def start_ms(self) -> int:
        """Its first millisecond, since the epoch."""
        return round(datetime(self.year, self.number, 1, tzinfo=UTC).timestamp()) * 1000

    @property
    def end_ms(self) -> int:
        """The first millisecond after it, since the epoch."""
        return self._months_later(1).start_ms

    def _months_later(self, count: int) -> "Month":
        year, index = divmod(self.year * 12 + self.number - 1 + count, 12)
        return Month(year=year, number=index + 1)

    def __str__(self) -> str:
        return f"{self.year:04}-{self.number:02}"


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageSum:
    """Facts of one kind added up: over one modality, or one receiver and purpose, or one operation.

    ``amount`` is what the kind counts first: instances, images, associations.
    """

    subscriber: SubscriberName
    kind: UsageKind
    modality: str
    receiver: str
    purpose: str
    operation: str
    amount: int
    size_bytes: int
    duration_ms: int
    studies: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """How much a subscriber holds, or by how much that changed."""

    instances: int = 0
    size_bytes: int = 0

    def __add__(self, other: "Holding") -> "Holding":
        return Holding(
            instances=self.instances + other.instances,
            size_bytes=self.size_bytes + other.size_bytes,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What a subscriber holds by the facts, and by the index, where that is not the same."""

    subscriber: SubscriberName
    noted: Holding
    held: Holding
