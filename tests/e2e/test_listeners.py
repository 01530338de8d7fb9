"""Several listeners on one port: shared fairly, limited together, replaced alone, ended together."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE

from tests import processes
from tests.association_fakes import associate_rq, command, p_data, read_pdu
from tests.association_fakes import until as until_within
from tests.crash import (
    Child,
    DcmtkSender,
    PynetdicomSender,
    arriving,
    associated,
    ct,
    find_instances,
    initialize,
    kept,
    pacs,
    serving,
    store,
    write,
)

LIMIT_EXCEEDED = b"\x00\x02\x03\x02"
STUDY_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
MOVE_DESTINATION_UNKNOWN = 0xA801
FILES_OF_A_SENDER = 250
FAILED, DONE = 1, 0
TWO = ("--listeners", "2")
until = partial(until_within, timeout_s=60)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    initialize(path, association={"drain_timeout_s": 5})
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def home_on_either(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    url = "" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    path = tmp_path / "home"
    initialize(path, database={"url": url}, association={"max_associations": 4})
    return path


def listeners(child: Child) -> list[int]:
    """Processes that hold associations."""
    return processes.listeners(child.pid)


def connections(pid: int, port: int) -> int:
    """Established connections on a port that a process holds, by the system's own tables."""
    established = "01"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inodes = {row[9] for row in rows if int(row[1][-4:], 16) == port and row[3] == established}
    held = 0
    for one in Path(f"/proc/{pid}/fd").iterdir():
        try:
            held += str(one.readlink()).removeprefix("socket:[").removesuffix("]") in inodes
        except OSError:
            continue
    return held


def spread(child: Child) -> list[int]:
    return sorted(connections(pid, child.port) for pid in listeners(child))


def ask(port: int, source: str = "127.0.0.1") -> tuple[socket.socket, bytes]:
    """Ask for an association; gives the connection and the answer, empty when there is none."""
    connection = socket.create_connection(
        ("127.0.0.1", port), timeout=20, source_address=(source, 0)
    )
    try:
        connection.sendall(associate_rq())
    except (BrokenPipeError, ConnectionResetError):
        return connection, b""
    return connection, read_pdu(connection)


@contextmanager
def asked(port: int, count: int) -> Iterator[list[bytes]]:
    with ExitStack() as stack:
        answers = []
        for _ in range(count):
            connection, answer = ask(port)
            stack.enter_context(connection)
            answers.append(answer)
        yield answers


# --- one port ---------------------------------------------------------------------------


def fairly_spread(child: Child) -> bool:
    """Tell whether each of six associations is taken by who has fewest."""
    assert until(lambda: spread(child) == [0, 0])
    with ExitStack() as stack:
        for held in ([0, 1], [1, 1], [1, 2], [2, 2], [2, 3], [3, 3]):
            stack.enter_context(associated(child.port))
            assert until(lambda held=held: sum(spread(child)) == sum(held)), spread(child)
            if spread(child) != held:
                return False
    return True


def test_associations_are_spread_over_the_listeners(home: Path) -> None:
    """Another may take one where who has fewest does not run for 50 ms: not three times in a row."""
    with serving(home, *TWO) as child:
        assert len(listeners(child)) == 2
        assert any(fairly_spread(child) for _ in range(3))


def test_connections_that_come_at_once_are_spread_too(home: Path) -> None:
    with serving(home, *TWO) as child, ExitStack() as stack:
        for _ in range(20):
            connection = socket.create_connection(("127.0.0.1", child.port))
            stack.enter_context(connection)
        assert until(lambda: sum(spread(child)) == 20)
        assert min(spread(child)) >= 5


def test_a_stopped_listener_keeps_nobody_waiting(home: Path) -> None:
    """The least busy one may be stuck: after a moment another takes the connection."""
    with serving(home, *TWO) as child, ExitStack() as stack:
        stuck = listeners(child)[0]
        os.kill(stuck, signal.SIGSTOP)
        stack.callback(os.kill, stuck, signal.SIGCONT)
        for _ in range(3):
            assert stack.enter_context(associated(child.port)).send_c_store(ct()).Status == 0


