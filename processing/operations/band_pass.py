"""Band pass in the frequency domain: what lies between two periods is kept."""

from dataclasses import dataclass

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
from processing.operations.parameters import Parameters, length, unit
from processing.operations.spectrum import Between, passed


@dataclass(frozen=True, slots=True, kw_only=True)
class BandPass(Parameters):
    """Keep what lies between two periods; the gain is the difference of two Gaussians."""

    shorter: float = length(2.0, least=0.01, most=10_000, says="Period below which little is kept")
    longer: float = length(20.0, least=0.01, most=10_000, says="Period above which little is kept")
    unit: str = unit()


def band_pass(image: Image, parameters: BandPass) -> Values:
    """Multiply the spectrum by the difference of two Gaussians."""
    if parameters.shorter >= parameters.longer:
        raise NotProcessable("shorter is not below longer")
    return passed(image, Between(parameters.shorter, parameters.longer), parameters.unit)


OPERATION = Operation(
    name="band-pass",
    version="1.0",
    kind=Kind.IMAGE,
    parameters=BandPass,
    run=band_pass,
    contrast="FILTERED",
    code=Code(value="113086", meaning="Edge enhancement"),
    meaning=Meaning.OTHER,
    colors=Colors.LUMINANCE,
)
