"""What a Transcoder promises of images that others compressed, held against DCMTK, GDCM and pydicom."""

import struct
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom import Sequence as Items

from config.settings import Retrieve
from pacs.core.errors import TranscodingFailed
from processing.datasets.transcode import SandboxedTranscoder
from tests import peers
from tests.transcoding import (
    ARC,
    EXPLICIT,
    Stored,
    converted,
    encoded,
    item,
    part10,
    read_back,
)

RANDOM = np.random.default_rng(5)
IMAGE = RANDOM.integers(0, 4096, (4, 16, 20)).astype("<u2")


@pytest.fixture(scope="module")
def transcoder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxedTranscoder]:
    made = SandboxedTranscoder(
        Retrieve(transcode_max_bytes=1 << 26), tmp_path_factory.mktemp("work")
    )
    yield made
    made.close()


def described(shape: tuple[int, ...], **changes: object) -> Dataset:
    """A secondary capture of 12 bits in 16, as changed."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.NumberOfFrames, ds.Rows, ds.Columns = shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    for keyword, value in changes.items():
        setattr(ds, keyword, value)
    return ds


def wrapped(
    folder: Path, ds: Dataset, syntax: str, fragments: Sequence[bytes], table: bytes = b""
) -> Stored:
    """Encapsulate fragments as they are, behind a table as it is."""
    ds.PixelData = b"".join(
        map(item, (table, *(one + b"\0" * (len(one) % 2) for one in fragments)))
    )
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    return part10(folder, encoded(ds), syntax)


def native(folder: Path, ds: Dataset, pixels: np.ndarray) -> str:
    ds.PixelData = pixels.tobytes()
    ds["PixelData"].VR = "OW"
    return part10(folder, encoded(ds), EXPLICIT, "native.dcm")[0]


def run(tool: str, *arguments: object) -> None:
    found = peers.find(tool)
    if found is None:
        pytest.skip(f"no {tool}")
    subprocess.run([found, *map(str, arguments)], check=True, capture_output=True, timeout=60)


def as_stored(path: Path) -> Stored:
    ds = dcmread(path)
    (length,) = struct.unpack("<I", path.read_bytes()[140:144])
    return str(path), 144 + length, ds.file_meta.TransferSyntaxUID


def raw(ds: Dataset) -> np.ndarray:
    """Cells as they lie, whatever Bits Stored say."""
    return np.frombuffer(ds.PixelData, "<u2").astype(int)


# --- lossy codecs overshoot ----------------------------------------------------------

EDGES = (RANDOM.integers(0, 2, (1, 64, 64)) * 1023).astype("<u2")


def lossy(name: str, pixels: np.ndarray) -> bytes:
    """Encode coarsely, by a codestream of more than 10 bits."""
    if name == "51":
        return bytes(imagecodecs.jpeg8_encode(pixels, level=50, bitspersample=12))
    if name == "81":
        return bytes(imagecodecs.jpegls_encode(pixels, level=9))
    return bytes(
        imagecodecs.jpeg2k_encode(
            pixels, level=40, codecformat="j2k", reversible=False, bitspersample=12
        )
    )


@pytest.mark.parametrize(
    ("name", "bits", "tool"),
    [
        ("51", 12, ("dcmdjpeg",)),
        ("81", 16, ("dcmdjpls",)),
        ("91", 12, ("gdcmconv", "--raw")),
    ],
)
def test_lossy_values_beyond_bits_stored_are_neither_cut_off_nor_refused(
    transcoder: SandboxedTranscoder, tmp_path: Path, name: str, bits: int, tool: tuple[str, ...]
) -> None:
    ds = described(EDGES.shape, BitsStored=10, HighBit=9, LossyImageCompression="01")
    source = wrapped(tmp_path, ds, ARC + name, [lossy(name, EDGES[0])])
    ours = read_back(converted(transcoder, source, EXPLICIT), EXPLICIT)
    assert raw(ours).max() > 1023
    assert (ours.BitsStored, ours.HighBit) == (bits, bits - 1)
    assert np.array_equal(raw(ours), ours.pixel_array.ravel())  # readers cut nothing off
    run(*tool, source[0], tmp_path / "theirs.dcm")
    theirs = raw(dcmread(tmp_path / "theirs.dcm"))
    assert np.abs(raw(ours) - theirs).max() <= (2 if name == "51" else 0)


def test_lossy_values_within_bits_stored_leave_the_attributes_alone(
    transcoder: SandboxedTranscoder, tmp_path: Path
) -> None:
    pixels = np.tile(np.arange(300, 364, dtype="<u2"), (1, 64, 1))
    for name in ("51", "81", "91"):
        ds = described(pixels.shape, BitsStored=10, HighBit=9)
        source = wrapped(tmp_path, ds, ARC + name, [lossy(name, pixels[0])])
        ours = read_back(converted(transcoder, source, EXPLICIT), EXPLICIT)
        assert (ours.BitsStored, ours.HighBit) == (10, 9), name
        assert np.abs(raw(ours) - pixels.ravel()).max() < 100, name  # it is coarse


def test_signed_lossy_values_beyond_bits_stored_are_known_by_a_signed_codestream_only(
    transcoder: SandboxedTranscoder, tmp_path: Path
) -> None:
    """Patterns of JPEG-LS could be read in two ways."""
    signed = described(EDGES.shape, BitsStored=10, HighBit=9, PixelRepresentation=1)
    stream = lossy("91", EDGES[0].astype("<i2") - 512)
    source = wrapped(tmp_path, signed, ARC + "91", [stream])
    ours = read_back(converted(transcoder, source, EXPLICIT), EXPLICIT)
    assert (ours.BitsStored, ours.HighBit) == (12, 11)
    assert ours.pixel_array.min() < -512 and ours.pixel_array.max() > 511
    run("gdcmconv", "--raw", source[0], tmp_path / "theirs.dcm")
    assert np.array_equal(dcmread(tmp_path / "theirs.dcm").pixel_array, ours.pixel_array)
    ds = described(EDGES.shape, BitsStored=10, HighBit=9, PixelRepresentation=1)
    source = wrapped(tmp_path, ds, ARC + "81", [lossy("81", EDGES[0])])
    with pytest.raises(TranscodingFailed, match="PixelsUndecodable"):
        converted(transcoder, source, EXPLICIT)


@pytest.mark.parametrize("before", [None, "", "00", "01"])
def test_what_lost_something_says_so(
    transcoder: SandboxedTranscoder, tmp_path: Path, before: str | None
) -> None:
    said = {} if before is None else {"LossyImageCompression": before}
    streams = {
        "50": imagecodecs.jpeg8_encode(EDGES[0].astype("u1")),
        "51": lossy("51", EDGES[0]),
        "81": lossy("81", EDGES[0]),
        "91": lossy("91", EDGES[0]),
    }
    small = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    for name, stream in streams.items():
        ds = described(EDGES.shape, **said, **(small if name == "50" else {}))
        source = wrapped(tmp_path, ds, ARC + name, [bytes(stream)])
        ours = read_back(converted(transcoder, source, EXPLICIT), EXPLICIT)
        assert ours.LossyImageCompression == "01", name
    reversible = {
        "81": imagecodecs.jpegls_encode(EDGES[0]),
        "91": imagecodecs.jpeg2k_encode(EDGES[0], codecformat="j2k", reversible=True),
        "80": imagecodecs.jpegls_encode(EDGES[0]),
    }
    for name, stream in reversible.items():
        source = wrapped(tmp_path, described(EDGES.shape, **said), ARC + name, [bytes(stream)])
        ours = read_back(converted(transcoder, source, EXPLICIT), EXPLICIT)
        assert ours.get("LossyImageCompression") == before, name


def test_an_icon_is_not_what_is_called_lossy(
    transcoder: SandboxedTranscoder, tmp_path: Path
) -> None:
    stream = bytes(imagecodecs.jpeg8_encode(EDGES[0].astype("u1")))
    small = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    icon, ds = described(EDGES.shape, **small), described(EDGES.shape, **small)
    wrapped(tmp_path, icon, ARC + "50", [stream])
    ds.IconImageSequence = Items([icon])
    source = wrapped(tmp_path, ds, ARC + "50", [stream])
    ours = read_back(converted(transcoder, source, EXPLICIT), EXPLICIT)
    assert ours.LossyImageCompression == "01"
    assert "LossyImageCompression" not in ours.IconImageSequence[0]
    assert ours.IconImageSequence[0].PixelData == ours.PixelData


# --- lossless cells come out as they went in -----------------------------------------

HIGH = IMAGE[:1] | (RANDOM.integers(0, 2, IMAGE[:1].shape) << 12).astype("<u2")


@pytest.mark.parametrize("tool", ["dcmcjpeg +e1", "dcmcjpeg +el +sv 6", "dcmcjpls +el"])
@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize("pixels", [HIGH, IMAGE[:1]], ids=["bits in use", "sign not repeated"])
def test_bits_above_bits_stored_that_dcmtk_encoded_come_back(
    transcoder: SandboxedTranscoder, tmp_path: Path, tool: str, signed: int, pixels: np.ndarray
) -> None:
    ds = described(pixels.shape, PixelRepresentation=signed)
    path, packed = native(tmp_path, ds, pixels), tmp_path / "packed.dcm"
    run(*tool.split(), path, packed)
    ours = read_back(converted(transcoder, as_stored(packed), EXPLICIT), EXPLICIT)
    assert ours.PixelData == pixels.tobytes()
    assert (ours.BitsStored, ours.HighBit) == (12, 11)
    assert ours.get("LossyImageCompression") is None


def test_the_sign_repeats_above_a_codestream_of_bits_stored(
    transcoder: SandboxedTranscoder, tmp_path: Path
) -> None:
    """JPEG knows no sign, and the bits above are not in the codestream."""
    stream = bytes(imagecodecs.jpeg8_encode(IMAGE[0], lossless=True, bitspersample=12))
    ds = described((1, *IMAGE.shape[1:]), PixelRepresentation=1)
    ours = read_back(
        converted(transcoder, wrapped(tmp_path, ds, ARC + "70", [stream]), EXPLICIT), EXPLICIT
    )
    numbers = IMAGE[0].astype(int)
    expected = np.where(numbers < 2048, numbers, numbers - 4096)
    assert np.array_equal(np.frombuffer(ours.PixelData, "<i2"), expected.ravel())


# --- fragments and tables ------------------------------------------------------------

STREAMS = {
    "70": [bytes(imagecodecs.jpeg8_encode(one, lossless=True, bitspersample=12)) for one in IMAGE],
    "80": [bytes(imagecodecs.jpegls_encode(one)) for one in IMAGE],
    "90": [
        bytes(imagecodecs.jpeg2k_encode(one, level=0, codecformat="j2k", reversible=True))
        for one in IMAGE
    ],
}


def even(stream: bytes) -> bytes:
    return stream + b"\0" * (len(stream) % 2)


def cut(stream: bytes) -> list[bytes]:
    return [stream[at : at + 100] for at in range(0, len(stream), 100)]


def offsets(frames: Sequence[Sequence[bytes]]) -> list[int]:
    found, at = [], 0
    for fragments in frames:
        found.append(at)
        at += sum(8 + len(one) for one in fragments)
    return found


def table(numbers: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(numbers)}I", *numbers)


@pytest.mark.parametrize("name", sorted(STREAMS))
@pytest.mark.parametrize("pieces", [False, True], ids=["whole", "in pieces"])
def test_tables_that_are_wrong_are_not_needed(
    transcoder: SandboxedTranscoder, tmp_path: Path, name: str, pieces: bool
) -> None:
    frames = [cut(even(one)) if pieces else [even(one)] for one in STREAMS[name]]
    right = offsets(frames)
    tables = {
        "right": table(right),
        "none": b"",
        "shifted": table([one + 8 for one in right]),
        "zeros": table([0, 0, 0, 0]),
        "one": table([0]),
        "garbage": table([0, 0x7FFF_FFFF, 5, 3]),
        "no table": b"\1\2",
    }
    all_of_them = [one for fragments in frames for one in fragments]
    for what, numbers in tables.items():
        for trailing in ([], [b""], [bytes(64)], [b"", bytes(4)]):
            source = wrapped(
                tmp_path, described(IMAGE.shape), ARC + name, [*all_of_them, *trailing], numbers
            )
            ours = read_back(converted(transcoder, source, EXPLICIT), EXPLICIT)
            assert ours.PixelData == IMAGE.tobytes(), (what, trailing)


@pytest.mark.parametrize("name", sorted(STREAMS))
def test_frames_are_neither_lost_nor_made_up(
    transcoder: SandboxedTranscoder, tmp_path: Path, name: str
) -> None:
    whole = [even(one) for one in STREAMS[name]]
    pieces = [one for stream in whole for one in cut(stream)]
    for fragments, count in ((whole, 1), (whole, 3), (whole, 5), (pieces, 3), (pieces, 1)):
        for numbers in (b"", table([0])):
            ds = described((count, *IMAGE.shape[1:]))
            source = wrapped(tmp_path, ds, ARC + name, fragments, numbers)
            with pytest.raises(TranscodingFailed, match="PixelsUndecodable"):
                converted(transcoder, source, EXPLICIT)


@pytest.mark.parametrize("name", sorted(STREAMS))
def test_fill_and_padding_around_a_stream_are_passed_over(
    transcoder: SandboxedTranscoder, tmp_path: Path, name: str
) -> None:
    padded = [one + bytes(200) for one in STREAMS[name]]
    fill = b"" if name == "90" else b"\xff" * 4  # may stand before any marker of JPEG
    for streams in (padded, [fill + one for one in padded]):
        source = wrapped(tmp_path, described(IMAGE.shape), ARC + name, streams)
        ours = read_back(converted(transcoder, source, EXPLICIT), EXPLICIT)
        assert ours.PixelData == IMAGE.tobytes()


# --- single bits ---------------------------------------------------------------------


def test_single_bits_come_out_of_jpeg_2000_packed(
    transcoder: SandboxedTranscoder, tmp_path: Path
) -> None:
    bits = RANDOM.integers(0, 2, (3, 5, 9)).astype("u1")  # 45 bits a frame: no whole bytes
    one_bit = {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}
    ds = described(bits.shape, **one_bit)
    streams = [
        bytes(
            imagecodecs.jpeg2k_encode(
                one, level=0, codecformat="j2k", reversible=True, bitspersample=1
            )
        )
        for one in bits
    ]
    source = wrapped(tmp_path, ds, ARC + "90", streams)
    ours = read_back(converted(transcoder, source, EXPLICIT), EXPLICIT)
    assert (ours.BitsAllocated, ours.BitsStored) == (1, 1)
    assert np.array_equal(ours.pixel_array, bits)
    assert len(ours.PixelData) == 18  # 135 bits, and padding
    single = wrapped(tmp_path, described((1, 5, 9), **one_bit), ARC + "90", streams[:1])
    run("gdcmconv", "--raw", single[0], tmp_path / "theirs.dcm")
    assert np.array_equal(dcmread(tmp_path / "theirs.dcm").pixel_array, bits[0])
    more = bytes(imagecodecs.jpeg2k_encode(bits[0] * 255, codecformat="j2k", reversible=True))
    source = wrapped(tmp_path, ds, ARC + "90", [more] * 3)
    with pytest.raises(TranscodingFailed, match="PixelsUndecodable"):
        converted(transcoder, source, EXPLICIT)


@pytest.mark.parametrize("allocated", [8, 16])
@pytest.mark.parametrize("signed", [0, 1])
def test_one_bit_stored_is_carried_by_jpeg_2000(
    transcoder: SandboxedTranscoder, tmp_path: Path, allocated: int, signed: int
) -> None:
    bits = RANDOM.integers(0, 2, (1, 5, 9)).astype(f"<i{allocated // 8}") * (1 - 2 * signed)
    ds = described(
        bits.shape, BitsAllocated=allocated, BitsStored=1, HighBit=0, PixelRepresentation=signed
    )
    value = bits.tobytes()
    ds.PixelData = value + b"\0" * (len(value) % 2)
    ds["PixelData"].VR = "OB" if allocated == 8 else "OW"
    stored = part10(tmp_path, encoded(ds), EXPLICIT, "native.dcm")
    packed = part10(tmp_path, converted(transcoder, stored, ARC + "90"), ARC + "90")
    assert np.array_equal(dcmread(packed[0]).pixel_array, bits[0])
    assert converted(transcoder, packed, EXPLICIT) == converted(transcoder, stored, EXPLICIT)
    if not signed:
        run("gdcmconv", "--raw", packed[0], tmp_path / "theirs.dcm")
        assert np.array_equal(dcmread(tmp_path / "theirs.dcm").pixel_array, bits[0])
