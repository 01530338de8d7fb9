"""What a Transcoder promises of lossless encoding, held against pydicom, DCMTK, GDCM and dicom3tools."""

import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.pixels.decoders.base import get_decoder
from pydicom.sequence import Sequence

from config.settings import Retrieve
from pacs.core.errors import EncodingUnproved, TranscodingFailed, TranscodingInterrupted
from pacs.core.identifiers import TransferSyntaxUID
from processing.codecs import jpeg_2000, registry
from processing.codecs.frame import Form, Samples
from processing.datasets import compress, tasks
from processing.datasets.elements import EXPLICIT_LITTLE, PIXEL_DATA, DataSet
from processing.datasets.source import read
from processing.datasets.syntaxes import LOSSLESS, LOSSY
from processing.datasets.transcode import SandboxedTranscoder
from processing.sandbox import TaskFailed
from tests import peers
from tests.transcoding import (
    ARC,
    BIG,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    OUTSIDE,
    RLE,
    SAMPLES,
    Stored,
    converted,
    encoded,
    part10,
    read_back,
    samples,
)

PACKED = tuple(TransferSyntaxUID(uid) for uid in sorted(registry.CODECS))
CHANGED = (0x0028_0006, 0x7FE0_0001, 0x7FE0_0002, 0x7FE0_0010)
REFUSED = {
    "ImageMissing": {
        *("DICOMDIR", "DICOMDIR-bigEnd", "DICOMDIR-empty.dcm", "DICOMDIR-implicit", "GH220.dcm"),
        *("GH487.dcm", "NeurosurgeryPlan.dcm", "chrJapMulti.dcm", "chrKoreanMulti.dcm"),
        *("encapsulated_pdf.dcm", "fall.dcm", "parametric_map_double_float.dcm", "prOverlay.dcm"),
        *("report_dfl", "reportsi_with_empty_number_tags.dcm", "rtplan.dcm", "rtss.dcm"),
        *("sample-sr.dcm", "sm_annotations.dcm", "sr_document.dcm", "test-SR.dcm"),
        "waveform_ecg.dcm",
    },
    "ColorsNotCarried": {"SC_ybr_full_422_uncompressed.dcm", "US-YBR_FULL_422-EVRLE.dcm"},
    "DepthNotCarried": {
        *(
            "liver_expb_1frame.dcm",
            "liver_j2k.dcm",
            "seg_image_cr_binary.dcm",
            "seg_image_ct_binary.dcm",
        ),
        *("SC_rgb_32bit.dcm", "SC_rgb_rle_32bit_2frame.dcm", "rtdose_1frame.dcm", "rtdose_rle.dcm"),
    },
    "UnusedBitsInUse": {"IM-0001-0001-0001.dcm"},
}
"""Samples that are not encoded, by kind; RLE carries 32 bits and overlays among them."""


@pytest.fixture(scope="module")
def work_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def transcoder(work_folder: Path) -> Iterator[SandboxedTranscoder]:
    made = SandboxedTranscoder(Retrieve(transcode_max_bytes=1 << 28), work_folder)
    yield made
    made.close()


