"""``pacs serve`` begins and ends in order: one at a time, on loopback, with settings it understands."""

import fcntl
import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from tests.crash import (
    Child,
    arriving,
    associated,
    configure,
    ct,
    find_instances,
    initialize,
    kept,
    pacs,
    serving,
    store,
)

FAILED, USAGE = 1, 2
PATIENCE_S = 60


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    initialize(path, association={"drain_timeout_s": PATIENCE_S})
    return path


def said(home: Path, *arguments: str) -> tuple[int, str]:
    """Run ``pacs`` to its end: the exit code and the one line it says."""
    done = pacs(home, *arguments)
    (line,) = done.stderr.splitlines()
    assert line.startswith("pacs: ")
    return done.returncode, line


class SlowStore(threading.Thread):
    """A C-STORE whose Data Set comes in two halves; the second one when it is told to."""

    def __init__(self, port: int) -> None:
        super().__init__(name="slow-store")
        self.one = ct(size_bytes=600_000)
        self.half_sent, self.go_on = threading.Event(), threading.Event()
        self.answer = Dataset()
        self._port = port

    def run(self) -> None:
        """Send, with a pause before the fourth PDU."""
        with associated(self._port) as association:
            send, sent = association.dul.socket.send, 0

            def pausing(data: bytes) -> None:
                nonlocal sent
                sent += 1
                if sent == 4:
                    self.half_sent.set()
                    self.go_on.wait(2 * PATIENCE_S)
                send(data)

            association.dul.socket.send = pausing
            self.answer = association.send_c_store(self.one)


def wait_until_arriving(home: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not arriving(home) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert arriving(home)


def test_a_second_serve_on_the_same_home_is_refused(home: Path) -> None:
    with serving(home) as child:
        code, line = said(home, "serve", "--port", "0")
        assert code == FAILED
        assert f"in use by process {child.pid}" in line
        assert store(child.port, ct()).Status == 0x0000
        assert child.terminate() == 0


def test_a_home_is_free_again_after_sigkill(home: Path) -> None:
    with serving(home) as child:
        child.process.kill()
        child.process.wait(PATIENCE_S)
    with serving(home) as child:
        assert store(child.port, ct()).Status == 0x0000
        assert child.terminate() == 0


def test_the_lock_is_the_system_s_and_not_the_file_s_existence(home: Path) -> None:
    """A lock file left behind, with any number in it, keeps nobody out."""
    (home / "serve.lock").write_text("1\n")
    with serving(home) as child:
        assert child.pid == child.process.pid
        with (home / "serve.lock").open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert child.terminate() == 0
    with (home / "serve.lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_success(number: signal.Signals, home: Path) -> None:
    with serving(home) as child:
        os.kill(child.pid, number)
        assert child.process.wait(PATIENCE_S) == 0


def test_a_running_store_finishes_before_the_end(home: Path) -> None:
    with serving(home) as child:
        slow = SlowStore(child.port)
        slow.start()
        assert slow.half_sent.wait(PATIENCE_S)
        wait_until_arriving(home)
        os.kill(child.pid, signal.SIGTERM)
        _wait_until_refusing(child.port)
        slow.go_on.set()
        assert child.process.wait(PATIENCE_S) == 0
        slow.join(PATIENCE_S)
    assert slow.answer.Status == 0x0000
    assert len(kept(home)) == 1 and arriving(home) == []
    with serving(home) as child:
        one = slow.one
        found = find_instances(child.port, one.StudyInstanceUID, [one.SeriesInstanceUID])
        assert found == {str(one.SOPInstanceUID)}


def test_a_store_that_never_goes_on_is_cut_off_and_leaves_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    initialize(home, association={"drain_timeout_s": 1})
    with serving(home) as child:
        slow = SlowStore(child.port)
        slow.start()
        assert slow.half_sent.wait(PATIENCE_S)
        wait_until_arriving(home)
        os.kill(child.pid, signal.SIGTERM)
        assert child.process.wait(PATIENCE_S) == 0
        slow.go_on.set()
        slow.join(PATIENCE_S)
    assert slow.answer.get("Status") is None
    assert kept(home) == [] and arriving(home) == []


def test_an_idle_association_does_not_hold_it_up(tmp_path: Path) -> None:
    """The drain is for those who are being served; who only sits there is told to go."""
    home = tmp_path / "home"
    initialize(home, association={"drain_timeout_s": 10 * PATIENCE_S})
    with serving(home) as child, associated(child.port) as association:
        assert association.send_c_store(ct()).Status == 0x0000
        os.kill(child.pid, signal.SIGTERM)
        assert child.process.wait(PATIENCE_S) == 0
        deadline = time.monotonic() + PATIENCE_S
        while not association.acse.is_aborted() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert association.acse.is_aborted()


def test_a_port_in_use_is_one_line(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, line = said(home, "serve", "--port", str(port))
    assert code == FAILED
    assert f"cannot listen on 127.0.0.1:{port}" in line


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_beyond_loopback_it_says_what_is_missing(host: str, home: Path) -> None:
    code, line = said(home, "serve", "--port", "0", "--host", host)
    assert code == USAGE
    assert host in line and "no contract that is active" in line


@pytest.mark.parametrize(
    ("table", "place"),
    [("dicom", "$.dicom.prot"), ("dicmo", "$.dicmo"), ("storage", "$.storage.prot")],
)
def test_an_unknown_setting_is_refused_with_its_place(table: str, place: str, home: Path) -> None:
    configure(home, **{table: {"prot": 104}})
    code, line = said(home, "serve")
    assert code == USAGE
    assert f"pacs.toml: {place}:" in line


def test_a_setting_out_of_its_bounds_is_refused_with_its_place(home: Path) -> None:
    configure(home, dicom={"port": 70_000})
    code, line = said(home, "serve")
    assert code == USAGE
    assert "pacs.toml: $.dicom.port:" in line


def test_serve_makes_the_home_it_needs(tmp_path: Path) -> None:
    """The first command ever typed may be ``pacs serve``."""
    home = tmp_path / "home"
    configure(home)
    with serving(home) as child:
        assert store(child.port, ct()).Status == 0x0000
        assert child.terminate() == 0
    assert pacs(home, "verify").returncode == 0


@pytest.fixture
def killed_while_receiving(home: Path) -> Path:
    """A home whose server was killed in the middle of a C-STORE."""
    with serving(home) as child:
        slow = SlowStore(child.port)
        slow.start()
        assert slow.half_sent.wait(PATIENCE_S)
        wait_until_arriving(home)
        child.kill()
        slow.go_on.set()
        slow.join(PATIENCE_S)
    return home


def test_start_tidies_up_what_was_being_received(killed_while_receiving: Path) -> None:
    home = killed_while_receiving
    assert arriving(home)
    with serving(home) as child:
        assert isinstance(child, Child)
        assert arriving(home) == [] and kept(home) == []
        assert child.terminate() == 0


def _wait_until_refusing(port: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            return
        time.sleep(0.02)
    raise AssertionError("still takes connections after SIGTERM")
