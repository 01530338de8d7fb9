"""Writes the Data Set as received out of a re-encoded form and its recipe, byte for byte.

Runs in the sandbox, because a codec is asked. Refuses to say that it is right:
whoever asked hashes what was written, outside of the sandbox. PS3.5 Sections 7.3 (byte order), 8.1 and A.4; PS3.3 Section C.7.6.3.1.3.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from processing.datasets import pixels, recipe, source
from processing.datasets.elements import PIXEL_DATA, DataSet, Element, Encoding, Reader
from processing.datasets.syntaxes import LOSSLESS
from processing.datasets.value_representations import dictionary_vr, number

Stored = tuple[str, int, str]
"""Path, offset of the Data Set, transfer syntax UID."""

_CHUNK_BYTES: Final = 1 << 20
_SAMPLES_PER_PIXEL = 0x0028_0002
_PLANAR_CONFIGURATION = 0x0028_0006
_NUMBER_OF_FRAMES = 0x0028_0008
_ROWS = 0x0028_0010
_COLUMNS = 0x0028_0011
_BITS_ALLOCATED = 0x0028_0100
_SAVING: Final = 0.98
"""A form that needs more than this part of the original's bytes is not worth having."""


class NotRestorable(ValueError):
    """The Data Set as received cannot be made of this form."""


class NothingSaved(ValueError):
    """The form needs as many bytes as what was received."""


class _Locator(Reader):
    """Reads top-level elements up to one, and tells where that lies."""

    def until(self, tag: int, encoding: Encoding) -> tuple[tuple[int, int], Element, DataSet]:
        """Give where the element begins and ends, the element, and those up to it."""
        elements: DataSet = {}
        while self._at < len(self._buffer):
            start = self._at
            found = self._tag(encoding)
            elements[found] = self._element(found, encoding, elements, 0)
            if found == tag:
                return (start, self._at), elements[found], elements
        raise NotRestorable("there is no Pixel Data")


def _located(buffer: memoryview, syntax: str) -> tuple[tuple[int, int], Element, DataSet]:
    reader = _Locator(buffer, lambda tag, siblings: dictionary_vr(tag, siblings) == "SQ")
    return reader.until(PIXEL_DATA, source.encoding_of(syntax))


def recipe_for(original: Stored, form: Stored, max_bytes: int) -> str:
    """Say how ``original`` is made of ``form``. Proves nothing."""
    received, made = _mapped(original, max_bytes), _mapped(form, max_bytes)
    (start, end), element, elements = _located(received, original[2])
    where, encapsulated, _ = _located(made, form[2])
    if element.fragments is not None or encapsulated.fragments is None:
        raise NotRestorable("only native Pixel Data can be made again")
    value_at = end - len(element.value)
    text = recipe.dumps(
        recipe.Recipe(
            pixels=where,
            element=(start, value_at),
            samples=_samples(element, elements),
            rest=bytes(received[:value_at]) + bytes(received[end:]),
        ),
        _rest(made, where),
    )
    if len(made) + len(text) > _SAVING * len(received):
        raise NothingSaved
    return text


def _mapped(stored: Stored, max_bytes: int) -> memoryview:
    path, offset, _ = stored
    with Path(path).open("rb") as file:
        whole = source.mapped(file)
    if len(whole) > max_bytes:
        raise source.TooLarge("stored file")
    return whole[offset:]


def _rest(made: memoryview, where: tuple[int, int]) -> bytes:
    """All of a form but Pixel Data."""
    return bytes(made[: where[0]]) + bytes(made[where[1] :])


def _samples(element: Element, elements: DataSet) -> recipe.Samples:
    """Say how the value of native Pixel Data lies, from what the Data Set says of it."""
    bits, many = number(elements, _BITS_ALLOCATED), number(elements, _SAMPLES_PER_PIXEL) or 1
    if bits not in (8, 16, 32):
        raise NotRestorable("Bits Allocated of no native form")
    frame_bytes = (number(elements, _ROWS) or 0) * (number(elements, _COLUMNS) or 0)
    frame_bytes *= many * bits // 8
    frames = _frames(elements)
    tail = element.value[frame_bytes * frames :]
    if len(element.value) < frame_bytes * frames or len(tail) > recipe.MAX_TAIL_BYTES:
        raise NotRestorable("Pixel Data have another length than their attributes say")
    by_plane = many > 1 and number(elements, _PLANAR_CONFIGURATION) == 1
    return recipe.Samples(
        frames=frames,
        frame_bytes=frame_bytes,
        cell_bytes=bits // 8,
        planes=many if by_plane else 1,
        swap_bytes=2 if element.big_endian and element.vr == b"OW" else 1,
        tail=bytes(tail),
    )


def _frames(elements: DataSet) -> int:
    element = elements.get(_NUMBER_OF_FRAMES)
    said = b"" if element is None else bytes(element.value).strip(b" \0")
    return max(1, int(said or 1))


def restored(form: Stored, text: str, output: str, folder: str, max_bytes: int) -> None:
    """Write what ``text`` makes of the form to ``output``; whether that was received is not known here."""
    made = _mapped(form, max_bytes)
    how = recipe.loads(text, _rest(made, recipe.pixels_of(text)))
    with Path(output).open("wb") as file:
        for piece in _pieces(form, how, folder, max_bytes):
            file.write(piece)


def _pieces(form: Stored, how: recipe.Recipe, folder: str, max_bytes: int) -> Iterator[bytes]:
    value_at = how.element[1]
    yield how.rest[:value_at]
    with source.opened(*form, folder=folder, max_bytes=max_bytes) as elements:
        if form[2] not in LOSSLESS:
            raise NotRestorable("the form's syntax is not lossless")
        only = _image(elements)
        pixels.decompress(only, form[2], folder=folder, max_bytes=max_bytes)
        yield from _value(only[PIXEL_DATA].value, how.samples)
    yield how.samples.tail
    yield how.rest[value_at:]


def _image(elements: DataSet) -> DataSet:
    """The elements without sequences: icons in them need not be decoded."""
    return {tag: one for tag, one in elements.items() if one.items is None}


def _value(native: memoryview, samples: recipe.Samples) -> Iterator[bytes]:
    """Lay decoded samples out as they were received."""
    whole = samples.frame_bytes * samples.frames
    if not whole <= len(native) <= whole + 1:
        raise NotRestorable("the form decodes to another length")
    if samples.planes > 1:
        for start in range(0, whole, samples.frame_bytes):
            frame = native[start : start + samples.frame_bytes]
            yield _swapped(_by_plane(frame, samples), samples.swap_bytes)
        return
    for start in range(0, whole, _CHUNK_BYTES):
        yield _swapped(bytes(native[start : min(start + _CHUNK_BYTES, whole)]), samples.swap_bytes)


def _by_plane(frame: memoryview, samples: recipe.Samples) -> bytes:
    cells = np.frombuffer(frame, dtype=f"<u{samples.cell_bytes}")
    return cells.reshape(-1, samples.planes).T.tobytes()


def _swapped(piece: bytes, word_bytes: int) -> bytes:
    if word_bytes == 1:
        return piece
    words = np.frombuffer(piece[: len(piece) - len(piece) % word_bytes], dtype=f"<u{word_bytes}")
    return words.byteswap().tobytes() + piece[words.nbytes :]
