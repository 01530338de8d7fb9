"""The steepest slope at each pixel, by Scharr's kernels."""

from dataclasses import dataclass

from processing.operations.gradient import SCHARR, magnitude
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
class Scharr(Parameters):
    """Differentiate by Scharr's kernels: the steepest slope, per mm or per pixel."""

    unit: str = unit()


def scharr(image: Image, parameters: Scharr) -> Values:
    """Give the magnitude of the gradient."""
    return magnitude(image, SCHARR, parameters.unit)


OPERATION = Operation(
    name="scharr",
    version="1.0",
    kind=Kind.IMAGE,
    parameters=Scharr,
    run=scharr,
    contrast="FILTERED",
    code=Code(value="113086", meaning="Edge enhancement"),
    meaning=Meaning.OTHER,
    colors=Colors.LUMINANCE,
)
