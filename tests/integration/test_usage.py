"""Usage in an archive that lives: each arrival once, holdings as the index has them, facts never changed."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pacs.app.archive import Archive
from pacs.core.attributes import Level
from pacs.core.caller import Caller, SubscriberName
from pacs.core.errors import RecordsFailed
from pacs.core.records import StoreOutcome
from pacs.services.usage import Connections, UsageLine
from tests.forms import compress, fill, tidy
from tests.keeping import ADMIN, caller_of, data_set, encoded, keep, opened

REPOSITORY = Path(__file__).resolve().parents[2]


def nothing() -> None:
    """Progress that nobody looks at."""


def facts(archive: Archive) -> set[tuple[object, ...]]:
    return set(archive.database.execute("SELECT * FROM usage_fact"))


def line(archive: Archive, kind: str, whose: str = "local") -> UsageLine:
    """Give the line of a kind; who holds nothing at any day's end has none."""
    month = archive.usage.this_month()
    nothing_held = UsageLine(
        subscriber=SubscriberName(whose), month=str(month), kind=kind, instances=0, bytes=0
    )
    found = [
        one
        for one in archive.usage.lines(ADMIN, month)
        if (one.kind, one.subscriber) == (kind, whose)
    ]
    assert len(found) <= 1
    return found[0] if found else nothing_held


