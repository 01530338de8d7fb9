"""Multi-planar reformatting: a volume cut into the patient's own planes."""

from collections.abc import Iterator
from dataclasses import dataclass

from processing.operations.operation import Code, Colors, Kind, Operation
from processing.operations.parameters import Parameters, choice, number
from processing.operations.space import Projected, Volume, in_turn
from processing.operations.views import view


@dataclass(frozen=True, slots=True, kw_only=True)
class Mpr(Parameters):
    """Cut a volume into axial, coronal or sagittal planes, whichever way it was taken."""

    plane: str = choice("coronal", "axial", "sagittal", says="Plane of the new images")
    spacing_mm: float = number(
        0.0, least=0, most=100, says="Of the pixels; 0 is as fine as the source"
    )
    step_mm: float = number(
        0.0, least=0, most=1_000, says="From a plane to the next; 0 is that of the pixels"
    )


def mpr(volume: Volume, parameters: Mpr) -> Iterator[Projected]:
    """Give the planes from one side of the volume to the other, sampled linearly."""
    with view(volume, parameters.plane, parameters.spacing_mm) as planes:
        every = max(1, round(parameters.step_mm / planes.step_mm))
        numbers = {depth: n for n, depth in volume.share(range(0, planes.count, every))}
        for depth, values in in_turn(planes.values, list(numbers), volume.threads):
            grid = planes.grid(depth)
            yield Projected(
                values=values,
                grid=grid,
                thickness_mm=planes.step_mm,
                number=numbers[depth],
                planes=(grid,),
            )


OPERATION = Operation(
    name="mpr",
    version="1.0",
    kind=Kind.VOLUME,
    parameters=Mpr,
    run=mpr,
    contrast="RESAMPLED",
    code=Code(value="113072", meaning="Multiplanar reformatting"),
    colors=Colors.REFUSED,
    divisible=True,
)
