"""Compression at rest: what was received comes back byte for byte, whatever happens on the way."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from pacs.app.archive import Archive
from pacs.core.attributes import Level
from pacs.core.forms import SYNTAXES, Outcome
from pacs.core.records import Payload, PeerEncoding, SendOutcome, StoreOutcome
from storage.database.tables import Kind
from tests.forms import (
    EXPLICIT,
    compress,
    encoded,
    files,
    fill,
    image,
    keep_bytes,
    odd_originals,
    restored,
    tidy,
)
from tests.keeping import ADMIN, data_set, keep, listed, opened, tables

ODD = odd_originals()


def nothing() -> None:
    """Progress that nobody looks at."""


@contextmanager
def started(home: Path, url: str = "", **overrides: str) -> Iterator[Archive]:
    """Open an archive as a start does."""
    with opened(home, url, **overrides) as archive:
        archive.reindex.recover()
        yield archive


def verified(archive: Archive, *, restore: bool = True) -> list[str]:
    """What ``pacs verify`` finds, by kind."""
    return [one.kind for one in archive.verification.run(ADMIN, nothing, restore=restore)]


def indexed(archive: Archive) -> object:
    """The index tables, after a comparison with what reindex makes of the files."""
    before = tables(archive.database, Kind.INDEX)
    records = tables(archive.database, Kind.RECORD)
    assert archive.reindex.run(ADMIN, nothing) == []
    assert tables(archive.database, Kind.INDEX) == before
    assert tables(archive.database, Kind.RECORD) == records
    return before


@pytest.mark.parametrize("target", sorted(SYNTAXES))
def test_there_and_back_for_every_form(target: str, tmp_path: Path) -> None:
    with started(tmp_path) as archive:
        for sop, (syntax, wire) in ODD.items():
            assert keep_bytes(archive, wire, sop, syntax) is StoreOutcome.KEPT
        originals = {one.name: one.read_bytes() for one in files(tmp_path)}
        tally = compress(archive, target)
        assert tally.outcomes == {Outcome.CHANGED: len(ODD)}, tally.reasons
        assert tally.after_bytes < tally.before_bytes
        by_uid = {sop: wire for sop, (_, wire) in ODD.items()}
        assert restored(archive) == by_uid
        assert verified(archive) == []
        assert tidy(archive) == tally.outcomes[Outcome.CHANGED]
        assert len(files(tmp_path)) == len(ODD)
        assert restored(archive) == by_uid
        indexed(archive)

        back = compress(archive, None)
        assert back.outcomes == {Outcome.CHANGED: tally.outcomes[Outcome.CHANGED]}
        assert tidy(archive) == tally.outcomes[Outcome.CHANGED]
        assert {one.name: one.read_bytes() for one in files(tmp_path)} == originals
        assert verified(archive) == []
        indexed(archive)


def test_rows_and_answers_are_those_of_what_was_received(url: str, tmp_path: Path) -> None:
    with started(tmp_path, url) as archive:
        wire = encoded(image("1.1.1.1", bits=8, samples=3, planar=1))
        keep_bytes(archive, wire, "1.1.1.1")
        keep(archive, data_set("1.1", "1.1.2", "1.1.2.1", Modality="SR"))
        asked = {"PlanarConfiguration": "", "PhotometricInterpretation": "", "PatientName": ""}
        before = listed(archive, Level.IMAGE, SOPInstanceUID="1.1.1.1", **asked)
        assert before[0]["PlanarConfiguration"] == "1"
        index = tables(archive.database, Kind.INDEX)
        tally = compress(archive, "jpeg-2000")
        assert tally.outcomes == {Outcome.CHANGED: 1}, "an object without pixels is not looked at"
        assert listed(archive, Level.IMAGE, SOPInstanceUID="1.1.1.1", **asked) == before
        after = tables(archive.database, Kind.INDEX)
        assert {name for name in index if index[name] != after[name]} == {"instance"}
        stats = archive.statistics.read(ADMIN)
        assert stats["compressed_instances"] == 1
        assert stats["compressed_from_bytes"] == len(wire) > stats["compressed_bytes"]
        indexed(archive)
        tidy(archive)
        assert len(files(tmp_path)) == 2
        indexed(archive)


def test_what_is_sent_again_is_held_already(url: str, tmp_path: Path) -> None:
    with started(tmp_path, url) as archive:
        kept = fill(archive, 1)["1.1.1.1"]
        for step in (
            lambda: compress(archive),
            lambda: tidy(archive),
            lambda: compress(archive, None),
        ):
            step()
            assert keep_bytes(archive, kept, "1.1.1.1") is StoreOutcome.ALREADY_HELD
        compress(archive)
        other = encoded(image("1.1.1.1", StudyDescription="another"))
        assert keep_bytes(archive, other, "1.1.1.1") is StoreOutcome.KEPT_AS_VERSION
        compress(archive)
        tidy(archive)
        indexed(archive)


class Taking:
    """A receiver of uncompressed syntaxes that remembers what it is sent."""

    last_status: int | None = 0

    def __init__(self) -> None:
        self.got: dict[str, tuple[str, bytes]] = {}

    def accepted(self, sop_class_uid: str) -> tuple[str, ...]:
        return (EXPLICIT, "1.2.840.10008.1.2")

    def send(self, payload: Payload, originator: object, following: object = None) -> SendOutcome:
        wire = Path(payload.path).read_bytes()[payload.offset :]
        self.got[payload.sop_instance_uid] = (payload.transfer_syntax_uid, wire)
        return SendOutcome.SUCCESS

    def close(self) -> None: ...

    def abort(self) -> None: ...


def test_who_takes_the_syntax_it_came_in_gets_it_bit_for_bit(tmp_path: Path) -> None:
    with started(tmp_path) as archive:
        for sop, (syntax, wire) in ODD.items():
            keep_bytes(archive, wire, sop, syntax)
        compress(archive)
        rows = archive.database.execute(
            "SELECT id, sop_class_uid, transfer_syntax_uid FROM instance"
        )
        waiting, taking = archive.shipping.waiting(list(rows)), Taking()
        with closing(archive.shipping.way(taking, waiting, PeerEncoding.AS_STORED)) as way:  # type: ignore[arg-type]
            while way.send_next() is not None:
                continue
        sendable = {sop: one for sop, one in ODD.items() if one[0] in taking.accepted("")}
        assert len(sendable) > 5
        assert {sop: taking.got[sop] for sop in sendable} == sendable


def test_the_same_compressed_by_the_sender_is_held_already(tmp_path: Path) -> None:
    with started(tmp_path) as archive:
        fill(archive, 1)
        (original,) = files(tmp_path)
        syntax = SYNTAXES["jpeg-ls"]
        offset = 144 + int.from_bytes(original.read_bytes()[140:144], "little")
        with archive.transcoder.convert(str(original), offset, EXPLICIT, syntax) as path:
            sent = Path(path).read_bytes()
        compress(archive)
        tidy(archive)
        assert keep_bytes(archive, sent, "1.1.1.1", syntax) is StoreOutcome.ALREADY_HELD


def test_what_cannot_be_made_again_stays_and_is_remembered(url: str, tmp_path: Path) -> None:
    made = image("1.1.1.1")
    made.PixelData = bytes(made.PixelData[:-1]) + b"\xf3"  # bits above Bits Stored
    longer = image("1.1.1.2")
    longer.PixelData += bytes(10)
    with started(tmp_path, url) as archive:
        for sop, one in (("1.1.1.1", made), ("1.1.1.2", longer)):
            keep_bytes(archive, encoded(one), sop)
        before = {one.name: one.read_bytes() for one in files(tmp_path)}
        assert compress(archive).outcomes == {Outcome.REFUSED: 2}
        assert compress(archive).outcomes == {}, "not tried again"
        assert compress(archive, again=True).outcomes == {Outcome.REFUSED: 2}
        assert compress(archive, "htj2k").outcomes == {Outcome.REFUSED: 2}
        tidy(archive)
        assert {one.name: one.read_bytes() for one in files(tmp_path)} == before
        indexed(archive)


def test_former_files_stay_for_their_time(url: str, tmp_path: Path) -> None:
    with started(tmp_path, url) as archive:
        kept = fill(archive)
        compress(archive)
        assert tidy(archive, now=False) == 0
        assert len(files(tmp_path)) == 8
        assert verified(archive) == []
        indexed(archive)
        inodes = {one.stat().st_ino for one in files(tmp_path)}
        assert compress(archive, None).outcomes == {Outcome.CHANGED: 4}
        assert {one.stat().st_ino for one in files(tmp_path)} == inodes, (
            "those still there are taken"
        )
        indexed(archive)
        assert tidy(archive) == 4
        assert restored(archive) == kept


def test_delete_undo_and_purge_know_both_forms(url: str, tmp_path: Path) -> None:
    now = {"storage__deletion_delay_s": "0"}
    with started(tmp_path, url) as archive:
        kept = fill(archive)
        compress(archive)
        entry, count = archive.deletions.delete(ADMIN, Level.IMAGE, "1.1.1.1", reason="r")
        assert count == 1
        indexed(archive)
        archive.deletions.undo(ADMIN, entry.id, reason="r")
        assert restored(archive) == kept
        archive.deletions.delete(ADMIN, Level.IMAGE, "1.1.1.1", reason="r")
    with started(tmp_path, url, **now) as archive:
        assert archive.deletions.purge(ADMIN) == 1
        assert len(files(tmp_path)) == 6
        indexed(archive)
        tidy(archive)
        assert len(files(tmp_path)) == 3
        compress(archive, None)  # the form still lies beside the original
        archive.deletions.delete(ADMIN, Level.STUDY, "1.1", reason="r")
        assert archive.deletions.purge(ADMIN) == 3
        tidy(archive)
        assert files(tmp_path) == []
        assert list(archive.database.execute("SELECT * FROM form_change")) == []
        indexed(archive)


def test_the_index_is_rebuilt_from_files_alone(url: str, tmp_path: Path) -> None:
    """Even the records are lost: of two good files what was received is taken, and the other goes."""
    with started(tmp_path, url) as archive:
        kept = fill(archive)
        compress(archive)
        with archive.database.transaction():
            archive.database.write("DELETE FROM form_change")
        assert sorted(verified(archive)) == ["surplus"] * 4
        assert archive.reindex.run(ADMIN, nothing) == []
        assert archive.statistics.read(ADMIN)["compressed_instances"] == 0
        assert verified(archive) == []
        assert tidy(archive, now=False) == 4
        assert restored(archive) == kept
        indexed(archive)
