"""The quick ways of reading a header say what the thorough ones say, and refuse what they refuse."""

from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from config.settings import Parsing
from pacs.core.attributes import BY_TAG
from pacs.core.errors import PacsError
from pacs.services.header import values
from pacs.services.header.text import UNDECLARED
from pacs.services.header.walker import Walker
from tests.unit.test_header import (
    EXPLICIT,
    IDENTIFIERS,
    PIXELS,
    element,
    header_of,
    item,
    long_element,
)

TEXTUAL = sorted({one.vr for one in BY_TAG.values()} & values._TEXTUAL)
MANY = settings(max_examples=300, deadline=None)
TIGHT = Parsing(max_value_bytes=20, max_elements=9, max_header_bytes=2_400)

short = st.builds(
    element,
    st.sampled_from([*sorted(BY_TAG), 0x00080005, 0x00090010, 0x00081199, 0x7FE10010]),
    st.sampled_from(["LO", "PN", "CS", "DA", "TM", "UI", "US", "ZZ", "UN"]),
    st.binary(max_size=24).map(lambda raw: raw[: len(raw) // 2 * 2]),
)
nested = st.builds(long_element, st.just(0x00400275), st.just("SQ"), short.map(item))
unruly = st.lists(
    st.one_of(short, nested, st.sampled_from([*IDENTIFIERS.values(), PIXELS])), max_size=12
)


def outcome(raw: bytes, limits: Parsing) -> object:
    try:
        return header_of(raw, EXPLICIT, limits)
    except PacsError as refused:
        return type(refused), str(refused)


@MANY
@given(unruly, st.integers(0, 30), st.booleans(), st.sampled_from([Parsing(), TIGHT]))
def test_plain_elements_are_what_the_slower_steps_make_of_them(
    parts: list[bytes], lost: int, named: bool, limits: Parsing
) -> None:
    raw = b"".join([*(IDENTIFIERS.values() if named else ()), *parts])
    raw = raw[: len(raw) - lost]
    quick = outcome(raw, limits)
    with patch.object(Walker, "_plain_elements", lambda self, frame, position, tags: position):
        assert outcome(raw, limits) == quick


@MANY
@given(
    st.sampled_from(TEXTUAL),
    st.one_of(
        st.text("ab09 .:=^\\\0\x1b", max_size=20).map(str.encode),
        st.sampled_from([b"1998.01.02", b"12:30:01.5 ", b"A^B==", b" x\0", b"\0"]),
        st.binary(max_size=12),
    ),
)
def test_a_single_value_in_ascii_reads_as_the_longer_way_has_it(vr: str, raw: bytes) -> None:
    quick = values.text_of(vr, raw, UNDECLARED, little=True)
    with patch.object(values, "_SEVERAL", b""):  # found in everything: nothing is a single value
        assert values.text_of(vr, raw, UNDECLARED, little=True) == quick
