"""The child's side of the sandbox: takes tasks from a pipe until it closes.

Owns the bounds that the kernel enforces on this process and the protocol's
other end. Knows no task: it imports "module:function" by name. Uses nothing but
the standard library, so that it starts fast and a broken codec cannot keep it
from starting.
"""

import ctypes
import importlib
import json
import os
import resource
import signal
import struct
import sys
from collections.abc import Callable
from typing import BinaryIO

HEADER = struct.Struct("<I")
"""Every message is JSON after its length."""

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve the process that started this one: parent's id, memory and file bounds in argv."""
    parent, memory_bytes, file_bytes = map(int, sys.argv[1:4])
    _die_with(parent)
    requests, answers = _own_pipes()
    _bound(resource.RLIMIT_CORE, 0)
    _bound(resource.RLIMIT_AS, memory_bytes)
    _bound(resource.RLIMIT_FSIZE, file_bytes)
    while (header := requests.read(HEADER.size)) and len(header) == HEADER.size:
        name, arguments, cpu_s = json.loads(requests.read(HEADER.unpack(header)[0]))
        _allow_cpu(cpu_s)
        answer = json.dumps(_answer(name, arguments)).encode()
        answers.write(HEADER.pack(len(answer)) + answer)
        answers.flush()


def _answer(name: str, arguments: list[object]) -> dict[str, object]:
    """Run one task. Its error's kind is told, not its text, which may hold patient data."""
    try:
        return {"result": _function(name)(*arguments)}
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent is told its kind
        return {"error": type(error).__name__}


def _function(name: str) -> Callable[..., object]:
    module, _, function = name.partition(":")
    found: Callable[..., object] = getattr(importlib.import_module(module), function)
    return found


def _die_with(parent: int) -> None:
    """Have the kernel end this process when the thread that started it ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent:  # it ended before the kernel was asked
        sys.exit(1)


def _own_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Move the protocol away from standard input and output, which codecs may write to."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    return requests, answers


def _bound(what: int, limit: int) -> None:
    _, hard = resource.getrlimit(what)
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(what, (limit, limit))


def _allow_cpu(seconds: float) -> None:
    """Let this process use so much more processor time; then SIGXCPU ends it."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = int(used.ru_utime + used.ru_stime + seconds) + 1
    soft = soft if hard == resource.RLIM_INFINITY else min(soft, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


if __name__ == "__main__":
    main()