def image(pixels: np.ndarray, **changes: object) -> Dataset:
    """Describe frames × rows × columns (× 3) as a secondary capture, native and little endian."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3"
    ds.PatientName = "Nobody^At All"
    ds.NumberOfFrames, ds.Rows, ds.Columns = pixels.shape[:3]
    ds.SamplesPerPixel = 3 if pixels.ndim == 4 else 1
    ds.PhotometricInterpretation = "RGB" if pixels.ndim == 4 else "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = pixels.dtype.itemsize * 8
    ds.HighBit, ds.PixelRepresentation = ds.BitsStored - 1, int(pixels.dtype.kind == "i")
    if pixels.ndim == 4:
        ds.PlanarConfiguration = 0
    for keyword, value in changes.items():
        setattr(ds, keyword, value)
    if pixels.ndim == 4 and ds.PlanarConfiguration == 1:
        pixels = np.moveaxis(pixels, -1, 1)
    value = pixels.tobytes()
    ds.PixelData = value + b"\0" * (len(value) % 2)
    ds["PixelData"].VR = "OB" if pixels.dtype.itemsize == 1 else "OW"
    return ds


def noise(shape: tuple[int, ...], kind: str, bits: int) -> np.ndarray:
    low = -(1 << bits - 1) if "i" in kind else 0
    return np.random.default_rng(bits).integers(low, low + (1 << bits), size=shape).astype(kind)


def pixels_of(data_set: bytes, syntax: str) -> np.ndarray:
    """Decode with pydicom, without conversion of colours."""
    ds = read_back(data_set, syntax)
    frames = get_decoder(ds.file_meta.TransferSyntaxUID).iter_array(ds, raw=True)
    return np.stack([frame.copy() for frame, _ in frames])


def unchanged_part(data_set: bytes) -> dict[int, bytes]:
    """Everything that encoding must not change, by where it stands."""
    elements = read(memoryview(data_set), EXPLICIT_LITTLE)
    return {
        tag: b"items" if one.items is not None else bytes(one.vr or b"") + bytes(one.value)
        for tag, one in elements.items()
        if tag not in CHANGED
    }


PALETTE = {"PhotometricInterpretation": "PALETTE COLOR"} | {
    f"{color}PaletteColorLookupTable{part}": value
    for color in ("Red", "Green", "Blue")
    for part, value in (("Descriptor", [256, 0, 8]), ("Data", bytes(range(256))))
}
IMAGES = {
    "CT": (noise((1, 33, 47), "<i2", 16), {}),
    "12 of 16 bits": (noise((2, 33, 47), "<u2", 12), {"BitsStored": 12, "HighBit": 11}),
    "signed 12 of 16 bits": (noise((1, 20, 21), "<i2", 12), {"BitsStored": 12, "HighBit": 11}),
    "signed 8 of 16 bits": (noise((1, 20, 21), "<i2", 8), {"BitsStored": 8, "HighBit": 7}),
    "8 of 16 bits": (noise((1, 20, 21), "<u2", 8), {"BitsStored": 8, "HighBit": 7}),
    "2 of 8 bits": (noise((1, 9, 9), "u1", 2), {"BitsStored": 2, "HighBit": 1}),
    "signed 8 bits": (noise((1, 9, 9), "i1", 8), {}),
    "one pixel": (noise((1, 1, 1), "u1", 8), {}),
    "one column": (noise((3, 9, 1), "<u2", 16), {}),
    "palette": (noise((1, 9, 9), "u1", 8), PALETTE),
    "RGB": (noise((2, 15, 17, 3), "u1", 8), {}),
    "RGB by plane": (noise((2, 15, 17, 3), "u1", 8), {"PlanarConfiguration": 1}),
    "RGB of 16 bits": (noise((1, 15, 17, 3), "<u2", 16), {"PlanarConfiguration": 1}),
    "RGB of 16 bits by pixel": (noise((1, 15, 17, 3), "<u2", 16), {}),
    "YBR": (noise((1, 15, 17, 3), "u1", 8), {"PhotometricInterpretation": "YBR_FULL"}),
}


@pytest.mark.parametrize("target", PACKED)
@pytest.mark.parametrize("name", sorted(IMAGES))
def test_encoded_images_are_what_they_were(
    transcoder: SandboxedTranscoder, tmp_path: Path, target: TransferSyntaxUID, name: str
) -> None:
    pixels, changes = IMAGES[name]
    ds = image(pixels, **changes)
    native = part10(tmp_path, encoded(ds), EXPLICIT)
    packed = converted(transcoder, native, target)
    assert np.array_equal(pixels_of(packed, target), pixels)
    assert unchanged_part(packed) == unchanged_part(converted(transcoder, native, EXPLICIT))
    result = read_back(packed, target)
    assert result.PhotometricInterpretation == ds.PhotometricInterpretation
    assert result["PixelData"].VR == "OB"
    assert result.get("PlanarConfiguration") == (
        ds.get("PlanarConfiguration") if target == RLE or "PlanarConfiguration" not in ds else 0
    )
    again = part10(tmp_path, packed, target, "packed.dcm")
    back = converted(transcoder, again, EXPLICIT)
    assert np.array_equal(pixels_of(back, EXPLICIT), pixels)
    assert transcoder.same_content(native, again)


@pytest.mark.parametrize("source", [IMPLICIT, BIG, DEFLATED, RLE, ARC + "201"])
@pytest.mark.parametrize("target", PACKED)
def test_every_lossless_source_is_encoded(
    transcoder: SandboxedTranscoder,
    tmp_path: Path,
    source: TransferSyntaxUID,
    target: TransferSyntaxUID,
) -> None:
    if source == target:
        return
    pixels = noise((2, 9, 11), "<i2", 12)
    native = part10(tmp_path, encoded(image(pixels, BitsStored=12, HighBit=11)), EXPLICIT)
    start = part10(tmp_path, converted(transcoder, native, source), source, "start.dcm")
    assert np.array_equal(pixels_of(converted(transcoder, start, target), target), pixels)


def overlaid(**changes: object) -> Dataset:
    """An image whose bit 15 is an overlay. PS3.3 C.9.2, retired use."""
    ds = image(noise((1, 8, 8), "<u2", 16), BitsStored=12, HighBit=11, **changes)
    ds.add_new(0x6000_0010, "US", 8)
    ds.add_new(0x6000_0011, "US", 8)
    ds.add_new(0x6000_0102, "US", 15)
    return ds


def floating() -> Dataset:
    ds = image(noise((1, 8, 8), "<u2", 8), BitsAllocated=32)
    del ds.PixelData, ds.BitsStored, ds.HighBit, ds.PixelRepresentation
    ds.FloatPixelData = np.zeros(64, "<f4").tobytes()
    return ds


def one_bit() -> Dataset:
    ds = image(noise((1, 8, 8), "u1", 1), BitsAllocated=1, BitsStored=1, HighBit=0)
    ds.PixelData = b"\xaa" * 8
    return ds


def shared_chroma() -> Dataset:
    ds = image(noise((1, 8, 8, 3), "u1", 8), PhotometricInterpretation="YBR_FULL_422")
    ds.PixelData = ds.PixelData[: 8 * 8 * 2]
    return ds


def shortened(by: int) -> Dataset:
    ds = image(noise((2, 8, 8), "u1", 8))
    ds.PixelData = (ds.PixelData + bytes(8))[: len(ds.PixelData) - by]
    return ds


@pytest.mark.parametrize(
    ("ds", "kind", "carried"),
    [
        (overlaid(), "UnusedBitsInUse", {RLE, DEFLATED}),
        (image(noise((1, 8, 8), "<u2", 16), BitsStored=12), "UnusedBitsInUse", {RLE, DEFLATED}),
        (image(noise((1, 8, 8), "<u2", 12), BitsStored=12), "UnusedBitsInUse", {RLE, DEFLATED}),
        (image(noise((1, 8, 8), "<u4", 32)), "DepthNotCarried", {RLE, DEFLATED}),
        (image(noise((1, 8, 8), "<u4", 20), BitsStored=20, HighBit=19), "DepthNotCarried",
         {RLE, DEFLATED, ARC + "90"}),
        (floating(), "ImageMissing", {DEFLATED}),
        (one_bit(), "DepthNotCarried", {DEFLATED}),
        (shared_chroma(), "ColorsNotCarried", {DEFLATED}),
        (shortened(2), "SizeNotCarried", {DEFLATED}),
        (shortened(-2), "SizeNotCarried", {DEFLATED}),
    ],
    ids=["overlay", "unused bits", "high bit", "32 bits", "20 bits", "float", "one bit", "422",
         "short", "long"],
)  # fmt: skip
def test_what_cannot_be_carried_is_refused_by_its_kind(
    transcoder: SandboxedTranscoder, tmp_path: Path, ds: Dataset, kind: str, carried: set[str]
) -> None:
    native = part10(tmp_path, encoded(ds), EXPLICIT)
    for target in (*PACKED, DEFLATED):
        with nullcontext() if target in carried else pytest.raises(TranscodingFailed, match=kind):
            packed = part10(tmp_path, converted(transcoder, native, target), target, "packed.dcm")
            assert transcoder.same_content(native, packed)


def test_a_lossy_source_is_never_encoded(transcoder: SandboxedTranscoder, tmp_path: Path) -> None:
    packed = converted(
        transcoder, part10(tmp_path, encoded(image(noise((1, 9, 9), "u1", 8))), EXPLICIT), PACKED[3]
    )
    for lossy in LOSSY:
        source = part10(tmp_path, packed, lossy)
        for target in PACKED:
            with pytest.raises(TranscodingFailed, match="no conversion"):
                converted(transcoder, source, target)


def test_icons_stay_native_and_are_read(transcoder: SandboxedTranscoder, tmp_path: Path) -> None:
    ds = image(noise((1, 9, 9), "<u2", 12))
    icon = image(noise((1, 4, 4), "u1", 8))
    ds.IconImageSequence = Sequence([icon])
    native = part10(tmp_path, encoded(ds), EXPLICIT)
    packed = converted(transcoder, native, ARC + "80")
    result = read_back(packed, ARC + "80")
    assert result.IconImageSequence[0].PixelData == icon.PixelData
    assert not result.IconImageSequence[0]["PixelData"].is_undefined_length
    assert transcoder.same_content(native, part10(tmp_path, packed, ARC + "80", "packed.dcm"))


def test_basic_offsets_point_at_every_frame(
    transcoder: SandboxedTranscoder, tmp_path: Path
) -> None:
    native = part10(tmp_path, encoded(image(noise((3, 9, 9), "u1", 8))), EXPLICIT)
    packed = converted(transcoder, native, ARC + "70")
    fragments = read(memoryview(packed), EXPLICIT_LITTLE)[PIXEL_DATA].fragments
    assert fragments is not None
    offsets = np.frombuffer(fragments[0], "<u4").tolist()
    lengths = [8 + len(one) for one in fragments[1:]]
    assert offsets == [0, lengths[0], lengths[0] + lengths[1]]
    assert all(len(one) % 2 == 0 for one in fragments)


def test_beyond_32_bits_offsets_are_extended(
    transcoder: SandboxedTranscoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compress, "MAX_BASIC_OFFSET", 100)
    pixels = noise((4, 9, 9), "u1", 8)
    native = part10(tmp_path, encoded(image(pixels)), EXPLICIT)
    output = tmp_path / "out"
    tasks.convert(native, ARC + "80", str(output), str(tmp_path), 1 << 28)
    elements = read(memoryview(output.read_bytes()), EXPLICIT_LITTLE)
    fragments = elements[PIXEL_DATA].fragments
    assert fragments is not None and len(fragments[0]) == 0
    lengths = np.frombuffer(elements[0x7FE0_0002].value, "<u8").tolist()
    assert lengths == [len(one) for one in fragments[1:]]
    assert np.array_equal(pixels_of(output.read_bytes(), ARC + "80"), pixels)
    packed = part10(tmp_path, output.read_bytes(), ARC + "80", "packed.dcm")
    assert transcoder.same_content(native, packed)
    assert 0x7FE0_0001 not in unchanged_part(converted(transcoder, packed, EXPLICIT))


def wrong(stream: bytes, form: Form) -> Samples:
    samples = jpeg_2000.decode(stream, form).copy()
    samples.flat[-1] ^= 1
    return samples


def test_an_encoding_that_is_not_proved_is_an_error_of_its_own(
    work_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    native = part10(tmp_path, encoded(image(noise((2, 9, 9), "u1", 8))), EXPLICIT)
    broken = {**registry.CODECS}
    broken[ARC + "90"] = type(jpeg_2000.CODEC)(
        check=jpeg_2000.check, encode=jpeg_2000.encode, decode=wrong
    )
    with monkeypatch.context() as patch:
        patch.setattr(compress, "CODECS", broken)
        with pytest.raises(EncodingUnproved):
            tasks.convert(native, ARC + "90", str(tmp_path / "out"), str(tmp_path), 1 << 28)
    asked = SandboxedTranscoder(Retrieve(), work_folder)
    try:
        assert asked.convertible(EXPLICIT, PACKED[1])

        def fail(name: str, *arguments: object, cpu_s: float) -> object:
            raise TaskFailed("the task raised EncodingUnproved", kind="EncodingUnproved")

        monkeypatch.setattr(asked._sandbox, "run", fail)
        with pytest.raises(EncodingUnproved):
            converted(asked, native, PACKED[1])
        passing = {"": True, "OSError": True, "MemoryError": True, "NotEncodable": False}
        for kind, passes in passing.items():

            def end(name: str, *arguments: object, cpu_s: float, kind: str = kind) -> object:
                raise TaskFailed("the task raised", kind=kind)

            monkeypatch.setattr(asked._sandbox, "run", end)
            with pytest.raises(TranscodingFailed) as told:
                converted(asked, native, PACKED[1])
            assert isinstance(told.value, TranscodingInterrupted) is passes
    finally:
        asked.close()
    assert list(work_folder.iterdir()) == []
    said = f"encoding-unproved source={EXPLICIT} target={PACKED[1]}"
    assert [one.getMessage() for one in caplog.records] == [said]


def test_the_proof_is_of_every_element_and_of_every_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    native = part10(tmp_path, encoded(image(noise((2, 9, 9), "u1", 8))), EXPLICIT)
    whole = compress._encapsulated

    def renamed(*arguments: Any) -> DataSet:
        result = whole(*arguments)
        result[0x0010_0010] = replace(result[0x0010_0010], value=memoryview(b"Somebody^Els "))
        return result

    def without(*arguments: Any) -> DataSet:
        return {tag: one for tag, one in whole(*arguments).items() if tag != 0x0028_0100}

    def cut(*arguments: Any) -> DataSet:
        result = whole(*arguments)
        fragments = result[PIXEL_DATA].fragments or []
        result[PIXEL_DATA] = replace(result[PIXEL_DATA], fragments=fragments[:-1])
        return result

    for damaged in (renamed, without, cut):
        monkeypatch.setattr(compress, "_encapsulated", damaged)
        with pytest.raises(EncodingUnproved):
            tasks.convert(native, ARC + "90", str(tmp_path / "out"), str(tmp_path), 1 << 28)


# --- samples, and what other toolkits say --------------------------------------------


def encodable_samples() -> list[Stored]:
    refused = {name for names in OUTSIDE.values() for name in names}
    wanted = [one for one in samples() if one[2] not in LOSSY]
    return [one for one in wanted if Path(one[0]).name not in refused]


@pytest.mark.filterwarnings("ignore")
def test_samples_go_through_every_syntax_and_back(
    transcoder: SandboxedTranscoder, tmp_path: Path
) -> None:
    if not SAMPLES.is_dir():
        pytest.skip("no sample files")
    outcomes: Counter[tuple[str, str]] = Counter()
    for source in encodable_samples():
        native = converted(transcoder, source, EXPLICIT)
        kept, pixels = unchanged_part(native), None
        for target in PACKED:
            if source[2] == target:
                continue
            try:
                packed = converted(transcoder, source, target)
            except TranscodingFailed as error:
                kind = str(error).rpartition(" ")[2]
                assert Path(source[0]).name in REFUSED[kind], source[0]
                outcomes[target, kind] += 1
                continue
            back = converted(transcoder, part10(tmp_path, packed, target), EXPLICIT)
            if pixels is None:
                pixels = pixels_of(native, EXPLICIT)
            assert np.array_equal(pixels_of(back, EXPLICIT), pixels), source[0]
            assert unchanged_part(packed) == kept, source[0]
            outcomes[target, "equal"] += 1
    for (target, outcome), count in sorted(outcomes.items()):
        print(f"{target:24} {outcome:18} {count:4}")
    assert all(outcomes[target, "equal"] > 90 for target in PACKED)


TOOLS = {
    RLE: ("dcmdrle",),
    ARC + "57": ("dcmdjpeg", "+cn"),
    ARC + "70": ("dcmdjpeg", "+cn"),
    ARC + "80": ("dcmdjpls",),
    ARC + "90": ("gdcmconv", "--raw"),
}


def run(tool: str, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    found = peers.find(tool)
    if found is None:
        pytest.skip(f"no {tool}")
    return subprocess.run([found, *arguments], capture_output=True, check=False, timeout=60)


@pytest.mark.parametrize("also", [False, True], ids=["own tool", "gdcmconv"])
@pytest.mark.parametrize("target", sorted(TOOLS))
def test_other_toolkits_read_what_we_wrote(
    transcoder: SandboxedTranscoder, tmp_path: Path, target: str, also: bool
) -> None:
    tool = ("gdcmconv", "--raw") if also else TOOLS[target]
    for name, (pixels, changes) in IMAGES.items():
        ds = image(pixels, **changes)
        native = part10(tmp_path, encoded(ds), EXPLICIT, "native.dcm")
        data_set = converted(transcoder, native, TransferSyntaxUID(target))
        packed = part10(tmp_path, data_set, target, "packed.dcm")[0]
        assert run("dcmdump", "-q", packed).returncode == 0, name
        theirs = tmp_path / "theirs.dcm"
        theirs.unlink(missing_ok=True)
        run(*tool, packed, str(theirs))
        if (tool[0], target, name) in UNREAD:
            continue
        frames = get_decoder(EXPLICIT).iter_array(dcmread(theirs), raw=True)
        found = np.stack([frame.copy() for frame, _ in frames])
        mask = (1 << ds.BitsStored) - 1
        assert np.array_equal(found.astype(int) & mask, pixels.astype(int) & mask), name


UNREAD = {
    # It aborts where Bits Stored are not Bits Allocated.
    *(("gdcmconv", one, "2 of 8 bits") for one in (RLE, ARC + "57", ARC + "70")),
    # It takes one more segment's bytes for another's; dcmdrle and pydicom do not.
    *(("gdcmconv", RLE, f"RGB of 16 bits{order}") for order in ("", " by pixel")),
}
"""Tool, syntax, image: what only that tool does not read."""


@pytest.mark.parametrize("target", sorted(TOOLS))  # it knows no HTJ2K
def test_dciodvfy_finds_no_new_errors(
    transcoder: SandboxedTranscoder, tmp_path: Path, target: str
) -> None:
    for name in ("CT", "RGB by plane"):
        pixels, changes = IMAGES[name]
        native = part10(tmp_path, encoded(image(pixels, **changes)), EXPLICIT, "native.dcm")
        data_set = converted(transcoder, native, TransferSyntaxUID(target))
        packed = part10(tmp_path, data_set, target, "packed.dcm")
        before, after = (errors_of(path) for path in (native[0], packed[0]))
        assert before
        assert after <= before


def errors_of(path: str) -> set[bytes]:
    lines = run("dciodvfy", "-new", path).stderr.splitlines()
    return {line for line in lines if line.startswith(b"Error")}


def test_lossless_syntaxes_are_known() -> None:
    assert set(PACKED) == LOSSLESS
