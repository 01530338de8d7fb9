"""A PostgreSQL cluster of the tests' own, on loopback, gone when they end.

PostgreSQL refuses to run as root, so as root it is started as the user
``postgres`` that Debian's package makes.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.archive import free_port

START_TIMEOUT_S = 60


@contextmanager
def cluster(initdb: str, pg_ctl: str) -> Iterator[str]:
    """Start a cluster; yield its address, ``postgresql://postgres@127.0.0.1:PORT``."""
    folder = Path(tempfile.mkdtemp(prefix="pacs-postgres-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres")
        data = str(folder / "data")
        _run(initdb, "-D", data, "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8",
             "--locale=C.UTF-8")  # fmt: skip
        port = free_port()
        options = (
            f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={folder}"
            " -c fsync=off -c max_connections=200 -c shared_buffers=32MB"
        )
        _run(pg_ctl, "-D", data, "-o", options, "-l", str(folder / "log"), "-w",
             "-t", str(START_TIMEOUT_S), "start")  # fmt: skip
        try:
            yield f"postgresql://postgres@127.0.0.1:{port}"
        finally:
            _run(pg_ctl, "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(*command: str) -> None:
    as_postgres = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*as_postgres, *command],
        check=False,
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=2 * START_TIMEOUT_S,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{Path(command[0]).name} failed: {done.stderr.strip()}")
