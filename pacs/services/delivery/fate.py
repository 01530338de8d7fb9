"""What became of one instance that was to be sent. PS3.4 Annex B, PS3.7 Section 9.1.1.

Facts for whoever counts or tries again; refuses to say which of them is worth
another attempt.
"""

import enum
from dataclasses import dataclass

from pacs.core.records import Held, SendOutcome


class Fate(enum.Enum):
    """How far it came."""

    ANSWERED = "the peer gave a Status"
    UNSENT = "nothing left here: no context fits, the file cannot be read, changed or converted"
    UNKNOWN = "the association ended before the peer answered: it may hold the instance or not"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipped:
    """One instance, once: ``status`` is the peer's, ``failure`` says why nothing was sent or heard.

    ``sent_bytes`` is the length of the Data Set as it travelled.
    """

    held: Held
    fate: Fate
    outcome: SendOutcome = SendOutcome.FAILURE
    status: int | None = None
    failure: Exception | None = None
    sent_bytes: int = 0
