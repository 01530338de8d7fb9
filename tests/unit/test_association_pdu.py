"""Framing: caps before bodies, PDVs that add up. PS3.8 Section 9.3."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacs.association.pdu import PduBounds, PduReader, PduRefused, split_pdvs

BOUNDS = PduBounds(associate_bytes=8_192, data_bytes=4_096)


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
        (4, 5, 6),
        (5, 1_025, 6),
        (7, 0, 6),
    ],
)
def test_a_wrong_header_is_refused_before_its_body(pdu_type: int, length: int, reason: int) -> None:
    with pytest.raises(PduRefused) as refused:
        PduReader(BOUNDS).feed(header(pdu_type, length))
    assert refused.value.reason == reason


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=4), st.data())
def test_pieces_of_any_size_make_the_same_pdus(values: list[bytes], data: st.DataObject) -> None:
    pdus = []
    for value in values:
        body = struct.pack(">LBB", len(value) + 2, 1, 3) + value
        pdus.append(header(4, len(body)) + body)
    stream, reader, seen = b"".join(pdus), PduReader(BOUNDS), []
    while stream:
        size = data.draw(st.integers(1, reader.wanted_bytes))
        whole = reader.feed(stream[:size])
        stream = stream[size:]
        if whole is not None:
            seen.append(whole)
    assert seen == pdus
    assert not reader.partial
    assert [bytes(pdv.value) for one in seen for pdv in split_pdvs(one)] == values


@given(st.binary(max_size=64))
def test_any_body_is_split_or_refused(body: bytes) -> None:
    pdu = header(4, len(body)) + body
    try:
        pdvs = list(split_pdvs(pdu))
    except PduRefused:
        return
    assert sum(len(one.value) + 6 for one in pdvs) == len(body)
