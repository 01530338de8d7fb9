"""What forwarding works with: its ports, gathered once per process."""

from collections.abc import Callable
from dataclasses import dataclass

from config.settings import Forward as ForwardSettings
from pacs.core.forwarding import Coercer, RouteJudge
from pacs.core.ports import AuditTrail, Records, RetrieveIndex, Snapshots
from pacs.core.sent import SentTable
from pacs.services.delivery.shipment import Shipping


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """The ports. ``others_due`` tells whether any queue but the named one has work that can be begun."""

    index: RetrieveIndex
    sent: SentTable
    records: Records
    shipping: Shipping
    coercer: Coercer
    judge: RouteJudge
    snapshots: Snapshots
    audit: AuditTrail
    settings: ForwardSettings
    others_due: Callable[[str], bool]