class Watched:
    """An archive whose facts only ever grow, and add up to what the index holds."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.known = facts(archive)

    def after(self, act: Callable[[], object], *, new: int = 0) -> None:
        act()
        found = facts(self.archive)
        assert self.known <= found, "nothing noted is changed or removed"
        assert len(found) == len(self.known) + new
        assert self.archive.usage.differences(ADMIN) == []
        self.known = found


def test_whatever_happens_facts_stay_and_add_up(url: str, tmp_path: Path) -> None:
    one, other = (data_set("1.1", "1.1.1", f"1.1.1.{number}") for number in (1, 2))
    size_bytes = len(encoded(one))
    with opened(tmp_path, url, storage__deletion_delay_s="3600") as archive:
        archive.reindex.recover()
        watched = Watched(archive)
        watched.after(lambda: keep(archive, one), new=1)
        watched.after(lambda: keep(archive, one))  # sent again, answered 0000
        watched.after(lambda: keep(archive, other), new=1)
        watched.after(lambda: keep(archive, one, registrant="else"), new=1)
        assert line(archive, "register").bytes == 2 * size_bytes
        held = line(archive, "hold")
        assert (held.instances, held.bytes, held.byte_days) == (2, 2 * size_bytes, held.byte_days)
        entries: list[str] = []

        def delete(level: Level = Level.STUDY, uid: str = "1.1") -> None:
            entry, _ = archive.deletions.delete(ADMIN, level, uid, reason="r", registrant="local")
            entries.append(entry.id)

        watched.after(delete, new=1)
        assert line(archive, "hold").bytes == 0
        assert line(archive, "hold", "else").bytes == size_bytes
        watched.after(lambda: keep(archive, one), new=1)  # again: a file of its own
        watched.after(lambda: archive.deletions.undo(ADMIN, entries[0], reason="r"), new=1)
        assert line(archive, "hold").instances == 2, "what had come again stays deleted"
        watched.after(lambda: archive.reindex.run(ADMIN, nothing))
        watched.after(lambda: delete(Level.IMAGE, "1.1.1.2"), new=1)
        watched.after(archive.reindex.recover)
        known = watched.known
    with opened(tmp_path, url, storage__deletion_delay_s="0") as archive:
        assert facts(archive) == known
        watched = Watched(archive)
        assert archive.deletions.purge(ADMIN) == 2
        watched.after(lambda: archive.reindex.run(ADMIN, nothing))
        watched.after(lambda: archive.deletions.purge(ADMIN))
        assert line(archive, "hold").instances == 1


def test_an_entry_whose_effect_was_lost_is_noted_when_it_is_obeyed(
    url: str, tmp_path: Path
) -> None:
    """A crash between the journal and the index: the start obeys, and that is the fact."""
    with opened(tmp_path, url) as archive:
        archive.reindex.recover()
        keep(archive, data_set("1.1", "1.1.1", "1.1.1.1"))
        with pytest.MonkeyPatch.context() as patch:

            def gone(*_: object, **__: object) -> None:
                raise RecordsFailed("gone")

            patch.setattr(type(archive.deletions._decisions), "apply", gone)
            with pytest.raises(RecordsFailed):
                archive.deletions.delete(ADMIN, Level.STUDY, "1.1", reason="r")
        watched = Watched(archive)
        watched.after(archive.reindex.recover, new=1)
        watched.after(archive.reindex.recover)
        assert line(archive, "hold").instances == 0


def test_how_it_is_held_changes_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as archive:
        archive.reindex.recover()
        sizes = sum(map(len, fill(archive).values()))
        watched = Watched(archive)
        watched.after(lambda: compress(archive))
        watched.after(lambda: tidy(archive))
        watched.after(lambda: archive.reindex.run(ADMIN, nothing))
        assert line(archive, "hold").bytes == line(archive, "register").bytes == sizes
        watched.after(
            lambda: archive.deletions.delete(ADMIN, Level.STUDY, "1.1", reason="r"), new=1
        )
        assert line(archive, "hold").bytes == 0


def test_further_versions_are_held_too(tmp_path: Path) -> None:
    with opened(tmp_path) as archive:
        archive.reindex.recover()
        watched = Watched(archive)
        watched.after(lambda: keep(archive, data_set("1.1", "1.1.1", "1.1.1.1")), new=1)
        second = data_set("1.1", "1.1.1", "1.1.1.1", StudyDescription="another content")
        watched.after(lambda: keep(archive, second), new=1)
        assert line(archive, "hold").instances == 2
        assert line(archive, "register").modality == "CT"


def test_what_is_refused_is_not_used(tmp_path: Path) -> None:
    def broken(*_: object) -> Iterator[Any]:
        raise ZeroDivisionError

    with opened(tmp_path) as archive:
        archive.reindex.recover()
        archive.ingest.add_rule(broken)
        with pytest.raises(ZeroDivisionError):
            keep(archive, data_set("1.1", "1.1.1", "1.1.1.1"))
        assert facts(archive) == set()
    with opened(tmp_path) as archive:
        assert keep(archive, data_set("1.1", "1.1.1", "1.1.1.1")) is StoreOutcome.KEPT
        assert len(facts(archive)) == 1


def test_no_code_changes_or_removes_a_fact() -> None:
    changing = re.compile(r"(UPDATE|DELETE\s+FROM|DROP\s+TABLE)\s+usage_(fact|closed)\b", re.I)
    rooms = ("pacs", "scp", "scu", "storage", "processing")
    sources = [one for room in rooms for one in (REPOSITORY / room).rglob("*.py")]
    assert len(sources) > 200
    assert [one for one in sources if changing.search(one.read_text(encoding="utf-8"))] == []


# --- connections -------------------------------------------------------------------------


@contextmanager
def counting(records: Any, **how: float) -> Iterator[Connections]:
    connections = Connections(records, **how)
    connections.start()
    try:
        yield connections
    finally:
        connections.stop()


def of(association: str) -> Caller:
    return replace(caller_of(), association=association)


def test_connections_are_noted_together_and_once(tmp_path: Path) -> None:
    with opened(tmp_path) as archive:
        with counting(archive.records, every_s=3_600) as connections:
            for number in range(3):
                with connections.opened(of(str(number)), None):  # type: ignore[arg-type]
                    pass
            with pytest.raises(KeyError), connections.opened(of("lost"), None):  # type: ignore[arg-type]
                raise KeyError("the peer is gone")
            assert facts(archive) == set(), "not a commit for each"
        assert line(archive, "connect").associations == 4
        with counting(archive.records) as again, again.opened(of("2"), None):  # type: ignore[arg-type]
            pass
        assert line(archive, "connect").associations == 4


def test_connections_wait_while_they_cannot_be_written(tmp_path: Path) -> None:
    with opened(tmp_path) as archive:
        refused, written = threading.Event(), threading.Event()

        class Records:
            @contextmanager
            def transaction(self) -> Iterator[Any]:
                if not refused.is_set():
                    refused.set()
                    raise RecordsFailed("away")
                with archive.records.transaction() as unit:
                    yield unit
                written.set()

        with counting(Records(), every_s=0.01) as connections:
            with connections.opened(of("1"), None):  # type: ignore[arg-type]
                pass
            assert written.wait(60)
        assert refused.is_set()
        assert line(archive, "connect").associations == 1
