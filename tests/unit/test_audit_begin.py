"""How a chain begins: whatever power or a stranger took away, records go on, and what is lost is said."""

import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from config.settings import Audit
from pacs.observe.audit import FileAuditTrail
from pacs.observe.audit import keep as keep_module
from pacs.observe.audit.begin import begun
from pacs.observe.audit.keep import this_boot
from pacs.observe.audit.records import Spot, records
from pacs.observe.audit.verify import verify
from tests.auditing import damages, findings, stored, trail

TODAY = datetime.now(UTC).toordinal()


def told(one: FileAuditTrail) -> list[tuple[object, object]]:
    """Number and event of every record."""
    return [(record["n"], record["event"]) for record, _ in records(one.folder)]


def head_of(home: Path) -> Path:
    return home / "audit-chain" / "head"


LOST_HEADS = {
    "none": lambda whole: None,
    "empty": lambda whole: b"",
    "torn": lambda whole: whole[:40],
    "zeros": lambda whole: bytes(len(whole)),
    "zeros behind its name": lambda whole: whole[:8] + bytes(len(whole) - 8),
    "nonsense behind its name": lambda whole: whole[:8] + b"\xff" * (len(whole) - 8),
}


@pytest.mark.parametrize("lost", LOST_HEADS)
@pytest.mark.parametrize("running", [False, True], ids=["between runs", "under a process"])
def test_a_lost_head_beside_records_is_found_again_and_said(
    tmp_path: Path, lost: str, running: bool
) -> None:
    with trail(tmp_path) as one:
        stored(one, 3)
        if not running:
            one.close()
        left = LOST_HEADS[lost](head_of(tmp_path).read_bytes())
        if left is None and running:
            left = b""  # what is removed under a process stays its own
        if left is None:
            head_of(tmp_path).unlink()
        else:
            os.truncate(head_of(tmp_path), 0)  # the same file, as power leaves it
            head_of(tmp_path).write_bytes(left)
        assert [each.kind for each in damages(one)] == ["unknown"]
        stored(one, 2)
        stores = [(number, "C-STORE") for number in (1, 2, 3, 5, 6)]
        assert sorted(told(one)) == sorted([*stores, (4, "audit-broken")])
        assert [(each.line, each.kind) for each in findings(one)] == [(4, "audit-broken")]
        assert "head was lost" in damages(one)[0].detail


def test_what_is_torn_behind_a_lost_head_is_named_with_it(tmp_path: Path) -> None:
    with trail(tmp_path) as one:
        stored(one, 2)
        one.close()
        (file,) = one.folder.glob("*.jsonl")
        with file.open("ab") as out:
            out.write(b'{"n":3,"ti')
        head_of(tmp_path).write_bytes(b"")
        stored(one, 1)
        assert [(each.line, each.kind) for each in findings(one)] == [(4, "audit-broken")]
        assert told(one)[-1] == (4, "C-STORE")


def test_a_record_that_was_changed_while_the_head_was_lost_is_found(tmp_path: Path) -> None:
    with trail(tmp_path) as one:
        stored(one, 4)
        one.close()
        (file,) = one.folder.glob("*.jsonl")
        head_of(tmp_path).write_bytes(b"")
        file.write_bytes(file.read_bytes().replace(b"1.2.3", b"1.2.4", 2))
        stored(one, 1)
        assert "changed" in {each.kind for each in damages(one)}
        assert told(one)[-1][1] == "C-STORE", "what comes after is recorded all the same"


@pytest.mark.parametrize("left", ["key", "head", "nothing"])
def test_a_beginning_that_power_cut_short_is_no_damage(tmp_path: Path, left: str) -> None:
    with trail(tmp_path) as one:
        one.keep.new_key()
        if left == "key":  # before the head was on disk
            head_of(tmp_path).write_bytes(b"")
        else:
            begun(one.folder, one.keep, TODAY, this_boot())
            (tmp_path / "audit-chain" / "key").unlink()
        if left == "nothing":
            head_of(tmp_path).unlink()
        one.close()
    with trail(tmp_path) as one:
        assert (verify(one.folder, one.keep)[0], findings(one)) == (0, [])
        stored(one, 2)
        assert told(one) == [(1, "C-STORE"), (2, "C-STORE")]
        assert findings(one) == []


def test_a_chain_is_on_disk_before_its_first_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with trail(tmp_path) as one:
        one.keep.head()
        synced: list[int] = []
        fsync = os.fsync
        monkeypatch.setattr(
            keep_module.os, "fsync",
            lambda descriptor: (synced.append(os.fstat(descriptor).st_ino), fsync(descriptor)),
        )  # fmt: skip
        begun(one.folder, one.keep, TODAY, this_boot())
        monkeypatch.undo()
        key = (tmp_path / "audit-chain" / "key").stat().st_ino
        head = head_of(tmp_path).stat().st_ino
        assert key in synced and synced.index(key) < synced.index(head)
        assert (tmp_path / "audit-chain").stat().st_ino in synced


