"""The arrival rule asks for jobs from routes and arrivals alone: which, in which queue, under which key."""

import json
import logging
from dataclasses import replace
from datetime import UTC, time, timedelta
from typing import Any

import pytest

from config.settings import Arrival as ArrivalSettings
from pacs.core.attributes import Level
from pacs.core.caller import on_behalf
from pacs.core.forwarding import FORWARD, ForwardWork
from pacs.core.identifiers import AETitle, Registrant, SeriesInstanceUID, StudyInstanceUID
from pacs.core.records import Arrival, Instance, Job, Snapshot
from pacs.core.routing import Priors, Route, RouteKey, Window
from pacs.services.route.asked import FIRE, PRIORS, in_order
from pacs.services.route.rule import RouteRule
from tests.unit.test_route_conditions import BARE, MONDAY_NOON, instance, whole

SETTINGS = ArrivalSettings(series_quiet_s=30.0, study_quiet_s=120.0)
EVENING = Window(begins=time(18), ends=time(20))
OTHER = Registrant("other")


def key(path: str, value: str) -> tuple[RouteKey, ...]:
    return (RouteKey(path=path, value=value),)


def asked(
    *routes: Route, level: Level = Level.IMAGE, of: Instance | None = None, rule: Any = None
) -> list[Job]:
    arrived = instance(whole()) if of is None else of
    caller = on_behalf(Registrant("local"), "test")
    snapshot = Snapshot(revision=1, peers={}, routes=routes)
    return list(
        (rule or RouteRule(SETTINGS, UTC))(
            Arrival(level=level, caller=caller, instance=arrived), snapshot
        )
    )


def kinds(jobs: list[Job]) -> list[str]:
    return [one.kind for one in jobs]


def route(name: str, level: Level = Level.IMAGE, **asked_for: Any) -> Route:
    return replace(BARE, name=name, level=level, **asked_for)


def test_no_routes_ask_for_nothing() -> None:
    assert asked() == []
    assert asked(route("off", active=False), route("off2", Level.STUDY, active=False)) == []


def test_an_instance_asks_to_forward_what_its_study_has_of_the_route() -> None:
    chosen = route("ct", keys=key("Modality", "CT"), priority=7)
    work = ForwardWork(
        route="ct",
        destination=AETitle("DEST"),
        registrant=Registrant("local"),
        study_instance_uid=StudyInstanceUID("1.1"),
        whole=False,
    )
    assert asked(chosen) == [work.job(priority=7, cause="route ct")]
    assert asked(route("mr", keys=key("Modality", "MR"))) == []
    (everything,) = asked(route("all"))
    assert json.loads(everything.payload)["whole"], "nobody needs to be asked again"


def test_what_the_index_does_not_hold_is_left_to_whoever_sends() -> None:
    assert kinds(asked(route("kvp", keys=key("KVP", "80")))) == [FORWARD]
    assert asked(route("kvp", keys=(*key("KVP", "80"), *key("Modality", "MR")))) == []


def test_each_destination_has_its_job_but_not_the_one_it_came_from() -> None:
    three = (AETitle("A"), AETitle("CT1"), AETitle("B"))
    jobs = asked(route("r", destinations=three))
    assert [one.queue for one in jobs] == ["forward:A", "forward:B"]
    assert asked(route("r", destinations=(AETitle("CT1"),))) == []


def test_conditions_on_sender_registrant_and_time_are_decided_at_once() -> None:
    assert asked(route("r", calling_ae_titles=("MR*",))) == []
    assert asked(route("r", called_ae_titles=("X",))) == []
    assert asked(route("r", registrants=(OTHER,))) == []
    assert asked(route("r", windows=(EVENING,))) == []
    evening = instance(whole(), received_utc=MONDAY_NOON + timedelta(hours=7))
    assert kinds(asked(route("r", windows=(EVENING,)), of=evening)) == [FORWARD]


def test_priors_are_asked_for_apart_and_later() -> None:
    forward, priors = asked(route("r", priors=Priors(latest=2)))
    assert (forward.kind, priors.kind) == (FORWARD, PRIORS)
    assert priors.not_before_utc == MONDAY_NOON + timedelta(seconds=30)
    assert priors.unique_key == "route.priors:r|DEST|local|1.1"


def test_routes_of_series_and_studies_ask_to_look_when_it_is_quiet() -> None:
    (series,) = asked(route("e", Level.SERIES), route("e2", Level.SERIES))
    assert (series.kind, series.queue) == ("quiet.series", "quiet")
    assert series.not_before_utc == MONDAY_NOON + timedelta(seconds=30)
    assert series.unique_key == "quiet.series:local|1.1|1.1.1"
    (study,) = asked(route("s", Level.STUDY, keys=key("Modality", "MR"), windows=(EVENING,)))
    assert study.not_before_utc == MONDAY_NOON + timedelta(seconds=120)
    assert study.unique_key == "quiet.study:local|1.1|", "others of the study may match, and later"
    assert asked(route("s", Level.STUDY, calling_ae_titles=("MR*",))) == []
    assert asked(route("s", Level.STUDY, registrants=(OTHER,))) == []


def test_what_is_quiet_asks_whether_its_routes_fire() -> None:
    routes = (route("i"), route("e", Level.SERIES), route("s", Level.STUDY))
    (study,) = asked(*routes, level=Level.STUDY)
    assert (study.kind, study.queue, study.unique_key) == (FIRE, "route", "route.fire:s|local|1.1|")
    (series,) = asked(*routes, level=Level.SERIES)
    assert series.unique_key == "route.fire:e|local|1.1|1.1.1"
    assert asked(route("s", Level.STUDY, windows=(EVENING,)), level=Level.STUDY) == []
    assert asked(route("s", Level.STUDY, registrants=(OTHER,)), level=Level.STUDY) == []
    unseen = route("s", Level.STUDY, calling_ae_titles=("MR*",), keys=key("Modality", "MR"))
    assert kinds(asked(unseen, level=Level.STUDY)) == [FIRE], "another instance may keep them"


def test_conditions_are_made_once_and_anew_for_other_routes() -> None:
    rule = RouteRule(SETTINGS, UTC)
    assert kinds(asked(route("r"), rule=rule)) == [FORWARD]
    assert asked(route("r", keys=key("Modality", "MR")), rule=rule) == []
    assert kinds(asked(route("r"), rule=rule)) == [FORWARD]


def test_a_route_that_cannot_be_asked_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "pacs.route"):
        jobs = asked(route("bad", keys=key("NoSuchKeyword", "1")), route("good"))
    assert [one.cause for one in jobs] == ["route good"]
    assert "route-unusable route=bad" in caplog.text


def test_whole_and_part_are_different_things_to_send() -> None:
    part = ForwardWork(
        route="r",
        destination=AETitle("A"),
        registrant=Registrant("local"),
        study_instance_uid=StudyInstanceUID("1.1"),
        whole=False,
    )
    series = replace(part, series_instance_uid=SeriesInstanceUID("1.1.1"), whole=True)
    made = [part, replace(part, whole=True), series]
    assert len({one.job().unique_key for one in made}) == 3


def test_jobs_are_put_in_the_order_of_their_keys() -> None:
    jobs = [Job(kind="k", payload="", unique_key=one) for one in ("c", None, "a")]
    assert [one.unique_key for one in in_order(jobs)] == [None, "a", "c"]
