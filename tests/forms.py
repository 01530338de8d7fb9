"""Images as devices send them, oddly encoded too, and an archive that holds them: for the tests of compression at rest."""

import struct
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence

from pacs.app.archive import Archive
from pacs.app.compress import compression, tidying
from pacs.core.forms import Scope
from pacs.core.identifiers import (
    AETitle,
    Registrant,
    SOPClassUID,
    SOPInstanceUID,
    TransferSyntaxUID,
)
from pacs.core.records import IncomingMeta, Provenance, StoreOutcome
from pacs.services.compress import Tally
from pacs.services.received import as_received
from storage.database.compress import FormTable
from tests.keeping import ADMIN, caller_of, data_set

IMPLICIT = TransferSyntaxUID("1.2.840.10008.1.2")
EXPLICIT = TransferSyntaxUID("1.2.840.10008.1.2.1")
BIG = TransferSyntaxUID("1.2.840.10008.1.2.2")
EVERYTHING = Scope()
_NOISE = np.random.default_rng(7)


def image(
    sop: str,
    *,
    series: str = "1.1.1",
    rows: int = 48,
    columns: int = 48,
    samples: int = 1,
    bits: int = 16,
    frames: int = 1,
    planar: int = 0,
    **values: object,
) -> Dataset:
    """Make an image whose neighbours resemble each other, as those of a device do."""
    made = data_set("1.1", series, sop, **values)
    stored = 12 if bits == 16 else bits
    made.Rows, made.Columns, made.SamplesPerPixel = rows, columns, samples
    made.BitsAllocated, made.BitsStored, made.HighBit = bits, stored, stored - 1
    made.PixelRepresentation = 0
    made.PhotometricInterpretation = "RGB" if samples == 3 else "MONOCHROME2"
    if samples == 3:
        made.PlanarConfiguration = planar
    if frames > 1:
        made.NumberOfFrames = str(frames)
    # Bits beside Pixel Data that only bytes can tell apart are added by ``encoded``.
    made.PixelData = _cells(frames, rows, columns, samples, bits, planar)
    return made


def _cells(frames: int, rows: int, columns: int, samples: int, bits: int, planar: int) -> bytes:
    x, y = np.meshgrid(np.arange(columns), np.arange(rows))
    ramp = (x * 3 + y * 5)[None, :, :, None] + np.arange(frames)[:, None, None, None] * 7
    cells = ramp + np.arange(samples) * 40 + _NOISE.integers(0, 3, (frames, rows, columns, samples))
    cells = (cells % 256).astype("<u1" if bits == 8 else "<u2")
    if planar:
        cells = np.moveaxis(cells, -1, 1)
    value = np.ascontiguousarray(cells).tobytes()
    return value + b"\0" * (len(value) % 2)


def encoded(made: Dataset, syntax: str = EXPLICIT) -> bytes:
    """Encode a Data Set as it travels in a native syntax."""
    little = syntax != BIG
    if not little:
        made = _turned(made)
    wire = DicomBytesIO()
    wire.is_little_endian, wire.is_implicit_VR = little, syntax == IMPLICIT
    made["PixelData"].VR = "OB" if made.BitsAllocated == 8 and little else "OW"
    write_dataset(wire, made)
    return wire.getvalue()


def _turned(made: Dataset) -> Dataset:
    """OW in big endian: each word turned round, in 8-bit images too (PS3.5 Section 7.3)."""
    turned = Dataset()
    turned.update(made)
    turned.PixelData = np.frombuffer(made.PixelData, "<u2").byteswap().tobytes()
    return turned


def _element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    if vr in (b"OB", b"OW", b"UN", b"SQ"):
        return struct.pack("<HH2sHL", group, number, vr, 0, len(value)) + value
    return struct.pack("<HH2sH", group, number, vr, len(value)) + value


def _spliced(plain: bytes, at_front: bytes = b"", behind: bytes = b"") -> bytes:
    """Put explicit elements before group 7FE0 and behind Pixel Data."""
    at = plain.rindex(b"\xe0\x7f\x10\x00OW")
    return plain[:at] + at_front + plain[at:] + behind


def _with_icon(made: Dataset) -> Dataset:
    icon = image("9.9", rows=8, columns=8, bits=8)
    small = Dataset()
    for keyword in ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored", "HighBit",
                    "PixelRepresentation", "PhotometricInterpretation", "PixelData"):  # fmt: skip
        setattr(small, keyword, getattr(icon, keyword))
    small["PixelData"].VR = "OW"
    made.IconImageSequence = Sequence([small])
    return made


def _undefined(made: Dataset) -> Dataset:
    """Sequences and items of undefined and of defined length, within each other."""
    inner, outer = Dataset(), Dataset()
    inner.CodeValue, inner.CodeMeaning = "1", "one"
    inner.is_undefined_length_sequence_item = True
    outer.PurposeOfReferenceCodeSequence = Sequence([inner, Dataset()])
    made.ReferencedImageSequence = Sequence([outer])
    made["ReferencedImageSequence"].is_undefined_length = True
    return made


