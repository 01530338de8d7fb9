"""The derivative in one direction of the image plane."""

import math
from dataclasses import dataclass

from processing.operations.gradient import SOBEL, slopes
from processing.operations.operation import (
    Code,
    Colors,
    Image,
    Kind,
    Meaning,
    Operation,
    Values,
)
from processing.operations.parameters import Parameters, number, unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Directional(Parameters):
    """Differentiate in one direction: the slope with its sign, per mm or per pixel."""

    angle_deg: float = number(
        0.0, least=-360, most=360, says="0 is along a row to the right, 90 down a column"
    )
    unit: str = unit()


def directional(image: Image, parameters: Directional) -> Values:
    """Project the gradient, by Sobel's kernels, on the direction."""
    down, right = slopes(image, SOBEL, parameters.unit)
    angle = math.radians(parameters.angle_deg)
    values: Values = right * math.cos(angle) + down * math.sin(angle)
    return values


OPERATION = Operation(
    name="directional",
    version="1.0",
    kind=Kind.IMAGE,
    parameters=Directional,
    run=directional,
    contrast="FILTERED",
    code=Code(value="113086", meaning="Edge enhancement"),
    meaning=Meaning.OTHER,
    colors=Colors.LUMINANCE,
)
