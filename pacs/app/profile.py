"""Profiles put together from the archive's parts: their arrival rules, their jobs, and who changes them."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from pacs.core.caller import admin
from pacs.core.errors import ProcessingUnknown
from pacs.core.identifiers import AETitle
from pacs.core.processing import OperationFact, ProcessingOrder, Processor
from pacs.jobs.kinds import JobKind
from pacs.services.profile import ProfileRules, Profiles, arrived, tidy
from pacs.services.profile.asked import ARRIVED, QUEUE, TIDY, ArrivedWork, TidyWork
from pacs.services.profile.desk import Desk
from pacs.services.route import Ourselves
from processing.datasets.process import SandboxedProcessor
from storage.database.profile import ProfileIndex, ProfileTable
from storage.database.retrieve import DatabaseRetrieveIndex

if TYPE_CHECKING:
    from pacs.app.archive import Archive
    from pacs.app.extension import Attached
    from pacs.core.records import Place, Provenance


def attached(archive: "Archive", desk: Desk) -> "Attached":
    """Give the arrival rules, and the jobs that they and each other ask for."""
    from pacs.app.extension import Attached

    settings = archive.settings

    def origin(place: "Place") -> "Provenance":
        return archive.store.read_meta(place)[0].provenance

    arrivals = arrived.Arrivals(
        arrived.Parts(
            profiles=ProfileTable(archive.database),
            held=ProfileIndex(archive.database),
            index=DatabaseRetrieveIndex(archive.database),
            origin=origin,
            snapshots=archive.snapshots,
            desk=desk,
            audit=archive.audit,
            now=archive.job_table.now,
            arrival=settings.arrival,
            most=settings.process.max_instances,
        )
    )
    tidying = tidy.Tidying(
        tidy.Parts(
            profiles=ProfileTable(archive.database),
            held=ProfileIndex(archive.database),
            origin=origin,
            desk=desk,
            deletions=archive.deletions,
            now=archive.job_table.now,
        )
    )
    rules = ProfileRules(settings.arrival)
    return Attached(
        on_arrival=(rules.arrived,),
        on_repeat=(rules.repeated,),
        jobs={
            ARRIVED: JobKind(handler=arrivals.look, payload=ArrivedWork, queue=QUEUE),
            TIDY: JobKind(handler=tidying.look, payload=TidyWork, queue=QUEUE),
        },
    )


@contextmanager
def profiles(archive: "Archive") -> Iterator[Profiles]:
    """What the command line does with profiles."""
    dicom = archive.settings.dicom
    with closing(SandboxedProcessor(archive.settings.process, archive.scratch)) as processor:
        yield Profiles(
            rows=ProfileTable(archive.database),
            peers=lambda: archive.peers.list(admin("profile")),
            checked=lambda order: _checked(processor, order),
            ourselves=Ourselves(ae_title=AETitle(dicom.ae_title), host=dicom.host, port=dicom.port),
            audit=archive.audit,
        )


def _checked(processor: Processor, order: ProcessingOrder) -> OperationFact:
    """Give the operation of an order. Raises ``ProcessingUnknown``."""
    fact = processor.checked(order.operation, order.parameters)
    if order.version not in ("", fact.version):
        raise ProcessingUnknown(f"of {fact.name}, version {fact.version} is installed")
    return fact
