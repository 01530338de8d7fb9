"""Brokers of the tests' own, on loopback and a port of their own, gone when they end."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.archive import free_port

START_TIMEOUT_S = 60
Tool = Callable[[str], str]


@contextmanager
def redis(tool: Tool) -> Iterator[str]:
    """Run a Redis that keeps nothing on disk; yield its URL."""
    port = free_port()
    command = [tool("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with tempfile.TemporaryDirectory(prefix="pacs-redis-") as folder:
        process = _begun([*command, "--appendonly", "no", "--dir", folder], dict(os.environ))
        try:
            _answers(process, port)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.terminate()
            process.wait()


def flush(url: str) -> None:
    """Let a Redis forget everything."""
    port = int(url.rpartition(":")[2].partition("/")[0])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"FLUSHALL\r\n")
        assert connection.recv(64).startswith(b"+OK")


@contextmanager
def rabbitmq(tool: Tool) -> Iterator[str]:
    """Run a RabbitMQ with a port mapper of its own; yield its URL."""
    tool("rabbitmq-server")  # on the PATH it is a script that insists on the system's own folders
    port, mapper = free_port(), free_port()
    folder = Path(tempfile.mkdtemp(prefix="pacs-rabbitmq-"))
    as_user: list[str] = []
    if os.geteuid() == 0:  # its start script changes to this user, who has to own the folder
        shutil.chown(folder, "rabbitmq")
        as_user = ["runuser", "-u", "rabbitmq", "--"]
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "ERL_EPMD_PORT": str(mapper),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": f"pacs{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_CONFIG_FILE": str(folder / "none"),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
    }
    server = [*as_user, "/usr/lib/rabbitmq/bin/rabbitmq-server"]
    process = _begun(server, environment)
    try:
        _answers(process, port)
        yield f"amqp://guest:guest@127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()
        subprocess.run(
            ["epmd", "-port", str(mapper), "-kill"], check=False, capture_output=True, timeout=30
        )
        shutil.rmtree(folder, ignore_errors=True)


def _begun(command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        cwd="/",
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _answers(process: subprocess.Popen[bytes], port: int) -> None:
    until = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < until:
        assert process.poll() is None, "the broker ended at once"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise AssertionError("the broker does not answer")
