"""Smoothing by a Gaussian."""

from dataclasses import dataclass

import scipy

from processing.operations.operation import Code, Image, Kind, Operation, Values
from processing.operations.parameters import Parameters, length, unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Gaussian(Parameters):
    """Smooth by a Gaussian, the same in mm along rows and columns."""

    sigma: float = length(1.0, least=0.01, most=100.0, says="Standard deviation")
    unit: str = unit()


def gaussian(image: Image, parameters: Gaussian) -> Values:
    """Convolve with a Gaussian cut at four standard deviations; the edge is repeated."""
    sigma_px = image.in_pixels(parameters.sigma, parameters.unit)
    values: Values = scipy.ndimage.gaussian_filter(image.values, sigma_px, mode="nearest")
    return values


OPERATION = Operation(
    name="gaussian",
    version="1.0",
    kind=Kind.IMAGE,
    parameters=Gaussian,
    run=gaussian,
    contrast="FILTERED",
    code=Code(value="113088", meaning="Gaussian blur"),
)
