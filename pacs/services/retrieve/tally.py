"""The counters of one retrieve. PS3.4 Sections C.4.2.1.6 to C.4.2.1.9.

They add up at every moment; for one thread.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pacs.core.identifiers import SOPInstanceUID, StudyInstanceUID
from pacs.core.records import Held, Progress, SendOutcome
from pacs.services.delivery.contexts import Chosen
from pacs.services.delivery.fate import Shipped
from pacs.services.delivery.payloads import Preparation
from pacs.services.delivery.reduced import Reduced, Reduction


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What one retrieve delivers: ``chosen``, of which a ``reduction`` makes some smaller; not what is ``withheld``."""

    chosen: Sequence[Chosen]
    withheld: Sequence[SOPInstanceUID] = ()
    reduction: Reduction | None = None

    @property
    def total(self) -> int:
        """How many sub-operations there are."""
        return len(self.chosen) + len(self.withheld)

    @property
    def preparation(self) -> Preparation | None:
        """What delivery does to some of it."""
        return None if self.reduction is None else self.reduction.preparation


@dataclass(slots=True)
class Taken:
    """What the receiver took of one study, and what reducing some of it was."""

    instances: int = 0
    sent_bytes: int = 0
    reduced: int = 0
    reduced_bytes: int = 0
    reduced_ms: int = 0

    def count(self, one: Shipped, reduced: Reduced | None) -> None:
        """One more was taken."""
        self.instances += 1
        self.sent_bytes += one.sent_bytes
        if reduced is not None:
            self.reduced += 1
            self.reduced_bytes += reduced.size_bytes
            self.reduced_ms += reduced.duration_ms


class Tally:
    """The counters of one retrieve."""

    def __init__(self, order: Order) -> None:
        self.remaining = order.total
        self.completed = 0
        self.failed = 0
        self.warning = 0
        self.reduced = 0
        """How many were taken in a reduced form."""
        self.taken: dict[StudyInstanceUID, Taken] = {}
        """What was taken since ``take``, study by study."""
        self.withheld = list(order.withheld)
        """What is denser than the caller may have, and cannot be reduced."""
        self._not_begun = order.withheld
        self._reduction = order.reduction
        self._failed_uids: list[str] = []

    def count(self, one: Shipped) -> None:
        """One sub-operation is over."""
        reduced = None if self._reduction is None else self._reduction.of(one.held)
        if one.outcome is SendOutcome.FAILURE:
            if Reduction.is_refusal(one.failure):
                self.withheld.append(one.held.sop_instance_uid)
            self.fail(one.held)
            return
        self.remaining -= 1
        self.reduced += reduced is not None
        self.taken.setdefault(one.held.study_instance_uid, Taken()).count(one, reduced)
        if one.outcome is SendOutcome.WARNING:
            self.warning += 1
        else:
            self.completed += 1

    def take(self) -> Collection[tuple[StudyInstanceUID, Taken]]:
        """Hand over what was taken since this was last asked: it is somebody else's to note."""
        taken, self.taken = self.taken, {}
        return taken.items()

    def fail(self, held: Held) -> None:
        """One sub-operation failed, or could not be begun."""
        self.remaining -= 1
        self.failed += 1
        self._failed_uids.append(held.sop_instance_uid)

    def fail_rest(self) -> None:
        """All that was not begun failed, and is not named."""
        self.failed += self.remaining
        self.remaining = 0

    def withhold(self) -> None:
        """What the caller may not have failed before anything was begun."""
        self.remaining -= len(self._not_begun)
        self.failed += len(self._not_begun)
        self._failed_uids += self._not_begun
        self._not_begun = ()

    def vanished(self, count: int) -> None:
        """Instances deleted since they were selected: no longer part of the answer."""
        self.remaining -= count

    def progress(self) -> Progress:
        """The counters as they stand. What failed is named once, at the end: it may be long."""
        return Progress(
            remaining=self.remaining,
            completed=self.completed,
            failed=self.failed,
            warning=self.warning,
        )

    def last(self) -> Progress:
        """The counters after the last sub-operation, and what failed."""
        return Progress(
            remaining=self.remaining,
            completed=self.completed,
            failed=self.failed,
            warning=self.warning,
            failed_sop_instance_uids=tuple(self._failed_uids),
            over=True,
        )
