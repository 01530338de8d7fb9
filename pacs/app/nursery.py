"""Where listeners and workers begin, as their owner sees it: asked for by name, watched, ended.

Owns how they begin and how their end is heard, and a new nursery where one has
died; knows nothing of what they do. ``pacs.app.cradle`` is the other side.
"""

import multiprocessing
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType

import msgspec

from pacs.app import cradle
from pacs.app.cradle import Wanted, pair, received

_END_TIMEOUT_S = 10.0
_BEGIN_TIMEOUT_S = 60.0
"""Time for a nursery to answer, which may be importing still."""


class ChildFailed(OSError):
    """A child could not be begun."""


class Child:
    """One listener or worker, to be watched and ended as with ``subprocess.Popen``.

    Signals go by its pidfd: they meet it or nobody. Where the nursery died, how
    the child ended cannot be known, and ``returncode`` is that of a kill.
    """

    def __init__(self, pid: int, pidfd: int, told: socket.socket) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._pidfd, self._told = pidfd, told

    def poll(self) -> int | None:
        """The exit code, where it has ended."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; gives the exit code. Raises ``subprocess.TimeoutExpired``."""
        if self.returncode is None:
            if not _readable(self._told, timeout):
                raise subprocess.TimeoutExpired(f"pacs ({self.pid})", timeout or 0.0)
            code = self._told.recv(64, socket.MSG_PEEK)
            if not code and not _readable(self._pidfd, timeout):  # the nursery went before it
                raise subprocess.TimeoutExpired(f"pacs ({self.pid})", timeout or 0.0)
            self.returncode = int(code) if code else -signal.SIGKILL
            self._told.close()
            os.close(self._pidfd)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Signal it, unless it is known to have ended."""
        if self.returncode is None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


def _readable(what: socket.socket | int, timeout_s: float | None) -> bool:
    poller = select.poll()
    poller.register(what, select.POLLIN)
    return bool(poller.poll(None if timeout_s is None else timeout_s * 1000))


class Nursery:
    """The owner's side. Enter it before anything is opened and any thread begun: it forks then.

    Where threads run already, and when the first nursery has died, it is a fresh
    interpreter instead, which costs what importing costs.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: socket.socket | None = None
        self._process: BaseProcess | subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Nursery":
        if threading.active_count() == 1:
            self._fork()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        with self._lock:
            self._end()

    def begin(
        self,
        role: str,
        arguments: Sequence[str],
        *,
        control: int,
        environment: Mapping[str, str] | None = None,
    ) -> Child:
        """Begin a child that holds the descriptor ``control`` and sees ``environment`` beside ours.

        May be called from many threads. Raises ``ChildFailed``.
        """
        wanted = Wanted(role=role, arguments=[*arguments], environment={**(environment or {})})
        content = msgspec.json.encode(wanted)
        with self._lock:
            for last in (False, True):
                if self._asked is None:
                    self._launch()
                try:
                    return self._begun(content, control)
                except (BrokenPipeError, ConnectionResetError) as error:
                    self._end()
                    if last:
                        raise ChildFailed("the nursery ended") from error
        raise AssertionError  # the loop has returned or raised

    def _begun(self, content: bytes, control: int) -> Child:
        """Ask once. Raises ``BrokenPipeError`` where the nursery is no more."""
        assert self._asked is not None
        told, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                socket.send_fds(self._asked, [content], [control, theirs.fileno()])
            if not _readable(told, _BEGIN_TIMEOUT_S):
                raise BrokenPipeError("it does not answer")
            answer, descriptors = received(told, 64, 1)
            if not answer:
                raise BrokenPipeError("it has ended")
            if not descriptors:
                raise ChildFailed(int(answer), os.strerror(int(answer)))
            return Child(int(answer), descriptors[0], told)
        except BaseException:
            told.close()
            raise

    def _fork(self) -> None:
        self._asked, theirs = pair()
        with theirs:
            self._process = multiprocessing.get_context("fork").Process(
                target=cradle.tend_forked, args=(theirs, self._asked), name="pacs-nursery"
            )
            self._process.start()

    def _launch(self) -> None:
        """Begin a fresh interpreter with the places our modules come from."""
        path = os.pathsep.join(str(Path(one).absolute()) for one in sys.path)
        self._asked, theirs = pair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", cradle.__name__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": path},
                start_new_session=True,  # Ctrl-C in our terminal is for us to pass on
            )

    def _end(self) -> None:
        """Have it end; it does so by itself when nobody can ask any more, or else is killed."""
        if self._asked is not None:
            self._asked.close()
            self._asked = None
        if isinstance(self._process, subprocess.Popen):
            try:
                self._process.wait(_END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        elif self._process is not None:
            self._process.join(_END_TIMEOUT_S)
            self._process.kill()
            self._process.join()
        self._process = None
