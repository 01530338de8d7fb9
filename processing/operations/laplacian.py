"""The Laplacian: the sum of the second derivatives along rows and columns."""

from dataclasses import dataclass

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
from processing.operations.parameters import Parameters, unit

_SECOND = np.array([1.0, -2.0, 1.0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Laplacian(Parameters):
    """Give the sum of the second derivatives, per mm² or per pixel²."""

    unit: str = unit()


def laplacian(image: Image, parameters: Laplacian) -> Values:
    """Add second differences along both axes; the image is repeated beyond its edge."""
    down, right = image.in_pixels(1.0, parameters.unit)
    values: Values = (
        scipy.ndimage.correlate1d(image.values, _SECOND, axis=0, mode="nearest") * down**2
        + scipy.ndimage.correlate1d(image.values, _SECOND, axis=1, mode="nearest") * right**2
    )
    return values


OPERATION = Operation(
    name="laplacian",
    version="1.0",
    kind=Kind.IMAGE,
    parameters=Laplacian,
    run=laplacian,
    contrast="FILTERED",
    code=Code(value="113086", meaning="Edge enhancement"),
    meaning=Meaning.OTHER,
    colors=Colors.LUMINANCE,
)
