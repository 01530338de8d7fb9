"""Contrast limited adaptive histogram equalisation."""

from dataclasses import dataclass

import numpy as np
import skimage

from processing.operations.operation import (
    Colors,
    Image,
    Kind,
    Meaning,
    NotProcessable,
    Operation,
    Values,
)
from processing.operations.parameters import Parameters, number, whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Clahe(Parameters):
    """Equalise contrast region by region, and limit what that does to noise."""

    tiles: int = whole(8, least=2, most=64, says="Regions along each side")
    clip: float = number(
        0.01,
        least=0.0001,
        most=1,
        says="Share of a region's pixels a level may have; 1 is no limit",
    )
    bins: int = whole(256, least=2, most=4096, says="Bins of each histogram")


def clahe(image: Image, parameters: Clahe) -> Values:
    """Equalise each region and blend between regions."""
    measured = image.values if image.measured is None else image.values[image.measured]
    low, high = float(measured.min()), float(measured.max())
    if high <= low:
        return np.zeros(image.values.shape)
    rows, columns = image.values.shape
    tile = rows // parameters.tiles, columns // parameters.tiles
    if min(tile) < 2:
        raise NotProcessable("the image has too few pixels for so many tiles")
    unit = np.clip((image.values - low) / (high - low), 0.0, 1.0)
    values: Values = skimage.exposure.equalize_adapthist(
        unit, kernel_size=tile, clip_limit=parameters.clip, nbins=parameters.bins
    )
    return values


OPERATION = Operation(
    name="clahe",
    version="1.0",
    kind=Kind.IMAGE,
    parameters=Clahe,
    run=clahe,
    contrast="FILTERED",
    meaning=Meaning.DISPLAY,
    colors=Colors.KEPT,
)
