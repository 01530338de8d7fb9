"""What an operation is: its name and version, what it takes, what its results mean.

Owns the words every operation is described in. Values are modality values:
after rescale, in the unit the modality states, NaN where the image holds
padding instead of a measurement. Refuses to know Data Sets; how a result becomes
one is decided in ``processing.datasets.derived``.
"""

import enum
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.floating[Any]]
"""Rows × columns of modality values."""
Mask = npt.NDArray[np.bool_]

MAX_RESULTS = 4_096
"""Images that one request may give."""


class NotProcessable(ValueError):
    """These images cannot be processed so; the text says why, without a word from the images."""


class SpacingUnknown(NotProcessable):
    """A length in mm is asked of an image that does not state how large its pixels are."""


class Kind(enum.Enum):
    """What one result is made of."""

    IMAGE = "each image"
    VOLUME = "each volume"
    SET = "images of the same place"


class Meaning(enum.Enum):
    """What the values of a result are."""

    SAME = "the unit of the source"
    OTHER = "another unit"
    DISPLAY = "display levels, 0 to 1"


class Colors(enum.Enum):
    """What becomes of a colour image, whose samples are red, green and blue."""

    EACH = "each sample by itself"
    LUMINANCE = "luminance only, the result is gray"
    KEPT = "luminance is changed, colours are kept"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One image, or one sample of it. ``spacing_mm`` is between rows, between columns.

    ``measured`` is false where ``values`` stand in for padding; ``None`` where all are measured.
    """

    values: Values
    spacing_mm: tuple[float, float] | None = None
    measured: Mask | None = None

    def in_pixels(self, length: float, unit: str) -> tuple[float, float]:
        """Give a length in pixels along a column and along a row. Raises ``SpacingUnknown``."""
        if unit == "px":
            return length, length
        between_rows_mm, between_columns_mm = self.needed_spacing()
        return length / between_rows_mm, length / between_columns_mm

    def needed_spacing(self) -> tuple[float, float]:
        """Give the size of a pixel. Raises ``SpacingUnknown``."""
        if self.spacing_mm is None:
            raise SpacingUnknown(
                "an image does not say how large its pixels are in mm: give unit=px"
            )
        return self.spacing_mm


@dataclass(frozen=True, slots=True, kw_only=True)
class Combined:
    """One result of several images: its values, and by number which images it was made of."""

    values: Values
    sources: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """A code of PS3.16 CID 7203, Image Derivation."""

    value: str
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation. ``run`` takes what its ``kind`` says and an instance of ``parameters``.

    For ``Kind.IMAGE``: (Image, parameters) → Values, which may have another
    shape. For ``Kind.SET``: (Sequence[Image], parameters) → Iterator[Combined].
    For ``Kind.VOLUME``: (Volume, parameters) → Iterator[Projected], see ``space``.
    ``contrast`` is the derived pixel contrast of Image Type, PS3.3 Table C.8-131.
    ``keeps_range`` is false where values keep their unit but not their range, as
    differences and sums do: the window of the source would not show them.
    ``divisible``: a ``Kind.VOLUME`` operation that computes only its ``Volume.share``.
    """

    name: str
    version: str
    kind: Kind
    parameters: type[Any]
    run: Callable[[Any, Any], Any]
    contrast: str
    code: Code | None = None
    meaning: Meaning = Meaning.SAME
    colors: Colors = Colors.EACH
    keeps_range: bool = True
    divisible: bool = False

    @property
    def summary(self) -> str:
        """The first line of what its parameters say."""
        return (self.parameters.__doc__ or "").strip().splitlines()[0]


def run_on_image(operation: Operation, image: Image, parameters: object) -> Values:
    """Run a ``Kind.IMAGE`` operation; padding has no influence and is padding again."""
    padding = np.isnan(image.values)
    if not padding.any():
        result: Values = operation.run(image, parameters)
        return result
    if padding.all():
        return np.full(operation.run(_blank(image), parameters).shape, np.nan)
    filled = Image(
        values=_filled(image.values, padding), spacing_mm=image.spacing_mm, measured=~padding
    )
    values: Values = operation.run(filled, parameters)
    return np.where(_resized(padding, values.shape), np.nan, values)


def run_on_set(
    operation: Operation, images: Sequence[Image], parameters: object
) -> Iterator[Combined]:
    """Run a ``Kind.SET`` operation on images of one size and place."""
    results: Iterator[Combined] = operation.run(images, parameters)
    return results


def _blank(image: Image) -> Image:
    return Image(values=np.zeros_like(image.values), spacing_mm=image.spacing_mm)


def _filled(values: Values, padding: Mask) -> Values:
    """Let padding repeat what was measured nearest to it, so that no edge arises there."""
    from scipy.ndimage import distance_transform_edt

    nearest = distance_transform_edt(padding, return_distances=False, return_indices=True)
    filled: Values = values[tuple(nearest)]
    return filled


def _resized(padding: Mask, shape: tuple[int, ...]) -> Mask:
    if padding.shape == shape:
        return padding
    rows = np.minimum(
        ((np.arange(shape[0]) + 0.5) * padding.shape[0] / shape[0]).astype(int),
        padding.shape[0] - 1,
    )
    columns = np.minimum(
        ((np.arange(shape[1]) + 0.5) * padding.shape[1] / shape[1]).astype(int),
        padding.shape[1] - 1,
    )
    resized: Mask = padding[np.ix_(rows, columns)]
    return resized
