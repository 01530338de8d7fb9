"""Resizing: more pixels, or fewer, over the same field of view."""

from dataclasses import dataclass

import numpy as np
import scipy

from processing.operations.operation import Code, Image, Kind, NotProcessable, Operation, Values
from processing.operations.parameters import Parameters, choice, number

_MAX_SIDE_PX = 8192
_ORDERS = {"linear": 1, "nearest": 0, "cubic": 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Resize(Parameters):
    """Give the image more or fewer pixels over the same field of view."""

    factor: float = number(0.5, least=0.01, most=16, says="New number of rows by the old one")
    interpolation: str = choice("linear", "nearest", "cubic", says="How values between are made")


def resize(image: Image, parameters: Resize) -> Values:
    """Interpolate at the centres of the new pixels; a smaller image is smoothed before.

    The Gaussian for it has half a standard deviation for every pixel that is dropped
    between two that stay; ``nearest`` is not smoothed, its values are those of the source.
    """
    old = image.values.shape
    new = tuple(max(1, round(side * parameters.factor)) for side in old)
    if max(new) > _MAX_SIDE_PX:
        raise NotProcessable(f"the result would have more than {_MAX_SIDE_PX} rows or columns")
    scale = [before / after for before, after in zip(old, new, strict=True)]
    values = image.values
    if parameters.interpolation != "nearest":
        sigma = [max(0.0, (one - 1) / 2) for one in scale]
        values = scipy.ndimage.gaussian_filter(values, sigma, mode="nearest")
    at = np.meshgrid(
        *((np.arange(after) + 0.5) * one - 0.5 for after, one in zip(new, scale, strict=True)),
        indexing="ij",
    )
    resized: Values = scipy.ndimage.map_coordinates(
        values, at, order=_ORDERS[parameters.interpolation], mode="nearest"
    )
    return resized


OPERATION = Operation(
    name="resize",
    version="1.0",
    kind=Kind.IMAGE,
    parameters=Resize,
    run=resize,
    contrast="RESAMPLED",
    code=Code(value="113085", meaning="Spatial resampling"),
)
