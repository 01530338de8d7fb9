"""Who is compared: our archive and its peers, each started on a fresh folder, configured for speed.

Every server gets TCP_NODELAY=1 and 128 KiB PDUs where it has a say in them. It
knows how each is configured and nothing about what is measured.
"""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.servers import LOOPBACK, WITHOUT_NAGLE, free_port, pacs, running
from tests.peers import find as find_tool

MAX_PDU = "131072"
OURS = "pacs"
REPOSITORY = Path(__file__).resolve().parent.parent

Sinks = Mapping[str, int]
"""AE title → port of each move destination."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running server."""

    ae_title: str
    port: int
    pid: int
    folder: Path
    """Everything it keeps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One column of the tables."""

    name: str
    note: str
    start: Callable[[Path, Sinks], AbstractContextManager[Server]]
    missing: Callable[[], str]
    """Say what is missing on this machine; empty when it can run."""
    finds: bool = True
    retrieves: bool = True
    takes_huge: bool = True
    most_instances: int = 1_000_000
    """A slow peer is given this many of a row's instances only."""
    most_studies: int = 1_000_000
    """What it can hold, or be filled with in bearable time."""


def _tool_missing(tool: str) -> Callable[[], str]:
    return lambda: "" if find_tool(tool) else f"{tool} is not installed"


