"""Pictures of derived images: one frame, windowed to 8 bits, as PNG (ISO/IEC 15948). PS3.3 Section C.11.2.

Owns how a result is shown to whoever looks at it: by its own window, or the one given; colours as
they are. Pixels are decoded in the sandbox; nothing of the patient goes into the picture but the image.
"""

import struct
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from config.settings import Process
from pacs.core.errors import ProcessingFailed, ProcessingRefused
from pacs.core.processing import DerivedImage
from processing.datasets.geometry import functional
from processing.datasets.images import Place, Source, Stored
from processing.operations.operation import NotProcessable, Values
from processing.sandbox import Bounds, Sandbox, TaskFailed

_TASK: Final = "processing.datasets.preview:paint"
_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_GRAY, _RGB = 0, 2  # colour types

Bytes8 = npt.NDArray[np.uint8]


class SandboxedPainter:
    """``pacs.services.preview.Painter``: paints in a worker process."""

    def __init__(self, settings: Process, work_folder: Path) -> None:
        work_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = work_folder
        self._max_bytes = settings.max_image_bytes
        self._sandbox = Sandbox(
            Bounds(
                timeout_s=settings.timeout_s,
                memory_bytes=settings.memory_bytes,
                file_bytes=settings.memory_bytes,
            ),
            workers=1,
        )

    def png(
        self, results: Sequence[DerivedImage], number: int, window: tuple[float, float] | None
    ) -> bytes:
        """Give frame ``number``, counted from 1 through all results. Raises ``ProcessingRefused`` or ``ProcessingFailed``."""
        with tempfile.TemporaryDirectory(prefix="process-preview-", dir=self._folder) as folder:
            stored = [(one.path, 0, one.transfer_syntax_uid) for one in results]
            try:
                refused = self._sandbox.run(_TASK, stored, number, window, folder, self._max_bytes)
            except TaskFailed as error:
                raise ProcessingFailed(f"the picture was not made: {error}") from error
            if refused:
                raise ProcessingRefused(str(refused))
            return (Path(folder) / "picture").read_bytes()

    def close(self) -> None:
        """End the worker."""
        self._sandbox.close()


def paint(
    stored: Sequence[Stored],
    number: int,
    window: tuple[float, float] | None,
    folder: str,
    max_bytes: int,
) -> str:
    """Write the picture of one frame into ``folder``; gives why not, or nothing. Runs in the worker."""
    left = number - 1
    count = 0
    try:
        for path, offset, syntax in stored:
            source = Source((path, offset, syntax), Place(folder=folder, max_bytes=max_bytes))
            if left < source.frames:
                picture = png(shown(source, left, window))
                (Path(folder) / "picture").write_bytes(picture)
                return ""
            left -= source.frames
            count += source.frames
    except NotProcessable as refusal:
        return str(refusal)
    return f"there are {count} results: no number {number}"


def shown(source: Source, frame: int, window: tuple[float, float] | None) -> Bytes8:
    """Give one frame as 8-bit gray, or as red, green and blue."""
    if source.is_color:
        colors, bits = source.colors(frame)
        return np.asarray(np.rint(colors * (255 / ((1 << bits) - 1))), dtype=np.uint8)
    values = source.values(frame)
    chosen = window or _own_window(source.head, frame) or _whole_range(values)
    gray = _windowed(values, *chosen)
    return 255 - gray if source.photometric == "MONOCHROME1" else gray


def _windowed(values: Values, center: float, width: float) -> Bytes8:
    """Map modality values by LINEAR_EXACT, PS3.3 Section C.11.2.1.3.2; padding is black.

    LINEAR differs from it by half a value, which no eye sees in 256 levels, and
    knows no width below 1.
    """
    scaled = (values - (center - width / 2)) * (255 / width)
    return np.asarray(np.rint(np.clip(np.nan_to_num(scaled, nan=0.0), 0, 255)), dtype=np.uint8)


def _own_window(head: Dataset, frame: int) -> tuple[float, float] | None:
    """The first window of a frame, where it says one."""
    holder = functional(head, frame, "FrameVOILUTSequence") or head
    try:
        center, width = (
            float(value if not _is_many(value) else value[0])
            for value in (holder.get("WindowCenter"), holder.get("WindowWidth"))
        )
    except (TypeError, ValueError, IndexError):
        return None
    return (center, width) if np.isfinite((center, width)).all() and width > 0 else None


def _is_many(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _whole_range(values: Values) -> tuple[float, float]:
    measured = values[np.isfinite(values)]
    low, high = (float(measured.min()), float(measured.max())) if measured.size else (0.0, 0.0)
    return (low + high) / 2, (high - low) or 1.0


def png(picture: Bytes8) -> bytes:
    r"""Write 8-bit gray (rows, columns) or RGB (rows, columns, 3) samples as a PNG file.

    >>> png(np.zeros((1, 2), dtype=np.uint8))[:4]
    b'\x89PNG'
    """
    rows, columns = picture.shape[:2]
    colors = _RGB if picture.ndim == 3 else _GRAY
    lines = np.ascontiguousarray(picture).reshape(rows, -1)
    unfiltered = np.zeros((rows, lines.shape[1] + 1), dtype=np.uint8)
    unfiltered[:, 1:] = lines
    header = struct.pack(">IIBBBBB", columns, rows, 8, colors, 0, 0, 0)
    return b"".join(
        (
            _SIGNATURE,
            _chunk(b"IHDR", header),
            _chunk(b"IDAT", zlib.compress(unfiltered.tobytes(), 6)),
            _chunk(b"IEND", b""),
        )
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
