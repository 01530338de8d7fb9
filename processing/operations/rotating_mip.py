"""Maximum intensity projections from all around the patient."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from processing.operations.operation import Code, Colors, Kind, Operation
from processing.operations.parameters import Parameters, number, whole
from processing.operations.projection import Maximum, projected
from processing.operations.space import Projected, Volume, required_slices
from processing.operations.views import sampled


@dataclass(frozen=True, slots=True, kw_only=True)
class RotatingMip(Parameters):
    """Project a volume by the maximum, from all around the patient's long axis."""

    images: int = whole(12, least=1, most=360, says="Views, at equal angles")
    turn_deg: float = number(360.0, least=1, most=360, says="The angle they are spread over")
    spacing_mm: float = number(2.0, least=0.01, most=100, says="Of the samples")


def rotating_mip(volume: Volume, parameters: RotatingMip) -> Iterator[Projected]:
    """Give one image a view; the first looks from the front to the back, the next from further left."""
    required_slices(volume, 2)
    head = np.array((0.0, 0.0, 1.0))
    with volume.sampler() as sampler:
        for number_, turn in volume.share(range(parameters.images)):
            angle = math.radians(parameters.turn_deg) * turn / parameters.images
            along_row = np.array((math.cos(angle), math.sin(angle), 0.0))
            planes = sampled(volume, sampler, (along_row, -head), parameters.spacing_mm)
            depths = range(planes.count)
            yield projected(planes, depths, Maximum, threads=volume.threads, number=number_)


OPERATION = Operation(
    name="rotating-mip",
    version="1.0",
    kind=Kind.VOLUME,
    parameters=RotatingMip,
    run=rotating_mip,
    contrast="MAX_IP",
    code=Code(value="113078", meaning="Maximum intensity projection"),
    colors=Colors.REFUSED,
    divisible=True,
)
