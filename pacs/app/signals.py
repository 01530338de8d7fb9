"""SIGTERM and SIGINT as an event that threads wait for.

A handler runs between any two steps of the main thread, even while that
thread holds the event's own lock: it may set no event, or it waits for itself.
"""

import os
import signal
import threading


def set_on_signals(stopping: threading.Event) -> None:
    """Have SIGTERM and SIGINT set ``stopping`` from now on. In the main thread only."""
    told, tell = os.pipe()
    os.set_blocking(tell, False)

    def handle(*_: object) -> None:
        try:
            os.write(tell, b"!")
        except BlockingIOError:
            return  # full of signals that are about to be heard

    def hear() -> None:
        os.read(told, 1)
        stopping.set()

    threading.Thread(target=hear, name="pacs-signals", daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)
