"""Smoothing by the median, which keeps edges and takes single outliers away."""

from dataclasses import dataclass

import scipy

from processing.operations.operation import Code, Image, Kind, Operation, Values
from processing.operations.parameters import Parameters, whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Median(Parameters):
    """Smooth by the median of a square neighbourhood."""

    size_px: int = whole(3, least=3, most=31, odd=True, says="Side of the neighbourhood")


def median(image: Image, parameters: Median) -> Values:
    """Give every pixel the median around it; the image is repeated beyond its edge."""
    values: Values = scipy.ndimage.median_filter(image.values, parameters.size_px, mode="nearest")
    return values


OPERATION = Operation(
    name="median",
    version="1.0",
    kind=Kind.IMAGE,
    parameters=Median,
    run=median,
    contrast="FILTERED",
    code=Code(value="113087", meaning="Smoothing"),
)
