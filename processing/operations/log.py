"""The Laplacian of a Gaussian: second derivatives at a chosen scale."""

from dataclasses import dataclass

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
from processing.operations.parameters import Parameters, length, unit

_REACH = 6.0
"""Standard deviations at which the Gaussian is cut: nearer, an even image would not become zero."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaplacianOfGaussian(Parameters):
    """Give the Laplacian of the image smoothed by a Gaussian, per mm² or per pixel²."""

    sigma: float = length(1.5, least=0.01, most=100.0, says="Standard deviation")
    unit: str = unit()


def log(image: Image, parameters: LaplacianOfGaussian) -> Values:
    """Convolve with the second derivatives of a Gaussian, and add."""
    sigma_px = image.in_pixels(parameters.sigma, parameters.unit)
    down, right = image.in_pixels(1.0, parameters.unit)

    def second(order: tuple[int, int]) -> Values:
        values: Values = scipy.ndimage.gaussian_filter(
            image.values, sigma_px, order=order, mode="nearest", truncate=_REACH
        )
        return values

    return second((2, 0)) * down**2 + second((0, 2)) * right**2


OPERATION = Operation(
    name="log",
    version="1.0",
    kind=Kind.IMAGE,
    parameters=LaplacianOfGaussian,
    run=log,
    contrast="FILTERED",
    code=Code(value="113086", meaning="Edge enhancement"),
    meaning=Meaning.OTHER,
    colors=Colors.LUMINANCE,
)
