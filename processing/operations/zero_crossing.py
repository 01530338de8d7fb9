"""Edges where the Laplacian of a Gaussian changes its sign."""

from dataclasses import dataclass

import numpy as np

from processing.operations.log import LaplacianOfGaussian, log
from processing.operations.operation import (
    Code,
    Colors,
    Image,
    Kind,
    Mask,
    Meaning,
    Operation,
    Values,
)
from processing.operations.parameters import Parameters, length, number, unit


@dataclass(frozen=True, slots=True, kw_only=True)
class ZeroCrossing(Parameters):
    """Mark edges where the Laplacian of a Gaussian changes its sign."""

    sigma: float = length(1.5, least=0.01, most=100.0, says="Standard deviation")
    threshold: float = number(
        1.0, least=0, most=1e9, says="Least change, in modality units per mm² or pixel²"
    )
    unit: str = unit()


def zero_crossing(image: Image, parameters: ZeroCrossing) -> Values:
    """Give 1 where the sign changes towards the next row or column by ``threshold`` or more."""
    second = log(image, LaplacianOfGaussian(sigma=parameters.sigma, unit=parameters.unit))
    edges = np.zeros(second.shape, dtype=bool)
    edges[:-1] |= _crossing(second[:-1], second[1:], parameters.threshold)
    edges[:, :-1] |= _crossing(second[:, :-1], second[:, 1:], parameters.threshold)
    return edges.astype(np.float64)


def _crossing(here: Values, there: Values, threshold: float) -> Mask:
    crossing: Mask = ((here < 0) != (there < 0)) & (np.abs(here - there) >= threshold)
    return crossing


OPERATION = Operation(
    name="zero-crossing",
    version="1.0",
    kind=Kind.IMAGE,
    parameters=ZeroCrossing,
    run=zero_crossing,
    contrast="FILTERED",
    code=Code(value="113086", meaning="Edge enhancement"),
    meaning=Meaning.DISPLAY,
    colors=Colors.LUMINANCE,
)