def odd_originals() -> Mapping[str, tuple[TransferSyntaxUID, bytes]]:
    """Data Sets that only a careful restoration gives back, by SOP Instance UID."""
    overlay = image("1.9.7")
    overlay.add_new(0x60000010, "US", 48)
    overlay.add_new(0x60000011, "US", 48)
    overlay.add_new(0x60000100, "US", 1)
    overlay.add_new(0x60000102, "US", 0)
    overlay.add_new(0x60003000, "OW", bytes(range(144)) * 2)
    private = (
        _element(0x2009, 0x0010, b"LO", b"ODD MAKER ")
        + _element(0x2009, 0x1001, b"UN", b"\1\2\3\4")
        + _element(0x2009, 0x1002, b"DS", b"not a number")
        + _element(0x200B, 0x1001, b"OB", b"no creator")
    )
    sequence = b"\xfe\xff\x00\xe0\x00\x00\x00\x00"
    front = private + _element(0x3005, 0x0010, b"SQ", sequence)
    padding = _element(0xFFFC, 0xFFFC, b"OB", bytes(498))
    wrong_length = struct.pack("<HHLL", 0x0008, 0x0000, 4, 20)
    return {
        "1.9.1": (EXPLICIT, encoded(image("1.9.1"))),
        "1.9.2": (IMPLICIT, encoded(image("1.9.2"), IMPLICIT)),
        "1.9.3": (IMPLICIT, encoded(_undefined(image("1.9.3")), IMPLICIT)),
        "1.9.4": (EXPLICIT, encoded(_undefined(image("1.9.4")))),
        "1.9.5": (BIG, encoded(image("1.9.5"), BIG)),
        "1.9.6": (BIG, encoded(image("1.9.6", bits=8), BIG)),
        "1.9.7": (EXPLICIT, encoded(overlay)),
        # colour by plane, by pixel, and by plane in several frames
        "1.9.8": (EXPLICIT, encoded(image("1.9.8", bits=8, samples=3, planar=1))),
        "1.9.9": (EXPLICIT, encoded(image("1.9.9", bits=8, samples=3))),
        "1.9.10": (IMPLICIT, encoded(image("1.9.10", bits=8, samples=3, planar=1, frames=3), IMPLICIT)),
        # an odd number of samples, and a pad byte that is no zero
        "1.9.11": (EXPLICIT, encoded(image("1.9.11", bits=8, rows=47, columns=49))),
        "1.9.12": (EXPLICIT, encoded(image("1.9.12", bits=8, rows=47, columns=49))[:-1] + b" "),
        "1.9.13": (EXPLICIT, encoded(image("1.9.13", frames=5))),
        "1.9.14": (EXPLICIT, encoded(_with_icon(image("1.9.14")))),
        "1.9.15": (IMPLICIT, wrong_length + encoded(image("1.9.15"), IMPLICIT)),
        "1.9.16": (EXPLICIT, _spliced(encoded(image("1.9.16")), front)),
        "1.9.17": (EXPLICIT, _spliced(encoded(image("1.9.17")), behind=padding)),
    }  # fmt: skip


def keep_bytes(
    archive: Archive, wire: bytes, sop: str, syntax: TransferSyntaxUID = EXPLICIT
) -> StoreOutcome:
    """Take in a Data Set as it travelled, byte for byte."""
    meta = IncomingMeta(
        sop_class_uid=SOPClassUID("1.2.840.10008.5.1.4.1.1.2"),
        sop_instance_uid=SOPInstanceUID(sop),
        transfer_syntax_uid=syntax,
        provenance=Provenance(
            registrant=Registrant("local"),
            issuer_of_patient_id="issuer",
            received_utc=datetime.now(UTC),
            association="test",
            source_ae_title=AETitle("CT1"),
            receiving_ae_title=AETitle("PACS"),
        ),
    )
    with archive.store.incoming(meta) as incoming:
        incoming.write(memoryview(wire))
        return archive.ingest.accept(caller_of(), incoming)


def fill(archive: Archive, count: int = 4) -> dict[str, bytes]:
    """Keep some images; gives their Data Sets by SOP Instance UID."""
    kept = {}
    for number in range(1, count + 1):
        sop = f"1.1.1.{number}"
        kept[sop] = encoded(image(sop, InstanceNumber=str(number)))
        assert keep_bytes(archive, kept[sop], sop) is StoreOutcome.KEPT
    return kept


def compress(archive: Archive, target: str | None = "jpeg-ls", **how: bool) -> Tally:
    """Hold everything as ``target``, or with ``None`` as received."""
    return compression(archive).run(ADMIN, EVERYTHING, target, **how)


def tidy(archive: Archive, *, now: bool = True) -> int:
    """Remove surplus files; with ``now`` as if their time had come."""
    if now:
        with archive.database.transaction():
            archive.database.write("UPDATE form_change SET due_utc = ''")
    return tidying(archive).run(ADMIN)


def files(home: Path) -> list[Path]:
    """List the files of instances."""
    return sorted((home / "store").rglob("*.dcm"))


def restored(archive: Archive) -> dict[str, bytes]:
    """Give every instance as it was received, made again where it is held in another form."""
    found = {}
    for row in archive.database.execute("SELECT object_id FROM instance"):
        held = FormTable(archive.database).held(row[0])
        assert held is not None
        path, offset = archive.store.path(held.place), held.place.data_set_offset
        if held.form is None:
            found[str(held.sop_instance_uid)] = Path(path).read_bytes()[offset:]
            continue
        meta, _ = archive.store.read_meta(held.place)
        assert meta.form is not None
        stored = (path, offset, held.transfer_syntax_uid)
        restorer = archive.transcoder.restorer
        with as_received(stored, meta.form, archive.store, restorer) as data_set:
            found[str(held.sop_instance_uid)] = Path(data_set).read_bytes()
    return found
