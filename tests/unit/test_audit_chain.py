"""The chain of the audit trail: whatever is done to its files is found; whatever a crash leaves is mended."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.settings import Audit
from pacs.observe.audit import FileAuditTrail
from pacs.observe.audit import trail as trail_module
from pacs.observe.audit.keep import file_of
from pacs.observe.audit.records import records
from pacs.observe.audit.retention import prune
from pacs.observe.audit.verify import verify
from tests.auditing import MODALITY, damages, findings, stored, trail

RECORDS = 12


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> FileAuditTrail:
    """A trail of some records that tests change and put back."""
    found = FileAuditTrail(tmp_path_factory.mktemp("home"), Audit())
    for number in range(RECORDS):
        found.record("C-STORE", MODALITY, status="0000", number=number)
    found.close()
    return found


def file(of: FileAuditTrail) -> Path:
    (found,) = of.folder.glob("*.jsonl")
    return found


def changed(of: FileAuditTrail, content: bytes) -> bool:
    """Tell whether it is found that the file holds this instead."""
    path = file(of)
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        return damages(of) != []
    finally:
        path.write_bytes(before)


def test_what_was_written_is_whole_and_reads_back(one: FileAuditTrail) -> None:
    total, found = verify(one.folder, one.keep)
    assert (total, list(found)) == (RECORDS, [])
    read = [record for record, _ in records(one.folder)]
    assert [record["number"] for record in read] == list(range(RECORDS))
    assert read[0]["subscriber"] == "radiology"


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_any_changed_byte_is_found(one: FileAuditTrail, place: float, flip: int) -> None:
    content = bytearray(file(one).read_bytes())
    content[int(place * len(content))] ^= flip
    assert changed(one, bytes(content))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_any_removed_doubled_or_moved_line_is_found(
    one: FileAuditTrail, data: st.DataObject
) -> None:
    lines = file(one).read_bytes().splitlines(keepends=True)
    order = data.draw(
        st.lists(st.integers(0, RECORDS - 1), max_size=RECORDS + 2).filter(
            lambda drawn: drawn != list(range(RECORDS))
        )
    )
    assert changed(one, b"".join(lines[index] for index in order))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.floats(0, 1, exclude_max=True))
def test_any_truncation_is_found(one: FileAuditTrail, place: float) -> None:
    content = file(one).read_bytes()
    assert changed(one, content[: int(place * len(content))])


def test_an_added_line_is_found_wherever_it_is(one: FileAuditTrail) -> None:
    lines = file(one).read_bytes().splitlines(keepends=True)
    forged = lines[4].replace(b'"n":5', b'"n":6')
    for index in range(RECORDS + 1):
        assert changed(one, b"".join([*lines[:index], forged, *lines[index:]]))


def test_the_place_is_named(one: FileAuditTrail) -> None:
    path = file(one)
    before = path.read_bytes()
    path.write_bytes(before.replace(b'"number":6', b'"number":7'))
    found = damages(one)
    path.write_bytes(before)
    assert [(each.file, each.line) for each in found] == [(path.name, 7)]


def test_a_removed_file_and_a_foreign_one_are_found(tmp_path: Path) -> None:
    with trail(tmp_path) as one:
        stored(one, 3)
        (one.folder / "2020-13-01.jsonl").write_text("{}\n")
        assert [each.kind for each in damages(one)] == ["added"]
        (one.folder / "2020-13-01.jsonl").unlink()
        path = file(one)
        content = path.read_bytes()
        path.unlink()
        assert [each.kind for each in damages(one)] == ["cut"]
        stored(one, 1)  # the chain goes on, and says what is gone
        assert [each.kind for each in damages(one)] == ["audit-broken"]
        path.write_bytes(content)
        assert damages(one) != []


def test_who_lost_the_head_or_the_key_is_told(tmp_path: Path) -> None:
    with trail(tmp_path) as one:
        stored(one, 3)
        (tmp_path / "audit-chain" / "key").unlink()
        assert [each.kind for each in damages(one)] == ["unknown"]
    with trail(tmp_path) as one:  # what cannot be believed any more stays beside a new chain
        stored(one, 1)
        assert verify(one.folder, one.keep)[0] == 2
        assert [each.kind for each in damages(one)] == ["unchained", "audit-broken"]
        assert len(list(one.folder.glob("*.unchained"))) == 1


def test_the_key_is_for_its_owner_only(one: FileAuditTrail) -> None:
    chain = one.folder.parent / "audit-chain"
    assert chain.stat().st_mode & 0o077 == 0
    assert (chain / "key").stat().st_mode & 0o077 == 0


# --- crashes --------------------------------------------------------------------------------


def test_a_torn_line_is_kept_named_and_no_damage(tmp_path: Path) -> None:
    with trail(tmp_path) as one:
        stored(one, 2)
        torn = b'{"n":3,"time":"2026-'
        with file(one).open("ab") as out:
            out.write(torn)
        assert [(each.kind, each.damage) for each in findings(one)] == [("audit-torn", False)]
        stored(one, 2)
        assert torn in file(one).read_bytes()
        assert [(each.kind, each.damage) for each in findings(one)] == [("audit-torn", False)]
        content = file(one).read_bytes().replace(torn, torn.replace(b"2026", b"2025"))
        assert changed(one, content), "a torn line that was changed later is damage"


def test_a_line_that_was_written_but_not_noted_is_taken_over(tmp_path: Path) -> None:
    with trail(tmp_path) as one:
        stored(one, 2)
        head = one.keep.head()
        assert head is not None
        stored(one, 1)
        one.keep.put_head(head)  # as if it had been killed between the two
        stored(one, 1)
        total, found = verify(one.folder, one.keep)
        assert (total, list(found)) == (4, [])


def test_a_whole_line_of_a_stranger_is_damage(tmp_path: Path) -> None:
    with trail(tmp_path) as one:
        stored(one, 2)
        with file(one).open("ab") as out:
            out.write(b'{"event":"started"}\n')
        assert [each.kind for each in damages(one)] == ["added"]
        stored(one, 1)
        assert [each.kind for each in damages(one)] == ["audit-foreign"]


def test_what_was_lost_with_power_is_named_and_no_damage(tmp_path: Path) -> None:
    with trail(tmp_path) as one:
        stored(one, 3)
        one.sync()
        end = file(one).stat().st_size
        stored(one, 4)
        head = one.keep.head()
        assert head is not None and head.synced == 3
        os.truncate(file(one), end)
        one.keep.put_head(head._replace(boot=b"another run 0000"))
        stored(one, 1)
        found = findings(one)
        assert [(each.kind, each.detail, each.damage) for each in found] == [
            ("audit-lost", "records 4 to 7", False)
        ]


def test_records_taken_from_before_a_loss_are_not_lost_with_it(tmp_path: Path) -> None:
    with trail(tmp_path) as one:
        stored(one, 3)
        one.sync()
        end = file(one).stat().st_size
        stored(one, 4)
        head = one.keep.head()
        assert head is not None
        os.truncate(file(one), end)
        one.keep.put_head(head._replace(boot=b"another run 0000"))
        stored(one, 1)
        lines = file(one).read_bytes().splitlines(keepends=True)
        file(one).write_bytes(b"".join((*lines[:2], *lines[3:])))
        assert [each.kind for each in damages(one)] == ["changed"]


def test_what_was_on_disk_before_power_went_must_be_there(tmp_path: Path) -> None:
    with trail(tmp_path) as one:
        stored(one, 3)
        one.sync()
        head = one.keep.head()
        assert head is not None
        os.truncate(file(one), file(one).stat().st_size // 3 + 5)
        one.keep.put_head(head._replace(boot=b"another run 0000"))
        stored(one, 1)
        assert [each.kind for each in damages(one)] == ["audit-broken"]


_WRITER = """
import sys
from pathlib import Path
from config.settings import Audit
from pacs.observe.audit import FileAuditTrail
one = FileAuditTrail(Path(sys.argv[1]), Audit())
print("ready", flush=True)
for number in range(int(sys.argv[2])):
    one.record("C-STORE", None, writer=sys.argv[3], number=number)
