"""The steepest slope at each pixel, by Prewitt's kernels."""

from dataclasses import dataclass

from processing.operations.gradient import PREWITT, magnitude
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
class Prewitt(Parameters):
    """Differentiate by Prewitt's kernels: the steepest slope, per mm or per pixel."""

    unit: str = unit()


def prewitt(image: Image, parameters: Prewitt) -> Values:
    """Give the magnitude of the gradient."""
    return magnitude(image, PREWITT, parameters.unit)


OPERATION = Operation(
    name="prewitt",
    version="1.0",
    kind=Kind.IMAGE,
    parameters=Prewitt,
    run=prewitt,
    contrast="FILTERED",
    code=Code(value="113086", meaning="Edge enhancement"),
    meaning=Meaning.OTHER,
    colors=Colors.LUMINANCE,
)
