"""A listener: one process that holds associations, started and ended by ``pacs.app.supervisor``.

The nursery forks it. Owns its life: bound to the nursery's and to its server's,
deaf to the terminal, first tidying up after the one whose place it takes.
"""

import ctypes
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from contextlib import closing

from pacs.app.control import RELOAD, Report, receive_orders, report
from pacs.app.listening import Told, hold_associations
from pacs.core.errors import PacsError

_PR_SET_PDEATHSIG = 1


def main(arguments: Sequence[str], *, control: int, parent: int) -> int:
    """Serve until told to drain by the control socket; gives the exit code."""
    assert not arguments  # orders tell all
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the parent hears them, and tells us
    _die_with(parent)
    with closing(socket.socket(fileno=control)) as told:
        return _serve(told)


def _die_with(parent: int) -> None:
    """Have the kernel end this process when its parent ends, by whatever signal."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent:  # it ended before the kernel was asked
        sys.exit(1)


def _serve(control: socket.socket) -> int:
    """Serve as ordered; say why where that cannot be. Gives the exit code."""
    try:
        orders = receive_orders(control)
    except EOFError:
        return 1
    told = Told()
    threading.Thread(target=_obey, args=(control, told), name="pacs-control", daemon=True).start()
    try:
        hold_associations(orders, serving=lambda: report(control, Report()), told=told)
    except PacsError as error:
        failure = Report(error=type(error).__name__, message=str(error))
    except Exception as error:  # noqa: BLE001 - its text may quote data: the parent is told the kind
        failure = Report(error=type(error).__name__)
    else:
        return 0
    report(control, failure)
    return 1


def _obey(control: socket.socket, told: Told) -> None:
    """Pass on what a listener is told; without a parent there is nothing to finish."""
    while True:
        try:
            word = control.recv(64)
        except OSError:
            word = b""
        if not word:
            os.kill(os.getpid(), signal.SIGKILL)
        if word != RELOAD:
            break
        told.reload()
    told.draining.set()
