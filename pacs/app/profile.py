"""Profiles put together from the archive's parts: their arrival rules, their jobs, and who changes them."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING

from pacs.app.process import processor_of
from pacs.core.caller import admin
from pacs.core.errors import (
    InstanceCorrupt,
    InstanceIncomplete,
    InstanceNotFound,
    InstanceUnreadable,
)
from pacs.core.identifiers import AETitle
from pacs.core.processing import ProcessingOrder
from pacs.core.workitem_errors import WorkitemUnknown
from pacs.jobs.kinds import JobKind
from pacs.services.process.words import inputs_of
from pacs.services.process.workitem import workitem_of
from pacs.services.profile import ProfileRules, Profiles, arrived, tidy
from pacs.services.profile.asked import ARRIVED, QUEUE, TIDY, ArrivedWork, TidyWork
from pacs.services.profile.desk import Desk, name_patient
from pacs.services.route import Ourselves
from storage.database.process_result import ProcessResultTable
from storage.database.profile import ProfileIndex, ProfileTable
from storage.database.retrieve import DatabaseRetrieveIndex

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from pacs.app.archive import Archive
    from pacs.app.extension import Attached
    from pacs.core.records import Held, Place, Provenance


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
            results=ProcessResultTable(archive.database),
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


def attach(archive: "Archive", _: object) -> "Attached":
    """Give the arrival rules and jobs; what they ask for are workitems of this archive's worklist."""

    def compose(order: ProcessingOrder, inputs: Sequence["Held"], label: str) -> "Dataset":
        made = workitem_of(
            order,
            inputs_of(inputs),
            label=label,
            station=AETitle(archive.settings.dicom.ae_title),
        )
        with suppress(InstanceCorrupt, InstanceIncomplete, InstanceNotFound, InstanceUnreadable):
            name_patient(made, archive.reindex.read(inputs[0].place).header)
        return made

    return attached(archive, Desk(archive.workitems, compose, unknown=WorkitemUnknown))


@contextmanager
def profiles(archive: "Archive") -> Iterator[Profiles]:
    """What the command line does with profiles."""
    dicom = archive.settings.dicom
    with closing(processor_of(archive)) as processor:
        yield Profiles(
            rows=ProfileTable(archive.database),
            peers=lambda: archive.peers.list(admin("profile")),
            checked=lambda order: processor.checked(
                order.operation, order.parameters, order.version
            ),
            ourselves=Ourselves(ae_title=AETitle(dicom.ae_title), host=dicom.host, port=dicom.port),
            audit=archive.audit,
        )
