"""How fast rows of arriving instances are committed, one durable transaction each."""

import os
import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime

from bench.index_questions import Measured
from bench.synthetic_index import CT, REGISTRANT
from pacs.core.identifiers import (
    AETitle,
    Digest,
    Registrant,
    SeriesInstanceUID,
    SOPClassUID,
    SOPInstanceUID,
    StudyInstanceUID,
    TransferSyntaxUID,
    new_object_id,
)
from pacs.core.records import Header, Instance, Place, Provenance
from storage.database.connection import Database
from storage.database.store import DatabaseRecords

_STUDIES = 50
_INSTANCES = 20  # of each study; half of the studies are of patients the archive knows


def ingest_rate(database: Database) -> dict[str, Measured]:
    """Commit instances of new studies one by one, as C-STORE does, without files."""
    records = DatabaseRecords(database, "first")
    instances = list(_instances(next(database.execute("SELECT COUNT(*) FROM patient"))[0]))
    times = []
    cpu = time.process_time()
    for one in instances:
        started = time.perf_counter()
        with records.transaction() as unit:
            unit.add_instance(one)
        times.append(time.perf_counter() - started)
    middle = 1000 * sorted(times)[len(times) // 2]
    note = f"{len(times) / sum(times):,.0f} a second, slowest {1000 * max(times):.0f} ms"
    measured = Measured(
        first_ms=middle,
        all_ms=middle,
        cpu_ms=1000 * (time.process_time() - cpu) / len(times),
        answers=0,
        note=note,
    )
    return {"rows of one instance, committed": measured}


def _instances(patients: int) -> Iterator[Instance]:
    draw = random.Random(os.urandom(8))  # an index that is kept is measured again with new UIDs
    provenance = Provenance(
        registrant=Registrant(REGISTRANT),
        issuer_of_patient_id="",
        received_utc=datetime.now(UTC),
        association="bench",
        source_ae_title=AETitle("CT1"),
        receiving_ae_title=AETitle("PACS"),
    )
    for number in range(_STUDIES):
        known = draw.randrange(1, patients + 1)
        patient = f"P{known:08d}" if number % 2 else f"N{draw.getrandbits(64)}"
        study = f"2.25.{draw.getrandbits(120)}"
        for image in range(_INSTANCES):
            header = _header(patient, study, image, draw)
            object_id = new_object_id()
            digest = f"blake3:{draw.getrandbits(256):064x}"
            name = f"2026/07/01/{study[-16:]}/{object_id}-{digest[7:]}.dcm"
            yield Instance(
                header=header,
                place=Place(
                    name=name, object_id=object_id, size_bytes=526_000, data_set_offset=1_100
                ),
                digest=Digest(digest),
                transfer_syntax_uid=TransferSyntaxUID("1.2.840.10008.1.2.1"),
                provenance=provenance,
            )


def _header(patient: str, study: str, image: int, draw: random.Random) -> Header:
    series, sop = f"{study}.1", f"2.25.{draw.getrandbits(128)}"
    values = {
        "PatientID": patient,
        "PatientName": "Mueller^Ingest",
        "StudyInstanceUID": study,
        "StudyDate": "20260701",
        "StudyTime": "120000",
        "AccessionNumber": study[-12:],
        "SeriesInstanceUID": series,
        "Modality": "CT",
        "SOPClassUID": CT,
        "SOPInstanceUID": sop,
        "InstanceNumber": str(image),
    }
    return Header(
        sop_class_uid=SOPClassUID(CT),
        sop_instance_uid=SOPInstanceUID(sop),
        study_instance_uid=StudyInstanceUID(study),
        series_instance_uid=SeriesInstanceUID(series),
        patient_id=patient,
        issuer_of_patient_id="",
        values=values,
    )
