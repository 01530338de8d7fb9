"""The steepest slope at each pixel, by Prewitt's kernels."""

from dataclasses import dataclass

from processing.operations.gradient import PREWITT, steepest
from processing.operations.parameters import Parameters, unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Prewitt(Parameters):
    """Differentiate by Prewitt's kernels: the steepest slope, per mm or per pixel."""

    unit: str = unit()


OPERATION = steepest("prewitt", Prewitt, PREWITT)