def test_a_chain_that_is_gone_is_said_by_the_one_that_begins_after_it(tmp_path: Path) -> None:
    with trail(tmp_path) as one:
        stored(one, 3)
    shutil.rmtree(tmp_path / "audit-chain")
    with trail(tmp_path) as one:
        stored(one, 1)
        assert told(one) == [(1, "audit-broken"), (2, "C-STORE")]
        day = datetime.now(UTC).date().isoformat()
        assert [(each.file, each.kind) for each in damages(one)] == [
            (f"{day}.unchained", "unchained"),
            (f"{day}.jsonl", "audit-broken"),
        ]
    shutil.rmtree(tmp_path / "audit-chain")
    with trail(tmp_path) as one:  # what was set aside before is not overwritten
        stored(one, 1)
        aside = sorted(each.read_bytes().count(b"\n") for each in one.folder.glob("*.unchained"))
        assert aside == [2, 3]
        assert [each.kind for each in damages(one)] == ["unchained", "unchained", "audit-broken"]


def test_a_process_ended_before_it_could_say_so_leaves_that_to_the_next(tmp_path: Path) -> None:
    with trail(tmp_path) as one:
        stored(one, 1)
    (tmp_path / "audit-chain" / "key").unlink()
    with trail(tmp_path) as one:
        begun(one.folder, one.keep, TODAY, this_boot())
    with trail(tmp_path) as one:
        stored(one, 1)
        assert told(one) == [(1, "audit-broken"), (2, "C-STORE")]


def test_records_that_no_key_can_read_are_set_aside(tmp_path: Path) -> None:
    with trail(tmp_path) as one:
        stored(one, 2)
        one.close()
        (file,) = one.folder.glob("*.jsonl")
        file.write_bytes(b"nonsense\n" + file.read_bytes())
        head_of(tmp_path).unlink()
        stored(one, 1)
        assert [each.kind for each in damages(one)] == ["unchained", "audit-broken"]


def test_a_trail_that_is_gone_beside_instances_is_said(tmp_path: Path) -> None:
    held = FileAuditTrail(tmp_path, Audit(), holds_instances=lambda: True)
    assert [each.kind for each in held.verify()[1]] == ["unknown"]
    stored(held, 1)
    assert told(held) == [(1, "audit-broken"), (2, "C-STORE")]
    assert [each.kind for each in held.verify()[1]] == ["audit-broken"]
    held.close()
    with trail(tmp_path / "other") as one:
        stored(one, 1)
        assert list(one.verify()[1]) == []


def test_who_wrote_when_the_folder_was_taken_away_goes_on_in_the_new_chain(tmp_path: Path) -> None:
    with trail(tmp_path) as one, trail(tmp_path) as other:
        stored(one, 3)
        one.sync()
        shutil.rmtree(tmp_path / "audit-chain")
        stored(other, 1)
        stored(one, 2)
        stored(other, 1)
        one.sync()
        other.sync()
        assert told(one) == [(1, "audit-broken"), *((n, "C-STORE") for n in (2, 3, 4, 5))]
        assert [each.kind for each in damages(one)] == ["unchained", "audit-broken"]
        head = one.keep.head()
        assert head is not None and head.synced == head.number == 5


def test_who_wrote_when_the_key_was_taken_away_goes_on_in_the_new_chain(tmp_path: Path) -> None:
    with trail(tmp_path) as one:
        stored(one, 3)
        (tmp_path / "audit-chain" / "key").unlink()
        with trail(tmp_path) as other:
            stored(other, 1)
            stored(one, 1)
            stored(other, 1)
        assert told(one) == [(1, "audit-broken"), *((n, "C-STORE") for n in (2, 3, 4))]
        assert [each.kind for each in damages(one)] == ["unchained", "audit-broken"]


def test_a_chain_that_begins_keeps_others_out_until_its_first_record(tmp_path: Path) -> None:
    with trail(tmp_path) as one, trail(tmp_path) as other:
        with one.keep.alone(1.0):
            begun(one.folder, one.keep, TODAY, this_boot())
            with pytest.raises(keep_module.Busy), other.keep.alone(0.01):
                pytest.fail("two hold the lock")
        with other.keep.alone(1.0):
            assert other.keep.key() == one.keep.key() is not None


def test_a_place_behind_the_end_of_a_file_is_another_chain_s(tmp_path: Path) -> None:
    with trail(tmp_path) as one:
        stored(one, 2)
        sent = tmp_path / "audit-chain" / "sent"
        sent.write_text(json.dumps({"spot": [TODAY, 5, 9], "failures": 0, "why": ""}))
        assert len(list(records(one.folder, Spot(TODAY, 100_000, 700)))) == 2
    (tmp_path / "audit-chain" / "key").unlink()
    with trail(tmp_path) as one:
        stored(one, 1)
        assert not sent.exists()
