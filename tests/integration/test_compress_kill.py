"""SIGKILL of a compression at any moment: each time one good form is left, and the rows say which."""

import os
import random
import time
from pathlib import Path

from tests import forked
from tests.archive import environment
from tests.crash import REPOSITORY
from tests.forms import compress, files, fill, restored, tidy
from tests.integration.test_compress import indexed, started, verified
from tests.keeping import ADMIN

COUNT = 240
KILLS = 6


def killed(home: Path, url: str, after_s: float) -> bool:
    """Compress in a process of its own, and kill it; tell whether it was in the middle."""
    with Path(os.devnull).open("wb") as nowhere:
        child = forked.Forked(
            ["compress", "--all", "--to", "jpeg-ls"],
            environment(home, {"storage.keep_original_s": "0"}, url),
            REPOSITORY,
            stdout=nowhere.fileno(),
            stderr=nowhere.fileno(),
        )
    # The first claim tells that it is at work, however slow the machine is.
    unfinished = home / "store" / "reencoding"
    while child.poll() is None and not any(unfinished.glob("*.part")):
        time.sleep(0.01)
    time.sleep(after_s)
    in_the_middle = child.poll() is None
    child.kill()
    child.wait()
    for left in unfinished.glob("*.part"):  # the next round waits for one of its own
        left.unlink()
    return in_the_middle


def test_killed_at_any_moment_and_nothing_is_lost(url: str, tmp_path: Path) -> None:
    chance = random.Random(20260101)
    with started(tmp_path, url) as archive:
        kept = fill(archive, COUNT)
    rounds = [killed(tmp_path, url, chance.uniform(0.0, 0.8)) for _ in range(KILLS)]
    assert sum(rounds) >= KILLS // 2
    with started(tmp_path, url) as archive:
        assert 0 < archive.statistics.read(ADMIN)["compressed_instances"] < COUNT
        assert verified(archive) == []
        indexed(archive)
        assert restored(archive) == kept
        tidy(archive)
        assert len(files(tmp_path)) == COUNT
        compress(archive)
        assert archive.statistics.read(ADMIN)["compressed_instances"] == COUNT
        tidy(archive)
        assert len(files(tmp_path)) == COUNT
        assert verified(archive) == []
        indexed(archive)
