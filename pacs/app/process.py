"""Processing, put together for one process: what is asked at once, and our performer of workitems."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pacs.app.extension import installed
from pacs.app.operations import catalogue
from pacs.core.caller import Caller
from pacs.core.identifiers import AETitle
from pacs.core.job_ports import JobContext
from pacs.core.ports import Unit
from pacs.core.processing import OperationFact, Processor
from pacs.core.records import Job
from pacs.core.work import Policy
from pacs.core.workitems import WorkitemUID
from pacs.jobs.kinds import JobKind, Schedule
from pacs.services.poll.receiver import IngestReceiver
from pacs.services.process import (
    Computing,
    Delivering,
    Desk,
    Fetching,
    Performing,
    Piecework,
    Placing,
    Processing,
    Settling,
)
from pacs.services.process.desk import (
    DELIVER,
    PIECE,
    PURGE,
    SETTLE,
    WORKITEM,
    DeliverWork,
    PieceWork,
    Workitems,
    WorkitemWork,
)
from processing.datasets.process import SandboxedProcessor, facts
from scu.poll import PollSCU
from storage.database.forward import ForwardTable
from storage.database.process_result import ProcessResultTable
from storage.database.retrieve import DatabaseRetrieveIndex

if TYPE_CHECKING:
    from pacs.app.archive import Archive
    from pacs.app.extension import Attached

_QUEUE = "process"
_LEAST_REMEMBERED_S = 604_800.0
"""What pieces gave is known at least as long as their workitem may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nothing:
    """The payload of work that needs to be told nothing."""


def operations() -> Sequence[OperationFact]:
    """List what can be asked for; no archive is needed for that. Raises ``SettingsInvalid``."""
    return facts(catalogue(installed()))


@contextmanager
def processing(archive: "Archive") -> Iterator[Processing]:
    """Put the service together; its workers end with it."""
    with closing(processor_of(archive)) as processor:
        yield Processing(
            index=DatabaseRetrieveIndex(archive.database),
            processor=processor,
            computing=_computing(archive, processor),
            records=archive.records,
            audit=archive.audit,
            snapshots=archive.snapshots,
        )


def attach(archive: "Archive", _: object) -> "Attached":
    """Give our performer of what is on the archive's worklist."""
    return attached(archive, archive.workitems)


def attached(archive: "Archive", workitems: Workitems) -> "Attached":
    """Give the jobs of our performer, and when its chore is due; from now on it takes up what is ours."""
    from pacs.app.extension import Attached

    processor = processor_of(archive)
    desk = _desk(archive, workitems, processor)

    def ready(unit: Unit, uid: WorkitemUID) -> None:
        for queue in desk.results.bring_forward(uid):
            unit.wake(queue)

    workitems.add_on_created(Placing(desk.operations, desk.ae_title).on_created)
    workitems.add_on_ready(ready)
    settings = archive.settings.process

    def purge(_: JobContext[Nothing]) -> int:
        return desk.results.purge(max(settings.reuse_s, _LEAST_REMEMBERED_S))

    def settle(_: JobContext[Nothing]) -> int:
        return Settling(desk).settle()

    return Attached(
        jobs={
            WORKITEM: _kind(Performing(desk).workitem, WorkitemWork),
            PIECE: _kind(Piecework(desk).piece, PieceWork),
            DELIVER: _kind(Delivering(desk).deliver, DeliverWork),
            PURGE: JobKind(handler=purge, payload=Nothing, queue="chores"),
            SETTLE: JobKind(handler=settle, payload=Nothing, queue="chores"),
        },
        schedules=(_chore(PURGE, settings.purge_cron), _chore(SETTLE, settings.settle_cron)),
        close=processor.close,
    )


def _chore(name: str, cron: str) -> Schedule:
    return Schedule(name=name, cron=cron, job=Job(kind=name, payload="{}", queue="chores"))


def _kind(handler: "Callable[[JobContext[Any]], object]", payload: type) -> JobKind:
    policy = Policy(first_delay_s=1.0, max_delay_s=600.0)
    return JobKind(handler=handler, payload=payload, policy=policy, queue=_QUEUE, grouped=True)


def processor_of(archive: "Archive") -> SandboxedProcessor:
    """Compute with the operations that are installed; to be closed."""
    return SandboxedProcessor(
        archive.settings.process, archive.scratch, catalogue=catalogue(archive.installed)
    )


def _computing(archive: "Archive", processor: Processor) -> Computing:
    return Computing(
        index=DatabaseRetrieveIndex(archive.database),
        store=archive.store,
        processor=processor,
        ingest=archive.ingest,
        ae_title=AETitle(archive.settings.dicom.ae_title),
    )


def _desk(archive: "Archive", workitems: Workitems, processor: Processor) -> Desk:
    settings = archive.settings
    return Desk(
        workitems=workitems,
        processor=processor,
        operations=facts(catalogue(archive.installed)),
        index=DatabaseRetrieveIndex(archive.database),
        computing=_computing(archive, processor),
        fetching=_fetching(archive),
        results=ProcessResultTable(archive.database),
        snapshots=archive.snapshots,
        deletions=archive.deletions,
        sent=ForwardTable(archive.database),
        jobs=archive.jobs,
        audit=archive.audit,
        settings=settings.process,
        ae_title=AETitle(settings.dicom.ae_title),
        threads=max(1, (os.cpu_count() or 1) // max(1, settings.jobs.workers)),
    )


def _fetching(archive: "Archive") -> Fetching:
    settings = archive.settings
    ae_title = AETitle(settings.dicom.ae_title)

    def receiver(caller: Caller, cancelled: Callable[[], bool]) -> IngestReceiver:
        return IngestReceiver(
            archive.ingest,
            archive.store,
            archive.audit,
            caller=caller,
            receiving_ae_title=ae_title,
            cancelled=cancelled,
            most=settings.process.max_instances,
        )

    return Fetching(
        index=DatabaseRetrieveIndex(archive.database),
        peers=PollSCU(ae_title=ae_title, bounds=settings.association, polling=settings.poll),
        receiver=receiver,
        local_issuer=settings.identity.issuer_of_patient_id,
        uids_per_request=settings.poll.uids_per_request,
    )
