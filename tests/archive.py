"""A real archive for the tests: ``pacs serve`` as a child process, and the foreign tools it talks to.

Everything is asked from outside: over associations, with the ``pacs`` command
and by looking at the files under home.
"""

import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from pydicom.filereader import _read_file_meta_info, read_preamble

from tests import forked, processes

REPOSITORY = Path(__file__).resolve().parent.parent
PACS = (sys.executable, "-m", "pacs.cli.main")
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 60
TOOL_TIMEOUT_S = 120
Tool = Callable[[str], str]


def environment(home: Path, settings: Mapping[str, str], database_url: str = "") -> dict[str, str]:
    """Make a child's environment; ``settings`` maps ``table.key`` to the text of its override.

    No workers unless asked for: most tests ask for no job, and each would start one more process.
    """
    overrides = {"storage.reserve_bytes": "0", "jobs.workers": "0", **settings}
    if database_url:
        overrides["database.url"] = database_url
    named = {f"PACS_{key.replace('.', '__').upper()}": text for key, text in overrides.items()}
    paths = {"PACS_HOME": str(home), "PYTHONPATH": str(REPOSITORY)}
    return {**os.environ, **paths, **named}


@dataclass(kw_only=True)
class Archive:
    """One running archive."""

    home: Path
    port: int
    process: forked.Forked
    environment: dict[str, str] = field(repr=False)

    def pacs(self, *arguments: str) -> str:
        """Run one ``pacs`` command on this home; give what it printed."""
        done = forked.run(arguments, self.environment, self.home, TOOL_TIMEOUT_S)
        assert done.returncode == 0, f"pacs {arguments[0]}: {done.returncode} {done.stderr}"
        return done.stdout

    def listed(self, *arguments: str) -> list[dict[str, Any]]:
        """Run one ``pacs`` list with ``--json``."""
        rows: list[dict[str, Any]] = json.loads(self.pacs(*arguments, "--json"))
        return rows

    def add_peer(self, ae_title: str, port: int, *, associations: int = 1) -> None:
        """Name a move destination: the next request knows it."""
        many = ("--associations", str(associations))
        self.pacs("peer", "add", ae_title, "127.0.0.1", str(port), *many)

    def kept(self) -> list[Path]:
        """List the files of instances."""
        return sorted((self.home / "store").rglob("*.dcm"))

    def arriving(self) -> list[Path]:
        """List what is being received, or was left there."""
        common = self.home / "store" / "incoming"
        return sorted(one for one in common.rglob("*") if not one.is_dir())

    def resident_kib(self) -> int:
        """Tell the largest resident sets so far of the server and its listeners, added up."""
        pid = self.process.pid
        return sum(map(_peak_kib, [pid, *processes.below(pid)]))


