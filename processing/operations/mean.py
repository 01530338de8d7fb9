"""The mean of images of the same place."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from processing.operations.operation import Code, Colors, Combined, Image, Kind, Operation
from processing.operations.parameters import Parameters


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanOfImages(Parameters):
    """Average images of the same place."""


def mean(images: Sequence[Image], _: MeanOfImages) -> Iterator[Combined]:
    """Give one image; it is padding where one of them is."""
    total = images[0].values.copy()
    for number in range(1, len(images)):
        total += images[number].values
    yield Combined(values=total / len(images), sources=tuple(range(len(images))))


OPERATION = Operation(
    name="mean",
    version="1.0",
    kind=Kind.SET,
    parameters=MeanOfImages,
    run=mean,
    contrast="MEAN",
    code=Code(value="113049", meaning="Pixel by pixel mean"),
    colors=Colors.REFUSED,
)
