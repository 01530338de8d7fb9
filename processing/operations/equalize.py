"""Histogram equalisation: every display level is used by about as many pixels."""

from dataclasses import dataclass

import numpy as np

from processing.operations.operation import Colors, Image, Kind, Meaning, Operation, Values
from processing.operations.parameters import Parameters, whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Equalize(Parameters):
    """Equalise the histogram, padding left out."""

    bins: int = whole(4096, least=2, most=65_536, says="Bins of the histogram")


def equalize(image: Image, parameters: Equalize) -> Values:
    """Map each value to the share of pixels that are not above its bin, as a curve between centres."""
    counted = image.values if image.measured is None else image.values[image.measured]
    counts, edges = np.histogram(counted, bins=parameters.bins)
    shares = np.cumsum(counts) / counts.sum()
    centers = (edges[:-1] + edges[1:]) / 2
    return np.asarray(np.interp(image.values, centers, shares))


OPERATION = Operation(
    name="equalize",
    version="1.0",
    kind=Kind.IMAGE,
    parameters=Equalize,
    run=equalize,
    contrast="FILTERED",
    meaning=Meaning.DISPLAY,
    colors=Colors.KEPT,
)
