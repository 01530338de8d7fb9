"""The worklist as tests of our performer use it: workitems made, looked at, and how far each said it was."""

from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO

from pacs.app.archive import Archive
from pacs.core.caller import Caller
from pacs.core.identifiers import AETitle, Registrant
from pacs.core.workitem_errors import WorkitemUnknown
from pacs.core.workitems import GLOBAL_SUBSCRIPTION, WorkitemState, WorkitemUID
from pacs.services.workitems.events import EventType
from tests.keeping import ADMIN

WATCHER: Final = AETitle("WATCHER")


@dataclass(frozen=True, kw_only=True)
class Item:
    """A workitem as read; ``told`` is how far it said it was, in order."""

    registrant: Registrant
    state: WorkitemState
    data_set: Dataset = field(repr=False)
    told: list[str] = field(default_factory=list)

    @property
    def performed(self) -> Dataset:
        (item,) = self.data_set.UnifiedProcedureStepPerformedProcedureSequence
        return item

    @property
    def progress(self) -> Dataset:
        (item,) = self.data_set.ProcedureStepProgressInformationSequence
        return item

    def results(self) -> dict[str, list[str]]:
        """SOP Instance UIDs by series, as the workitem says."""
        return {
            one.SeriesInstanceUID: [
                each.ReferencedSOPInstanceUID for each in one.ReferencedSOPSequence
            ]
            for one in self.performed.OutputInformationSequence
        }


class Worklist:
    """The archive's own, with a watcher whose events stay in the outbox."""

    def __init__(self, archive: Archive, watcher: Caller) -> None:
        self._archive = archive
        archive.workitems.watching.subscribe(
            replace(watcher, ae_title=WATCHER), GLOBAL_SUBSCRIPTION, WATCHER, deletion_lock=False
        )

    def create(self, caller: Caller, data_set: Dataset, uid: str = "") -> WorkitemUID:
        return self._archive.workitems.create(caller, uid, data_set).uid

    def read(self, uid: WorkitemUID) -> Item:
        row = self._archive.workitems.read(uid)
        return Item(
            registrant=row.registrant,
            state=row.state,
            data_set=row.data_set,
            told=list(self._told(uid)),
        )

    def _told(self, uid: WorkitemUID) -> list[str]:
        rows = self._archive.database.execute(
            "SELECT information FROM outbox WHERE sop_instance_uid = ? AND event_type_id = ? "
            "ORDER BY id",
            (uid, EventType.PROGRESS_REPORT.value),
        )
        found: list[str] = []
        for (information,) in rows:
            data_set = dcmread(DicomBytesIO(bytes(information)), force=True)
            for one in data_set.get("ProcedureStepProgressInformationSequence") or ():
                found.append(str(one.get("ProcedureStepProgress", "")))
        return found

    def remove(self, uid: WorkitemUID) -> None:
        """As if it had never been; also where it is gone."""
        with suppress(WorkitemUnknown):
            self._archive.workitems.abandon(ADMIN, uid, Dataset())
            self._archive.workitems.administration.remove(ADMIN, uid)

    def ask_cancel(self, uid: WorkitemUID, caller: Caller) -> None:
        self._archive.workitems.request_cancel(caller, uid, Dataset())
