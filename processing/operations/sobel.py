"""The steepest slope at each pixel, by Sobel's kernels."""

from dataclasses import dataclass

from processing.operations.gradient import SOBEL, steepest
from processing.operations.parameters import Parameters, unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Sobel(Parameters):
    """Differentiate by Sobel's kernels: the steepest slope, per mm or per pixel."""

    unit: str = unit()


OPERATION = steepest("sobel", Sobel, SOBEL)
