"""Which fragments of encapsulated Pixel Data make up which frame. PS3.5 Section A.4.

Owns the judgement of offset tables, which writers get wrong more often than
they get the fragments wrong: a table is believed only where the codestreams do
not tell. Refuses whatever does not come to Number of Frames, rather than to
deliver some of the frames, or parts of two as one.
"""

import struct
from collections.abc import Callable, Sequence

from processing.codecs import codestream
from processing.datasets.image_pixel import PixelsUndecodable

_ITEM_HEADER_BYTES = 8

Fragments = Sequence[memoryview]
Offsets = Sequence[int]


def basic_offsets(table: memoryview) -> Offsets:
    """Read the Basic Offset Table; what is no table of 32-bit numbers is none."""
    return struct.unpack(f"<{len(table) // 4}I", table) if len(table) % 4 == 0 else ()


def extended_offsets(table: memoryview) -> Offsets:
    """Read the Extended Offset Table. PS3.3 Section C.7.6.3.1.8."""
    return struct.unpack(f"<{len(table) // 8}Q", table) if len(table) % 8 == 0 else ()


def by_frame(fragments: Fragments, offsets: Offsets, frames: int, syntax: str) -> list[Fragments]:
    """Give the fragments of each frame. Raises ``PixelsUndecodable``.

    ``offsets`` say where the items of first fragments begin, counted from the
    first item. Empty fragments are nobody's, and so are zeros at the end.
    """
    places = [place for place, one in enumerate(fragments) if len(one)]
    while len(places) > frames and not bytes(fragments[places[-1]]).strip(b"\0"):
        places.pop()
    kept = [fragments[place] for place in places]
    if len(kept) == frames:
        return [[one] for one in kept]
    begins = _item_begins(fragments)
    at_place = {begins[place]: at for at, place in enumerate(places)}
    table = [at_place.get(one, -1) for one in offsets]
    first = _first_fragments(kept, table if -1 not in table else [], frames, syntax)
    return [kept[at:end] for at, end in zip(first, [*first[1:], len(kept)], strict=True)]


def _item_begins(fragments: Fragments) -> list[int]:
    begins, at = [], 0
    for one in fragments:
        begins.append(at)
        at += _ITEM_HEADER_BYTES + len(one)
    return begins


def _first_fragments(kept: Fragments, table: list[int], frames: int, syntax: str) -> list[int]:
    """Tell which fragments begin frames: by their codestreams' starts, by the table, by their ends."""
    starts = _where(kept, codestream.begins, syntax)
    after = [at + 1 for at in _where(kept, codestream.ends, syntax)]
    candidates = [starts, table, [0, *after[:-1]] if after and after[-1] == len(kept) else []]
    if len(kept) > frames >= len(starts):
        for first in candidates:
            if len(first) == frames and first[0] == 0 and first == sorted(set(first)):
                return first
        if frames == 1 and len(table) <= 1:
            return [0]
    raise PixelsUndecodable("fragments do not make up Number of Frames")


def _where(kept: Fragments, test: Callable[[memoryview, str], bool], syntax: str) -> list[int]:
    return [at for at, one in enumerate(kept) if test(one, syntax)]
