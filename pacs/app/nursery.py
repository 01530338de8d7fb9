"""Where listeners and workers begin, as their owner sees it: asked for by name, watched, ended.

Owns how they begin and how their end is heard, and a new nursery where one has
died; knows nothing of what they do. ``pacs.app.cradle`` is the other side.
"""

import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import msgspec

from pacs.app import cradle
from pacs.app.cradle import Wanted, pair, received

_END_TIMEOUT_S = 10.0
_TELL_TIMEOUT_S = 1.0
"""Time from a child's end to the nursery's word of it."""
_BEGIN_TIMEOUT_S = 30.0
"""Time for a nursery to answer, which may be importing still."""


class ChildFailed(OSError):
    """A child could not be begun."""


class Child:
    """One listener or worker, to be watched and ended as with ``subprocess.Popen``.

    Its end is seen, and signals go, by its pidfd: they meet it or nobody. How it ended the
    nursery tells; where that has died or hangs, ``returncode`` is that of a kill.
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
            if not _readable(timeout, self._pidfd):
                raise subprocess.TimeoutExpired(f"pacs ({self.pid})", timeout or 0.0)
            # A nursery that is stopped or has died tells no more.
            told = _readable(_TELL_TIMEOUT_S, self._told)
            code = self._told.recv(64) if told else b""
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


class _Forked:
    """The nursery that was forked, as far as it is waited for and ended as with ``subprocess.Popen``."""

    def __init__(self, pid: int) -> None:
        self._pid, self._pidfd = pid, os.pidfd_open(pid)

    def wait(self, timeout: float | None = None) -> None:
        """Wait for its end. Raises ``subprocess.TimeoutExpired``. Once."""
        if not _readable(timeout, self._pidfd):
            raise subprocess.TimeoutExpired("pacs-nursery", timeout or 0.0)
        os.close(self._pidfd)
        os.waitpid(self._pid, 0)

    def kill(self) -> None:
        """SIGKILL."""
        signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)


def _readable(timeout_s: float | None, what: socket.socket | int) -> bool:
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
        self._process: _Forked | subprocess.Popen[bytes] | None = None

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
            try:
                with suppress(BrokenPipeError, ConnectionResetError):
                    if self._asked is not None:
                        return self._begun(content, control)
                self._end()  # it has died
                self._launch()
                return self._begun(content, control)
            except ChildFailed:
                raise
            except OSError as error:  # ours, of descriptors perhaps: those that live go on living
                raise ChildFailed(error.errno, f"no nursery: {error.strerror or error}") from error

    def _begun(self, content: bytes, control: int) -> Child:
        """Ask once. Raises ``BrokenPipeError`` where the nursery is no more."""
        assert self._asked is not None
        told, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                socket.send_fds(self._asked, [content], [control, theirs.fileno()])
            if not _readable(_BEGIN_TIMEOUT_S, told):
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
            pid = os.fork()
            if not pid:
                cradle.tend_forked(theirs)
            self._process = _Forked(pid)

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
        if self._process is not None:
            try:
                self._process.wait(_END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = None
