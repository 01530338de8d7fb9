"""Filtering in the frequency domain, shared by the low, high and band pass.

The image is mirrored beyond its edges, so that opposite edges do not meet.
"""

import numpy as np
import numpy.typing as npt
import scipy

from processing.operations.operation import Image, Values


def passed(image: Image, gain: "Gain", unit: str) -> Values:
    """Multiply the spectrum by ``gain`` of the frequency, in cycles per mm or per pixel."""
    rows, columns = image.values.shape
    between_rows, between_columns = (1.0, 1.0) if unit == "px" else image.needed_spacing()
    # The cosine transform is that of the image mirrored at its edges: no seam, half the work.
    spectrum = scipy.fft.dctn(image.values, type=2, norm="ortho")
    down = np.arange(rows) / (2 * rows * between_rows)
    right = np.arange(columns) / (2 * columns * between_columns)
    frequency = np.hypot(down[:, None], right[None, :])
    values: Values = scipy.fft.idctn(spectrum * gain(frequency), type=2, norm="ortho")
    return values


class Gain:
    """A Gaussian low pass whose gain is one half at the period ``period``; 0 lets everything pass."""

    def __init__(self, period: float) -> None:
        self._period = period

    def __call__(self, frequency: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Give the gain at each frequency."""
        return np.exp2(-((frequency * self._period) ** 2))


class Rejected(Gain):
    """What a low pass takes away."""

    def __call__(self, frequency: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Give the gain at each frequency."""
        return 1.0 - super().__call__(frequency)


class Between(Gain):
    """What a low pass at the shorter period leaves, without what one at the longer leaves."""

    def __init__(self, shorter: float, longer: float) -> None:
        super().__init__(shorter)
        self._longer = Gain(longer)

    def __call__(self, frequency: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Give the gain at each frequency."""
        return super().__call__(frequency) - self._longer(frequency)
