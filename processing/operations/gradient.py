"""First derivatives, shared by Sobel, Prewitt, Scharr and the directional derivative.

A kernel is a central difference along one axis and a smoothing along the
other, weighted so that a ramp gives its slope: per mm, or per pixel.
"""

from typing import Protocol

import numpy as np
import scipy

from processing.operations.operation import (
    Code,
    Colors,
    Image,
    Kind,
    Meaning,
    Operation,
    Values,
)

SOBEL = (1.0, 2.0, 1.0)
PREWITT = (1.0, 1.0, 1.0)
SCHARR = (3.0, 10.0, 3.0)


def slopes(image: Image, across: tuple[float, ...], unit: str) -> tuple[Values, Values]:
    """Give the slope towards higher row numbers and towards higher column numbers."""
    between_rows, between_columns = image.in_pixels(1.0, unit)
    difference, weights = np.array([-0.5, 0.0, 0.5]), np.array(across) / sum(across)
    down = _along(image.values, difference, weights) * between_rows
    right = _along(image.values.T, difference, weights).T * between_columns
    return down, right


def magnitude(image: Image, across: tuple[float, ...], unit: str) -> Values:
    """Give the steepest slope at each pixel."""
    down, right = slopes(image, across, unit)
    return np.hypot(down, right)


class InUnit(Protocol):
    """Parameters that say whether slopes are per mm or per pixel."""

    @property
    def unit(self) -> str: ...


def steepest(name: str, parameters: type[InUnit], across: tuple[float, ...]) -> Operation:
    """Make the operation that gives the magnitude of the gradient by these kernels."""

    def run(image: Image, given: InUnit) -> Values:
        return magnitude(image, across, given.unit)

    return Operation(
        name=name,
        version="1.0",
        kind=Kind.IMAGE,
        parameters=parameters,
        run=run,
        contrast="FILTERED",
        code=Code(value="113086", meaning="Edge enhancement"),
        meaning=Meaning.OTHER,
        colors=Colors.LUMINANCE,
    )


def _along(values: Values, difference: Values, weights: Values) -> Values:
    """Differ along rows' numbers, smooth along columns' numbers; the edge is repeated."""
    differed = scipy.ndimage.correlate1d(values, difference, axis=0, mode="nearest")
    smoothed: Values = scipy.ndimage.correlate1d(differed, weights, axis=1, mode="nearest")
    return smoothed
