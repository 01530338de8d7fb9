"""Calls the decoder of a frame: ours where one is registered, else that which pydicom chooses.

Owns what must be right before a decoder is let loose on a codestream, and the
words in which pydicom wants to be told of an image. Samples are the codec's
own, but for JPEG's lossy processes in YBR, which come out as RGB. Refuses
codestreams that contradict their Data Set. PS3.5 Sections 8.2 and A.4.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import convert_color_space

from processing.codecs import codestream
from processing.codecs.frame import Form
from processing.codecs.registry import READERS
from processing.datasets.encapsulation import Fragments
from processing.datasets.image_pixel import ImagePixel, PixelsUndecodable
from processing.datasets.syntaxes import COMPRESSED, JPEG_LOSSLESS, JPEG_LOSSY


def available() -> list[str]:
    """List the compressed syntaxes for which a decoder is installed."""
    return sorted(uid for uid in COMPRESSED if get_decoder(uid).is_available)


def decoded(
    frames: Sequence[Fragments], syntax: str, image: ImagePixel
) -> Iterator[tuple[bytes, Any, str]]:
    """Yield each frame's codestream, its samples and their Photometric Interpretation."""
    chosen = _by_readers if syntax in READERS else _by_pydicom
    yield from chosen(frames, syntax, image)


def _by_readers(
    frames: Sequence[Fragments], syntax: str, image: ImagePixel
) -> Iterator[tuple[bytes, Any, str]]:
    form = image.form
    for fragments in frames:
        stream = b"".join(fragments)
        codestream.require_size(stream, syntax, form)
        named = form.samples > 1 and syntax in JPEG_LOSSLESS
        found = _agreed(codestream.jpeg_colors(stream) if named else "", form)
        yield stream, READERS[syntax](stream, form), "RGB" if found == "RGB" else form.photometric


def _by_pydicom(
    frames: Sequence[Fragments], syntax: str, image: ImagePixel
) -> Iterator[tuple[bytes, Any, str]]:
    """Let pydicom's decoders do it. Bits above Bits Stored are left to us: it would cut them off."""
    for fragments in frames:
        stream = b"".join(fragments)
        codestream.require_size(stream, syntax, image.form)
        if syntax in JPEG_LOSSY:
            codestream.require_end(stream)
    options = _options(image) | {"correct_unused_bits": False}
    arrays = get_decoder(syntax).iter_array(_encapsulated(frames), raw=True, **options)
    for fragments, (frame, properties) in zip(frames, arrays, strict=True):
        stream = b"".join(fragments)
        found = _agreed(str(properties["photometric_interpretation"]), image.form)
        if found.startswith("YBR") and syntax in JPEG_LOSSY:
            yield stream, convert_color_space(frame, "YBR_FULL", "RGB"), "RGB"
        else:
            yield stream, frame, found


def _agreed(found: str, form: Form) -> str:
    if found.startswith("YBR") and not form.photometric.startswith("YBR"):
        # The codestream says YBR, the Data Set RGB, and toolkits trust either.
        raise PixelsUndecodable("codestream contradicts Photometric Interpretation")
    return found


def _options(image: ImagePixel) -> dict[str, Any]:
    """Say what a decoder of pydicom's has to know, in its words."""
    form = image.form
    return {
        "rows": form.rows,
        "columns": form.columns,
        "samples_per_pixel": form.samples,
        "bits_allocated": form.bits_allocated,
        "bits_stored": form.bits_stored,
        "pixel_representation": int(form.signed),
        "planar_configuration": int(image.by_plane),
        "photometric_interpretation": form.photometric,
        "number_of_frames": image.frames,
        "pixel_keyword": "PixelData",
    }


def _encapsulated(frames: Sequence[Fragments]) -> bytes:
    """Lay the frames out as the decoders read them, a fragment each. PS3.5 A.4."""
    pieces: list[bytes | memoryview] = [_item(0)]
    for fragments in frames:
        pieces += [_item(sum(map(len, fragments))), *fragments]
    return b"".join(pieces)


def _item(length: int) -> bytes:
    return b"\xfe\xff\x00\xe0" + length.to_bytes(4, "little")
