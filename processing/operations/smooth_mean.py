"""Smoothing by the mean of a square neighbourhood."""

from dataclasses import dataclass

import scipy

from processing.operations.operation import Code, Image, Kind, Operation, Values
from processing.operations.parameters import Parameters, whole


@dataclass(frozen=True, slots=True, kw_only=True)
class SmoothMean(Parameters):
    """Smooth by the mean of a square neighbourhood."""

    size_px: int = whole(3, least=3, most=101, odd=True, says="Side of the neighbourhood")


def smooth_mean(image: Image, parameters: SmoothMean) -> Values:
    """Give every pixel the mean around it; the image is repeated beyond its edge."""
    values: Values = scipy.ndimage.uniform_filter(image.values, parameters.size_px, mode="nearest")
    return values


OPERATION = Operation(
    name="smooth-mean",
    version="1.0",
    kind=Kind.IMAGE,
    parameters=SmoothMean,
    run=smooth_mean,
    contrast="FILTERED",
    code=Code(value="113087", meaning="Smoothing"),
)
