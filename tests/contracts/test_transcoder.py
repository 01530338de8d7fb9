"""What a Transcoder promises, held against pydicom, DCMTK and GDCM."""

import shutil
import struct
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import JPEG2000Lossless
from pylibjpeg.utils import get_pixel_data_decoders

from config.settings import Retrieve
from pacs.core.errors import TranscodingFailed
from pacs.core.identifiers import TransferSyntaxUID
from processing.datasets.syntaxes import LOSSLESS, LOSSY
from processing.datasets.transcode import SandboxedTranscoder
from tests.transcoding import (
    ARC,
    BIG,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    OUTSIDE,
    OVERSHOT,
    PLAIN,
    RLE,
    SAMPLES,
    UNSAID,
    converted,
    element,
    encoded,
    item,
    part10,
    read_back,
    samples,
)


@pytest.fixture(scope="module")
def work_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def transcoder(work_folder: Path) -> Iterator[SandboxedTranscoder]:
    made = SandboxedTranscoder(Retrieve(transcode_max_bytes=1 << 28), work_folder)
    yield made
    made.close()


CONTENT: dict[int, tuple[bytes, bytes]] = {
    0x0008_0005: (b"CS", b"ISO_IR 6"),
    0x0008_0018: (b"UI", b"1.2.3\0"),
    0x0009_0010: (b"LO", b"NOBODY KNOWS"),
    0x0009_1001: (b"UN", b"\1\2\3\4"),
    0x0010_0010: (b"PN", b"M\xfcller^\xe4\xff\x81 "),  # not in the character set named
    0x0010_0040: (b"CS", b"?\x07"),
    0x0018_9087: (b"FD", struct.pack("<d", 1.25)),
    0x0020_9161: (b"UI", b"1.2.3.4\0"),
    0x0028_0009: (b"AT", b"\x18\0\x63\x10"),
    0x0028_0002: (b"US", b"\1\0"),
    0x0028_0004: (b"CS", b"MONOCHROME2 "),
    0x0028_0010: (b"US", b"\2\0"),
    0x0028_0011: (b"US", b"\3\0"),
    0x0028_0100: (b"US", b"\x10\0"),
    0x0028_0101: (b"US", b"\x10\0"),
    0x0028_0103: (b"US", b"\1\0"),
    0x0028_0106: (b"SS", struct.pack("<h", -5)),
    0x0066_0016: (b"OF", struct.pack("<2f", 1.5, -2.5)),
    0x7FE0_0010: (b"OW", struct.pack("<6h", 1, -2, 3, -4, 5, -6)),
}
SEQUENCE = element(
    0x0008_1140,
    b"SQ",
    item(element(0x0008_1155, b"UI", b"1.9\0") + element(0x0028_0106, b"SS", b"\xff\xff"))
    + item(b""),
)


def explicit_data_set() -> bytes:
    pieces = {tag: element(tag, vr, value) for tag, (vr, value) in CONTENT.items()}
    pieces[0x0008_1140] = SEQUENCE
    return b"".join(pieces[tag] for tag in sorted(pieces))


@pytest.mark.parametrize("middle", PLAIN)
@pytest.mark.parametrize("last", PLAIN)
def test_uncompressed_syntaxes_lead_back_to_every_element(
    transcoder: SandboxedTranscoder,
    tmp_path: Path,
    middle: TransferSyntaxUID,
    last: TransferSyntaxUID,
) -> None:
    first = part10(tmp_path, explicit_data_set(), EXPLICIT)
    there = part10(tmp_path, converted(transcoder, first, middle), middle, "middle.dcm")
    further = part10(tmp_path, converted(transcoder, there, last), last, "last.dcm")
    back = converted(transcoder, further, EXPLICIT)
    for tag, (vr, value) in CONTENT.items():
        assert element(tag, vr, value) in back, f"{tag:08x}"
    assert transcoder.same_content(first, there)
    assert transcoder.same_content(there, further)
    ds = read_back(converted(transcoder, first, last), last)
    assert ds.pixel_array.tolist() == [[1, -2, 3], [-4, 5, -6]]
    assert ds.SmallestImagePixelValue == -5
    nested = element(0x0028_0106, b"SS", b"\xff\xff")  # signed, as what holds it says
    assert nested in back
    assert len(ds.ReferencedImageSequence) == 2
    assert ds.FrameIncrementPointer == 0x0018_1063
    assert ds.PointCoordinatesData in (
        [1.5, -2.5],
        struct.pack("<2f", 1.5, -2.5),
        struct.pack(">2f", 1.5, -2.5),
    )
    assert ds.get_item(0x0009_1001).value == b"\1\2\3\4"


