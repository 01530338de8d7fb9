"""Codecs give back every sample they take, and refuse what their syntax does not carry."""

from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.pixels.decoders.base import get_decoder

from processing.codecs import codestream
from processing.codecs.codestream import SizeContradicted
from processing.codecs.frame import (
    ColorsNotCarried,
    DepthNotCarried,
    Form,
    NotEncodable,
    Samples,
    SizeNotCarried,
    from_patterns,
    numbers,
    patterns,
)
from processing.codecs.registry import CODECS, READERS

ARC = "1.2.840.10008.1.2.4."
RLE = "1.2.840.10008.1.2.5"
GRAY = Form(
    rows=5,
    columns=7,
    samples=1,
    bits_allocated=16,
    bits_stored=12,
    signed=False,
    photometric="MONOCHROME2",
)


def noise(form: Form, seed: int, *, smooth: bool = False) -> Samples:
    """Make an image; the extremes of its range are in it where there is room."""
    low = -(1 << form.bits_stored - 1) if form.signed else 0
    high = low + (1 << form.bits_stored)
    random = np.random.default_rng(seed)
    image = random.integers(low, low + 2 if smooth else high, size=form.shape)
    image.flat[0], image.flat[-1] = high - 1, low
    return image.astype(form.cell)


@st.composite
def forms(draw: st.DrawFn) -> Form:
    photometric = draw(
        st.sampled_from(["MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR_FULL"])
    )
    allocated = draw(st.sampled_from([8, 16, 32]))
    monochrome = photometric.startswith("MONO")
    return Form(
        rows=draw(st.integers(1, 70)),
        columns=draw(st.integers(1, 70)),
        samples=3 if photometric in ("RGB", "YBR_FULL") else 1,
        bits_allocated=allocated,
        bits_stored=draw(st.integers(1, allocated)),
        signed=monochrome and draw(st.booleans()),
        photometric=photometric,
    )


@pytest.mark.parametrize("syntax", sorted(CODECS))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(form=forms(), seed=st.integers(0, 1 << 30), smooth=st.booleans())
def test_every_image_that_is_not_refused_comes_back(
    syntax: str, form: Form, seed: int, smooth: bool
) -> None:
    codec = CODECS[syntax]
    try:
        codec.check(form)
    except NotEncodable:
        assert form.bits_allocated == 32 or form.bits_stored == 1
        return
    samples = noise(form, seed, smooth=smooth)
    stream = codec.encode(samples, form)
    assert np.array_equal(codec.decode(stream, form), samples)
    codestream.require_size(stream, syntax, form)
    if syntax in READERS:
        found = numbers(READERS[syntax](stream, form), form)
        assert found is not None and np.array_equal(found, samples)


PRECISION = {
    ARC + "57": (b"\xff\xc3", 4),
    ARC + "70": (b"\xff\xc3", 4),
    ARC + "80": (b"\xff\xf7", 4),
    ARC + "90": (b"\xff\x51", 40),
    ARC + "201": (b"\xff\x51", 40),
    ARC + "202": (b"\xff\x51", 40),
}


@pytest.mark.parametrize("syntax", sorted(PRECISION))
@pytest.mark.parametrize("bits", range(2, 17))
@pytest.mark.parametrize("signed", [False, True])
def test_the_codestream_says_bits_stored(syntax: str, bits: int, signed: bool) -> None:
    form = replace(GRAY, rows=40, columns=40, bits_stored=bits, signed=signed)
    stream = CODECS[syntax].encode(noise(form, bits), form)
    marker, at = PRECISION[syntax]
    said = stream[stream.find(marker) + at]
    knows_sign = marker == b"\xff\x51"
    if knows_sign:
        assert said == bits - 1 | (0x80 if signed else 0)
    else:
        assert said == (bits if bits > 8 else 16)  # whole cells, as other readers want them


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("syntax", sorted(CODECS))
@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
def test_colours_mean_the_same_to_pydicom(syntax: str, photometric: str) -> None:
    form = replace(GRAY, samples=3, bits_allocated=8, bits_stored=8, photometric=photometric)
    samples = noise(form, 1)
    decoder = get_decoder(syntax)
    frames = decoder.iter_array(
        b"\xfe\xff\x00\xe0\0\0\0\0" + item(CODECS[syntax].encode(samples, form)),
        raw=True,
        rows=form.rows,
        columns=form.columns,
        samples_per_pixel=3,
        bits_allocated=8,
        bits_stored=8,
        pixel_representation=0,
        planar_configuration=0,
        photometric_interpretation=photometric,
        number_of_frames=1,
        pixel_keyword="PixelData",
    )
    found, properties = next(iter(frames))
    assert np.array_equal(found, samples)
    assert properties["photometric_interpretation"] == photometric


