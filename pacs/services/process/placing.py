"""Which new workitems are ours to perform: those get a job in the transaction that makes them.

Every other one is left for foreign performers. Judged later, by the job; a
workitem that nobody can do is then cancelled with the reason.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from pacs.core.caller import Caller
from pacs.core.identifiers import AETitle
from pacs.core.processing import OperationFact
from pacs.core.records import Job
from pacs.core.workitems import WorkitemUID
from pacs.services.process.desk import WorkitemWork
from pacs.services.process.order import addressed
from pacs.services.process.standing import Creator

_PRIORITIES: Final = {"HIGH": 10, "LOW": -10}


class Placing:
    """Asked for every workitem that is created. Safe to use from many threads."""

    def __init__(self, operations: Sequence[OperationFact], ae_title: AETitle) -> None:
        self._operations = operations
        self._ae_title = ae_title

    def on_created(self, caller: Caller, uid: WorkitemUID, data_set: Dataset) -> Iterator[Job]:
        """Give the job that performs a workitem, if it is for us."""
        address = addressed(data_set, self._operations, ae_title=self._ae_title)
        if not address.ours:
            return
        now = datetime.now(UTC)
        begins = address.begins_utc
        work = WorkitemWork(
            uid=uid,
            transaction_uid=str(generate_uid(prefix=None)),
            creator=Creator.of(caller),
            made=max(now, begins or now),
        )
        yield work.job(
            group=address.group,
            priority=_PRIORITIES.get(address.priority, 0),
            not_before_utc=begins if begins is not None and begins > now else None,
        )