def _peak_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    (peak,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return int(peak)


@contextmanager
def serving(
    home: Path, database_url: str = "", settings: Mapping[str, str] | None = None
) -> Iterator[Archive]:
    """Serve ``home`` on a port the system chooses; at the end SIGTERM must give exit code 0."""
    child = environment(home, settings or {}, database_url)
    home.mkdir(parents=True, exist_ok=True)
    log = home.with_suffix(".log")
    with log.open("ab", buffering=0) as output:
        reading, writing = os.pipe()
        try:
            process = forked.Forked(
                ("serve", "--port", "0"), child, home, stdout=output.fileno(), stderr=writing
            )
        finally:
            os.close(writing)
        stderr = os.fdopen(reading, "rb", buffering=0)
        try:
            port = _port_said(stderr, process, output)
            drain = _copying(stderr, log)
            yield Archive(home=home, port=port, process=process, environment=child)
            process.send_signal(signal.SIGTERM)
            code = process.wait(STOP_TIMEOUT_S)
            drain.join(STOP_TIMEOUT_S)
            assert code == 0, f"serve ended with {code}: {log.read_text()[-2000:]}"
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            stderr.close()


def _port_said(stream: IO[bytes], process: forked.Forked, log: IO[bytes]) -> int:
    """Read "… listens on HOST:PORT" from the server's standard error."""
    said, limit = b"", time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < limit:
        if select.select([stream], [], [], 0.2)[0]:
            piece = os.read(stream.fileno(), 65_536)
            said += piece
            log.write(piece)
            for line in said.splitlines(keepends=True):
                if b" listens on " in line and line.endswith(b"\n"):
                    return int(line.split(b" listens on ")[1].split()[0].rpartition(b":")[2])
            assert piece, f"serve ended at once: {said.decode(errors='replace')}"
    raise AssertionError(f"serve did not say where it listens: {said!r} {process.poll()}")


def _copying(stream: IO[bytes], log: Path) -> Any:
    """Keep the server's standard error from filling up."""
    import threading

    def copy() -> None:
        with log.open("ab", buffering=0) as output:
            while piece := os.read(stream.fileno(), 65_536):
                output.write(piece)

    thread = threading.Thread(target=copy, daemon=True)
    thread.start()
    return thread


@contextmanager
def database(cluster_url: str) -> Iterator[str]:
    """Make an empty PostgreSQL database; drop it at the end."""
    import psycopg

    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(f"{cluster_url}/postgres", autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}"')
    try:
        yield f"{cluster_url}/{name}"
    finally:
        with psycopg.connect(f"{cluster_url}/postgres", autocommit=True) as admin:
            admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


# --- foreign tools -------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a tool said and how it ended."""

    code: int
    text: str


def run(*command: str) -> Said:
    """Run a foreign tool; ``TCP_NODELAY`` as DCMTK reads it, so that it does not wait for ACKs."""
    done = subprocess.run(
        list(command),
        capture_output=True,
        timeout=TOOL_TIMEOUT_S,
        check=False,
        env={**os.environ, "TCP_NODELAY": "1"},
    )
    return Said(code=done.returncode, text=(done.stdout + done.stderr).decode(errors="replace"))


_PORTS = range(26_100, 32_700)
"""Below those the system gives to connections, which would take one before its server does."""


def free_port() -> int:
    """Find a port that nobody listens on, and that no connection will be given."""
    for port in random.sample(_PORTS, 100):
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
        return port
    raise AssertionError("of a hundred ports none is free")


@dataclass(frozen=True, kw_only=True)
class Receiver:
    """A running storescp: its port and where it writes what it receives."""

    port: int
    folder: Path

    def taken(self) -> list[Path]:
        """List what has arrived, and forget it: the next call lists only what is new."""
        files = sorted(self.folder.iterdir())
        away = self.folder.with_name(f"{self.folder.name}-{uuid.uuid4().hex}")
        away.mkdir()
        return [one.rename(away / one.name) for one in files]


@contextmanager
def storescp(tool: Tool, folder: Path, *options: str) -> Iterator[Receiver]:
    """Run DCMTK's storescp, bit-preserving, taking every syntax it knows unless told otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = [tool("storescp"), *(options or ("+xa",)), "+B", "-od", str(folder), str(port)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TCP_NODELAY": "1"},
    )
    try:
        for _ in range(400):
            assert process.poll() is None, "storescp ended at once"
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        else:
            raise AssertionError("storescp does not listen")
        yield Receiver(port=port, folder=folder)
    finally:
        process.terminate()
        process.wait()


def data_set_offset(path: Path) -> int:
    """Tell where the Data Set of a Part 10 file begins; 0 for a file that is a bare Data Set."""
    with path.open("rb") as file:
        if file.read(132)[128:] != b"DICM" or file.read(2) != b"\x02\x00":
            return 0
        file.seek(0)
        read_preamble(file, force=False)
        _read_file_meta_info(file)
        return file.tell()


def data_set_of(path: Path) -> bytes:
    """Give the Data Set's bytes of a Part 10 file."""
    return path.read_bytes()[data_set_offset(path) :]
