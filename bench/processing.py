"""``python -m bench.processing``: what a projection costs against reading, maximum and writing, and what a second worker adds.

The reference reads the same files with pydicom, takes numpy's maximum and writes one
file, in this process. Ours is one request to the processor, its worker begun
before; processor time is that of this process and the worker together. Then
images in number, in pieces, by one worker process and by two, a thread each.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.filereader import read_dataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from bench import machine, report, workitems
from bench.studies import CT_ROWS, identify, seeds
from bench.synthetic import ROOT
from config.settings import Process
from pacs.core.identifiers import TransferSyntaxUID
from pacs.core.processing import ProcessingRequest, StoredImage
from processing.datasets.process import SandboxedProcessor

BEGIN = "<!-- measured: processing -->"
SLICES = 400
IMAGES = 120
PIECE = 10
"""Images of one request, as a worker is given them."""
ROUNDS = 5
MAX_RATIO = 1.5
"""What the projection may cost against the reference."""
OPERATIONS = ("gaussian", "median")
SHARED = ("median",)
"""What two nodes share: computing is nearly all of it."""
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one run took."""

    cpu_s: float
    wall_s: float


@dataclass(slots=True, kw_only=True)
class Figures:
    """What all rounds took, ours and the reference's by turns."""

    ours: list[Cost] = field(default_factory=list)
    reference: list[Cost] = field(default_factory=list)

    def ratio(self, which: str) -> float:
        """Give the median of the rounds' ratios; below 1 ours takes less."""
        pairs = zip(self.ours, self.reference, strict=True)
        return float(statistics.median(getattr(a, which) / getattr(b, which) for a, b in pairs))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; with ``--markdown PAGE`` keep the tables there. 1 where the bound is not met."""
    parser = argparse.ArgumentParser(prog="python -m bench.processing", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--slices", type=int, default=SLICES, help="of the projection")
    parser.add_argument("--images", type=int, default=IMAGES, help="of the throughput")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"))
    parser.add_argument("--markdown", type=Path, metavar="PAGE")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="pacs-bench-", dir=options.folder) as name:
        folder = Path(name)
        files = series(folder / "series", max(options.slices, options.images))
        lines = [f"- {one}" for one in machine.describe(folder)]
        figures = projection(files[: options.slices], folder, options.rounds)
        asked = delivery(files[: options.slices], folder, options.rounds)
        lines += ["", *projection_table(figures, asked, options.slices)]
        lines += ["", *throughput_table(files[: options.images], folder, options.rounds)]
        lines += ["", *nodes_table(files[: options.images], folder, options.rounds)]
    text = "\n".join(lines)
    print(text)
    if options.markdown:
        report.write(options.markdown, text, BEGIN)
    return 0 if max(figures.ratio("cpu_s"), asked.ratio("wall_s")) <= MAX_RATIO else 1


def series(folder: Path, count: int) -> list[Path]:
    """Write CT 512² slices of one volume."""
    folder.mkdir()
    images = seeds(folder, rows=CT_ROWS)
    study, uid = generate_uid(ROOT), generate_uid(ROOT)
    files = []
    for number in range(count):
        image = images[number % len(images)]
        identify(image, modality="CT")
        image.StudyInstanceUID, image.SeriesInstanceUID = study, uid
        image.InstanceNumber = str(number + 1)
        image.ImagePositionPatient = ["-150", "-150", f"{number * 1.5:g}"]
        files.append(folder / f"{number:04d}.dcm")
        image.save_as(files[-1], enforce_file_format=True)
    return files


# --- one projection ------------------------------------------------------------------


def projection(files: Sequence[Path], folder: Path, rounds: int) -> Figures:
    """Take turns; what is projected must be the reference's to the value."""
    figures = Figures()
    with closing(processor(folder, workers=1, threads=0)) as ours:
        asked = request(files, "mip", {})
        for number in range(rounds + 1):
            expected: list[np.ndarray] = []
            reference = timed(lambda: expected.append(maximum(files, folder)), ours)  # noqa: B023 - called here
            cost = timed(lambda: check(ours, asked, expected), ours)  # noqa: B023 - called here
            if number:  # the first warms up
                figures.ours.append(cost)
                figures.reference.append(reference)
    return figures


def maximum(files: Sequence[Path], folder: Path) -> np.ndarray:
    """Read all files, take the maximum and write it: what anybody would write down first."""
    first = dcmread(files[0])
    found = first.pixel_array
    for path in files[1:]:
        found = np.maximum(found, dcmread(path).pixel_array)
    first.PixelData = found.tobytes()
    first.save_as(folder / "reference.dcm")
    return found


def check(ours: SandboxedProcessor, asked: ProcessingRequest, expected: list[np.ndarray]) -> None:
    """Compute, and compare with the reference's result."""
    with ours.process(asked) as (result,), Path(result.path).open("rb") as file:
        found = read_dataset(file, is_implicit_VR=False, is_little_endian=True)
        cells = np.frombuffer(found.PixelData, "<u2")
        if not np.array_equal(cells, expected[0].ravel()):
            raise SystemExit("the projection is not the maximum")


