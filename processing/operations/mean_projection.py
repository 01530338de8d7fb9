"""Projection of a whole volume by the mean."""

from collections.abc import Iterator
from dataclasses import dataclass

from processing.operations.operation import Code, Colors, Kind, Operation
from processing.operations.parameters import Parameters, choice, number
from processing.operations.projection import Mean, projected
from processing.operations.space import Projected, Volume
from processing.operations.views import PLANES, view


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanProjection(Parameters):
    """Project a volume by the mean onto one plane."""

    plane: str = choice("stack", *PLANES, says="Plane to project onto; stack is that of the slices")
    spacing_mm: float = number(
        0.0, least=0, most=100, says="Of the samples; 0 is as fine as they are"
    )


def mean_projection(volume: Volume, parameters: MeanProjection) -> Iterator[Projected]:
    """Give one image."""
    with view(volume, parameters.plane, parameters.spacing_mm) as planes:
        yield projected(planes, range(planes.count), Mean, threads=volume.threads)


OPERATION = Operation(
    name="mean-projection",
    version="1.0",
    kind=Kind.VOLUME,
    parameters=MeanProjection,
    run=mean_projection,
    contrast="MEAN",
    code=Code(value="113049", meaning="Pixel by pixel mean"),
    colors=Colors.REFUSED,
)
