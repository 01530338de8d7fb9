"""Peers that are polled, and archives that poll them: what the tests of polling share."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from pacs.app.archive import Archive
from pacs.app.poll import Polling
from pacs.core.identifiers import AETitle
from pacs.core.polling import FetchBy, Poll
from pacs.services.poll import PollWork
from tests.archive import Tool, free_port, run
from tests.association_fakes import until
from tests.keeping import ADMIN

PATIENCE_S = 60.0


def today() -> str:
    return datetime.now(UTC).strftime("%Y%m%d")


def image(study: str, series: str, **values: Any) -> Dataset:
    """Make a small CT image of today."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID = CTImageStorage, generate_uid()
    made.StudyInstanceUID, made.SeriesInstanceUID = study, series
    made.PatientID, made.PatientName, made.Modality = "POLLED", "Polled^Patient", "CT"
    made.StudyDate, made.StudyTime, made.InstanceNumber = today(), "101010", "1"
    made.AccessionNumber, made.StudyID, made.SeriesNumber = "A1", "1", "1"
    made.Rows = made.Columns = 16
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 16, 15, 0
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.PixelData = os.urandom(512)
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def study_of(*many: int, **values: Any) -> list[Dataset]:
    """Make a study with so many images in each series."""
    study = generate_uid()
    return [
        image(study, series, **values)
        for count, series in ((count, generate_uid()) for count in many)
        for _ in range(count)
    ]


def uids(images: Iterable[Dataset]) -> list[str]:
    return sorted(str(one.SOPInstanceUID) for one in images)


def send(tool: Tool, port: int, images: Sequence[Dataset], folder: Path, *options: str) -> None:
    """Put images into a peer with storescu, as a modality does."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for one in images:
        paths.append(folder / f"{one.SOPInstanceUID}.dcm")
        dcmwrite(paths[-1], one, enforce_file_format=True)
    said = run(tool("storescu"), *options, "-aec", "PEER", "127.0.0.1", str(port), *map(str, paths))
    assert said.code == 0, said.text


@dataclass(frozen=True, kw_only=True)
class Running:
    """A foreign peer: where it listens and what it logs."""

    port: int
    log: Path

    def count(self, words: str) -> int:
        return self.log.read_text(errors="replace").count(words)


@contextmanager
def running(command: list[str], port: int, log: Path) -> Iterator[Running]:
    """Run a foreign server until the block ends."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            env={**os.environ, "TCP_NODELAY": "1"},
        )  # fmt: skip
    try:
        assert until(lambda: process.poll() is not None or _listens(port), PATIENCE_S)
        assert process.poll() is None, log.read_text()
        yield Running(port=port, log=log)
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        time.sleep(0.05)
        return False
    return True


@contextmanager
def dcmqrscp(
    tool: Tool, folder: Path, our_port: int, port: int | None = None, options: Sequence[str] = ()
) -> Iterator[Running]:
    """Run DCMTK's archive as PEER; it knows us as PACS."""
    area = folder / "area"
    area.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    config = folder / "dcmqrscp.cfg"
    config.write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n"
        f"HostTable BEGIN\npacs = (PACS, 127.0.0.1, {our_port})\nHostTable END\n"
        "VendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\nPEER {area} RW (50, 1024mb) ANY\nAETable END\n"
    )
    command = [tool("dcmqrscp"), "-v", *options, "-c", str(config)]
    with running(command, port, folder / "log") as peer:
        yield peer


@contextmanager
def orthanc(tool: Tool, folder: Path, our_port: int, port: int | None = None) -> Iterator[Running]:
    """Run Orthanc as PEER; it knows us as PACS."""
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    settings = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [],
        "HttpServerEnabled": False,
        "DicomAet": "PEER",
        "DicomPort": port,
        "DicomCheckCalledAet": False,
        "DicomAlwaysAllowEcho": True,
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowGet": True,
        "DicomAlwaysAllowMove": True,
        "DicomModalities": {"pacs": ["PACS", "127.0.0.1", our_port]},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    command = [tool("Orthanc"), str(folder / "orthanc.json"), "--verbose"]
    with running(command, port, folder / "log") as peer:
        yield peer


@dataclass
class Watched:
    """The part of a job's context that the handler sees, for runs in the test's own process."""

    payload: PollWork
    stop: Callable[[], bool] = lambda: False
    lines: list[str] = field(default_factory=list)
    done: tuple[int, int] = (0, 0)
    id: int = 1
    attempt: int = 1

    def progress(self, done: int, total: int) -> None:
        self.done = (done, total)

    def log(self, line: str) -> None:
        self.lines.append(line)

    def cancelled(self) -> bool:
        return self.stop()

    def children(self, jobs: object) -> Any:
        raise AssertionError("a poll has no parts")

    def finish(self, result: object = None) -> Any:
        raise AssertionError("a poll leaves its end to the worker")


def polled(archive: Archive, **more: Any) -> tuple[dict[str, int], list[str]]:
    """Run the poll of PEER once, in this process; gives its result and its log."""
    context = Watched(PollWork(poll="PEER"), **more)
    result = Polling(archive).run(context)
    return dict(result or {}), context.lines


def add_poll(archive: Archive, port: int, by: FetchBy, **more: Any) -> None:
    """Name the peer and its poll."""
    archive.peers.add(ADMIN, "PEER", "127.0.0.1", port)
    named = AETitle("PEER")
    asked = {"name": "PEER", "ae_title": named, "cron": "", "window_days": 1, "by": by, **more}
    archive.polls.add(ADMIN, Poll(**asked))


def in_index(archive: Archive) -> list[str]:
    """SOP Instance UIDs of every row, each version of an instance on its own."""
    rows = archive.database.execute("SELECT sop_instance_uid FROM instance")
    return sorted(row[0] for row in rows)


def conflicts(archive: Archive) -> int:
    return len(list(archive.database.execute("SELECT 1 FROM conflict")))
