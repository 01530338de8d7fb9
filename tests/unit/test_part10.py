"""File Meta Information as we write it: read by pydicom, read back by us, damage named. PS3.10 Section 7.1."""

from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacs.core.errors import InstanceCorrupt
from pacs.core.forms import FormMeta
from pacs.core.identifiers import (
    AETitle,
    Digest,
    Registrant,
    SOPClassUID,
    SOPInstanceUID,
    TransferSyntaxUID,
)
from pacs.core.records import IncomingMeta, Provenance
from storage.instances import part10

UIDS = st.from_regex(r"[1-9][0-9]{0,8}(\.[1-9][0-9]{0,8}){1,5}", fullmatch=True)
AE_TITLES = st.from_regex(r"[A-Za-z0-9_-]([A-Za-z0-9 _-]{0,14}[A-Za-z0-9_-])?", fullmatch=True)
TIMES = st.datetimes(timezones=st.just(UTC), min_value=datetime(2000, 1, 1))  # noqa: DTZ001


@st.composite
def metas(draw: st.DrawFn) -> IncomingMeta:
    return IncomingMeta(
        sop_class_uid=SOPClassUID(draw(UIDS)),
        sop_instance_uid=SOPInstanceUID(draw(UIDS)),
        transfer_syntax_uid=TransferSyntaxUID(draw(UIDS)),
        provenance=Provenance(
            registrant=Registrant(draw(st.text(max_size=20))),
            issuer_of_patient_id=draw(st.text(max_size=64)),
            received_utc=draw(TIMES),
            association=draw(st.text(max_size=40)),
            source_ae_title=AETitle(draw(AE_TITLES)),
            receiving_ae_title=AETitle(draw(AE_TITLES)),
        ),
    )


@given(metas())
def test_what_is_written_is_read_back(meta: IncomingMeta) -> None:
    encoded = part10.encode(meta)
    assert part10.data_set_offset(encoded[:144]) == len(encoded)
    assert part10.decode(encoded) == meta


@given(metas())
def test_pydicom_reads_it_without_a_warning(meta: IncomingMeta) -> None:
    read = pydicom.dcmread(BytesIO(part10.encode(meta))).file_meta
    assert str(read.MediaStorageSOPClassUID) == meta.sop_class_uid
    assert str(read.MediaStorageSOPInstanceUID) == meta.sop_instance_uid
    assert str(read.TransferSyntaxUID) == meta.transfer_syntax_uid
    assert read.SourceApplicationEntityTitle == meta.provenance.source_ae_title
    assert read.SendingApplicationEntityTitle == meta.provenance.source_ae_title
    assert read.ReceivingApplicationEntityTitle == meta.provenance.receiving_ae_title
    assert read.PrivateInformationCreatorUID == part10.PRIVATE_INFORMATION_CREATOR_UID
    assert read.FileMetaInformationVersion == b"\0\1"


def test_a_re_encoded_form_says_what_was_received() -> None:
    form = FormMeta(
        original_digest=Digest("blake3:0a"),
        original_syntax_uid=TransferSyntaxUID("1.2.840.10008.1.2"),
        original_bytes=12_345,
        recipe='{"rest":["a\\"b"]}' + "A" * 500_000,
    )
    plain = part10.decode(a_meta())
    assert plain.form is None
    held = replace(plain, form=form)
    encoded = part10.encode(held)
    assert part10.decode(encoded) == held
    assert part10.data_set_offset(encoded[:144]) == len(encoded)
    assert pydicom.dcmread(BytesIO(encoded)).file_meta.TransferSyntaxUID == "1.4"


@pytest.mark.parametrize("original", ["null, 5", '"text"', "{}", '{"digest": 1}', "[1]"])
def test_a_form_whose_origin_is_damaged_is_corrupt(original: str) -> None:
    damaged = a_meta().replace(
        b'"association": ""', f'"original": {original}'.encode()[:17].ljust(17)
    )
    with pytest.raises(InstanceCorrupt):
        part10.decode(damaged)


def a_meta() -> bytes:
    return part10.encode(
        IncomingMeta(
            sop_class_uid=SOPClassUID("1.2"),
            sop_instance_uid=SOPInstanceUID("1.3"),
            transfer_syntax_uid=TransferSyntaxUID("1.4"),
            provenance=Provenance(
                registrant=Registrant("local"),
                issuer_of_patient_id="",
                received_utc=datetime(2026, 1, 1, tzinfo=UTC),
                association="",
                source_ae_title=AETitle("A"),
                receiving_ae_title=AETitle("B"),
            ),
        )
    )


def test_every_element_has_an_even_length() -> None:
    encoded = a_meta()
    elements = part10._elements(encoded, len(encoded))
    assert [number for number, _ in elements] == sorted(number for number, _ in elements)
    assert all(len(value) % 2 == 0 for _, value in elements)


@pytest.mark.parametrize(
    "start",
    [
        b"",
        bytes(144),
        bytes(128) + b"DICM" + bytes(12),
        bytes(128) + b"DICM\x02\x00\x00\x00UL\x04\x00" + b"\xff\xff\xff\xff",
        a_meta()[:143],
    ],
    ids=["empty", "zeros", "no group length", "length out of bounds", "cut off"],
)
def test_a_start_that_is_not_ours_is_damage(start: bytes) -> None:
    with pytest.raises(InstanceCorrupt):
        part10.data_set_offset(start)


@given(st.integers(0, len(a_meta()) - 1))
def test_cut_off_anywhere_is_damage(length: int) -> None:
    with pytest.raises(InstanceCorrupt):
        part10.decode(a_meta()[:length])


@given(position=st.integers(132, len(a_meta()) - 1), value=st.integers(0, 255))
def test_a_wrong_byte_is_damage_or_another_value_but_no_other_error(
    position: int, value: int
) -> None:
    changed = bytearray(a_meta())
    changed[position] = value
    try:
        part10.decode(bytes(changed))
    except InstanceCorrupt:
        return