def test_options_and_environment_reach_every_listener(
    home: Path, monkeypatch: pytest.MonkeyPatch, peer_tool: Callable[[str], str]
) -> None:
    monkeypatch.setenv("PACS_DICOM__ANY_CALLED_AE_TITLE", "false")
    with serving(home, *TWO, "--ae-title", "OTHER") as child:
        for _ in range(3):
            echo = [peer_tool("echoscu"), "127.0.0.1", str(child.port), "-aec", "PACS"]
            refused = subprocess.run(echo, capture_output=True, text=True, check=False, timeout=60)
            assert "Called AE Title Not Recognized" in refused.stderr + refused.stdout
            with associated(child.port, ae_title="OTHER"):
                continue


def test_one_listener_is_a_process_too(home: Path) -> None:
    with serving(home, "--listeners", "1") as child:
        assert len(listeners(child)) == 1
        assert store(child.port, ct()).Status == 0x0000
        assert child.terminate() == DONE


# --- one server's limits ------------------------------------------------------------------


@pytest.mark.parametrize("limit", ["max_associations", "max_associations_per_host"])
def test_limits_hold_for_all_listeners_together(limit: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    initialize(home, association={limit: 3})
    with serving(home, *TWO) as child:
        with asked(child.port, 40) as answers:
            assert [one[0] for one in answers[:3]] == [2, 2, 2]
            assert {one[6:] for one in answers[3:]} == {LIMIT_EXCEEDED}
        assert until(partial(_three_of_five, child))


def _three_of_five(child: Child) -> bool:
    """Ask anew: what was held is given back a moment after its connections are gone."""
    until(lambda: spread(child) == [0, 0])
    time.sleep(0.2)
    with asked(child.port, 5) as answers:
        return [one[0] for one in answers] == [2, 2, 2, 3, 3]


def test_silent_connections_of_one_host_keep_no_other_host_out(tmp_path: Path) -> None:
    home = tmp_path / "home"
    initialize(home, association={"max_connections": 10, "max_unassociated_per_host": 4})
    with serving(home, *TWO) as child, ExitStack() as stack:
        for _ in range(12):
            silent = socket.create_connection(("127.0.0.1", child.port))
            stack.enter_context(silent)
        assert until(lambda: sum(spread(child)) == 4)
        other, answer = ask(child.port, source="127.0.0.2")
        stack.enter_context(other)
        assert answer[0] == 2
        refused, answer = ask(child.port)
        stack.enter_context(refused)
        assert answer == b""


# --- one crash ------------------------------------------------------------------------------


def test_a_killed_listener_costs_its_own_associations_only(
    home_on_either: Path, tmp_path: Path, peer_tool: Callable[[str], str]
) -> None:
    home, study = home_on_either, generate_uid()
    with serving(home, *TWO) as child:
        before = listeners(child)
        folders = [tmp_path / generate_uid() for _ in range(2)]
        for folder in folders:
            folder.mkdir()
            for _ in range(FILES_OF_A_SENDER):
                write(ct(study=study, series=folder.name, size_bytes=200_000), folder)
        ours = [PynetdicomSender(child.port, study, FILES_OF_A_SENDER, 20) for _ in range(2)]
        theirs = [DcmtkSender(peer_tool("storescu"), child.port, folder) for folder in folders]
        for one in ours:
            one.start()
        assert until(lambda: spread(child) == [2, 2])
        os.kill(before[0], signal.SIGKILL)
        for one in ours:
            one.join(60)
        answered = [[path.stem for path in one.acknowledged()] for one in theirs]
        counts = [len(one.answered) for one in ours] + [len(one) for one in answered]
        assert sorted(count == FILES_OF_A_SENDER for count in counts) == [False, False, True, True]
        known = {uid for one in answered for uid in one}
        known |= {str(each.SOPInstanceUID) for one in ours for each in one.answered}
        assert until(lambda: len(listeners(child)) == 2 and "listener-ended" in child.log)
        assert until(lambda: arriving(home) == [])
        with asked(child.port, 5) as answers:  # nothing of the dead one's is counted any more
            assert [one[0] for one in answers] == [2, 2, 2, 2, 3]
            # The rejected one may still be there, until it closes.
            assert until(lambda: min(spread(child)) == 2)
        assert until(lambda: spread(child) == [0, 0])
        series = [*(one.name for one in folders), *(one.series for one in ours)]
        assert known <= find_instances(child.port, study, series)
        assert before[1] in listeners(child) and before[0] not in listeners(child)
        lines = [one for one in child.log.splitlines() if " listens on " not in one]
        assert [one for one in lines if not one.startswith("timestamp=")] == []
        assert child.terminate() == DONE
    done = pacs(home, "verify")
    assert done.returncode == DONE, done.stdout


def test_what_a_killed_listener_was_receiving_is_gone_before_it_is_replaced(home: Path) -> None:
    with serving(home, *TWO) as child, ExitStack() as stack:
        half = [_half_a_store(child.port) for _ in range(2)]
        for one in half:
            stack.enter_context(one)
        assert until(lambda: len(arriving(home)) == 2)
        os.kill(listeners(child)[0], signal.SIGKILL)
        assert until(lambda: child.log.count("listener-started") == 3)
        assert len(arriving(home)) == 1, "the other listener's file stays"
        assert kept(home) == []
        half[0].close()
        half[1].close()
        assert until(lambda: arriving(home) == [])


def test_a_listener_that_dies_at_each_start_is_tried_again_with_pauses(home: Path) -> None:
    with serving(home, *TWO) as child:
        place = home / "store" / "incoming" / "listener-1"
        place.rename(place.with_name("aside"))
        place.write_text("no folder")
        os.kill(_listener(child, 1), signal.SIGKILL)
        assert until(lambda: child.log.count("listener-failed") >= 2)
        since_s, failures = time.monotonic(), child.log.count("listener-failed")
        for _ in range(5):
            assert store(child.port, ct()).Status == 0x0000
        while time.monotonic() - since_s < 3:
            time.sleep(0.1)
        count, took_s = child.log.count("listener-failed") - failures, time.monotonic() - since_s
        assert count <= 3 + took_s / 4, "pauses of half a second, one, two, four"
        place.unlink()
        assert until(lambda: child.log.count("listener-started") == 3)
        assert child.terminate() == DONE


def test_a_server_whose_listeners_cannot_start_says_so_and_ends(home: Path) -> None:
    (home / "store" / "incoming" / "listener-1").write_text("no folder")
    done = pacs(home, "serve", "--port", "0", *TWO)
    assert done.returncode == FAILED
    last = done.stderr.splitlines()[-1]
    assert last == "pacs: a listener could not start: FileExistsError"


# --- one end --------------------------------------------------------------------------------


def test_listeners_end_with_a_killed_server(home: Path) -> None:
    with serving(home, *TWO) as child, associated(child.port):
        held = listeners(child)
        child.kill()
        with serving(home, *TWO) as second:
            assert not any(processes.runs(one) for one in held), (
                "the lock waits for the last of them"
            )
            assert store(second.port, ct()).Status == 0x0000
            assert second.terminate() == DONE


def test_ctrl_c_in_a_terminal_lets_a_store_finish(home: Path) -> None:
    """The terminal's SIGINT goes to the whole process group."""
    with serving(home, *TWO, process_group=0) as child:
        connection = _half_a_store(child.port)
        with connection:
            assert until(lambda: len(arriving(home)) == 1)
            os.killpg(child.pid, signal.SIGINT)
            assert until(lambda: _refuses(child.port))
            connection.sendall(_rest_of_a_store())
            response = read_pdu(connection)
            assert response[0] == 4
        assert child.process.wait(30) == DONE
    assert arriving(home) == []


# --- one archive ------------------------------------------------------------------------------


def test_a_change_holds_on_every_listener(home: Path) -> None:
    one = ct()
    with serving(home, *TWO) as child, ExitStack() as stack:
        assert store(child.port, one).Status == 0x0000
        assert until(lambda: spread(child) == [0, 0])
        mover = AE(ae_title="MOVER")
        mover.add_requested_context(STUDY_ROOT_MOVE)
        both: list[Any] = [mover.associate("127.0.0.1", child.port) for _ in range(2)]
        for association in both:
            stack.callback(association.release)
        assert until(lambda: spread(child) == [1, 1])

        def unknown() -> list[bool]:
            return [_moved(each, one) == MOVE_DESTINATION_UNKNOWN for each in both]

        assert unknown() == [True, True]
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]
        assert pacs(home, "peer", "add", "NEW", "127.0.0.1", str(port)).returncode == DONE
        assert until(lambda: unknown() == [False, False])
        assert pacs(home, "peer", "remove", "NEW").returncode == DONE
        assert until(lambda: unknown() == [True, True])


