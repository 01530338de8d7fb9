"""A real ``pacs serve`` in a process of its own, that tests may kill; senders that remember what was acknowledged.

Everything is on loopback, and only processes started here are ever ended.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE, build_role, evt

from config.load import load
from pacs.app.archive import Archive
from pacs.app.listening import listening
from pacs.app.serve import prepared
from tests import forked
from tests.archive import free_port
from tests.postgres import START_TIMEOUT_S, _run
from tests.pynetdicom_hold import hold

REPOSITORY = Path(__file__).resolve().parent.parent
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
STUDY_ROOT_GET = "1.2.840.10008.5.1.4.1.2.2.3"
_LISTENS = re.compile(r"listens on \S+:(\d+)")
_NOISE = os.urandom(4_000_000)


def ct(*, study: str = "", series: str = "", uid: str = "", size_bytes: int = 20_000) -> Dataset:
    """Make a small CT with pixels of noise."""
    one = Dataset()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.SOPClassUID = CTImageStorage
    one.SOPInstanceUID = uid or generate_uid()
    one.StudyInstanceUID = study or generate_uid()
    one.SeriesInstanceUID = series or generate_uid()
    one.PatientID, one.PatientName, one.Modality = "CRASH", "Crash^Test", "CT"
    one.StudyDate, one.StudyTime, one.InstanceNumber = "20260101", "101010", 1
    side = max(2, int((size_bytes / 2) ** 0.5))
    one.Rows = one.Columns = side
    one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 0
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    start = hash(one.SOPInstanceUID) % 400_000
    one.PixelData = _NOISE[start : start + 2 * side * side]
    return one


def data_set_of(path: Path) -> bytes:
    """Give the Data Set of a Part 10 file as it lies there."""
    content = path.read_bytes()
    return content[144 + int.from_bytes(content[140:144], "little") :]


def write(one: Dataset, folder: Path) -> Path:
    """Write a Data Set as a Part 10 file named by its UID."""
    path = folder / f"{one.SOPInstanceUID}.dcm"
    pydicom.dcmwrite(path, one, enforce_file_format=True)
    return path


def configure(home: Path, **tables: Mapping[str, object]) -> None:
    """Write the settings of a test's own; no reserve unless told, and port 0."""
    settings: dict[str, dict[str, object]] = {"storage": {"reserve_bytes": 0}, "dicom": {"port": 0}}
    for name, table in tables.items():
        settings.setdefault(name, {}).update(table)
    home.mkdir(parents=True, exist_ok=True)
    lines = []
    for name, values in settings.items():
        lines.append(f"[{name}]")
        lines += [
            f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {value}"
            for key, value in values.items()
        ]
    (home / "pacs.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def initialize(home: Path, **tables: Mapping[str, object]) -> None:
    """Make a home as ``pacs init`` does, with settings of the test's own."""
    configure(home, **tables)
    done = pacs(home, "init")
    assert done.returncode == 0, done.stderr


@contextmanager
def in_process(home: Path, **tables: Mapping[str, object]) -> Iterator[tuple[Archive, int]]:
    """Serve a home within the test's own process, so that failures can be injected; gives the port."""
    configure(home, **tables)
    with prepared(home, load(home, {})) as archive, listening(archive) as port:
        yield archive, port


def kept(home: Path) -> list[Path]:
    """List the files of instances."""
    return sorted((home / "store").glob("[0-9]*/*/*/*/*"))


def arriving(home: Path) -> list[Path]:
    """List what is on its way, or was left there."""
    common = home / "store" / "incoming"
    return sorted(one for one in common.rglob("*") if not one.is_dir())


def pacs(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one ``pacs`` command to its end."""
    return forked.run(["--home", str(home), *arguments], os.environ, REPOSITORY)


def _command(home: Path) -> list[str]:
    return [sys.executable, "-m", "pacs.cli.main", "--home", str(home)]


class Child:
    """One ``pacs serve``; ``around`` goes before the command (a tracer, say)."""

    def __init__(self, home: Path, *options: str, around: Sequence[str] = (), **popen: Any) -> None:
        self.home = home
        self._log = home / "serve.log"
        with self._log.open("w") as log:
            environment = {"PACS_JOBS__WORKERS": "0", **os.environ}
            self.process: subprocess.Popen[bytes] | forked.Forked
            if around or popen:
                self.process = subprocess.Popen(
                    [*around, *_command(home), "serve", "--port", "0", *options],
                    cwd=REPOSITORY,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    **popen,
                )
            else:
                arguments = ("--home", str(home), "serve", "--port", "0", *options)
                streams = {"stdout": log.fileno(), "stderr": log.fileno()}
                self.process = forked.Forked(arguments, environment, REPOSITORY, **streams)
        self.port = self._wait_for_port()

    @property
    def log(self) -> str:
        """What it has written so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    @property
    def pid(self) -> int:
        """Process that serves, also when something goes around it."""
        return int((self.home / "serve.lock").read_text())

    def _wait_for_port(self) -> int:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if found := _LISTENS.search(self.log):
                return int(found.group(1))
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        self.kill()
        raise AssertionError(f"pacs serve did not come up: {self.log}")

    def kill(self) -> None:
        """SIGKILL: no chance to tidy up."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=60)

    def terminate(self) -> int:
        """SIGTERM; gives the exit code."""
        os.kill(self.pid, signal.SIGTERM)
        return self.process.wait(timeout=60)


@contextmanager
def serving(home: Path, *options: str, **more: Any) -> Iterator[Child]:
    """Serve, and end it whatever happens."""
    child = Child(home, *options, **more)
    try:
        yield child
    finally:
        child.kill()


def requestor(timeout_s: float = 30) -> AE:
    """Make a pynetdicom AE that offers CT and asks for Study Root queries."""
    entity = AE(ae_title="CRASHTEST")
    entity.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    entity.add_requested_context(STUDY_ROOT_FIND)
    entity.add_requested_context(STUDY_ROOT_GET)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = timeout_s
    return entity


@contextmanager
def associated(port: int, **more: Any) -> Iterator[Any]:
    """Associate with a server on this machine."""
    association = requestor().associate("127.0.0.1", port, **more)
    assert association.is_established
    connection = _connection(association)
    hold(association)
    try:
        yield association
    finally:
        if association.is_established:
            association.release()
        if not association.is_released:
            connection.close()


def _connection(association: Any) -> socket.socket:
    """Give the socket, to close it: pynetdicom forgets one that was reset or aborted."""
    connection: socket.socket = association.dul.socket.socket
    return connection


def store(port: int, one: Dataset) -> Dataset:
    """Send one Data Set on an association of its own; gives the C-STORE-RSP."""
    with associated(port) as association:
        answer: Dataset = association.send_c_store(one)
        return answer


def find_instances(port: int, study: str, series: Iterable[str]) -> set[str]:
    """Ask for the SOP Instance UIDs of a study's series."""
    found = set()
    with associated(port) as association:
        for one in series:
            query = Dataset()
            query.QueryRetrieveLevel = "IMAGE"
            query.StudyInstanceUID, query.SeriesInstanceUID = study, one
            query.SOPInstanceUID = ""
            for status, identifier in association.send_c_find(query, STUDY_ROOT_FIND):
                assert status.Status in (0xFF00, 0xFF01, 0x0000)
                if identifier is not None:
                    found.add(str(identifier.SOPInstanceUID))
    return found


def get_study(port: int, study: str) -> dict[str, bytes]:
    """Fetch a study by C-GET; gives the Data Sets as they travelled."""
    got: dict[str, bytes] = {}

    def keep(event: Any) -> int:
        got[str(event.request.AffectedSOPInstanceUID)] = event.request.DataSet.getvalue()
        return 0

    query = Dataset()
    query.QueryRetrieveLevel, query.StudyInstanceUID = "STUDY", study
    role = build_role(CTImageStorage, scp_role=True)
    with associated(port, ext_neg=[role], evt_handlers=[(evt.EVT_C_STORE, keep)]) as association:
        last = [status for status, _ in association.send_c_get(query, STUDY_ROOT_GET)][-1]
    assert last.Status == 0x0000
    return got


@dataclass(slots=True, kw_only=True)
class Acknowledged:
    """What senders were told is safe: SOP Instance UID → Data Set as sent."""

    study: str
    series: set[str] = field(default_factory=set)
    data_sets: dict[str, bytes] = field(default_factory=dict)


class DcmtkSender:
    """``storescu`` sending a folder on one association, in a process of its own."""

    def __init__(self, storescu: str, port: int, folder: Path) -> None:
        self._log = folder / "storescu.log"
        self.files = sorted(folder.glob("*.dcm"))
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [storescu, "-v", "-aet", "DCMTK", "127.0.0.1", str(port), *map(str, self.files)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TCP_NODELAY": "1"},
            )

    def acknowledged(self) -> list[Path]:
        """Wait for its end; gives the files that were answered with Success."""
        self._process.wait(timeout=60)
        current, answered = None, []
        for line in self._log.read_text(errors="replace").splitlines():
            if "Sending file: " in line:
                current = Path(line.partition("Sending file: ")[2].strip())
            elif "Received Store Response (Success)" in line and current is not None:
                answered.append(current)
        return answered


class PynetdicomSender(threading.Thread):
    """Sends new instances on one association until it ends."""

    def __init__(self, port: int, study: str, most: int, timeout_s: float = 3) -> None:
        super().__init__(name="sender")
        self._timeout_s = timeout_s
        self.series = generate_uid()
        self._port, self._study, self._most = port, study, most
        self.answered: list[Dataset] = []
        self.sent = 0

    def run(self) -> None:
        """Send; remember what was answered with Success."""
        # pynetdicom notices a connection reset while it waits by its time-out alone.
        association: Any = requestor(self._timeout_s).associate("127.0.0.1", self._port)
        if not association.is_established:
            return
        connection = _connection(association)
        while association.is_established and self.sent < self._most:
            size_bytes = 100_000 + hash((self.series, self.sent)) % 400_000
            one = ct(study=self._study, series=self.series, size_bytes=size_bytes)
            self.sent += 1
            try:
                answer = association.send_c_store(one)
            except (RuntimeError, ValueError):  # the association has ended
                break
            if answer.get("Status") == 0x0000:
                self.answered.append(one)
        if association.is_established:
            association.release()
        if not association.is_released:
            connection.close()


class Cluster:
    """A PostgreSQL cluster that a test stops and starts, always on the same port."""

    def __init__(self, initdb: str, pg_ctl: str) -> None:
        self._pg_ctl = pg_ctl
        self._folder = Path(tempfile.mkdtemp(prefix="pacs-postgres-"))
        if os.geteuid() == 0:
            shutil.chown(self._folder, "postgres")
        self._data = str(self._folder / "data")
        self._port = free_port()
        self._running = False
        self.address = f"postgresql://postgres@127.0.0.1:{self._port}"
        _run(initdb, "-D", self._data, "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8",
             "--locale=C.UTF-8")  # fmt: skip

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = (
            f"-c listen_addresses=127.0.0.1 -c port={self._port} -c fsync=off"
            f" -c unix_socket_directories={self._folder} -c shared_buffers=32MB"
        )
        log = str(self._folder / "log")
        _run(self._pg_ctl, "-D", self._data, "-o", options, "-l", log, "-w", "start")
        self._running = True

    def stop(self) -> None:
        """End it as an administrator in a hurry does: connections are cut."""
        _run(self._pg_ctl, "-D", self._data, "-m", "fast", "-w", "stop")
        self._running = False

    def remove(self) -> None:
        """Stop it and forget everything."""
        try:
            if self._running:
                self.stop()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
