"""Facts that travel between rooms: frozen, named, free of any library."""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from pacs.core.attributes import Level
from pacs.core.caller import Caller, SubscriberName
from pacs.core.contract import Contract, User
from pacs.core.errors import PacsError
from pacs.core.forms import Form, FormMeta
from pacs.core.identifiers import (
    AETitle,
    Digest,
    ObjectId,
    Registrant,
    SeriesInstanceUID,
    SOPClassUID,
    SOPInstanceUID,
    StudyInstanceUID,
    TransferSyntaxUID,
)
from pacs.core.polling import Poll
from pacs.core.processing import Profile
from pacs.core.routing import Route

# --- an instance on its way in ----------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where an instance came from; kept in the file itself (PS3.10 Section 7.1)."""

    registrant: Registrant
    issuer_of_patient_id: str
    received_utc: datetime
    association: str
    source_ae_title: AETitle
    receiving_ae_title: AETitle


@dataclass(frozen=True, slots=True, kw_only=True)
class IncomingMeta:
    """What is known of an instance before its first byte: the request and its origin.

    ``form`` is there where the file is a re-encoded form, and only then.
    """

    sop_class_uid: SOPClassUID
    sop_instance_uid: SOPInstanceUID
    transfer_syntax_uid: TransferSyntaxUID
    provenance: Provenance
    form: FormMeta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a kept file is, relative to its store.

    ``name`` is unique for ever. ``data_set_offset`` is the length of preamble,
    prefix and File Meta Information in bytes; the Data Set follows to the end
    of the file.
    """

    name: str
    object_id: ObjectId
    size_bytes: int
    data_set_offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What the index takes from a Data Set.

    ``values`` maps the keywords of ``pacs.core.attributes`` to text decoded to
    Unicode and stripped of padding, values separated by a backslash; a
    sequence is the DICOM JSON (PS3.18 Annex F) of its items. Absent and empty
    attributes are not in it.
    """

    sop_class_uid: SOPClassUID
    sop_instance_uid: SOPInstanceUID
    study_instance_uid: StudyInstanceUID
    series_instance_uid: SeriesInstanceUID
    patient_id: str
    issuer_of_patient_id: str
    values: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One kept instance, complete: what the index can be rebuilt from.

    ``digest`` is that of the Data Set as received, whatever ``form`` it is held in.
    """

    header: Header
    place: Place
    digest: Digest
    transfer_syntax_uid: TransferSyntaxUID
    provenance: Provenance
    form: Form | None = None


class StoreOutcome(enum.Enum):
    """How an accepted instance was taken in. All are success: nothing is lost."""

    KEPT = "kept"
    ALREADY_HELD = "already held"
    KEPT_AS_VERSION = "kept as a further version"


# --- arrival -----------------------------------------------------------------


class PeerEncoding(enum.Enum):
    """In which form a peer shall get what it takes in several."""

    AS_STORED = "as-stored"
    COMPRESSED = "compressed"  # losslessly: a slow line
    UNCOMPRESSED = "uncompressed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A device known by AE title, as the admin entered it.

    ``associations`` is how many it takes from us at once, for one C-MOVE or one study
    forwarded; ``rate_mbit_s`` bounds what is sent to it, all of them together. With
    ``tls`` it is called over TLS. It may call us where it belongs to a ``subscriber``: from one of
    its ``networks`` (CIDR, its ``host`` unless given), and with the certificate of that SHA-256
    fingerprint where one is bound to it.
    """

    ae_title: AETitle
    host: str
    port: int
    associations: int = 1
    encoding: PeerEncoding = PeerEncoding.AS_STORED
    rate_mbit_s: float | None = None
    tls: bool = False
    subscriber: SubscriberName | None = None
    networks: tuple[str, ...] = ()
    certificate_fingerprint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything an admin can change while serving, at one revision, frozen."""

    revision: int
    peers: Mapping[AETitle, Peer]
    routes: tuple[Route, ...] = ()
    polls: tuple[Poll, ...] = ()
    contracts: Mapping[SubscriberName, Contract] = field(default_factory=dict)
    users: Mapping[str, User] = field(default_factory=dict)
    profiles: Mapping[AETitle, Profile] = field(default_factory=dict)

    def may_receive(self, peer: Peer, now_utc: datetime) -> bool:
        """Tell whether anything may be sent to a peer: nobody's, or one whose contract holds."""
        if peer.subscriber is None:
            return True
        contract = self.contracts.get(peer.subscriber)
        return contract is not None and contract.holds(now_utc)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """What ``on_arrival`` rules are asked about. ``level`` is IMAGE for each instance."""

    level: Level
    caller: Caller
    instance: Instance


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Work that outlives its request: a kind some extension registered, and its payload (JSON).

    ``queue`` is ``BASE`` or ``BASE:DETAIL``; queues take turns, so that a long one
    starves no other. Higher ``priority`` goes first within a queue. A job whose
    ``deadline_utc`` passes fails. ``max_attempts`` is the kind's unless given;
    ``cause`` says to a person where it came from. While one that is ``alone`` runs, no
    other such job of its queue is begun on any node. One that ``hastens`` brings the job that
    waits under its ``unique_key`` forward to now.
    """

    kind: str
    payload: str
    unique_key: str | None = None
    queue: str = "default"
    alone: bool = False
    hastens: bool = False
    priority: int = 0
    not_before_utc: datetime | None = None
    deadline_utc: datetime | None = None
    max_attempts: int | None = None
    cause: str = ""


# --- an instance on its way out ------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What a retrieve asks for: unique keys, already validated.

    ``uids`` are the values of the level's unique key; the keys above may be
    given too and narrow it. ``patient_id`` and ``issuer_of_patient_id`` are
    ``None`` when not given.
    """

    level: Level
    patient_id: str | None = None
    issuer_of_patient_id: str | None = None
    study_instance_uids: tuple[str, ...] = ()
    series_instance_uids: tuple[str, ...] = ()
    sop_instance_uids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """One instance as retrieve sees it: where it is and how it is encoded.

    ``digest`` is that of the Data Set as received; where it is held in another
    ``form``, that has one of its own and ``transfer_syntax_uid`` is the form's.
    """

    registrant: Registrant
    study_instance_uid: StudyInstanceUID
    series_instance_uid: SeriesInstanceUID
    sop_class_uid: SOPClassUID
    sop_instance_uid: SOPInstanceUID
    transfer_syntax_uid: TransferSyntaxUID
    digest: Digest
    place: Place
    form: Form | None = None

    @property
    def digest_at_rest(self) -> Digest:
        """Digest of the Data Set that lies in the file."""
        return self.digest if self.form is None else self.form.digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Denser:
    """An image above a bound of pixel density: its kept file, and the greater of Rows and Columns."""

    object_id: ObjectId
    side_px: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounded:
    """What a retrieve delivers under a bound of pixel density, in order.

    ``chosen`` are row, class and stored syntax of each; ``denser`` says by row which of them are
    above the bound. ``unmeasured`` have Rows or Columns that are no plain number, or are images
    that lack one of them, and are in neither.
    """

    chosen: Sequence[tuple[int, SOPClassUID, TransferSyntaxUID]]
    denser: Mapping[int, Denser]
    unmeasured: Sequence[SOPInstanceUID]


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """One Data Set ready to travel: ``path`` from ``offset`` to its end, in that syntax.

    ``size_bytes`` is the length the whole file must have, where it is known.
    """

    sop_class_uid: SOPClassUID
    sop_instance_uid: SOPInstanceUID
    transfer_syntax_uid: TransferSyntaxUID
    path: str
    offset: int
    size_bytes: int | None = None


class SendOutcome(enum.Enum):
    """What the receiver said to one C-STORE sub-operation (PS3.4 Table B.2-1)."""

    SUCCESS = "success"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True, kw_only=True)
class Originator:
    """Who asked for a C-MOVE; travels in its C-STORE sub-operations (PS3.7 Section 9.1.1.1)."""

    ae_title: AETitle
    message_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Counters of a retrieve, PS3.4 Section C.4.2.1.6 to C.4.2.1.9.

    ``over`` says that no further one follows; only that one names what failed.
    Where some sub-operations remain in it, the retrieve was cancelled; where there is a
    ``refusal``, it was begun rightly and could not go on, and what was left has failed.
    """

    remaining: int
    completed: int
    failed: int
    warning: int
    failed_sop_instance_uids: tuple[str, ...] = ()
    over: bool = False
    refusal: PacsError | None = None