def test_a_deflated_target_is_a_raw_deflate_stream(
    transcoder: SandboxedTranscoder, tmp_path: Path
) -> None:
    source = part10(tmp_path, explicit_data_set(), EXPLICIT)
    out = converted(transcoder, source, DEFLATED)
    assert len(out) % 2 == 0
    assert zlib.decompressobj(-15).decompress(out) == converted(transcoder, source, EXPLICIT)


def test_a_value_too_long_for_its_vr_becomes_un(
    transcoder: SandboxedTranscoder, tmp_path: Path
) -> None:
    value = b"1\\2 " * 20_000
    implicit = struct.pack("<HHI", 0x3006, 0x0050, len(value)) + value
    out = converted(transcoder, part10(tmp_path, implicit, IMPLICIT), EXPLICIT)
    assert out == element(0x3006_0050, b"UN", value)


def test_unknown_vrs_and_unknown_private_elements_pass(
    transcoder: SandboxedTranscoder, tmp_path: Path
) -> None:
    odd = struct.pack("<HH2sHI", 0x0011, 0x1001, b"ZZ", 0, 3) + b"abc"
    assert converted(transcoder, part10(tmp_path, odd, EXPLICIT), EXPLICIT) == odd
    implicit = struct.pack("<HHI", 0x0011, 0x1001, 3) + b"abc"
    assert converted(transcoder, part10(tmp_path, odd, EXPLICIT), IMPLICIT) == implicit
    out = converted(transcoder, part10(tmp_path, implicit, IMPLICIT), EXPLICIT)
    assert out == element(0x0011_1001, b"UN", b"abc")


def test_un_of_undefined_length_is_read_as_implicit_items(
    transcoder: SandboxedTranscoder, tmp_path: Path
) -> None:
    inner = item(struct.pack("<HHI", 0x0008, 0x0060, 2) + b"CT")
    un = struct.pack("<HH2sHI", 0x0011, 0x1001, b"UN", 0, 0xFFFF_FFFF) + inner
    un += struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    out = read_back(converted(transcoder, part10(tmp_path, un, EXPLICIT), EXPLICIT), EXPLICIT)
    assert out[0x0011_1001].value[0].Modality == "CT"


@pytest.mark.filterwarnings("ignore")
def test_samples_convert_and_keep_their_content(
    transcoder: SandboxedTranscoder, tmp_path: Path
) -> None:
    if not SAMPLES.is_dir():
        pytest.skip("no sample files")
    refused = {name for names in OUTSIDE.values() for name in names}
    failed = []
    for source in samples():
        try:
            out = converted(transcoder, source, EXPLICIT)
        except TranscodingFailed:
            failed.append(Path(source[0]).name)
            continue
        if source[2] not in LOSSY:
            assert transcoder.same_content(source, part10(tmp_path, out, EXPLICIT)), source[0]
    assert set(failed) == refused


def flat(ds: Dataset) -> dict[int, object]:
    """Raw values by tag, as pydicom finds them, without what a conversion may change."""
    changes = {0x7FE0_0010, 0x7FE0_0001, 0x7FE0_0002, 0x0028_0004, 0x0028_0006}
    tags = [tag for tag in ds.keys() if int(tag) not in changes and tag.element]  # noqa: SIM118
    elements = [ds.get_item(tag) for tag in tags]  # all of them before any is interpreted
    found: dict[int, object] = {}
    for raw in elements:
        if raw.VR == "SQ" or (raw.VR in (None, "UN") and ds[raw.tag].VR == "SQ"):
            found[int(raw.tag)] = [flat(nested) for nested in ds[raw.tag].value] or b""
        else:
            found[int(raw.tag)] = raw.value or b""
    return found


