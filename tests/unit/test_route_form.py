"""A route written as JSON is read as the same route; what is no route is refused with its place."""

import json
from datetime import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacs.core.attributes import Level
from pacs.core.errors import EntryConflicts
from pacs.core.identifiers import AETitle, Registrant
from pacs.core.route_form import form_of, route_of
from pacs.core.routing import Coercion, CoercionKind, Commitment, Priors, Route, RouteKey, Window

TEXT = st.text(max_size=12)
TITLES = st.lists(TEXT.map(AETitle), max_size=3).map(tuple)
KEYS = st.builds(RouteKey, path=TEXT, value=TEXT, unless=st.booleans())
WINDOWS = st.builds(
    Window,
    days=st.frozensets(st.integers(0, 6)),
    begins=st.times(),
    ends=st.times(),
)
COERCIONS = st.builds(
    Coercion,
    kind=st.sampled_from(CoercionKind),
    keyword=TEXT,
    value=TEXT,
    mapping=st.dictionaries(TEXT, TEXT, max_size=3),
)
PRIORS = st.builds(
    Priors,
    latest=st.integers(0, 1 << 40),
    same_modality=st.booleans(),
    same_body_part=st.booleans(),
    within_days=st.none() | st.integers(0, 1 << 40),
)
ROUTES = st.builds(
    Route,
    name=TEXT,
    level=st.sampled_from([Level.IMAGE, Level.SERIES, Level.STUDY]),
    destinations=TITLES,
    keys=st.lists(KEYS, max_size=3).map(tuple),
    calling_ae_titles=st.lists(TEXT, max_size=2).map(tuple),
    called_ae_titles=st.lists(TEXT, max_size=2).map(tuple),
    registrants=st.lists(TEXT.map(Registrant), max_size=2).map(tuple),
    windows=st.lists(WINDOWS, max_size=2).map(tuple),
    coercions=st.lists(COERCIONS, max_size=2).map(tuple),
    priors=st.none() | PRIORS,
    commitment=st.sampled_from(Commitment),
    in_order=st.booleans(),
    priority=st.integers(-(1 << 40), 1 << 40),
    active=st.booleans(),
)
LEAST: dict[str, Any] = {"name": "r", "when": "study", "to": ["DEST"]}


@given(ROUTES)
def test_what_is_written_is_read(route: Route) -> None:
    assert route_of(json.loads(json.dumps(form_of(route)))) == route


def test_only_name_when_and_to_are_needed() -> None:
    assert route_of(LEAST) == Route(
        name="r", level=Level.STUDY, destinations=(AETitle("DEST"),), active=True
    )


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"name": None}, "a route: name is of the wrong type"),
        ({"when": "patient"}, "route r: when is none of instance, series, study"),
        ({"to": "DEST"}, "route r: to is of the wrong type"),
        ({"to": ["DEST", 1]}, "route r: to lists texts"),
        ({"bogus": 1}, "route r: bogus is unknown"),
        ({"active": 1}, "route r: active is of the wrong type"),
        ({"priority": True}, "route r: priority is of the wrong type"),
        ({"priority": 1.5}, "route r: priority is of the wrong type"),
        ({"keys": [{"key": "Modality"}]}, "route r: keys[0]: value is missing"),
        ({"keys": ["Modality=CT"]}, "route r: keys[0]: expected an object"),
        ({"windows": [{}, {"begins": "7"}]}, "route r: windows[1]: begins is a time of day"),
        ({"windows": [{"begins": "07:00+01:00"}]}, "windows[0]: begins has no time zone"),
        ({"windows": [{"days": [7]}]}, "windows[0]: days lists numbers"),
        ({"windows": [{"days": [True]}]}, "windows[0]: days lists numbers"),
        ({"coercions": [{"kind": "eat", "key": "x"}]}, "coercions[0]: kind cannot be 'eat'"),
        ({"coercions": [{"kind": "map", "key": "x", "mapping": {"a": 1}}]}, "mapping maps texts"),
        ({"priors": {}}, "route r: priors: latest is missing"),
        ({"priors": {"latest": 1, "within_days": "9"}}, "priors: within_days is of the wrong type"),
        ({"commitment": "perhaps"}, "route r: commitment cannot be 'perhaps'"),
    ],
)
def test_what_is_no_route_is_refused_with_its_place(change: dict[str, Any], place: str) -> None:
    with pytest.raises(EntryConflicts) as refused:
        route_of({**LEAST, **change})
    assert place in str(refused.value)


@pytest.mark.parametrize("form", [None, [], "r", {1: 2}, {}])
def test_what_is_no_object_is_refused(form: object) -> None:
    with pytest.raises(EntryConflicts):
        route_of(form)


def test_times_stand_as_people_write_them() -> None:
    window = Window(days=frozenset({4, 0}), begins=time(22), ends=time(6, 30))
    route = Route(name="r", level=Level.IMAGE, destinations=(AETitle("A"),), windows=(window,))
    assert form_of(route)["windows"] == [{"days": [0, 4], "begins": "22:00:00", "ends": "06:30:00"}]
