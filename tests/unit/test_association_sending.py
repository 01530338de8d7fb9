"""A file's fragments are laid out whole, whatever Maximum Length the peer announced."""

import os
import struct
from pathlib import Path

import pytest

from pacs.association.pdu import LAST
from pacs.association.sending import Batch


@pytest.mark.parametrize("fragment_bytes", [2, 250, 1_000, 1_018, 16_378, 131_066])
def test_a_full_batch_holds_the_file_in_order(tmp_path: Path, fragment_bytes: int) -> None:
    batch = Batch(fragment_bytes)
    content = os.urandom(batch.capacity_bytes + 10)
    path = tmp_path / "data"
    path.write_bytes(content)
    with path.open("rb") as file:
        laid_out = batch.fill(file.fileno(), 10, batch.capacity_bytes, 7, ends=True).tobytes()
    values, at, control = [], 0, 0
    while at < len(laid_out):
        pdu_type, length, inner, context_id, control = struct.unpack_from(">BxLLBB", laid_out, at)
        assert (pdu_type, length, context_id) == (4, inner + 4, 7)
        assert inner - 2 <= fragment_bytes
        assert (control == LAST) == (at + 6 + length == len(laid_out))
        values.append(laid_out[at + 12 : at + 6 + length])
        at += 6 + length
    assert b"".join(values) == content[10:]
