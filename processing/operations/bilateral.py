"""Smoothing by a bilateral filter: near pixels count, and of these the similar ones."""

import math
from dataclasses import dataclass

import numpy as np

from processing.operations.operation import Code, Image, Kind, NotProcessable, Operation, Values
from processing.operations.parameters import Parameters, length, number, unit

_REACH = 2.0
"""Standard deviations that are looked at."""
_MAX_REACH_PX = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class Bilateral(Parameters):
    """Smooth what is similar, keep edges."""

    sigma: float = length(1.5, least=0.01, most=100.0, says="Standard deviation of the distance")
    sigma_value: float = number(
        50.0, least=1e-6, most=1e6, says="Standard deviation of the difference, in modality units"
    )
    unit: str = unit()


def bilateral(image: Image, parameters: Bilateral) -> Values:
    """Weigh each neighbour by distance and difference, both Gaussian; the edge is repeated."""
    sigma_rows, sigma_columns = image.in_pixels(parameters.sigma, parameters.unit)
    down, across = math.ceil(_REACH * sigma_rows), math.ceil(_REACH * sigma_columns)
    if max(down, across) > _MAX_REACH_PX:
        raise NotProcessable(f"sigma reaches further than {_MAX_REACH_PX} pixels")
    values = image.values
    padded = np.pad(values, ((down, down), (across, across)), mode="edge")
    total, weights = np.zeros(values.shape), np.zeros(values.shape)
    for i in range(-down, down + 1):
        for j in range(-across, across + 1):
            there = padded[down + i :, across + j :][: values.shape[0], : values.shape[1]]
            near = math.exp(-((i / sigma_rows) ** 2 + (j / sigma_columns) ** 2) / 2)
            weight = near * np.exp(-(((there - values) / parameters.sigma_value) ** 2) / 2)
            total += weight * there
            weights += weight
    return total / weights


OPERATION = Operation(
    name="bilateral",
    version="1.0",
    kind=Kind.IMAGE,
    parameters=Bilateral,
    run=bilateral,
    contrast="FILTERED",
    code=Code(value="113087", meaning="Smoothing"),
)
