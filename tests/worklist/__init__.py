"""A worklist for tests of our performer: workitems in files, claimed and changed as any performer may.

In files, because workers are processes. ``lay`` puts our performer, attached to it, where they find
it as an installed distribution; tests in this process hand ``PERFORMER`` to ``opened``.
"""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from pacs.app import process
from pacs.app.archive import Archive
from pacs.app.extension import Extension
from pacs.core.caller import Caller
from pacs.core.errors import PacsError
from pacs.core.identifiers import Registrant
from pacs.core.workitems import FINAL_STATES, WorkitemState, WorkitemUID
from pacs.services.process.desk import OnCreated


@dataclass(frozen=True, kw_only=True)
class Item:
    """A workitem as read; ``told`` is how far it said it was, in order."""

    registrant: Registrant
    state: WorkitemState
    cancel_asked: bool
    transaction_uid: str = field(repr=False)
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
    """``pacs.services.process.desk.Workitems``."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._folder = archive.home / "worklist"
        self._folder.mkdir(exist_ok=True)
        self._hooks: list[OnCreated] = []

    def add_on_created(self, hook: OnCreated) -> None:
        self._hooks.append(hook)

    def create(self, caller: Caller, data_set: Dataset, uid: str = "") -> WorkitemUID:
        """Make one, and the jobs that follow from it, in one transaction."""
        made = WorkitemUID(uid or generate_uid(prefix=None))
        with self._changed(made) as row:
            row.update(
                registrant=caller.registrant,
                state="SCHEDULED",
                cancel_asked=False,
                transaction_uid="",
                told=[],
                data_set=data_set.to_json_dict(),
            )
            with self._archive.records.transaction() as unit:
                for hook in self._hooks:
                    for job in hook(caller, made, data_set):
                        unit.enqueue(job)
        return made

    def read(self, uid: WorkitemUID) -> Item:
        with self._changed(uid) as row:
            if not row:
                raise PacsError("no such workitem")
            return Item(
                registrant=Registrant(row["registrant"]),
                state=WorkitemState(row["state"]),
                cancel_asked=row["cancel_asked"],
                transaction_uid=row["transaction_uid"],
                data_set=Dataset.from_json(row["data_set"]),
                told=row["told"],
            )

    def remove(self, uid: WorkitemUID) -> None:
        (self._folder / f"{uid}.json").unlink(missing_ok=True)

    def ask_cancel(self, uid: WorkitemUID) -> None:
        with self._changed(uid) as row:
            row["cancel_asked"] = True

    def claim(self, caller: Caller, uid: WorkitemUID, transaction_uid: str) -> None:
        with self._changed(uid) as row:
            if row["state"] != "SCHEDULED" or caller.registrant != row["registrant"]:
                raise PacsError("cannot be claimed")
            row.update(state="IN PROGRESS", transaction_uid=transaction_uid)

    def modify(
        self, caller: Caller, uid: WorkitemUID, transaction_uid: str, modifications: Dataset
    ) -> None:
        with self._owned(caller, uid, transaction_uid) as row:
            row["data_set"].update(modifications.to_json_dict())
            for one in modifications.get("ProcedureStepProgressInformationSequence") or ():
                row["told"].append(str(one.get("ProcedureStepProgress", "")))

    def complete(self, caller: Caller, uid: WorkitemUID, transaction_uid: str) -> None:
        self._ended(caller, uid, transaction_uid, WorkitemState.COMPLETED)

    def cancel(self, caller: Caller, uid: WorkitemUID, transaction_uid: str) -> None:
        self._ended(caller, uid, transaction_uid, WorkitemState.CANCELED)

    def _ended(
        self, caller: Caller, uid: WorkitemUID, transaction_uid: str, state: WorkitemState
    ) -> None:
        with self._owned(caller, uid, transaction_uid) as row:
            row["state"] = state.value

    @contextmanager
    def _owned(
        self, caller: Caller, uid: WorkitemUID, transaction_uid: str
    ) -> Iterator[dict[str, Any]]:
        with self._changed(uid) as row:
            if (
                WorkitemState(row["state"]) in FINAL_STATES
                or caller.registrant != row["registrant"]
            ):
                raise PacsError("it may not be changed any more")
            if row["transaction_uid"] != transaction_uid:
                raise PacsError("wrong Transaction UID")
            yield row

    @contextmanager
    def _changed(self, uid: WorkitemUID) -> Iterator[dict[str, Any]]:
        with (self._folder / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            path = self._folder / f"{uid}.json"
            row: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
            yield row
            if row:
                part = path.with_suffix(".part")
                part.write_text(json.dumps(row))
                part.rename(path)


_OPEN: dict[int, Worklist] = {}


def worklist_of(archive: Archive) -> Worklist:
    """The worklist that our performer was attached to."""
    return _OPEN[id(archive.database)]


def _attached(archive: Archive) -> Worklist:
    made = _OPEN[id(archive.database)] = Worklist(archive)
    return made


PERFORMER = Extension(
    name="performer", attach=lambda archive, _: process.attached(archive, _attached(archive))
)


def lay(folder: Path) -> Path:
    """Make a folder for PYTHONPATH in which our performer is installed, attached to this worklist."""
    information = folder / "worklist-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: worklist\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(
        "[pacs.extensions]\nperformer = tests.worklist:PERFORMER\n"
    )
    return folder