def item(stream: bytes) -> bytes:
    stream += b"\0" * (len(stream) % 2)
    return b"\xfe\xff\x00\xe0" + len(stream).to_bytes(4, "little") + stream


@pytest.mark.parametrize("syntax", sorted(CODECS))
@pytest.mark.parametrize(
    ("form", "kind"),
    [
        (replace(GRAY, photometric="YBR_FULL_422", samples=3), ColorsNotCarried),
        (replace(GRAY, photometric="YBR_RCT", samples=3), ColorsNotCarried),
        (replace(GRAY, photometric="RGB", samples=1), ColorsNotCarried),
        (replace(GRAY, photometric="MONOCHROME2", samples=3), ColorsNotCarried),
        (replace(GRAY, photometric="PALETTE COLOR", signed=True), ColorsNotCarried),
        (replace(GRAY, photometric="", samples=4), ColorsNotCarried),
        (replace(GRAY, bits_stored=17), DepthNotCarried),
        (replace(GRAY, bits_allocated=64, bits_stored=64), DepthNotCarried),
        (replace(GRAY, bits_allocated=1, bits_stored=1), DepthNotCarried),
    ],
)
def test_what_the_standard_does_not_list_is_refused(
    syntax: str, form: Form, kind: type[NotEncodable]
) -> None:
    with pytest.raises(kind):
        CODECS[syntax].check(form)


@pytest.mark.parametrize("syntax", sorted(set(CODECS) - {RLE}))
def test_what_size_fields_cannot_say_is_refused(syntax: str) -> None:
    with pytest.raises(SizeNotCarried):
        CODECS[syntax].check(replace(GRAY, rows=1 << 16))
    with pytest.raises(DepthNotCarried):
        CODECS[syntax].check(replace(GRAY, bits_allocated=32, bits_stored=32))


def test_rle_rows_are_packed_one_by_one() -> None:
    """PS3.5 Section G.3.1: a run does not cross the end of a row."""
    form = replace(GRAY, rows=2, columns=130, bits_allocated=8, bits_stored=8)
    stream = CODECS[RLE].encode(np.zeros(form.shape, "u1"), form)
    assert stream[:8] == b"\1\0\0\0\x40\0\0\0"
    assert stream[64:] == b"\x81\0\xff\0" * 2  # 128 and 2 zeros, twice


def test_htj2k_for_resolution_order_has_its_lengths_and_small_beginnings() -> None:
    form = replace(GRAY, rows=200, columns=4100)
    stream = CODECS[ARC + "202"].encode(noise(form, 3), form)
    style = stream.find(b"\xff\x52")
    assert b"\xff\x55" in stream[:400]  # TLM
    assert stream[style + 5] == 2  # RPCL
    assert stream[style + 9] == 7  # 4100 / 2**7 <= 64


@given(
    bits=st.integers(1, 16), values=st.lists(st.integers(0, (1 << 16) - 1), min_size=1, max_size=9)
)
@pytest.mark.parametrize("signed", [False, True])
def test_numbers_lose_nothing_or_refuse(signed: bool, bits: int, values: list[int]) -> None:
    form = replace(GRAY, rows=1, columns=len(values), bits_stored=bits, signed=signed)
    cells = np.array([values], "<u2").view(form.cell)
    found = numbers(cells, form)
    mask = (1 << bits) - 1
    if found is None:
        above = {value >> bits for value in values}
        assert above - {0}
    else:
        assert [int(one) & mask for one in found.flat] == [value & mask for value in values]
        assert np.array_equal(from_patterns(patterns(found, form), form), found)