one.close()
"""


def writer(home: Path, count: int, name: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(home), str(count), name],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )


def test_several_processes_and_threads_write_one_chain(tmp_path: Path) -> None:
    children = [writer(tmp_path, 300, str(number)) for number in range(3)]
    with trail(tmp_path) as one:
        threads = [threading.Thread(target=stored, args=(one, 100)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for child in children:
            child.communicate()
            assert child.returncode == 0
        total, found = verify(one.folder, one.keep)
        assert list(found) == []
        told = [record for record, _ in records(one.folder)]
        missed = sum(int(str(each["records"])) for each in told if each["event"] == "audit-missed")
        assert total == len(told)
        assert sum(each["event"] == "C-STORE" for each in told) + missed == 1_200


def test_a_writer_killed_at_any_moment_leaves_no_damage(tmp_path: Path) -> None:
    with trail(tmp_path) as one:
        for attempt in range(4):
            child = writer(tmp_path, 1_000_000, "killed")
            assert child.stdout is not None
            child.stdout.readline()
            size = 1 + attempt * 40_000
            while sum(each.stat().st_size for each in one.folder.glob("*.jsonl")) < size:
                assert child.poll() is None
            child.send_signal(signal.SIGKILL)
            child.communicate()
            stored(one, 1)
        assert damages(one) == []


# --- days, room, patience ---------------------------------------------------------------------


class _Clock(datetime):
    """A clock that a test sets."""

    at = datetime(2026, 3, 1, 23, 59, 59, tzinfo=UTC)

    @classmethod
    def now(cls, tz: object = None) -> "datetime":
        return cls.at


def test_a_new_day_goes_on_in_a_new_file_and_a_clock_set_back_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trail_module, "datetime", _Clock)
    with trail(tmp_path) as one:
        for day in (1, 2, 3, 2):
            monkeypatch.setattr(_Clock, "at", datetime(2026, 3, day, 12, tzinfo=UTC))
            stored(one, 2)
        names = {each.name: each.read_bytes().count(b"\n") for each in one.folder.glob("*.jsonl")}
        assert names == {"2026-03-01.jsonl": 2, "2026-03-02.jsonl": 2, "2026-03-03.jsonl": 4}
        assert findings(one) == []
        first = one.folder / "2026-03-01.jsonl"
        kept = first.read_bytes()
        first.unlink()
        assert damages(one) != []
        first.write_bytes(kept)
        third = datetime(2026, 3, 3, tzinfo=UTC).toordinal()
        assert prune(one.folder, one.keep, before_day=third, taken=3) == 1, "taken up to 3 only"
        assert findings(one) == []
        (one.folder / "2026-03-02.jsonl").write_bytes(kept)
        assert prune(one.folder, one.keep, before_day=third, taken=None) == 0, "damaged: evidence"


def test_without_room_nothing_is_raised_and_the_loss_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with trail(tmp_path) as one:
        stored(one, 1)
        write = os.write
        room = [40]

        def full(descriptor: int, piece: bytes) -> int:
            if not room[0]:
                raise OSError(errno.ENOSPC, "No space left on device")
            part = write(descriptor, piece[: room[0]])
            room[0] -= part
            return part

        monkeypatch.setattr(trail_module.os, "write", full)
        stored(one, 5)
        monkeypatch.undo()
        head = one.keep.head()
        assert head is not None and head.missed == 5
        assert len([each for each in caplog.records if "audit-not-written" in each.message]) == 1
        stored(one, 1)
        assert findings(one) == []
        told = [json.loads(line) for line in file(one).read_text().splitlines()]
        assert [each["event"] for each in told] == ["C-STORE", "audit-missed", "C-STORE"]
        assert told[1]["records"] == 5


def test_nobody_waits_for_a_lock_that_is_not_to_be_had(tmp_path: Path) -> None:
    with trail(tmp_path) as holder, trail(tmp_path) as one:
        stored(one, 1)
        with holder.keep.alone(1.0):
            stored(one, 2_000)  # would take minutes if each waited its patience out
        head = one.keep.head()
        assert head is not None and (head.number, head.missed) == (1, 2_000)
        one.record("started", None)
        assert [record["event"] for record, _ in records(one.folder)][-2:] == [
            "audit-missed",
            "started",
        ]


def test_files_of_before_the_chain_stay_beside_it(tmp_path: Path) -> None:
    (tmp_path / "audit").mkdir()
    old = file_of(tmp_path / "audit", datetime(2026, 1, 2, tzinfo=UTC).toordinal())
    old.write_text('{"event": "started"}\n')
    with trail(tmp_path) as one:
        stored(one, 1)
        (aside, said) = damages(one)
        assert (aside.file, aside.kind) == ("2026-01-02.unchained", "unchained")
        assert said.kind == "audit-broken", "what no chain speaks of is told, not passed over"
    assert old.with_suffix(".unchained").read_text() == '{"event": "started"}\n'


def test_a_record_that_is_too_long_is_cut_and_says_so(tmp_path: Path) -> None:
    with trail(tmp_path) as one:
        one.record("started", MODALITY, what="x" * 100_000)
        ((record, _),) = records(one.folder)
        assert record["cut"] and "what" not in record and record["subscriber"] == "radiology"


def test_a_closed_trail_holds_no_file_and_opens_again(tmp_path: Path) -> None:
    def held() -> list[str]:
        links = list(Path("/proc/self/fd").iterdir())
        names = [str(link.readlink()) for link in links if link.is_symlink()]
        return [name for name in names if name.startswith(str(tmp_path))]

    with trail(tmp_path) as one:
        stored(one, 2)
        assert held()
    assert held() == []
    with trail(tmp_path) as again:
        stored(again, 1)
        again.close()
        assert held() == []
        stored(again, 1)
        assert damages(again) == []
    assert len(list(records(again.folder))) == 4
