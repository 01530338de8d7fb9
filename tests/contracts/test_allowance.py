"""What a conversion may use grows with the pixels, and not with what a small file says of itself."""

from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.encaps import encapsulate

from config.settings import Retrieve
from pacs.core.forms import Scope
from pacs.core.identifiers import ObjectId, TransferSyntaxUID
from pacs.core.records import Held, Place
from pacs.services.compress import Compression
from processing.datasets.allowance import Allowance
from processing.datasets.transcode import SandboxedTranscoder
from tests.keeping import ADMIN
from tests.transcoding import ARC, EXPLICIT, Stored, encoded, part10
from tests.unit.test_move_crew import held

J80, J90 = (TransferSyntaxUID(ARC + end) for end in ("80", "90"))
DEFLATED = TransferSyntaxUID("1.2.840.10008.1.2.1.99")
SETTINGS = Retrieve(
    transcode_timeout_s=10, transcode_s_per_megapixel=3, transcode_max_bytes=50_000_000
)


def image(rows: int, columns: int, frames: int | str = 1) -> Dataset:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.add_new("NumberOfFrames", "IS" if isinstance(frames, int) else "LO", str(frames))
    ds.Rows, ds.Columns = rows, columns
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 0
    return ds


def packed(folder: Path, ds: Dataset, size_bytes: int) -> Stored:
    ds.PixelData = encapsulate([bytes(size_bytes)])
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    return part10(folder, encoded(ds), J80)


def plain(folder: Path, ds: Dataset, pixels: bytes) -> Stored:
    ds.PixelData = pixels
    ds["PixelData"].VR = "OW"
    return part10(folder, encoded(ds), EXPLICIT)


@pytest.mark.parametrize(
    ("ds", "size_bytes", "expected"),
    [
        (image(1000, 1000), 500_000, 10 + 3),
        (image(1000, 1000, 7), 500_000, 10 + 21),
        (image(60_000, 60_000, 900), 3_200_000, 10 + 150),  # what is not converted anyway
        (image(60_000, 60_000, 900), 20_000, 10 + 0.99),
        (image(1000, 1000, "many"), 500_000, 10),
    ],
)
def test_time_grows_with_the_pixels_that_bytes_stand_behind(
    tmp_path: Path, ds: Dataset, size_bytes: int, expected: float
) -> None:
    allowed_s = Allowance(SETTINGS).cpu_s(packed(tmp_path, ds, size_bytes))
    assert allowed_s == pytest.approx(expected, abs=0.2)


def test_what_is_not_compressed_counts_by_its_bytes(tmp_path: Path) -> None:
    allowance, stored = Allowance(SETTINGS), plain(tmp_path, image(1000, 1000), bytes(2_000_000))
    assert allowance.cpu_s(stored) == pytest.approx(16, abs=0.1)
    assert allowance.cpu_s(stored, stored) == pytest.approx(22, abs=0.1)
    assert allowance.cpu_s((stored[0], stored[1], DEFLATED)) == pytest.approx(130, abs=1)
    assert allowance.cpu_s() == allowance.cpu_s((str(tmp_path / "gone"), 0, J80)) == 10


class Claims:
    """An index that gives one row and lets nobody have it; remembers for how long it was asked."""

    def __init__(self, size_bytes: int) -> None:
        place = Place(name="1", object_id=ObjectId("1"), size_bytes=size_bytes, data_set_offset=0)
        self._held = replace(held(1), place=place)
        self.leases_s: list[float] = []

    def page(self, *_: object, after: int, **how: object) -> list[tuple[int, Held]]:
        return [(1, self._held)] if after == 0 else []

    def claim(self, some: object, token: str, lease_s: float) -> list[Held]:
        self.leases_s.append(lease_s)
        return []


def test_a_claim_lasts_as_long_as_the_work_on_its_largest_may(tmp_path: Path) -> None:
    leases_s = []
    for size_bytes in (1_000, 10_000_000):
        claims = Claims(size_bytes)
        service = Compression(
            index=claims,  # type: ignore[arg-type]
            reencoder=None,  # type: ignore[arg-type]
            audit=Mock(),
            workers=1,
            task_s=Allowance(SETTINGS).for_samples,
        )
        service.run(ADMIN, Scope(), "jpeg-ls")
        leases_s += claims.leases_s
        assert service.lease_s <= claims.leases_s[0]
    assert leases_s[1] - leases_s[0] > 4 * 10 * 3 - 1, "four tasks, ten million samples"


def test_a_large_image_is_converted_that_needs_longer_than_the_time_for_any(tmp_path: Path) -> None:
    """JPEG 2000 takes seconds for noise, and both rest and all other work are bounded far below."""
    pixels = np.random.default_rng(0).integers(0, 1 << 16, (2_048, 2_048)).astype("<u2")
    stored = plain(tmp_path, image(*pixels.shape), pixels.tobytes())
    settings = Retrieve(transcode_timeout_s=1.5)
    made = SandboxedTranscoder(settings, tmp_path / "work")
    try:
        for _ in range(50):  # until the worker has started: that takes time, too
            if made.convertible(EXPLICIT, J90):
                break
        with made.convert(*stored, J90) as path:
            assert Path(path).stat().st_size > pixels.nbytes // 2
    finally:
        made.close()
