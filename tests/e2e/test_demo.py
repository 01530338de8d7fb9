"""The demonstration works: what was sent comes back, byte for byte."""

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def test_the_demonstration_gets_back_what_it_sent() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench.demo"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "36 of 36 Data Sets are equal" in done.stdout
    assert "Müller^Jörg" in done.stdout