@pytest.mark.parametrize("syntax", sorted(set(CODECS) - {RLE}))
def test_a_codestream_of_another_size_is_refused_before_decoding(syntax: str) -> None:
    stream = CODECS[syntax].encode(noise(GRAY, 1), GRAY)
    codestream.require_size(stream, syntax, GRAY)
    wrong = (replace(GRAY, rows=6), replace(GRAY, columns=8), replace(GRAY, samples=3))
    for form in wrong:
        with pytest.raises(SizeContradicted):
            codestream.require_size(stream, syntax, form)
    for end in range(stream.find(b"\x00\x05") + 2):
        with pytest.raises(SizeContradicted):
            codestream.require_size(stream[:end], syntax, GRAY)


@given(stream=st.binary(max_size=200))
@pytest.mark.parametrize("syntax", [ARC + "50", ARC + "70", ARC + "80", ARC + "90", ARC + "201"])
def test_no_bytes_make_the_size_check_fail_otherwise(syntax: str, stream: bytes) -> None:
    try:
        codestream.require_size(b"\xff\xd8" + stream, syntax, GRAY)
    except SizeContradicted:
        return
    raise AssertionError("random bytes of the right size")


@given(
    head=st.sampled_from([b"\xff\xd8", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  "]), rest=st.binary()
)
@pytest.mark.parametrize("syntax", [ARC + "50", ARC + "81", ARC + "91", ARC + "203"])
def test_no_bytes_make_a_codestream_fail_otherwise(syntax: str, head: bytes, rest: bytes) -> None:
    stream = head + rest
    for ask in (codestream.precision, codestream.is_lossy):
        with suppress(SizeContradicted):
            assert 0 <= ask(stream, syntax) <= 255
    assert codestream.ends(memoryview(stream + b"\xff\xd9\0"), syntax)
    assert not codestream.begins(memoryview(stream), RLE)


@pytest.mark.parametrize("syntax", sorted(set(CODECS) - {RLE}))
@pytest.mark.parametrize("bits", [9, 12, 16])
def test_codestreams_say_their_precision_and_that_they_lost_nothing(syntax: str, bits: int) -> None:
    form = replace(GRAY, rows=40, columns=40, bits_stored=bits)
    stream = CODECS[syntax].encode(noise(form, 3), form)
    assert codestream.precision(stream, syntax) == bits
    assert not codestream.is_lossy(stream, syntax)
    assert codestream.begins(memoryview(stream), syntax)
    assert codestream.ends(memoryview(stream + bytes(9)), syntax)


@pytest.mark.parametrize("bits", [9, 12])
def test_signs_are_repeated_in_a_jpeg_ls_stream_of_whole_cells(bits: int) -> None:
    """So small an image is written with a precision of its cells, which hold the sign then."""
    form = replace(GRAY, rows=1, columns=1, bits_stored=bits, signed=True)
    samples = np.full(form.shape, -5, form.cell)
    stream = CODECS[ARC + "80"].encode(samples, form)
    assert codestream.precision(stream, ARC + "80") == 16
    assert READERS[ARC + "80"](stream, form).tolist() == [[-5]]
    assert CODECS[ARC + "80"].decode(stream, form).tolist() == [[-5]]


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
def test_jpeg_lossless_names_its_components_rgb_only_where_they_are(photometric: str) -> None:
    color = np.zeros((4, 4, 3), "u1")
    form = replace(GRAY, rows=4, columns=4, samples=3, bits_allocated=8, bits_stored=8)
    stream = CODECS[ARC + "70"].encode(color, replace(form, photometric=photometric))
    start = stream.find(b"\xff\xc3") + 10
    identifiers = stream[start : start + 9 : 3]
    assert identifiers == (b"RGB" if photometric == "RGB" else b"\1\2\3")
    assert (b"Adobe" in stream) is (photometric == "RGB")
    assert b"JFIF" not in stream