def test_the_database_is_shared_fairly(
    home_on_either: Path, tmp_path: Path, peer_tool: Callable[[str], str]
) -> None:
    home, count = home_on_either, 60
    with serving(home, *TWO) as child:
        folders = [tmp_path / name for name in "abcd"]
        for folder in folders:
            folder.mkdir()
            for _ in range(count):
                write(ct(study=f"1.2.{ord(folder.name)}", size_bytes=50_000), folder)
        senders = [DcmtkSender(peer_tool("storescu"), child.port, folder) for folder in folders]

        def done() -> list[int]:
            logs = [folder / "storescu.log" for folder in folders]
            return [one.read_text(errors="replace").count("(Success)") for one in logs]

        assert until(lambda: sum(done()) >= 2 * count)
        at_half_time = done()
        assert [len(one.acknowledged()) for one in senders] == [count] * 4
        assert min(at_half_time) > count / 10, at_half_time
        assert len(kept(home)) == 4 * count
        assert child.terminate() == DONE
    assert pacs(home, "verify").returncode == DONE


def test_the_audit_trail_says_once_that_the_server_started_and_stopped(home: Path) -> None:
    with serving(home, *TWO) as child:
        assert store(child.port, ct()).Status == 0x0000
        assert child.terminate() == DONE
    trail = "".join(one.read_text() for one in sorted((home / "audit").iterdir()))
    assert (trail.count('"started"'), trail.count('"stopped"')) == (1, 1)
    assert trail.count('"C-STORE"') == 1


