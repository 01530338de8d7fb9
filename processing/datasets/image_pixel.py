"""The Image Pixel module of a Data Set, as far as a codec has to know it, and its changes.

Owns the reading of what describes Pixel Data, and of overlays that hide in it.
Refuses to touch pixels. PS3.3 Sections C.7.6.3 and C.9.2.
"""

from dataclasses import dataclass

from processing.codecs.frame import Form
from processing.datasets.elements import DataSet, Element
from processing.datasets.value_representations import number

SAMPLES_PER_PIXEL = 0x0028_0002
PHOTOMETRIC_INTERPRETATION = 0x0028_0004
PLANAR_CONFIGURATION = 0x0028_0006
BITS_STORED = 0x0028_0101
HIGH_BIT = 0x0028_0102
LOSSY_IMAGE_COMPRESSION = 0x0028_2110
EXTENDED_OFFSETS = (0x7FE0_0001, 0x7FE0_0002)

_NUMBER_OF_FRAMES = 0x0028_0008
_ROWS = 0x0028_0010
_COLUMNS = 0x0028_0011
_BITS_ALLOCATED = 0x0028_0100
_PIXEL_REPRESENTATION = 0x0028_0103
_OVERLAY_BIT_POSITION = 0x6000_0102


class PixelsUndecodable(ValueError):
    """The Pixel Data do not become what the Image Pixel module says they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePixel:
    """What a Data Set says of its Pixel Data."""

    form: Form
    frames: int
    by_plane: bool
    """Planar Configuration is 1."""
    high_bit: int
    one_bit: bool = False
    """Bits Allocated is 1; ``form`` is of the bytes that such cells are decoded to."""


def described(elements: DataSet, *, one_bit: bool = False) -> ImagePixel:
    """Read the module. Raises ``PixelsUndecodable`` where it is missing or of no native form.

    Single bits have such a form where the caller unpacks and packs them (``one_bit``).
    """
    bits_allocated = number(elements, _BITS_ALLOCATED) or 0
    bits_stored = number(elements, BITS_STORED) or bits_allocated
    high_bit = number(elements, HIGH_BIT)
    one_bit = one_bit and bits_allocated == bits_stored == 1
    bits_allocated = 8 if one_bit else bits_allocated
    form = Form(
        rows=number(elements, _ROWS) or 0,
        columns=number(elements, _COLUMNS) or 0,
        samples=number(elements, SAMPLES_PER_PIXEL) or 1,
        bits_allocated=bits_allocated,
        bits_stored=bits_stored,
        signed=number(elements, _PIXEL_REPRESENTATION) == 1,
        photometric=text(elements, PHOTOMETRIC_INTERPRETATION),
    )
    if not (form.rows and form.columns) or bits_allocated not in (8, 16, 32):
        raise PixelsUndecodable("Image Pixel attributes are missing or of no native form")
    return ImagePixel(
        form=form,
        frames=max(1, int(text(elements, _NUMBER_OF_FRAMES) or 1)),
        by_plane=number(elements, PLANAR_CONFIGURATION) == 1,
        high_bit=bits_stored - 1 if high_bit is None else high_bit,
        one_bit=one_bit,
    )


def embeds_overlay(elements: DataSet) -> bool:
    """Tell whether Overlay Bit Position points into the pixels. PS3.3 C.9.2, retired use."""
    positions = [tag for tag in elements if tag & 0xFF00_FFFF == _OVERLAY_BIT_POSITION]
    return any(tag & 0xFFFF_0000 | 0x3000 not in elements for tag in positions)


def text(elements: DataSet, tag: int) -> str:
    """A CS or IS value without its padding, empty where there is none."""
    element = elements.get(tag)
    return "" if element is None else bytes(element.value).decode("ascii").strip(" \0")


def put_text(elements: DataSet, tag: int, value: str) -> None:
    """Set a CS element."""
    put(elements, tag, b"CS", (value + " " * (len(value) % 2)).encode())


def put(elements: DataSet, tag: int, vr: bytes, value: bytes) -> None:
    """Set an element, its value in little endian."""
    elements[tag] = Element(tag=tag, vr=vr, value=memoryview(value))
