"""Projection of slabs of a volume: thick slices that slide through it."""

from collections.abc import Iterator
from dataclasses import dataclass

from processing.operations.operation import Code, Colors, Kind, NotProcessable, Operation
from processing.operations.parameters import Parameters, choice, number
from processing.operations.projection import METHODS, projected, slabs
from processing.operations.space import Projected, Volume
from processing.operations.views import PLANES, view


@dataclass(frozen=True, slots=True, kw_only=True)
class Slab(Parameters):
    """Project slabs that slide through a volume, by maximum, minimum or mean."""

    plane: str = choice("stack", *PLANES, says="Plane of the slabs; stack is that of the slices")
    method: str = choice("maximum", "minimum", "mean", says="What is kept of each slab")
    thickness_mm: float = number(10.0, least=0.01, most=10_000, says="How thick a slab is")
    step_mm: float = number(5.0, least=0.01, most=10_000, says="From a slab to the next")
    spacing_mm: float = number(
        0.0, least=0, most=100, says="Of the samples; 0 is as fine as they are"
    )


def slab(volume: Volume, parameters: Slab) -> Iterator[Projected]:
    """Give one image a slab; thickness and step are rounded to whole planes."""
    with view(volume, parameters.plane, parameters.spacing_mm) as planes:
        thick = max(1, round(parameters.thickness_mm / planes.step_mm))
        step = max(1, round(parameters.step_mm / planes.step_mm))
        if thick > planes.count:
            raise NotProcessable("thickness_mm is more than the volume")
        kept = METHODS[parameters.method]
        for number_, depths in volume.share(list(slabs(planes.count, thick, step))):
            yield projected(planes, depths, kept, threads=volume.threads, number=number_)


OPERATION = Operation(
    name="slab",
    version="1.0",
    kind=Kind.VOLUME,
    parameters=Slab,
    run=slab,
    contrast="RESAMPLED",
    code=Code(value="113072", meaning="Multiplanar reformatting"),
    colors=Colors.REFUSED,
    divisible=True,
)
