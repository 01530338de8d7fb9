"""What a poll asks for: which studies are open, what is missing, in how few requests."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacs.core.identifiers import SeriesInstanceUID, SOPInstanceUID, StudyInstanceUID
from pacs.core.poll_ports import InstanceMemory, InstanceThere, Listed, StudyMemory, StudyThere
from pacs.services.poll.choice import LONGEST_WAIT, Bounds, is_open, missing, requests

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER, EARLIER = NOW + timedelta(hours=1), NOW - timedelta(hours=1)
STUDY = StudyInstanceUID("1.2")
BOUNDS = Bounds(max_attempts=3, retry_s=60.0)


def there(series: int, number: int) -> InstanceThere:
    return InstanceThere(
        series_instance_uid=SeriesInstanceUID(f"1.{series}"),
        sop_instance_uid=SOPInstanceUID(f"1.{series}.{number}"),
    )


@pytest.mark.parametrize(
    ("count", "memory", "open_"),
    [
        (5, None, True),
        (5, StudyMemory(instances=5), False),
        (6, StudyMemory(instances=5), True),
        (4, StudyMemory(instances=5), True),
        (None, StudyMemory(instances=None), True),
        (None, StudyMemory(instances=5), True),
        (5, StudyMemory(instances=5, due_utc=LATER), False),
        (5, StudyMemory(instances=5, due_utc=EARLIER), True),
        (6, StudyMemory(breaks=2, due_utc=LATER), False),
        (6, StudyMemory(breaks=2, due_utc=EARLIER), True),
    ],
)
def test_which_studies_are_looked_at(
    count: int | None, memory: StudyMemory | None, open_: bool
) -> None:
    study = StudyThere(study_instance_uid=STUDY, instances=count)
    assert is_open(study, memory, NOW) is open_


def test_what_is_missing_is_neither_held_nor_was_here_nor_is_given_up_nor_put_off() -> None:
    listed = [there(1, one) for one in range(6)]
    uids = [one.sop_instance_uid for one in listed]
    known = {
        uids[1]: InstanceMemory(came=True),
        uids[2]: InstanceMemory(came=False, attempts=3, due_utc=EARLIER),
        uids[3]: InstanceMemory(came=False, attempts=1, due_utc=LATER),
        uids[4]: InstanceMemory(came=False, attempts=2, due_utc=EARLIER),
    }
    found = missing(listed, frozenset({uids[0]}), known, BOUNDS, NOW)
    assert [one.sop_instance_uid for one in found] == [uids[4], uids[5]]


def test_what_fails_is_put_off_longer_each_time() -> None:
    waits = [BOUNDS.again(times, NOW) - NOW for times in range(1, 5)]
    assert [one.total_seconds() for one in waits] == [0, 60, 120, 240]
    assert BOUNDS.again(60, NOW) - NOW == LONGEST_WAIT


def asked(
    listed: list[InstanceThere], wanted: list[InstanceThere], *, whole: bool = True, **more: int
) -> list[tuple[str, ...]]:
    """Each request as the UIDs it names below the study."""
    bounds = {"room": 1_000, "at_once": 50, **more}
    made = requests(STUDY, Listed(there=tuple(listed), whole=whole), wanted, **bounds)
    return [
        tuple(filter(None, (one.wanted.series_instance_uid, *one.wanted.sop_instance_uids)))
        for one in made
    ]


def test_a_study_of_which_nothing_is_here_is_asked_for_at_once() -> None:
    listed = [there(1, 1), there(2, 1), there(2, 2)]
    assert asked(listed, listed) == [()]


def test_a_series_of_which_nothing_is_here_is_asked_for_at_once_the_rest_in_lists() -> None:
    listed = [there(1, 1), there(1, 2), there(1, 3), there(2, 1), there(2, 2)]
    found = asked(listed, [listed[0], listed[2], listed[3], listed[4]], at_once=1)
    assert found == [("1.1", "1.1.1"), ("1.1", "1.1.3"), ("1.2",)]


def test_what_may_not_be_all_there_is_is_asked_for_by_name() -> None:
    listed = [there(1, 1), there(1, 2)]
    assert asked(listed, listed, whole=False) == [("1.1", "1.1.1", "1.1.2")]


def test_after_breaks_requests_are_ever_smaller() -> None:
    listed = [there(1, one) for one in range(20)]
    sizes = [[len(one) - 1 for one in asked(listed, listed, breaks=breaks)] for breaks in range(4)]
    assert sizes == [[-1], [6, 6, 6, 2], [1] * 20, [1] * 20]


@given(
    series=st.lists(st.integers(1, 30), min_size=1, max_size=5),
    chosen=st.randoms(use_true_random=False),
    room=st.integers(0, 60),
    at_once=st.integers(1, 20),
    breaks=st.integers(0, 3),
)
def test_each_missing_instance_is_asked_for_once_as_far_as_there_is_room(
    series: list[int], chosen: object, room: int, at_once: int, breaks: int
) -> None:
    listed = [there(number, one) for number, many in enumerate(series) for one in range(many)]
    wanted = [one for one in listed if chosen.random() < 0.7]  # type: ignore[attr-defined]
    made = list(
        requests(
            STUDY,
            Listed(there=tuple(listed)),
            wanted,
            room=room,
            at_once=at_once,
            breaks=breaks,
        )
    )
    named = [uid for one in made for uid in one.instances]
    assert named == [one.sop_instance_uid for one in wanted][: len(named)]
    assert len(named) == min(room, len(wanted))
    for one in made:
        if one.wanted.sop_instance_uids:
            assert one.wanted.sop_instance_uids == one.instances
            assert len(one.instances) <= at_once
        else:
            above = one.wanted.series_instance_uid
            whole = [
                each.sop_instance_uid
                for each in listed
                if above is None or each.series_instance_uid == above
            ]
            assert list(one.instances) == whole
