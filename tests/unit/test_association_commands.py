"""Command sets: what is written is read, and strangers' bytes are refused. PS3.7 Section 6.3."""

from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom.dsutils import decode

from pacs.association.commands import CommandRefused, decode_command, encode_command

COMMAND = {
    "CommandField": 0x8001,
    "MessageIDBeingRespondedTo": 7,
    "CommandDataSetType": 0x0101,
    "AffectedSOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
    "Status": 0xA900,
    "OffendingElement": (0x00100020, 0x0020000D),
    "ErrorComment": "Data Set does not match",
}


def test_what_is_written_is_read() -> None:
    assert decode_command(encode_command(COMMAND)) == {
        **COMMAND,
        "CommandGroupLength": len(encode_command(COMMAND)) - 12,
    }


def test_pynetdicom_reads_the_same() -> None:
    read = decode(BytesIO(encode_command(COMMAND)), True, True)
    assert read.Status == 0xA900
    assert [int(tag) for tag in read.OffendingElement] == [0x00100020, 0x0020000D]
    assert read.AffectedSOPClassUID == COMMAND["AffectedSOPClassUID"]


@given(st.binary(max_size=80))
def test_any_bytes_are_read_or_refused(encoded: bytes) -> None:
    try:
        command = decode_command(encoded)
    except CommandRefused:
        return
    assert isinstance(command["CommandField"], int)


@pytest.mark.parametrize("cut", [1, 7, 11, 13, 30])
def test_a_cut_off_command_is_refused(cut: int) -> None:
    with pytest.raises(CommandRefused):
        decode_command(encode_command(COMMAND)[:-cut])


def test_what_is_no_command_element_is_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="PatientName"):
        encode_command({"PatientName": "x"})
