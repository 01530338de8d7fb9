"""Codestreams made to harm cost the sandbox one refusal, and nothing else."""

import struct
from collections.abc import Iterator
from pathlib import Path

import imagecodecs
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


@pytest.mark.parametrize("name", ["50", "51", "57", "70", "80", "81"])
def test_a_stream_without_its_end_is_not_decoded(
    transcoder: SandboxedTranscoder, tmp_path: Path, name: str
) -> None:
    """Decoders of JPEG make up what is missing, that of JPEG-LS looks for it for seconds."""
    depth = {"BitsAllocated": 8, "BitsStored": 8} if name == "50" else {"BitsStored": 12}
    stream = {
        "50": lambda: imagecodecs.jpeg8_encode((IMAGE >> 4).astype("u1")),
        "51": lambda: imagecodecs.jpeg8_encode(IMAGE, bitspersample=12),
        "57": lambda: imagecodecs.jpeg8_encode(IMAGE, lossless=True, bitspersample=12),
        "70": lambda: imagecodecs.jpeg8_encode(IMAGE, lossless=True, bitspersample=12),
    }.get(name, lambda: imagecodecs.jpegls_encode(IMAGE))()
    for padding in (b"", bytes(300)):
        half = packed(tmp_path, ARC + name, bytes(stream[: len(stream) // 2]) + padding, **depth)
        with pytest.raises(TranscodingFailed, match="CutOff"):
            converted(transcoder, half, EXPLICIT)
        whole = packed(tmp_path, ARC + name, bytes(stream) + padding, **depth)
        assert len(read_back(converted(transcoder, whole, EXPLICIT), EXPLICIT).PixelData) > 4000


def test_the_size_that_counts_is_that_of_the_stream_the_decoder_reads(
    transcoder: SandboxedTranscoder, tmp_path: Path
) -> None:
    """Another one stands before it, in a box that is not the codestream's."""
    stream = CODECS[ARC + "90"].encode(IMAGE, FORM)
    file = bytes(imagecodecs.jpeg2k_encode(IMAGE, level=0, codecformat="jp2", reversible=True))
    at = file.index(b"jp2c") - 4
    decoy = struct.pack(">I", 8 + len(stream)) + b"xml " + stream
    sound = packed(tmp_path, ARC + "90", file[:at] + decoy + file[at:])
    back = read_back(converted(transcoder, sound, EXPLICIT), EXPLICIT)
    assert np.array_equal(back.pixel_array, IMAGE)
    hidden = packed(tmp_path, ARC + "90", file[:at] + decoy + enlarged(file[at:], ARC + "90"))
    with pytest.raises(TranscodingFailed, match="SizeContradicted"):
        converted(transcoder, hidden, EXPLICIT)
    for box in (0, 4, 1 << 31):  # boxes that lead nowhere
        source = packed(tmp_path, ARC + "90", file[:12] + struct.pack(">I", box) + file[16:])
        with pytest.raises(TranscodingFailed, match="SizeContradicted"):
            converted(transcoder, source, EXPLICIT)


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