@contextmanager
def ours(folder: Path, sinks: Sinks, settings: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Run our archive as it comes: fsync, directories too, and index on."""
    folder.mkdir(parents=True)
    home, port = folder / "home", free_port()
    environment = {**WITHOUT_NAGLE, **(settings or {}), "PYTHONPATH": str(REPOSITORY)}
    commands = [
        ["init"],
        *(["peer", "add", *map(str, (ae, LOOPBACK, p))] for ae, p in sinks.items()),
    ]
    for command in commands:
        subprocess.run(
            pacs("--home", home, *command), check=True, stdout=subprocess.DEVNULL, env=environment
        )
    serve = pacs("--home", home, "serve", "--port", str(port))
    log = folder / "server.log"
    with running(serve, port, log, environment=environment, ready="PACS listens") as process:
        yield Server(ae_title="PACS", port=port, pid=process.pid, folder=folder)


@contextmanager
def storescp(folder: Path, _: Sinks) -> Iterator[Server]:
    """Run DCMTK's storescp, writing what it receives as it comes."""
    with receiver(folder, "+B", "-od", str(folder / "received")) as server:
        yield server


@contextmanager
def receiver(folder: Path, *options: str) -> Iterator[Server]:
    """Run DCMTK's storescp with these options, one process per association."""
    (folder / "received").mkdir(parents=True)
    port = free_port()
    command = [_path("storescp"), "--fork", "--max-pdu", MAX_PDU, *options, str(port)]
    with running(command, port, folder / "server.log") as process:
        yield Server(ae_title="ANY", port=port, pid=process.pid, folder=folder)


@contextmanager
def dcmqrscp(folder: Path, sinks: Sinks) -> Iterator[Server]:
    """Run DCMTK's dcmqrscp: files and an index file, nothing fsynced."""
    area = folder / "area"
    area.mkdir(parents=True)
    port = free_port()
    hosts = [f"{one.lower()} = ({one}, localhost, {at})" for one, at in sinks.items()]
    lines = [
        f"NetworkTCPPort = {port}",
        f"MaxPDUSize = {MAX_PDU}",
        "MaxAssociations = 32",
        "HostTable BEGIN",
        *hosts,
        "HostTable END",
        "VendorTable BEGIN",
        "VendorTable END",
        "AETable BEGIN",
        f"QRSCP {area} RW (500, 4096mb) ANY",
        "AETable END",
    ]
    config = folder / "dcmqrscp.cfg"
    config.write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = [_path("dcmqrscp"), "-c", str(config), "--max-pdu", MAX_PDU, "+B"]
    with running(command, port, folder / "server.log") as process:
        yield Server(ae_title="QRSCP", port=port, pid=process.pid, folder=folder)


@contextmanager
def orthanc(folder: Path, sinks: Sinks) -> Iterator[Server]:
    """Run Orthanc with its own SQLite index and fsync of every file."""
    folder.mkdir(parents=True)
    port = free_port()
    settings = {
        "Name": "bench",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "StorageCompression": False,
        "SyncStorageArea": True,
        "OverwriteInstances": True,
        "HttpServerEnabled": False,
        "DicomAet": "ORTHANC",
        "DicomPort": port,
        "DicomCheckCalledAet": False,
        "DicomAlwaysAllowEcho": True,
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowGet": True,
        "DicomAlwaysAllowMove": True,
        "MaximumPduLength": int(MAX_PDU),
        "DicomModalities": {
            "bench": ["BENCH", LOOPBACK, 104],
            **{one.lower(): [one, LOOPBACK, at] for one, at in sinks.items()},
        },
        "Plugins": [],
    }
    config = folder / "orthanc.json"
    config.write_text(json.dumps(settings), encoding="utf-8")
    with running([_path("Orthanc"), str(config)], port, folder / "server.log") as process:
        yield Server(ae_title="ORTHANC", port=port, pid=process.pid, folder=folder)


@contextmanager
def qrscp(folder: Path, sinks: Sinks) -> Iterator[Server]:
    """Run pynetdicom's qrscp."""
    folder.mkdir(parents=True)
    port = free_port()
    lines = [
        "[DEFAULT]",
        "ae_title: QRSCP",
        f"port: {port}",
        f"max_pdu: {MAX_PDU}",
        "acse_timeout: 30",
        "dimse_timeout: 120",
        "network_timeout: 120",
        f"bind_address: {LOOPBACK}",
        f"instance_location: {folder / 'instances'}",
        f"database_location: {folder / 'instances.sqlite'}",
        "log_identifier: False",
    ]
    for name, at in sinks.items():
        lines += [f"[{name}]", f"address: {LOOPBACK}", f"port: {at}"]
    config = folder / "qrscp.ini"
    config.write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = [_qrscp_python(), "-m", "pynetdicom", "qrscp", "-c", str(config)]
    with running(command, port, folder / "server.log") as process:
        yield Server(ae_title="QRSCP", port=port, pid=process.pid, folder=folder)


def _qrscp_python() -> str:
    """Its qrscp needs SQLAlchemy, which is no dependency of ours: name a Python that has both."""
    return os.environ.get("BENCH_QRSCP_PYTHON", sys.executable)


def _qrscp_missing() -> str:
    if "BENCH_QRSCP_PYTHON" in os.environ or importlib.util.find_spec("sqlalchemy"):
        return ""
    return "SQLAlchemy is not installed; name a Python that has it in BENCH_QRSCP_PYTHON"


def _path(tool: str) -> str:
    found = find_tool(tool)
    if found is None:
        raise FileNotFoundError(tool)
    return found


PEERS = (
    Peer(name=OURS, note="fsync of files and directories, index", start=ours, missing=lambda: ""),
    Peer(
        name="storescp +B",
        note="DCMTK; a writer: no index, no fsync",
        start=storescp,
        missing=_tool_missing("storescp"),
        finds=False,
        retrieves=False,
    ),
    Peer(
        name="dcmqrscp",
        note="DCMTK, bit-preserving; index file, no fsync; queried with 400 studies, as it holds 500",
        start=dcmqrscp,
        missing=_tool_missing("dcmqrscp"),
        most_studies=400,
    ),
    Peer(
        name="Orthanc",
        note="SQLite index, fsync of files",
        start=orthanc,
        missing=_tool_missing("Orthanc"),
    ),
    Peer(
        name="qrscp",
        note="pynetdicom; SQLite index, no fsync; 40 instances a row, 200 studies; gives Data "
        "Sets back re-encoded, so its retrievals are not compared",
        start=qrscp,
        missing=_qrscp_missing,
        retrieves=False,
        takes_huge=False,
        most_instances=40,
        most_studies=200,
    ),
)
