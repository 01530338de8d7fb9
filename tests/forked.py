"""``pacs`` commands in processes of their own, forked from one that has imported everything already.

Importing what a command needs costs some ten times what most commands do, and
the tests run hundreds of them. So each test process keeps one nursery: a
process with a single thread that has all our modules, and forks for each
command a child with arguments, environment, working directory and standard
streams of its own. A child is a process like any other: it has its own
database connections, locks, signals and exit code. What only a fresh
interpreter shows, that every module finds what it imports, is proved by those
that are started without it: listeners and workers, which every server starts
itself, servers under a tracer, and the first of each command where it is the
command that is tested.
"""

import atexit
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
ROOMS = ("config", "pacs", "scp", "scu", "storage")
LARGEST_REQUEST_BYTES = 1 << 20
STREAMS = 3
START_TIMEOUT_S = 60


class Forked:
    """One running command, to be watched and ended as with ``subprocess.Popen``.

    It is killed when this object goes without it having been waited for.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        *,
        stdout: int,
        stderr: int,
    ) -> None:
        asked = json.dumps([list(arguments), dict(environment), str(folder)]).encode()
        assert len(asked) < LARGEST_REQUEST_BYTES
        self.returncode: int | None = None
        self._told, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, Path(os.devnull).open("rb") as nothing:
            streams = [nothing.fileno(), stdout, stderr, theirs.fileno()]
            socket.send_fds(_nursery(), [asked], streams)
        self._told.settimeout(START_TIMEOUT_S)
        self.pid = int(self._told.recv(64))

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; gives the exit code."""
        if self.returncode is None:
            self._told.settimeout(timeout)
            try:
                self.returncode = int(self._told.recv(64))
            except TimeoutError:
                raise subprocess.TimeoutExpired("pacs", timeout or 0.0) from None
            self._told.close()
        return self.returncode

    def poll(self) -> int | None:
        """The exit code, where it has ended."""
        if self.returncode is None and select.select([self._told], [], [], 0)[0]:
            self.wait(1)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Signal it, unless it is known to have ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


def run(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    folder: Path = REPOSITORY,
    timeout_s: float = 120,
) -> "subprocess.CompletedProcess[str]":
    """Run one ``pacs`` command to its end; what it says is kept apart and given as text."""
    said, complained = os.memfd_create("said"), os.memfd_create("complained")
    try:
        one = Forked(arguments, environment, folder, stdout=said, stderr=complained)
        try:
            code = one.wait(timeout_s)
        finally:
            one.kill()
        texts = [Path(f"/proc/self/fd/{each}").read_text("utf-8") for each in (said, complained)]
    finally:
        os.close(said)
        os.close(complained)
    return subprocess.CompletedProcess(["pacs", *arguments], code, *texts)


_SEEN: set[str] = set()


def run_first_fresh(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    folder: Path = REPOSITORY,
    timeout_s: float = 120,
) -> "subprocess.CompletedProcess[str]":
    """Run it in an interpreter of its own where it is the first of its name, or else as ``run``."""
    if arguments[0] in _SEEN:
        return run(arguments, environment, folder, timeout_s)
    _SEEN.add(arguments[0])
    return subprocess.run(
        [sys.executable, "-m", "pacs.cli.main", *arguments],
        env=dict(environment),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )


@cache
def _nursery() -> socket.socket:
    """Start the process that forks; it ends with the test process, or with its socket."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for one in (ours, theirs):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LARGEST_REQUEST_BYTES)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.forked", str(theirs.fileno())],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


# --- the nursery ---------------------------------------------------------------------


def _imported() -> None:
    """Import all modules of the rooms a command may use."""
    for room in ROOMS:
        package = importlib.import_module(room)
        for found in pkgutil.walk_packages(package.__path__, f"{room}."):
            importlib.import_module(found.name)
    importlib.import_module("processing.datasets.transcode")


class Nursery:
    """Forks for each request until nobody asks any more."""

    def __init__(self, asked: socket.socket) -> None:
        self._asked = asked
        self._watched = select.poll()
        self._watched.register(asked, select.POLLIN)
        self._by_end: dict[int, tuple[int, socket.socket]] = {}
        self._by_answer: dict[int, int] = {}

    def serve(self) -> list[str] | None:
        """In a child, give its arguments; ``None`` when nobody asks any more."""
        while True:
            for ready, _ in self._watched.poll():
                if ready in self._by_end:
                    self._ended(ready)
                elif ready in self._by_answer:  # whoever asked has given up
                    self._watched.unregister(ready)
                    os.kill(self._by_answer[ready], signal.SIGKILL)
                elif ready == self._asked.fileno():
                    content, streams, _, _ = socket.recv_fds(
                        self._asked, LARGEST_REQUEST_BYTES, STREAMS + 1
                    )
                    if not content:
                        return None
                    pid = os.fork()
                    if not pid:
                        return self._become(content, streams)
                    self._begun(pid, streams)

    def _begun(self, pid: int, streams: list[int]) -> None:
        answer = socket.socket(fileno=streams.pop())
        for one in streams:
            os.close(one)
        ending = os.pidfd_open(pid)
        self._by_end[ending], self._by_answer[answer.fileno()] = (pid, answer), pid
        self._watched.register(ending, select.POLLIN)
        self._watched.register(answer, select.POLLIN)
        with suppress(BrokenPipeError):
            answer.send(str(pid).encode())

    def _ended(self, ending: int) -> None:
        pid, answer = self._by_end.pop(ending)
        _, status = os.waitpid(pid, 0)
        self._watched.unregister(ending)
        os.close(ending)
        with answer, suppress(KeyError, BrokenPipeError):
            del self._by_answer[answer.fileno()]
            self._watched.unregister(answer)
            answer.send(str(os.waitstatus_to_exitcode(status)).encode())

    def _become(self, content: bytes, streams: Sequence[int]) -> list[str]:
        """Be the process that was asked for, with nothing of the nursery's left open."""
        for one in (self._asked, *(answer for _, answer in self._by_end.values())):
            one.detach()
        arguments, environment, folder = json.loads(content)
        for number, stream in enumerate(streams[:STREAMS]):
            os.dup2(stream, number)
        os.closerange(STREAMS, os.sysconf("SC_OPEN_MAX"))
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        known = {str(Path(one).resolve()) for one in sys.path}
        own = environment.get("PYTHONPATH", "").split(os.pathsep)
        sys.path[:0] = [one for one in own if one and str(Path(one).resolve()) not in known]
        sys.argv = ["pacs", *arguments]
        return list(arguments)


if __name__ == "__main__":
    _imported()
    gc.freeze()
    wanted = Nursery(socket.socket(fileno=int(sys.argv[1]))).serve()
    if wanted is not None:
        importlib.import_module("pacs.cli.main").main(wanted)
