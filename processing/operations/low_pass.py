"""Low pass in the frequency domain: what is finer than a period is taken away."""

from dataclasses import dataclass

from processing.operations.operation import Code, Image, Kind, Operation, Values
from processing.operations.parameters import Parameters, length, unit
from processing.operations.spectrum import Gain, passed


@dataclass(frozen=True, slots=True, kw_only=True)
class LowPass(Parameters):
    """Take away what is finer than a period; the gain is Gaussian."""

    period: float = length(4.0, least=0.01, most=10_000, says="Period whose gain is one half")
    unit: str = unit()


def low_pass(image: Image, parameters: LowPass) -> Values:
    """Multiply the spectrum by a Gaussian."""
    return passed(image, Gain(parameters.period), parameters.unit)


OPERATION = Operation(
    name="low-pass",
    version="1.0",
    kind=Kind.IMAGE,
    parameters=LowPass,
    run=low_pass,
    contrast="FILTERED",
    code=Code(value="113087", meaning="Smoothing"),
)
