"""Names of workers that receive: the first free one, one each, given up with the process."""

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from storage.instances.receivers import receiver, unattended

_HOLD = (
    "import sys, time; from pathlib import Path; from storage.instances.receivers import receiver\n"
    "with receiver(Path(sys.argv[1])) as name:\n"
    "    print(name, flush=True)\n"
    "    time.sleep(600)\n"
)


def test_each_gets_the_first_name_that_is_free(tmp_path: Path) -> None:
    with ExitStack() as stack:
        first = ExitStack()
        assert first.enter_context(receiver(tmp_path)) == "worker-0"
        assert stack.enter_context(receiver(tmp_path)) == "worker-1"
        first.close()
        assert stack.enter_context(receiver(tmp_path)) == "worker-0"
        with unattended(tmp_path, "worker-1") as free:
            assert not free
        with unattended(tmp_path, "worker-2") as free, receiver(tmp_path) as other:
            assert free
            assert other == "worker-3"


def test_a_name_is_one_process_s_until_it_ends(tmp_path: Path) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "worker-0\n"
        with receiver(tmp_path) as ours:
            assert ours == "worker-1"
        with unattended(tmp_path, "worker-0") as free:
            assert not free
    finally:
        other.kill()
        other.communicate()
    with receiver(tmp_path) as ours:
        assert ours == "worker-0"
