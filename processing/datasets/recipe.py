"""What, beside a re-encoded form, it takes to write the Data Set as received again.

Owns the bytes before and behind the value of Pixel Data, kept as the little in
which they differ from the form's own, and how samples become that value. Made
of text, because it is kept in the form's File Meta Information. Refuses what
would not stay small.
"""

import json
import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Final

MAX_RECIPE_CHARACTERS: Final = 524_288
"""With a longer one the form would be half of a recipe: the original stays as it is."""
MAX_REST_BYTES: Final = 67_108_864
"""So many bytes beside Pixel Data are taken apart; more are not worth it."""
MAX_TAIL_BYTES: Final = 65_536
"""What may follow the last sample within Pixel Data: padding, and rarely more."""

_PIECE_BYTES: Final = 16_384
_WINDOW_BYTES: Final = 32_768  # zlib looks no further back in a preset dictionary


class RecipeUnusable(ValueError):
    """The recipe is damaged, or would be too long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """How a form's decoded samples, little endian and colour by pixel, become a value.

    ``swap_bytes`` is the size of the words that are turned round, 1 for none.
    ``tail`` follows the last sample.
    """

    frames: int
    frame_bytes: int
    cell_bytes: int
    planes: int
    swap_bytes: int
    tail: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """``pixels`` is where Pixel Data begins and ends in the form, header included.

    ``element`` is the same of its header in ``rest``, all else of the Data Set
    as received: the value belongs behind it.
    """

    pixels: tuple[int, int]
    element: tuple[int, int]
    samples: Samples
    rest: bytes = field(repr=False)

    def without_pixels(self) -> bytes:
        """Give the Data Set as received without the element Pixel Data."""
        return self.rest[: self.element[0]] + self.rest[self.element[1] :]


def dumps(recipe: Recipe, form_rest: bytes) -> str:
    """Write a recipe; ``form_rest`` is all of the form but Pixel Data. Raises ``RecipeUnusable``."""
    samples = recipe.samples
    text = json.dumps(
        {
            "pixels": recipe.pixels,
            "element": recipe.element,
            "samples": [
                samples.frames,
                samples.frame_bytes,
                samples.cell_bytes,
                samples.planes,
                samples.swap_bytes,
            ],
            "tail": b64encode(samples.tail).decode(),
            "bytes": len(recipe.rest),
            "rest": [b64encode(one).decode() for one in _deflated(recipe.rest, form_rest)],
        },
        separators=(",", ":"),
    )
    if len(text) > MAX_RECIPE_CHARACTERS:
        raise RecipeUnusable("the recipe would be too long")
    return text


def pixels_of(text: str) -> tuple[int, int]:
    """Tell where Pixel Data lies in the form. Raises ``RecipeUnusable``."""
    try:
        begin, end = map(int, json.loads(text)["pixels"])
    except (ValueError, KeyError, TypeError) as error:
        raise RecipeUnusable("the recipe is damaged") from error
    if not 0 <= begin <= end:
        raise RecipeUnusable("the recipe is damaged")
    return begin, end


def loads(text: str, form_rest: bytes) -> Recipe:
    """Read back what ``dumps`` wrote, with the same ``form_rest``. Raises ``RecipeUnusable``."""
    try:
        said = json.loads(text)
        frames, frame_bytes, cell_bytes, planes, swap_bytes = map(int, said["samples"])
        first, last = said["element"]
        recipe = Recipe(
            pixels=pixels_of(text),
            element=(int(first), int(last)),
            samples=Samples(
                frames=frames,
                frame_bytes=frame_bytes,
                cell_bytes=cell_bytes,
                planes=planes,
                swap_bytes=swap_bytes,
                tail=b64decode(said["tail"], validate=True),
            ),
            rest=_inflated([b64decode(one) for one in said["rest"]], int(said["bytes"]), form_rest),
        )
    except (ValueError, KeyError, TypeError, zlib.error) as error:
        raise RecipeUnusable("the recipe is damaged") from error
    if not 0 <= recipe.element[0] <= recipe.element[1] <= len(recipe.rest):
        raise RecipeUnusable("the recipe is damaged")
    return recipe


def _windows(size: int, form_rest: bytes) -> Iterator[tuple[int, bytes]]:
    """For each piece of ``size`` bytes: where it begins, and what of the form lies about there.

    Both hold the same elements in the same order, so they run in proportion.
    """
    for start in range(0, size, _PIECE_BYTES):
        middle = (start + _PIECE_BYTES // 2) * len(form_rest) // max(size, _PIECE_BYTES)
        begin = max(0, min(middle - _WINDOW_BYTES // 2, len(form_rest) - _WINDOW_BYTES))
        yield start, form_rest[begin : begin + _WINDOW_BYTES]


def _deflated(rest: bytes, form_rest: bytes) -> Iterator[bytes]:
    if len(rest) > MAX_REST_BYTES:
        raise RecipeUnusable("there is too much beside Pixel Data")
    for start, window in _windows(len(rest), form_rest):
        deflater = zlib.compressobj(9, wbits=-zlib.MAX_WBITS, zdict=window)
        yield deflater.compress(rest[start : start + _PIECE_BYTES]) + deflater.flush()


def _inflated(pieces: list[bytes], size: int, form_rest: bytes) -> bytes:
    if not 0 <= size <= MAX_REST_BYTES:
        raise RecipeUnusable("the recipe is damaged")
    rest = bytearray()
    for piece, (_, window) in zip(pieces, _windows(size, form_rest), strict=True):
        inflater = zlib.decompressobj(wbits=-zlib.MAX_WBITS, zdict=window)
        rest += inflater.decompress(piece, _PIECE_BYTES)
        if not inflater.eof:
            raise RecipeUnusable("the recipe is damaged")
    if len(rest) != size:
        raise RecipeUnusable("the recipe is damaged")
    return bytes(rest)


def head(data_set: BinaryIO, text: str) -> bytes:
    """Give the Data Set as received without Pixel Data; ``data_set`` is the form's. No codec is asked."""
    begin, end = pixels_of(text)
    first = data_set.read(begin)
    data_set.seek(end)
    return loads(text, first + data_set.read(MAX_REST_BYTES)).without_pixels()
