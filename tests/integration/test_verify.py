"""``pacs verify``: every kind of damage is told, by its name, and what is on its way is none."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pacs.app.archive import Archive
from pacs.cli.main import run
from pacs.core.attributes import Level
from pacs.core.errors import StorageFailed
from pacs.core.records import StoreOutcome
from tests.keeping import ADMIN, data_set, keep, opened


@pytest.fixture
def archive(url: str, tmp_path: Path) -> Iterator[Archive]:
    with opened(tmp_path, url) as made:
        for number in (1, 2, 3):
            keep(made, data_set("1.1", "1.1.1", f"1.1.1.{number}"))
        yield made


def damages(archive: Archive) -> list[tuple[str, str]]:
    seen: list[None] = []
    found = list(archive.verification.run(ADMIN, lambda: seen.append(None)))
    assert len(seen) == archive.verification.count(ADMIN)
    return [(one.kind, one.file) for one in found]


def first(archive: Archive) -> Path:
    return sorted((archive.home / "store").rglob("*.dcm"))[0]


def name(archive: Archive, path: Path) -> str:
    return path.relative_to(archive.home / "store").as_posix()


def test_nothing_is_damaged(archive: Archive) -> None:
    assert damages(archive) == []


def test_missing(archive: Archive) -> None:
    path = first(archive)
    path.unlink()
    assert damages(archive) == [("missing", name(archive, path))]


@pytest.mark.parametrize("change", ["flip", "truncate", "append", "meta", "empty"])
def test_corrupt(archive: Archive, change: str) -> None:
    path = first(archive)
    content = bytearray(path.read_bytes())
    if change == "flip":
        content[-1] ^= 1
    elif change == "meta":
        content[133] ^= 0xFF
    changed = {"truncate": content[:-4], "append": content + b"\0\0", "empty": b""}
    path.write_bytes(changed.get(change, content))
    assert damages(archive) == [("corrupt", name(archive, path))]


def test_not_indexed(archive: Archive) -> None:
    with archive.database.transaction():
        archive.database.write("DELETE FROM instance WHERE sop_instance_uid = '1.1.1.1'")
    assert damages(archive) == [("not-indexed", name(archive, first(archive)))]


def test_stray(archive: Archive) -> None:
    stray = first(archive).with_name("somebody.dcm")
    stray.write_bytes(b"not ours")
    assert damages(archive) == [("stray", name(archive, stray))]


def test_mismatch(archive: Archive) -> None:
    with archive.database.transaction():
        archive.database.write(
            "UPDATE instance SET sop_instance_uid = '9.9' WHERE sop_instance_uid = '1.1.1.1'"
        )
    assert damages(archive) == [("mismatch", name(archive, first(archive)))]


def test_the_registrant_in_a_file_is_compared(archive: Archive) -> None:
    path = first(archive)
    path.write_bytes(path.read_bytes().replace(b'"local"', b'"lokal"', 1))
    assert damages(archive) == [("mismatch", name(archive, path))]


def test_a_hidden_file_is_looked_at_too(archive: Archive) -> None:
    archive.deletions.delete(ADMIN, Level.IMAGE, "1.1.1.1", reason="r")
    assert damages(archive) == []
    path = first(archive)
    path.write_bytes(path.read_bytes()[:-2])
    assert damages(archive) == [("corrupt", name(archive, path))]


def test_a_file_on_its_way_is_no_damage(archive: Archive) -> None:
    """Kept under its final name, its rows not yet committed, its arrival mark still there."""
    path = first(archive)
    with archive.database.transaction():
        archive.database.write("DELETE FROM instance WHERE sop_instance_uid = '1.1.1.1'")
    mark = archive.home / "store" / "incoming" / f"{path.name[:36]}.part"
    mark.hardlink_to(path)
    assert damages(archive) == []
    mark.unlink()
    assert damages(archive) == [("not-indexed", name(archive, path))]


def test_exit_code_3(
    archive: Archive, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PACS_DATABASE__URL", url)
    home = ["--home", str(archive.home)]
    assert run([*home, "verify"]) == 0
    path = first(archive)
    path.write_bytes(path.read_bytes()[:-2])
    assert run([*home, "verify"]) == 3
    assert "corrupt\t" in capsys.readouterr().out


def test_sent_again_while_the_kept_file_is_cut_short_is_no_success(archive: Archive) -> None:
    path = first(archive)
    content = path.read_bytes()
    path.write_bytes(content[:-4])
    with pytest.raises(StorageFailed):
        keep(archive, data_set("1.1", "1.1.1", "1.1.1.1"))
    path.write_bytes(content)
    assert keep(archive, data_set("1.1", "1.1.1", "1.1.1.1")) is StoreOutcome.ALREADY_HELD
