"""A C-MOVE that compresses a CT study on its way, against what the same conversion alone reaches on all cores.

Both do the same work: encode, write, read again, decode and compare. Alone it
is one process per core that does nothing else. The destination accepts one
transfer syntax, throws away and counts; what it got is decoded untimed by
pydicom. Encoding without the proof is shown for information.
"""

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from bench import clients
from bench.dimse import Refused
from bench.peers import OURS, Server, ours
from bench.results import Results, Unit
from bench.servers import LOOPBACK, pacs
from bench.sink import Sink, sinking
from bench.studies import Study, image_studies
from processing.datasets import compress, source, tasks, writing
from processing.datasets.elements import EXPLICIT_LITTLE

Work = tuple[str, str, str]
"""A Part 10 file in Explicit VR Little Endian, the syntax to convert to, a folder to work in."""

_ARC = "1.2.840.10008.1.2.4."
SYNTAXES = {"JPEG-LS": _ARC + "80", "JPEG Lossless": _ARC + "70", "HTJ2K": _ARC + "201"}
MAX_BYTES = 1 << 30
FULL_EFFECT_S = 1.5
"""A peer added is known to a running server within a second."""
_DATA_SET_AT = 144
"""Of Part 10: preamble, prefix and the group length's element, whose value counts what follows."""


def move_key(name: str) -> str:
    """Name the row of the C-MOVE."""
    return f"compress-{_slug(name)}-move"


def alone_key(name: str) -> str:
    """Name the row of the conversion alone."""
    return f"compress-{_slug(name)}-alone"


def encode_key(name: str) -> str:
    """Name the row of encoding without proof."""
    return f"compress-{_slug(name)}-encode"


def _slug(name: str) -> str:
    return name.lower().replace(" ", "-")


def declare(results: Results) -> None:
    """Name the rows of compressing."""
    for name in SYNTAXES:
        title = f"CT to {name}"
        results.declare(encode_key(name), f"{title}, encoded only, all cores", Unit.INSTANCES_PER_S)
        results.declare(alone_key(name), f"{title}, converted alone", Unit.INSTANCES_PER_S)
        results.declare(move_key(name), f"{title}, C-MOVE", Unit.INSTANCES_PER_S)


def run(folder: Path, results: Results, *, instances: int, rounds: int) -> None:
    """Convert one study again and again, alone and on its way; the first time warms up."""
    (study,) = image_studies(folder / "source", modality="CT", studies=1, instances=instances)
    with ExitStack() as stack:
        sinks = {one: stack.enter_context(sinking(syntax)) for one, syntax in SYNTAXES.items()}
        server = stack.enter_context(ours(folder / "ours", {}))
        clients.store_s(server, [study], stock=False)
        for name, sink in sinks.items():
            _add_peer(server, title_of(name), sink)
        time.sleep(FULL_EFFECT_S)
        cores = stack.enter_context(all_cores())
        for number in range(rounds + 1):
            results.begin(number)
            for name, syntax in SYNTAXES.items():
                try:
                    _measure(name, sinks[name], server, study, results)
                    for key, task in ((alone_key(name), convert), (encode_key(name), encode)):
                        taken_s = conversion_s(cores, task, study.files, syntax)
                        results.add(key, OURS, instances / taken_s)
                except (clients.Wrong, Refused, OSError) as error:
                    results.failed(move_key(name), OURS, str(error))


def title_of(name: str) -> str:
    """Give the AE title of the destination of a syntax."""
    return f"TO{SYNTAXES[name].rpartition('.')[2]}"


def _add_peer(server: Server, ae_title: str, sink: Sink) -> None:
    where = (ae_title, LOOPBACK, str(sink.port), "--encoding", "compressed")
    command = pacs("--home", server.folder / "home", "peer", "add", *where)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _measure(name: str, sink: Sink, server: Server, study: Study, results: Results) -> None:
    sink.taken.clear()
    taken_s = clients.move_s(server, study, title_of(name))
    check(study, sink)
    results.add(move_key(name), OURS, len(study.files) / taken_s)


def check(study: Study, sink: Sink) -> None:
    """Decode what arrived and compare its samples with what was stored. Raises ``Wrong``."""
    if len(sink.taken) != len(study.files):
        raise clients.Wrong(f"{len(sink.taken)} of {len(study.files)} instances arrived")
    wanted = {str(one.SOPInstanceUID): one for one in map(dcmread, study.files)}
    decoded: dict[bytes, bytes] = {}
    for data_set in sink.taken:
        one = read(data_set, sink.transfer_syntax_uid)
        if one.PixelData not in decoded:  # the images of a study repeat
            decoded[one.PixelData] = np.ascontiguousarray(one.pixel_array).tobytes()
        original = wanted.pop(str(one.SOPInstanceUID), None)
        if original is None:
            raise clients.Wrong("an instance arrived twice, or was never sent")
        if decoded[one.PixelData] != original.PixelData:
            raise clients.Wrong("an image arrived with other samples")


def read(data_set: bytes, transfer_syntax_uid: str) -> Dataset:
    """Let pydicom read a bare Data Set."""
    found = dcmread(BytesIO(data_set), force=True)
    found.file_meta.TransferSyntaxUID = UID(transfer_syntax_uid)
    return found


# --- the conversion alone ------------------------------------------------------------------


@contextmanager
def all_cores() -> Iterator[ProcessPoolExecutor]:
    """Give a process per core, begun anew: what they import is imported before anything is timed."""
    # A session each, as the archive's workers have: a busy kernel shares its time out by sessions.
    with ProcessPoolExecutor(
        os.cpu_count() or 1, mp_context=get_context("spawn"), initializer=os.setsid
    ) as cores:
        yield cores


def conversion_s(
    cores: ProcessPoolExecutor, task: Callable[[Work], None], files: Sequence[Path], syntax: str
) -> float:
    """Have every file converted by whichever process is free; give the seconds taken."""
    with tempfile.TemporaryDirectory(prefix="pacs-bench-") as folder:
        each = [(str(one), syntax, folder) for one in files]
        started = time.perf_counter()
        for _ in cores.map(task, each):
            pass
        return time.perf_counter() - started


def convert(work: Work) -> None:
    """Encode, write and prove, as the archive's own workers do."""
    path, syntax, folder = work
    output = Path(folder, Path(path).name)
    stored = (path, _offset(path), str(ExplicitVRLittleEndian))
    tasks.convert(stored, syntax, str(output), folder, MAX_BYTES)
    output.unlink()


def encode(work: Work) -> None:
    """Encode and write."""
    path, syntax, folder = work
    output = Path(folder, Path(path).name)
    native = str(ExplicitVRLittleEndian)
    with (
        source.opened(path, _offset(path), native, folder=folder, max_bytes=MAX_BYTES) as elements,
        output.open("wb") as file,
    ):
        result = compress.compressed(elements, syntax, folder=folder)
        writing.Writer(file, EXPLICIT_LITTLE, encapsulating=True).write(result)
    output.unlink()


def _offset(path: str) -> int:
    with Path(path).open("rb") as file:
        return _DATA_SET_AT + int.from_bytes(file.read(_DATA_SET_AT)[-4:], "little")