def mended(path: str) -> dict[int, object]:
    """What decoding makes true in a Data Set, raw."""
    name = Path(path).name
    changes: dict[int, object] = {0x0028_2110: b"01"} if name in UNSAID else {}
    if bits := OVERSHOT.get(name):
        changes |= {0x0028_0101: struct.pack("<H", bits), 0x0028_0102: struct.pack("<H", bits - 1)}
    return changes


@pytest.mark.filterwarnings("ignore")
def test_samples_keep_every_element_in_pydicoms_eyes(transcoder: SandboxedTranscoder) -> None:
    if not SAMPLES.is_dir():
        pytest.skip("no sample files")
    refused = {name for names in OUTSIDE.values() for name in names}
    compared = 0
    for source in samples():
        if source[2] == BIG or Path(source[0]).name in refused | {"GH1339.dcm"}:
            continue  # pydicom's raw values are in the source's order; it drops an unended element
        for target in (IMPLICIT, EXPLICIT):
            result = read_back(converted(transcoder, source, target), target)
            assert flat(result) == flat(dcmread(source[0])) | mended(source[0]), source[0]
            compared += 1
    assert compared > 200


@pytest.mark.filterwarnings("ignore")
def test_decoded_samples_have_the_pixels_pydicom_decodes(transcoder: SandboxedTranscoder) -> None:
    if not SAMPLES.is_dir():
        pytest.skip("no sample files")
    refused = {name for names in OUTSIDE.values() for name in names}
    compared = 0
    for source in samples():
        if Path(source[0]).name in refused or source[2] == DEFLATED:
            continue
        original = dcmread(source[0])
        if "PixelData" not in original or source[2] == BIG:
            continue
        result = read_back(converted(transcoder, source, EXPLICIT), EXPLICIT)
        assert np.array_equal(original.pixel_array, result.pixel_array), source[0]
        compared += 1
    assert compared > 100


