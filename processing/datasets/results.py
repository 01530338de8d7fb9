"""Results of operations as files: one Data Set each, encoded, described, placed and labelled.

Owns the way from values to a file in a folder, and the bound on their number.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from processing.datasets import derived as data_set
from processing.datasets import derived_pixels as pixels
from processing.datasets import derived_plane as plane
from processing.datasets.derived import MR, SECONDARY_CAPTURE, Label
from processing.datasets.derived_tables import OF_A_WINDOW, OF_SAMPLES, OF_VALUES
from processing.datasets.references import Reference, source_images
from processing.datasets.scale import DISPLAY_BITS, Scale, display, encoded, padded, spread_out
from processing.operations.operation import MAX_RESULTS, Meaning, NotProcessable, Values
from processing.operations.space import Projected

Samples = npt.NDArray[Any]

_MAX_SIDE = 0xFFFF
"""Rows and Columns are US. PS3.3 Section C.7.6.3."""
_NUMBER_OF_FRAMES = 0x0028_0008
_PER_FRAME = 0x5200_9230

COLOR_BITS = 16
"""Colours of more bits are scaled down to these: few classes and fewer viewers know deeper ones."""


class DoesNotFit(Exception):
    """A frame's values do not fit the samples that all frames share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a result is made of: the head it takes after, how that stores values, and all sources."""

    head: Dataset
    scale: Scale
    heads: Sequence[Dataset]
    references: tuple[Reference, ...]
    number: int
    scales: tuple[Scale, ...] = ()
    """How all sources store values, where that may differ."""
    is_frame: bool = False
    """It takes after one frame, which is no whole image of its class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """Files made for one request. ``made`` lists name, SOP Class and SOP Instance UID."""

    label: Label
    folder: Path
    made: list[tuple[str, str, str]] = field(default_factory=list)

    def gray(self, values: Values, origin: Origin, projected: Projected | None = None) -> None:
        """Keep one gray image; ``projected`` says where it lies if not where its source does."""
        _require_image(values, (), self.label)
        samples, scale = self._stored(values, origin)
        derived = self._begun_gray(origin, scale)
        pixels.describe_gray(derived, scale, samples.shape)
        self._say_values(derived, values, origin, scale)
        if projected is not None:
            plane.placed(derived, projected.grid, projected.thickness_mm)
        else:
            _stretched(derived, origin)
        self._finish(derived, origin, iter((samples,)))

    def color(self, colors: Values, bits: int, origin: Origin, *, as_capture: bool) -> None:
        """Keep one colour image."""
        _require_image(colors, (3,), self.label)
        derived = data_set.begun(origin.head, as_capture=as_capture)
        pixels.describe_color(derived, min(bits, COLOR_BITS), colors.shape)
        _stretched(derived, origin)
        samples = color_samples(colors, bits)
        self._finish(derived, origin, iter((samples,)), remark=_depth_lost(bits))

    def frames_of_gray(
        self, values: Iterator[Values], scales: Sequence[Scale], origin: Origin
    ) -> None:
        """Keep a multi-frame image as its source stores it. Raises ``DoesNotFit``; then nothing is kept."""
        if not self.label.operation.keeps_range:
            raise DoesNotFit  # each frame needs a window of its own
        derived = data_set.begun(origin.head, as_capture=False)
        if not self._keeps_values(origin, origin.scale):
            data_set.without(derived, OF_SAMPLES)
        first = next(values)

        def samples() -> Iterator[Samples]:
            for one, scale in zip(chain((first,), values), scales, strict=True):
                _require_image(one, (), self.label)
                fitting = scale.samples(one)
                if fitting is None:
                    raise DoesNotFit
                yield fitting

        pixels.describe_gray(derived, origin.scale, first.shape)
        _stretched(derived, origin)
        self._finish(derived, origin, samples())

    def frames_of_color(self, colors: Iterator[Values], bits: int, origin: Origin) -> None:
        """Keep a multi-frame colour image."""
        derived = data_set.begun(origin.head, as_capture=False)
        first = next(colors)
        pixels.describe_color(derived, min(bits, COLOR_BITS), first.shape)
        _stretched(derived, origin)

        def samples() -> Iterator[Samples]:
            for one in chain((first,), colors):
                _require_image(one, (3,), self.label)
                yield color_samples(one, bits)

        self._finish(derived, origin, samples(), remark=_depth_lost(bits))

    def _stored(self, values: Values, origin: Origin) -> tuple[Samples, Scale]:
        meaning = self.label.operation.meaning
        if meaning is Meaning.SAME:
            return encoded(values, origin.scale, origin.scales)
        if meaning is Meaning.OTHER:
            return spread_out(values)
        scale = padded(display()) if np.isnan(values).any() else display()
        samples = scale.samples(values * float((1 << DISPLAY_BITS) - 1))
        if samples is None:
            raise NotProcessable(f"{self.label.operation.name} gave levels that are none")
        return samples, scale

    def _begun_gray(self, origin: Origin, scale: Scale) -> Dataset:
        operation = self.label.operation
        stays = not origin.is_frame and data_set.stays_in_class(
            origin.head, operation.meaning, scale, origin.scale
        )
        derived = data_set.begun(origin.head, as_capture=not stays)
        if operation.meaning is not Meaning.SAME:
            data_set.without(derived, OF_VALUES)
        elif not operation.keeps_range:
            data_set.without(derived, OF_A_WINDOW)
        if not (self._keeps_values(origin, scale) and operation.keeps_range):
            data_set.without(derived, OF_SAMPLES)
        return derived

    def _keeps_values(self, origin: Origin, scale: Scale) -> bool:
        """Tell whether samples stand for what those of the source stood for, in its unit."""
        same = self.label.operation.meaning is Meaning.SAME
        return same and data_set.stored_alike(origin.head, scale, origin.scale)

    def _say_values(self, derived: Dataset, values: Values, origin: Origin, scale: Scale) -> None:
        """Say what samples stand for and which of them to show, where that is not as in the source."""
        operation = self.label.operation
        is_said = derived.SOPClassUID == origin.head.SOPClassUID and (
            derived.SOPClassUID == MR or self._keeps_values(origin, scale)
        )
        if not is_said:
            unit = data_set.unit_of(derived, origin.head, operation.meaning)
            pixels.rescaled(derived, scale, unit)
        if operation.meaning is Meaning.DISPLAY:
            pixels.shown_as_they_are(derived)
        elif not operation.keeps_range or not (
            is_said or "WindowCenter" in derived or "VOILUTSequence" in derived
        ):
            pixels.windowed(derived, values)

    def _finish(
        self, derived: Dataset, origin: Origin, frames: Iterator[Samples], *, remark: str = ""
    ) -> None:
        if len(self.made) >= MAX_RESULTS:
            raise NotProcessable(f"there would be more than {MAX_RESULTS} results")
        data_set.labelled(
            derived,
            origin.head,
            self.label,
            origin.references,
            number=origin.number,
            remark=remark,
        )
        if derived.SOPClassUID == SECONDARY_CAPTURE:
            plane.oriented(derived)
        data_set.warned(derived, origin.heads)
        framed = "SharedFunctionalGroupsSequence" in derived
        sources = b"" if framed else source_images(origin.references)
        name = f"{len(self.made)}.dcm"
        with (self.folder / name).open("wb") as file:
            pixels.write(derived, sources, frames, file)
        self.made.append((name, str(derived.SOPClassUID), str(derived.SOPInstanceUID)))


def _require_image(values: Values, samples: tuple[int, ...], label: Label) -> None:
    """Hold an operation, which others may have written, to giving an image. Raises ``NotProcessable``."""
    shape = getattr(values, "shape", ())
    sides = [one for one in shape[:2] if 0 < one <= _MAX_SIDE]
    if len(sides) < 2 or shape[2:] != samples:
        raise NotProcessable(f"{label.operation.name} gave no image")
    if values.dtype.kind != "f" or np.isinf(values).any():
        raise NotProcessable(f"{label.operation.name} gave values that are no numbers")


def _stretched(derived: Dataset, origin: Origin) -> None:
    """Another matrix over the same field of view has other pixels."""
    old = int(origin.head.Rows), int(origin.head.Columns)
    new = int(derived.Rows), int(derived.Columns)
    if old != new and "TotalPixelMatrixRows" in derived:
        raise NotProcessable("tiles of a larger image cannot be resized one by one")
    if old != new:
        plane.stretched(derived, old, new)
    if origin.is_frame and _has_one_position(origin.heads[0]):
        plane.unplaced(derived)


def _has_one_position(head: Dataset) -> bool:
    """Tell whether several frames are said to lie where one can: there are no groups of them."""
    return _NUMBER_OF_FRAMES in head and _PER_FRAME not in head


def color_samples(colors: Values, bits: int) -> Samples:
    """Round colours to whole samples of 16 bits at most, and cut what is beyond them."""
    stored = min(bits, COLOR_BITS)
    if bits > stored:
        colors = colors * (((1 << stored) - 1) / ((1 << bits) - 1))
    samples = np.clip(np.rint(colors), 0, (1 << stored) - 1)
    return samples.astype("<u1" if stored <= 8 else "<u2")


def _depth_lost(bits: int) -> str:
    """Say what no attribute says: colours have no rescale."""
    return f"samples of {bits} bits scaled to {COLOR_BITS}" if bits > COLOR_BITS else ""
