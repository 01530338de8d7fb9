"""The record of what was forwarded keeps its promises on both databases; so do the parts of a job tried again."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pacs.app.archive import Archive
from pacs.core.identifiers import AETitle, ObjectId, Registrant, StudyInstanceUID
from pacs.core.records import Job
from pacs.core.sent import Run, SentRow, SentState, Told
from storage.database.forward import ForwardTable
from tests.forwarding import study_of
from tests.keeping import ADMIN, opened

DEST, OTHER = AETitle("DEST"), AETitle("OTHER")
STUDY = StudyInstanceUID("1.2.3")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    return "" if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def archive(url: str, tmp_path: Path) -> Iterator[Archive]:
    with opened(tmp_path, url) as made:
        study_of(made, "1.2.3", 4)
        yield made


@pytest.fixture
def table(archive: Archive) -> ForwardTable:
    return ForwardTable(archive.database)


def rows(table: ForwardTable, to: AETitle = DEST) -> list[SentRow]:
    found = table.of_study(to, Registrant("local"), STUDY, None)
    return sorted(found, key=lambda one: one.object_id)


def ids(table: ForwardTable) -> list[ObjectId]:
    return [one.object_id for one in rows(table)]


def run(number: int, to: AETitle = DEST) -> Run:
    return Run(destination=to, job=1, number=number)


def told(one: ObjectId, state: SentState = SentState.SENT, status: int | None = 0) -> Told:
    return Told(object_id=one, state=state, status=status)


def test_an_instance_is_known_at_each_destination_by_itself(
    archive: Archive, table: ForwardTable
) -> None:
    with archive.records.transaction():
        table.begin(run(1), ids(table)[:2])
    assert [one.state for one in rows(table)] == [SentState.SENDING] * 2 + [None] * 2
    assert [one.state for one in rows(table, OTHER)] == [None] * 4


def test_a_run_that_was_overtaken_changes_nothing(archive: Archive, table: ForwardTable) -> None:
    first, second, third, _ = ids(table)
    with archive.records.transaction():
        table.begin(run(1), [first, second, third])
        table.doubt(DEST, [first, second, third])
        table.begin(run(2), [first, second])
        assert table.settle(run(1), [told(first), told(third)]) == frozenset()
        assert table.settle(run(2), [told(first, status=0xB000), told(second)]) == {first, second}
        table.begin(run(3), [first])
        assert table.settle(run(3), [told(first)]) == frozenset()
    assert [(one.state, one.attempts, one.doubts) for one in rows(table)[:3]] == [
        (SentState.SENT, 2, 1), (SentState.SENT, 2, 1), (SentState.UNKNOWN, 1, 1)
    ]  # fmt: skip


def test_what_never_left_counts_as_no_attempt(archive: Archive, table: ForwardTable) -> None:
    one, two, *_ = ids(table)
    with archive.records.transaction():
        table.begin(run(1), [one, two])
        table.settle(run(1), [told(one, SentState.UNSENT, None), told(two, SentState.REFUSED, 1)])
    assert [(each.state, each.attempts) for each in rows(table)[:2]] == [
        (SentState.UNSENT, 0), (SentState.REFUSED, 1)
    ]  # fmt: skip


def test_what_is_committed_and_what_is_not(archive: Archive, table: ForwardTable) -> None:
    one, two, three, _ = ids(table)
    with archive.records.transaction():
        table.begin(run(1), [one, two, three])
        table.settle(run(1), [told(one), told(two)])
        table.commit(DEST, [one, two, three])
        table.disclaim(DEST, {two: 0x0112})
    found = [(each.state, each.committed) for each in rows(table)[:3]]
    assert found == [
        (SentState.SENT, True), (SentState.REFUSED, False), (SentState.SENDING, False)
    ]  # fmt: skip


def test_a_study_is_forgotten_but_for_what_is_under_way(
    archive: Archive, table: ForwardTable
) -> None:
    one, two, *_ = ids(table)
    with archive.records.transaction():
        table.begin(run(1), [one, two])
        table.begin(run(1, OTHER), [one])
        table.settle(run(1), [told(one)])
        assert table.forget(DEST, Registrant("else"), STUDY) == 0
        assert table.forget(DEST, Registrant("local"), STUDY) == 1
    assert [each.state for each in rows(table)[:2]] == [None, SentState.SENDING]
    assert rows(table, OTHER)[0].state is SentState.SENDING


def test_a_purge_takes_what_is_old_or_held_no_more(archive: Archive, table: ForwardTable) -> None:
    with archive.records.transaction():
        table.begin(run(1), ids(table)[:2])
        table.settle(run(1), [told(ids(table)[0])])
        table.begin(run(1, OTHER), [ObjectId("gone")])
        table.settle(run(1, OTHER), [told(ObjectId("gone"))])
    assert table.purge(3_600) == 1
    # No job runs that could still be sending it.
    assert [one.state for one in rows(table)[:2]] == [SentState.SENT, SentState.UNKNOWN]
    assert table.purge(-1) == 2


def test_a_purge_leaves_what_a_job_is_sending(archive: Archive, table: ForwardTable) -> None:
    one = ids(table)[0]
    with archive.records.transaction() as unit:
        unit.enqueue(Job(kind="k", payload="{}", queue="q"))
    claim = archive.job_table.claim("q", "me", 60.0)
    assert claim is not None
    ours = Run(destination=DEST, job=claim.id, number=1)
    with archive.records.transaction():
        table.begin(ours, [one])
    assert table.purge(3_600) == table.purge(-1) == 0
    assert rows(table)[0].state is SentState.SENDING
    with archive.records.transaction():
        assert table.settle(ours, [told(one)]) == {one}, "its outcome, and the usage it is, count"


def test_it_is_looked_up_by_study_and_not_by_walking(archive: Archive, table: ForwardTable) -> None:
    many = [f"made-{number:06}" for number in range(20_000)]
    with archive.records.transaction():
        for start in range(0, len(many), 500):
            table.begin(run(1), [ObjectId(one) for one in many[start : start + 500]])
    statements: list[str] = []
    execute = archive.database.execute
    archive.database.execute = lambda sql, params=(): (  # type: ignore[method-assign]
        statements.append(sql),
        execute(sql, params),
    )[1]
    assert len(rows(table)) == 4
    (sql,) = statements
    if archive.database.dialect == "postgresql":
        with archive.database.transaction():
            archive.database.write("ANALYZE")
    explain = "EXPLAIN QUERY PLAN " if archive.database.dialect == "sqlite" else "EXPLAIN "
    plan = str(list(execute(explain + sql, (DEST, STUDY, Registrant("local")))))
    assert "SCAN f" not in plan and "Seq Scan on forward_sent" not in plan


def test_a_job_tried_again_after_a_failure_has_parts_anew(archive: Archive) -> None:
    table = archive.job_table
    with archive.records.transaction() as unit:
        unit.enqueue(Job(kind="parent", payload="{}"))
    claim = table.claim("default", "me", 60)
    assert claim is not None
    table.part(claim, [Job(kind="part", payload='{"n":1}', queue="part")])
    part = table.claim("part", "me", 60)
    assert part is not None
    table.fail(part, "broken")
    again = table.claim("default", "me", 60)
    assert again is not None and again.has_children
    assert [one.payload for one in table.parts(again)] == ['{"n":1}']
    table.later(again, 0, "once more", counts=False)
    still = table.claim("default", "me", 60)
    assert still is not None and still.has_children
    table.later(still, 0, "failed", counts=True)
    anew = table.claim("default", "me", 60)
    assert anew is not None and not anew.has_children
    table.part(anew, [Job(kind="part", payload='{"n":2}', queue="part")])
    second = table.claim("part", "me", 60)
    assert second is not None
    table.fail(second, "broken too")
    last = table.claim("default", "me", 60)
    assert last is not None
    table.fail(last, "for good")
    archive.jobs.retry(ADMIN, last.id)
    begun = table.claim("default", "me", 60)
    assert begun is not None and not begun.has_children