TOOLS = {  # converts to native Pixel Data, without changing colours
    **dict.fromkeys((ARC + "57", ARC + "70"), ("dcmdjpeg", "+cn")),
    **dict.fromkeys((ARC + "50", ARC + "51"), ("dcmdjpeg",)),
    **dict.fromkeys((ARC + "80", ARC + "81"), ("dcmdjpls",)),
    **dict.fromkeys((ARC + "90", ARC + "91"), ("gdcmconv", "--raw")),
    RLE: ("dcmdrle",),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("syntax", sorted(TOOLS))
def test_decoded_samples_have_the_pixels_other_toolkits_decode(
    transcoder: SandboxedTranscoder, tmp_path: Path, syntax: str
) -> None:
    tool = TOOLS[syntax]
    if not SAMPLES.is_dir() or not shutil.which(tool[0]):
        pytest.skip("no sample files, or no " + tool[0])
    refused = {name for names in OUTSIDE.values() for name in names}
    tolerance = 8 if syntax in LOSSY else 0  # decoders of lossy streams round differently
    compared = 0
    for source in (s for s in samples() if s[2] == syntax and Path(s[0]).name not in refused):
        theirs = tmp_path / "theirs.dcm"
        theirs.unlink(missing_ok=True)
        subprocess.run([*tool, source[0], str(theirs)], check=False, capture_output=True)
        if not theirs.exists() or "PixelData" not in dcmread(theirs):
            continue
        ours = read_back(converted(transcoder, source, EXPLICIT), EXPLICIT).pixel_array
        other = dcmread(theirs).pixel_array
        difference = np.abs(ours.astype(np.int64) - other.astype(np.int64))
        assert difference.max() <= tolerance, source[0]
        assert difference.mean() < 0.1, source[0]
        compared += 1
    assert compared


def decoded_otherwise(stream: bytes, syntax: str, shape: tuple[int, ...]) -> np.ndarray:
    """Decode one lossy frame with a library that the code under test does not use for it."""
    if syntax in (ARC + "50", ARC + "51"):
        return imagecodecs.jpeg8_decode(stream)
    if syntax != ARC + "81":
        return imagecodecs.jpeg2k_decode(stream)
    decode = get_pixel_data_decoders(version=2)[syntax]["libjpeg"]
    found = decode(stream, version=2, photometric_interpretation="RGB")
    cell = "u1" if len(found) == np.prod(shape) else "<u2"
    return np.frombuffer(found, cell).reshape(shape)


@pytest.mark.filterwarnings("ignore")
def test_lossy_samples_are_what_another_library_decodes(transcoder: SandboxedTranscoder) -> None:
    """JPEG's inverse cosines are rounded freely, and chroma may be interpolated; all else is exact."""
    if not SAMPLES.is_dir():
        pytest.skip("no sample files")
    refused = {name for names in OUTSIDE.values() for name in names}
    compared = set()
    for source in samples():
        if source[2] not in LOSSY or Path(source[0]).name in refused:
            continue
        original = dcmread(source[0])
        result = read_back(converted(transcoder, source, EXPLICIT), EXPLICIT)
        ours = result.pixel_array
        count = int(original.get("NumberOfFrames") or 1)
        shape = ours.shape if count == 1 else ours.shape[1:]
        frames = generate_frames(original.PixelData, number_of_frames=count)
        other = np.stack([decoded_otherwise(one, source[2], shape) for one in frames])
        mask = (1 << result.BitsStored) - 1
        left, right = (one.astype(np.int64) & mask for one in (ours, other.reshape(ours.shape)))
        rounding = source[2] in (ARC + "50", ARC + "51")
        shared = str(original.PhotometricInterpretation) == "YBR_FULL_422"
        assert np.abs(left - right).max() <= (8 if shared else 2 if rounding else 0), source[0]
        assert np.abs(left - right).mean() < 0.1, source[0]
        assert result.SOPInstanceUID == original.SOPInstanceUID
        unsaid = Path(source[0]).name in UNSAID
        assert result.get("LossyImageCompression") == (
            "01" if unsaid else original.LossyImageCompression
        )
        compared.add(source[2])
    assert compared == LOSSY


def rle_data_set(pixels: np.ndarray, **changes: object) -> tuple[bytes, Dataset]:
    """Compress an image, with an encoder that the code under test does not use to decode."""
    frames, rows, columns = pixels.shape
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3"
    ds.NumberOfFrames, ds.Rows, ds.Columns = frames, rows, columns
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = pixels.dtype.itemsize * 8
    ds.HighBit, ds.PixelRepresentation = ds.BitsStored - 1, int(pixels.dtype.kind == "i")
    for keyword, value in changes.items():
        setattr(ds, keyword, value)
    segments = [rle_frame(frame) for frame in pixels]
    ds.PixelData = encapsulate(segments)
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    return encoded(ds), ds


def rle_frame(frame: np.ndarray) -> bytes:
    """PS3.5 Annex G with literal runs only."""
    planes = frame.astype(frame.dtype.newbyteorder(">")).tobytes()
    size = frame.dtype.itemsize
    segments = []
    for byte in range(size):
        plane = planes[byte::size]
        runs = (plane[i : i + 128] for i in range(0, len(plane), 128))
        segment = b"".join(bytes([len(run) - 1]) + run for run in runs)
        segments.append(segment + b"\x80" * (len(segment) % 2))
    offsets, at = [], 64
    for segment in segments:
        offsets.append(at)
        at += len(segment)
    header = struct.pack("<16I", size, *offsets, *[0] * (15 - size))
    return header + b"".join(segments)


@pytest.mark.parametrize("kind", ["u1", "i2", "u4"])
def test_multi_frame_signed_and_odd_lengths_come_out_exact(
    transcoder: SandboxedTranscoder, tmp_path: Path, kind: str
) -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (3, 5, 7)).astype(kind)
    pixels[0, 0, 0] = np.iinfo(kind).min
    data_set, _ = rle_data_set(pixels, LossyImageCompression="01")
    out = converted(transcoder, part10(tmp_path, data_set, RLE), EXPLICIT)
    result = read_back(out, EXPLICIT)
    assert np.array_equal(result.pixel_array, pixels)
    assert len(result.PixelData) % 2 == 0
    assert result.SOPInstanceUID == "1.2.3"
    assert result.LossyImageCompression == "01"


