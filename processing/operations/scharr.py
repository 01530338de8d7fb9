"""The steepest slope at each pixel, by Scharr's kernels."""

from dataclasses import dataclass

from processing.operations.gradient import SCHARR, steepest
from processing.operations.parameters import Parameters, unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Scharr(Parameters):
    """Differentiate by Scharr's kernels: the steepest slope, per mm or per pixel."""

    unit: str = unit()


OPERATION = steepest("scharr", Scharr, SCHARR)
