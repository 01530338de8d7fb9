"""Edges by Canny: thin lines where the slope is steepest, followed as long as it is steep enough."""

from dataclasses import dataclass

import numpy as np
import scipy
import skimage

from processing.operations.operation import (
    Code,
    Colors,
    Image,
    Kind,
    Meaning,
    NotProcessable,
    Operation,
    Values,
)
from processing.operations.parameters import Parameters, number

_REACH = 4.0
"""Standard deviations at which the Gaussian is cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Canny(Parameters):
    """Mark edges by Canny; slopes are per pixel, as Sobel's kernels sum them."""

    sigma_px: float = number(1.0, least=0.1, most=50.0, says="Standard deviation of the smoothing")
    low: float = number(50.0, least=0, most=1e9, says="Slope down to which an edge is followed")
    high: float = number(150.0, least=0, most=1e9, says="Slope at which an edge begins")


def canny(image: Image, parameters: Canny) -> Values:
    """Give 1 on edges."""
    if parameters.high < parameters.low:
        raise NotProcessable("high is below low")
    smoothed = scipy.ndimage.gaussian_filter(
        np.asarray(image.values, dtype=np.float64),
        parameters.sigma_px,
        mode="nearest",
        truncate=_REACH,
    )
    edges = skimage.feature.canny(
        smoothed,
        sigma=0.0,
        low_threshold=parameters.low,
        high_threshold=parameters.high,
        mask=image.measured,
        mode="nearest",
    )
    return np.asarray(edges, dtype=np.float64)


OPERATION = Operation(
    name="canny",
    version="1.0",
    kind=Kind.IMAGE,
    parameters=Canny,
    run=canny,
    contrast="FILTERED",
    code=Code(value="113086", meaning="Edge enhancement"),
    meaning=Meaning.DISPLAY,
    colors=Colors.LUMINANCE,
)
