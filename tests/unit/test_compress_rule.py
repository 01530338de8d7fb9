"""Which arrivals ask for compression, and for which job."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from config.settings import Storage
from pacs.app.compress import COMPRESS_SERIES, Series, rule
from pacs.core.attributes import Level
from pacs.core.caller import admin
from pacs.core.identifiers import (
    AETitle,
    Digest,
    ObjectId,
    Registrant,
    SeriesInstanceUID,
    SOPClassUID,
    SOPInstanceUID,
    StudyInstanceUID,
    TransferSyntaxUID,
)
from pacs.core.records import Arrival, Header, Instance, Job, Place, Provenance, Snapshot

RECEIVED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
INSTANCE = Instance(
    header=Header(
        sop_class_uid=SOPClassUID("1.2.840.10008.5.1.4.1.1.2"),
        sop_instance_uid=SOPInstanceUID("1.3"),
        study_instance_uid=StudyInstanceUID("1.1"),
        series_instance_uid=SeriesInstanceUID("1.2"),
        patient_id="P1",
        issuer_of_patient_id="",
        values={"Rows": "512"},
    ),
    place=Place(name="n", object_id=ObjectId("o"), size_bytes=2, data_set_offset=1),
    digest=Digest("blake3:0"),
    transfer_syntax_uid=TransferSyntaxUID("1.2.840.10008.1.2"),
    provenance=Provenance(
        registrant=Registrant("local"),
        issuer_of_patient_id="",
        received_utc=RECEIVED,
        association="a",
        source_ae_title=AETitle("CT1"),
        receiving_ae_title=AETitle("PACS"),
    ),
)


def asked(instance: Instance) -> list[Job]:
    arrival = Arrival(level=Level.IMAGE, caller=admin("test"), instance=instance)
    storage = Storage(compress="jpeg-ls", compress_delay_s=90.0)
    return list(rule(storage)(arrival, Snapshot(revision=1, peers={})))


def test_one_job_a_series_some_time_after_the_first_arrival() -> None:
    (job,) = asked(INSTANCE)
    assert job.kind == COMPRESS_SERIES
    assert msgspec.json.decode(job.payload, type=Series) == Series(
        registrant="local", study_instance_uid="1.1", series_instance_uid="1.2"
    )
    assert job.not_before_utc == RECEIVED + timedelta(seconds=90)
    sibling = replace(
        INSTANCE, header=replace(INSTANCE.header, sop_instance_uid=SOPInstanceUID("1.4"))
    )
    assert asked(sibling)[0].unique_key == job.unique_key
    other = replace(
        INSTANCE, provenance=replace(INSTANCE.provenance, registrant=Registrant("other"))
    )
    assert asked(other)[0].unique_key != job.unique_key


@pytest.mark.parametrize(
    "syntax", ["1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.5"]
)
def test_what_is_encoded_already_is_not_asked_about(syntax: str) -> None:
    assert asked(replace(INSTANCE, transfer_syntax_uid=TransferSyntaxUID(syntax))) == []


def test_what_has_no_pixels_is_not_asked_about() -> None:
    assert asked(replace(INSTANCE, header=replace(INSTANCE.header, values={}))) == []
