"""Codestreams made to harm cost the sandbox one refusal, and nothing else."""

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.encaps import encapsulate

from config.settings import Retrieve
from pacs.core.errors import TranscodingFailed
from pacs.core.identifiers import TransferSyntaxUID
from processing.codecs.frame import Form
from processing.codecs.registry import CODECS
from processing.datasets.transcode import SandboxedTranscoder
from tests.transcoding import ARC, EXPLICIT, RLE, Stored, converted, encoded, part10, read_back

FORM = Form(
    rows=64,
    columns=64,
    samples=1,
    bits_allocated=16,
    bits_stored=16,
    signed=False,
    photometric="MONOCHROME2",
)
IMAGE = np.random.default_rng(0).integers(0, 4000, FORM.shape).astype("<u2")
SYNTAXES = sorted(CODECS)
HUGE = 60_000
"""Rows and columns of 7 GB that no byte stands behind."""


@pytest.fixture(scope="module")
def transcoder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxedTranscoder]:
    settings = Retrieve(transcode_max_bytes=1 << 26, transcode_timeout_s=20)
    made = SandboxedTranscoder(settings, tmp_path_factory.mktemp("work"))
    yield made
    made.close()


def packed(folder: Path, syntax: str, *streams: bytes, **changes: object) -> Stored:
    """Wrap codestreams in a Data Set that describes ``IMAGE``."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.NumberOfFrames, ds.Rows, ds.Columns = len(streams), *FORM.shape
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 0
    for keyword, value in changes.items():
        setattr(ds, keyword, value)
    ds.PixelData = encapsulate(list(streams))
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    return part10(folder, encoded(ds), syntax)


def enlarged(stream: bytes, syntax: str) -> bytes:
    """Let a codestream announce ``HUGE`` rows and columns."""
    big = bytearray(stream)
    for marker in (b"\xff\xc3", b"\xff\xf7"):
        if (at := stream.find(marker)) > 0:
            struct.pack_into(">HH", big, at + 5, HUGE, HUGE)
    if (at := stream.find(b"\xff\x51")) > 0:
        struct.pack_into(">II", big, at + 6, HUGE, HUGE)
        struct.pack_into(">II", big, at + 22, HUGE, HUGE)
    assert syntax == RLE or bytes(big) != stream
    return bytes(big)


@pytest.fixture(params=SYNTAXES)
def syntax(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def usable(transcoder: SandboxedTranscoder, folder: Path, syntax: str) -> bool:
    stream = CODECS[syntax].encode(IMAGE, FORM)
    back = converted(transcoder, packed(folder, syntax, stream), EXPLICIT)
    return np.array_equal(read_back(back, EXPLICIT).pixel_array, IMAGE)


def test_truncated_codestreams(
    transcoder: SandboxedTranscoder, tmp_path: Path, syntax: str
) -> None:
    stream = CODECS[syntax].encode(IMAGE, FORM)
    for end in (2, 40, 70, len(stream) // 2):
        with pytest.raises(TranscodingFailed):
            converted(transcoder, packed(tmp_path, syntax, stream[:end]), EXPLICIT)
    assert usable(transcoder, tmp_path, syntax)


def test_damaged_codestreams(transcoder: SandboxedTranscoder, tmp_path: Path, syntax: str) -> None:
    stream = CODECS[syntax].encode(IMAGE, FORM)
    random = np.random.default_rng(7)
    for _ in range(25):
        broken = bytearray(stream)
        for place in random.integers(2, len(broken), 5):
            broken[place] ^= int(random.integers(1, 256))
        try:
            back = converted(transcoder, packed(tmp_path, syntax, bytes(broken)), EXPLICIT)
        except TranscodingFailed:
            continue
        assert len(read_back(back, EXPLICIT).PixelData) == IMAGE.nbytes
    assert usable(transcoder, tmp_path, syntax)


def test_codestreams_of_another_size(
    transcoder: SandboxedTranscoder, tmp_path: Path, syntax: str
) -> None:
    stream = CODECS[syntax].encode(IMAGE, FORM)
    fewer = [] if syntax == RLE else [{"Rows": 63}]  # its decoder stops at the last row asked for
    for changes in (*fewer, {"Columns": 65}, {"Rows": 128}):
        with pytest.raises(TranscodingFailed):
            converted(transcoder, packed(tmp_path, syntax, stream, **changes), EXPLICIT)
    for frames in (1, 3):
        source = packed(tmp_path, syntax, stream, stream, NumberOfFrames=frames)
        with pytest.raises(TranscodingFailed):
            converted(transcoder, source, EXPLICIT)
    assert usable(transcoder, tmp_path, syntax)


def test_bombs(transcoder: SandboxedTranscoder, tmp_path: Path, syntax: str) -> None:
    stream = CODECS[syntax].encode(IMAGE, FORM)
    bomb = enlarged(stream, syntax)
    pids = transcoder._sandbox.worker_pids() if usable(transcoder, tmp_path, syntax) else None
    with pytest.raises(TranscodingFailed, match="TooLarge"):
        converted(transcoder, packed(tmp_path, syntax, bomb, Rows=HUGE, Columns=HUGE), EXPLICIT)
    if syntax != RLE:
        with pytest.raises(TranscodingFailed, match="SizeContradicted"):
            converted(transcoder, packed(tmp_path, syntax, bomb), EXPLICIT)
    many = packed(tmp_path, syntax, stream, NumberOfFrames=1 << 30)
    with pytest.raises(TranscodingFailed, match="TooLarge"):
        converted(transcoder, many, EXPLICIT)
    assert usable(transcoder, tmp_path, syntax)
    assert transcoder._sandbox.worker_pids() == pids  # refused, not survived


def test_native_pixels_that_are_not_there(
    transcoder: SandboxedTranscoder, tmp_path: Path, syntax: str
) -> None:
    ds = Dataset()
    ds.Rows = ds.Columns = HUGE
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 0
    ds.PixelData = bytes(100)
    ds["PixelData"].VR = "OW"
    source = part10(tmp_path, encoded(ds), EXPLICIT)
    with pytest.raises(TranscodingFailed, match="SizeNotCarried"):
        converted(transcoder, source, TransferSyntaxUID(syntax))
    assert usable(transcoder, tmp_path, syntax)


def test_a_baseline_bomb(transcoder: SandboxedTranscoder, tmp_path: Path) -> None:
    header = b"\xff\xd8\xff\xc0\x00\x0b\x08" + struct.pack(">HH", HUGE, HUGE) + b"\x01\x01\x11\x00"
    for lossy in ("50", "51", "81", "91"):
        source = packed(tmp_path, ARC + lossy, header, BitsAllocated=8, BitsStored=8)
        with pytest.raises(TranscodingFailed, match="SizeContradicted"):
            converted(transcoder, source, EXPLICIT)
