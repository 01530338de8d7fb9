"""Routes put together from the archive's parts: their arrival rule, their jobs, and who judges and changes them."""

from datetime import tzinfo
from pathlib import Path
from typing import TYPE_CHECKING

from pacs.core.caller import admin
from pacs.core.errors import InstanceCorrupt, InstanceNotFound
from pacs.core.identifiers import AETitle
from pacs.jobs.kinds import JobKind
from pacs.jobs.schedules import zone
from pacs.services.header import read_dataset
from pacs.services.route import Judge, Ourselves, RouteRule, Routes
from pacs.services.route.asked import FIRE, PRIORS, QUEUE, FireWork, PriorsWork
from pacs.services.route.firing import Firing
from storage.database.find import DatabaseFindIndex
from storage.database.route import RouteIndex, RouteTable

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from pacs.app.archive import Archive
    from pacs.app.extension import Attached
    from pacs.core.identifiers import TransferSyntaxUID
    from pacs.core.records import Instance, Place


def time_zone(archive: "Archive") -> tzinfo:
    """The time zone of windows, that of the cron expressions. Raises ``SettingsInvalid``."""
    return zone(archive.settings.jobs.time_zone)


def attach(archive: "Archive", _: object) -> "Attached":
    """Give the arrival rule and the jobs that it asks for."""
    from pacs.app.extension import Attached

    firing = Firing(judge(archive), RouteIndex(archive.database))
    return Attached(
        on_arrival=(RouteRule(archive.settings.arrival, time_zone(archive)),),
        jobs={
            FIRE: JobKind(handler=firing.fire, payload=FireWork, queue=QUEUE),
            PRIORS: JobKind(handler=firing.priors, payload=PriorsWork, queue=QUEUE),
        },
    )


def judge(archive: "Archive") -> Judge:
    """The judge that forwarding asks (``pacs.core.forwarding.RouteJudge``)."""

    def read(place: "Place") -> "Instance":
        _check_whole(archive, place)
        return archive.reindex.read(place)

    def read_header(place: "Place", syntax: "TransferSyntaxUID") -> "Dataset":
        _check_whole(archive, place)
        with archive.store.open_data_set(place) as data_set:
            size_bytes = place.size_bytes - place.data_set_offset
            return read_dataset(data_set, size_bytes, syntax, archive.settings.parsing)

    return Judge(
        rows=RouteTable(archive.database),
        held=RouteIndex(archive.database),
        index=DatabaseFindIndex(archive.database),
        read=read,
        read_header=read_header,
        zone=time_zone(archive),
    )


def _check_whole(archive: "Archive", place: "Place") -> None:
    """Refuse a file that was cut: what it lacks would be taken for absent."""
    try:
        size_bytes = Path(archive.store.path(place)).stat().st_size
    except OSError as error:
        raise InstanceNotFound(f"file is missing: {place.name}") from error
    if size_bytes != place.size_bytes:
        raise InstanceCorrupt(f"not whole: {place.name}")


def routes(archive: "Archive") -> Routes:
    """What the command line does with routes."""
    dicom = archive.settings.dicom
    return Routes(
        rows=RouteTable(archive.database),
        peers=lambda: archive.peers.list(admin("route")),
        ourselves=Ourselves(ae_title=AETitle(dicom.ae_title), host=dicom.host, port=dicom.port),
        audit=archive.audit,
        zone=time_zone(archive),
        parsing=archive.settings.parsing,
    )
