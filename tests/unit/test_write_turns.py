"""Writers of one home take turns: threads and processes, in line, and the dead do not count."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from config.settings import Database as DatabaseSettings
from pacs.core.errors import RecordsFailed
from storage.database.connection import Database
from storage.database.turns import TurnNeverCame, WriteTurns

PATIENT_S, QUICK_S = 30.0, 0.2
HOLDS = """
import sys, time
from pathlib import Path
from storage.database.turns import WriteTurns
turns = WriteTurns(Path(sys.argv[1]), 30.0)
while True:
    with turns.turn():
        print("mine", flush=True)
        time.sleep(float(sys.argv[2]))
"""


@contextmanager
def another_process(path: Path, holds_s: float) -> Iterator[subprocess.Popen[bytes]]:
    """Run one that takes turn after turn; it has its first when this yields."""
    command = [sys.executable, "-c", HOLDS, str(path), str(holds_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"mine\n"
            yield process
        finally:
            process.kill()


def test_one_process_at_a_time_until_it_dies(tmp_path: Path) -> None:
    path = tmp_path / "write.lock"
    quick = WriteTurns(path, QUICK_S)
    with another_process(path, 3_600) as holder:
        with pytest.raises(TurnNeverCame), quick.turn():
            pass
        holder.kill()
        holder.wait()
        with quick.turn():
            pass
    quick.close()


def test_whoever_waits_comes_before_whoever_asks_again(tmp_path: Path) -> None:
    """The other asks again the moment it has ended: without a line it would be first for ever."""
    path = tmp_path / "write.lock"
    turns = WriteTurns(path, PATIENT_S)
    with another_process(path, 0.001):
        for _ in range(20):
            with turns.turn():
                pass
    turns.close()


def test_one_thread_at_a_time(tmp_path: Path) -> None:
    turns = WriteTurns(tmp_path / "write.lock", PATIENT_S)
    inside, most = 0, 0

    def write() -> None:
        nonlocal inside, most
        for _ in range(50):
            with turns.turn():
                inside += 1
                most = max(most, inside)
                inside -= 1

    threads = [threading.Thread(target=write) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(PATIENT_S)
    assert (inside, most) == (0, 1)
    turns.close()


def test_a_turn_ends_with_what_fails_in_it(tmp_path: Path) -> None:
    turns = WriteTurns(tmp_path / "write.lock", QUICK_S)
    with pytest.raises(ZeroDivisionError), turns.turn():
        raise ZeroDivisionError
    with turns.turn():
        pass
    turns.close()


def test_who_waited_in_vain_is_told_so_and_reads_meanwhile(tmp_path: Path) -> None:
    database = Database(DatabaseSettings(timeout_s=QUICK_S), tmp_path)
    database.migrate()
    with another_process(tmp_path / "write.lock", 3_600):
        with pytest.raises(RecordsFailed, match="TurnNeverCame"), database.transaction():
            pass
        assert next(database.execute("SELECT number FROM revision"))[0] == 1
    with database.transaction(), database.transaction():  # the inner one has its turn already
        database.write("UPDATE revision SET number = number + 1")
    assert next(database.execute("SELECT number FROM revision"))[0] == 2
    database.close()
