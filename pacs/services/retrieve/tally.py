"""The counters of one retrieve. PS3.4 Sections C.4.2.1.6 to C.4.2.1.9.

They add up at every moment; for one thread.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pacs.core.identifiers import SOPInstanceUID, StudyInstanceUID
from pacs.core.records import Held, Progress, SendOutcome
from pacs.services.delivery.fate import Shipped


@dataclass(slots=True)
class Taken:
    """What the receiver took of one study."""

    instances: int = 0
    sent_bytes: int = 0

    def count(self, one: Shipped) -> None:
        """One more was taken."""
        self.instances += 1
        self.sent_bytes += one.sent_bytes


class Tally:
    """The counters of one retrieve."""

    def __init__(self, total: int, withheld: Sequence[SOPInstanceUID] = ()) -> None:
        self.remaining = total + len(withheld)
        self.completed = 0
        self.failed = 0
        self.warning = 0
        self.taken: dict[StudyInstanceUID, Taken] = {}
        self._withheld = withheld
        self._failed_uids: list[str] = []

    def count(self, one: Shipped) -> None:
        """One sub-operation is over."""
        if one.outcome is SendOutcome.FAILURE:
            self.fail(one.held)
            return
        self.remaining -= 1
        self.taken.setdefault(one.held.study_instance_uid, Taken()).count(one)
        if one.outcome is SendOutcome.WARNING:
            self.warning += 1
        else:
            self.completed += 1

    def fail(self, held: Held) -> None:
        """One sub-operation failed, or could not be begun."""
        self.remaining -= 1
        self.failed += 1
        self._failed_uids.append(held.sop_instance_uid)

    def withhold(self) -> None:
        """What the caller may not have failed before anything was begun."""
        self.remaining -= len(self._withheld)
        self.failed += len(self._withheld)
        self._failed_uids += self._withheld
        self._withheld = ()

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
