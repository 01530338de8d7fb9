"""The sum of images of the same place."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from processing.operations.operation import Code, Colors, Combined, Image, Kind, Operation
from processing.operations.parameters import Parameters


@dataclass(frozen=True, slots=True, kw_only=True)
class Add(Parameters):
    """Add images of the same place."""


def add(images: Sequence[Image], _: Add) -> Iterator[Combined]:
    """Give one image; it is padding where one of them is."""
    total = images[0].values.copy()
    for number in range(1, len(images)):
        total += images[number].values
    yield Combined(values=total, sources=tuple(range(len(images))))


OPERATION = Operation(
    name="add",
    version="1.0",
    kind=Kind.SET,
    parameters=Add,
    run=add,
    contrast="ADDITION",
    code=Code(value="113042", meaning="Pixel by pixel addition"),
    colors=Colors.REFUSED,
    keeps_range=False,
)
