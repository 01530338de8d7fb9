"""Values as stored samples: which whole numbers stand for modality values, and how.

Owns the choice between the mapping of the source and a new one, and rounding.
Refuses to know Data Sets. PS3.3 Sections C.11.1.1.2 and C.7.5.1.1.2.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from processing.operations.operation import Values

DISPLAY_BITS = 12
"""Display levels are stored with so many bits."""

_LEVELS = 65_000
"""Of the 65,536 samples of 16 bits so many are used by a new mapping: room for rounding and padding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Samples of so many bits, which stand for ``sample`` × slope + intercept."""

    slope: float
    intercept: float
    bits_allocated: int
    bits_stored: int
    signed: bool
    padding: int | None = None

    @property
    def range(self) -> tuple[int, int]:
        """The least and the most a sample may be."""
        half = 1 << self.bits_stored - 1
        return (-half, half - 1) if self.signed else (0, 2 * half - 1)

    def values(self, samples: npt.NDArray[Any]) -> Values:
        """Give the values that samples stand for."""
        values: Values = samples * self.slope
        values += self.intercept
        return values

    def is_like(self, other: "Scale") -> bool:
        """Tell whether samples are stored alike and stand for the same values; padding aside."""
        return replace(self, padding=None) == replace(other, padding=None)

    def samples(self, values: Values) -> npt.NDArray[Any] | None:
        """Round values to samples, the padding value where they are NaN; ``None`` where they do not fit."""
        missing = np.isnan(values)
        exact = values - self.intercept
        exact /= self.slope
        np.rint(exact, out=exact)
        if has_gaps := bool(missing.any()):
            exact[missing] = max(0, self.range[0])
        low, high = self.range
        if exact.size and not low <= exact.min() <= exact.max() <= high:
            return None
        samples = exact.astype(f"<{'i' if self.signed else 'u'}{self.bits_allocated // 8}")
        if self.padding is not None:
            # What was measured must not come to look like padding.
            beside = 1 if self.padding < high else -1
            samples[(exact == self.padding) & ~missing] = self.padding + beside
        if has_gaps:
            if self.padding is None or not low <= self.padding <= high:
                return None
            samples[missing] = self.padding
        return samples


def candidates(scale: Scale) -> Iterator[Scale]:
    """Give ways to store the same values: as the source does, then with 16 bits of either sign."""
    if scale.slope == 0:
        return
    yield scale
    yield _wide(scale, signed=False)
    yield _wide(scale, signed=True)


def _wide(scale: Scale, *, signed: bool) -> Scale:
    """Give the same slope and intercept with 16 bits; a padding value that these do not hold is none."""
    wide = replace(scale, bits_allocated=16, bits_stored=16, signed=signed)
    low, high = wide.range
    is_held = scale.padding is not None and low <= scale.padding <= high
    return wide if is_held else replace(wide, padding=None)


def padded(scale: Scale) -> Scale:
    """Give the scale a padding value at the end of its range, where it has none."""
    return scale if scale.padding is not None else replace(scale, padding=scale.range[0])


def spread(values: Values) -> Scale:
    """Map values of any range to 16 bits; sample 0 is free for padding.

    Slope and intercept are numbers that a decimal string of 16 characters holds
    exactly, so that what is read back is what was meant (PS3.5 Section 6.2, DS).
    """
    known = values[~np.isnan(values)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    slope = float(f"{(high - low) / _LEVELS:.7e}") or 1.0
    return Scale(
        slope=slope,
        intercept=float(f"{low - slope:.7e}"),
        bits_allocated=16,
        bits_stored=16,
        signed=False,
        padding=0 if np.isnan(values).any() else None,
    )


def display() -> Scale:
    """Store display levels from 0 to 1; those of 12 bits stand for themselves."""
    return Scale(
        slope=1.0,
        intercept=0.0,
        bits_allocated=16,
        bits_stored=DISPLAY_BITS,
        signed=False,
    )


def encoded(
    values: Values, source: Scale, others: Iterable[Scale] = ()
) -> tuple[npt.NDArray[Any], Scale]:
    """Store values of the source's unit as the source does if they fit, else as near to it as they do.

    Of sources with different slopes the smallest is kept, so that none of their steps is lost,
    and, where they have one intercept, only made as large as 16 bits need.
    """
    sources = (source, *others)
    finest = min(sources, key=lambda one: abs(one.slope))
    ways = candidates(finest)
    if len({one.slope for one in sources}) > 1 and len({one.intercept for one in sources}) == 1:
        ways = chain(ways, coarser(values, finest))
    has_padding = bool(np.isnan(values).any())
    for one in ways:
        scale = padded(one) if has_padding else one
        samples = scale.samples(values)
        if samples is not None:
            return samples, scale
    return spread_out(values)


def coarser(values: Values, scale: Scale) -> Iterator[Scale]:
    """Give the scale of the smallest slope, and the same intercept, that 16 bits have room for."""
    beyond = values[~np.isnan(values)] - scale.intercept
    signed = bool((beyond < 0).any())
    most = float(np.abs(beyond).max(initial=0.0)) / (_LEVELS // 2 if signed else _LEVELS)
    if slope := float(f"{most:.7e}"):
        yield _wide(replace(scale, slope=slope), signed=signed)


def spread_out(values: Values) -> tuple[npt.NDArray[Any], Scale]:
    """Store values by a mapping of their own."""
    scale = spread(values)
    low, high = scale.range
    # Rounding of the intercept may put the outermost value a sample beyond.
    limits = (np.array((max(low, 1), high)) * scale.slope + scale.intercept).tolist()
    samples = scale.samples(np.clip(values, *limits))
    assert samples is not None, "clipped values fit"
    return samples, scale
