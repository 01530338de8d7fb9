"""High pass in the frequency domain: what is coarser than a period is taken away."""

from dataclasses import dataclass

from processing.operations.operation import (
    Code,
    Colors,
    Image,
    Kind,
    Meaning,
    Operation,
    Values,
)
from processing.operations.parameters import Parameters, length, unit
from processing.operations.spectrum import Rejected, passed


@dataclass(frozen=True, slots=True, kw_only=True)
class HighPass(Parameters):
    """Take away what is coarser than a period; the gain is one less a Gaussian."""

    period: float = length(20.0, least=0.01, most=10_000, says="Period whose gain is one half")
    unit: str = unit()


def high_pass(image: Image, parameters: HighPass) -> Values:
    """Multiply the spectrum by one less a Gaussian; the mean of the result is zero."""
    return passed(image, Rejected(parameters.period), parameters.unit)


OPERATION = Operation(
    name="high-pass",
    version="1.0",
    kind=Kind.IMAGE,
    parameters=HighPass,
    run=high_pass,
    contrast="FILTERED",
    code=Code(value="113086", meaning="Edge enhancement"),
    meaning=Meaning.OTHER,
    colors=Colors.LUMINANCE,
)
