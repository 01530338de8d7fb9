"""The nursery itself: a process that has imported what listeners and workers need, and forks them.

It has one thread and opens nothing, so nothing of it is in the way of what it
forks: each child attaches everything itself. It ends when its owner has, and
its children with it: listeners at once, workers when the job at hand is done
or given back. ``python -m pacs.app.cradle DESCRIPTOR`` is one in an interpreter
of its own.
"""

import ctypes
import gc
import importlib
import os
import resource
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

import msgspec
from msgspec import Struct

ROLES = {"listener": "pacs.app.listener", "worker": "pacs.app.worker"}
"""What a child may be, and the module whose ``main(arguments, control=, parent=)`` it runs."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LARGEST_BYTES = 1 << 16
_SENT_ALONG = 2
"""Descriptors of a request: the child's end of its control, and a socket for answers."""
_STREAMS = 3
_PR_SET_NAME = 15  # <linux/prctl.h>


class Wanted(Struct, frozen=True, kw_only=True):
    """What the owner asks for; the child's end of its control and a socket for answers come along."""

    role: str
    arguments: list[str]
    environment: dict[str, str]


def received(asked: socket.socket, most_bytes: int, most: int) -> tuple[bytes, list[int]]:
    """Take a message and its descriptors, which no program we run shall inherit."""
    content, descriptors, _, _ = socket.recv_fds(asked, most_bytes, most)
    for one in descriptors:
        os.set_inheritable(one, False)
    return content, descriptors


def pair() -> tuple[socket.socket, socket.socket]:
    """Make the owner's end and the nursery's, with room for a request."""
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for one in pair:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LARGEST_BYTES)
    return pair


@dataclass(frozen=True, slots=True, kw_only=True)
class _Begun:
    """A child that runs, and where its end is to be told."""

    pid: int
    pidfd: int
    told: socket.socket


class _Beds:
    """Forks for each request, until nobody can ask any more."""

    def __init__(self, asked: socket.socket) -> None:
        self._asked = asked
        # For each child there are four descriptors here; what it may have itself stays as it was.
        self._limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (self._limits[1], self._limits[1]))
        self._poller = select.poll()
        self._poller.register(asked, select.POLLIN)
        self._begun: dict[int, _Begun] = {}

    def tend(self) -> None:
        """Do so."""
        while True:
            for ready, _ in self._poller.poll():
                if ready in self._begun:
                    self._ended(ready)
                elif not self._heard():
                    return

    def _heard(self) -> bool:
        """Do what is asked; false where the owner has gone."""
        content, descriptors = received(self._asked, _LARGEST_BYTES, _SENT_ALONG)
        if not content:
            return False
        if len(descriptors) != _SENT_ALONG:  # no room for them: the owner will give up
            for each in descriptors:
                os.close(each)
            return True
        control, told = descriptors[0], socket.socket(fileno=descriptors[1])
        try:
            one = self._fork(content, control, told)
        except OSError as error:  # no memory, or too many processes
            with told, suppress(OSError):
                told.send(str(error.errno).encode())
        else:
            self._begun[one.pidfd] = one
            self._poller.register(one.pidfd, select.POLLIN)
            with suppress(OSError):  # the owner may have gone meanwhile: then we go as well
                socket.send_fds(told, [str(one.pid).encode()], [one.pidfd])
        finally:
            os.close(control)
        return True

    def _fork(self, content: bytes, control: int, told: socket.socket) -> _Begun:
        """Begin a child. Raises ``OSError``."""
        nursery = os.getpid()
        pid = os.fork()
        if not pid:
            _end_as(lambda: self._be(content, control, told, nursery))
        try:
            return _Begun(pid=pid, pidfd=os.pidfd_open(pid), told=told)
        except OSError:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise

    def _ended(self, pidfd: int) -> None:
        one = self._begun.pop(pidfd)
        _, status = os.waitpid(one.pid, 0)
        self._poller.unregister(pidfd)
        os.close(pidfd)
        with one.told, suppress(OSError):
            one.told.send(str(os.waitstatus_to_exitcode(status)).encode())

    def _be(self, content: bytes, control: int, told: socket.socket, nursery: int) -> int:
        """In the child: leave what is the nursery's, and be what was asked for; gives the exit code."""
        for one in (self._asked, told, *(other.told for other in self._begun.values())):
            one.close()  # or their ends would not be seen where the nursery ends
        for pidfd in self._begun:
            os.close(pidfd)
        os.setsid()
        resource.setrlimit(resource.RLIMIT_NOFILE, self._limits)
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        wanted = msgspec.json.decode(content, type=Wanted)
        _name(f"pacs-{wanted.role}")
        os.environ.update(wanted.environment)
        main = importlib.import_module(ROLES[wanted.role]).main
        return int(main(wanted.arguments, control=control, parent=nursery))


def _tend(asked: socket.socket) -> None:
    """Be the nursery. Signals are for the owner, who passes them on."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    _name("pacs-nursery")
    for one in ROLES.values():
        importlib.import_module(one)
    gc.collect()
    gc.freeze()  # pages with what was imported stay shared
    _Beds(asked).tend()


def tend_forked(asked: socket.socket) -> NoReturn:
    """Be the nursery where the owner has just forked it, with nothing open that was the owner's."""

    def alone() -> int:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        if nothing:  # 0 where the owner had none
            os.dup2(nothing, 0)
        os.closerange(_STREAMS, asked.fileno())
        os.closerange(asked.fileno() + 1, os.sysconf("SC_OPEN_MAX"))
        _tend(asked)
        return 0

    _end_as(alone)


def _end_as(main: Callable[[], int]) -> NoReturn:
    """End this process with what ``main`` gives; whoever forked it goes on elsewhere, nothing here does."""
    code = 1
    try:
        code = main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001 - nobody above may see it: they are another process's frames
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)


def _name(text: str) -> None:
    """Have ``ps -o comm`` and ``top`` show what this process is."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, text.encode(), 0, 0, 0)


def main() -> None:
    """Be a nursery in an interpreter of its own; the descriptor of its socket stands in argv."""
    _tend(socket.socket(fileno=int(sys.argv[1])))
    os._exit(0)  # children go on to their own end, and nobody here waits for them


if __name__ == "__main__":
    main()