# --- helpers ------------------------------------------------------------------------------------


def _listener(child: Child, number: int) -> int:
    """Process of a listener by its number, as the log tells."""
    lines = [
        line for line in child.log.splitlines() if f"listener-started listener={number} " in line
    ]
    return int(lines[-1].partition("pid=")[2].split("'")[0])


def _moved(association: Any, one: Dataset) -> int:
    query = Dataset()
    query.QueryRetrieveLevel, query.StudyInstanceUID = "STUDY", one.StudyInstanceUID
    answers = list(association.send_c_move(query, "NEW", STUDY_ROOT_MOVE))
    return int(answers[-1][0].Status)


def _half_a_store(port: int) -> socket.socket:
    """A C-STORE whose Data Set has begun, and no more."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    connection.sendall(associate_rq((CTImageStorage, [ExplicitVRLittleEndian])))
    assert read_pdu(connection)[0] == 2
    asked_for = command(
        1, data=True, AffectedSOPClassUID=CTImageStorage, AffectedSOPInstanceUID="1.2.3"
    )
    connection.sendall(p_data((1, 3, asked_for)) + p_data((1, 0, bytes(8_000))))
    return connection


def _rest_of_a_store() -> bytes:
    return p_data((1, 2, bytes(8)))


def _refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return True
    return False
