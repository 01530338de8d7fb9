"""Who asks: the peer as it presents itself, and the caller it is resolved to.

Every service method takes ``caller`` first. What a caller may do is its
``rights``, whose objects it may see is its ``visibility``; both are decided by
the ``Gate`` port and by nobody else.
"""

import enum
from dataclasses import dataclass, field
from datetime import datetime
from typing import NewType

from pacs.core.identifiers import AETitle, Registrant, SOPClassUID, StudyInstanceUID

SubscriberName = NewType("SubscriberName", str)


class Right(enum.Enum):
    """What a contract can grant. ``CONNECT`` is granted by admission itself."""

    CONNECT = "connect"
    REGISTER = "register"
    QUERY = "query"
    RECEIVE = "receive"
    PROCESS = "process"
    PRINT = "print"
    SOFTWARE_VENDOR = "software-vendor"
    SOFTWARE_EXECUTING = "software-executing"
    READ = "read"
    REPORT = "report"
    ADMINISTER = "administer"


class Refusal(enum.Enum):
    """Which reason of A-ASSOCIATE-RJ a refused peer is given (PS3.8 Table 9-21), never more.

    The cause is for the audit trail.
    """

    DEVICE = "calling AE title not recognized"
    CALLED = "called AE title not recognized"
    IDENTITY = "no reason given"
    LATER = "transient, no reason given"


@dataclass(frozen=True, slots=True, kw_only=True)
class Visibility:
    """Whose objects may be seen: those of ``registrants``, and single ``studies`` of others.

    ``everything`` stands for all registrants. ``modalities`` narrows all of it to series of
    these, ``None`` does not.
    """

    everything: bool = False
    registrants: frozenset[Registrant] = frozenset()
    studies: frozenset[tuple[Registrant, StudyInstanceUID]] = frozenset()
    modalities: frozenset[str] | None = None

    def shows(self, registrant: Registrant, study: StudyInstanceUID) -> bool:
        """Tell whether what a registrant holds of a study is seen, as far as ``modalities`` lets it."""
        return (
            self.everything or registrant in self.registrants or (registrant, study) in self.studies
        )

    def only(self, registrant: Registrant) -> "Visibility":
        """Narrow it to what that registrant holds, which it ``shows``."""
        return Visibility(registrants=frozenset({registrant}), modalities=self.modalities)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What a TLS peer proved to be. ``fingerprint`` is SHA-256 of its DER form, lower-case hexadecimal."""

    fingerprint: str
    subject: str
    not_after_utc: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A peer that asks for an association, as it presents itself.

    ``tls`` says how it came; ``certificate`` is there where it showed one that was verified.
    ``sop_classes`` are the abstract syntaxes it proposes.
    """

    calling_ae_title: AETitle
    called_ae_title: AETitle
    address: str
    port: int
    tls: bool = False
    certificate: Certificate | None = None
    sop_classes: tuple[SOPClassUID, ...] = ()
    user_identity_type: int | None = None
    user_identity: bytes = field(default=b"", repr=False)
    user_passcode: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks, resolved.

    ``subscriber`` owns what this caller registers. ``association`` is the id
    of the association the request came on, or the command's name for the CLI.
    ``identity_response`` is the Server Response (PS3.7 D.3.3.7.2) to a User
    Identity the ``Gate`` has verified: empty for user name and passcode, a
    ticket or an assertion for the others. ``None`` says that none was
    verified, and then none is claimed to be. ``purpose`` is the one in force; with
    ``purpose_by_default`` the contract named it, because the request stated none.
    ``destinations`` are AE titles it may
    have images moved to beside its own peers, ``None`` any. ``max_matrix`` is the most
    Rows, and Columns, an image may be delivered with. ``revision`` is that of the
    ``Snapshot`` this was resolved by. ``known_device`` says that it was recognized as one of
    the subscriber's devices, whether or not a ``user`` was named, too.
    """

    subscriber: SubscriberName
    rights: frozenset[Right]
    visibility: Visibility
    purpose: str = ""
    purpose_by_default: bool = False
    ae_title: AETitle = AETitle("")
    address: str = ""
    association: str = ""
    issuer_of_patient_id: str = ""
    user: str = ""
    known_device: bool = False
    certificate_fingerprint: str = ""
    destinations: frozenset[AETitle] | None = None
    max_matrix: int | None = None
    revision: int = 0
    identity_response: bytes | None = field(default=None, repr=False)

    @property
    def registrant(self) -> Registrant:
        """The name under which this caller's instances are held."""
        return Registrant(self.subscriber)

    @property
    def stated_purpose(self) -> str:
        """The purpose its request states, empty for none: with it the same is asked again later."""
        return "" if self.purpose_by_default else self.purpose


def admin(command: str) -> Caller:
    """The caller the command line is: every right, everything visible."""
    return Caller(
        subscriber=SubscriberName("admin"),
        rights=frozenset(Right),
        visibility=Visibility(everything=True),
        association=command,
    )


def on_behalf(registrant: Registrant, command: str) -> Caller:
    """The caller a job is that works for one registrant: nothing of others is visible to it."""
    return Caller(
        subscriber=SubscriberName(registrant),
        rights=frozenset({Right.CONNECT, Right.REGISTER, Right.QUERY, Right.RECEIVE}),
        visibility=Visibility(registrants=frozenset({registrant})),
        association=command,
    )
