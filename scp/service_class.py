"""A service class as data: what a peer negotiates and which handler answers it. PS3.4.

``ServiceClass`` is what a peer sees. The dispatcher in ``scp.server``, the
negotiation in ``pacs.association`` and the conformance statement all read the
same value, so a service that is attached is also limited, audited and
documented.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from pacs.association.message import Offer, Operation, Request, Response
from pacs.core.caller import Caller, Right
from pacs.core.errors import PacsError

Handler = Callable[[Request], Iterator[Response]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceClass:
    """One service class we provide.

    ``rights`` is total over ``operations``. ``statuses`` translates errors to
    the numbers its annex lists, before the common ones of PS3.7 Annex C are
    looked up; ``meanings`` are the words its annex has for numbers. ``session`` is entered once per association that negotiated the
    service and left exactly once on release, abort or loss.
    """

    name: str
    standard: str
    offers: tuple[Offer, ...]
    operations: Mapping[Operation, Handler]
    rights: Mapping[Operation, Right]
    statuses: Mapping[type[PacsError], int] = field(default_factory=dict)
    meanings: Mapping[int, str] = field(default_factory=dict)
    session: Callable[[Caller], AbstractContextManager[object]] | None = None

    def __post_init__(self) -> None:
        missing = set(self.operations) - set(self.rights)
        if missing:
            names = ", ".join(sorted(one.value for one in missing))
            raise ValueError(f"{self.name}: no right is named for {names}")