def test_extended_offsets_go_with_the_encapsulation(
    transcoder: SandboxedTranscoder, tmp_path: Path
) -> None:
    pixels = np.arange(32, dtype="u1").reshape(2, 4, 4)
    length = len(rle_frame(pixels[0]))
    data_set, _ = rle_data_set(
        pixels,
        ExtendedOffsetTable=struct.pack("<2Q", 0, length + 8),
        ExtendedOffsetTableLengths=struct.pack("<2Q", length, length),
    )
    result = read_back(converted(transcoder, part10(tmp_path, data_set, RLE), IMPLICIT), IMPLICIT)
    assert np.array_equal(result.pixel_array, pixels)
    assert "ExtendedOffsetTable" not in result
    assert "ExtendedOffsetTableLengths" not in result


def test_frames_that_are_missing_are_not_made_up(
    transcoder: SandboxedTranscoder, tmp_path: Path
) -> None:
    data_set, _ = rle_data_set(np.zeros((2, 4, 4), "u1"), NumberOfFrames=3)
    with pytest.raises(TranscodingFailed):
        converted(transcoder, part10(tmp_path, data_set, RLE), EXPLICIT)


def test_bombs_are_refused(transcoder: SandboxedTranscoder, tmp_path: Path) -> None:
    data_set, _ = rle_data_set(np.zeros((1, 4, 4), "u1"), Rows=60_000, Columns=60_000)
    with pytest.raises(TranscodingFailed, match="TooLarge"):
        converted(transcoder, part10(tmp_path, data_set, RLE), EXPLICIT)
    deflater = zlib.compressobj(9, wbits=-15)
    zeros = element(0x0042_0011, b"OB", bytes(300 << 20))
    bomb = part10(tmp_path, deflater.compress(zeros) + deflater.flush(), DEFLATED)
    with pytest.raises(TranscodingFailed, match="TooLarge"):
        converted(transcoder, bomb, EXPLICIT)
    large = tmp_path / "large.dcm"
    with large.open("wb") as file:
        file.truncate((1 << 28) + 1)
    with pytest.raises(TranscodingFailed, match="TooLarge"):
        converted(transcoder, (str(large), 0, EXPLICIT), IMPLICIT)


@pytest.mark.parametrize(
    "broken",
    [
        b"\x10\0\x10\0LO\xff\0short",
        struct.pack("<HH2sHI", 8, 0x1140, b"SQ", 0, 0xFFFF_FFFF) * 1,
        b"".join(
            struct.pack("<HH2sHI", 8, 0x1140, b"SQ", 0, 0xFFFF_FFFF)
            + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFF_FFFF)
            for _ in range(5000)
        ),
        b"\xfe\xff\x0d\xe0\0\0\0\0",
        element(0x0008_0060, b"CS", b"CT") * 2,
    ],
    ids=["truncated", "open", "deep", "delimiter", "twice"],
)
def test_malformed_data_sets_are_refused_and_leave_nothing(
    transcoder: SandboxedTranscoder, work_folder: Path, tmp_path: Path, broken: bytes
) -> None:
    with pytest.raises(TranscodingFailed):
        converted(transcoder, part10(tmp_path, broken, EXPLICIT), IMPLICIT)
    assert list(work_folder.iterdir()) == []


