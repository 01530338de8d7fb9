"""``python -m bench.codecs``: what lossless encoding costs an image, against DCMTK and GDCM, and what it saves.

Every figure is processor time of one process per CT 512², reading and writing
the file included. Its start is counted out: an object of many frames is
encoded and one of a single frame, and the difference shared out. Our proof
(decoding again and comparing) is counted apart, as the others have none.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import ExplicitVRLittleEndian

from bench import machine, report
from bench.studies import CT_ROWS, MR_ROWS, MULTI_FRAME_GRAYSCALE_WORD, seeds
from processing.codecs.frame import NotEncodable
from processing.datasets import compress, source, writing
from processing.datasets.elements import EXPLICIT_LITTLE, PIXEL_DATA, DataSet
from tests.peers import find as find_tool

FRAMES = 24
ROUNDS = 5
BEGIN = "<!-- measured: codecs -->"
MAX_BYTES = 1 << 30
LEAST_ROWS = 64
"""Of a sample that is to say something about compression."""
UNREADABLE = (OSError, ValueError, KeyError, AttributeError, TypeError, NotImplementedError)
"""What pydicom raises for a file that is none, or a broken one."""
_ARC = "1.2.840.10008.1.2.4."
NAMES = {
    _ARC + "70": "JPEG Lossless .70",
    _ARC + "57": "JPEG Lossless .57",
    _ARC + "80": "JPEG-LS .80",
    _ARC + "90": "JPEG 2000 .90",
    _ARC + "201": "HTJ2K .201",
    _ARC + "202": "HTJ2K RPCL .202",
    "1.2.840.10008.1.2.5": "RLE",
}
TOOLS: dict[str, tuple[tuple[str, ...], ...]] = {
    _ARC + "70": (("dcmcjpeg", "+e1"), ("gdcmconv", "--jpeg")),
    _ARC + "57": (("dcmcjpeg", "+el"),),
    _ARC + "80": (("dcmcjpls",), ("gdcmconv", "--jpegls")),
    _ARC + "90": (("gdcmconv", "--j2k"),),
    "1.2.840.10008.1.2.5": (("dcmcrle",), ("gdcmconv", "--rle")),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Objects:
    """The same image once and many times over, as files."""

    one: Path
    many: Path
    folder: Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; with ``--markdown PAGE`` keep the tables there."""
    parser = argparse.ArgumentParser(prog="python -m bench.codecs", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--frames", type=int, default=FRAMES, help="frames of the larger object")
    parser.add_argument("--samples", type=Path, help="a folder of DICOM files, for ratios only")
    parser.add_argument("--markdown", type=Path, metavar="PAGE")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="pacs-bench-") as name:
        folder = Path(name)
        lines = [f"- {one}" for one in machine.describe(folder)]
        lines += ["", *speed_table(objects(folder, options.frames), options)]
        lines += ["", *ratio_table(folder, options.samples)]
    text = "\n".join(lines)
    print(text)
    if options.markdown:
        report.write(options.markdown, text, BEGIN)
    return 0


def objects(folder: Path, frames: int) -> Objects:
    """Write the CT of the benchmark as objects of one frame and of many."""
    images = seeds(folder, rows=CT_ROWS)
    made = Objects(one=folder / "one.dcm", many=folder / "many.dcm", folder=folder)
    for path, count in ((made.one, 1), (made.many, frames)):
        multi_frame([images[number % len(images)] for number in range(count)]).save_as(path)
    return made


def multi_frame(images: Sequence[Dataset]) -> Dataset:
    """Put the pixels of many images into one object."""
    ds = images[0].copy()
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = MULTI_FRAME_GRAYSCALE_WORD
    ds.NumberOfFrames = str(len(images))
    ds.PixelData = b"".join(one.PixelData for one in images)
    return ds


# --- speed ---------------------------------------------------------------------------


def speed_table(made: Objects, options: argparse.Namespace) -> list[str]:
    """Measure in turns, and give the table."""
    ours: dict[str, list[float]] = defaultdict(list)
    proofs: dict[str, list[float]] = defaultdict(list)
    theirs: dict[tuple[str, tuple[str, ...]], list[float]] = defaultdict(list)
    for _ in range(options.rounds + 1):
        for syntax in NAMES:
            encoding, proof = our_cost_s(made, syntax, options.frames)
            ours[syntax].append(encoding)
            proofs[syntax].append(proof)
            for tool in installed(syntax):
                theirs[syntax, tool].append(tool_cost_s(made, tool, options.frames))
    rows = ["| syntax | ours, ms | our proof, ms | peer | peer, ms | ratio |",
            "| --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    for syntax, name in NAMES.items():
        mine = f"| {name} | {ms(ours[syntax])} | {ms(proofs[syntax])} |"
        rows += [
            f"{mine} {' '.join(tool)} | {ms(theirs[syntax, tool])} "
            f"| {ratio(theirs[syntax, tool], ours[syntax]):.2f} |"
            for tool in installed(syntax)
        ] or [f"{mine} – | – | – |"]
    return rows


def installed(syntax: str) -> list[tuple[str, ...]]:
    """List the peers' commands for a syntax."""
    return [tool for tool in TOOLS.get(syntax, ()) if find_tool(tool[0])]


def counted(figures: Sequence[float]) -> Sequence[float]:
    """Leave the first out, which warms up."""
    return figures[1:] or figures


def ms(figures: Sequence[float]) -> str:
    """Give the median in milliseconds."""
    return f"{statistics.median(counted(figures)) * 1000:.1f}"


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> float:
    """Give the median of the rounds' ratios; above 1 ours takes less time."""
    pairs = zip(counted(theirs), counted(ours), strict=True)
    return statistics.median(other / mine for other, mine in pairs)


def tool_cost_s(made: Objects, tool: tuple[str, ...], frames: int) -> float:
    """Processor time a peer takes for one more image."""
    command = [str(find_tool(tool[0])), *tool[1:]]
    output = made.folder / "theirs.dcm"

    def run(path: Path) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*command, str(path), str(output)], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    return per_image(run, made, frames)


