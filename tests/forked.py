"""``pacs`` commands in processes of their own, forked from one that has imported everything already.

Importing what a command needs costs some ten times what most commands do, and
the tests run hundreds of them. So each test process keeps one nursery: a
process with a single thread that has all our modules, and forks for each
command a child with arguments, environment, working directory and standard
streams of its own. A child is a process like any other: it has its own
database connections, locks, signals and exit code. What only a fresh
interpreter shows, that every module finds what it imports, is proved by those
that are started without it: servers, workers, and the first of each command
where it is the command that is tested.
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


def run(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    folder: Path = REPOSITORY,
    timeout_s: float = 120,
) -> "subprocess.CompletedProcess[str]":
    """Run one ``pacs`` command to its end; what it says is kept apart and given as text."""
    asked = json.dumps([list(arguments), dict(environment), str(folder)]).encode()
    assert len(asked) < LARGEST_REQUEST_BYTES
    nothing = os.open(os.devnull, os.O_RDONLY)
    said, complained = os.memfd_create("said"), os.memfd_create("complained")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with ours, theirs:
            socket.send_fds(_nursery(), [asked], [nothing, said, complained, theirs.fileno()])
            theirs.close()
            ours.settimeout(timeout_s)
            code = int(ours.recv(64))
        texts = [Path(f"/proc/self/fd/{one}").read_text("utf-8") for one in (said, complained)]
    finally:
        for one in (nothing, said, complained):
            os.close(one)
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
        sys.argv = ["pacs", *arguments]
        return list(arguments)


if __name__ == "__main__":
    _imported()
    gc.freeze()
    wanted = Nursery(socket.socket(fileno=int(sys.argv[1]))).serve()
    if wanted is not None:
        importlib.import_module("pacs.cli.main").main(wanted)
