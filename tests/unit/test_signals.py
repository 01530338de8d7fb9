"""Signals that come while the event they set is being waited for."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

WAITER = """
import sys, threading
from pacs.app.signals import set_on_signals
for _ in range(20):
    stopping = threading.Event()
    set_on_signals(stopping)
    print("waiting", flush=True)
    while not stopping.wait(0.0005):
        pass
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_storm_of_signals_ends_the_wait_and_blocks_nobody(number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WAITER], stdout=subprocess.PIPE, cwd=Path.cwd()
    ) as process:
        assert process.stdout is not None
        try:
            for _ in range(20):
                assert process.stdout.readline() == b"waiting\n"
                for _ in range(50):
                    process.send_signal(number)
            assert process.wait(30) == 0
        finally:
            process.kill()
