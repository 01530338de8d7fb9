"""The writer of lossless JPEG: every reader at hand gets the samples back, whatever they are."""

import imagecodecs
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processing.codecs import huffman, jpeg_lossless, second
from processing.codecs.frame import Form, patterns

UID = "1.2.840.10008.1.2.4.70"
SHAPES = ((1, 1), (1, 7), (9, 1), (3, 5), (64, 64), (33, 1_000), (130, 600))


def form(cells: npt.NDArray[np.generic], stored: int, photometric: str = "MONOCHROME2") -> Form:
    return Form(
        rows=cells.shape[0],
        columns=cells.shape[1],
        samples=1 if cells.ndim == 2 else cells.shape[2],
        bits_allocated=cells.dtype.itemsize * 8,
        bits_stored=stored,
        signed=cells.dtype.kind == "i",
        photometric=photometric,
    )


def read_by_others(stream: bytes, described: Form) -> list[npt.NDArray[np.generic]]:
    """By T. Richter's libjpeg, and gray by liblj92."""
    decode = second.decoder(UID)
    assert decode is not None
    pixels = decode(stream, version=2, photometric_interpretation=described.photometric)
    cell = f"<u{described.bits_allocated // 8}"
    found = [np.frombuffer(pixels, dtype=cell).reshape(described.shape)]
    if described.samples == 1:
        found.append(imagecodecs.ljpeg_decode(stream).reshape(described.shape))
    return found


def prove(cells: npt.NDArray[np.generic], stored: int, photometric: str = "MONOCHROME2") -> None:
    described = form(cells, stored, photometric)
    stream = jpeg_lossless.encode(cells, described)
    assert np.array_equal(jpeg_lossless.decode(stream, described), cells)
    for found in read_by_others(stream, described):
        assert np.array_equal(found, patterns(cells, described))


@pytest.mark.parametrize("stored", range(1, 17))
def test_any_depth_comes_back(stored: int) -> None:
    random = np.random.default_rng(stored)
    most = (1 << stored) - 1
    for shape in SHAPES:
        chess = np.indices(shape).sum(axis=0) % 2 * most
        steps = np.cumsum(random.integers(-2, 3, shape), axis=1) % (most + 1)
        for values in (random.integers(0, most + 1, shape), np.full(shape, most), chess, steps):
            prove(values.astype("<u2"), stored)
            prove((values - (most + 1) // 2).astype("<i2"), stored)
            if stored <= 8:
                prove(values.astype("<u1"), stored)


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
@pytest.mark.parametrize("cell", ["<u1", "<u2"])
def test_colors_come_back_as_the_components_they_are(cell: str, photometric: str) -> None:
    random = np.random.default_rng(3)
    for shape in ((1, 1, 3), (5, 3, 3), (100, 77, 3)):
        cells = random.integers(0, np.iinfo(cell).max + 1, shape).astype(cell)
        prove(cells, cells.dtype.itemsize * 8, photometric)


def test_a_code_never_gets_longer_than_the_standard_has_lengths_for() -> None:
    """Counts that double make the longest code there is: 17 bits, one too many."""
    sizes = [1 << category >> 1 for category in range(huffman.CATEGORIES)]
    differences = np.repeat(np.array(sizes, np.uint16), sizes)
    differences = np.concatenate([differences, np.zeros(1, np.uint16)])
    code = huffman.code_of(differences)
    lengths = {category: length for category, _, length in code.words}
    assert max(lengths.values()) == huffman.LONGEST_BITS
    assert len(lengths) == huffman.CATEGORIES


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.tuples(st.integers(0, 16), st.integers(0, 400)), min_size=1, max_size=17).filter(
        lambda found: any(count for _, count in found)
    )
)
def test_every_code_has_a_word_to_spare_and_none_begins_another(
    found: list[tuple[int, int]],
) -> None:
    differences = np.concatenate(
        [np.full(count, 1 << category >> 1, np.uint16) for category, count in found]
    )
    words = [f"{word:0{length}b}" for _, word, length in huffman.code_of(differences).words]
    assert not any(one.startswith(other) for one in words for other in words if one is not other)
    assert not any("0" not in one for one in words)  # T.81 Section C: ones only stand for nothing
