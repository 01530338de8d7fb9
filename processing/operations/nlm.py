"""Smoothing by non-local means: pixels whose surroundings look alike are averaged."""

from dataclasses import dataclass

import numpy as np
import scipy

from processing.operations.operation import Code, Image, Kind, Operation, Values
from processing.operations.parameters import Parameters, number, whole


@dataclass(frozen=True, slots=True, kw_only=True)
class NonLocalMeans(Parameters):
    """Smooth by non-local means."""

    patch_px: int = whole(5, least=3, most=15, odd=True, says="Side of the patches compared")
    distance_px: int = whole(6, least=1, most=15, says="How far away patches are looked for")
    strength: float = number(
        10.0, least=1e-6, most=1e6, says="Difference that counts as alike, in modality units"
    )


def nlm(image: Image, parameters: NonLocalMeans) -> Values:
    """Average pixels, each weighed by how little the patch around it differs: the mean of squares.

    The image is repeated beyond its edge. One shift is looked at after the other, for all
    pixels at once.
    """
    values, reach = image.values, parameters.distance_px
    padded = np.pad(values, reach, mode="edge")
    total, weights = np.zeros(values.shape), np.zeros(values.shape)
    for i in range(2 * reach + 1):
        for j in range(2 * reach + 1):
            there = padded[i : i + values.shape[0], j : j + values.shape[1]]
            squares = ((there - values) / parameters.strength) ** 2
            weight = np.exp(
                -scipy.ndimage.uniform_filter(squares, parameters.patch_px, mode="nearest")
            )
            total += weight * there
            weights += weight
    return total / weights


OPERATION = Operation(
    name="nlm",
    version="1.0",
    kind=Kind.IMAGE,
    parameters=NonLocalMeans,
    run=nlm,
    contrast="FILTERED",
    code=Code(value="113087", meaning="Smoothing"),
)
