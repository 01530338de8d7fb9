"""What every service of workitems works with, and whose workitems a caller sees and changes.

Two questions: an agreement shows others' workitems, and lets nobody change one.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from pydicom.dataset import Dataset

from config.settings import Workitems as WorkitemSettings
from pacs.core.caller import Caller, Right
from pacs.core.identifiers import AETitle, Registrant, SOPInstanceUID
from pacs.core.ports import AuditTrail, Records, Snapshots, Unit
from pacs.core.records import Job
from pacs.core.workitem_errors import WorkitemUnknown
from pacs.core.workitem_ports import WatchRows, WorkitemRow, WorkitemRows
from pacs.core.workitems import WorkitemState, WorkitemUID
from pacs.services.workitems.encoding import decoded, stations_of

OnCreated = Callable[[Caller, WorkitemUID, Dataset], Iterable[Job]]
"""Asked in the transaction that creates a workitem; its jobs are enqueued in it."""

OnReady = Callable[[Unit, WorkitemUID], None]
"""Told in the transaction that makes the input of a SCHEDULED workitem READY."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workitem:
    """A workitem as it stands. ``transaction_uid`` is a secret between it and its performer."""

    uid: WorkitemUID
    state: WorkitemState
    registrant: Registrant
    performer: AETitle
    cancel_asked: bool
    transaction_uid: str = field(repr=False)
    data_set: Dataset = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """The parts."""

    rows: WorkitemRows
    watches: WatchRows
    records: Records
    snapshots: Snapshots
    audit: AuditTrail
    settings: WorkitemSettings
    max_uids: int

    def locked(self, caller: Caller, uid: str) -> WorkitemRow:
        """Give a workitem nobody else changes until the transaction ends. Raises ``WorkitemUnknown``."""
        return seen(caller, self.rows.locked(WorkitemUID(uid)))

    def found(self, caller: Caller, uid: str) -> WorkitemRow:
        """Give a workitem as it is committed. Raises ``WorkitemUnknown``."""
        return seen(caller, self.rows.find(WorkitemUID(uid)))

    def note(self, caller: Caller, what: str, uid: str) -> None:
        """Put on record what became of a workitem."""
        self.audit.record("workitem", caller, what=what, workitem=SOPInstanceUID(uid))


def may_change(caller: Caller, row: WorkitemRow) -> bool:
    """Tell whether a caller may change a workitem that nobody performs: its own, or as an administrator."""
    return row.registrant == caller.registrant or Right.ADMINISTER in caller.rights


def may_claim(caller: Caller, row: WorkitemRow) -> bool:
    """Tell whether a caller may perform a workitem: one it may change, or that names its AE as a station for it.

    Only a device the gate knows has an AE title that is its own: a user may call itself anything.
    """
    return may_change(caller, row) or (
        caller.known_device and caller.ae_title in stations_of(decoded(row.data_set))
    )


def seen(caller: Caller, row: WorkitemRow | None) -> WorkitemRow:
    """Give a workitem the caller may see. Raises ``WorkitemUnknown``, also for another's."""
    if row is None:
        raise WorkitemUnknown
    if row.registrant != caller.registrant and not caller.visibility.everything:
        raise WorkitemUnknown
    return row
