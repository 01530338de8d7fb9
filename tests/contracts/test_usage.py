"""Facts of usage, kept by both back ends: each counts once, months are added up, nothing noted is lost."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from config.settings import Database as DatabaseSettings
from pacs.core.caller import Caller, Right, SubscriberName, Visibility, admin
from pacs.core.identifiers import AETitle, StudyInstanceUID, new_object_id
from pacs.core.usage import (
    KINDS,
    Connected,
    Delivered,
    Holding,
    HoldingChanged,
    Month,
    Processed,
    Registered,
    Usage,
    UsageKind,
)
from pacs.services.usage import UsageAccount, UsageLine
from storage.database.connection import Database
from storage.database.store import DatabaseRecords
from storage.database.usage import UsageTable
from tests.contracts.test_find_index import instance

ONE, TWO = SubscriberName("one"), SubscriberName("two")
STUDY = StudyInstanceUID("1.2")
JULY, AUGUST, SEPTEMBER = (Month(year=2026, number=number) for number in (7, 8, 9))
ADMIN = admin("test")
FACTS: tuple[Usage, ...] = (
    Registered(
        subscriber=ONE,
        object_id=new_object_id(),
        study_instance_uid=STUDY,
        modality="CT",
        size_bytes=10,
    ),
    HoldingChanged(subscriber=ONE, entry_id="e", instances=-1, size_bytes=-10),
    Delivered(
        subscriber=ONE,
        delivery="d",
        study_instance_uid=STUDY,
        receiver=AETitle("WS"),
        asked_by="who",
        purpose="reading",
        instances=3,
        sent_bytes=30,
    ),
    Connected(subscriber=ONE, association="x", asked_by="CT1", duration_ms=1_500),
    Processed(
        subscriber=ONE,
        session="s",
        operation="mip",
        study_instance_uid=STUDY,
        asked_by="who",
        purpose="",
        images=400,
        size_bytes=4_000,
        duration_ms=2_500,
    ),
)
At = Callable[..., None]


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    url = "" if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))
    made = Database(DatabaseSettings(url=url, timeout_s=60), tmp_path)
    made.migrate()
    yield made
    made.close()


@pytest.fixture
def at(database: Database, monkeypatch: pytest.MonkeyPatch) -> At:
    """Note facts as if it were then."""

    def noted(text: str, *facts: Usage) -> None:
        moment = datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
        with monkeypatch.context() as patch:
            patch.setattr(time, "time_ns", lambda: round(moment * 1000) * 1_000_000)
            note(database, *(begun(one, moment) for one in facts))

    return noted


def begun(fact: Usage, moment: float) -> Usage:
    """A registration has an id issued when it began to arrive, a minute before."""
    if not isinstance(fact, Registered):
        return fact
    return replace(fact, object_id=new_object_id(round(moment * 1000) - 60_000))


def note(database: Database, *facts: Usage) -> None:
    with DatabaseRecords(database, "first").transaction() as unit:
        for one in facts:
            unit.record_usage(one)


def came(size_bytes: int, whose: SubscriberName = ONE, modality: str = "CT") -> Usage:
    return Registered(
        subscriber=whose,
        object_id=new_object_id(),
        study_instance_uid=STUDY,
        modality=modality,
        size_bytes=size_bytes,
    )


def lines(
    database: Database, month: Month, now: str = "2026-12-31", caller: Caller = ADMIN, **whose: Any
) -> dict[tuple[str, str, str], UsageLine]:
    clock = lambda: datetime.fromisoformat(now).replace(tzinfo=UTC)  # noqa: E731
    found = UsageAccount(UsageTable(database), clock).lines(caller, month, **whose)
    named = {
        (one.subscriber, one.kind, one.modality or one.receiver or one.operation or ""): one
        for one in found
    }
    assert len(named) == len(found)
    return named


def rows(database: Database, table: str = "usage_fact") -> list[tuple[Any, ...]]:
    return sorted(database.execute(f"SELECT * FROM {table}"), key=repr)


@pytest.mark.parametrize("fact", FACTS, ids=lambda one: one.kind.value)
def test_a_fact_counts_once_and_stays_as_it_was(fact: Usage, database: Database) -> None:
    note(database, fact)
    before = rows(database)
    note(database, fact, fact)
    assert rows(database) == before and len(before) == 1


def test_the_same_key_of_another_kind_is_another_fact(database: Database) -> None:
    registered = came(1)
    note(database, registered, replace(FACTS[3], association=registered.key))
    assert len(rows(database)) == 2


def test_every_kind_is_added_up_in_its_own_units(database: Database, at: At) -> None:
    assert {one.kind for one in FACTS} == set(KINDS) == set(UsageKind)
    at("2026-08-02T10:00", *FACTS)
    found = lines(database, AUGUST)
    registered = found["one", "register", "CT"]
    assert (registered.instances, registered.bytes, registered.studies) == (1, 10, 1)
    assert ("one", "hold", "") not in found, "it was gone before the day was over"
    delivered = found["one", "deliver", "WS"]
    assert (delivered.instances, delivered.bytes, delivered.studies) == (3, 30, 1)
    assert delivered.purpose == "reading"
    connected = found["one", "connect", ""]
    assert (connected.associations, connected.seconds) == (1, 1.5)
    processed = found["one", "process", "mip"]
    assert (processed.images, processed.bytes, processed.seconds) == (400, 4_000, 2.5)


def test_a_month_is_from_midnight_to_midnight_utc(database: Database, at: At) -> None:
    at("2026-07-31T23:59:59.999", came(1))
    at("2026-08-01T00:00:00", came(10))
    at("2026-08-31T23:59:59.999", came(100))
    at("2026-09-01T00:00:00", came(1_000))
    found = lines(database, AUGUST)
    assert found["one", "register", "CT"].bytes == 110
    assert (found["one", "hold", ""].instances, found["one", "hold", ""].bytes) == (3, 111)


def test_byte_days_count_what_each_day_ended_with(database: Database, at: At) -> None:
    at("2026-07-10T12:00", came(1_000), came(7, TWO))
    at("2026-08-01T08:00", came(100))
    at(
        "2026-08-11T23:59",
        HoldingChanged(subscriber=ONE, entry_id="e", instances=-1, size_bytes=-100),
    )
    at("2026-08-20T00:00", came(5))
    held = lines(database, AUGUST)["one", "hold", ""]
    assert held.byte_days == 31 * 1_000 + 10 * 100 + 12 * 5
    so_far = lines(database, AUGUST, now="2026-08-03T09:00")["one", "hold", ""]
    assert so_far.byte_days == 3 * 1_000 + 3 * 100, "of a month that is not over, days begun"
    assert lines(database, AUGUST)["two", "hold", ""].byte_days == 31 * 7
    assert ("one", "hold", "") not in lines(database, Month(year=2026, number=6))


def test_one_subscriber_alone_and_who_sees_but_its_own(database: Database, at: At) -> None:
    at("2026-08-02T10:00", came(1), came(2, TWO))
    assert {key[0] for key in lines(database, AUGUST)} == {"one", "two"}
    assert {key[0] for key in lines(database, AUGUST, subscriber=TWO)} == {"two"}
    own = Caller(subscriber=ONE, rights=frozenset(Right), visibility=Visibility())
    assert {key[0] for key in lines(database, AUGUST, caller=own, subscriber=TWO)} == {"one"}


def test_what_a_month_ended_with_is_remembered_once_it_is_over(database: Database, at: At) -> None:
    table = UsageTable(database)
    at("2026-07-10T12:00", came(1_000))
    at("2026-08-10T12:00", came(100))
    day_ms, expected = 86_400_000, {ONE: Holding(instances=1, size_bytes=1_000)}
    assert table.held_before(AUGUST, AUGUST.start_ms + day_ms // 2) == expected
    assert rows(database, "usage_closed") == [], "transactions of July may still be under way"
    assert table.held_before(AUGUST, AUGUST.start_ms + 2 * day_ms) == expected
    assert rows(database, "usage_closed") == [("2026-07", "one", 1, 1_000)]
    after = {ONE: Holding(instances=2, size_bytes=1_100)}
    assert table.held_before(SEPTEMBER, SEPTEMBER.end_ms) == after
    assert table.held_before(SEPTEMBER, SEPTEMBER.end_ms) == after
    assert [row[0] for row in rows(database, "usage_closed")] == ["2026-07", "2026-08"]
    assert table.held_before(JULY, SEPTEMBER.end_ms) == {}
    assert table.held_before(AUGUST, SEPTEMBER.end_ms) == expected


def test_registrations_of_a_month_are_a_range_of_the_key(tmp_path: Path) -> None:
    """On SQLite; PostgreSQL chooses by its statistics."""
    database = Database(DatabaseSettings(), tmp_path)
    database.migrate()
    plans: list[str] = []
    execute = database.execute

    def explained(sql: str, params: Any = ()) -> Any:
        plans.extend(str(row[3]) for row in execute(f"EXPLAIN QUERY PLAN {sql}", params))
        return execute(sql, params)

    database.execute = explained  # type: ignore[method-assign]
    UsageTable(database).sums(AUGUST, ONE)
    UsageTable(database).changes(AUGUST)
    database.close()
    ranged = "SEARCH usage_fact USING PRIMARY KEY (kind=? AND key>? AND key<?)"
    assert plans.count(ranged) == 2
    assert not any(one.startswith("SCAN usage_fact") for one in plans)


def test_what_a_crash_kept_is_found_all_the_same(database: Database, at: At) -> None:
    """A registration may be noted long after its file was begun: it counts within a week of that."""
    august_ms = AUGUST.start_ms
    late = [
        replace(FACTS[0], object_id=new_object_id(august_ms - days * 86_400_000), size_bytes=size)
        for days, size in ((3, 1), (6, 10), (30, 100))
    ]
    moment_ms = august_ms + 3_600_000
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: moment_ms * 1_000_000)
        note(database, *late)
    assert lines(database, AUGUST)["one", "register", "CT"].bytes == 11
    assert lines(database, JULY)["one", "register", "CT"].bytes == 100


def test_what_is_held_is_compared_with_the_index(database: Database) -> None:
    table, kept = UsageTable(database), instance("1.1", "1.1.1", "1.1.1.1", values={})
    assert table.differences() == []
    with DatabaseRecords(database, "first").transaction() as unit:
        assert unit.add_instance(kept)
    (found,) = table.differences()
    size_bytes = kept.place.size_bytes - kept.place.data_set_offset
    assert (found.noted, found.held.size_bytes) == (Holding(), size_bytes)
    note(database, came(size_bytes, SubscriberName(kept.provenance.registrant)))
    assert table.differences() == []
    note(database, came(0, TWO))
    (found,) = table.differences()
    assert (found.subscriber, found.noted.instances, found.held.instances) == ("two", 1, 0)


def test_what_was_noted_before_is_kept_and_what_is_held_is_counted_once(
    database: Database,
) -> None:
    kept = instance("1.1", "1.1.1", "1.1.1.1", values={})
    whose = kept.provenance.registrant
    with DatabaseRecords(database, "first").transaction() as unit:
        assert unit.add_instance(kept)
    key = {
        "sqlite": "INTEGER PRIMARY KEY",
        "postgresql": "BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY",
    }[database.dialect]
    with database.transaction():
        for statement in (
            "DROP TABLE usage_fact",
            "DROP TABLE usage_closed",
            "DELETE FROM schema_migration WHERE name LIKE '0014%'",
            f"CREATE TABLE usage_fact (id {key}, noted_utc TEXT NOT NULL, subscriber TEXT NOT NULL, "
            "kind TEXT NOT NULL, amount BIGINT NOT NULL, subject TEXT NOT NULL)",
        ):
            database.write(statement)
        for kind, amount, subject in (
            ("register-bytes", 700, "1.1"),
            ("register-bytes", 300, "1.2"),
            ("deliver", 4, "WS"),
            ("deliver-bytes", 4_000, "WS"),
        ):
            database.write(
                "INSERT INTO usage_fact (noted_utc, subscriber, kind, amount, subject) "
                "VALUES ('2026-07-10T12:00:00.123456Z', ?, ?, ?, ?)",
                (whose, kind, amount, subject),
            )
    assert database.migrate() == ["0014_usage"]
    found = lines(database, JULY)
    registered, delivered = found[whose, "register", ""], found[whose, "deliver", "WS"]
    assert (registered.instances, registered.bytes, registered.studies) == (2, 1_000, 2)
    assert (delivered.instances, delivered.bytes) == (4, 4_000)
    assert UsageTable(database).differences() == []
