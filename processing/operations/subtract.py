"""Subtraction of a mask from the images of the same place, as in angiography (DSA)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import skimage

from processing.operations.operation import (
    Code,
    Colors,
    Combined,
    Image,
    Kind,
    NotProcessable,
    Operation,
    Values,
)
from processing.operations.parameters import Parameters, choice, number, whole
from processing.operations.shift import shifted

_STEPS_PER_PIXEL = {"pixel": 1, "subpixel": 20}


@dataclass(frozen=True, slots=True, kw_only=True)
class Subtract(Parameters):
    """Subtract one image, the mask, from all others of the same place."""

    mask: int = whole(1, least=1, most=100_000, says="Which one it is, counted in order of time")
    shift: str = choice(
        "none", "pixel", "subpixel", "given", says="How the mask is moved to fit each image"
    )
    down_px: float = number(0.0, least=-512, most=512, says="How far, where it is given")
    right_px: float = number(0.0, least=-512, most=512, says="How far, where it is given")
    max_px: float = number(20.0, least=0, most=512, says="How far at most, where it is found")


def subtract(images: Sequence[Image], parameters: Subtract) -> Iterator[Combined]:
    """Give one image for each but the mask; it is padding where the moved mask does not reach.

    A shift is found by phase correlation; ``subpixel`` to a twentieth of a pixel.
    """
    number_ = parameters.mask - 1
    if number_ >= len(images):
        raise NotProcessable(f"mask is {parameters.mask}, of {len(images)} images of one place")
    mask = images[number_].values
    for other in range(len(images)):
        if other == number_:
            continue
        values = images[other].values
        down, right = _shift(values, mask, parameters)
        moved = shifted(mask, down, right) if down or right else mask
        yield Combined(values=values - moved, sources=(other, number_))


def _shift(values: Values, mask: Values, parameters: Subtract) -> tuple[float, float]:
    if parameters.shift == "none":
        return 0.0, 0.0
    if parameters.shift == "given":
        return parameters.down_px, parameters.right_px
    found, _, _ = skimage.registration.phase_cross_correlation(
        _even(values),
        _even(mask),
        upsample_factor=_STEPS_PER_PIXEL[parameters.shift],
        normalization=None,
    )
    down, right = map(float, found)
    if max(abs(down), abs(right)) > parameters.max_px:
        raise NotProcessable("the mask fits an image only further away than max_px")
    return down, right


def _even(values: Values) -> Values:
    """Let padding be neither bright nor dark."""
    missing = np.isnan(values)
    if missing.all():
        return np.zeros_like(values)
    middle = float(values[~missing].mean())
    return np.where(missing, 0.0, values - middle)


OPERATION = Operation(
    name="subtract",
    version="1.0",
    kind=Kind.SET,
    parameters=Subtract,
    run=subtract,
    contrast="SUBTRACTION",
    code=Code(value="113062", meaning="Pixel by pixel subtraction"),
    colors=Colors.REFUSED,
    keeps_range=False,
)
