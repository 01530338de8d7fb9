"""Routes and what they ask for: which arrivals go where, how changed and with which company.

Facts only, free of any library. Who decides whether a route fires is
``pacs.services.route``; who sends is ``pacs.services.forward``.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import time

from pacs.core.attributes import Level
from pacs.core.identifiers import AETitle, Registrant


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteKey:
    """One condition: an attribute matches ``value`` as in C-FIND (PS3.4 Section C.2.2.2), or does not.

    ``path`` is a keyword, or keywords of sequences and one within, joined by dots.
    """

    path: str
    value: str
    unless: bool = False


class CoercionKind(enum.Enum):
    """What is done to an attribute on its way out."""

    SET = "set"
    DELETE = "delete"
    MAP = "map"
    PREFIX = "prefix"


@dataclass(frozen=True, slots=True, kw_only=True)
class Coercion:
    """One change to what is sent; never to a UID. ``mapping`` is for MAP: a value not in it stays."""

    kind: CoercionKind
    keyword: str
    value: str = ""
    mapping: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Priors:
    """Earlier studies of the patient that go along: the ``latest`` ones, alike where asked."""

    latest: int
    same_modality: bool = False
    same_body_part: bool = False
    within_days: int | None = None


class Commitment(enum.Enum):
    """Whether the destination is asked to take over responsibility (PS3.4 Annex J)."""

    NO = "no"
    OFFERED = "offered"  # where the peer accepts the context
    REQUIRED = "required"


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """When a route holds: days of the week (0 is Monday) and times of day, which may pass midnight.

    The day is that on which the window begins. No days are all days.
    """

    days: frozenset[int] = frozenset()
    begins: time = time(0)
    ends: time = time(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One rule, as the admin entered it.

    ``level`` IMAGE fires at each arrival; SERIES and STUDY when it has been quiet.
    The patterns of AE titles hold wild cards; none is any. A study or series fires when one
    instance of it keeps all keys, and goes as a whole.
    """

    name: str
    level: Level
    destinations: tuple[AETitle, ...]
    keys: tuple[RouteKey, ...] = ()
    calling_ae_titles: tuple[str, ...] = ()
    called_ae_titles: tuple[str, ...] = ()
    registrants: tuple[Registrant, ...] = ()
    windows: tuple[Window, ...] = ()
    coercions: tuple[Coercion, ...] = ()
    priors: Priors | None = None
    commitment: Commitment = Commitment.NO
    in_order: bool = False
    priority: int = 0
    active: bool = True
