"""Projection of a whole volume by the maximum."""

from collections.abc import Iterator
from dataclasses import dataclass

from processing.operations.operation import Code, Colors, Kind, Operation
from processing.operations.parameters import Parameters, choice, number
from processing.operations.projection import Maximum, projected
from processing.operations.space import Projected, Volume
from processing.operations.views import PLANES, view


@dataclass(frozen=True, slots=True, kw_only=True)
class Mip(Parameters):
    """Project a volume by the maximum onto one plane."""

    plane: str = choice("stack", *PLANES, says="Plane to project onto; stack is that of the slices")
    spacing_mm: float = number(
        0.0, least=0, most=100, says="Of the samples; 0 is as fine as they are"
    )


def mip(volume: Volume, parameters: Mip) -> Iterator[Projected]:
    """Give one image."""
    with view(volume, parameters.plane, parameters.spacing_mm) as planes:
        yield projected(planes, range(planes.count), Maximum, threads=volume.threads)


OPERATION = Operation(
    name="mip",
    version="1.0",
    kind=Kind.VOLUME,
    parameters=Mip,
    run=mip,
    contrast="MAX_IP",
    code=Code(value="113078", meaning="Maximum intensity projection"),
    colors=Colors.REFUSED,
)
