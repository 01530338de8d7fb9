"""A listener: one process that holds associations, started and ended by ``pacs.app.supervisor``.

``python -m pacs.app.listener PARENT CONTROL``. Owns its life: bound to its
parent's, deaf to the terminal, first tidying up after the one whose place it
takes. Imports what serves only after that.
"""

import ctypes
import os
import signal
import socket
import sys
import threading
from contextlib import closing
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pacs.app.listening import Told

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve until told to drain. The process id of the parent and the control socket stand in argv."""
    parent, descriptor = map(int, sys.argv[1:3])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the parent hears them, and tells us
    _die_with(parent)
    os.set_inheritable(descriptor, False)
    with closing(socket.socket(fileno=descriptor)) as control:
        sys.exit(_serve(control))


def _die_with(parent: int) -> None:
    """Have the kernel end this process when its parent ends, by whatever signal."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent:  # it ended before the kernel was asked
        sys.exit(1)


def _serve(control: socket.socket) -> int:
    """Serve as ordered; say why where that cannot be. Gives the exit code."""
    from pacs.app.control import Report, receive_orders, send
    from pacs.app.listening import Told, hold_associations
    from pacs.core.errors import PacsError

    orders = receive_orders(control)
    for one in orders.descriptors:
        os.set_inheritable(one, False)
    told = Told()
    threading.Thread(target=_obey, args=(control, told), name="pacs-control", daemon=True).start()
    try:
        hold_associations(orders, serving=lambda: send(control, Report()), told=told)
    except PacsError as error:
        failure = Report(error=type(error).__name__, message=str(error))
    except Exception as error:  # noqa: BLE001 - its text may quote data: the parent is told the kind
        failure = Report(error=type(error).__name__)
    else:
        return 0
    send(control, failure)
    return 1


def _obey(control: socket.socket, told: "Told") -> None:
    """Pass on what a listener is told; without a parent there is nothing to finish."""
    from pacs.app.control import RELOAD

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


if __name__ == "__main__":
    main()