def test_the_file_is_there_within_the_block_and_gone_after(
    transcoder: SandboxedTranscoder, work_folder: Path, tmp_path: Path
) -> None:
    source = part10(tmp_path, explicit_data_set(), EXPLICIT)
    with transcoder.convert(*source, IMPLICIT) as path:
        assert Path(path).parent == work_folder
        assert Path(path).stat().st_size > 0
    assert list(work_folder.iterdir()) == []


def test_sweep_removes_what_a_killed_process_left(tmp_path: Path) -> None:
    (tmp_path / "transcode-left").write_bytes(b"x")
    (tmp_path / "another").write_bytes(b"x")
    SandboxedTranscoder(Retrieve(), tmp_path).sweep()
    assert [path.name for path in tmp_path.iterdir()] == ["another"]


def test_convertible_names_what_the_codecs_can(transcoder: SandboxedTranscoder) -> None:
    encoded = {RLE, *(ARC + last for last in ("57", "70", "80", "90", "201", "202"))}
    for source in (*PLAIN, *LOSSLESS, *LOSSY):
        readable = source in PLAIN or get_decoder(source).is_available
        for target in PLAIN:
            assert transcoder.convertible(TransferSyntaxUID(source), target) is readable
        for packed in (*LOSSLESS, *LOSSY):
            expected = packed in encoded and readable and source not in {*LOSSY, packed}
            found = transcoder.convertible(TransferSyntaxUID(source), TransferSyntaxUID(packed))
            assert found is expected, (source, packed)
    for never in (ARC + "100", ARC + "53", "1.2.840.10008.1.2.8.1", "1.2.3"):
        assert not transcoder.convertible(TransferSyntaxUID(never), EXPLICIT)
        assert not transcoder.convertible(EXPLICIT, TransferSyntaxUID(never))


def test_same_content_finds_one_changed_byte(
    transcoder: SandboxedTranscoder, tmp_path: Path
) -> None:
    whole = explicit_data_set()
    left = part10(tmp_path, whole, EXPLICIT)
    for old, new in [
        (b"1.2.3.4\0", b"1.2.3.5\0"),
        (b"\xff\x81", b"\xff\x82"),
        (b"1.9\0", b"1.8\0"),
    ]:
        changed = part10(tmp_path, whole.replace(old, new), EXPLICIT, "changed.dcm")
        assert not transcoder.same_content(left, changed)
    pixel = part10(tmp_path, whole[:-1] + b"\0", EXPLICIT, "changed.dcm")
    assert not transcoder.same_content(left, pixel)
    more = part10(tmp_path, whole + element(0xFFFC_FFFC, b"OB", bytes(8)), EXPLICIT, "more.dcm")
    assert transcoder.same_content(left, more)
    assert not transcoder.same_content(left, ("/nowhere", 0, EXPLICIT))


def test_same_content_sees_through_lossless_compression_only(
    transcoder: SandboxedTranscoder, tmp_path: Path
) -> None:
    data_set, _ = rle_data_set(np.arange(32, dtype="i2").reshape(2, 4, 4))
    packed = part10(tmp_path, data_set, RLE)
    plain = part10(tmp_path, converted(transcoder, packed, BIG), BIG, "plain.dcm")
    assert transcoder.same_content(packed, plain)
    ds = read_back(converted(transcoder, packed, EXPLICIT), EXPLICIT)
    image = np.arange(4096, dtype="i2").reshape(64, 64)
    ds.Rows, ds.Columns, ds.NumberOfFrames, ds.PixelData = 64, 64, 1, image.tobytes()
    plain = part10(tmp_path, encoded(ds), EXPLICIT, "plain.dcm")
    ds.compress(JPEG2000Lossless, generate_instance_uid=False)
    assert transcoder.same_content(part10(tmp_path, encoded(ds), ARC + "90"), plain)
    lossy = part10(tmp_path, encoded(ds), ARC + "91", "lossy.dcm")  # nobody can tell
    assert transcoder.same_content(lossy, lossy)
    assert not transcoder.same_content(lossy, plain)
