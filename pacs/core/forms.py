"""Re-encoded forms: what is kept instead of a Data Set as received, and what brings that back.

A form is a file of its own beside the original, under the same object id. It
exists only where the Data Set as received is made of it again byte for byte.
"""

import enum
from dataclasses import dataclass, field

from pacs.core.identifiers import Digest, TransferSyntaxUID

NATIVE = (
    TransferSyntaxUID("1.2.840.10008.1.2"),
    TransferSyntaxUID("1.2.840.10008.1.2.1"),
    TransferSyntaxUID("1.2.840.10008.1.2.2"),
)
"""Syntaxes whose Data Sets can be made again byte for byte: implicit, explicit, big endian.

A deflated or encapsulated one cannot: no encoder makes another's stream again.
"""

SYNTAXES = {
    "jpeg-lossless": TransferSyntaxUID("1.2.840.10008.1.2.4.70"),
    "jpeg-ls": TransferSyntaxUID("1.2.840.10008.1.2.4.80"),
    "jpeg-2000": TransferSyntaxUID("1.2.840.10008.1.2.4.90"),
    "htj2k": TransferSyntaxUID("1.2.840.10008.1.2.4.201"),
}
"""What ``storage.compress`` may say, and the transfer syntax of such a form (PS3.6 Table A-1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """That a file holds a re-encoded form: its own digest, and what was received instead of it."""

    digest: Digest
    original_syntax_uid: TransferSyntaxUID
    original_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FormMeta:
    """What a form's file says of the Data Set as received. ``recipe`` is for ``Restorer`` only."""

    original_digest: Digest
    original_syntax_uid: TransferSyntaxUID
    original_bytes: int
    recipe: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Which instances are meant; ``None`` is any."""

    registrant: str | None = None
    study_instance_uid: str | None = None
    series_instance_uid: str | None = None


class Outcome(enum.Enum):
    """What became of one instance that was to be held in another form."""

    CHANGED = "changed"
    REFUSED = "refused"  # it cannot be made again byte for byte, or nothing would be saved
    PASSED_OVER = "passed over"  # somebody else is at it, or it has changed meanwhile
    FAILED = "failed"  # no room, a failed fsync, damage: the form it has stays


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One object id of which several files may lie there. ``purged``: none of them is to stay."""

    object_id: str
    keep: str
    token: str
    purged: bool
