"""An archive in this process and instances made for it: what the tests of records and administration share."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import dcmwrite
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from config.load import Loaded, load
from pacs.app.archive import Archive, open_archive
from pacs.app.extension import Extension
from pacs.app.home import initialize
from pacs.core.attributes import Level
from pacs.core.caller import Caller, Right, SubscriberName, Visibility, admin
from pacs.core.identifiers import (
    AETitle,
    Registrant,
    SOPClassUID,
    SOPInstanceUID,
    TransferSyntaxUID,
)
from pacs.core.ports import Gate
from pacs.core.records import IncomingMeta, Provenance, StoreOutcome
from storage.database.connection import Database
from storage.database.tables import TABLES, Kind
from storage.instances.incoming import DiskIncoming

ADMIN = admin("test")
NO_CHORES = {
    "forward__purge_cron": "",
    "jobs__purge_deletions_cron": "",
    "jobs__purge_jobs_cron": "",
    "process__purge_cron": "",
    "process__settle_cron": "",
    "storage__compress_tidy_cron": "",
    "workitems__purge_cron": "",
}
"""For tests that count jobs: whatever the clock says, the archive asks for none of its own."""


def loaded_for(home: Path, url: str = "", **overrides: str) -> Loaded:
    """Make settings; ``overrides`` are named ``table__key``."""
    named = {"storage__reserve_bytes": "0", "database__url": url, "dicom__port": "0", **overrides}
    return load(home, {f"PACS_{key.upper()}": value for key, value in named.items()})


@contextmanager
def opened(
    home: Path,
    url: str = "",
    *,
    gate: Gate | None = None,
    extensions: Sequence[Extension] = (),
    **overrides: str,
) -> Iterator[Archive]:
    """Initialize and open an archive."""
    loaded = loaded_for(home, url, **overrides)
    initialize(home, loaded)
    with open_archive(home, loaded, gate=gate, extensions=extensions) as archive:
        yield archive


def data_set(study: str, series: str, sop: str, **values: Any) -> Dataset:
    """Make a small CT object."""
    made = Dataset()
    made.SOPClassUID = CTImageStorage
    made.StudyInstanceUID, made.SeriesInstanceUID, made.SOPInstanceUID = study, series, sop
    made.PatientID, made.PatientName, made.Modality = "P1", "Doe^Jane", "CT"
    made.StudyDate, made.StudyTime, made.InstanceNumber = "20240501", "101010", "1"
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def encoded(made: Dataset) -> bytes:
    """Encode as it travels in Explicit VR Little Endian."""
    wire = DicomBytesIO()
    dcmwrite(wire, made, implicit_vr=False, little_endian=True)
    return wire.getvalue()


def caller_of(name: str = "local") -> Caller:
    """A peer of one subscriber."""
    return Caller(
        subscriber=SubscriberName(name),
        rights=frozenset(Right),
        visibility=Visibility(registrants=frozenset({Registrant(name)})),
        issuer_of_patient_id="issuer",
    )


@contextmanager
def incoming_of(
    archive: Archive,
    made: Dataset,
    *,
    registrant: str = "local",
    source: str = "CT1",
    called: str = "PACS",
    ago_s: float = 0.0,
) -> Iterator[DiskIncoming]:
    """Write an instance to where it arrives; ``ago_s`` says how long ago it was received."""
    meta = IncomingMeta(
        sop_class_uid=SOPClassUID(made.SOPClassUID),
        sop_instance_uid=SOPInstanceUID(made.SOPInstanceUID),
        transfer_syntax_uid=TransferSyntaxUID(ExplicitVRLittleEndian),
        provenance=Provenance(
            registrant=Registrant(registrant),
            issuer_of_patient_id="issuer",
            received_utc=datetime.now(UTC) - timedelta(seconds=ago_s),
            association="test",
            source_ae_title=AETitle(source),
            receiving_ae_title=AETitle(called),
        ),
    )
    with archive.store.incoming(meta) as incoming:
        incoming.write(memoryview(encoded(made)))
        yield incoming


def keep(
    archive: Archive, made: Dataset, *, registrant: str = "local", **arrival: Any
) -> StoreOutcome:
    """Take an instance in as C-STORE does; ``arrival`` as ``incoming_of`` takes it."""
    with incoming_of(archive, made, registrant=registrant, **arrival) as incoming:
        return archive.ingest.accept(caller_of(registrant), incoming)


def listed(archive: Archive, level: Level, **keys: str) -> list[dict[str, str]]:
    """List what a query of the administrator finds."""
    return [dict(row) for row in archive.listing.rows(ADMIN, level, keys)]


def delivered(archive: Archive, sop: str) -> list[str]:
    """Object ids of the versions that a retrieve delivers."""
    rows = archive.database.execute(
        "SELECT object_id FROM instance WHERE sop_instance_uid = ? AND delivered = 1", (sop,)
    )
    return [row[0] for row in rows]


def object_ids(archive: Archive, sop: str) -> list[str]:
    """Object ids of all versions of a SOP Instance, deleted ones included, oldest first."""
    rows = archive.database.execute(
        "SELECT object_id FROM instance WHERE sop_instance_uid = ? ORDER BY object_id", (sop,)
    )
    return [row[0] for row in rows]


_NATURAL = {
    "series_row": "SELECT id, origin FROM series",
    "study_row": "SELECT id, origin FROM study",
    "patient_row": "SELECT id, origin FROM patient",
}


def tables(database: Database, kind: Kind) -> dict[str, list[tuple[tuple[str, object], ...]]]:
    """Read all tables of a kind; surrogate row numbers become the object id of what they name.

    A series, a study and a patient may have the same origin, so their own keys
    stay beside it.
    """
    natural = {
        column: {row[0]: row[1] for row in database.execute(sql)}
        for column, sql in _NATURAL.items()
    }
    found = {}
    for table in TABLES:
        if table.kind is kind:
            columns = columns_of(database, table.name)
            rows = [
                tuple(
                    (column, natural[column][value] if column in natural else value)
                    for column, value in zip(columns, row, strict=True)
                    if column != "id" or kind is Kind.RECORD
                )
                for row in database.execute(f"SELECT * FROM {table.name}")
            ]
            found[table.name] = sorted(rows, key=repr)
    return found


def columns_of(database: Database, table: str) -> list[str]:
    """List the columns of a table in their order."""
    if database.dialect == "sqlite":
        return [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
    return [
        row[0]
        for row in database.execute(
            "SELECT column_name FROM information_schema.columns WHERE table_name = ? "
            "AND table_schema = 'public' ORDER BY ordinal_position",
            (table,),
        )
    ]
