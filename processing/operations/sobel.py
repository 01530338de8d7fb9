"""The steepest slope at each pixel, by Sobel's kernels."""

from dataclasses import dataclass

from processing.operations.gradient import SOBEL, magnitude
from processing.operations.operation import (
    Code,
    Colors,
    Image,
    Kind,
    Meaning,
    Operation,
    Values,
)
from processing.operations.parameters import Parameters, unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Sobel(Parameters):
    """Differentiate by Sobel's kernels: the steepest slope, per mm or per pixel."""

    unit: str = unit()


def sobel(image: Image, parameters: Sobel) -> Values:
    """Give the magnitude of the gradient."""
    return magnitude(image, SOBEL, parameters.unit)


OPERATION = Operation(
    name="sobel",
    version="1.0",
    kind=Kind.IMAGE,
    parameters=Sobel,
    run=sobel,
    contrast="FILTERED",
    code=Code(value="113086", meaning="Edge enhancement"),
    meaning=Meaning.OTHER,
    colors=Colors.LUMINANCE,
)
