"""Framing: caps before bodies, PDVs that add up, in whatever pieces they come. PS3.8 Section 9.3."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.settings import Association
from pacs.association.pdu import PduReader, PduRefused, p_data_header

BOUNDS = Association(max_associate_pdu_bytes=8_192, max_pdu_bytes=4_096)


class Seen:
    """Remembers what it is told; pauses where it is asked to."""

    def __init__(self, pauses: bool = False) -> None:
        self.values: list[tuple[int, int, bytes]] = []
        self.pdus: list[bytes] = []
        self.begun = 0
        self._pauses = pauses
        self._value = b""

    def begins_data(self) -> None:
        self.begun += 1

    def takes(self, context_id: int, control: int, piece: memoryview, ended: bool) -> bool:
        self._value += piece
        if ended:
            self.values.append((context_id, control, self._value))
            self._value = b""
        return ended and self._pauses

    def takes_pdu(self, pdu: bytearray) -> bool:
        self.pdus.append(bytes(pdu))
        return self._pauses


def header(pdu_type: int, length: int) -> bytes:
    return struct.pack(">BxL", pdu_type, length)


@pytest.mark.parametrize(
    ("pdu_type", "length", "reason"),
    [
        (0, 10, 1),
        (8, 10, 1),
        (255, 10, 1),
        (1, 8_193, 6),
        (4, 2_000_000_000, 6),
        (4, 4_096 + 65, 6),
        (4, 5, 6),
        (5, 1_025, 6),
        (7, 0, 6),
    ],
)
def test_a_wrong_header_is_refused_before_its_body(pdu_type: int, length: int, reason: int) -> None:
    seen = Seen()
    with pytest.raises(PduRefused) as refused:
        PduReader(BOUNDS, seen).read(memoryview(header(pdu_type, length)))
    assert refused.value.reason == reason
    assert (seen.begun, seen.pdus) == (0, [])


@pytest.mark.parametrize("pdv_bytes", [0, 1, 9, 2_000, 0xFFFFFFFF])
def test_a_pdv_that_does_not_fit_its_pdu_is_refused(pdv_bytes: int) -> None:
    pdu = header(4, 10) + struct.pack(">LBB", pdv_bytes, 1, 3) + bytes(4)
    with pytest.raises(PduRefused) as refused:
        PduReader(BOUNDS, Seen()).read(memoryview(pdu))
    assert refused.value.reason == 6


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=4), st.booleans(), st.data())
def test_pieces_of_any_size_make_the_same_pdus(
    values: list[bytes], pauses: bool, data: st.DataObject
) -> None:
    release = header(5, 4) + bytes(4)
    pdus = [p_data_header(1, 3, len(value)) + value + release for value in values]
    seen = Seen(pauses)
    stream, reader, kept = b"".join(pdus), PduReader(BOUNDS, seen), b""
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        kept, stream = kept + stream[:size], stream[size:]
        while taken := reader.read(memoryview(kept)):
            kept = kept[taken:]
    assert kept == b""
    assert seen.values == [(1, 3, value) for value in values]
    assert seen.pdus == [release] * len(values)
    assert not reader.within_pdu


@given(st.binary(min_size=6, max_size=64))
def test_any_body_is_walked_or_refused(body: bytes) -> None:
    seen = Seen()
    reader = PduReader(BOUNDS, seen)
    pdu = memoryview(header(4, len(body)) + body)
    try:
        taken = reader.read(pdu)
    except PduRefused:
        return
    assert taken == len(pdu)
    assert sum(len(value) + 6 for _, _, value in seen.values) == len(body)