def delivery(files: Sequence[Path], folder: Path, rounds: int) -> Figures:
    """Have it asked for as a workitem and delivered, in turn with the reference. Wall clock only."""
    figures = Figures()
    for taken_s in workitems.delivered_s(folder / "delivery", files, rounds):
        figures.ours.append(Cost(cpu_s=0, wall_s=taken_s))
        began_s = time.monotonic()
        maximum(files, folder)
        figures.reference.append(Cost(cpu_s=0, wall_s=time.monotonic() - began_s))
    return figures


def projection_table(figures: Figures, asked: Figures, slices: int) -> list[str]:
    """Tabulate both, and the ratio."""
    rows = [
        f"| MIP of {slices} CT 512², 16 bit | ours, ms | reading + numpy maximum + writing, ms | ratio |",
        "| --- | --- | --- | --- |",
    ]
    for title, which, found in (
        ("processor time", "cpu_s", figures),
        ("wall clock", "wall_s", figures),
        ("wall clock from N-CREATE to the result at its destination", "wall_s", asked),
    ):
        ours, reference = (
            statistics.median(getattr(one, which) for one in costs) * 1000
            for costs in (found.ours, found.reference)
        )
        rows.append(f"| {title} | {ours:.0f} | {reference:.0f} | {found.ratio(which):.2f} |")
    return rows


# --- images in number ----------------------------------------------------------------


def throughput_table(files: Sequence[Path], folder: Path, rounds: int) -> list[str]:
    """Tabulate images per second with one worker process and with two, in turn."""
    rows = [
        f"| {len(files)} CT 512², pieces of {PIECE} | 1 worker, images/s | 2 workers, images/s | ratio |",
        "| --- | --- | --- | --- |",
    ]
    with (
        closing(processor(folder, workers=1, threads=1)) as one,
        closing(processor(folder, workers=2, threads=1)) as two,
    ):
        for operation in OPERATIONS:
            rates: dict[int, list[float]] = {1: [], 2: []}
            for number in range(rounds + 1):
                for workers, ours in ((1, one), (2, two)):
                    rate = images_per_second(ours, files, operation, workers)
                    if number:
                        rates[workers].append(rate)
            ratio = statistics.median(b / a for a, b in zip(rates[1], rates[2], strict=True))
            cells = " | ".join(f"{statistics.median(rates[n]):.0f}" for n in (1, 2))
            rows.append(f"| {operation} | {cells} | {ratio:.2f} |")
    return rows


def nodes_table(files: Sequence[Path], folder: Path, rounds: int) -> list[str]:
    """Tabulate images per second of one workitem that one node does, and two share."""
    rows = [
        f"| one workitem, {len(files)} CT 512² | 1 node, images/s | 2 nodes, images/s | ratio |",
        "| --- | --- | --- | --- |",
    ]
    for operation in SHARED:
        rates = workitems.shared(folder / f"nodes-{operation}", files, operation, rounds)
        cells = " | ".join(f"{rates[count]:.1f}" for count in workitems.NODES)
        rows.append(f"| {operation} | {cells} | {rates[2] / rates[1]:.2f} |")
    return rows


def images_per_second(
    ours: SandboxedProcessor, files: Sequence[Path], operation: str, workers: int
) -> float:
    """Hand the pieces out to so many workers."""
    pieces = [request(files[at : at + PIECE], operation, {}) for at in range(0, len(files), PIECE)]

    def done(asked: ProcessingRequest) -> int:
        with ours.process(asked) as results:
            return len(results)

    began = time.monotonic()
    with ThreadPoolExecutor(workers) as threads:
        made = sum(threads.map(done, pieces))
    if made != len(files):
        raise SystemExit(f"{operation} gave {made} results of {len(files)} images")
    return made / (time.monotonic() - began)


# --- both ----------------------------------------------------------------------------


def processor(folder: Path, *, workers: int, threads: int) -> SandboxedProcessor:
    """Make a processor with a folder of its own."""
    work = folder / f"work-{workers}-{threads}"
    return SandboxedProcessor(Process(), work, workers=workers, threads=threads)


def request(files: Sequence[Path], operation: str, parameters: dict[str, str]) -> ProcessingRequest:
    """Ask for something to be done to files."""
    return ProcessingRequest(
        operation=operation,
        parameters=parameters,
        sources=[stored(one) for one in files],
        series_instance_uid=generate_uid(ROOT),
    )


def stored(path: Path) -> StoredImage:
    """Say where a file's Data Set begins: the group's length says so. PS3.10 Section 7.1."""
    with path.open("rb") as file:
        offset = 144 + int.from_bytes(file.read(144)[140:], "little")
    syntax = TransferSyntaxUID(ExplicitVRLittleEndian)
    return StoredImage(path=str(path), offset=offset, transfer_syntax_uid=syntax)


def timed(work: Callable[[], object], ours: SandboxedProcessor) -> Cost:
    """Run something, and count what this process and the workers took."""
    cpu_s, wall_s = used_s(ours), time.monotonic()
    work()
    return Cost(cpu_s=used_s(ours) - cpu_s, wall_s=time.monotonic() - wall_s)


def used_s(ours: SandboxedProcessor) -> float:
    """Processor time of this process and of the workers so far."""
    return time.process_time() + sum(worker_times_s(ours.worker_pids()))


def worker_times_s(pids: frozenset[int]) -> Iterator[float]:
    """Give user and system time of each process. proc(5), stat."""
    for pid in pids:
        said = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        yield (int(said[11]) + int(said[12])) / _TICKS


if __name__ == "__main__":
    sys.exit(main())