def our_cost_s(made: Objects, syntax: str, frames: int) -> tuple[float, float]:
    """Processor time we take for one more image: encoding it into a file, proving it."""
    output = made.folder / "ours"

    def encode(path: Path) -> float:
        began = time.process_time()
        with opened(path) as elements, output.open("wb") as file:
            result = compress.compressed(elements, syntax, folder=str(made.folder))
            writing.Writer(file, EXPLICIT_LITTLE, encapsulating=True).write(result)
        return time.process_time() - began

    def prove(path: Path) -> float:
        encode(path)
        began = time.process_time()
        with opened(path) as elements, read(output, 0, syntax, made.folder) as written:
            compress.prove(written, elements, syntax)
        return time.process_time() - began

    return per_image(encode, made, frames), per_image(prove, made, frames)


def per_image(run: Callable[[Path], float], made: Objects, frames: int) -> float:
    """Share the difference between many images and one out."""
    return (run(made.many) - run(made.one)) / (frames - 1)


def opened(path: Path) -> AbstractContextManager[DataSet]:
    """Open a Part 10 file's Data Set."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(144)[140:], "little")
    return read(path, 144 + length, str(ExplicitVRLittleEndian), path.parent)


def read(path: Path, offset: int, syntax: str, folder: Path) -> AbstractContextManager[DataSet]:
    """Open a Data Set in a file."""
    return source.opened(str(path), offset, syntax, folder=str(folder), max_bytes=MAX_BYTES)


# --- ratios --------------------------------------------------------------------------


def ratio_table(folder: Path, samples: Path | None) -> list[str]:
    """Give bytes of native pixels to bytes of codestreams, syntax by kind of image."""
    columns: dict[str, list[Path]] = {
        "synthetic CT 512²": written(folder, "ct", CT_ROWS),
        "synthetic MR 256²": written(folder, "mr", MR_ROWS),
        **(sample_files(samples) if samples else {}),
    }
    rows = [f"| syntax | {' | '.join(columns)} |", "| --- |" + " --- |" * len(columns)]
    for syntax, name in NAMES.items():
        cells = [compression(files, syntax, folder) for files in columns.values()]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return rows


def written(folder: Path, name: str, rows: int) -> list[Path]:
    paths = []
    for number, image in enumerate(seeds(folder, rows=rows)):
        paths.append(folder / f"{name}-{number}.dcm")
        image.save_as(paths[-1])
    return paths


def sample_files(samples: Path) -> dict[str, list[Path]]:
    """Sort native images of a folder by modality; tiny ones aside."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(one for one in samples.rglob("*") if one.is_file()):
        try:
            ds = dcmread(path, stop_before_pixels=True)
        except (InvalidDicomError, *UNREADABLE):
            continue
        native = ds.file_meta.get("TransferSyntaxUID") == ExplicitVRLittleEndian
        rows = ds.get("Rows")
        if native and isinstance(rows, int) and rows >= LEAST_ROWS and ds.get("Modality"):
            found[f"{ds.Modality} samples"].append(path)
    return dict(sorted(found.items()))


def compression(files: Sequence[Path], syntax: str, folder: Path) -> str:
    """Give the ratio over all files that the syntax carries."""
    lengths = list(_lengths(files, syntax, folder))
    before, after = (sum(column) for column in zip(*lengths, strict=True)) if lengths else (0, 0)
    return f"{before / after:.2f}" if after else "–"


def _lengths(files: Sequence[Path], syntax: str, folder: Path) -> Iterator[tuple[int, int]]:
    for path in files:
        try:
            with opened(path) as elements:
                result = compress.compressed(elements, syntax, folder=str(folder))
                native = len(elements[PIXEL_DATA].value)
                yield native, sum(map(len, (result[PIXEL_DATA].fragments or [])[1:]))
        except (NotEncodable, ValueError):
            continue


if __name__ == "__main__":
    sys.exit(main())
