"""A window to presentation: modality values become display levels. PS3.3 Section C.11.2.1.2."""

from dataclasses import dataclass

import numpy as np

from processing.operations.operation import (
    Colors,
    Image,
    Kind,
    Meaning,
    NotProcessable,
    Operation,
    Values,
)
from processing.operations.parameters import Parameters, choice, number


@dataclass(frozen=True, slots=True, kw_only=True)
class Window(Parameters):
    """Map a window of values to display levels."""

    center: float = number(40.0, least=-1e9, most=1e9, says="Window Center, in modality units")
    width: float = number(400.0, least=1e-6, most=1e9, says="Window Width, in modality units")
    function: str = choice(
        "linear", "linear-exact", "sigmoid", says="VOI LUT Function, PS3.3 C.11.2.1.3"
    )


def window(image: Image, parameters: Window) -> Values:
    """Give display levels from 0 to 1."""
    values, center, width = image.values, parameters.center, parameters.width
    if parameters.function == "sigmoid":
        with np.errstate(over="ignore"):  # an exponential beyond all numbers is level 0
            return np.asarray(1.0 / (1.0 + np.exp(-4.0 * (values - center) / width)))
    if parameters.function == "linear-exact":
        return np.asarray(np.clip((values - center) / width + 0.5, 0.0, 1.0))
    if width < 1:
        raise NotProcessable("a linear window is at least 1 wide: set function=linear-exact")
    low, high = center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2
    if low == high:
        return np.where(values > high, 1.0, 0.0)
    return np.asarray(np.clip((values - low) / (high - low), 0.0, 1.0))


OPERATION = Operation(
    name="window",
    version="1.0",
    kind=Kind.IMAGE,
    parameters=Window,
    run=window,
    contrast="FILTERED",
    meaning=Meaning.DISPLAY,
    colors=Colors.REFUSED,
)
