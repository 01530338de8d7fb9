"""Unsharp mask: what a Gaussian takes away is added once more."""

from dataclasses import dataclass

import scipy

from processing.operations.operation import Code, Image, Kind, Operation, Values
from processing.operations.parameters import Parameters, length, number, unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsharp(Parameters):
    """Sharpen by an unsharp mask."""

    sigma: float = length(1.5, least=0.01, most=100.0, says="Standard deviation of the mask")
    amount: float = number(0.7, least=0, most=10, says="How much of the difference is added")
    unit: str = unit()


def unsharp(image: Image, parameters: Unsharp) -> Values:
    """Add the difference to the smoothed image."""
    sigma_px = image.in_pixels(parameters.sigma, parameters.unit)
    smoothed = scipy.ndimage.gaussian_filter(image.values, sigma_px, mode="nearest")
    values: Values = image.values + parameters.amount * (image.values - smoothed)
    return values


OPERATION = Operation(
    name="unsharp",
    version="1.0",
    kind=Kind.IMAGE,
    parameters=Unsharp,
    run=unsharp,
    contrast="FILTERED",
    code=Code(value="113089", meaning="Unsharp mask"),
)
