"""Projection of a whole volume by the minimum."""

from collections.abc import Iterator
from dataclasses import dataclass

from processing.operations.operation import Code, Colors, Kind, Operation
from processing.operations.parameters import Parameters, choice, number
from processing.operations.projection import Minimum, projected
from processing.operations.space import Projected, Volume
from processing.operations.views import PLANES, view


@dataclass(frozen=True, slots=True, kw_only=True)
class MinIP(Parameters):
    """Project a volume by the minimum onto one plane."""

    plane: str = choice("stack", *PLANES, says="Plane to project onto; stack is that of the slices")
    spacing_mm: float = number(
        0.0, least=0, most=100, says="Of the samples; 0 is as fine as they are"
    )


def minip(volume: Volume, parameters: MinIP) -> Iterator[Projected]:
    """Give one image."""
    with view(volume, parameters.plane, parameters.spacing_mm) as planes:
        yield projected(planes, range(planes.count), Minimum, threads=volume.threads)


OPERATION = Operation(
    name="minip",
    version="1.0",
    kind=Kind.VOLUME,
    parameters=MinIP,
    run=minip,
    contrast="MIN_IP",
    code=Code(value="113079", meaning="Minimum intensity projection"),
    colors=Colors.REFUSED,
)
