"""Moving an image by whole pixels and parts of one; what comes in from outside was not measured."""

import math

import numpy as np

from processing.operations.operation import Values

_WHOLE = 1e-6
"""A part of a pixel that is none."""


def shifted(
    values: Values, down: float, right: float, shape: tuple[int, ...] | None = None
) -> Values:
    """Move by ``down`` rows and ``right`` columns, bilinearly, into an image of ``shape``.

    A pixel is padding (NaN) where anything it would be made of lies outside or is padding.
    By whole pixels no value changes.
    """
    moved = _along_rows(values, down, values.shape[0] if shape is None else shape[0])
    return _along_rows(moved.T, right, values.shape[1] if shape is None else shape[1]).T


def _along_rows(values: Values, shift: float, rows: int) -> Values:
    whole = math.floor(shift + _WHOLE)
    part = shift - whole
    result = _placed(values, whole, rows)
    if part <= _WHOLE:
        return result
    mixed: Values = (1 - part) * result + part * _placed(values, whole + 1, rows)
    return mixed


def _placed(values: Values, start: int, rows: int) -> Values:
    """Lay ``values`` into ``rows`` rows, its first at ``start``."""
    result = np.full((rows, values.shape[1]), np.nan, dtype=values.dtype)
    low, high = max(start, 0), min(start + values.shape[0], rows)
    if low < high:
        result[low:high] = values[low - start : high - start]
    return result
