"""Servers for a run: started on a free loopback port, waited for, and always ended by their own id."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
LOOPBACK = "127.0.0.1"
WITHOUT_NAGLE = {**os.environ, "TCP_NODELAY": "1"}
"""DCMTK as Debian ships it waits 40 ms for acknowledgements unless it is told not to."""

Process = subprocess.Popen[bytes]


def pacs(*arguments: str | Path) -> list[str]:
    """Give the command line of our own ``pacs``."""
    return [sys.executable, "-m", "pacs.cli.main", *map(str, arguments)]


@contextmanager
def archive(home: Path) -> Iterator[int]:
    """Run the archive on ``home``; yield its port."""
    subprocess.run(pacs("--home", home, "init"), check=True, stdout=subprocess.DEVNULL)
    port = free_port()
    log = home / "server.log"
    with running(pacs("--home", home, "serve", "--port", str(port)), port, log):
        yield port


@contextmanager
def running(
    command: Sequence[str],
    port: int,
    log: Path,
    *,
    environment: Mapping[str, str] = WITHOUT_NAGLE,
    ready: str = "",
) -> Iterator[Process]:
    """Run a server until the block ends; its output goes to ``log``.

    It is waited for until it takes a connection and, where it is one of several processes, has
    said ``ready``: the time of its start is no part of what is measured.
    """
    with log.open("wb") as output:
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        try:
            _wait(server, port, log, ready)
            yield server
        finally:
            server.terminate()
            try:
                server.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def free_port() -> int:
    """Ask the system for a port that nobody uses."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
    return port


def _wait(server: Process, port: int, log: Path, ready: str) -> None:
    end = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < end:
        if server.poll() is not None:
            break
        try:
            socket.create_connection((LOOPBACK, port), timeout=1).close()
            if ready in log.read_text(errors="replace"):
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise RuntimeError(f"the server did not start:\n{log.read_text(errors='replace')}")
